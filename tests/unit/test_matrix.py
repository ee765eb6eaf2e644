"""The matrix of senders: the file, and the mail that is made from it."""

from __future__ import annotations

import email
import email.policy
import re
from datetime import UTC, datetime
from importlib import resources

import pytest

from backup_mx.errors import LabError
from backup_mx.lab.layout import ROLES
from backup_mx.lab.matrix import LARGE_OCTETS, Letter, letters, parse, post

NOW = datetime(2026, 1, 1, tzinfo=UTC)
ZONES = resources.files("backup_mx.lab") / "machines/internet/etc/knot/zones"
LETTER = """
[[letter]]
name = "one"
address = "192.0.2.101"
helo = "mta.strict.example"
sender = "post@strict.example"
straight = "take"
"""


def find(name: str) -> Letter:
    return next(letter for letter in letters() if letter.name == name)


def test_every_sender_that_a_drain_was_seen_to_fail_for_is_there() -> None:
    """The matrix holds what the design asks for, each with a client of its own on the wire."""
    matrix = letters()
    assert len(matrix) == 16
    assert {letter.straight for letter in matrix} == {"take", "refuse", "defer"}
    assert {letter.address for letter in matrix} <= set(ROLES["internet"].addresses)
    assert {len(letter.recipients) for letter in matrix} == {1, 20}


@pytest.mark.parametrize("letter", letters(), ids=lambda letter: str(letter.name))
def test_dns_says_of_each_sender_what_the_matrix_says(letter: Letter) -> None:
    """HELO names have the client's address, and the address has that name, or none from 119 on."""
    zone = (ZONES / "example.zone").read_text(encoding="utf-8")
    reverse = (ZONES / "2.0.192.in-addr.arpa.zone").read_text(encoding="utf-8")
    label = letter.helo.removesuffix(".example")
    assert re.search(rf"^{label}\s+A\s+{re.escape(letter.address)}$", zone, re.MULTILINE)
    number = letter.address.rpartition(".")[2]
    named = re.search(rf"^{number}\s+PTR\s+{letter.helo}\.$", reverse, re.MULTILINE)
    assert bool(named) == (int(number) < 119)


@pytest.mark.parametrize("letter", letters(), ids=lambda letter: str(letter.name))
def test_a_letter_is_whole_and_new_each_time(letter: Letter) -> None:
    """Each has a Message-ID, sender and body that were never seen before, and ends in CRLF."""
    first, again = (post(letter, token, NOW) for token in ("abc", "def"))
    parsed = email.message_from_bytes(first.data, policy=email.policy.SMTPUTF8)
    assert parsed["Message-ID"] == first.message_id
    assert first.message_id != again.message_id
    assert first.data.partition(b"\r\n\r\n")[2] != again.data.partition(b"\r\n\r\n")[2]
    assert (first.sender != again.sender) == bool(letter.sender)
    assert first.data.endswith(b"\r\n")
    assert not re.search(rb"[^\r]\n", first.data)
    assert max(map(len, first.data.split(b"\r\n"))) <= 998


def test_each_letter_is_what_its_name_says() -> None:
    """The null sender is null, the large one large, the 8-bit one not ASCII."""
    assert post(find("null sender"), "x", NOW).sender == ""
    assert len(post(find("20 MB"), "x", NOW).data) == pytest.approx(LARGE_OCTETS, rel=0.01)
    eight = find("8-bit body")
    assert not post(eight, "x", NOW).data.isascii()
    assert eight.extensions == ("BODY=8BITMIME",)
    assert find("SMTPUTF8 address").extensions == ("BODY=8BITMIME", "SMTPUTF8")
    assert b"\r\nX-Lab-Weight: 14.0\r\n" in post(find("score above the rejection"), "x", NOW).data
    assert b"GTUBE-STANDARD" in post(find("GTUBE"), "x", NOW).data


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("letter", "cannot be read"),
        ("", "cannot be read"),
        (LETTER + "colour = 1\n", "has no colour"),
        (LETTER.replace('helo = "mta.strict.example"', ""), "lacks something.*helo"),
        (LETTER.replace('"take"', '"eat"'), 'what is "eat"'),
        (LETTER + 'body = "html"\n', '"html" in the letter one'),
        (LETTER * 2, "one name twice"),
        (LETTER + LETTER.replace('"one"', '"two"'), "one address twice"),
    ],
)
def test_a_mistake_in_the_matrix_is_named(text: str, words: str) -> None:
    """A letter that cannot be sent as it is meant is an error, not a surprise in a drill."""
    with pytest.raises(LabError, match=words):
        parse(text)
