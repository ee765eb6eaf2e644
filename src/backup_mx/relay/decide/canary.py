"""What a primary is, judged by the walks of the canary: pure, no I/O, no clock of its own.

    starting ──good──> up ──bad──> down, refusing ──good──> up, or flapping if it fell often lately
                                                    flapping ──NEEDED good ones in a row──> up

A plain outage is over at the first good walk: mail must move within seconds. Only a primary that
fell twice or more within WINDOW has to show that it stays.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace

from backup_mx.net.canary import Outcome
from backup_mx.relay.state import DOWN, FLAPPING, REFUSING, STARTING, UP, Primary, Walk

WINDOW = 300.0  # seconds for which a fall is remembered
FALLS = 2  # so many within WINDOW make it flap
NEEDED = 5  # good walks in a row, until a flapping primary is believed
USUAL = 5.0  # seconds between walks while mail waits, where the config says nothing
QUICK = 2.0  # of those, between walks while there is something to find out
BELIEVING = 1.0  # of those, between the walks by which a flapping primary is believed
LATELY = 60.0  # seconds after a change of what it says, in which the next change is likely
_ASKED = ("mail", "rcpt", "rset", "data")


@dataclass(frozen=True)
class Judged:
    """A primary, and what its next judgement needs: when it fell, and since when it says this."""

    primary: Primary
    falls: tuple[float, ...] = ()
    said: float = 0.0


def starting(
    name: str, now: float, falls: Iterable[float] = (), was: Primary | None = None
) -> Judged:
    """Return a primary at the agent's start: when it fell before, and what it was just now."""
    return Judged(was or Primary(name, STARTING, now), tuple(falls), now)


def walked(outcome: Outcome) -> Walk:
    """Return what the state keeps of a walk."""
    return Walk(
        time=outcome.began + outcome.seconds,
        good=not outcome.why,
        step=outcome.step,
        why=outcome.why,
        words=outcome.words,
        seconds=round(outcome.seconds, 3),
        offer=outcome.offer,
    )


def after(before: Judged, walk: Walk) -> Judged:
    """Return what a primary is after one more walk. Walks come in the order of their ends."""
    old = before.primary
    fell = old.state == UP and not walk.good
    recent = (each for each in before.falls if _near(each, walk.time, WINDOW))
    falls = (*recent, *((walk.time,) if fell else ()))
    good = old.good + 1 if walk.good else 0
    state = _rising(old, good, falls) if walk.good else _failing(old, walk)
    primary = replace(
        old,
        state=state,
        since=old.since if state == old.state else walk.time,
        good=good,
        walk=walk,
        last_good=walk.time if walk.good else old.last_good,
        paused=old.paused if state == old.state else "",
    )
    same = old.walk is not None and (old.walk.step, old.walk.why) == (walk.step, walk.why)
    return Judged(primary, falls, before.said if same else walk.time)


def _rising(old: Primary, good: int, falls: tuple[float, ...]) -> str:
    """Return the state after a good walk."""
    if old.state == UP or len(falls) < FALLS:
        return UP
    return UP if good >= NEEDED else FLAPPING


def _failing(old: Primary, walk: Walk) -> str:
    """Return the state after a bad walk."""
    if walk.why in ("refused", "4xx") and walk.step in _ASKED:
        return REFUSING
    # Still flapping while it answers now and then: the history shows one stretch, not fifty.
    lately = old.last_good is not None and _near(old.last_good, walk.time, LATELY)
    return FLAPPING if old.state == FLAPPING and lately else DOWN


def _near(then: float, now: float, seconds: float) -> bool:
    """Tell whether it was so lately; what is of the future, by a clock set back, was not."""
    return abs(now - then) < seconds


def pause(judged: Judged, now: float, *, wanted: bool, waiting: int, idle: int) -> float:
    """Return the seconds from the start of one walk to the start of the next.

    wanted is whether anything hangs on it: mail waits, or a sender was put off. ``waiting`` and
    ``idle`` are the config's paces. While mail waits for a primary that cannot be reached, or has
    just begun to say something else, there is a walk every QUICK seconds: a refused connection is
    three packets, and the gap from "it answers" to "we know" is no longer than that. A primary
    that answers, but not well, is asked no more often than the config says. Who wants fewer walks
    than USUAL while mail waits has fewer of those, too.
    """
    primary, pace = judged.primary, float(waiting if wanted else idle)
    slower = max(1.0, waiting / USUAL)
    if primary.state == FLAPPING and primary.good:
        return min(pace, BELIEVING * slower)
    if primary.state in (UP, STARTING) or not wanted:
        return pace
    unreachable = primary.walk is not None and primary.walk.why == "unreachable"
    quick = unreachable or _near(judged.said, now, LATELY)
    return min(pace, QUICK * slower) if quick else pace


def fallen(changes: Iterable[tuple[float, str]], now: float) -> tuple[float, ...]:
    """Return when a primary fell within WINDOW, from its history: (time, state), oldest first."""
    falls: list[float] = []
    before = ""
    for time, state in changes:
        if before == UP and state in (DOWN, REFUSING) and _near(time, now, WINDOW):
            falls.append(time)
        before = state
    return tuple(falls)
