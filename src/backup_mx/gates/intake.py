"""The gate ``intake``: what the relay answers on the wire, whom it puts off, whom it refuses.

It is asked from outside; where that place's address is on a block list, or nothing answers it, from
a loopback address of the relay, which is a stranger to it as well. No message is handed over.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

from backup_mx.config import Config
from backup_mx.findings import Finding
from backup_mx.gates.gate import Gate, Site
from backup_mx.gates.inbound import HOME, both, neighbour, stranger
from backup_mx.net.outside import Fact
from backup_mx.net.session import EHLO, told

Replies = Sequence[tuple[str, Fact]]
"""What was said, line by line, and what was answered."""
_FINE, _TEMPORARY, _PERMANENT = 250, 400, 500
_DENIED = 554  # relay_domains_reject_code
_TOO_LARGE = 552
_NULL = "MAIL FROM:<>"
_ODD_NAMES = ("EHLO [192.0.2.1]", "HELO localhost")
_ODD_SENDERS = ("probe@backup-mx.invalid", "probe@localhost", "probe@[192.0.2.1]")
_BLOCKED = "blocked using"  # postscreen(8), of a client on a block list
_STANDBY = "standby:"  # backup_mx.relay.decide.standby
_HIDDEN = {"DSN", "ETRN", "VRFY", "AUTH", "XCLIENT", "XFORWARD"}
"""What a relay must not offer: it could not keep it, or it is nobody's business."""
_DEPLOY = "backup-mx deploy"
_RESTORE = f"{_DEPLOY} puts the relay's own configuration back"
_NAMED = 3  # of several that are wrong


def judge(site: Site) -> Iterator[Finding]:
    """Speak to the relay as all kinds of clients do. Raises MachineError."""
    asked = plan(site.config)
    base = {**stranger(site.relay), "talks": asked}
    here = {
        **base,
        "host": HOME,
        "source": neighbour(),
        "early": asked["own domains"],
        "early_source": neighbour(),
    }
    yield from judged(*both(site, base, here), asked)


def plan(config: Config) -> dict[str, list[str]]:
    """Return what to say to the relay, by what it is about. Nothing of it hands a message over."""
    ours = [f"postmaster@{domain}" for domain in config.domains]
    limit = config.queue.message_size_limit
    eight_bit = all(primary.eightbitmime for primary in config.primaries.values())
    return {
        "own domains": [f"EHLO {EHLO}", _NULL, *_recipients(["postmaster", *ours])],
        "other domains": [f"EHLO {EHLO}", _NULL, *_recipients(_elsewhere(config))],
        "odd clients": [
            *(line for hello in _ODD_NAMES for line in (hello, *_sent("", ours[0]))),
            f"EHLO {EHLO}",
            *(line for sender in (*_ODD_SENDERS, ours[0]) for line in _sent(sender, ours[0])),
            *([f"{_NULL} BODY=8BITMIME", "RSET"] if eight_bit else []),
        ],
        "size": [f"EHLO {EHLO}", f"{_NULL} SIZE={limit}", "RSET", f"{_NULL} SIZE={limit + 1}"],
    }  # fmt: skip


def _sent(sender: str, recipient: str) -> tuple[str, ...]:
    return f"MAIL FROM:<{sender}>", f"RCPT TO:<{recipient}>", "RSET"


def _recipients(addresses: Sequence[str]) -> list[str]:
    return [f"RCPT TO:<{address}>" for address in addresses]


def _elsewhere(config: Config) -> list[str]:
    """Return addresses of other domains, plain and hidden behind a name of ours."""
    ours = next(iter(config.domains))
    away = next(each for each in ("example.com", "example.net", "example.edu")
                if not any(f".{each}".endswith(f".{own}") for own in config.domains))  # fmt: skip
    return [
        f"probe@{away}",
        f"probe@probe.{ours}",
        f"probe%{away}@{ours}",
        f"@{ours}:probe@{away}",
        f'"probe@{away}"@{ours}',
        f"postmaster@{away}",
    ]


def judged(seen: Fact, own: Fact, asked: dict[str, list[str]]) -> Iterator[Finding]:
    """Turn what was answered outside, and on the relay itself, into findings. Pure."""
    yield _early(own["early"], asked["own domains"])
    why = _unheard(seen)
    facts = own if why else seen
    if "talks" not in facts:
        yield Finding("clients", "unknown", f"nothing answers: {told(facts['tls'])}")
        return
    if why:  # the evidence names the place outside
        saw = f"asked on the relay itself: outside {why}"
        yield Finding("from where", "warn", saw, "--outside: look from where it answers anybody")
    for name, part in _PARTS.items():
        talk, lines = facts["talks"][name], asked[name]
        if len(talk["replies"]) < len(lines):
            yield _broken_off(name, talk, lines)
        else:
            yield part(name, _meant(zip(lines, talk["replies"], strict=True)))
    yield _offer(facts["tls"])


def _meant(said: Iterable[tuple[str, Fact]]) -> Replies:
    """Leave out the recipients of a sender that was not taken: "need MAIL" is no word on them."""
    found, is_begun = [], True
    for line, reply in said:
        if line.startswith("MAIL"):
            is_begun = reply["code"] < _TEMPORARY
        if is_begun or not line.startswith("RCPT"):
            found.append((line, reply))
    return found


