"""Is the kit in effect: what is asked, and what each answer means."""

from __future__ import annotations

import copy
import json
import smtpd
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from backup_mx.config import parse
from backup_mx.config.values import HostPort
from backup_mx.errors import MachineError
from backup_mx.findings import passed
from backup_mx.kit import check
from backup_mx.kit.judge import MESSAGES, PARITY, PATH, STRANGER, judge, parity
from backup_mx.kit.primary import LAYERS
from backup_mx.machine.sent import ask
from backup_mx.machine.ship import Answer, Tell, run_local
from backup_mx.net import smtp

FIVE_LINES = (Path(__file__).parents[1] / "data/config/five-lines.toml").read_text()
CONFIG = parse(f"{FIVE_LINES}\nprimary.home.smtputf8 = true\n", "test")
RELAY, PRIMARY = CONFIG.relays["mx2"], CONFIG.primaries["home"]
WANTED = check.plan(CONFIG, RELAY, PRIMARY)
TAKEN = {"code": 250, "text": "2.1.5 Ok"}


def offer(*keywords: str) -> dict[str, Any]:
    return {"code": 250, "text": "\n".join(("host.example.org", "PIPELINING", *keywords))}


def seen(
    action: str = "no_action", ip: str = STRANGER, local: str = "no", **others: str
) -> dict[str, Any]:
    limited, uncapped = others.get("limited", "no"), others.get("uncapped", "no_action")
    saw = f"relay=203.0.113.20 local={local} ip={ip} limited={limited}"
    told = f"{saw} uncapped={uncapped} action={action}"
    return {"code": 451, "text": f"4.7.1 backup-mx probe: {told}", "step": "DATA"}


def facts() -> dict[str, Any]:
    """Return what a primary answers that has the whole kit."""
    opened = {
        "greeting": {"code": 220, "text": "mail.example.org ESMTP"},
        "seconds": 0.1,
        "tls": True,
        "offer": offer("SIZE 60000000", "8BITMIME", "XFORWARD NAME ADDR"),
    }
    messages = {name: seen("add_header") for name in WANTED["messages"]}
    return {
        "opened": opened,
        "envelopes": dict.fromkeys(WANTED["senders"], TAKEN),
        "messages": {**messages, "plain": seen()},
        "burst": {**TAKEN, "connections": 24},
        "relay": offer("SIZE 52428800", "8BITMIME", "STARTTLS"),
    }


def verdicts(told: dict[str, Any]) -> dict[str, str]:
    return {finding.gate: finding.verdict for finding in judge(told, WANTED)}


def test_a_primary_with_the_whole_kit_passes() -> None:
    """Every layer and every capability is looked at, once, and is in order."""
    findings = list(judge(facts(), WANTED))
    assert [each.gate for each in findings] == [*PATH, *LAYERS, *MESSAGES, *PARITY]
    assert passed(findings)


SPF_FAILED = {"code": 550, "text": "5.7.23 SPF fail - not authorized"}


def put_off(told: dict[str, Any], name: str) -> None:
    told["envelopes"][name] = {"code": 450, "text": "4.7.1 Client host rejected"}


def answer(name: str, reply: dict[str, Any]) -> Callable[[dict[str, Any]], None]:
    return lambda told: told["messages"].__setitem__(name, reply)


BROKEN: dict[str, Callable[[dict[str, Any]], None]] = {
    "postscreen": lambda told: told["opened"].__setitem__(
        "greeting", {"code": 220, "text": "mail.example.org ESMTP\nmail.example.org ESMTP"}
    ),
    "client-restrictions": lambda told: put_off(told, "outside"),
    "sender-restrictions": lambda told: put_off(told, "own"),
    "policyd-spf": lambda told: told["envelopes"].update(spf=SPF_FAILED),
    "anvil": lambda told: told["burst"].update(code=450, text="4.7.1 too much mail"),
    "xforward": lambda told: told["opened"].update(offer=offer("SIZE 60000000", "8BITMIME")),
    "external-relay": answer("plain", seen(ip="203.0.113.20")),
    "local-addrs": answer("local", seen(local="yes")),
    "greylist": answer("greylist", seen("add_header", uncapped="soft_reject")),
    "ratelimit": answer("plain", seen(limited="yes")),
    "ceiling": answer("ceiling", seen("reject")),
}


@pytest.mark.parametrize("layer", LAYERS)
def test_a_layer_that_lacks_is_named(layer: str) -> None:
    """The answer that a lacking layer gives makes that layer fail, with what to do."""
    told = facts()
    BROKEN[layer](told)
    findings = list(judge(told, WANTED))
    assert [each.gate for each in findings if each.verdict == "fail"] == [layer]
    assert all(each.do for each in findings if each.verdict == "fail")
    assert not passed(findings)


