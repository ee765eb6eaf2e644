"""A relay on one screen: what its agent last said, or, without an agent, what can be seen."""

from __future__ import annotations

import contextlib
import math
import time
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from backup_mx.errors import MachineError
from backup_mx.relay import settings, state, text
from backup_mx.relay.certificate import Asked
from backup_mx.relay.ledger import PATH
from backup_mx.relay.ledger.rows import Filter
from backup_mx.relay.operator import asking, firstboot, look
from backup_mx.relay.operator.firstboot import FirstBoot
from backup_mx.relay.queue import reasons, spool
from backup_mx.relay.root import maintenance
from backup_mx.relay.state import Count, Disk, Primary, Shown, Snapshot, Sums, TableState

_WORDS = 160  # characters of what a server said


@dataclass(frozen=True)
class Status:
    """What is shown. agent: whether it lives; fresh: whether its ledger tells what waits.

    retention in seconds, 0 where nobody knows it; until: maintenance's end, 0 without; first: how
    the machine became a relay, None where nobody knows.
    """

    now: float
    snapshot: Snapshot | None
    agent: bool
    fresh: bool
    counts: tuple[Count, ...]
    disk: Disk | None
    until: float
    retention: int
    first: FirstBoot | None = None

    @property
    def oldest(self) -> float | None:
        """When the oldest message that is not on hold was accepted."""
        return state.oldest(each for each in self.counts if each.fate == state.WAITING)

    @property
    def left(self) -> float | None:
        """Seconds until the oldest message reaches the retention."""
        if self.oldest is None or not self.retention:
            return None
        return self.oldest + self.retention - self.now

    @property
    def data(self) -> dict[str, Any]:
        """All of it, for programs; snapshot is the agent's last word (state.from_text)."""
        return {
            "asked": self.now,
            "agent": {
                "alive": self.agent,
                "blind": self.agent and not self.fresh,
                "said": self.snapshot.time if self.snapshot else None,
            },
            "counts": [asdict(each) for each in self.counts],
            "oldest": self.oldest,
            "seconds_left": self.left,
            "disk": asdict(self.disk) if self.disk else None,
            "maintenance": self.until or None,
            "retention": self.retention or None,
            "first_boot": asdict(self.first) if self.first else None,
            "snapshot": asdict(self.snapshot) if self.snapshot else None,
        }

    @property
    def lines(self) -> list[str]:
        """All of it, for people."""
        first = [self.first.line] if self.first else []
        return [text.printable(line) for line in (*self._lines(), *first)]

    def _lines(self) -> Iterator[str]:
        last = self.snapshot
        if last:
            yield f"{last.relay} ({last.hostname}), version {last.version[:12]}"
        yield self._about_agent()
        for primary in last.primaries if last else ():
            yield _about_primary(primary, self.now) + ("" if self.agent else self._as_of)
        yield from _about_mail(self.counts, self.now)
        yield from self._about_drain()
        if self.left is not None:
            yield f"retention: {_left(self.left)}"
        if self.until:
            left = text.span(self.until - self.now)
            yield f"maintenance: mail is kept until {text.moment(self.until)} (in {left})"
        if self.disk:
            yield _about_disk(self.disk)
        if last:
            yield from _about_certificates(last, self.now)
            yield from _about_tables(last.tables)
            yield from _about_ledger(last.sums, "" if self.fresh else self._as_of)
        yield from self._about_troubles()

    @property
    def _as_of(self) -> str:
        """What is put behind a value that the agent does not report now: "(as of TIME)"."""
        if self.snapshot is None:
            return ""
        blind = self.snapshot.blind if self.agent else None
        return f" (as of {text.moment(blind.since if blind else self.snapshot.time)})"

    def _about_drain(self) -> Iterator[str]:
        """Tell how fast mail that waits is handed over, while the agent sees that it is."""
        last = self.snapshot if self.fresh and not self.until else None
        if last and 0 < last.eta < math.inf:
            pace = last.per_second
            rate = f"{pace:,.0f}" if pace >= 10 else f"{pace:.2g}"
            yield f"drain: {rate} messages/s, the rest in {text.span(last.eta)}"

    def _about_troubles(self) -> Iterator[str]:
        for each in self.snapshot.troubles if self.snapshot and self.agent else ():
            if each.task != state.FOLLOW:
                lasts = text.span(self.now - each.since)
                yield f"trouble: {each.task} has failed for {lasts}: {each.why[:_WORDS]}"

    def _about_agent(self) -> str:
        if self.snapshot is None:
            return "agent: never heard of; what follows is Postfix's own word"
        blind = self.snapshot.blind
        if self.agent and blind:
            lasts, why = text.span(self.now - blind.since), blind.why[:_WORDS]
            return f"agent: BLIND for {lasts}: {why}; what waits is Postfix's own word"
        if self.agent:
            return f"agent: alive for {text.span(self.now - self.snapshot.started)}"
        silent = text.span(self.now - self.snapshot.time)
        return f"agent: SILENT for {silent}; what waits is Postfix's own word"


def answer(_asked: asking.Asked) -> asking.Said:
    """Answer ``status``."""
    found = status()
    return asking.Said(found.data, found.lines)


