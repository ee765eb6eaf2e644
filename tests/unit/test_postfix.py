"""Reading what Postfix's commands say."""

from __future__ import annotations

import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from backup_mx.relay import postfix

LINE = (
    '{"queue_name": "deferred", "queue_id": "4dDqXk0YqYz5N", "arrival_time": 1790000000, '
    '"message_size": 1234, "forced_expire": false, "sender": "a@example.net", "recipients": '
    '[{"address": "alice@example.org", "delay_reason": "connect to mail: timed out"}, '
    '{"address": "bob@example.org"}]}'
)


def test_reads_a_listing() -> None:
    """A line of postqueue -j becomes a message with each recipient's reason."""
    (message,) = postfix.messages([LINE])
    assert (message.queue, message.id, message.size) == ("deferred", "4dDqXk0YqYz5N", 1234)
    assert message.recipients[0].reason == "connect to mail: timed out"
    assert message.recipients[1].reason == ""


def test_a_message_that_moves_is_listed_once() -> None:
    """The listing may meet a message in two queues; it counts once, as seen last."""
    moved = LINE.replace("deferred", "active")
    (message,) = postfix.messages([LINE, "", moved])
    assert message.queue == "active"


def test_the_oldest_comes_first() -> None:
    """Messages are in order of arrival."""
    newer = LINE.replace("1790000000", "1790000009").replace("4dDqXk0YqYz5N", "4dDqXk0YqYz5M")
    assert [each.arrival for each in postfix.messages([newer, LINE])] == [1790000000, 1790000009]


def test_the_null_sender_is_empty() -> None:
    """Postfix lists <> as MAILER-DAEMON."""
    (message,) = postfix.messages([LINE.replace("a@example.net", "MAILER-DAEMON")])
    assert message.sender == ""


@given(st.text())
def test_garbage_is_a_value_error(text: str) -> None:
    """Whatever is not a listing is refused as such."""
    with contextlib.suppress(ValueError):
        postfix.messages(text.splitlines())


@pytest.mark.parametrize(
    "line",
    [
        "[]",
        "null",
        "{}",
        '{"queue_name": 1}',
        LINE.replace("1234", "Infinity"),
        LINE[:-1],
        LINE.replace('"alice@example.org"', "5"),
        LINE.replace('"connect to mail: timed out"', "null"),
    ],
)
def test_json_that_is_no_message(line: str) -> None:
    """JSON of another shape is refused as well."""
    with pytest.raises(ValueError, match="postqueue -j"):
        postfix.messages([line])
