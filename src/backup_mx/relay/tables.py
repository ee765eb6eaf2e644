"""A table of recipients: the one reader of such files, at the operator's, the agent's, Postfix's.

A line is an address, or the part of one before the ``@``, or ``@domain`` for everybody there; what
follows a ``#`` is a comment. Postfix reads it as a texthash: (DATABASE_README), an address a line.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass

from backup_mx.errors import MachineError

# RFC 5321's dot-string, with RFC 6531's letters, and dots wherever Postfix takes them; a quoted
# local part would need Postfix's own quoting.
_LOCAL = re.compile(r"[^\s\"(),:;<>@\[\\\]\x00-\x20\x7f]{1,64}")
_SHOWN = 60
_DAY = 86_400.0
_PEAK = re.compile(r"(\d{1,9}) recipients until (\d{1,12})$", re.MULTILINE)


def addresses(text: str, domain: str, source: str) -> tuple[str, ...]:
    """Return the recipients that a table of ``domain`` lists, in small letters, sorted.

    Raises MachineError, which names ``source`` and the line, on the first that is none, and where
    there is not a single one: an empty table would refuse everybody.
    """
    found = set(_addresses(text, domain, source))
    if not found:
        raise MachineError(f"{source} names no recipient of {domain}: all mail would be refused")
    return tuple(sorted(found))


def _addresses(text: str, domain: str, source: str) -> Iterator[str]:
    for number, line in enumerate(text.removeprefix("\ufeff").splitlines(), 1):
        entry = _comment(line).strip()
        if not entry:
            continue
        local, at, host = entry.rpartition("@") if "@" in entry else (entry, "", domain)
        if host.lower() != domain:
            raise _wrong(source, number, entry, f"is not in {domain}")
        if (local or not at) and not _LOCAL.fullmatch(local):
            raise _wrong(source, number, entry, "is no address")
        yield f"{local}@{domain}".lower()


def _comment(line: str) -> str:
    """Return a line without its comment; a ``#`` within a word belongs to the word."""
    return re.sub(r"(^|\s)#.*", "", line)


def _wrong(source: str, number: int, entry: str, what: str) -> MachineError:
    shown = "".join(each if each.isprintable() else "?" for each in entry[:_SHOWN])
    return MachineError(f'{source}, line {number}: "{shown}" {what}')


def believed(
    new: Collection[str], old: Collection[str], largest: int, may_shrink: int
) -> frozenset[str]:
    """Return the table that takes the old one's place: the new one, where it is to be believed.

    may_shrink is a percentage: people leave, but not many of them in a day, in which the largest
    table had so many. One that takes everybody refuses nobody, however short it is: its line joins
    the addresses before it, so that the next one is measured by them, and not by that line alone.
    Raises MachineError for one that would refuse people whom the one before did not.
    """
    if len(new) * 100 >= largest * (100 - may_shrink):
        return frozenset(new)
    if everybody := [each for each in new if each.startswith("@")]:
        return frozenset((*old, *everybody))
    raise MachineError(
        f"it shrank from {largest} to {len(new)} recipients, by more than {may_shrink} %"
    )


@dataclass(frozen=True)
class Peak:
    """How many recipients the largest table of the last day had, and until when (since 1970)."""

    recipients: int
    until: int

    def beside(self, table: Collection[str]) -> str:
        """Return what is to be noted beside a table, nothing for one that is as large."""
        shrank = self.recipients > len(table)
        return f"{self.recipients} recipients until {self.until}\n" if shrank else ""


def peak(noted: str, old: Collection[str], now: float) -> Peak:
    """Return the peak by now, of the table ``old`` and what is noted beside it."""
    if found := _PEAK.search(noted):
        before = Peak(int(found[1]), int(found[2]))
        if before.recipients > len(old) and abs(now - before.until) < _DAY:
            return before
    return Peak(len(old), int(now))


def texthash(recipients: Iterable[str], origin: str) -> str:
    """Return recipients as lines of a texthash: table; its values are for who reads the file."""
    return "".join(f"{each} {origin}\n" for each in recipients)
