"""What making a relay anew would do: what dies, what stays, and when it is refused."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from backup_mx.config import Config
from backup_mx.config.options import Relay
from backup_mx.errors import MachineError, UnreachableError
from backup_mx.machine.look import Look
from backup_mx.machine.wireguard import tunnels
from backup_mx.relay import text

_NAMED = 3  # queue IDs in a message
_ALIKE = ("Host key verification failed", "Permission denied")
"""What ssh says where somebody is there, and it is we who are not let in."""


@dataclass(frozen=True)
class Plan:
    """What would happen to ``relay``.

    before is what it is now, None where it cannot be asked; silent says why it cannot; exported is
    a folder with messages that were taken out of it, kept the queue IDs of those that lie whole in
    it.
    """

    config: Config
    relay: Relay
    how: str
    before: Look | None
    silent: str = ""
    exported: Path | None = None
    kept: Collection[str] = ()

    def renewed(self, before: Look) -> Plan:
        """Return the same plan for what the relay is by now."""
        return replace(self, before=before)

    @property
    def volume(self) -> bool:
        """Whether the mail is on a volume that the new machine gets."""
        if self.before is None:
            return self.relay.volume
        return self.relay.volume and bool(self.before.volume)

    @property
    def waiting(self) -> dict[str, str]:
        """The queue of each message there, as far as it is known."""
        return dict(self.before.queue) if self.before else {}

    @property
    def left_behind(self) -> list[str]:
        """The messages that would die with the machine."""
        if self.volume:
            return []
        return sorted(self.waiting.keys() - set(self.kept))

    @property
    def dies(self) -> tuple[str, ...]:
        """What is gone afterwards, in words."""
        always: tuple[str, ...] = ("the machine and its root disk: system, packages, journal",)
        if self.before is None:
            where = ", unless it is on the volume" * self.volume
            always = (*always, f"whatever waits there{where}: nobody can tell")
        if self.volume:
            return always
        return (
            *always,
            "the ledger, and Postfix's log: there is no volume",
            "its SSH keys: you will have to accept new ones",
            "its certificate: a new one is made, or asked for",
        )

    @property
    def stays(self) -> tuple[str, ...]:
        """What is the same afterwards, in words."""
        relay = self.relay
        return tuple(
            filter(
                None,
                (
                    f"the name {relay.hostname} and the address {relay.address};"
                    " no DNS record is touched",
                    self._mail,
                    "the volume: ledger, log, certificate, SSH keys" * self.volume,
                    "the WireGuard key, which the deploy brings" * bool(tunnels(self.config)),
                ),
            )
        )

    @property
    def _mail(self) -> str:
        """Where the mail is."""
        if self.before is None:
            return "whatever waits on the volume that the config tells of" if self.volume else ""
        if not self.waiting:
            return "its queue: nothing waits"
        counted = text.counted(len(self.waiting))
        if self.volume:
            by_queue = Counter(self.waiting.values())
            queues = ", ".join(f"{count:,} {name}" for name, count in sorted(by_queue.items()))
            return f"{counted}, on the volume ({queues})"
        return f"{counted}, in {self.exported}"

    @property
    def lines(self) -> Iterator[str]:
        """All of it, for people."""
        yield f"{self.relay.name} is made anew by: {self.how}"
        if self.silent:
            yield f"  it cannot be asked: {self.silent}"
        yield from (f"  dies:  {each}" for each in self.dies)
        yield from (f"  stays: {each}" for each in self.stays)
        yield "  meanwhile it takes no mail, for some minutes; senders try again"

    @property
    def data(self) -> dict[str, Any]:
        """All of it, for programs."""
        return {
            "how": self.how,
            "reached": self.before is not None,
            "volume": self.volume if self.before else None,
            "messages": len(self.waiting) if self.before else None,
            "dies": self.dies,
            "stays": self.stays,
        }

    def refuse(self, *, gone: bool = False) -> None:
        """Raise MachineError or UnreachableError where this would lose mail, or nobody knows."""
        if self.before is None:
            self._refuse_unasked(gone=gone)
            return
        name = self.relay.name
        if self.before.maintenance:
            until = text.moment(self.before.maintenance)
            raise MachineError(
                f"maintenance is on until {until}, and a new machine does not know of it: mail"
                f" would go to the primary. End it first: backup-mx maintenance {name} off"
            )
        if self.left_behind:
            raise MachineError(self._lost)

    def _refuse_unasked(self, *, gone: bool) -> None:
        if gone:
            return
        if any(words in self.silent for words in _ALIKE):
            raise UnreachableError(self.silent)
        lost = "without a volume it dies with the machine"
        if self.volume:
            lost = f"though the config says that there is a volume, nobody could look: {lost}"
        raise UnreachableError(
            f"{self.silent}\nNobody can tell what waits on {self.relay.name}, and {lost}."
            " --relay-is-gone says that you know."
        )

    @property
    def _lost(self) -> str:
        name, left = self.relay.name, self.left_behind
        folder = self.exported or f"{name}-mail"
        again = f"  backup-mx export {name} --all -o {folder}"
        if self.kept:
            some = ", ".join(left[:_NAMED]) + ", …" * (len(left) > _NAMED)
            are = "is" if len(left) == 1 else "are"
            return (
                f"{text.counted(len(left))} on {name} {are} not in {folder} ({some}):"
                f" export again:\n{again}"
            )
        return (
            f"{text.counted(len(left))} {'waits' if len(left) == 1 else 'wait'} on {name}, on the"
            " disk that dies with the machine. Take them out; the rebuild puts them back:\n"
            f"{again}\n"
            f"  backup-mx rebuild {name} --exported {folder}"
        )
