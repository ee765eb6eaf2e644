"""A relay's agent as the dashboard sees it, made up: a ledger in memory, and acts that it keeps."""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field, replace
from typing import Any

from relay_settings import SETTINGS

from backup_mx.errors import MachineError
from backup_mx.relay.ledger.query import Reader
from backup_mx.relay.ledger.rows import (
    Action,
    Attempt,
    Change,
    Difference,
    Filter,
    Recipient,
    Row,
    Sample,
    Story,
)
from backup_mx.relay.ledger.veil import Veil
from backup_mx.relay.queue import reasons
from backup_mx.relay.root.protocol import Result
from backup_mx.relay.settings import Settings, Target
from backup_mx.relay.state import (
    DELETED,
    FATES,
    HELD,
    WAITING,
    Count,
    Disk,
    Primary,
    Snapshot,
    Sums,
    TableState,
    Walk,
)

PASSWORD = "correct horse"  # noqa: S105
DIGITS = "0123456789BCDFGHJKLMNPQRSTVWXYZbcdfghjklmnpqrstvwxyz"
TIMED_OUT = "connect to mail.example.org[192.0.2.10]:2526: Connection timed out"
LATER = (
    "host mail.example.org[192.0.2.10] said: 451 4.7.1 Greylisted, please try again in 300 "
    "seconds (in reply to RCPT TO command)"
)
NO_USER = (
    "host mail.example.org[192.0.2.10] said: 550 5.1.1 <olga@example.org>: Recipient address "
    "rejected: User unknown in virtual mailbox table (in reply to RCPT TO command)"
)
KINDS = ((WAITING, "unreachable", TIMED_OUT), (WAITING, "refused", NO_USER),
         (WAITING, "4xx", LATER), (HELD, "held", ""), (WAITING, "new", ""))  # fmt: skip


def settings(**changes: Any) -> Settings:  # noqa: ANN401
    """Return the settings of a relay whose dashboard acts and has no password."""
    primary = Target(
        "home", "mail.example.org", "192.0.2.10", 2526, "verify", ("example.org", "example.net")
    )
    plain = replace(
        SETTINGS,
        targets=(primary,),
        ledger_keep=90 * 86_400,
        recipients_every=3600,
        dashboard_actions=True,
    )
    return replace(plain, **changes)


def queue_id(number: int) -> str:
    """Return the number-th of some long queue IDs."""
    digits = ""
    for _ in range(4):
        number, digit = divmod(number, len(DIGITS))
        digits = DIGITS[digit] + digits
    return f"4bXyTd{digits}z1bG"


