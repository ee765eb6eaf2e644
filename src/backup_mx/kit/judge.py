"""From what the primary answered to what that means: each layer of the kit, each capability."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

from backup_mx.findings import Finding
from backup_mx.kit.primary import LAYERS
from backup_mx.net.session import told
from backup_mx.net.smtp import Fact

PATH = ("drain-path", "tls")
"""What has to be there before any layer can be asked."""

STRANGER = "192.0.2.1"
"""The client that the probes' Received field claims: RFC 5737, nobody's and yet not local."""
_CLOSED = "the drain path does not carry a session"
_SPF_FAILED = "5.7.23"  # RFC 7372, section 3.2
_PAUSE = 2.0  # seconds; postscreen's is 6 (postscreen_greet_wait)
_MARGIN = 64 * 1024  # what a relay and a primary may add to a message, in bytes
_ANSWER = re.compile(
    r"probe: relay=(?P<relay>\S+) local=(?P<local>yes|no) ip=(?P<ip>\S+)"
    r" limited=(?P<limited>\S+) uncapped=(?P<uncapped>\S+) action=(?P<action>\S+)"
)


def judge(facts: Fact, wanted: Fact) -> Iterator[Finding]:
    """Turn facts into findings: the path itself, each layer, each capability."""
    path = list(_path(facts["opened"], wanted["tls"]))
    yield from path
    if "offer" not in facts["opened"]:
        for gate in (*PATH[len(path) :], *LAYERS, *MESSAGES, *PARITY):
            yield Finding(gate, "unknown", _CLOSED)
        return
    for layer in LAYERS:
        yield _JUDGES[layer](layer, facts, wanted)
    for gate, (name, remedy) in _KINDS.items():
        yield _message(gate, name, remedy, facts, wanted)
    yield from parity(facts)


def _path(opened: Fact, level: str) -> Iterator[Finding]:
    """Judge what comes before the first command: a connection with a greeting, then TLS."""
    if "greeting" not in opened:
        remedy = "see that the primary runs, and that its edge lets this relay in"
        yield Finding("drain-path", "fail", told(opened), remedy)
        return
    if opened["greeting"]["code"] != 220:
        remedy = "the primary itself turns the relay away: see postscreen and anvil there"
        yield Finding("drain-path", "fail", told(opened["greeting"]), remedy)
        return
    yield Finding("drain-path", "pass", f"greeted after {opened['seconds']} s")
    if "offer" not in opened:
        remedy = f'mend TLS at the primary, or choose another level than tls = "{level}"'
        yield Finding("tls", "fail", told(opened), remedy)
        return
    used = "in use" if opened["tls"] and level != "none" else "not in use"
    yield Finding("tls", "pass", f'{used}, as tls = "{level}" wants it')


def _postscreen(gate: str, facts: Fact, _wanted: Fact) -> Finding:
    opened = facts["opened"]
    if "\n" in opened["greeting"]["text"] or opened["seconds"] >= _PAUSE:
        saw = f"made to wait {opened['seconds']} s for the greeting"
        return Finding(gate, "fail", saw, "add the relay to postscreen_access_list")
    return Finding(gate, "pass", "greeted at once (or remembered from within a day)")


def _outside(gate: str, facts: Fact, _wanted: Fact) -> Finding:
    return _taken(gate, facts["envelopes"]["outside"], "permit the relay in client restrictions")


def _sender(name: str, remedy: str) -> Callable[[str, Fact, Fact], Finding]:
    def judged(gate: str, facts: Fact, _wanted: Fact) -> Finding:
        answer = facts["envelopes"][name]
        if facts["envelopes"]["outside"].get("code") != 250:
            return Finding(gate, "unknown", "no sender at all is taken from the relay")
        by_spf = _SPF_FAILED in answer.get("text", "")
        if answer.get("code") != 250 and by_spf != (name == "spf"):
            return Finding(gate, "unknown", f"something else refuses: {told(answer)}")
        return _taken(gate, answer, remedy)

    return judged


def _taken(gate: str, fact: Fact, remedy: str) -> Finding:
    if fact.get("code") == 250:
        return Finding(gate, "pass", "the recipient is taken")
    return Finding(gate, "fail", told(fact), remedy)


def _anvil(gate: str, facts: Fact, wanted: Fact) -> Finding:
    burst = facts["burst"]
    if burst.get("code") == 250:
        many = f"{wanted['transactions']} transactions in {wanted['connections']} connections"
        return Finding(gate, "pass", f"{many} in a row are taken")
    remedy = "add the relay to smtpd_client_event_limit_exceptions"
    return Finding(gate, "fail", told(burst), remedy)


def _xforward(gate: str, facts: Fact, _wanted: Fact) -> Finding:
    if "XFORWARD" in _offers(facts["opened"]["offer"]):
        return Finding(gate, "pass", "XFORWARD is offered")
    remedy = "add the relay to smtpd_authorized_xforward_hosts, or the log names the relay only"
    return Finding(gate, "fail", "XFORWARD is not offered", remedy)


@dataclass(frozen=True)
class _Seen:
    """What the kit's rule says rspamd saw."""

    local: bool
    ip: str
    limited: bool
    uncapped: str
    action: str


