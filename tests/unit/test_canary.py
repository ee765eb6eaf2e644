"""The state of a primary, walk by walk, and how often it is walked to."""

from __future__ import annotations

from collections.abc import Iterable
from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from backup_mx.net import canary as net
from backup_mx.relay.decide import canary
from backup_mx.relay.decide.canary import Judged
from backup_mx.relay.queue import reasons
from backup_mx.relay.state import DOWN, FLAPPING, REFUSING, STARTING, UP, Walk

GOOD = ("rset", "")
AWAY = ("connect", "unreachable")
STEPS = ("connect", "greeting", "ehlo", "tls", "mail", "rcpt", "rset")


def walk(moment: float, step: str = "rset", why: str = "") -> Walk:
    return Walk(moment, not why, step, why, "words", 0.1)


def judged(walks: Iterable[tuple[str, str]], every: float = 5.0, start: float = 0.0) -> Judged:
    found = canary.starting("home", start)
    for number, (step, why) in enumerate(walks, 1):
        found = canary.after(found, walk(start + number * every, step, why))
    return found


walks = st.lists(
    st.tuples(st.floats(0.1, 100), st.sampled_from([GOOD, AWAY, ("rcpt", "refused")])), max_size=60
)


def run(found: list[tuple[float, tuple[str, str]]]) -> list[Judged]:
    """Return what is known at the start and after each walk."""
    known, now = [canary.starting("home", 0.0)], 0.0
    for pause, (step, why) in found:
        now += pause
        known.append(canary.after(known[-1], walk(now, step, why)))
    return known


def test_a_cold_start_is_believed() -> None:
    """Nothing is known before the first walk; what it says is believed at once."""
    assert canary.starting("home", 0.0).primary.state == STARTING
    assert judged([GOOD]).primary.state == UP
    assert judged([AWAY]).primary.state == DOWN


def test_a_plain_outage_is_over_at_the_first_good_walk() -> None:
    """However long it was: mail must move within seconds."""
    found = judged([GOOD, *500 * [AWAY], GOOD])
    assert found.primary.state == UP
    assert found.primary.since == 502 * 5.0


def test_a_primary_that_refuses_recipients_has_a_state_of_its_own() -> None:
    """It takes connections, but no mail; before it asks for TLS or greets, it is just down."""
    assert judged([GOOD, ("rcpt", "refused")]).primary.state == REFUSING
    assert judged([GOOD, ("mail", "4xx")]).primary.state == REFUSING
    assert judged([GOOD, ("greeting", "refused")]).primary.state == DOWN
    assert judged([GOOD, ("rcpt", "unreachable")]).primary.state == DOWN


def test_a_primary_that_toggles_must_show_that_it_stays() -> None:
    """After its second fall within minutes it flaps, until it was good several times in a row."""
    toggled = [GOOD, AWAY, GOOD, AWAY]
    assert judged([*toggled, GOOD]).primary.state == FLAPPING
    assert judged([*toggled, *(canary.NEEDED - 1) * [GOOD]]).primary.state == FLAPPING
    assert judged([*toggled, *canary.NEEDED * [GOOD]]).primary.state == UP


def test_flapping_is_one_stretch() -> None:
    """A bad walk begins the count again; only one that has been away for a while is down."""
    toggled = [GOOD, AWAY, GOOD, AWAY, GOOD]
    shaken = judged([*toggled, AWAY, *(canary.NEEDED - 1) * [GOOD]])
    assert (shaken.primary.state, shaken.primary.since) == (FLAPPING, 25.0)
    assert judged([*toggled, *12 * [AWAY]]).primary.state == DOWN


def test_falls_of_long_ago_are_forgiven() -> None:
    """Two outages an hour apart are two outages."""
    assert judged([GOOD, AWAY, GOOD, AWAY, GOOD], every=1200).primary.state == UP


def test_a_new_agent_knows_what_flapped() -> None:
    """The history that the ledger keeps makes a restart no fresh start."""
    history = [(0.0, STARTING), (10.0, UP), (20.0, DOWN), (30.0, UP), (40.0, REFUSING)]
    falls = canary.fallen(history, 100.0)
    assert falls == (20.0, 40.0)
    assert canary.after(canary.starting("home", 100.0, falls), walk(101)).primary.state == FLAPPING
    assert canary.fallen(history, 40.0 + canary.WINDOW) == ()


def test_a_quick_restart_is_no_edge() -> None:
    """What was up just now, and is, has not come up."""
    was = judged([GOOD]).primary
    found = canary.after(canary.starting("home", 10.0, was=was), walk(11))
    assert (found.primary.state, found.primary.since) == (UP, was.since)