def status(path: Path = PATH, lines: look.Lines = look.postqueue) -> Status:
    """Look at the relay. Raises MachineError when not even Postfix tells what waits."""
    with look.agent(path) as (_, snapshot):
        pass
    counts = snapshot.counts if snapshot and look.fresh(snapshot) else None
    if counts is None:
        counts = look.listing(Filter(limit=1), path, lines).counts or ()
    with contextlib.suppress(MachineError):
        retention = snapshot.retention if snapshot else settings.read().retention
        return _status(snapshot, counts, retention)
    return _status(snapshot, counts, 0)


def _status(snapshot: Snapshot | None, counts: tuple[Count, ...], retention: int) -> Status:
    alive = look.alive(snapshot)
    return Status(
        now=time.time(),
        snapshot=snapshot,
        agent=alive,
        fresh=look.fresh(snapshot),
        counts=counts,
        disk=snapshot.disk if snapshot and alive else _disk(),
        until=maintenance.until(),
        retention=retention,
        first=firstboot.read(),
    )


def _disk() -> Disk | None:
    with contextlib.suppress(OSError):
        return spool.disk()
    return None


def _about_primary(primary: Primary, now: float) -> str:
    line = (
        f"primary {primary.name}: {primary.state} since {text.moment(primary.since)}"
        f" ({text.span(now - primary.since)})"
    )
    if primary.walk and not primary.walk.good:
        line += f": at {primary.walk.step}: {primary.walk.words[:_WORDS]}"
    return f"{line}; {primary.paused}" if primary.paused else line


def _about_mail(counts: tuple[Count, ...], now: float) -> Iterator[str]:
    for fate in (state.WAITING, state.HELD):
        some = [each for each in counts if each.fate == fate and each.messages]
        if not some:
            yield f"{fate}: nothing"
            continue
        oldest = state.oldest(some) or now
        yield (
            f"{fate}: {text.counted(sum(each.messages for each in some))},"
            f" {text.size(sum(each.octets for each in some))},"
            f" the oldest for {text.span(now - oldest)}{_by_class(some, fate)}"
        )


def _by_class(counts: list[Count], fate: str) -> str:
    if fate == state.HELD:
        return ""
    tally = {each.why: each.messages for each in counts}
    return (
        " ("
        + ", ".join(f"{tally[each]:,} {each}" for each in reasons.CLASSES if each in tally)
        + ")"
    )


def _left(seconds: float) -> str:
    if seconds > 0:
        return f"the oldest message reaches it in {text.span(seconds)}"
    return f"the oldest message is over it by {text.span(-seconds)}"


def _about_disk(found: Disk) -> str:
    line = f"disk: {text.size(found.free)} free of {text.size(found.total)}"
    if found.damaged:
        return f"{line}: DAMAGED, or read-only"
    low = found.needed and found.free < found.needed
    return f"{line}: FULL, no mail is taken" if low else line


def _about_certificates(last: Snapshot, now: float) -> Iterator[str]:
    if last.certificate:
        yield _about_certificate(last, last.certificate - now)
    if last.asked and last.asked.failures:
        yield _about_asking(last.asked, now)
    for each in last.policies:
        yield from _about_policy(each, now)


def _about_certificate(last: Snapshot, seconds: float) -> str:
    by = "self-signed" if last.certificate_issuer == "" else f"issued by {last.certificate_issuer}"
    about = f"certificate: {by}, " if last.certificate_issuer is not None else "certificate: "
    return about + _expires(seconds)


def _expires(seconds: float) -> str:
    if seconds > 0:
        return f"expires in {text.span(seconds)}"
    return f"EXPIRED {text.span(-seconds)} ago"


def _about_asking(asked: Asked, now: float, whom: str = "") -> str:
    authority = asked.what.partition(" ")[0]
    lasts = text.span(now - asked.since)
    return f"{authority} gives {whom}no certificate, for {lasts} now: {asked.why[:_WORDS]}"


def _about_policy(shown: Shown, now: float) -> Iterator[str]:
    """Tell of a policy's host what it shows: without a certificate, no sender fetches anything."""
    state = "NONE is shown" if shown.ends is None else _expires(shown.ends - now)
    yield f"certificate of {shown.host}: {state}"
    if shown.asked and shown.asked.failures:
        yield _about_asking(shown.asked, now, f"{shown.host} ")


def _about_tables(tables: Iterable[TableState]) -> Iterator[str]:
    """Tell which tables of recipients are not fetched, and who is taken meanwhile."""
    for each in tables:
        if each.trouble:
            kept = f"the table of {text.moment(each.fetched)} stays" if each.fetched else ""
            stays = kept or "there is no table yet, so everybody is taken"
            yield f"recipients of {each.domain}: {each.trouble[:_WORDS]} ({stays})"


def _about_ledger(sums: Sums, old: str) -> Iterator[str]:
    yield sum_line(sums) + old
    if sums.differences:
        yield f"ledger: {text.counted(sums.differences, 'DIFFERENCE')}; backup-mx ledger names them"


def sum_line(sums: Sums) -> str:
    """Write the ledger's sum."""
    sign = "=" if sums.even else "≠"
    return (
        f"ledger: {sums.accepted:,} accepted {sign} {sums.delivered:,} delivered"
        f" + {sums.waiting:,} waiting + {sums.held:,} held + {sums.deleted:,} deleted"
    )