def _unheard(facts: Fact) -> str:
    """Return why the relay did not speak to that place as to anybody, "" where it did."""
    replies = facts.get("talks", {}).get("own domains", {}).get("replies", ())
    if any(_BLOCKED in each["text"] for each in replies):
        return "is on a block list"
    return "" if replies else "nothing answers"


def _broken_off(name: str, talk: Fact, lines: Sequence[str]) -> Finding:
    """Judge a dialogue that ended early; one that ended after a 5xx is a refusal."""
    said = talk["replies"][-1:]
    last = f"at {lines[len(talk['replies'])]}: {told(talk)}"
    if said and said[0]["code"] >= _PERMANENT:
        return Finding(name, "fail", f"{last}, after {told(said[0])}", _RESTORE)
    return Finding(name, "unknown", last)


def _early(talk: Fact, lines: Sequence[str]) -> Finding:
    """Judge what became of one who spoke before the greeting: put off, and no more than that."""
    name = "early talkers"
    refused = [each for each in talk["replies"] if each["code"] >= _PERMANENT]
    if refused:
        return Finding(name, "fail", f"refused for good: {told(refused[0])}", _RESTORE)
    if len(talk["replies"]) < len(lines):
        return Finding(name, "unknown", f"asked on the relay itself: {told(talk)}")
    if talk["replies"][-1]["code"] < _TEMPORARY:
        return Finding(name, "fail", "taken: postscreen does not stand before the intake", _RESTORE)
    return Finding(name, "pass", f"put off on the relay itself: {told(talk['replies'][-1])}")


def _ours(name: str, said: Replies) -> Finding:
    """Judge the answers to postmasters of our own, who are taken unless there is standby."""
    off = [(line, each) for line, each in said if each["code"] >= _TEMPORARY]
    wrong = [f"{line}: {told(each)}" for line, each in off if _STANDBY not in each["text"]]
    if wrong:
        return Finding(name, "fail", _some(wrong), "see the relay's log and its disk")
    if off:
        return Finding(name, "pass", "put off while the primary is up, as [intake] standby wants")
    return Finding(name, "pass", f"{len(_asked(said))} recipients are taken")


def _others(name: str, said: Replies) -> Finding:
    """Judge the answers to recipients of other domains: a 554 each."""
    asked = _asked(said)
    if not asked:
        return Finding(name, "unknown", f"not even the sender is taken: {told(said[-1][1])}")
    taken = [line for line, each in asked if each["code"] < _TEMPORARY]
    if taken:
        saw = f"an open relay: {_some(taken)} is taken"
        return Finding(name, "fail", saw, f"stop Postfix there now, then {_DEPLOY}")
    wrong = [f"{line}: {told(each)}" for line, each in asked if each["code"] != _DENIED]
    if wrong:
        return Finding(name, "fail", f"not {_DENIED}: {_some(wrong)}", _RESTORE)
    return Finding(name, "pass", f"{len(asked)} ways to name one are answered {_DENIED}")


def _odd(name: str, said: Replies) -> Finding:
    """Judge the answers to clients that are odd, but have done nothing wrong."""
    refused = [f"{line}: {told(each)}" for line, each in said if each["code"] >= _PERMANENT]
    if refused:
        return Finding(name, "fail", f"refused for good: {_some(refused)}", _RESTORE)
    return Finding(name, "pass", f"{len(said)} commands, none of them refused for good")


def _size(name: str, said: Replies) -> Finding:
    """Judge the answers to a message as large as the limit, and to one above it."""
    fits, beyond = (each for line, each in said if "SIZE=" in line)
    if fits["code"] >= _TEMPORARY:
        saw = f"the largest message is not taken: {told(fits)}"
        is_full = fits["code"] < _PERMANENT
        return Finding(name, "fail", saw, "make room on the relay's disk" if is_full else _RESTORE)
    if beyond["code"] != _TOO_LARGE:
        saw = f"a message above message_size_limit is not answered {_TOO_LARGE}: {told(beyond)}"
        return Finding(name, "fail", saw, _RESTORE)
    return Finding(name, "pass", f"the largest is taken, one above it answered {_TOO_LARGE}")


_PARTS: Mapping[str, Callable[[str, Replies], Finding]] = {
    "own domains": _ours,
    "other domains": _others,
    "odd clients": _odd,
    "size": _size,
}


def _offer(session: Fact) -> Finding:
    """Judge what EHLO offers; what the primary takes of it, the gate ``parity`` compares."""
    name, offer = "offer", session.get("offer")
    if offer is None:  # it broke off after the greeting
        return Finding(name, "unknown", f"EHLO: {told(session)}")
    words = {line.split()[0].upper() for line in offer["text"].split("\n")[1:] if line.strip()}
    if extra := sorted(words & _HIDDEN):
        return Finding(name, "fail", f"EHLO offers {', '.join(extra)}", _RESTORE)
    if offer["code"] != _FINE:
        return Finding(name, "fail", f"EHLO: {told(offer)}", _RESTORE)
    return Finding(name, "pass", f"EHLO offers none of {', '.join(sorted(_HIDDEN))}")


def _asked(said: Replies) -> Replies:
    return [(line, each) for line, each in said if line.startswith("RCPT")]


def _some(several: Sequence[str]) -> str:
    """Return the first few of them, and how many more there are."""
    more = len(several) - _NAMED
    return "; ".join(several[:_NAMED]) + (f"; {more} more" if more > 0 else "")


GATE = Gate("intake", "nobody is refused but whom it may refuse", ("A", "MX"), judge, abroad=True)
