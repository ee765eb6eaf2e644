"""What changes a zone: a provider's API, or a name server that takes updates."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from backup_mx.dns.plan import Change


@dataclass(frozen=True)
class Room:
    """How many records a zone has, and how many it may have."""

    used: int
    limit: int


class Provider(Protocol):
    """Changes zones. Every method raises DnsError when it is refused, or nobody answers."""

    @property
    def words(self) -> str:
        """How it is called in a plan."""

    def room(self, zone: str) -> Room | None:
        """Return how many records there are, None where there is no limit."""

    def apply(self, zone: str, changes: Sequence[Change]) -> None:
        """Make the changes in one step; one that has been made already is none."""
