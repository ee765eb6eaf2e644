"""The house rules that code can break without any other test noticing."""

from __future__ import annotations

import ast
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

SOURCE = Path(__file__).parents[2] / "src" / "backup_mx"
MODULES = sorted(SOURCE.rglob("*.py"))

# Who may import whom, by top-level name; a package may always import itself.
ALLOWED = {
    "errors": set(),
    "secret": {"errors"},
    "checks": set(),
    "values": {"errors", "checks", "secret"},
    "config": {"errors", "checks", "values", "mistakes"},
    "mistakes": {"errors", "checks", "values"},
    "sample": {"config", "checks"},
    "relay": {"errors"},
    "machine": {"errors", "config", "values"},
    "net": set(),
    "findings": set(),
    "kit": {"errors", "config", "checks", "values", "machine", "net", "findings"},
    "lab": {"errors", "config", "machine", "relay", "kit"},
    "cli": {"errors", "config", "sample", "machine", "relay", "kit", "findings", "lab"},
}


def room(path: Path) -> str:
    return path.relative_to(SOURCE).parts[0].removesuffix(".py")


def imported(path: Path) -> Iterator[str]:
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and node.module and not node.level:
            yield node.module
            if node.module.startswith("backup_mx"):
                yield from (f"{node.module}.{alias.name}" for alias in node.names)
        elif isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)


def ours(path: Path) -> set[str]:
    names = {name.split(".")[1] for name in imported(path) if name.startswith("backup_mx.")}
    return {name for name in names if (SOURCE / name).exists() or (SOURCE / f"{name}.py").exists()}


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(SOURCE)))
def test_imports_go_one_way(path: Path) -> None:
    """Config knows no machine, a machine knows no lab, and nobody imports the verbs."""
    if room(path) != "__init__":
        assert ours(path) <= ALLOWED[room(path)] | {room(path)}


@pytest.mark.parametrize(
    "path",
    [
        *(each for each in MODULES if room(each) == "machine" and each.parent.name == "apply"),
        SOURCE / "net" / "smtp.py",
    ],
)
def test_what_runs_on_the_machine_needs_nothing(path: Path) -> None:
    """relay.pyz, and the walk that a relay is sent, import the standard library only."""
    assert {name.partition(".")[0] for name in imported(path)} <= sys.stdlib_module_names


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(SOURCE)))
def test_no_shell(path: Path) -> None:
    """Programs are given argument lists, never a shell's text."""
    for node in ast.walk(ast.parse(path.read_text())):
        assert not (isinstance(node, ast.keyword) and node.arg == "shell")


@pytest.mark.parametrize(
    "path", [path for path in MODULES if room(path) != "cli" and "inside" not in path.parts]
)
def test_only_the_verbs_exit(path: Path) -> None:
    """A library raises; what ends the process is cli, and the programs that run alone."""
    calls = [node for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.Call)]
    exits = [node for node in calls if ast.unparse(node.func) in {"sys.exit", "exit", "os._exit"}]
    assert not exits
