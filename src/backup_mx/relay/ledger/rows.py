"""What the ledger takes and gives: plain values. Times are seconds since 1970, sizes bytes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from backup_mx.relay.decide.drain import Tally
from backup_mx.relay.state import Primary

RETENTION = "retention"
"""Who the agent's own holds are by."""

UNKNOWN = "unknown, by postsuper"
"""Who an act is by that went past the helper."""


@dataclass(frozen=True)
class Progress:
    """What one batch of log lines told.

    read counts lines; behind says that there is more to read at once, and reached that whatever was
    written before that time is read. accepted counts messages; answers are those for recipients of
    each domain. told are sentences for the operator: a gap in the log, a ledger that had to be
    begun anew.
    """

    read: int = 0
    behind: bool = False
    reached: float = 0.0
    accepted: int = 0
    answers: Mapping[str, Tally] = field(default_factory=dict)
    told: tuple[str, ...] = ()


@dataclass(frozen=True)
class Aged:
    """A message by its age: accepted when, queued since (its last requeue), for which domains.

    why is the worst reason that its recipients wait for, also while it is on hold. held is since
    when it is on hold, released when it was last released or requeued, if ever.
    """

    id: str
    accepted: float
    queued: float
    why: str
    domains: tuple[str, ...]
    held: float | None = None
    released: float | None = None


@dataclass(frozen=True)
class Due:
    """What the lifetime decider has to judge, oldest first, each list cut at its limit.

    overdue: messages that wait, were accepted longer ago than the retention, and are not merely
    queued for a primary that is up. held: messages on hold by retention; first those whose primary
    has come up since, or is up and did not refuse them. expiring: messages queued so long ago that
    Postfix's own limit is near.
    """

    overdue: tuple[Aged, ...] = ()
    held: tuple[Aged, ...] = ()
    expiring: tuple[Aged, ...] = ()


@dataclass(frozen=True)
class Filter:
    """Which messages to list: all that is given must hold.

    fate is one of state.FATES, "" for all that still lie here (waiting and held); why a class
    of reasons; older than so many seconds; search a part of an address, of a queue ID or of a
    Message-ID (the whole of it where addresses are hashed).
    """

    domain: str = ""
    why: str = ""
    older: float = 0.0
    fate: str = ""
    search: str = ""
    limit: int = 100
    offset: int = 0


@dataclass(frozen=True)
class Attempt:
    """A run of equal attempts for one recipient: from first to last, so many times.

    status is sent, deferred, refused (a deferral for the other server's 5xx), or bounced.
    """

    address: str
    status: str
    why: str
    words: str
    dsn: str
    relay: str
    first: float
    last: float
    times: int


@dataclass(frozen=True)
class Recipient:
    """One who shall get a message; last is his latest run of attempts, None before the first."""

    address: str
    domain: str
    done: bool
    last: Attempt | None


@dataclass(frozen=True)
class Row:
    """A message; id is its queue ID of now, words the reason it waits for, in the server's words.

    recipients holds at most the first eight of ``to``; asked_by says who held or deleted it.
    """

    id: str
    fate: str
    why: str
    words: str
    accepted: float
    queued: float
    ended: float | None
    size: int
    sender: str
    message_id: str
    domain: str
    to: int
    recipients: tuple[Recipient, ...]
    attempts: int
    last: float | None
    asked_by: str
    trouble: str


@dataclass(frozen=True)
class Action:
    """What somebody did to a message, and whether the log says that it took effect."""

    time: float
    verb: str
    id: str
    by: str
    source: str
    done: bool


@dataclass(frozen=True)
class Story:
    """All that the ledger knows of a message: every queue ID it has had, the first one first."""

    row: Row
    ids: tuple[str, ...]
    origin: str
    client: str
    recipients: tuple[Recipient, ...]
    attempts: tuple[Attempt, ...]
    actions: tuple[Action, ...]


@dataclass(frozen=True)
class Difference:
    """A message of which ledger and spool say different things; since when, and in which way."""

    id: str
    trouble: str
    since: float
    accepted: float
    sender: str
    recipients: tuple[str, ...]


@dataclass(frozen=True)
class Sample:
    """The queue at one minute: messages and bytes that waited, how many of them were held.

    delivered and accepted are the monotonic counters of that minute.
    """

    time: float
    messages: int
    octets: int
    held: int
    accepted: int
    delivered: int


@dataclass(frozen=True)
class Change:
    """A primary that went into another state, and the words of the walk that showed it."""

    time: float
    name: str
    state: str
    words: str

    @classmethod
    def of(cls, primary: Primary) -> Change:
        """Return the change that brought a primary into the state it is in."""
        walk = primary.walk
        words = walk.words if walk and not walk.good else ""
        return cls(primary.since, primary.name, primary.state, words)
