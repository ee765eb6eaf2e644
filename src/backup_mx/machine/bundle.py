"""Tree to relay.pyz: one reproducible file that makes a machine the relay."""

from __future__ import annotations

import ast
import hashlib
import io
import json
import zipfile
from collections.abc import Iterator, Sequence
from dataclasses import fields, replace
from importlib import resources
from pathlib import Path

from backup_mx.config import Config
from backup_mx.machine import syntax
from backup_mx.machine import tree as trees
from backup_mx.machine.apply.files import Check, Folder, Service

# The oldest time a zip archive can hold, so that the same config gives the same bytes.
EPOCH = (1980, 1, 1, 0, 0, 0)
COMMENTS = (b"#", b"//")
# The modules of apply/ that a first boot does without.
CAREFUL = ("care.py", "checks.py", "diff.py", "terminal.py", "undo.py")
# What is imported from these serves annotations only, which nothing evaluates in apply/.
TYPING = ("collections.abc", "types", "typing")
MAIN = b"import sys\nfrom apply.main import main\nsys.exit(main())\n"


def bundle(config: Config, relay: str, *, agent: bool = True) -> bytes:
    """Return relay.pyz for the relay called ``relay``: same config, same bytes.

    Without ``agent`` it is what user-data has room for: the mail layer alone, without the comments
    in its files and without what protects a machine that runs. The first deploy brings all of it.
    """
    tree = trees.tree(config, relay, agent=agent)
    return pack(relay, tree) if agent else pack(relay, terse(tree), without=CAREFUL)


def pack(relay: str, tree: trees.Tree, *, without: Sequence[str] = ()) -> bytes:
    """Return relay.pyz that makes a machine ``tree``; its program lacks the modules ``without``."""
    about = {field.name: getattr(tree, field.name) for field in fields(tree)} | {"relay": relay}
    code = program(without)
    about["version"] = digest(code | {"manifest": canonical(about)})
    return archive(code | {"manifest.json": canonical(about)})


def terse(tree: trees.Tree) -> trees.Tree:
    """Return ``tree`` without the lines in its files that only their readers need."""
    return replace(
        tree, files=[replace(file, content=uncommented(file.content)) for file in tree.files]
    )


def uncommented(content: bytes) -> bytes:
    """Return a file of a relay without blank lines, and those that are comments and nothing else.

    All of their languages have these; only in apt's they begin with two slashes.
    """
    lines = enumerate(content.splitlines(keepends=True))
    return b"".join(line for number, line in lines if says(line) or (not number and shebang(line)))


def says(line: bytes) -> bool:
    """Whether a line is neither blank nor a comment."""
    return bool(line.strip()) and not line.lstrip().startswith(COMMENTS)


def shebang(line: bytes) -> bool:
    """Whether a line names the program that a script is for."""
    return line.startswith(b"#!")


def program(without: Sequence[str] = ()) -> dict[str, bytes]:
    """Return the code that applies a bundle, as the archive holds it, but for some modules."""
    package = resources.files("backup_mx.machine") / "apply"
    names = {entry.name: entry for entry in package.iterdir() if entry.name.endswith(".py")}
    modules = [entry for name, entry in names.items() if name not in without]
    return {"__main__.py": MAIN} | {
        f"apply/{entry.name}": lean(entry.read_text()).encode() for entry in modules
    }


def lean(source: str) -> str:
    """Return a module without what only its readers need: user-data has little room.

    Docstrings, comment lines, blank lines, the annotations of functions and what they import go;
    a level of indentation is one space.
    """
    lines = source.splitlines()
    for (first, start), (last, end) in sorted(dispensable(syntax.tree(source)), reverse=True):
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
