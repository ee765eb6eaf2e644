"""Whose mail it is, where there are several primaries: pure."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import TypeVar

T = TypeVar("T")


def of_primaries(
    known: Mapping[str, T], owned: Mapping[str, Collection[str]]
) -> dict[str, list[T]]:
    """Return what is known of domains for each primary; ``owned`` has its domains by its name.

    What is of no primary's domain, as a message before its first try, is the only primary's; with
    more than one it is nobody's.
    """
    if len(owned) == 1:
        return {name: list(known.values()) for name in owned}
    owners = {each.lower(): name for name, domains in owned.items() for each in domains}
    found: dict[str, list[T]] = {name: [] for name in owned}
    for domain, what in known.items():
        if domain in owners:
            found[owners[domain]].append(what)
    return found
