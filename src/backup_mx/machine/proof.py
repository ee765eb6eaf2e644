"""Is the new machine the same relay? What it was, held against what it is. Pure, no I/O."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass, replace
from typing import Self

from backup_mx.config import Config
from backup_mx.config.options import Relay
from backup_mx.findings import Finding
from backup_mx.machine.look import Certificate, Look
from backup_mx.machine.wireguard import private_key, public_key, tunnels
from backup_mx.relay import text
from backup_mx.relay.operator.status import sum_line
from backup_mx.relay.state import Primary, Snapshot, Sums

_NAMED = 3  # queue IDs in a finding
_EXPORTED = "what was exported: --resume --exported FOLDER"


@dataclass(frozen=True)
class Wanted:
    """What the config says of a relay: its version, its public WireGuard key, its volume.

    wireguard is "" where there is no tunnel.
    """

    version: str
    wireguard: str
    volume: bool

    @classmethod
    def of(cls, config: Config, relay: Relay, version: str) -> Self:
        """Return it for the bundle of that version. Raises SecretError."""
        dialled = tunnels(config)
        key = public_key(private_key(relay, config.folder)) if dialled else ""
        return cls(version, key, relay.volume)


def prove(
    wanted: Wanted, before: Look | None, after: Look, put_back: Collection[str] = ()
) -> list[Finding]:
    """Return what is the same, and what is not; ``before`` is None where nobody could ask.

    put_back names the messages that were imported again, by the queue IDs they had.
    """
    return [
        _machine(before, after),
        _version(wanted, after),
        *_volume(wanted, after),
        _queue(before, after, frozenset(put_back)),
        _ledger(after.snapshot),
        _certificate(before.certificate if before else None, after.certificate),
        *_wireguard(wanted, before, after),
        _ssh(before, after),
        *_canary(before.snapshot if before else None, after.snapshot),
    ]


def as_evidence(before: Look | None, findings: Iterable[Finding]) -> list[Finding]:
    """Return what they say of whether a relay can be made anew with mail in its queue.

    Nothing where nobody could ask what it was, or where no mail was there: that is unknown.
    """
    if before and before.queue:
        return list(findings)
    unseen = ("queue",) if before else ("machine", "queue")
    do = "make it anew while it can be asked, and mail waits there"
    return [
        replace(each, verdict="unknown", do=do) if each.gate in unseen else each
        for each in findings
    ]


def _machine(before: Look | None, after: Look) -> Finding:
    if before is None:
        return Finding("machine", "warn", "whether it is another than before, nobody could ask")
    if after.still(before):
        return Finding("machine", "fail", "it is the old one", "replace it, then --resume")
    return Finding("machine", "pass", "a new one, set up by its user-data")


def _version(wanted: Wanted, after: Look) -> Finding:
    if after.version == wanted.version:
        return Finding("version", "pass", f"it runs version {after.version[:12]} of the config")
    return Finding(
        "version",
        "fail",
        f"it runs version {after.version[:12] or 'none'}, the config is {wanted.version[:12]}",
        "backup-mx deploy",
    )


def _volume(wanted: Wanted, after: Look) -> Iterator[Finding]:
    if wanted.volume and after.volume:
        yield Finding("volume", "pass", f"{after.volume} is mounted")
    elif wanted.volume:
        do = "attach the volume and start the machine again; mail is put off until then"
        yield Finding("volume", "fail", "it is not mounted", do)


def _queue(before: Look | None, after: Look, put_back: frozenset[str]) -> Finding:
    """Hold the queue IDs of then against those of now, and against what was handed over since."""
    now = text.counted(len(after.queue))
    if before is None:
        saw = f"{now} there; what was there before, nobody could ask"
        return Finding("queue", "warn", saw, "" if put_back else _EXPORTED)
    gone = sorted(before.queue.keys() - after.queue.keys() - put_back)
    saw = f"{len(before.queue) - len(gone):,} of {text.counted(len(before.queue))} are there"
    if put_back:
        saw += f", {len(put_back):,} of them put back"
    if not gone:
        return Finding("queue", "pass", saw)
    if len(gone) <= _settled(before.snapshot, after.snapshot):
        return Finding("queue", "pass", f"{saw}, {len(gone):,} were handed over since")
    names = ", ".join(gone[:_NAMED]) + ", …" * (len(gone) > _NAMED)
    do = f"backup-mx ledger, backup-mx show; {_EXPORTED}"
    return Finding("queue", "fail", f"{saw}; missing: {names}", do)


def _settled(before: Snapshot | None, after: Snapshot | None) -> int:
    """Return how many messages were delivered or deleted in between, as the ledger has it."""
    if before is None or after is None:
        return 0
    return _done(after.sums) - _done(before.sums)


def _done(sums: Sums) -> int:
    return sums.delivered + sums.deleted


def _ledger(after: Snapshot | None) -> Finding:
    if after is None:
        return Finding("ledger", "unknown", "its agent has said nothing yet", "backup-mx status")
    if after.reconciled is None or after.reconciled < after.started:
        return Finding("ledger", "unknown", "not yet held against the queue", "backup-mx ledger")
    saw = sum_line(after.sums).removeprefix("ledger: ")
    if after.sums.even:
        return Finding("ledger", "pass", saw)
    saw += f"; {after.sums.differences:,} differ"
    return Finding("ledger", "fail", saw, "backup-mx ledger")


def _certificate(before: Certificate | None, after: Certificate | None) -> Finding:
    gate = "certificate"
    if after is None:
        return Finding(gate, "fail", "port 25 offers no TLS", "backup-mx status; Postfix's log")
    if before and before.sha256 == after.sha256:
        return Finding(gate, "pass", f"the same one, {_shown(after)}")
    if after.own and before and not before.own:
        do = "it asks for one by itself; until then senders that insist on one wait"
        return Finding(gate, "fail", "a self-signed one, in place of a real one", do)
    return Finding(gate, "pass", f"a fresh one, {_shown(after)}")


def _shown(found: Certificate) -> str:
    by = "self-signed" if found.own else f"by {found.issuer}"
    return f"{by}, until {text.moment(found.until)}"


def _wireguard(wanted: Wanted, before: Look | None, after: Look) -> Iterator[Finding]:
    if not wanted.wireguard:
        return
    if after.wireguard != wanted.wireguard:
        has = after.wireguard or "none"
        saw = f"its public key is {has}, the config's {wanted.wireguard}"
        yield Finding("tunnel", "fail", saw, "backup-mx deploy")
    elif before and before.wireguard not in ("", after.wireguard):
        saw = f"its public key is {after.wireguard}, and was {before.wireguard}"
        yield Finding("tunnel", "warn", saw, "give the other side its new key")
    else:
        yield Finding("tunnel", "pass", f"the same public key, {after.wireguard}")


def _ssh(before: Look | None, after: Look) -> Finding:
    shown = ", ".join(after.ssh) or "none"
    if before and set(before.ssh) & set(after.ssh):
        return Finding("ssh keys", "pass", "the same")
    return Finding("ssh keys", "warn" if before else "pass", f"now {shown}")


def _canary(before: Snapshot | None, after: Snapshot | None) -> Iterator[Finding]:
    known = {each.name: each.state for each in before.primaries} if before else {}
    if after is None or not after.primaries:
        yield Finding("canary", "unknown", "it has not walked yet", "backup-mx status")
    for each in after.primaries if after else ():
        yield _walked(each, known.get(each.name, ""))


def _walked(primary: Primary, was: str) -> Finding:
    saw = f"{primary.name} is {primary.state}"
    if primary.state == "up":
        return Finding("canary", "pass", saw)
    said = f": {primary.walk.words}" if primary.walk else ""
    if primary.state == "starting":
        return Finding("canary", "unknown", f"{primary.name}: no walk yet", "backup-mx status")
    if primary.state == was:
        return Finding("canary", "pass", f"{saw}, as before{said}")
    saw = f"{saw}, and was {was or 'unknown'}{said}"
    return Finding("canary", "fail" if was == "up" else "warn", saw, "backup-mx primary check")
