"""Values: what they become, and that the file that knows them knows nothing of the options."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

from backup_mx import values
from backup_mx.values import HostPort, SshTarget

PACKAGE = Path(values.__file__).parent


@pytest.mark.parametrize(
    ("host", "next_hop"),
    [("mail.example.org", "[mail.example.org]:25"), ("2001:db8::1", "[2001:db8::1]:25")],
)
def test_next_hop(host: str, next_hop: str) -> None:
    """Postfix's next hop is in brackets, so that no MX record is looked up."""
    assert HostPort(host, 25).next_hop == next_hop


@pytest.mark.parametrize(
    ("value", "written"),
    [
        (HostPort("mail.example.org", 25), "mail.example.org:25"),
        (HostPort("2001:db8::1", 25), "[2001:db8::1]:25"),
        (SshTarget("me", "203.0.113.20", 2222), "me@203.0.113.20:2222"),
        (SshTarget("root", "2001:db8::20", 22), "root@[2001:db8::20]:22"),
    ],
)
def test_written_as_in_the_file(value: HostPort | SshTarget, written: str) -> None:
    """A host with a port is written as the config file has it."""
    assert str(value) == written


@pytest.mark.parametrize(
    ("module", "below"),
    [
        ("checks", set()),
        ("values", {"checks", "errors", "secret"}),
        ("conflicts_cloud", {"errors"}),
        ("conflicts_live", {"conflicts_cloud", "errors"}),
        ("mistakes", {"checks", "conflicts_cloud", "conflicts_live", "errors", "values"}),
    ],
)
def test_imports_point_down(module: str, below: set[str]) -> None:
    """values, mistakes and config each import only what stands before them: no cycle."""
    tree = ast.parse((PACKAGE / f"{module}.py").read_text(encoding="utf-8"))
    names = [node.module or "" for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)]
    names += [
        each.name for node in ast.walk(tree) if isinstance(node, ast.Import) for each in node.names
    ]
    ours = {name for name in names if name.startswith("backup_mx")}
    assert ours == {f"backup_mx.{name}" for name in below}