@given(walks)
def test_up_means_that_the_last_walk_was_good(
    found: list[tuple[float, tuple[str, str]]],
) -> None:
    """In no other state is mail flushed; in none but "starting" is nothing known."""
    for each in run(found)[1:]:
        primary = each.primary
        assert primary.walk is not None
        assert primary.state != STARTING
        assert primary.walk.good or primary.state != UP
        assert not primary.walk.good or primary.state in (UP, FLAPPING)


@given(walks)
def test_no_primary_flaps_for_ever(found: list[tuple[float, tuple[str, str]]]) -> None:
    """Whatever was before, some good walks in a row make it up, and since stays put meanwhile."""
    known = run(found)[-1]
    start = known.primary.walk.time if known.primary.walk else 0.0
    for number in range(1, canary.NEEDED + 1):
        known = canary.after(known, walk(start + number))
    assert known.primary.state == UP


@given(walks, st.floats(0, 1e7))
def test_a_clock_set_back_makes_no_primary_flap(
    found: list[tuple[float, tuple[str, str]]], back: float
) -> None:
    """What lies in the future was not lately: it is down within minutes, and up as ever."""
    known = run(found)[-1]
    now = (known.primary.walk.time if known.primary.walk else 0.0) - back
    for number in range(2 * int(canary.LATELY) // 5 + 2):
        known = canary.after(known, walk(now + 5 * number, *AWAY))
    assert known.primary.state == DOWN
    now += 2 * canary.WINDOW + 5
    assert canary.after(known, walk(now)).primary.state == UP


def test_a_clock_set_back_by_hours_leaves_nothing_of_before() -> None:
    """Neither falls, from the history or remembered, nor a change of what it says."""
    toggled = judged([GOOD, AWAY, GOOD, AWAY, GOOD], start=20_000.0)
    assert toggled.primary.state == FLAPPING
    assert canary.after(toggled, walk(9000.0, *AWAY)).primary.state == DOWN
    assert canary.after(toggled, walk(9000.0)).primary.state == UP
    history = [(20_000.0, UP), (20_010.0, DOWN), (20_020.0, UP), (20_030.0, DOWN)]
    assert canary.fallen(history, 9000.0) == ()
    refusing = judged([GOOD, ("rcpt", "refused")], start=20_000.0)
    assert canary.pause(refusing, 9000.0, wanted=True, waiting=5, idle=60) == 5


@given(walks)
def test_since_is_when_the_state_began(found: list[tuple[float, tuple[str, str]]]) -> None:
    """It moves exactly when the state does."""
    for before, after in pairwise(run(found)):
        same = before.primary.state == after.primary.state
        assert same == (before.primary.since == after.primary.since)


def test_the_pace_follows_what_hangs_on_it() -> None:
    """Configured while it is up; quick while mail waits for one that cannot be reached."""
    up, away = judged([GOOD]), judged([GOOD, AWAY])
    pace = {"waiting": 5, "idle": 60}
    assert canary.pause(up, 5, wanted=True, **pace) == 5
    assert canary.pause(up, 5, wanted=False, **pace) == 60
    assert canary.pause(away, 5000, wanted=True, **pace) == canary.QUICK
    assert canary.pause(away, 5000, wanted=False, **pace) == 60


def test_a_primary_that_answers_badly_is_not_pestered() -> None:
    """It is asked as often as the config says, but for a minute after its answer changed."""
    found = judged([AWAY, *20 * [("rcpt", "refused")]])
    pace = {"waiting": 5, "idle": 60}
    assert canary.pause(found, 12.0, wanted=True, **pace) == canary.QUICK
    assert canary.pause(found, 12.0, wanted=True, waiting=30, idle=60) == 12
    assert canary.pause(found, 12.0, wanted=True, waiting=1, idle=60) == 1
    assert canary.pause(found, 105.0, wanted=True, **pace) == 5


def test_a_flapping_primary_is_believed_within_seconds() -> None:
    """Its good walks follow each other quickly."""
    found = judged([GOOD, AWAY, GOOD, AWAY, GOOD])
    assert canary.pause(found, 25, wanted=False, waiting=5, idle=60) == canary.BELIEVING
    assert canary.pause(found, 25, wanted=True, waiting=30, idle=60) == 6


def test_the_walks_words_are_the_reasons() -> None:
    """A walk's classes are those by which the queue is sorted."""
    assert {net.UNREACHABLE, net.TLS, net.PUT_OFF, net.REFUSED, net.LOCAL} <= set(reasons.CLASSES)


def test_a_walks_outcome_is_dated_by_its_end() -> None:
    """What is known of a primary is as old as the end of its last walk."""
    found = canary.walked(net.Outcome(100.0, "rset", "", "250 ok", 2.5, ("SIZE",)))
    assert (found.time, found.good, found.offer) == (102.5, True, ("SIZE",))
