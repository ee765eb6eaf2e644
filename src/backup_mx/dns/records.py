"""A record, its text in a zone file, and which record takes another one's place."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

TTL = 300
"""Seconds: five minutes long does a withdrawn record still draw mail."""
LONGEST_TTL = 86_400
"""Seconds: a record that draws mail for longer than a day is not published."""

_NAMED = ("MX", "CNAME", "NS", "PTR")
_LONGEST = 255  # bytes of one string of a TXT record (RFC 1035, section 3.3)


@dataclass(frozen=True, order=True)
class Record:
    """A record; name and data as `backup_mx.net.dns` returns them.

    as_cut is a text as it is cut in the zone, "" for one that is not there yet: readers do not
    care, but who takes it away has to name it so (RFC 2136, section 3.4.2.4).
    """

    name: str
    kind: str
    data: str
    as_cut: str = field(default="", compare=False)

    @property
    def target(self) -> str:
        """The name that it leads to, "" for a type that leads to none."""
        return self.data.rpartition(" ")[2] if self.kind in _NAMED else ""

    @property
    def preference(self) -> int:
        """An MX record's preference."""
        return int(self.data.partition(" ")[0])

    @property
    def text(self) -> str:
        """The data as a zone file has it."""
        if self.kind == "TXT":
            return self.as_cut or " ".join(_quoted(part) for part in _parts(self.data))
        return self.data if self.target in ("", ".") else f"{self.data}."

    def line(self, ttl: int = TTL) -> str:
        """Return the line of a zone file; ttl in seconds."""
        return f"{self.name}. {ttl} IN {self.kind} {self.text}"


def displaces(new: Record, old: Record) -> bool:
    """Tell whether ``old`` has to go where ``new`` is to stand.

    A relay's name has one address of a kind, and one key. Of the mail exchangers of a domain only
    the one with the same name is concerned, of the texts only what says the same sort of thing.
    """
    if (new.name, new.kind) != (old.name, old.kind) or new.data == old.data:
        return False
    if new.kind == "MX":
        return new.target == old.target
    if new.kind == "TXT":
        return _sort(new.data) == _sort(old.data)
    return True


def _sort(text: str) -> str:
    """Return what a text says it is: "v=stsv1", "v=tlsrptv1" (RFC 8461, 3.1; RFC 8460, 3)."""
    return text.partition(";")[0].strip().lower()


def _parts(text: str) -> Iterator[bytes]:
    raw = text.encode()
    for start in range(0, max(len(raw), 1), _LONGEST):
        yield raw[start : start + _LONGEST]


def _quoted(part: bytes) -> str:
    """Return a string as master files have it (RFC 1035, section 5.1)."""
    return f'"{"".join(map(_letter, part))}"'


def _letter(byte: int) -> str:
    letter = chr(byte)
    if letter in '"\\':
        return f"\\{letter}"
    return letter if " " <= letter <= "~" else f"\\{byte:03}"