def _seen(fact: Fact) -> _Seen | None:
    found = _ANSWER.search(fact.get("text", ""))
    if found is None:
        return None
    uncapped, action = (found[name].replace("_", " ") for name in ("uncapped", "action"))
    limited = found["limited"] != "no"
    return _Seen(found["local"] == "yes", found["ip"], limited, uncapped, action)


def _by_rspamd(
    name: str, judged: Callable[[_Seen], str], remedy: str
) -> Callable[[str, Fact, Fact], Finding]:
    """Return the judge of a probe: ``judged`` says what is wrong with what rspamd saw, or ""."""

    def look(gate: str, facts: Fact, _wanted: Fact) -> Finding:
        fact = facts["messages"].get(name)
        if fact and fact.get("step") != "DATA":
            return Finding(gate, "unknown", f"no probe came as far as rspamd: {told(fact)}")
        if fact is None or facts["messages"]["plain"].get("code") == 250:
            unheard = "the kit's rule for rspamd does not answer: a probe was taken as mail"
            return Finding(gate, "unknown", unheard, "load the kit's rule, then restart rspamd")
        seen = _seen(fact)
        if seen is None:
            return Finding(gate, "fail", told(fact), remedy)
        wrong = judged(seen)
        saw = f"client {seen.ip}, action {seen.action}"
        return Finding(gate, "fail" if wrong else "pass", wrong or saw, remedy if wrong else "")

    return look


def _greylist(gate: str, facts: Fact, wanted: Fact) -> Finding:
    remedy = "exempt the relay in rspamd's greylisting"
    finding = _by_rspamd("greylist", _put_off, remedy)(gate, facts, wanted)
    seen = _seen(facts["messages"].get("greylist", {}))
    if finding.verdict == "pass" and seen and seen.uncapped in ("reject", "discard"):
        saw = f"rspamd would {seen.uncapped} the probe before it greylists"
        return Finding(gate, "unknown", saw, "see why in rspamd's history")
    return finding


def _original(seen: _Seen) -> str:
    return "" if seen.ip == STRANGER else f"rspamd judges {seen.ip}, not the original {STRANGER}"


def _local(seen: _Seen) -> str:
    return "rspamd takes the relay for a local host: it may skip checks" if seen.local else ""


def _put_off(seen: _Seen) -> str:
    late = seen.uncapped in ("greylist", "soft reject")
    return f"rspamd would {seen.uncapped}" if late else ""


def _limited(seen: _Seen) -> str:
    return "rspamd counts the drain against its rate limits" if seen.limited else ""


def _rejected(seen: _Seen) -> str:
    refused = seen.action in ("reject", "soft reject", "discard")
    return f"rspamd would {seen.action}" if refused else ""


_JUDGES: Mapping[str, Callable[[str, Fact, Fact], Finding]] = {
    "postscreen": _postscreen,
    "client-restrictions": _outside,
    "sender-restrictions": _sender("own", "permit the relay in sender restrictions"),
    "policyd-spf": _sender("spf", "add the relay to skip_addresses of policyd-spf"),
    "anvil": _anvil,
    "xforward": _xforward,
    "external-relay": _by_rspamd("plain", _original, "load the kit's external_relay.conf"),
    "local-addrs": _by_rspamd("local", _local, "take the relay out of rspamd's local_addrs"),
    "greylist": _greylist,
    "ratelimit": _by_rspamd("plain", _limited, "exempt the relay in rspamd's ratelimit"),
    "ceiling": _by_rspamd("ceiling", _rejected, "load the kit's rule that caps rspamd's actions"),
}