def row(number: int, now: float, **changes: Any) -> Row:  # noqa: ANN401
    """Return a message; its kind goes round with its number."""
    fate, why, words = KINDS[(number * 7 // 5) % len(KINDS)]
    accepted = now - 120 - 47 * number
    to = (f"user{number}@example.org", *(("second@example.net",) if number % 6 == 5 else ()))
    last = Attempt(to[0], "deferred", why, words, "4.4.1", "", accepted + 5, now - 60, 3 + number)
    plain = Row(
        id=queue_id(number),
        fate=fate,
        why=why,
        words=words,
        accepted=accepted,
        queued=accepted,
        ended=None,
        size=4_200 + 1_313 * number % 90_000,
        sender=f"someone{number}@sender.example" if number % 9 else "",
        message_id=f"<{number}.abc@sender.example>",
        domain="example.org",
        to=len(to),
        recipients=tuple(Recipient(each, "example.org", False, last) for each in to),
        attempts=3 + number if words else 0,
        last=now - 60 if words else None,
        asked_by="retention" if fate == HELD else "",
        trouble="",
    )
    return replace(plain, **changes)


@dataclass
class PretendReader(Reader):
    """A ledger of rows in a dictionary."""

    rows: dict[str, Row]
    now: float
    found_differences: list[Difference] = field(default_factory=list)
    done: list[Action] = field(default_factory=list)
    family: dict[str, str] = field(default_factory=dict)
    """Which ID a message has now, by the one it had."""
    words: str = TIMED_OUT
    hides: Veil = field(default_factory=Veil)
    """How addresses stand in it."""

    def veil(self) -> Veil:
        return self.hides

    def sums(self) -> Sums:
        fates = [each.fate for each in self.rows.values()]
        numbers = {fate: fates.count(fate) for fate in FATES} | {"delivered": 18_204}
        return Sums(**numbers, accepted=sum(numbers.values()),
                    differences=len(self.found_differences))  # fmt: skip

    def counts(self) -> tuple[Count, ...]:
        kinds = {(each.fate, each.why) for each in self.here()}
        groups = {
            kind: [row for row in self.here() if (row.fate, row.why) == kind] for kind in kinds
        }
        return tuple(
            Count(*kind, len(rows), sum(row.size for row in rows), min(r.accepted for r in rows))
            for kind, rows in groups.items()
        )

    def here(self) -> list[Row]:
        return [each for each in self.rows.values() if each.fate in (WAITING, HELD)]

    def _matching(self, wanted: Filter) -> list[Row]:
        rows = (
            [each for each in self.rows.values() if each.fate == wanted.fate]
            if wanted.fate
            else self.here()
        )
        return [
            each
            for each in rows
            if wanted.why in ("", each.why)
            and wanted.domain in ("", each.domain)
            and self.now - each.accepted >= wanted.older
            and wanted.search in f"{each.id} {each.sender} {each.recipients} {each.message_id}"
        ]

    def waiting(self, wanted: Filter) -> list[Row]:
        return self._matching(wanted)[wanted.offset : wanted.offset + wanted.limit]

    def ids(self, wanted: Filter) -> list[str]:
        return [each.id for each in self.waiting(wanted)]

    def total(self, wanted: Filter) -> int:
        return len(self._matching(wanted))

    def message(self, queue_id: str) -> Story | None:
        now = self.family.get(queue_id, queue_id)
        found = self.rows.get(now)
        if found is None:
            return None
        found = self._veiled(found)
        before = tuple(old for old, new in self.family.items() if new == now)
        attempts = tuple(each.last for each in found.recipients if each.last)
        actions = tuple(each for each in self.done if each.id in (now, *before))
        return Story(found, (*before, now), "", "mta.sender.example[198.51.100.9]",
                     found.recipients, attempts, actions)  # fmt: skip

    def _veiled(self, found: Row) -> Row:
        people = found.recipients if self.hides.hides else ()
        hidden = tuple(replace(each, address=self.hides.recipient(each.address)) for each in people)
        sender = self.hides.sender(found.sender)
        return replace(found, sender=sender, recipients=hidden or found.recipients)

    def differences(self, limit: int = 100) -> list[Difference]:
        return self.found_differences[:limit]

    def history(self, since: float, step: float = 60.0) -> list[Sample]:
        times = [since + at * step for at in range(int((self.now - since) / step) + 1)]
        return [Sample(time, self._wave(time), 0, 0, 0, 0) for time in times
                if not 4.6 < (self.now - time) / 3600 < 5.4]  # fmt: skip

    def _wave(self, time: float) -> int:
        ago = (self.now - time) / 3600
        days = 6 * max(0.0, math.sin(ago / 37)) ** 8
        return round(len(self.here()) * (max(0.0, 1 - ago / 3.3) + days * (ago > 20)))

    def states(self, since: float) -> list[Change]:
        past = ((720, "up"), (101, "down"), (97, "up"), (24.5, "up"), (20, "refusing"),
                (19.2, "up"), (9, "flapping"), (7.5, "up"), (3.2, "down"))  # fmt: skip
        found = [(self.now - 3600 * hours, state) for hours, state in past]
        return [Change(time, "home", state, self.words if state != "up" else "")
                for time, state in found if time >= since]  # fmt: skip

    def actions(self, limit: int = 100) -> list[Action]:
        return self.done[:limit]


def snapshot(reader: PretendReader, **changes: Any) -> Snapshot:  # noqa: ANN401
    """Return what the agent of that ledger says while its primary is down."""
    now = reader.now
    walk = Walk(now - 3, False, "connect", "unreachable", reader.words, 5.01)
    plain = Snapshot(
        time=now - 2,
        started=now - 12 * 86_400,
        relay="mx2",
        hostname="mx2.example.org",
        version="5f0c1f0b7a9d4e11",
        primaries=(Primary("home", "down", now - 3.2 * 3600, 0, walk, now - 3.2 * 3600 - 40),),
        counts=reader.counts(),
        sums=reader.sums(),
        spool={"deferred": (len(reader.here()), 12_000_000)},
        reconciled=now - 240,
        guarded=now - 30,
        disk=Disk(31 * 2**30, 48 * 2**30, 2 * 2**30),
        certificate=now + 61 * 86_400,
        tables=(TableState("example.org", 214, now - 1200),),
        retention=30 * 86_400,
        counters={"accepted": 18_400},
    )
    return replace(plain, **changes)


@dataclass
class PretendView:
    """The agent behind the dashboard; acts on a message change its row."""

    settings: Settings
    ledger: PretendReader
    changes: dict[str, Any] = field(default_factory=dict)
    asked: list[tuple[str, tuple[str, ...], str, str]] = field(default_factory=list)
    drained: list[tuple[str, str]] = field(default_factory=list)
    helper: bool = True
    headers: str = ""
    body: str = ""

    def snapshot(self) -> Snapshot:
        return snapshot(self.ledger, **self.changes)

    def reader(self) -> AbstractContextManager[Reader]:
        return nullcontext(self.ledger)

    async def change(
        self, verb: str, ids: Sequence[str], by: str, address: str
    ) -> Sequence[Result]:
        self._need_helper()
        self.asked.append((verb, tuple(ids), by, address))
        return [self._change(verb, each, by, address) for each in ids]

    def _change(self, verb: str, queue_id: str, by: str, address: str) -> Result:
        found = self.ledger.rows.get(queue_id)
        if found is None or found.fate not in (WAITING, HELD):
            return Result(queue_id, False, "no such message")
        self.ledger.done.insert(0, Action(self.ledger.now, verb, queue_id, by, address, True))
        fates = {"hold": (HELD, reasons.HELD), "delete": (DELETED, found.why)}
        fate, why = fates.get(verb, (WAITING, reasons.NEW))
        ended = self.ledger.now if fate == DELETED else None
        self.ledger.rows[queue_id] = replace(
            found, fate=fate, why=why, words="", asked_by=by, ended=ended
        )
        return Result(queue_id, True, f"{verb} done")

    async def show(self, queue_id: str, body: bool) -> dict[str, Any]:
        self._need_helper()
        found = self.ledger.rows[queue_id]
        people = [{"address": each.address, "done": each.done} for each in found.recipients]
        shown = {"id": queue_id, "queue": "deferred", "size": found.size, "headers": self.headers,
                 "sender": found.sender, "recipients": people, "cut": False}  # fmt: skip
        return shown | ({"body": self.body} if body else {})

    async def drain(self, by: str, address: str) -> None:
        self._need_helper()
        self.drained.append((by, address))

    def _need_helper(self) -> None:
        if not self.helper:
            raise MachineError("the helper cannot be asked: Connection refused")


HEADERS = """\
Received: from mta.sender.example (mta.sender.example [198.51.100.9])
\tby mx2.example.org (Postfix) with ESMTPS id 4bXyTd0001z1bG
\tfor <user1@example.org>; Sun, 22 Nov 2026 07:41:02 +0000 (UTC)
From: "Someone" <someone1@sender.example>
To: user1@example.org
Subject: The minutes of Thursday
Message-ID: <1.abc@sender.example>
"""


def view(messages: int = 137, now: float | None = None, **changes: Any) -> PretendView:  # noqa: ANN401
    """Return an agent with so many messages; changes are of its settings."""
    now = time.time() if now is None else now
    rows = {each.id: each for each in (row(number, now) for number in range(1, messages + 1))}
    reader = PretendReader(rows, now)
    return PretendView(settings(**changes), reader, headers=HEADERS, body="Dear all,\n\nsee you.\n")