def test_what_cannot_be_asked_is_unknown() -> None:
    """Without a session nothing is known of any layer; without the kit's rule nothing of rspamd."""
    told = facts()
    told["opened"] = {"error": "Connection refused", "seconds": 0.1}
    found = verdicts(told)
    assert found.pop("drain-path") == "fail"
    assert set(found.values()) == {"unknown"}
    told = facts()
    del told["opened"]["offer"]
    told["opened"]["error"] = "self-signed certificate"
    found = verdicts(told)
    assert (found.pop("drain-path"), found.pop("tls")) == ("pass", "fail")
    assert set(found.values()) == {"unknown"}
    told = facts()
    told["messages"] = {"plain": {"code": 250, "text": "2.0.0 queued", "step": "DATA"}}
    by_rspamd = {"external-relay", "local-addrs", "greylist", "ratelimit", "ceiling", *MESSAGES}
    found = verdicts(told)
    assert {gate for gate, verdict in found.items() if verdict == "unknown"} == by_rspamd
    told = facts()
    put_off(told, "outside")
    put_off(told, "own")
    assert verdicts(told)["sender-restrictions"] == "unknown"
    told = facts()
    told["messages"] = {
        name: {"code": 450, "text": "4.7.1 no", "step": "RCPT"} for name in WANTED["messages"]
    }
    found = verdicts(told)
    assert {gate for gate, verdict in found.items() if verdict == "unknown"} == by_rspamd
    told = facts()
    told["envelopes"]["own"] = SPF_FAILED
    assert verdicts(told)["sender-restrictions"] == "unknown"
    told = facts()
    told["envelopes"]["spf"] = {"code": 556, "text": "5.1.10 the sender's domain takes no mail"}
    assert verdicts(told)["policyd-spf"] == "unknown"
    told = facts()
    told["messages"]["greylist"] = seen("add_header", uncapped="reject")
    assert verdicts(told)["greylist"] == "unknown"
    told = facts()
    told["relay"] = {"error": "Connection refused"}
    assert {verdicts(told)[gate] for gate in PARITY} == {"unknown"}


KINDS = dict(zip(MESSAGES, ("dmarc", "eight-bit", "smtputf8", "large"), strict=True))


@pytest.mark.parametrize(
    "reply",
    [
        {"code": 554, "text": "5.7.1 rejected by policy", "step": "DATA"},
        {"code": 552, "text": "5.3.4 too big", "step": "MAIL"},
        {"error": "timed out"},
        seen("reject"),
    ],
    ids=["refused", "not begun", "hung up", "by rspamd"],
)
@pytest.mark.parametrize("gate", MESSAGES)
def test_a_kind_of_message_that_is_refused_is_named(gate: str, reply: dict[str, Any]) -> None:
    """Whoever refuses it, and at whichever step: that kind fails, and no other."""
    told = facts()
    told["messages"][KINDS[gate]] = reply
    findings = [each for each in judge(told, WANTED) if each.verdict != "pass"]
    assert [(each.gate, each.verdict, bool(each.do)) for each in findings] == [(gate, "fail", True)]


def test_a_large_message_that_filters_let_pass_is_taken() -> None:
    """It is mail then, and that is in order; of what would have come after it nothing is known."""
    told = facts()
    told["messages"]["large"] = {"code": 250, "text": "2.0.0 queued", "step": "DATA"}
    assert passed(judge(told, WANTED))
    del told["messages"]["large"]
    told["messages"]["smtputf8"] = {"code": 250, "text": "2.0.0 queued", "step": "DATA"}
    unknown = [each for each in judge(told, WANTED) if each.verdict == "unknown"]
    assert [each.gate for each in unknown] == ["message-large"]


def test_no_kind_is_asked_about_that_no_relay_takes() -> None:
    """Where not every primary takes 8-bit mail or SMTPUTF8, none of it comes by a relay."""
    seven_bit = f"{FIVE_LINES}\nprimary.home.smtputf8 = true\nprimary.home.eightbitmime = false\n"
    for text, left_out in ((FIVE_LINES, {"smtputf8"}), (seven_bit, {"eight-bit", "smtputf8"})):
        config = parse(text, "test")
        wanted = check.plan(config, config.relays["mx2"], config.primaries["home"])
        assert wanted["messages"].keys() == WANTED["messages"].keys() - left_out
        told = facts()
        told["messages"] = {name: told["messages"][name] for name in wanted["messages"]}
        assert passed(judge(told, wanted))


def test_the_large_message_fits_through_the_relay() -> None:
    """It is larger than Postfix's own default, and never larger than a relay would take."""
    small = parse(f"{FIVE_LINES}\nqueue.message_size_limit = '5 MiB'\n", "test")
    plans = [check.plan(each, RELAY, PRIMARY)["messages"]["large"] for each in (CONFIG, small)]
    assert plans[0]["fill"] > 10_240_000
    assert 5 * 1024 * 1024 > plans[1]["fill"] + len(plans[1]["data"]) > 4_900_000


