"""The units of systemd that the docs have people write: read as systemd reads them."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import click
import pytest

from backup_mx.cli import cli

DOCS = Path(__file__).parents[2] / "docs"
_BLOCK = re.compile(r"^```ini\n(.*?)^```$", re.MULTILINE | re.DOTALL)
UNITS = [
    pytest.param(block, id=f"{page.stem}-{number}")
    for page in sorted(DOCS.rglob("*.md"))
    for number, block in enumerate(_BLOCK.findall(page.read_text()))
]


def values(unit: str) -> list[tuple[str, str]]:
    """Return what a unit sets; raises ValueError for a line that is none (systemd.syntax(7))."""
    lines = [line for line in unit.splitlines() if line and line[0] not in "#;["]
    return [(name, value) for name, _, value in (line.partition("=") for line in lines)]


@pytest.mark.parametrize("unit", UNITS)
def test_a_comment_stands_on_a_line_of_its_own(unit: str) -> None:
    """Behind a value it is a part of that."""
    assert all(name and value and "#" not in value for name, value in values(unit)), unit


@pytest.mark.parametrize("unit", UNITS)
def test_what_a_unit_starts_is_a_verb_with_arguments_that_it_takes(unit: str) -> None:
    """As the command line itself reads them."""
    for name, value in values(unit):
        words = shlex.split(value)
        if name.startswith("Exec") and Path(words[0]).name == "backup-mx":
            parsed(cli, words[1:])


def parsed(group: click.Command, words: list[str]) -> None:
    """Have click read a command line, and run nothing. Raises click.UsageError."""
    context = click.Context(group)
    while isinstance(group, click.Group):
        _, group, words = group.resolve_command(context, words)  # type: ignore[assignment]
    group.make_context("backup-mx", words)


def test_there_are_such_units() -> None:
    """The verbs that run by themselves are among them."""
    whole = "".join(
        block for page in DOCS.rglob("*.md") for block in _BLOCK.findall(page.read_text())
    )
    assert {"gate run", "probe serve"} <= set(re.findall(r"bin/backup-mx (\w+ \w+)", whole))


@pytest.mark.parametrize("words", ["gate rum", "gate run --every 1d", "probe serve # in the tree"])
def test_what_is_no_verb_is_seen(words: str) -> None:
    """Else none of this would be worth anything."""
    with pytest.raises(click.UsageError):
        parsed(cli, shlex.split(words))
