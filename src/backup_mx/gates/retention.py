"""Whether nothing expires: Postfix's limits, the agent's retention, the guard's timer."""

from __future__ import annotations

from collections.abc import Iterator

from backup_mx.config import Config
from backup_mx.findings import Finding
from backup_mx.gates import relay
from backup_mx.gates.gate import Gate, Site
from backup_mx.gates.relay import Facts, Word
from backup_mx.relay import text
from backup_mx.relay.queue import postfix
from backup_mx.relay.tell.conditions import GUARD_SECONDS

LIMITS = ("maximal_queue_lifetime", "bounce_queue_lifetime")
LONGEST = 100 * 86_400
"""Seconds: the most that Postfix can count (qmgr(8))."""


def judge(site: Site) -> Iterator[Finding]:
    """Ask Postfix and the agent. Raises MachineError, UnreachableError."""
    facts = relay.guarded(site)
    yield limits(facts)
    yield guard(facts)
    yield retention(site.config, relay.word(site.host))


def limits(facts: Facts) -> Finding:
    """Judge after how long Postfix would give a message up, master.cf included."""
    told = {name: facts.main.get(name, "") for name in LIMITS}
    told |= {name: value for name, value in facts.overrides.items() if name.endswith(LIMITS)}
    short = {name: value for name, value in told.items() if _seconds(value) < LONGEST}
    if not short:
        return Finding("postfix", "pass", "Postfix gives nothing up in 100 days")
    saw = ", ".join(f"{name} = {value or '?'}" for name, value in short.items())
    return Finding("postfix", "fail", f"{saw}: mail would be given up", "backup-mx deploy")


def _seconds(value: str) -> int:
    try:
        return postfix.seconds(value)
    except ValueError:
        return 0


def guard(facts: Facts) -> Finding:
    """Judge whether the timer runs that keeps mail from expiring with the agent dead."""
    do = "systemctl start backup-mx-guard.timer, on the relay; backup-mx deploy"
    if facts.guard != "active":
        saw = f"the guard's timer is {facts.guard or 'not there'}"
        return Finding("guard", "fail", saw, do)
    if facts.guarded is None:
        return Finding("guard", "unknown", "the guard has not run since the start", "wait a minute")
    ago = f"the guard ran {text.span(facts.guarded)} ago"
    if facts.guarded > GUARD_SECONDS:
        return Finding("guard", "fail", ago, "journalctl -u backup-mx-guard, on the relay")
    return Finding("guard", "pass", ago)


def retention(config: Config, word: Word) -> Finding:
    """Judge whether the agent holds mail when the config says."""
    wanted, last = config.queue.retention, word.snapshot
    if last is None:
        return Finding("agent", "unknown", "the agent has said nothing yet", "backup-mx status")
    if last.retention != wanted:
        saw = f"the agent goes by {text.span(last.retention)}, not {text.span(wanted)}"
        return Finding("agent", "fail", saw, "backup-mx deploy")
    then = "is held" if config.queue.at_retention == "hold" else "goes on being tried"
    return Finding("agent", "pass", f"what waits {text.span(wanted)} {then}")


GATE = Gate("retention", "nothing expires, agent or none", ("MX",), judge)
