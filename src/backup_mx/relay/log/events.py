"""What a line of Postfix's log can tell: plain values; times in seconds since 1970."""

from __future__ import annotations

from typing import NamedTuple

SENT, DEFERRED, REFUSED, BOUNCED, PROBED = "sent", "deferred", "refused", "bounced", "probed"
"""How an attempt ended. refused: deferred although the server said 5xx (soft_bounce); probed: it
was no message, but an address probe of verify(8)."""


class Arrived(NamedTuple):
    """smtpd(8) begins to take a message: there is no telling yet whether it will be accepted."""

    time: float
    id: str
    client: str


class Submitted(NamedTuple):
    """pickup(8) takes a message from maildrop; original is the ID it had before a requeue."""

    time: float
    id: str
    sender: str
    original: str


class Named(NamedTuple):
    """cleanup(8) saw the Message-ID."""

    time: float
    id: str
    message_id: str


class Parked(NamedTuple):
    """cleanup(8) will put the message on hold as soon as it is complete."""

    time: float
    id: str


class Cancelled(NamedTuple):
    """cleanup(8) threw an incomplete message away (Postfix 3.10 says so)."""

    time: float
    id: str


class Queued(NamedTuple):
    """qmgr(8) has it in its active queue: it was accepted, now or earlier; size in bytes."""

    time: float
    id: str
    sender: str
    size: int
    recipients: int


class Tried(NamedTuple):
    """An attempt for one recipient ended; status is one of the words above."""

    time: float
    id: str
    recipient: str
    relay: str
    dsn: str
    status: str
    words: str


class Expired(NamedTuple):
    """qmgr(8) gives the message up: what is left of it is in the notice."""

    time: float
    id: str


class Noticed(NamedTuple):
    """bounce(8) has made a notice that carries the message; notice is its queue ID."""

    time: float
    id: str
    notice: str


class Removed(NamedTuple):
    """qmgr(8) is done with it."""

    time: float
    id: str


class Changed(NamedTuple):
    """postsuper(1) did it: hold, release, requeue, delete; process is its process ID."""

    time: float
    id: str
    verb: str
    process: int


class Swept(NamedTuple):
    """postsuper(1) deleted so many in all; with ALL it names none of them."""

    time: float
    messages: int
    process: int


class Announced(NamedTuple):
    """Our helper is about to do it, for somebody at some address."""

    time: float
    id: str
    verb: str
    by: str
    source: str


class Imported(NamedTuple):
    """A message that another relay had accepted was put into this queue; origin is RELAY/ID."""

    time: float
    id: str
    origin: str
    accepted: float
    by: str


class Rejected(NamedTuple):
    """The intake said no; kind is one of REJECTIONS."""

    kind: str


class Counted(NamedTuple):
    """Something that is only counted, by the counter's name."""

    name: str


Event = (
    Arrived
    | Submitted
    | Named
    | Parked
    | Cancelled
    | Queued
    | Tried
    | Expired
    | Noticed
    | Removed
    | Changed
    | Swept
    | Announced
    | Imported
    | Rejected
    | Counted
)

REJECTIONS = (
    "relay_denied",
    "size",
    "recipient",
    "other5xx",
    "dnsbl",
    "pregreet",
    "standby",
    "disk",
    "unverified",
    "other4xx",
)
"""What the intake said no for; the first four are 5xx."""

GARBAGE = Counted("garbage")
"""A line that Postfix's logger did not write."""