def test_each_way_not_to_be_greeted_has_its_remedy() -> None:
    """Nobody there is one thing; a primary that turns the relay away is another."""
    told = facts()
    told["opened"] = {"error": "Connection refused", "seconds": 0.1}
    (nobody, *_) = judge(told, WANTED)
    told["opened"] = {"greeting": {"code": 421, "text": "4.7.0 too many"}, "seconds": 0.1}
    (turned_away, *_) = judge(told, WANTED)
    assert (nobody.verdict, turned_away.verdict) == ("fail", "fail")
    assert "edge" in nobody.do
    assert "anvil" in turned_away.do


def test_a_pause_without_a_word_is_postscreen_s() -> None:
    """A postscreen whose teaser is switched off makes a client wait all the same."""
    told = facts()
    told["opened"]["seconds"] = 6.1
    assert verdicts(told)["postscreen"] == "fail"


def test_each_primary_is_asked_for_an_address_of_its_own() -> None:
    """The operator's, where it lives there; else the postmaster of one of its domains."""
    text = (Path(__file__).parents[1] / "golden/tunnel.toml").read_text()
    config = parse(text, "test")
    asked = [
        check.plan(config, config.relays["mx2"], primary)["recipient"]
        for primary in config.primaries.values()
    ]
    assert asked == ["postmaster@example.org", "postmaster@example.com"]


@pytest.mark.parametrize(
    ("ours", "theirs", "failing"),
    [
        (("SIZE 52428800",), ("SIZE 52494336",), []),
        (("SIZE 52428801",), ("SIZE 52494336",), ["parity-size"]),
        (("SIZE 52428800",), ("SIZE 10240000",), ["parity-size"]),
        (("SIZE 0",), ("SIZE 10240000",), ["parity-size"]),
        (("SIZE 52428800",), ("SIZE 0",), []),
        (("SIZE 52428800",), (), []),
        (("SMTPUTF8",), ("SIZE 0",), ["parity-smtputf8"]),
        (("SMTPUTF8",), ("smtputf8",), []),
        ((), ("SMTPUTF8",), []),
        (("8BITMIME", "REQUIRETLS"), (), ["parity-8bitmime", "parity-requiretls"]),
    ],
)
def test_a_relay_offers_no_more_than_its_primary(
    ours: Sequence[str], theirs: Sequence[str], failing: list[str]
) -> None:
    """What the relay takes and the primary does not would be stuck: each is named."""
    told = copy.deepcopy(facts())
    told["relay"] = offer(*ours)
    told["opened"]["offer"] = offer("XFORWARD", *theirs)
    findings = {each.gate: each for each in judge(told, WANTED)}
    assert [gate for gate in PARITY if findings[gate].verdict == "fail"] == failing


def test_the_size_to_set_is_one_that_the_config_takes() -> None:
    """The remedy for a limit that is too large can be pasted, and cures it."""
    told = facts()
    told["opened"]["offer"] = offer("XFORWARD", "8BITMIME", "SIZE 10240000")
    (finding,) = (each for each in judge(told, WANTED) if each.gate == "parity-size")
    assert '"10174464 B"' in finding.do


class Local:
    """This host, where nobody answers on the drain path."""

    def run(self, argv: Sequence[str], *, stdin: bytes = b"", tell: Tell | None = None) -> Answer:
        return run_local([sys.executable, *argv[1:]], stdin, tell)


def test_a_dead_path_is_a_finding() -> None:
    """The walk runs alone, ends, and tells what it met."""
    wanted = {**WANTED, "host": "127.0.0.1", "port": 9}
    told = ask(Local(), smtp, wanted)
    assert json.loads(json.dumps(told)) == told
    (first, *_) = judge(told, wanted)
    assert (first.gate, first.verdict) == ("drain-path", "fail")
    assert "refused" in first.saw


def test_offers_alone_can_be_compared() -> None:
    """It takes no walk past EHLO, and a dead path leaves every capability unknown."""
    with smtpd.serving(smtpd.plain()) as server:
        there = {"drain_to": HostPort("127.0.0.1", server.port), "tls": "none"}
        check.compare(Local(), CONFIG, RELAY, PRIMARY.model_copy(update=there))
        assert {line.split()[0].lower() for line in server.heard} == {"ehlo", "quit"}
    silent = PRIMARY.model_copy(update={"drain_to": HostPort("127.0.0.1", 9)})
    findings = check.compare(Local(), CONFIG, RELAY, silent)
    assert [(each.gate, each.verdict) for each in findings] == [
        (each, "unknown") for each in PARITY
    ]
    assert [each.verdict for each in parity(facts())] == ["pass"] * len(PARITY)


def test_a_relay_that_answers_nonsense() -> None:
    """What is no JSON is an error of the machine, not a traceback."""

    class Odd:
        def run(self, *_: object, **__: object) -> Answer:
            return Answer(0, "Python 2.7\n", "")

    with pytest.raises(MachineError, match="answered no facts"):
        ask(Odd(), smtp, WANTED)
