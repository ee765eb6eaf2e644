"""A relay made anew in the middle of whatever goes on: plan, replace, wait, deploy, prove.

    look ── planned (may refuse) ──> stop ── Provider ──> wait ── deploy ──> prove ──> findings

From "stop" on nobody is asked anything: mail does not wait for a person to answer.

DNS is left alone throughout: senders try again, and find the same name at the same address.
"""

from __future__ import annotations

import contextlib
import shlex
import time
from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path

from backup_mx.config import Config
from backup_mx.config.options import Relay
from backup_mx.errors import BackupMxError, HostError, MachineError, UnreachableError
from backup_mx.findings import Finding, passed
from backup_mx.machine import letters, probe, ship, tailnet
from backup_mx.machine.bundle import bundle, version
from backup_mx.machine.look import Look, look
from backup_mx.machine.plan import Plan
from backup_mx.machine.proof import Wanted, prove
from backup_mx.machine.providers import Provider
from backup_mx.machine.ship import Host, Tell
from backup_mx.relay import text
from backup_mx.relay.operator.parcel import Letter

WAIT_S = 1800.0
"""A new machine may wait 10 minutes for its network and its packages, after it was made."""
PROOF_S = 180.0
"""How long the agent may take to hold its ledger against the queue, and to walk the drain path."""
_POLL_S = 5.0
_OLD = "waiting for the old machine to go"
_STOP_S = 60.0
POSTFIX = ("postfix.service", "postfix@-.service")
"""Debian 12 runs the second for the first; who starts either starts Postfix."""
_AGENT = "backup-mx-agent.service"


@dataclass(frozen=True)
class Clock:
    """Time that passes, and waiting for it."""

    now: Callable[[], float] = time.monotonic
    sleep: Callable[[float], None] = time.sleep


