"""Reading rspamd's verdicts, wherever they are told."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from backup_mx.errors import LabError
from backup_mx.lab.verdict import DRAINED, Verdict, differences, from_history, from_scan, from_trace

DATA = Path(__file__).parents[1] / "data" / "senders"


def read(name: str) -> str:
    return (DATA / name).read_text()


def delivered() -> Verdict:
    found = from_trace(read("delivered.txt"))
    assert found is not None
    return found


def told(verdict: Verdict) -> tuple[object, ...]:
    return (
        *(verdict.source, verdict.score, verdict.action, verdict.client),
        *(verdict.spf, verdict.dkim, verdict.dmarc),
    )


def test_a_delivered_message_carries_its_verdict() -> None:
    """Score, client and results are read from the fields on top of it."""
    found = delivered()
    wanted = ("headers", 7.42, "add header", "192.0.2.112", "pass", "none", "none")
    assert told(found) == wanted
    assert found.symbols["LAB_WEIGHT"] == 7.5
    assert DRAINED in found.symbols


def test_a_message_that_no_filter_saw_has_no_verdict() -> None:
    """Nothing is made up where there is no field of rspamd's."""
    assert from_trace("Received: by mail.example.org; now\nX-Spam: Yes\n") is None


def test_a_client_is_read_from_the_filters_own_words_or_not_at_all() -> None:
    """Without a field that names the client, the address that SPF was asked of is it."""
    text = read("delivered.txt").replace("X-Rspamd-Client", "X-Other")
    found = from_trace(text)
    assert found is not None
    assert found.client == "192.0.2.112"
    bare = from_trace("X-Spamd-Result: default: False [0.10 / 11.00]; A(0.10)[]\n")
    assert bare is not None
    assert (bare.client, bare.symbols) == ("", {"A": 0.1})


def test_history_tells_the_latest_verdict_on_each_message() -> None:
    """A message that was put off and tried again counts as it was judged last."""
    found = from_history(read("history.json"))
    wanted = ("history", 7.42, "add header", "192.0.2.112", "pass", "none", "none")
    assert told(found["<1@junk.example>"]) == wanted
    refused = found["<2@bank.example>"]
    assert (refused.action, refused.spf, refused.dmarc) == ("reject", "neutral", "fail")
    assert refused.is_junk


def test_a_scan_tells_what_would_have_been() -> None:
    """rspamc's answer is read, with or without a line of its own above it."""
    text = read("scan.txt")
    for each in (text, text.partition("\n")[2]):
        found = from_scan(each, "192.0.2.102")
        assert told(found) == ("scan", 1.1, "no action", "192.0.2.102", "fail", "none", "none")


@pytest.mark.parametrize("text", ["", "nothing", "[]", '{"rows": 1}', '{"rows": [{}]}'])
def test_what_is_no_answer_of_rspamds_is_an_error(text: str) -> None:
    """A controller that says something else is not taken for an empty history."""
    with pytest.raises(LabError, match="history cannot be read"):
        from_history(text)
    with pytest.raises(LabError, match="did not say what it found"):
        from_scan(text, "192.0.2.1")


def test_the_same_verdict_from_two_places_does_not_differ() -> None:
    """Header and history tell the same of the same message."""
    history = from_history(read("history.json"))["<1@junk.example>"]
    assert differences(history, delivered()) == []


def test_a_forced_score_is_compared_as_it_is() -> None:
    """A rejection sets the score, whatever its symbols add up to."""
    straight = replace(delivered(), score=11.0)
    assert differences(straight, replace(straight, symbols={"ONCE_RECEIVED": 0.2})) == []


def test_each_difference_is_named_with_the_symbols_behind_it() -> None:
    """What parity lacks is told so that one can act on it."""
    straight = delivered()
    symbols = {**straight.symbols, "RDNS_NONE": 2.0} | {"R_SPF_ALLOW": 0.0}
    other = replace(straight, score=9.62, spf="fail", client="203.0.113.20", symbols=symbols)
    assert differences(straight, other) == [
        "spf fail, straight pass",
        "client 203.0.113.20, straight 192.0.2.112",
        "score 9.62, straight 7.42: RDNS_NONE 2.00 for 0.00, R_SPF_ALLOW 0.00 for -0.20",
    ]
