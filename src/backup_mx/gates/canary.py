"""Whether each primary is ready to take mail, on the way that the mail itself goes."""

from __future__ import annotations

from collections.abc import Iterator

from backup_mx.config import Config
from backup_mx.findings import Finding
from backup_mx.gates import relay
from backup_mx.gates.gate import Gate, Site
from backup_mx.gates.relay import Word
from backup_mx.relay import state, text
from backup_mx.relay.state import Primary

_CHECK = "backup-mx primary check"


def judge(site: Site) -> Iterator[Finding]:
    """Ask the agent, once it has walked. Raises MachineError, UnreachableError."""
    yield from judged(site.config, relay.settled(site))


def judged(config: Config, word: Word) -> Iterator[Finding]:
    """Judge each primary that owns a domain."""
    last = word.snapshot
    if not word.alive or last is None:
        do = "journalctl -u backup-mx-agent, on the relay"
        yield Finding("canary", "fail", "the agent does not run: nobody walks", do)
        return
    known = {each.name: each for each in last.primaries}
    for name, primary in config.primaries.items():
        if not config.domains_of(primary):
            continue
        found = known.get(name)
        if found is None:
            yield Finding(name, "fail", "the agent does not know it", "backup-mx deploy")
            continue
        yield walked(found, word.now, config.queue.canary_late)
        if config.queue.canary_message_to:
            yield daily(found, word.now)


def walked(primary: Primary, now: float, late: float) -> Finding:
    """Judge the last walks; late is how many seconds after one it has stopped."""
    walk = primary.walk
    if walk is None or primary.state == state.STARTING:
        return Finding(primary.name, "unknown", "no walk yet", "wait a minute, and run it again")
    ago = now - walk.time
    if ago > late:
        saw = f"last walked {text.span(ago)} ago"
        return Finding(primary.name, "fail", saw, "backup-mx status")
    if primary.state != state.UP:
        saw = f"{primary.state}: at {walk.step}: {walk.words}"
        return Finding(primary.name, "fail", saw, _CHECK)
    if primary.paused:
        return Finding(primary.name, "fail", primary.paused, _CHECK)
    return Finding(primary.name, "pass", f"ready to take mail, {text.span(ago)} ago")


def daily(primary: Primary, now: float) -> Finding:
    """Judge the daily message that goes all the way."""
    gate, sent = f"{primary.name}, daily", primary.message
    if sent is None:
        return Finding(gate, "warn", "the daily message has not gone yet", "it goes by itself")
    if not sent.good:
        return Finding(gate, "fail", f"at {sent.step}: {sent.words}", _CHECK)
    return Finding(gate, "pass", f"the daily message went {text.span(now - sent.time)} ago")


GATE = Gate("canary", "the primary takes mail on the way it is handed over", ("MX",), judge)