@dataclass(frozen=True)
class Rebuild:
    """The relay called ``name`` of ``config``, and how it is reached.

    exported is a folder of messages that were taken out, tell hears of each step.
    """

    config: Config
    name: str
    host: Host
    tell: Tell
    exported: Path | None = None
    clock: Clock = field(default_factory=Clock)

    @property
    def relay(self) -> Relay:
        """What the config says of it."""
        return self.config.relays[self.name]

    @cached_property
    def _letters(self) -> dict[str, tuple[Path, Letter]]:
        """What lies whole in the folder of what was exported: each is hashed once, not each time.

        Raises MachineError where there is none.
        """
        return letters.whole(self.exported)

    @property
    def resume(self) -> str:
        """The command that goes on from here, with what is to be put back."""
        folder = f" --exported {shlex.quote(str(self.exported))}" if self.exported else ""
        return f"backup-mx rebuild {self.name} --resume{folder}"

    def planned(self, provider: Provider | None, *, gone: bool = False) -> Plan:
        """Ask the relay, and return what would happen; nothing is changed.

        Without a provider the operator replaces the machine. ``gone``: he knows that it cannot be
        asked. Raises MachineError where mail would be lost, UnreachableError where nobody can tell
        and nobody said that it does not matter.
        """
        found, silent = self._asked()
        how = provider.words if provider else "you, by hand"
        kept = self._letters.keys()
        plan = Plan(self.config, self.relay, how, found, silent, self.exported, kept)
        plan.refuse(gone=gone)
        return plan

    def _asked(self) -> tuple[Look | None, str]:
        """Return what the relay is, or None and why it does not tell."""
        try:
            return look(self.host, self.relay.ssh.port), ""
        except UnreachableError as error:
            return None, str(error)

    def replace(
        self, plan: Plan, provider: Provider, record: Callable[[Look], None]
    ) -> Look | None:
        """Stop the relay's mail and replace its machine; return what it was last.

        ``record`` is given that before the old machine goes. Where something fails before that, or
        mail came after the export, the old machine takes mail again. Raises MachineError,
        HostError.
        """
        try:
            last = self._stopped(plan, plan.before) if plan.before else None
            if last:
                record(last)
        except BaseException:
            self._start_again()
            raise
        try:
            self.tell(f"replacing the machine: {provider.words}")
            provider.replace()
        except BaseException as error:
            self.tell(
                f"that did not come about. If the machine was replaced all the same: {self.resume}"
            )
            if last:
                on_volume = plan.renewed(last).volume
                self._broken_off(kept=on_volume or isinstance(error, HostError))
            raise
        return last

    def _broken_off(self, *, kept: bool) -> None:
        """Have the old machine take mail again where that is ``kept``, whatever happens to it."""
        if kept:
            self._start_again()
        else:
            self._tell_lines(
                "Its Postfix stays stopped: mail would die with a machine that may be going;"
                f" senders try again. {self._by_hand}"
            )

    def _start_again(self) -> None:
        """Have the old machine take mail again, and tell whether it does."""
        started = False
        try:
            with contextlib.suppress(BackupMxError):
                self.host.run(["systemctl", "unmask", *POSTFIX])
                done = self.host.run(["systemctl", "start", POSTFIX[0]])
                self.host.run(["systemctl", "start", _AGENT])  # which a relay may not have
                started = done.code == 0 and self._running
        finally:
            again = "the old machine takes mail again"
            broken = f"Its Postfix could not be started. {self._by_hand}"
            self._tell_lines(again if started else broken)

    def _tell_lines(self, words: str) -> None:
        for line in words.splitlines():
            self.tell(line)

    @property
    def systemctl(self) -> str:
        """The command by which the operator starts and stops what runs on the relay."""
        ssh = self.relay.ssh
        sudo = "" if ssh.user == "root" else "sudo "
        return f"ssh -p {ssh.port} {ssh.user}@{ssh.host} {sudo}systemctl"

    @property
    def _by_hand(self) -> str:
        """What the operator can do to have the old machine take mail again."""
        return (
            "If the old machine is still there, and is to take mail again:\n"
            f"  {self.systemctl} unmask {' '.join(POSTFIX)}\n"
            f"  {self.systemctl} start {POSTFIX[0]} {_AGENT}"
        )

    @property
    def _running(self) -> bool:
        """Whether Postfix runs; Debian 12's unit says that it has stopped before it has."""
        return self.host.run(["postfix", "status"]).code == 0

    def _stopped(self, plan: Plan, before: Look) -> Look:
        """Stop the relay's mail in good order; return what lies there then. Raises MachineError.

        It stays stopped whatever comes: systemd will not start it, neither at a boot nor for an
        upgrade of its package.
        """
        self.tell("stopping its mail; senders try again")
        # This fails where one of them is not there.
        self.host.run(["systemctl", "stop", *POSTFIX, _AGENT])
        # Not before: systemd forgets how to stop what is masked.
        ship.must(self.host, ["systemctl", "mask", *POSTFIX])
        ends = self.clock.now() + _STOP_S
        while self._running:
            if self.clock.now() > ends:
                raise MachineError(f"Postfix did not stop on {self.name} in {_STOP_S:.0f} s")
            self.clock.sleep(1)
        last = look(self.host, self.relay.ssh.port)
        plan.renewed(last).refuse()
        self.mark(last)
        # Nobody shows a certificate any more.
        return replace(last, certificate=before.certificate)

    def mark(self, last: Look) -> None:
        """Have the root disk of a machine that is to go know it; ``last`` is what it is.

        Started again, it is not taken for a new one then. Raises MachineError, UnreachableError.
        """
        left = ["dd", "status=none", f"of={probe.LEFT}"]
        ship.must(self.host, left, stdin=last.boot.encode())
        ship.must(self.host, ["sync"])

    def finish(self, before: Look | None) -> list[Finding]:
        """Wait for the new machine, bring it all that user-data does not carry, and prove it.

        ``before`` is what it was last. Raises MachineError, UnreachableError.
        """
        self.wait(before)
        archive = bundle(self.config, self.name)
        self.tell("deploying the agent and the secrets")
        ship.deploy(self.host, archive, lambda _said: None)
        back = self._put_back(before)
        findings = self._proven(before, version(archive), back)
        return [*findings, *self._in_the_tailnet()]

    def _in_the_tailnet(self) -> Iterator[Finding]:
        """Have it join, once its mail is well: a root disk that is new has no tailscale."""
        if self.config.tailnet is None:
            return
        try:
            tailnet.join(self.host, self.config, self.name, self.tell, self.clock.sleep)
        except BackupMxError as error:
            do = f"mend that, then backup-mx deploy {self.name}; mail does not wait for it"
            yield Finding("tailnet", "warn", str(error), do)
        else:
            yield Finding("tailnet", "pass", "it is in it")

    def _put_back(self, before: Look | None) -> list[str]:
        """Import what was exported, but for what had been handed over when the old one stopped.

        What lies there by the ID it always had came over with the disk, and would be doubled.
        """
        if self.exported is None:
            return []
        left = set(before.queue if before else self._letters)
        left -= look(self.host, 0).queue.keys()
        self.tell(f"putting {text.counted(len(left))} back from {self.exported}")
        back: list[str] = []
        ends = self.clock.now() + PROOF_S
        while True:
            meant = [found for queue_id, found in self._letters.items() if queue_id in left]
            back += letters.put_back(self.host, meant, self.tell)
            left -= set(back)
            if not left or self.clock.now() > ends:
                return back
            # What has to go on hold may be on its way to a primary that does not answer.
            self.clock.sleep(_POLL_S)

    def wait(self, before: Look | None) -> None:
        """Wait until another machine than ``before`` can be logged in to, and is set up.

        Raises UnreachableError, after WAIT_S seconds or where its SSH key is one that nobody knows.
        """
        ends, last = self.clock.now() + WAIT_S, ""
        while True:
            state = self._state(before)
            if state == "":
                self.tell("the new machine is set up")
                return
            if state != last:
                self.tell(state)
                last = state
            if self.clock.now() > ends:
                minutes = WAIT_S / 60
                by_hand = f". {self._by_hand}" if state == _OLD else ""
                raise UnreachableError(
                    f"{self.name} is not back after {minutes:.0f} minutes: {state}. Once it is:"
                    f" {self.resume}{by_hand}"
                )
            self.clock.sleep(_POLL_S)

    def _state(self, before: Look | None) -> str:
        """Return what is still waited for, "" where nothing is."""
        try:
            found = look(self.host, 0)
        except UnreachableError as error:
            if ship.UNKNOWN_KEY in str(error) and not self.relay.volume:
                raise UnreachableError(self._new_key()) from None
            return f"waiting for it: {error}"
        except MachineError as error:
            return f"waiting for it: {error}"
        if before and found.still(before):
            return _OLD
        return "" if found.settled else "waiting for its first boot to end"

    def _new_key(self) -> str:
        """Say what to do about a machine that shows a key which ssh does not know."""
        ssh = self.relay.ssh
        known = ssh.host if ssh.port == 22 else f"[{ssh.host}]:{ssh.port}"
        shown = " or ".join(fingerprints(ssh.host, ssh.port)) or "one that could not be read"
        return (
            f"{self.name} is a new machine with a new SSH key, {shown}. Compare that with what the"
            f" provider's console shows of its first boot; then:\n"
            f"  ssh-keygen -R '{known}'\n"
            f"  ssh -p {ssh.port} {ssh.user}@{ssh.host} true\n"
            f"  {self.resume}"
        )

    def _proven(self, before: Look | None, applied: str, back: Collection[str]) -> list[Finding]:
        """Look until all is well, at most PROOF_S seconds; return what was found last."""
        wanted = Wanted.of(self.config, self.relay, applied)
        self.tell("proving it: queue, ledger, certificate, keys, canary")
        ends = self.clock.now() + PROOF_S
        while True:
            findings = prove(wanted, before, look(self.host, self.relay.ssh.port), back)
            if passed(findings) or self.clock.now() > ends:
                return findings
            self.clock.sleep(_POLL_S)


def fingerprints(host: str, port: int) -> Collection[str]:
    """Return what ssh-keygen would call the keys that a machine shows; nothing where it is off."""
    argv = ["ssh-keyscan", "-T", "10", "-p", str(port), "--", host]
    lines = ship.run_local(argv, b"", None).stdout.splitlines()
    return probe.fingerprints("\n".join(lines))
