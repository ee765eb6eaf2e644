"""Which way a message took, from its Received lines."""

from __future__ import annotations

import time
from datetime import UTC, datetime
from pathlib import Path

import pytest

from backup_mx.probe.trip import LINES, LONGEST, Trip, hops, trip

DATA = Path(__file__).parents[1] / "data" / "received"
RELAYS = {"mx2.example.org": "mx2", "mx3.example.org": "mx3"}
NOON = datetime(2026, 11, 22, 12, tzinfo=UTC).timestamp()


def head(name: str) -> bytes:
    return (DATA / f"{name}.txt").read_bytes().replace(b"\n", b"\r\n")


def came(name: str, arrived: float = NOON + 999) -> Trip:
    return trip(head(name), NOON, RELAYS, arrived)


def test_mail_that_no_relay_took_came_direct() -> None:
    """Its time is the last server's, however many there were before."""
    assert came("direct") == Trip("direct", 4)
    assert came("direct").words == "direct, in 4 s"


def test_mail_that_a_relay_kept_came_late() -> None:
    """The relay is named, with how long mail lay there and how late it was in all."""
    found = came("relay")
    assert found == Trip("relay", 727, "mx2", 720)
    assert found.words == "by the relay mx2, 12 minutes late"


def test_what_a_stranger_called_himself_is_no_server_on_the_way() -> None:
    """Brackets hold what a client said; also brackets within brackets."""
    assert came("liar").way == "direct"


def test_brackets_are_read_in_one_pass() -> None:
    """However deep a stranger nests them; one that is never closed hides nothing."""
    nested = b"from a " + b"(" * 2000 + b" by x " + b")" * 2000 + b" by mx2.example.org; none"
    began = time.process_time()
    found = hops((b"Received: %b\r\n" % nested) * 40)
    assert time.process_time() - began < 2
    assert {each.by for each in found} == {"mx2.example.org"}
    assert hops(b"Received: from ( (by x) by mx3.example.org; none\r\n")[0].by == "mx3.example.org"


def test_what_is_said_first_counts_and_not_without_end() -> None:
    """The last servers' lines stand first; a stranger's endless ones are not read to their end."""
    ours, strange = b"Received: by mx2.example.org; none\r\n", b"Received: by x; none\r\n"
    found = hops(ours + strange * 500)
    assert (len(found), found[-1].by) == (LINES, "mx2.example.org")
    assert hops(b"Received: from a " + b"b" * LONGEST + b" by mx3.example.org; none\r\n") == ()


def test_lines_that_nobody_can_read_are_passed_by() -> None:
    """No date, no name, another zone: what is left tells, and else the mailbox's own time."""
    found = hops(head("odd"))
    assert [each.by for each in found] == ["one.example.net", "mx3.example.org", "mail.example.org"]
    assert [each.at is None for each in found] == [True, False, True]
    assert came("odd") == Trip("relay", 60, "mx3")
    assert trip(b"Subject: none\r\n\r\n", NOON, RELAYS, NOON + 7) == Trip("direct", 7)


def test_a_year_that_is_none_is_no_date() -> None:
    """Numbers that fit into no date leave the line without one."""
    (hop,) = hops(b"Received: by x; Sun, 22 Nov 99999999999999999999 12:00:00 +0000\r\n")
    assert hop.at is None


def test_a_clock_that_goes_behind_makes_nothing_come_before_it_was_sent() -> None:
    """The servers' clocks are not ours."""
    assert trip(head("direct"), NOON + 60, RELAYS, NOON).seconds == 0


@pytest.mark.parametrize(
    ("seconds", "words"),
    [
        (20, "0 minutes late"),
        (60, "1 minute late"),
        (3600, "60 minutes late"),
        (266_400, "3 d 2 h late"),
    ],
)
def test_lateness_is_said_in_minutes_while_that_can_be_read(seconds: float, words: str) -> None:
    """Days are days."""
    assert Trip("relay", seconds, "mx2").words == f"by the relay mx2, {words}"
