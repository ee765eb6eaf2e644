"""Queries of the ledger whose values are looked at before anybody reckons with them.

The file is the agent's, and root reads it: a value of another type would be a trap.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

_NOTHING = type(None)
_KINDS: dict[str, frozenset[type]] = {
    "t": frozenset({str}),
    "i": frozenset({int}),
    "r": frozenset({float, int}),
    "?": frozenset({float, int, _NOTHING}),
    "n": frozenset({str, _NOTHING}),
}
"""What a column may hold, by its letter: text, integer, real, real or nothing, text or nothing."""
_MOST = 1e12  # of a real


def select(
    database: sqlite3.Connection,
    kinds: str,
    query: str,
    values: Sequence[object] | Mapping[str, object] = (),
) -> Iterator[tuple[Any, ...]]:
    """Yield what a query finds; kinds has a letter of _KINDS for each column.

    Raises sqlite3.Error, for a value of another type too.
    """
    known: set[tuple[type, ...]] = set()
    reals = [place for place, kind in enumerate(kinds) if kind in "r?"]
    for row in database.execute(query, values):
        types = tuple(map(type, row))
        if types not in known:
            if not _fit(types, kinds):
                raise sqlite3.DataError("it holds a value of a wrong type")
            known.add(types)
        if any(row[place] and abs(row[place]) >= _MOST for place in reals):
            raise sqlite3.DataError("it holds a time that no calendar has")
        yield row


def _fit(types: Sequence[type], kinds: str) -> bool:
    return all(each in _KINDS[kind] for each, kind in zip(types, kinds, strict=True))
