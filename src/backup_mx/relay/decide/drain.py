"""When to flush for a primary: pure, no I/O, no clock of its own.

On the edge to *up*, once. Then only while mail still waits, with pauses that double from AGAIN to
SELDOM: Postfix's own retries (maximal_backoff_time) are no slower by then. Never twice within GAP,
never in maintenance, and not for a primary that refuses most of what it gets. A flush is of all
mail, so those that one primary wants may try another one's, too: but none is for its sake.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

GAP = 10.0  # seconds between any two flushes
AGAIN = 60.0  # seconds to the first repetition; what has not waited for that long needs none
SELDOM = 960.0  # seconds between repetitions at last
PAUSE = 3600.0  # seconds for which refusals stop the flushing
FIRST = 20  # answers after a flush that are judged, or as many as messages waited, if fewer
FEWEST = 3  # messages; a flush of fewer is not judged


@dataclass(frozen=True)
class Tally:
    """What a primary answered since the last flush, in recipients."""

    delivered: int = 0
    refused: int = 0
    put_off: int = 0

    @property
    def answers(self) -> int:
        """How many answers there were."""
        return self.delivered + self.refused + self.put_off

    def __add__(self, other: Tally) -> Tally:
        """Add up two tallies."""
        return Tally(
            self.delivered + other.delivered,
            self.refused + other.refused,
            self.put_off + other.put_off,
        )


@dataclass(frozen=True)
class Drain:
    """What is remembered between decisions.

    edge: the primary came up, at ``rose``, and nothing was flushed since; flushed when it last was;
    repeats how often since the edge; waiting how many messages a flush was for; paused since when
    refusals stopped it, and why.
    """

    edge: bool = False
    rose: float = 0.0
    flushed: float | None = None
    repeats: int = 0
    waiting: int = 0
    tally: Tally = Tally()
    paused: float | None = None
    why: str = ""


@dataclass(frozen=True)
class Scene:
    """The moment to decide about; waiting is None where the ledger cannot say.

    up: the primary is; waiting counts its messages in delivery; oldest is when the first of those
    came that it has not refused, None where there is none.
    """

    now: float
    up: bool
    waiting: int | None
    oldest: float | None = None
    maintenance: bool = False


@dataclass(frozen=True)
class Decision:
    """Whether to flush now, why (not), and what to remember."""

    flush: bool
    why: str
    drain: Drain


def rise(drain: Drain, now: float) -> Drain:
    """Note that the primary came up, or that maintenance ended."""
    return replace(drain, edge=True, rose=now, repeats=0, tally=Tally(), paused=None, why="")


def changed(drain: Drain) -> Drain:
    """Note that its state changed, or that the operator drained: no pause outlives it."""
    return replace(drain, tally=Tally(), paused=None, why="")


def heard(drain: Drain, tally: Tally) -> Drain:
    """Add answers to those since the last flush; what comes after the first says nothing of it."""
    return drain if _enough(drain) else replace(drain, tally=drain.tally + tally)


def operator(drain: Drain, now: float) -> Drain:
    """Note that somebody else flushed: before the rise, it was in vain, and the edge remains."""
    edge = drain.edge and now <= drain.rose
    return replace(changed(drain), edge=edge, flushed=now, repeats=0)


def for_another(drain: Drain, now: float) -> Drain:
    """Note a flush for another primary's sake: an edge of this one, which was not up, remains."""
    return replace(drain, flushed=now)


def decide(drain: Drain, scene: Scene) -> Decision:
    """Decide whether to flush now."""
    drain = _judged(drain, scene)
    why = _against(drain, scene)
    if why:
        return Decision(flush=False, why=why, drain=drain)
    after = replace(
        drain,
        edge=False,
        flushed=scene.now,
        repeats=0 if drain.edge else drain.repeats + 1,
        waiting=scene.waiting or 0,
        tally=Tally(),
    )
    reason = "the primary is up" if drain.edge else "mail still waits"
    return Decision(flush=True, why=reason, drain=after)


def _judged(drain: Drain, scene: Scene) -> Drain:
    """Begin or end a pause by what was answered since the last flush."""
    if drain.paused is not None:
        over = _age(drain.paused, scene.now) >= PAUSE
        return changed(drain) if over else drain
    tally = drain.tally
    if scene.oldest is None or drain.waiting < FEWEST or not _enough(drain):
        return drain  # there is nothing to pause, or nothing to judge it by
    if 2 * tally.refused <= tally.answers:
        return drain
    why = f"{tally.refused} of the first {tally.answers} answers after a flush were refusals"
    return replace(drain, paused=scene.now, why=why)


def _enough(drain: Drain) -> bool:
    """Tell whether as much was answered as the last flush is judged by."""
    wanted = max(FEWEST, min(FIRST, drain.waiting))
    return drain.flushed is not None and drain.tally.answers >= wanted


def _against(drain: Drain, scene: Scene) -> str:
    """Return what speaks against a flush now, "" where nothing does."""
    if scene.maintenance:
        return "maintenance"
    if not scene.up:
        return "it is not up"
    if drain.paused is not None:
        return drain.why
    since = float("inf") if drain.flushed is None else _age(drain.flushed, scene.now)
    if since < GAP:
        return "flushed just now"
    if drain.edge:
        return (
            ""  # whatever the ledger says: it may be a second behind, and an empty queue is quick
        )
    if not scene.waiting:
        return "nothing is known to wait"
    if scene.oldest is None:
        return "what waits is refused"
    if _age(scene.oldest, scene.now) < AGAIN:
        return "what waits has just come"
    return "" if since >= pause(drain.repeats) else "flushed a while ago"


def _age(then: float, now: float) -> float:
    """Return the seconds since then; what is of the future, by a clock set back, is old."""
    return now - then if now >= then else float("inf")


def pause(repeats: int) -> float:
    """Return the seconds from the flush after so many repetitions to the next."""
    return min(AGAIN * 2.0 ** min(repeats, 10), SELDOM)
