"""Tree to relay.pyz: one reproducible file that makes a machine the relay."""

from __future__ import annotations

import ast
import hashlib
import io
import json
import zipfile
from collections.abc import Iterator
from dataclasses import fields
from importlib import resources
from pathlib import Path

from backup_mx.config import Config
from backup_mx.machine import tree as trees
from backup_mx.machine.apply.files import Check, Folder, Service

# The oldest time a zip archive can hold, so that the same config gives the same bytes.
EPOCH = (1980, 1, 1, 0, 0, 0)
# What is imported from these serves annotations only, which nothing evaluates in apply/.
TYPING = ("collections.abc", "types", "typing")
MAIN = b"import sys\nfrom apply.main import main\nsys.exit(main())\n"


def bundle(config: Config, relay: str) -> bytes:
    """Return relay.pyz for the relay called ``relay``: same config, same bytes."""
    return pack(relay, trees.tree(config, relay))


def pack(relay: str, tree: trees.Tree) -> bytes:
    """Return relay.pyz that makes a machine ``tree``."""
    about = {field.name: getattr(tree, field.name) for field in fields(tree)} | {"relay": relay}
    code = program()
    about["version"] = digest(code | {"manifest": canonical(about)})
    return archive(code | {"manifest.json": canonical(about)})


def program() -> dict[str, bytes]:
    """Return the code that applies a bundle, as the archive holds it."""
    package = resources.files("backup_mx.machine") / "apply"
    modules = [entry for entry in package.iterdir() if entry.name.endswith(".py")]
    return {"__main__.py": MAIN} | {
        f"apply/{entry.name}": lean(entry.read_text()).encode() for entry in modules
    }


def lean(source: str) -> str:
    """Return a module without what only its readers need: user-data has little room.

    Docstrings, comment lines, blank lines, the annotations of functions and what they import go;
    a level of indentation is one space.
    """
    lines = source.splitlines()
    for (first, start), (last, end) in sorted(dispensable(ast.parse(source)), reverse=True):
        lines[first - 1 : last] = [lines[first - 1][:start] + lines[last - 1][end:]]
    kept = [line for line in lines if line.strip() and not line.lstrip().startswith("#")]
    return "".join(line[indent(line) * 3 // 4 :] + "\n" for line in kept)


def indent(line: str) -> int:
    """Return how many spaces a line begins with."""
    return len(line) - len(line.lstrip(" "))


def dispensable(module: ast.Module) -> Iterator[tuple[tuple[int, int], tuple[int, int]]]:
    """Yield from which line and column to which the parts go that a program runs without."""
    for node in ast.walk(module):
        if isinstance(node, ast.FunctionDef | ast.ClassDef | ast.Module):
            if ast.get_docstring(node) is not None:
                yield span(node.body[0])
        elif isinstance(node, ast.ImportFrom) and node.module in TYPING:
            yield span(node)
        if isinstance(node, ast.FunctionDef) and node.returns:
            yield span(node.returns, len(" -> "))
        elif isinstance(node, ast.arg) and node.annotation:
            yield span(node.annotation, len(": "))


def span(node: ast.stmt | ast.expr, before: int = 0) -> tuple[tuple[int, int], tuple[int, int]]:
    """Return where a node, with ``before`` characters in front of it, begins and ends."""
    end = node.end_lineno or node.lineno, node.end_col_offset or node.col_offset
    return (node.lineno, node.col_offset - before), end


def version(archive_bytes: bytes) -> str:
    """Return the content hash that a relay.pyz carries: the machine's config version."""
    with zipfile.ZipFile(io.BytesIO(archive_bytes)) as opened:
        return str(json.loads(opened.read("manifest.json"))["version"])


def canonical(value: object) -> bytes:
    """Return ``value`` as JSON, in one way only."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), default=plain).encode()


def plain(value: object) -> object:
    """Return what JSON has no word for in words of its own."""
    match value:
        case Folder() | Check() | Service():
            return {
                field.name: getattr(value, field.name)
                for field in fields(value)
                if getattr(value, field.name) != field.default
            }
        case Path():
            return str(value)
        case bytes():
            return value.decode()
    raise TypeError(f"{value!r} does not belong into a bundle")


def digest(contents: dict[str, bytes]) -> str:
    """Return the SHA-256 over names and contents, each preceded by its length."""
    sha = hashlib.sha256()
    for name, content in sorted(contents.items()):
        sha.update(f"{len(name)}:{name}{len(content)}:".encode() + content)
    return sha.hexdigest()


def archive(contents: dict[str, bytes]) -> bytes:
    """Return a runnable zip archive of ``contents`` (the zipapp module's format).

    Nothing is compressed in it: no version of zlib has a say in the bytes, and what carries the
    archive compresses all of it at once, which takes less room.
    """
    buffer = io.BytesIO(b"#!/usr/bin/env python3\n")
    buffer.seek(0, io.SEEK_END)
    with zipfile.ZipFile(buffer, "a", zipfile.ZIP_STORED) as opened:
        for name, content in sorted(contents.items()):
            opened.writestr(zipfile.ZipInfo(name, EPOCH), content)
    return buffer.getvalue()
