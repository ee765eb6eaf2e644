"""A module's files held against the providers' schema, without Terraform."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import hcl2  # type: ignore[import-not-found]
from bindings import Block, UnknownTypeError

Read = dict[str, Any]
# What Terraform itself knows in every resource and data source.
OF_ALL = {"count", "depends_on", "for_each", "lifecycle", "provider", "provisioner", "connection"}
MARKS = {"__is_block__", "__comments__", "__inline_comments__"}


@functools.cache
def parsed(text: str) -> Read:
    """Return what a file says; to parse one takes a tenth of a second."""
    read: Read = hcl2.loads(text)
    return read


def blocks_of(module: Path, kind: str) -> Iterator[tuple[str, str, Read]]:
    """Yield the type, the name and the content of each resource or data source of a module."""
    for path in sorted(module.glob("*.tf")):
        for each in parsed(path.read_text(encoding="utf-8")).get(kind, []):
            for label, named in each.items():
                if kind == "provider":
                    yield label.strip('"'), "", named
                    continue
                for name, content in named.items():
                    yield label.strip('"'), name.strip('"'), content


def mistakes(module: Path, kind: str, schema: Callable[[str], Block]) -> Iterator[str]:
    """Tell what in a module's resources, data sources or providers the schema does not have."""
    for label, name, content in blocks_of(module, kind):
        where = f"{kind} {label} {name}".strip()
        try:
            block = schema(label)
        except UnknownTypeError as error:
            yield f"{where}: {error}"
            continue
        own = {key: value for key, value in content.items() if key not in OF_ALL}
        yield from within(own, block, where)


def within(content: Read, block: Block, where: str) -> Iterator[str]:
    """Tell what is wrong with the content of one block."""
    for key, value in content.items():
        if key in MARKS:
            continue
        if bodies := list(blocks_in(key, value)):
            for name, body in bodies:
                yield from nested(name, body, block, where)
        elif key not in block.arguments:
            yield f"{where}: there is no argument {key}"
        elif not (block.arguments[key].required or block.arguments[key].optional):
            yield f"{where}: {key} is not an argument: the provider tells it"
    for name, argument in block.arguments.items():
        if argument.required and name not in content:
            yield f"{where}: the argument {name} is missing"


def blocks_in(key: str, value: object) -> Iterator[tuple[str, Read]]:
    """Yield the name and content of each block that stands under a key, dynamic ones as well.

    An object that an argument has for its value is no block.
    """
    for each in value if isinstance(value, list) else []:
        if key == "dynamic":
            for name, inner in each.items():
                yield from ((name.strip('"'), body) for body in inner["content"])
        elif isinstance(each, dict) and "__is_block__" in each:
            yield key, each


def nested(name: str, content: Read, block: Block, where: str) -> Iterator[str]:
    """Tell what is wrong with a block in a block."""
    if name not in block.blocks:
        yield f"{where}: there is no block {name}"
    else:
        yield from within(content, block.blocks[name], f"{where} {name}")
