"""A queue file's envelope, as postcat(1) prints it. Pure: bytes in, values out."""

from __future__ import annotations

import re
import time
from collections.abc import Iterable
from dataclasses import dataclass, field

_LINE = re.compile(rb"([a-z_0-9]+): ?(.*)", re.DOTALL)
_SECTION = re.compile(rb"\*\*\* ENVELOPE RECORDS \S*?([0-9A-Za-z]+) \*\*\*\n?")
_KEPT = 200  # named attributes of a message; there are two dozen
_NUMBER = re.compile(r"\d{1,18}")


@dataclass(frozen=True)
class Recipient:
    """A recipient as Postfix keeps him; done: he has the message.

    address is whom it goes to; original whom the sender wrote, orcpt and notify what DSN says
    (RFC 3461 sections 4.1 and 4.2; notify as Postfix's number), "" where there is none.
    """

    address: str
    original: str = ""
    orcpt: str = ""
    notify: str = ""
    done: bool = False


@dataclass(frozen=True)
class Envelope:
    """An envelope; text keeps what is no UTF-8 as lone surrogates.

    arrival is the time of the first acceptance as Postfix prints it, sender "" for null,
    content the size of header and body in bytes as stored; smtputf8: it was asked for with it.
    """

    sender: str
    arrival: str
    content: int
    smtputf8: bool
    recipients: tuple[Recipient, ...]
    attributes: dict[str, str] = field(default_factory=dict)

    @property
    def eightbit(self) -> bool:
        """Whether the message was announced as BODY=8BITMIME (RFC 6152)."""
        return self.attributes.get("encoding") == "8bit"


def parse(printed: bytes) -> Envelope:
    """Read the records of ``postcat -e``; a damaged envelope yields what there is of it."""
    found: dict[str, str] = {}
    attributes: dict[str, str] = {}
    recipients: list[Recipient] = []
    about: dict[str, str] = {}
    for line in printed.split(b"\n"):
        record = _LINE.fullmatch(line)
        if not record:
            continue
        name, value = record[1].decode(), record[2].decode("utf-8", "surrogateescape")
        if name in {"recipient", "done_recipient"}:
            recipients.append(_recipient(value, about, done=name == "done_recipient"))
            about = {}
        elif name == "original_recipient":
            about[name] = value
        elif name == "named_attribute":
            key, _, rest = value.partition("=")
            if key in {"dsn_orig_rcpt", "notify_flags"}:
                about[key] = rest
            elif len(attributes) < _KEPT:
                attributes[key] = rest
        else:
            found.setdefault(name, value)
    return _envelope(found, recipients, attributes)


def delivered(printed: Iterable[bytes]) -> frozenset[str]:
    """Return the IDs of the messages that everybody has, of all whose envelopes are printed.

    Given line by line, of which nothing is kept: strangers say how many recipients there are.
    """
    has, waits, name = set[str](), set[str](), ""
    for line in printed:
        if line.startswith(b"done_recipient:"):
            has.add(name)
        elif line.startswith(b"recipient:"):
            waits.add(name)
        elif section := _SECTION.fullmatch(line):
            name = section[1].decode()
    return frozenset(has - waits - {""})


def seconds(arrival: str) -> int:
    """Read the local time that postcat prints (asctime(3)); 0 for anything else."""
    try:
        return int(time.mktime(time.strptime(arrival)))
    except ValueError:
        return 0


def _recipient(address: str, about: dict[str, str], *, done: bool) -> Recipient:
    return Recipient(
        address,
        original=about.get("original_recipient", ""),
        orcpt=about.get("dsn_orig_rcpt", ""),
        notify=about.get("notify_flags", ""),
        done=done,
    )


def _envelope(
    found: dict[str, str], recipients: list[Recipient], attributes: dict[str, str]
) -> Envelope:
    # size, offset of the content, recipients, flags, length of the content, SMTPUTF8's flags
    sizes = _NUMBER.findall(found.get("message_size", ""))
    return Envelope(
        sender=found.get("sender", ""),
        arrival=found.get("message_arrival_time", ""),
        content=int(sizes[0]) if sizes else 0,
        smtputf8=len(sizes) > 5 and bool(int(sizes[5]) & 1),
        recipients=tuple(recipients),
        attributes=attributes,
    )