# ── Kinds of messages ─────────────────────────────────────────────────────────────────────────────

_KINDS = {
    "message-dmarc": ("dmarc", "let the relay's mail past what enforces DMARC"),
    "message-8-bit": ("eight-bit", "see what at the primary refuses 8-bit mail"),
    "message-smtputf8": ("smtputf8", "see what at the primary refuses SMTPUTF8"),
    "message-large": ("large", "raise the primary's limits, its filters' too"),
}
MESSAGES = tuple(_KINDS)
"""Kinds of messages that a primary may treat otherwise than the plain one."""


def _done(seen: _Seen) -> str:
    spared = f", without the kit {seen.uncapped}" if seen.uncapped != seen.action else ""
    return f"action {seen.action}{spared}"


def _message(gate: str, name: str, remedy: str, facts: Fact, wanted: Fact) -> Finding:
    """Judge how a kind of message fared whose plain sister came as far as rspamd."""
    if name not in wanted["messages"]:
        return Finding(gate, "pass", "no relay takes such mail: not every primary does")
    plain, fact = (facts["messages"].get(each) for each in ("plain", name))
    if plain is None or plain.get("step") != "DATA":
        return Finding(gate, "unknown", "not even a plain message came as far as the filters")
    if fact is None:
        return Finding(gate, "unknown", "not asked: a probe before it was taken as mail")
    seen = _seen(fact)
    if seen is None and fact.get("code") != 250:
        return Finding(gate, "fail", told(fact), remedy)
    wrong = _rejected(seen) if seen else ""
    saw = _done(seen) if seen else "taken as mail; rspamd does not look at it"
    return Finding(gate, "fail" if wrong else "pass", wrong or saw, remedy if wrong else "")


# ── Capabilities ──────────────────────────────────────────────────────────────────────────────────

_KEYWORDS = {
    "parity-smtputf8": ("SMTPUTF8", "set smtputf8 = false for this primary"),
    "parity-8bitmime": ("8BITMIME", "set eightbitmime = false for this primary"),
    "parity-requiretls": ("REQUIRETLS", "run Postfix 3.10 or older on the relay"),
}
PARITY = ("parity-size", *_KEYWORDS)
"""What a relay may offer only where its primary takes it."""


def _offers(fact: Fact) -> dict[str, str]:
    """Return the ESMTP keywords of an EHLO answer, each with its parameters (RFC 5321, 4.1.1.1)."""
    lines = fact["text"].split("\n")[1:]
    return {line.split()[0].upper(): line.partition(" ")[2] for line in lines if line.strip()}


def parity(facts: Fact) -> Iterator[Finding]:
    """Compare what relay and primary offer: a relay may offer only what its primary takes."""
    if "offer" not in facts["opened"]:
        yield from (Finding(gate, "unknown", _CLOSED) for gate in PARITY)
        return
    if facts["relay"].get("code") != 250:
        for gate in PARITY:
            saw = f"the relay itself does not answer: {told(facts['relay'])}"
            yield Finding(gate, "unknown", saw, "see that Postfix runs on the relay")
        return
    relay, primary = _offers(facts["relay"]), _offers(facts["opened"]["offer"])
    yield _size(relay, primary)
    for gate, (keyword, remedy) in _KEYWORDS.items():
        if keyword in relay and keyword not in primary:
            saw = f"the relay offers {keyword}, the primary does not: such mail would be stuck"
            yield Finding(gate, "fail", saw, remedy)
        else:
            both = [
                who for who, offer in (("relay", relay), ("primary", primary)) if keyword in offer
            ]
            yield Finding(gate, "pass", f"offered by: {' and '.join(both) or 'neither'}")


def _size(relay: Mapping[str, str], primary: Mapping[str, str]) -> Finding:
    """Compare the limits (RFC 1870); 0, or no SIZE at all, is none."""
    ours, theirs = (_number(offer.get("SIZE", "")) for offer in (relay, primary))
    saw = f"relay {ours:,} bytes, primary {f'{theirs:,} bytes' if theirs else 'without limit'}"
    if theirs and not 0 < ours <= theirs - _MARGIN:
        remedy = f'set message_size_limit in [queue] to at most "{(theirs - _MARGIN)} B"'
        return Finding("parity-size", "fail", f"{saw}: a large message would be stuck", remedy)
    return Finding("parity-size", "pass", saw)


def _number(text: str) -> int:
    return int(text) if text.isascii() and text.isdigit() else 0
