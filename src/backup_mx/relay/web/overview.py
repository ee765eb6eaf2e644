"""The first page: what somebody wants to know at three in the morning, in that order."""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from dataclasses import dataclass

from aiohttp import web

from backup_mx.relay.ledger.query import Reader
from backup_mx.relay.ledger.rows import Change, Sample
from backup_mx.relay.queue import reasons
from backup_mx.relay.state import UP, Count, Primary, Snapshot, waiting
from backup_mx.relay.tell import conditions
from backup_mx.relay.tell.alarm import FAILURE, INFO, WARNING, Alarm
from backup_mx.relay.tell.known import primary_of
from backup_mx.relay.text import counted, size, span
from backup_mx.relay.web.chart import BUCKETS, Band, Curve, bands, curve
from backup_mx.relay.web.shown import STATE_WORDS
from backup_mx.relay.web.visit import Visit

DAY = 86_400.0
SPANS = (("day", "24 hours", DAY), ("month", "30 days", 30 * DAY))
STALE = 60.0
"""Seconds after which the page says that its numbers are old."""
_WORST = (FAILURE, WARNING, INFO)


@dataclass(frozen=True)
class Verdict:
    """The page's first lines; level is that of the worst alarm, "well" without any.

    advice is what there is to say of primaries that are not well, a line each.
    """

    level: str
    title: str
    words: str
    advice: tuple[str, ...]


@dataclass(frozen=True)
class Chart:
    """A span of time drawn: the queue, and below it the states of each primary by its name."""

    name: str
    title: str
    curve: Curve
    bands: tuple[tuple[str, tuple[Band, ...]], ...]


async def overview(visit: Visit) -> web.Response:
    """Answer GET /."""
    now, snapshot = time.time(), visit.view.snapshot()
    samples, changes = await visit.read(lambda reader: _past(reader, now))
    charts = [_chart(span, now, samples[span[0]], changes, snapshot.primaries) for span in SPANS]
    found = sorted(conditions.alarms(snapshot), key=lambda each: _WORST.index(each.severity))
    return visit.page(
        "overview.html",
        snapshot=snapshot,
        verdict=verdict(snapshot, found),
        alarms=[each for each in found if not primary_of(each.key)],
        charts=charts,
        counts=sorted(snapshot.counts, key=_urgency),
        stale=now - snapshot.time > STALE,
    )


def _past(reader: Reader, now: float) -> tuple[dict[str, list[Sample]], list[Change]]:
    samples = {name: reader.history(now - length, length / BUCKETS) for name, _, length in SPANS}
    return samples, reader.states(now - 30 * DAY)


def _chart(
    which: tuple[str, str, float],
    now: float,
    samples: Sequence[Sample],
    changes: Sequence[Change],
    primaries: Sequence[Primary],
) -> Chart:
    name, title, length = which
    start = now - length
    drawn = curve(((each.time, each.messages) for each in samples), start, now)
    states = [
        (primary.name, [(each.time, each.state) for each in changes if each.name == primary.name])
        for primary in primaries
    ]
    strips = tuple((owner, bands(of, start, now)) for owner, of in states)
    return Chart(name, title, drawn, strips)


def _urgency(each: Count) -> int:
    return reasons.CLASSES.index(each.why) if each.why in reasons.CLASSES else -1


def verdict(snapshot: Snapshot, alarms: Sequence[Alarm]) -> Verdict:
    """Say in two sentences how things stand."""
    level = alarms[0].severity if alarms else "well"
    states = ", ".join(f"{each.name} {STATE_WORDS[each.state]}" for each in snapshot.primaries)
    bodies = [each.body for each in alarms if primary_of(each.key)]
    advice = tuple(line for body in bodies for line in body.split("\n"))
    others = len(alarms) - len(bodies)
    needs = f"; {others} thing{' needs' if others == 1 else 's need'} you" if others else ""
    title = (states or "the agent is starting") + needs
    return Verdict(level, title, _mail(snapshot), advice)


def _mail(snapshot: Snapshot) -> str:
    if not snapshot.messages:
        return "No mail waits here."
    age = span(snapshot.time - snapshot.oldest) if snapshot.oldest is not None else "unknown"
    verb = "lies" if snapshot.messages == 1 else "lie"
    much = f"{counted(snapshot.messages)} ({size(snapshot.octets)})"
    said = f"{much} {verb} here, the oldest for {age}."
    return f"{said} {_next(snapshot)}".rstrip()


def _next(snapshot: Snapshot) -> str:
    waits = waiting(snapshot.counts)
    if waits and snapshot.maintenance is not None:
        return "They are kept back until the maintenance ends."
    if 0 < snapshot.eta < math.inf:
        return f"At the present pace they are handed over in {span(snapshot.eta)}."
    if waits and all(each.state != UP for each in snapshot.primaries):
        return "They go out by themselves as soon as the primary is back."
    return ""
