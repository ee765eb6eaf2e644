"""Reading what Postfix's commands say."""

from __future__ import annotations

import contextlib
import tracemalloc
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from backup_mx.relay.queue import commands, postfix

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


POSTCAT = """\
#!/bin/sh
# postcat -e -q ID …: it stops at the first file that it cannot read. BAD cannot be opened, HALF
# ends too early, CUT is killed, NEVER comes to no end, LONG has a line of 100 MiB.
shift 2
for id; do
    [ "$id" != BAD ] || { echo "postcat: fatal: open queue file BAD" >&2; exit 1; }
    echo "*** ENVELOPE RECORDS deferred/$id ***"
    echo "done_recipient: a@example.org"
    case $id in
    HALF) echo "postcat: fatal: premature end" >&2; exit 1 ;;
    CUT) kill -9 $$ ;;
    LONG) head -c 100M /dev/zero; echo "recipient: b@example.org" ;;
    NEVER) exec sleep 60 ;;
    WAITS) echo "recipient: b@example.org" ;;
    esac
done
"""


@pytest.fixture
def postcat(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A program in postcat's place."""
    program = tmp_path / "postcat"
    program.write_text(POSTCAT)
    program.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")


@pytest.mark.usefixtures("postcat")
@pytest.mark.parametrize("bad", ["BAD", "HALF", "CUT", "WAITS"])
def test_a_message_that_cannot_be_read_hides_no_other(bad: str) -> None:
    """postcat stops at the first file that it cannot read: the others are asked for again."""
    found = commands.Postfix().delivered(["A1", "A2", bad, "A3", "A4"])
    assert found == {"A1", "A2", "A3", "A4"}


@pytest.mark.usefixtures("postcat")
def test_a_line_without_end_takes_no_room() -> None:
    """Whatever a record of a damaged file holds: what is in the midst of a line is no recipient."""
    tracemalloc.start()
    try:
        assert commands.Postfix().delivered(["A1", "LONG"]) == {"A1", "LONG"}
        assert tracemalloc.get_traced_memory()[1] < 2**20
    finally:
        tracemalloc.stop()


@pytest.mark.usefixtures("postcat")
def test_a_program_that_never_ends_is_ended(monkeypatch: pytest.MonkeyPatch) -> None:
    """postcat waits for a disk that does not answer: that is no answer about the message."""
    monkeypatch.setattr(commands, "_SECONDS", 0.1)
    assert commands.Postfix().delivered(["NEVER"]) == frozenset()
