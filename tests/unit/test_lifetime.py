"""What becomes of mail that waits for long."""

from __future__ import annotations

from dataclasses import replace

from hypothesis import given
from hypothesis import strategies as st

from backup_mx.relay.decide import lifetime
from backup_mx.relay.decide.lifetime import RETENTION, Aged, Orders, Terms

DAY = 86_400.0
NOW = 1000 * DAY
TERMS = Terms(retention=30 * DAY, hold=True, limit=100 * DAY)
KEEP = replace(TERMS, hold=False)


def aged(accepted: float, **parts: object) -> Aged:
    """Return a message accepted, and queued, so many days ago."""
    then = NOW - accepted * DAY
    return replace(Aged("X", then, then), **parts)  # type: ignore[arg-type]


def test_at_retention_it_is_held() -> None:
    """Thirty days are over; a day before, nothing happens."""
    assert lifetime.decide(NOW, TERMS, [aged(30)]) == Orders(hold=("X",))
    assert lifetime.decide(NOW, TERMS, [aged(29)]) == Orders()


def test_or_kept_trying() -> None:
    """Where the config says so; then only Postfix's own limit is guarded against."""
    assert lifetime.decide(NOW, KEEP, [aged(79)]) == Orders()
    assert lifetime.decide(NOW, KEEP, [aged(80)]) == Orders(requeue=("X",))


def test_it_is_released_when_the_primary_came_up() -> None:
    """Not while it is away, and not if it was up already when the message was held."""
    held = aged(40, held=NOW - 5 * DAY, by=RETENTION)
    assert lifetime.decide(NOW, TERMS, [held]) == Orders()
    came = replace(held, up=True, since=NOW - DAY)
    for each in (came, replace(came, hopeless=True)):
        assert lifetime.decide(NOW, TERMS, [each]) == Orders(release=("X",))
    stayed = replace(held, up=True, since=NOW - 6 * DAY)
    assert lifetime.decide(NOW, TERMS, [replace(stayed, hopeless=True)]) == Orders()


def test_what_was_held_unrefused_is_released_while_the_primary_is_up() -> None:
    """It was held as the primary came up, or by an earlier version: nobody else would let it go."""
    held = aged(40, held=NOW - 5 * DAY, by=RETENTION, up=True, since=NOW - 6 * DAY)
    assert lifetime.decide(NOW, TERMS, [held]) == Orders(release=("X",))


def test_mail_in_the_middle_of_its_drain_is_not_held() -> None:
    """A primary that is up has it yet, however long ago it rose; what it refused waits for you."""
    waits = aged(45, released=NOW - 5 * DAY, up=True, since=NOW - 5 * DAY)
    assert lifetime.decide(NOW, TERMS, [waits]) == Orders()
    refused = replace(waits, hopeless=True)
    assert lifetime.decide(NOW, TERMS, [refused]) == Orders(hold=("X",))
    assert lifetime.decide(NOW, TERMS, [replace(waits, up=False)]) == Orders(hold=("X",))


def test_mail_that_grew_old_in_a_maintenance_is_not_held_after_it() -> None:
    """The primary was up behind it for long."""
    waits = aged(31, up=True, since=NOW - 90 * DAY)
    kept = replace(TERMS, maintenance=True)
    assert lifetime.decide(NOW - 1, kept, [waits]) == lifetime.decide(NOW, TERMS, [waits])
    assert lifetime.decide(NOW, TERMS, [waits]) == Orders()


def test_what_is_late_is_released_as_well() -> None:
    """The helper makes a requeue of that where it has to: a requeue needs room for a copy."""
    held = aged(120, held=NOW - 60 * DAY, by=RETENTION, up=True, since=NOW - 1.0)
    assert lifetime.decide(NOW, TERMS, [held]) == Orders(release=("X",))


