"""What an operator must be told: the conditions that a Snapshot shows, and when each is news.

Pure. ``alarms`` names every condition that holds; ``judge`` remembers which of them were told, and
makes notices of what begins, gets worse, goes on for a day, or is over.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from backup_mx.relay.state import STARTING, UP, Primary, Snapshot
from backup_mx.relay.tell import conditions
from backup_mx.relay.tell.alarm import FAILURE, INFO, WARNING, Alarm
from backup_mx.relay.tell.known import gone, primary_of, unknown, unread
from backup_mx.relay.text import counted, span

REST_SECONDS = 600.0
"""An alarm that was over is not told again before this has passed since it was told last."""
GROWTH_SECONDS = 6 * 3600.0
"""How often one is told whose count has grown."""
REMINDER_SECONDS = 24 * 3600.0
"""How often one is told that just goes on."""
SUCCESS = "success"
GONE = "What it was about is no longer in the config."
RANK = {INFO: 0, WARNING: 1, FAILURE: 2}


@dataclass(frozen=True)
class Notice:
    """Something to tell: of which alarm, how bad (info, success, warning, failure), and when."""

    key: str
    severity: str
    title: str
    body: str
    time: float


@dataclass(frozen=True)
class Open:
    """What is remembered of an alarm: since when it holds, and how it was told last.

    told is 0.0 where it never was; active is false from when it was over until it is forgotten.
    """

    since: float
    told: float = 0.0
    severity: str = INFO
    count: int = 0
    active: bool = True
    title: str = ""
    over: str = ""

    @property
    def announced(self) -> bool:
        """Whether somebody was told since it holds."""
        return self.active and self.told >= self.since


@dataclass(frozen=True)
class Drain:
    """Mail that a primary is handed after an outage: since when, and what it had had by then."""

    since: float
    delivered: int


@dataclass(frozen=True)
class Memory:
    """What was told before.

    open is by the notice's key. down, by primary, is since when it has not been up, in seconds
    since 1970; drains, by primary, is the drain that goes on.
    """

    open: Mapping[str, Open] = field(default_factory=dict)
    down: Mapping[str, float] = field(default_factory=dict)
    drains: Mapping[str, Drain] = field(default_factory=dict)


def judge(memory: Memory, now: Snapshot) -> tuple[Memory, tuple[Notice, ...]]:
    """Return what to remember, and what to tell now."""
    holding = {alarm.key: alarm for alarm in conditions.alarms(now)}
    opened: dict[str, Open] = {}
    notices: list[Notice] = []
    for key, alarm in holding.items():
        opened[key], told = _hold(memory.open.get(key), alarm, now)
        notices += told
    for key in memory.open.keys() - holding.keys():
        kept, told = _end(key, memory.open[key], memory, now)
        opened |= {key: kept} if kept else {}
        notices += told
    drains, told = _drained(_drains(memory, notices, now), now)
    return Memory(opened, _down(memory, now), drains), (*notices, *told)


def _hold(known: Open | None, alarm: Alarm, now: Snapshot) -> tuple[Open, list[Notice]]:
    """Go on with an alarm that holds."""
    before = known if known and known.active else Open(now.time, known.told if known else 0.0)
    # A clock that was put back must not silence anything.
    opened = replace(before, since=min(before.since, now.time), told=min(before.told, now.time))
    again = _news(opened, alarm, now.time)
    if again is None:
        return opened, []
    notice = Notice(alarm.key, alarm.severity, f"[{now.relay}] {again}{alarm.title}",
                    alarm.body, now.time)  # fmt: skip
    told = replace(opened, told=now.time, severity=alarm.severity, count=alarm.count,
                   title=alarm.title, over=alarm.over)  # fmt: skip
    return told, [notice]


def _news(opened: Open, alarm: Alarm, now: float) -> str | None:
    """Return what to begin the title with if the alarm is to be told now, None if it is not."""
    quiet = now - opened.told
    if not opened.announced:
        lasts = now - opened.since >= alarm.grace
        return "" if lasts and (quiet >= REST_SECONDS or opened.told == 0.0) else None
    if RANK[alarm.severity] > RANK[opened.severity]:
        return ""
    grown = alarm.count > opened.count and quiet >= GROWTH_SECONDS
    return "still: " if grown or quiet >= REMINDER_SECONDS else None


def _end(key: str, known: Open, memory: Memory, now: Snapshot) -> tuple[Open | None, list[Notice]]:
    """Go on with an alarm that holds no longer: it is over, if that can be known now."""
    if unknown(key, now):
        return known, []
    rests = now.time - known.told < REST_SECONDS
    kept = replace(known, active=False) if rests else None
    if not known.announced:
        return kept, []
    if gone(key, now):
        title = f"[{now.relay}] no longer watched: {known.title}"
        return kept, [Notice(key, INFO, title, GONE, now.time)]
    since = memory.down.get(primary_of(key), known.since)
    body = f"It lasted {span(now.time - since)}. {_over(key, known, now)}".strip()
    return kept, [Notice(key, SUCCESS, f"[{now.relay}] over: {known.title}", body, now.time)]


def _over(key: str, known: Open, now: Snapshot) -> str:
    """Return the last words on an alarm: for a primary that is back, how much was kept for it."""
    name = primary_of(key)
    waiting = sum(each.waiting for each in now.primaries if each.name == name)
    if not waiting:
        return known.over
    return f"{known.over} Kept meanwhile, and handed over now: {counted(waiting)}."


def _down(memory: Memory, now: Snapshot) -> dict[str, float]:
    """Return since when each primary that is not up has not been, over all its states."""
    return {
        each.name: memory.down.get(each.name, each.since)
        for each in now.primaries
        if each.state != UP and (each.state != STARTING or each.name in memory.down)
    }


def _drains(memory: Memory, notices: list[Notice], now: Snapshot) -> dict[str, Drain]:
    """Return the drains that begin now that their primary is told to be back, or go on."""
    ends = (each.key for each in notices if each.severity == SUCCESS)
    back = {primary_of(key) for key in ends}
    begun = {
        each.name: Drain(now.time, each.delivered)
        for each in now.primaries
        if each.name in back and each.waiting
    }
    return {**begun, **memory.drains}


def _drained(drains: Mapping[str, Drain], now: Snapshot) -> tuple[dict[str, Drain], list[Notice]]:
    """Tell the end of each drain: nothing waits for that primary any more."""
    if unread(now):
        return dict(drains), []
    left: dict[str, Drain] = {}
    notices: list[Notice] = []
    for each in now.primaries:
        drain = drains.get(each.name)
        if drain and each.waiting:
            left[each.name] = drain
        elif drain and each.delivered >= drain.delivered:  # else the ledger was begun anew
            notices.append(_handed_over(each, drain, now))
    return left, notices


def _handed_over(primary: Primary, drain: Drain, now: Snapshot) -> Notice:
    count = counted(primary.delivered - drain.delivered)
    body = f"It took {span(now.time - drain.since)} from when the primary was back."
    title = f"[{now.relay}] handed over to {primary.name}: {count}; none waits for it any more"
    return Notice(f"drained:{primary.name}", SUCCESS, title, body, now.time)
