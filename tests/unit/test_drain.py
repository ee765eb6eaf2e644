"""When the agent flushes, and when it does not."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from backup_mx.relay.decide import drain
from backup_mx.relay.decide.drain import Decision, Drain, Scene, Tally


def after_edge(now: float = 0.0) -> Drain:
    """Return what is remembered after the flush on an edge, 100 messages waiting."""
    return drain.decide(drain.rise(Drain(), 0.0), Scene(now, up=True, waiting=100)).drain


def times(
    remembered: Drain, until: int, oldest: float | None = -1000.0, start: int = 0
) -> list[int]:
    """Return when it flushes, looked at every second, while 100 messages wait."""
    found = []
    for now in range(start, until):
        decision = drain.decide(remembered, Scene(now, up=True, waiting=100, oldest=oldest))
        remembered = decision.drain
        if decision.flush:
            found.append(now)
    return found


def test_the_edge_is_flushed_once() -> None:
    """A primary that came up is flushed to at once, whatever the ledger says, and not again."""
    for waiting in (None, 0, 7):
        risen = drain.rise(Drain(flushed=-100.0), 0.0)
        first = drain.decide(risen, Scene(0.0, up=True, waiting=waiting))
        assert first.flush
        assert not drain.decide(first.drain, Scene(1.0, up=True, waiting=waiting)).flush


def test_what_still_waits_is_tried_with_growing_pauses() -> None:
    """The pauses double, up to Postfix's own."""
    found = times(drain.rise(Drain(), 0.0), 5000)
    pauses = [after - before for before, after in pairwise(found)]
    assert pauses == [60, 120, 240, 480, 960, 960, 960, 960]


def test_nothing_is_flushed_without_an_edge_where_nothing_waits() -> None:
    """A primary that was up all along takes new mail without our help."""
    assert not drain.decide(Drain(), Scene(1e6, up=True, waiting=0)).flush
    assert not drain.decide(Drain(), Scene(1e6, up=True, waiting=None)).flush


def test_refused_mail_alone_is_not_flushed() -> None:
    """What the primary refused, it will refuse again; Postfix tries it now and then."""
    assert times(after_edge(), 5000, oldest=None) == []


def test_mail_that_has_just_come_is_on_its_way() -> None:
    """Postfix hands it over by itself; only what has waited for a minute needs help."""
    assert times(after_edge(-1000.0), 200, oldest=100.0, start=100) == [160]


def test_an_edge_waits_out_the_gap() -> None:
    """A second edge, seconds after a flush, is flushed when the gap is over."""
    assert times(drain.rise(Drain(flushed=0.0), 0.0), 60) == [int(drain.GAP)]


def test_never_in_maintenance() -> None:
    """The edge is kept until it is over."""
    risen = drain.rise(Drain(), 0.0)
    kept = drain.decide(risen, Scene(0.0, up=True, waiting=9, maintenance=True))
    assert not kept.flush
    assert drain.decide(kept.drain, Scene(1.0, up=True, waiting=9, oldest=0.0)).flush


def test_an_edge_that_fell_again_is_flushed_when_it_rises() -> None:
    """While it is down nothing is flushed."""
    kept = drain.decide(drain.rise(Drain(), 0.0), Scene(0.0, up=False, waiting=9, oldest=0.0))
    assert not kept.flush
    assert drain.decide(kept.drain, Scene(1.0, up=True, waiting=9, oldest=0.0)).flush


def test_refusals_pause_the_flushing() -> None:
    """Mostly refusals among the first answers: it says so and stops, but for a long pause."""
    heard = drain.heard(after_edge(), Tally(delivered=5, refused=15))
    decision = drain.decide(heard, Scene(60.0, up=True, waiting=80, oldest=0.0))
    assert not decision.flush
    assert decision.why == "15 of the first 20 answers after a flush were refusals"
    found = times(decision.drain, int(drain.PAUSE) + 100, start=61)
    assert found[0] == int(drain.PAUSE) + 60


def test_deliveries_do_not_pause_it() -> None:
    """As many deliveries as refusals, or put-offs however many, are no reason."""
    for tally in (Tally(delivered=10, refused=10), Tally(put_off=30), Tally(refused=2)):
        decision = drain.decide(
            drain.heard(after_edge(), tally), Scene(60.0, up=True, waiting=80, oldest=0.0)
        )
        assert decision.flush


def test_a_short_queue_is_judged_by_all_its_answers() -> None:
    """Five messages, five refusals: there are no more answers to wait for."""
    risen = drain.decide(drain.rise(Drain(), 0.0), Scene(0.0, up=True, waiting=5)).drain
    heard = drain.heard(risen, Tally(refused=5))
    assert drain.decide(heard, Scene(60.0, up=True, waiting=5, oldest=0.0)).drain.paused == 60.0


def pauses(remembered: Drain, oldest: float | None, answers: int = 96) -> int:
    """Return how many pauses begin within a day in which a message is refused every 15 min."""
    found = 0
    for now in range(900, 900 * (answers + 1), 900):
        before = drain.heard(remembered, Tally(refused=1))
        remembered = drain.decide(before, Scene(now, up=True, waiting=1, oldest=oldest)).drain
        found += remembered.paused == now
    return found


def test_refused_mail_alone_pauses_nothing() -> None:
    """It is not flushed for anyway: a pause would come and go all day, and be told each time."""
    for waiting in (0, 1, 100):
        risen = drain.decide(drain.rise(Drain(), 0.0), Scene(0.0, up=True, waiting=waiting)).drain
        assert pauses(risen, None) == 0


