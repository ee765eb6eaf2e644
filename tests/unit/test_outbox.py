"""How notices wait for a place, and are sent."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from backup_mx.relay.tell.alarms import Notice
from backup_mx.relay.tell.outbox import BODY, CROWD, GIVE_UP_SECONDS, LAST_RETRY, PENDING, Place


def notice(
    key: str = "disk", at: float = 0.0, severity: str = "warning", body: str = "b"
) -> Notice:
    """Return a notice of an alarm at that second."""
    return Notice(key, severity, f"{key} at {at:.0f}", body, at)


def test_one_notice_goes_as_it_is() -> None:
    """A place that is due gets the notice unchanged."""
    assert Place().add([notice()]).message(0.0) == notice()
    assert Place().message(0.0) is None


def test_what_gathered_goes_as_one_message_the_newest_first() -> None:
    """After an hour's silence of the place one message says all, under the worst's severity."""
    place = Place().add([notice(at=1), notice("ledger", 2, "failure"), notice("held", 3)])
    message = place.message(3600.0)
    assert message is not None
    assert (message.severity, message.title) == ("failure", "held at 3 (and 2 more)")
    assert [line for line in message.body.splitlines() if " at " in line] == [
        "held at 3", "ledger at 2", "disk at 1",
    ]  # fmt: skip
    assert place.succeeded(place.pending, 3600.0).pending == ()


def test_of_one_alarm_the_last_word_is_kept() -> None:
    """An alarm told again replaces what waits of it; its end stands beside it."""
    place = Place().add([notice(at=1), notice(at=2), notice(at=3, severity="success")])
    assert [each.time for each in place.pending] == [2, 3]


def test_a_place_that_fails_is_tried_later_and_later_for_a_week() -> None:
    """From half a minute to an hour; what is a week old is dropped, and that is said."""
    place, now, waits = Place().add([notice()]), 0.0, []
    while place.pending:
        place = place.failed(now)
        waits.append(place.due - now)
        now = place.due
    assert waits[:4] == [30, 60, 120, 240]
    assert max(waits) == 3600
    assert GIVE_UP_SECONDS <= now < GIVE_UP_SECONDS + 2 * 3600
    message = place.add([notice(at=now)]).message(now)
    assert message is not None
    assert "(1 older notices are left out.)" in message.body


def test_many_messages_are_slowed_down() -> None:
    """Ten seconds lie between two messages, and ten minutes after ten of them in an hour."""
    place, now = Place(), 0.0
    for _ in range(CROWD - 1):
        place = place.add([notice(at=now)])
        place = place.succeeded(place.pending, now)
        assert place.due == now + 10
        now = place.due
    place = place.add([notice(at=now)]).succeeded((), now)
    assert place.message(now + 599) is None
    assert place.message(now + 600) is not None


@given(st.integers(0, 10**10), st.integers(0, 10**10), st.booleans())
def test_a_clock_that_was_ahead_silences_nothing(then: int, now: int, taken: bool) -> None:
    """Whatever it showed when the place was told last, or was not: it is told within an hour."""
    place = Place(sent=(then,) * CROWD)
    place = place.succeeded((), then) if taken else place.failed(then)
    place = place.add([notice(at=now)])
    assert 0.0 <= place.wait(now) <= LAST_RETRY
    assert place.message(now + place.wait(now)) == notice(at=now)
    assert place.succeeded((), now).due <= now + LAST_RETRY


def test_what_a_clock_ahead_has_sent_is_no_crowd() -> None:
    """Those messages were not of this hour, or nobody knows it."""
    place = Place(sent=(1e9,) * CROWD).succeeded((), 0.0)
    assert (place.due, place.sent) == (10.0, (0.0,))


def test_what_comes_while_a_message_is_sent_still_waits() -> None:
    """Only what was in the message is done."""
    first = Place().add([notice(at=1)])
    later = first.add([notice("held", 2)])
    assert later.succeeded(first.pending, 5.0).pending == (notice("held", 2),)


@given(st.lists(st.tuples(st.text(max_size=3), st.integers(0, 10**6), st.text(max_size=9000))))
def test_a_place_is_bounded(given_notices: list[tuple[str, int, str]]) -> None:
    """Whatever comes, no more than PENDING wait, and no message is longer than BODY."""
    place = Place().add(notice(key, at, body=body) for key, at, body in given_notices)
    assert len(place.pending) <= PENDING
    assert sum(1 for _ in place.pending) + place.dropped <= len(given_notices)
    if (message := place.message(1e9)) and message.key == "digest":
        assert len(message.body) <= BODY
