"""How a relay's answers are written: plain text, as wide as the reader's screen.

Most of what is shown comes from the network: only printable characters get through.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import lru_cache

_UNITS = {"s": 1, "min": 60, "m": 60, "h": 3600, "d": 86_400, "w": 604_800}
_SPAN = (("d", 86_400), ("h", 3600), ("min", 60), ("s", 1))
_LONGEST = 1e12  # seconds: whoever has a number that is none means for ever
_DURATION = re.compile(rf"([0-9]{{1,9}})\s*({'|'.join(_UNITS)})")
_GAP = 2


def printable(text: str) -> str:
    """Return ``text`` without anything that could steer a terminal."""
    if text.isprintable():  # nearly all is, and a listing has 100,000 cells
        return text
    return "".join(each if each.isprintable() else "\N{REPLACEMENT CHARACTER}" for each in text)


def lines(text: str) -> str:
    """Return a text of several lines, each printable; a tab is kept as spaces."""
    return "\n".join(printable(each.expandtabs()) for each in text.split("\n"))


def span(seconds: float) -> str:
    """Write a duration as people say it, by its two largest units: "3 h 12 min"."""
    rest, counts = round(min(max(0, seconds), _LONGEST)), []
    for name, length in _SPAN:
        count, rest = divmod(rest, length)
        counts.append((count, f"{count} {name}"))
    first = next((at for at, (count, _) in enumerate(counts) if count), len(counts) - 1)
    said = [words for count, words in counts[first : first + 2] if count]
    return " ".join(said) or "0 s"


def seconds(text: str) -> int:
    """Read a duration as people write it, with its unit: "4h", "30d". Raises ValueError."""
    found = _DURATION.fullmatch(text.strip().lower())
    if not found:
        raise ValueError(f'"{printable(text)}" is no duration: write 90s, 20min, 4h or 30d')
    return int(found[1]) * _UNITS[found[2]]


def size(octets: float) -> str:
    """Write a number of bytes as people do."""
    for unit in ("B", "KiB", "MiB"):
        if octets < 1024:
            return f"{octets:.0f} {unit}"
        octets /= 1024
    return f"{octets:.1f} GiB"


def moment(time: float) -> str:
    """Write a time, seconds since 1970, to the minute; any number can be written."""
    try:
        return datetime.fromtimestamp(time, UTC).strftime("%Y-%m-%d %H:%M UTC")
    except (ValueError, OverflowError, OSError):
        return "at a time that no calendar has"


def counted(number: int, word: str = "message") -> str:
    """Write a number with what is counted."""
    return f"{number:,} {word}" + ("" if number == 1 else "s")


def width(text: str) -> int:
    """Return how many columns a terminal needs for ``text``, which is printable."""
    if text.isascii():
        return len(text)
    return sum(map(_columns, text))


@lru_cache(1024)
def _columns(character: str) -> int:
    if unicodedata.combining(character):
        return 0
    return 2 if unicodedata.east_asian_width(character) in "WF" else 1


def cut(text: str, room: int) -> str:
    """Return as much of ``text`` as has room in so many columns, an ellipsis where it is cut."""
    if width(text) <= room:
        return text
    if text.isascii():
        return text[: room - 1] + "…" if room else ""
    kept, used = [], 1
    for each in text:
        used += _columns(each)
        if used > room:
            break
        kept.append(each)
    return "".join(kept) + "…" if room else ""


@dataclass(frozen=True)
class Column:
    """A table's column: its title, the least it is cut to, and its share of what room is left.

    Without a share it is as wide as it needs to be.
    """

    title: str
    right: bool = False
    least: int = 0
    share: int = 0


def table(columns: Sequence[Column], rows: Iterable[Sequence[str]], room: int | None) -> list[str]:
    """Return a table's lines, of at most ``room`` columns (None: as many as it needs)."""
    cells = [[each.title for each in columns], *([printable(cell) for cell in row] for row in rows)]
    wanted = [max(width(row[place]) for row in cells) for place in range(len(columns))]
    widths = wanted if room is None else _fitted(columns, wanted, room)
    return [_line(columns, row, widths) for row in cells]


def _fitted(columns: Sequence[Column], wanted: Sequence[int], room: int) -> list[int]:
    """Share the room out: first what a column needs at least, then the rest by shares."""
    widths = [
        min(want, column.least) if column.share else want
        for column, want in zip(columns, wanted, strict=True)
    ]
    left = room - sum(widths) - _GAP * (len(columns) - 1)
    shares = sum(column.share for column in columns)
    for place in sorted(range(len(columns)), key=lambda each: wanted[each]):
        if columns[place].share and left > 0:
            more = min(wanted[place] - widths[place], left * columns[place].share // shares)
            widths[place] += more
            left -= more
            shares -= columns[place].share
    return widths


def _line(columns: Sequence[Column], row: Sequence[str], widths: Sequence[int]) -> str:
    parts = []
    for column, cell, room in zip(columns, row, widths, strict=True):
        shown, wide = cell, width(cell)
        if wide > room:
            shown = cut(cell, room)
            wide = width(shown)
        pad = " " * (room - wide)
        parts.append(pad + shown if column.right else shown + pad)
    return (" " * _GAP).join(parts).rstrip()
