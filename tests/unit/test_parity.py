"""When mail by the relay was treated as it is straight, and when it was not."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import pytest

from backup_mx.lab.matrix import Letter
from backup_mx.lab.parity import RELAYED, STRAIGHT, Passage, relayed_row, straight_row
from backup_mx.lab.verdict import DRAINED, Verdict

LETTER = Letter(
    name="one",
    address="192.0.2.101",
    helo="mta.strict.example",
    sender="post@strict.example",
    straight="take",
    folder="INBOX",
    spf="pass",
)
FOUND = Verdict("headers", 0.1, "no action", "192.0.2.101", "pass", "none", "none", {"A": 0.1})
DRAIN = replace(FOUND, symbols={"A": 0.1, DRAINED: 0.0})
INBOX = Passage(LETTER, STRAIGHT, 250, ("250 Ok",), ("INBOX",), verdict=FOUND)
RELAY = replace(INBOX, path=RELAYED, verdict=DRAIN)
REFUSED = replace(INBOX, code=550, answers=("550 5.7.1 no",), folders=())


def straight(passage: Passage, **letter: object) -> Sequence[str]:
    changed = replace(passage.letter, **letter)  # type: ignore[arg-type]
    row = straight_row(replace(passage, letter=changed))
    assert row["parity"] == (not row["differences"])
    return list(row["differences"])


def relayed(passage: Passage, before: Passage = INBOX) -> Sequence[str]:
    row = relayed_row(passage, before)
    assert row["parity"] == (not row["differences"])
    return list(row["differences"])


def test_a_row_says_everything_of_one_way() -> None:
    """Answer, place, score, results and client are there, for each way."""
    assert relayed_row(RELAY, INBOX) == {
        "name": "one",
        "path": "by the relay",
        "answers": ["250 Ok"],
        "ended": "INBOX",
        "score": 0.1,
        "spf": "pass",
        "dkim": "none",
        "dmarc": "none",
        "client": "192.0.2.101",
        "source": "headers",
        "parity": True,
        "differences": [],
    }


def test_the_straight_way_is_held_to_the_matrix() -> None:
    """A primary that does not bite where it should is told, since then nothing is proven."""
    assert straight(INBOX) == []
    assert straight(INBOX, straight="refuse") == ["the primary was to refuse it: INBOX"]
    assert straight(INBOX, folder="Junk") == ["INBOX, not Junk"]
    assert straight(INBOX, tries=2) == ["the primary did not ask to come back later"]
    assert straight(INBOX, spf="softfail") == ["spf pass, not softfail"]
    assert straight(INBOX, by="policyd-spf") == [
        "turned away by policyd-spf it was to be, and was not"
    ]
    assert straight(replace(INBOX, verdict=None)) == ["no verdict of rspamd's"]


def test_refused_by_another_layer_needs_a_scan() -> None:
    """What rspamd never saw is judged as if it had come straight."""
    scan = replace(FOUND, source="scan")
    assert straight(replace(REFUSED, verdict=scan), straight="refuse", by="policyd-spf") == []
    assert straight(replace(REFUSED, verdict=scan), straight="refuse") == [
        "turned away by rspamd it was to be, and was not"
    ]


def test_delivered_and_judged_alike_is_parity() -> None:
    """The same place, the same verdict, and the kit's mark on it."""
    assert relayed(RELAY) == []
    assert relayed(replace(RELAY, verdict=FOUND)) == ["BACKUP_MX_DRAIN is missing"]
    assert relayed(replace(RELAY, verdict=None)) == ["no verdict of rspamd's to compare"]
    other = replace(DRAIN, client="203.0.113.20")
    assert relayed(replace(RELAY, verdict=other)) == ["client 203.0.113.20, straight 192.0.2.101"]


def test_what_rspamd_says_nothing_of_is_held_to_its_place_only() -> None:
    """At GTUBE, rspamd stops: there is no score to compare, but there is a folder."""
    letter = replace(LETTER, straight="refuse", judged=False, spf="")
    before = replace(REFUSED, letter=letter, verdict=None)
    after = replace(RELAY, letter=letter, folders=("Junk",), verdict=None)
    assert straight(before) == []
    assert relayed(after, before) == []
    assert relayed(replace(after, folders=("INBOX",)), before) == ["in INBOX, not in Junk"]


def test_what_was_refused_belongs_into_junk() -> None:
    """Mail that the primary refuses straight is delivered, but not into INBOX."""
    assert relayed(RELAY, REFUSED) == ["in INBOX, not in Junk"]
    assert relayed(replace(RELAY, folders=("Junk",)), REFUSED) == []
    assert relayed(replace(RELAY, folders=("Junk",)), INBOX) == ["in Junk, not in INBOX"]


@pytest.mark.parametrize(("action", "folder"), [("no action", "INBOX"), ("reject", "Junk")])
def test_what_was_deferred_for_ever_goes_where_rspamd_would_have_it(
    action: str, folder: str
) -> None:
    """A 450 is no verdict: the filter's decides."""
    judged = replace(FOUND, source="scan", action=action)
    before = replace(REFUSED, code=450, verdict=judged)
    assert relayed(replace(RELAY, folders=(folder,)), before) == []
    assert before.ended == "deferred at intake"


def test_mail_that_is_not_there_is_no_parity() -> None:
    """Waiting, lost, half delivered or not taken: each is said."""
    waiting = replace(RELAY, folders=(), waiting="host said: 450 no", verdict=None)
    assert relayed(waiting) == ["0 of 1 copies: waiting on the relay: host said: 450 no"]
    assert waiting.ended == "waiting on the relay: host said: 450 no"
    assert replace(waiting, waiting="").ended == "lost"
    two = replace(LETTER, recipients=("alice@example.org", "bob@example.org"))
    assert relayed(replace(RELAY, letter=two)) == ["1 of 2 copies: INBOX"]
    assert relayed(replace(RELAY, code=452, folders=())) == ["not taken by the relay"]


def test_what_the_primary_cannot_take_the_relay_must_not_take() -> None:
    """Without SMTPUTF8 at the primary, a relay that takes such mail would be stuck with it."""
    letter = replace(LETTER, by="smtputf8", straight="refuse", folder="", spf="", judged=False)
    before = replace(REFUSED, letter=letter, code=555, verdict=None)
    assert straight(before) == []
    assert relayed(replace(RELAY, letter=letter, code=555, folders=()), before) == []
    assert relayed(replace(RELAY, letter=letter), before) == [
        "taken, though the primary cannot take it"
    ]
