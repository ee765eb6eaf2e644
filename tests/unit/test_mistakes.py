"""Mistakes: how far the search for their lines goes."""

from __future__ import annotations

import tomllib
from typing import Any

import pytest

from backup_mx.config import parse
from backup_mx.errors import ConfigError, Problem

RELAY = """[relay.mx2]
hostname = "mx2.example.org"
address = "203.0.113.20"
"""
REST = """
[primary.home]
hostname = "mail.example.org"
[domain."example.org"]
"""


def problems_of(text: str) -> tuple[Problem, ...]:
    with pytest.raises(ConfigError) as caught:
        parse(text, "test")
    return caught.value.problems


def long_text(lines: int) -> str:
    """Return a config whose one mistake is a text of so many lines."""
    return RELAY + 'ssh = """\n' + "a line of text\n" * lines + '"""' + REST


def long_list(items: int) -> str:
    """Return a config whose mistakes are a list of so many items, each on its line."""
    return RELAY + REST + "[intake]\ndnsbl = [\n" + "5,\n" * items + "]\n"


def test_line_before_a_long_text() -> None:
    """A text of a hundred lines is found at the line where it begins."""
    (problem,) = problems_of(long_text(100))
    assert (problem.path, problem.line) == ("relay.mx2.ssh", 4)


def test_lines_in_a_long_list() -> None:
    """Each wrong item of a list of a hundred is found at its own line."""
    lines = [problem.line for problem in problems_of(long_list(100))]
    assert lines == list(range(10, 110))


def test_line_after_many_lines() -> None:
    """A mistake at the end of a long file is found: length alone costs little."""
    text = RELAY + REST.replace("[domain", "# a comment\n" * 5000 + "[domain") + "primary = 5"
    assert [problem.line for problem in problems_of(text)] == [5008]


@pytest.mark.parametrize("text", [long_text(5000), long_list(5000)], ids=["text", "list"])
def test_search_for_lines_ends(text: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A value of thousands of lines is told without lines rather than after minutes."""
    parsed = 0
    loads = tomllib.loads

    def counted(text: str) -> dict[str, Any]:
        nonlocal parsed
        parsed += len(text)
        return loads(text)

    monkeypatch.setattr(tomllib, "loads", counted)
    assert None in [problem.line for problem in problems_of(text)]
    assert parsed < 1_200_000  # the file itself, and what the search may