def test_what_was_released_has_its_chance() -> None:
    """It is not held again at the next look, but when the primary did not take it for an hour."""
    released = aged(40, released=NOW - 60.0)
    assert lifetime.decide(NOW, TERMS, [released]) == Orders()
    again = aged(40, released=NOW - lifetime.CHANCE)
    assert lifetime.decide(NOW, TERMS, [again]) == Orders(hold=("X",))


def test_a_primary_that_just_came_up_gets_it_first() -> None:
    """Mail is not held seconds after its primary is back."""
    back = aged(30, up=True, since=NOW - 5.0)
    assert lifetime.decide(NOW, TERMS, [back]) == Orders()


def test_maintenance_holds_and_releases_nothing() -> None:
    """It would not be delivered; but no lifetime ends in it either."""
    terms = replace(TERMS, maintenance=True)
    held = aged(40, id="H", held=NOW - DAY, by=RETENTION, up=True, since=NOW)
    assert lifetime.decide(NOW, terms, [aged(40), held, aged(90, id="L")]) == Orders(requeue=("L",))


messages = st.lists(
    st.builds(
        Aged,
        id=st.integers(0, 10**6).map(str),
        accepted=st.floats(0, NOW),
        queued=st.floats(0, NOW),
        held=st.none() | st.floats(0, NOW),
        by=st.sampled_from(["", RETENTION, "root", "retention2"]),
        released=st.none() | st.floats(0, NOW),
        up=st.booleans(),
        since=st.floats(0, NOW),
        hopeless=st.booleans(),
    ),
    unique_by=lambda each: each.id,
)
terms = st.builds(
    Terms, st.floats(1, 100 * DAY), st.booleans(), st.floats(60, 100 * DAY), st.booleans()
)


@given(messages, terms)
def test_the_operators_holds_are_never_touched(found: list[Aged], applied: Terms) -> None:
    """Whatever their age."""
    orders = lifetime.decide(NOW, applied, found)
    touched = {*orders.hold, *orders.release, *orders.requeue}
    assert not touched & {each.id for each in found if each.held and each.by != RETENTION}


@given(messages, terms)
def test_nothing_in_delivery_is_left_to_expire(found: list[Aged], applied: Terms) -> None:
    """What is near Postfix's limit is requeued, or on hold, where nothing expires."""
    orders = lifetime.decide(NOW, applied, found)
    late = {
        each.id
        for each in found
        if each.held is None and NOW - each.queued >= lifetime.SHARE * applied.limit
    }
    assert late <= {*orders.requeue, *orders.hold}


@given(messages, terms)
def test_nothing_stays_on_hold_that_its_primary_would_take(
    found: list[Aged], applied: Terms
) -> None:
    """While it is up and did not refuse it, retention puts no mail on hold, and lets go of all."""
    orders = lifetime.decide(NOW, replace(applied, maintenance=False), found)
    takes = [each for each in found if each.up and not each.hopeless]
    assert not {*orders.hold} & {each.id for each in takes}
    held = {each.id for each in takes if each.held is not None and each.by == RETENTION}
    assert held <= {*orders.release, *orders.requeue}


@given(messages, terms)
def test_one_order_for_one_message(found: list[Aged], applied: Terms) -> None:
    """No message has two."""
    orders = lifetime.decide(NOW, applied, found)
    ids = [*orders.hold, *orders.release, *orders.requeue]
    assert len(ids) == len(set(ids))


def test_a_round_is_bounded() -> None:
    """A hundred thousand that are due are done in many rounds, the first ones first."""
    many = [aged(40, id=str(number)) for number in range(lifetime.BATCH + 5)]
    assert lifetime.decide(NOW, TERMS, many).hold == tuple(map(str, range(lifetime.BATCH)))


def test_short_lifetimes_are_looked_at_often() -> None:
    """A drill's minutes need seconds; thirty days do not."""
    assert lifetime.pace(replace(TERMS, limit=120.0)) <= 3.0
    assert lifetime.pace(TERMS) == 60.0