def test_a_flush_of_hardly_anything_is_not_judged() -> None:
    """What is refused afterwards came afterwards."""
    risen = drain.decide(drain.rise(Drain(), 0.0), Scene(0.0, up=True, waiting=0)).drain
    heard = drain.heard(risen, Tally(refused=9))
    assert drain.decide(heard, Scene(30.0, up=True, waiting=2, oldest=0.0)).drain.paused is None


def test_a_flush_is_judged_by_its_first_answers_only() -> None:
    """Twenty were taken: what is refused for hours after that is another matter."""
    heard = drain.heard(after_edge(), Tally(delivered=20))
    for _ in range(99):
        heard = drain.heard(heard, Tally(refused=1))
    assert drain.decide(heard, Scene(30.0, up=True, waiting=9, oldest=0.0)).drain.paused is None


def test_a_change_ends_the_pause() -> None:
    """The primary's state changed, or the operator drained: what was refused may be taken now."""
    heard = drain.heard(after_edge(), Tally(refused=20))
    paused = drain.decide(heard, Scene(60.0, up=True, waiting=80, oldest=0.0)).drain
    assert paused.paused is not None
    assert drain.decide(drain.rise(paused, 0.0), Scene(70.0, up=True, waiting=80, oldest=0.0)).flush
    assert drain.decide(drain.changed(paused), Scene(70.0, up=True, waiting=80, oldest=0.0)).flush
    drained = drain.operator(paused, 70.0)
    assert drained.paused is None
    assert not drain.decide(drained, Scene(79.0, up=True, waiting=80, oldest=0.0)).flush


@dataclass(frozen=True)
class Moment:
    """What happens before a decision."""

    pause: float
    up: bool
    waiting: int | None
    oldest: float | None
    maintenance: bool
    tally: Tally
    event: str


moments = st.lists(
    st.builds(
        Moment,
        pause=st.floats(0.01, 500),
        up=st.booleans(),
        waiting=st.none() | st.integers(0, 50),
        oldest=st.none() | st.floats(0, 500),
        maintenance=st.booleans(),
        tally=st.builds(Tally, st.integers(0, 30), st.integers(0, 30), st.integers(0, 30)),
        event=st.sampled_from(["", "", "", "rise", "change", "operator"]),
    ),
    max_size=40,
)


@given(moments)
def test_never_two_flushes_within_the_gap(found: list[Moment]) -> None:
    """Whatever happens; and never in maintenance, never while nothing is up."""
    last = float("-inf")
    for now, each, _, decision in _lived(found):
        if each.event == "operator":
            last = now
        assert decision.why
        if decision.flush:
            assert now - last >= drain.GAP
            assert each.up
            assert not each.maintenance
            last = now


@given(moments)
def test_an_edge_is_always_flushed_soon(found: list[Moment]) -> None:
    """However it came: up, no maintenance, and the gap's seconds later it is flushed."""
    remembered, now = Drain(), 0.0
    for now, _, _, decision in _lived(found):  # noqa: B007  the last of them count
        remembered = decision.drain
    scene = Scene(now + drain.GAP + 0.001, up=True, waiting=1)  # floats round
    assert drain.decide(drain.rise(remembered, now), scene).flush


@given(moments)
def test_no_pause_begins_while_there_is_nothing_to_pause(found: list[Moment]) -> None:
    """Where all that waits was refused, nothing is flushed anyway."""
    for _, each, before, decision in _lived(found):
        began = decision.drain.paused is not None and before.paused is None
        assert not (began and (each.oldest is None or before.waiting < drain.FEWEST))


@given(st.integers(0, 10**9))
def test_pauses_never_grow_beyond_postfix_own(repeats: int) -> None:
    """However often it was tried."""
    assert drain.AGAIN <= drain.pause(repeats) <= drain.SELDOM


def _lived(found: Iterable[Moment]) -> Iterator[tuple[float, Moment, Drain, Decision]]:
    """Yield of each moment when it is, what it is, what is known before it, and what is decided."""
    remembered, now = Drain(), 0.0
    for each in found:
        now += each.pause
        before = drain.heard(_told(remembered, each, now), each.tally)
        scene = Scene(now, each.up, each.waiting, each.oldest, each.maintenance)
        decision = drain.decide(before, scene)
        yield now, each, before, decision
        remembered = decision.drain


def _told(remembered: Drain, moment: Moment, now: float) -> Drain:
    if moment.event == "rise":
        return drain.rise(remembered, now)
    if moment.event == "change":
        return drain.changed(remembered)
    return drain.operator(remembered, now) if moment.event == "operator" else remembered


def test_only_a_flush_after_the_rise_stands_for_its_own() -> None:
    """What the operator flushed just before went into a primary that was still away."""
    before = drain.operator(drain.rise(Drain(), 100.0), 99.0)
    assert drain.decide(before, Scene(110.0, up=True, waiting=9, oldest=0.0)).flush
    after = drain.operator(drain.rise(Drain(), 100.0), 101.0)
    assert not drain.decide(after, Scene(112.0, up=True, waiting=9, oldest=0.0)).flush


def test_a_clock_that_was_set_back_stops_no_flush() -> None:
    """What seems to be of the future is old: a flush, a pause, the mail that waits."""
    later = 1e9
    risen = drain.rise(Drain(flushed=later), 0.0)
    assert drain.decide(risen, Scene(1000.0, up=True, waiting=9, oldest=0.0)).flush
    again = Drain(flushed=later)
    assert drain.decide(again, Scene(1000.0, up=True, waiting=9, oldest=later)).flush
    paused = Drain(flushed=later, paused=later, why="refusals")
    assert drain.decide(paused, Scene(1000.0, up=True, waiting=9, oldest=0.0)).flush
