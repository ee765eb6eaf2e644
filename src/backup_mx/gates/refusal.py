"""Whether a primary that answers 5xx loses nothing: what is softened, and that no notice leaves.

soft_bounce belongs on the delivery to the primary, on postscreen and on error(8), and nowhere else.
"""

from __future__ import annotations

from collections.abc import Iterator

from backup_mx.findings import Finding
from backup_mx.gates import relay
from backup_mx.gates.gate import Gate, Site
from backup_mx.gates.relay import Facts, Word

SOFT = ("smtp/inet", "relay/unix", "error/unix")
"""postscreen, the delivery to the primary, and what calls an address of taken mail unknown."""
NOTICES = ("bounce/unix", "defer/unix", "trace/unix")
"""What makes notices about mail (bounce(8)): they go to hold, by a cleanup of their own."""
_COUNTERS = {
    "bounced": "given up by Postfix",
    "dsn": "answered with a notice",
    "expired": "given up for their age",
}
_DEPLOY = "backup-mx deploy"


def judge(site: Site) -> Iterator[Finding]:
    """Ask Postfix and the ledger. Raises MachineError, UnreachableError."""
    facts = relay.facts(site.host)
    yield softened(facts)
    yield notices(facts)
    yield counted(relay.word(site.host))


def softened(facts: Facts) -> Finding:
    """Judge where a 5xx becomes a 4xx: wherever it has to, and nowhere else."""
    if not facts.services or "soft_bounce" not in facts.main:
        return Finding("soft_bounce", "unknown", "Postfix does not tell", "postconf -P, there")
    where = {
        name.removesuffix("/soft_bounce")
        for name, value in facts.overrides.items()
        if name.endswith("/soft_bounce") and value == "yes"
    }
    if facts.main["soft_bounce"] != "no":
        where |= set(facts.services)
    if missing := sorted(set(SOFT) - where):
        saw = f"not in effect for {', '.join(missing)}: a 5xx there would bounce mail"
        return Finding("soft_bounce", "fail", saw, _DEPLOY)
    if others := sorted(where - set(SOFT)):
        saw = f"in effect for {', '.join(others)}, too: what is to be refused there is not"
        return Finding("soft_bounce", "fail", saw, _DEPLOY)
    return Finding("soft_bounce", "pass", "a 5xx leaves the message in the queue")


def notices(facts: Facts) -> Finding:
    """Judge whether a notice that Postfix makes all the same goes to hold."""
    free = [name for name in NOTICES if not _held(facts, name)]
    late = facts.main.get("delay_warning_time", "")
    if free:
        saw = f"notices of {', '.join(free)} would be sent"
        return Finding("notices", "fail", saw, _DEPLOY)
    if late not in ("0", "0h", "0s"):
        saw = f"senders would be told of delays (delay_warning_time = {late or '?'})"
        return Finding("notices", "fail", saw, _DEPLOY)
    return Finding("notices", "pass", "no notice about mail leaves it")


def _held(facts: Facts, service: str) -> bool:
    cleanup = facts.overrides.get(f"{service}/cleanup_service_name", "cleanup")
    checks = facts.overrides.get(f"{cleanup}/unix/header_checks", facts.main.get("header_checks"))
    return service not in facts.services or checks == "static:HOLD"


def counted(word: Word) -> Finding:
    """Judge what the ledger has ever counted: nothing bounced, no notice made, nothing expired."""
    if word.snapshot is None:
        return Finding("so far", "unknown", "the agent has said nothing yet", "backup-mx status")
    counters = word.snapshot.counters
    if not counters.keys() >= _COUNTERS.keys():
        saw = "the agent has not read the whole log yet"
        return Finding("so far", "unknown", saw, "wait; backup-mx status")
    lost = [f"{count} {words}" for key, words in _COUNTERS.items() if (count := counters.get(key))]
    if lost:
        return Finding("so far", "fail", ", ".join(lost), "backup-mx ledger; backup-mx queue")
    return Finding("so far", "pass", "nothing was ever bounced, nor expired")


GATE = Gate("refusal", "a primary that refuses loses nothing", ("MX",), judge)
