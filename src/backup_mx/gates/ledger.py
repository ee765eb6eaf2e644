"""Whether every message that was ever accepted is accounted for."""

from __future__ import annotations

from collections.abc import Iterator

from backup_mx.findings import Finding
from backup_mx.gates import relay
from backup_mx.gates.gate import Gate, Site
from backup_mx.gates.relay import Word
from backup_mx.relay import text
from backup_mx.relay.operator.status import sum_line
from backup_mx.relay.tell.conditions import COMPARED_SECONDS


def judge(site: Site) -> Iterator[Finding]:
    """Ask the agent, once it has counted. Raises MachineError, UnreachableError."""
    yield judged(relay.settled(site))


def judged(word: Word) -> Finding:
    """Judge the sum, and whether it was held against the queue lately."""
    last = word.snapshot
    if not word.alive or last is None:
        do = "journalctl -u backup-mx-agent, on the relay"
        return Finding("ledger", "fail", "the agent does not run: nobody counts", do)
    if word.blind:
        return Finding("ledger", "fail", "the agent cannot read Postfix's log", "backup-mx status")
    if last.reconciled is None or last.reconciled < last.started:
        saw = "not yet held against the queue"
        return Finding("ledger", "unknown", saw, "wait a minute, and run it again")
    ago = word.now - last.reconciled
    if ago > COMPARED_SECONDS:
        saw = f"last held against the queue {text.span(ago)} ago"
        return Finding("ledger", "fail", saw, "journalctl -u backup-mx-agent, on the relay")
    saw = sum_line(last.sums).removeprefix("ledger: ")
    if not last.sums.even:
        saw += f", {text.counted(last.sums.differences, 'difference')}"
        return Finding("ledger", "fail", saw, "backup-mx ledger names them")
    return Finding("ledger", "pass", saw)


GATE = Gate("ledger", "all that it ever accepted is accounted for", ("MX",), judge)
