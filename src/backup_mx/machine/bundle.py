"""Tree to relay.pyz: one reproducible file that makes a machine the relay."""

from __future__ import annotations

import ast
import hashlib
import io
import json
import zipfile
from dataclasses import asdict
from importlib import resources
from typing import Any

from backup_mx.config import Config
from backup_mx.machine import tree as trees

# The oldest time a zip archive can hold, so that the same config gives the same bytes.
EPOCH = (1980, 1, 1, 0, 0, 0)
MAIN = b"import sys\nfrom apply.main import main\nsys.exit(main())\n"


def bundle(config: Config, relay: str) -> bytes:
    """Return relay.pyz for the relay called ``relay``: same config, same bytes."""
    tree = trees.tree(config, relay)
    contents = program() | {f"files{path}": file.content for path, file in tree.files.items()}
    about = manifest(config, relay, tree)
    about["version"] = digest(contents | {"manifest": canonical(about)})
    return archive(contents | {"manifest.json": canonical(about)})


def program() -> dict[str, bytes]:
    """Return the code that applies a bundle, as the archive holds it."""
    package = resources.files("backup_mx.machine") / "apply"
    modules = [entry for entry in package.iterdir() if entry.name.endswith(".py")]
    return {"__main__.py": MAIN} | {
        f"apply/{entry.name}": lean(entry.read_text()).encode() for entry in modules
    }


def lean(source: str) -> str:
    """Return a module without docstrings and comment lines: user-data has little room."""
    lines = source.splitlines(keepends=True)
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.FunctionDef | ast.ClassDef | ast.Module) and len(node.body) > 1:
            first = node.body[0]
            if ast.get_docstring(node) is not None:
                lines[first.lineno - 1 : first.end_lineno] = [""] * count_lines(first)
    return "".join(line for line in lines if not line.lstrip().startswith("#"))


def count_lines(node: ast.stmt) -> int:
    """Return how many lines a statement takes."""
    return (node.end_lineno or node.lineno) - node.lineno + 1


def version(archive_bytes: bytes) -> str:
    """Return the content hash that a relay.pyz carries: the machine's config version."""
    with zipfile.ZipFile(io.BytesIO(archive_bytes)) as opened:
        return str(json.loads(opened.read("manifest.json"))["version"])


def manifest(config: Config, relay: str, tree: trees.Tree) -> dict[str, Any]:
    """Return what apply.py has to know beside the files' contents."""
    return {
        "relay": relay,
        "hostname": config.relays[relay].hostname,
        "packages": trees.PACKAGES,
        "debconf": trees.DEBCONF,
        "directories": {path: asdict(entry) for path, entry in tree.directories.items()},
        "files": {
            path: {"mode": file.mode, "owner": file.owner, "group": file.group}
            for path, file in tree.files.items()
        },
        "checks": [asdict(check) for check in tree.checks],
        "services": [asdict(service) for service in tree.services],
        "port": 25,
    }


def canonical(value: object) -> bytes:
    """Return ``value`` as JSON, in one way only."""
    return json.dumps(value, sort_keys=True, separators=(",", ":")).encode()


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
