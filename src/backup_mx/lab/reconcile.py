"""What was sent against what lies in the mailboxes: the drill's verdict. Pure, no I/O.

A message is told by its Message-ID, its sameness by the hash that ``inside/mailkit.py`` makes of
all that stands below the added trace fields.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, fields
from typing import Any, NamedTuple

from backup_mx.errors import LabError


@dataclass(frozen=True)
class Sent:
    """A line of ``mailkit send``: what the sender's MTA was given, and its answer.

    sha256 and size (octets) are of the message as submitted, after signing; code is 250 when the
    sender's MTA took it.
    """

    number: int
    message_id: str
    kind: str
    recipients: tuple[str, ...]
    signed: bool
    sha256: str
    size: int
    code: int
    reply: str


@dataclass(frozen=True)
class Collected:
    """A line of ``mailkit collect``: one message in a folder (INBOX, Junk) of ``user``.

    dkim is None when it carries no signature; relayed_by names the hosts that took it, last first;
    trace is what MTAs put on top of it, if that was asked for.
    """

    user: str
    folder: str
    message_id: str
    sha256: str
    size: int
    dkim: bool | None
    relayed_by: tuple[str, ...]
    is_dsn: bool
    trace: str


class Copy(NamedTuple):
    """One message for one recipient."""

    message_id: str
    recipient: str


@dataclass(frozen=True)
class KindCount:
    """The counts of one kind of mail: octets and messages sent, and what became of them."""

    kind: str
    octets: int
    sent: int
    delivered: int
    duplicated: int
    altered: int


@dataclass(frozen=True)
class Reconciliation:
    """What became of every message.

    sent, accepted, delivered and lost count messages, dsn bounces. The tuples name what is wrong:
    ``unaccepted`` messages (no MTA ever said 250), ``missing`` copies of accepted ones, one
    ``extra`` entry for each copy too many, ``excused`` ones a power cut explains, ``changed``
    copies, copies whose signature is ``unverified``, ``bounces`` found in mailboxes, and
    ``unexpected`` mail that nobody sent to that mailbox.
    """

    sent: int
    accepted: int
    delivered: int
    dsn: int
    unaccepted: tuple[str, ...]
    missing: tuple[Copy, ...]
    extra: tuple[Copy, ...]
    excused: tuple[Copy, ...]
    changed: tuple[Copy, ...]
    unverified: tuple[Copy, ...]
    bounces: tuple[Copy, ...]
    unexpected: tuple[Copy, ...]
    kinds: tuple[KindCount, ...]

    @property
    def lost(self) -> int:
        """Messages that an MTA accepted and that at least one recipient lacks."""
        return len({copy.message_id for copy in self.missing})

    @property
    def duplicated(self) -> int:
        """Copies too many, the excused ones included."""
        return len(self.extra) + len(self.excused)

    @property
    def altered(self) -> int:
        """Copies whose octets differ from what was submitted."""
        return len(self.changed)

    @property
    def dkim_failed(self) -> int:
        """Copies of signed mail whose signature is gone or does not verify."""
        return len(self.unverified)

    @property
    def reasons(self) -> tuple[str, ...]:
        """Say in plain words what fails the verdict; empty when nothing does."""
        found = (
            (0 if self.sent else 1, "nothing was sent"),
            (self.lost, f"{self.lost} accepted but missing from a mailbox"),
            (len(self.unaccepted), f"{len(self.unaccepted)} never accepted by any MTA"),
            (len(self.extra), f"{len(self.extra)} delivered once too often"),
            (self.altered, f"{self.altered} altered on the way"),
            (self.dkim_failed, f"{self.dkim_failed} with a DKIM signature that does not verify"),
            (self.dsn, f"{self.dsn} bounced (DSN)"),
            (len(self.unexpected), f"{len(self.unexpected)} in a mailbox that nobody sent there"),
        )
        return tuple(text for count, text in found if count)

    @property
    def verdict(self) -> str:
        """Return "pass" or "fail"."""
        return "fail" if self.reasons else "pass"


def reconcile(
    sent: Iterable[Sent],
    accepted: Collection[str],
    collected: Iterable[Collected],
    dsn: int,
    excusable_duplicates: Collection[str] = (),
) -> Reconciliation:
    """Account for every message and every recipient.

    ``accepted`` holds the Message-IDs that the relay or the primary answered 250 to (a copy in a
    mailbox proves acceptance as well, should a power cut have eaten the log line); ``dsn`` counts
    bounces seen elsewhere than in the mailboxes, where they are counted here.

    ``excusable_duplicates`` are Message-IDs that a power cut hit between the commit of the queue
    file and the 250: the sender saw no answer and must send again (RFC 5321 4.5.4.1, 6.1), so one
    extra copy for each recipient is counted and does not fail the verdict. Raises LabError when a
    Message-ID was sent twice, as nothing can be told apart then.
    """
    messages = _by_id(sent)
    wanted = {Copy(each.message_id, user) for each in messages.values() for user in each.recipients}
    bounces, mail = _split(collected, messages)
    found = Counter(_copy(each) for each in mail)
    ours = [each for each in mail if _copy(each) in wanted]
    known = set(accepted) | {each.message_id for each in ours}
    absent = wanted - found.keys()
    excused = {
        copy for copy in wanted if found[copy] > 1 and copy.message_id in excusable_duplicates
    }
    extra = [copy for copy in wanted for _ in range(found[copy] - 1 - (copy in excused))]
    changed = [_copy(each) for each in ours if each.sha256 != messages[each.message_id].sha256]
    return Reconciliation(
        sent=len(messages),
        accepted=len(known & messages.keys()),
        delivered=len(messages) - len({copy.message_id for copy in absent}),
        dsn=dsn + len(bounces),
        unaccepted=tuple(sorted(messages.keys() - known)),
        missing=_sorted(copy for copy in absent if copy.message_id in known),
        extra=_sorted(extra),
        excused=_sorted(excused),
        changed=_sorted(changed),
        unverified=_sorted(_copy(each) for each in ours if _is_unverified(each, messages)),
        bounces=_sorted(_copy(each) for each in bounces),
        unexpected=_sorted(copy for copy in found.elements() if copy not in wanted),
        kinds=_kinds(messages, absent, [*extra, *excused], changed),
    )


def sent_from_json(lines: Iterable[str]) -> list[Sent]:
    """Read the lines of ``mailkit send``; raise LabError at one that is not such a line."""
    return [Sent(**_fields(line, Sent, "recipients")) for line in lines]


def collected_from_json(lines: Iterable[str]) -> list[Collected]:
    """Read the lines of ``mailkit collect``; raise LabError at one that is not such a line."""
    return [Collected(**_fields(line, Collected, "relayed_by")) for line in lines]


def _fields(line: str, record: type, sequence: str) -> dict[str, Any]:
    try:
        values = json.loads(line)
        if values.keys() == {field.name for field in fields(record)}:
            return {**values, sequence: tuple(values[sequence])}
    except (ValueError, AttributeError, TypeError):
        pass
    raise LabError(f"not a line of mailkit's ({record.__name__.lower()}): {line[:200]!r}")


def _by_id(sent: Iterable[Sent]) -> dict[str, Sent]:
    messages: dict[str, Sent] = {}
    for each in sent:
        if each.message_id in messages:
            raise LabError(f"the drill sent {each.message_id} twice: its copies are all one")
        messages[each.message_id] = each
    return messages


def _copy(each: Collected) -> Copy:
    return Copy(each.message_id, each.user)


def _split(
    collected: Iterable[Collected], messages: Mapping[str, Sent]
) -> tuple[list[Collected], list[Collected]]:
    """Part the bounces from the rest; a message of the drill's own is never taken for one."""
    bounces: list[Collected] = []
    mail: list[Collected] = []
    for each in collected:
        is_bounce = each.is_dsn and each.message_id not in messages
        (bounces if is_bounce else mail).append(each)
    return bounces, mail


def _is_unverified(each: Collected, messages: Mapping[str, Sent]) -> bool:
    return messages[each.message_id].signed and each.dkim is not True


def _kinds(
    messages: Mapping[str, Sent],
    absent: Iterable[Copy],
    repeated: Iterable[Copy],
    changed: Iterable[Copy],
) -> tuple[KindCount, ...]:
    """Count by kind, in the order in which the kinds were first sent."""
    numbered = sorted(messages.values(), key=lambda each: each.number)
    octets: Counter[str] = Counter()
    for each in numbered:
        octets[each.kind] += each.size
    of_sent = Counter(each.kind for each in numbered)
    of_lost = Counter(messages[name].kind for name in {copy.message_id for copy in absent})
    of_repeated = Counter(messages[copy.message_id].kind for copy in repeated)
    of_changed = Counter(messages[copy.message_id].kind for copy in changed)
    return tuple(
        KindCount(
            kind=kind,
            octets=octets[kind],
            sent=count,
            delivered=count - of_lost[kind],
            duplicated=of_repeated[kind],
            altered=of_changed[kind],
        )
        for kind, count in of_sent.items()
    )


def _sorted(copies: Iterable[Copy]) -> tuple[Copy, ...]:
    return tuple(sorted(copies))
