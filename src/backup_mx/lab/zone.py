"""The operator's zone example.org at the lab's two name servers, and changing it by hand.

The first server takes updates by TSIG; what is done here is done on its machine, as a registrar's
web page would. The second one follows.
"""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterator
from dataclasses import dataclass

from backup_mx.lab.host import wait_for
from backup_mx.lab.layout import SERVERS
from backup_mx.lab.machine import Machine
from backup_mx.lab.world import World

NAME = "example.org"
KNOT = "/etc/knot/knot.conf"
SECONDARY = "/etc/knot/secondary.conf"
_SECONDS = 20.0
_TTL = "300"
_SIGNING = ("CDNSKEY", "CDS", "DNSKEY", "NSEC", "NSEC3PARAM", "RRSIG")


@dataclass(frozen=True)
class Zone:
    """The zone of a lab that is up."""

    world: World

    @property
    def machine(self) -> Machine:
        """The machine that both servers run on."""
        return self.world.machine("internet")

    def records(self, server: str = KNOT) -> list[str]:
        """Return every record that a server has, as ``owner TTL type data``.

        server is KNOT or SECONDARY. Raises LabError when it does not run.
        """
        said = self._knotc(server, "zone-read", NAME)
        return [line.removeprefix(f"[{NAME}.] ") for line in said.splitlines()]

    def set(self, owner: str, kind: str, *data: str) -> None:
        """Let a name have these records of a kind, and no others; without any, none of it.

        owner is relative to the zone, or "@". Returns when both servers and the resolver know it.
        Raises LabError.
        """
        self.change(owner, kind, *data)
        self.settled()

    def change(self, owner: str, kind: str, *data: str) -> None:
        """Do the same at the first server, and wait for nobody. Raises LabError."""
        had = bool(self._of(owner, kind))
        with self._transaction():
            if had:
                self._knotc(KNOT, "zone-unset", NAME, owner, kind)
            for each in data:
                self._knotc(KNOT, "zone-set", NAME, owner, _TTL, kind, each)

    def settled(self) -> None:
        """Wait until both servers say the same, and let the resolver forget what was before."""
        wait_for("both name servers to have the same zone", self._agree, timeout=_SECONDS)
        self.machine.run(["unbound-control", "flush_zone", NAME])

    @contextlib.contextmanager
    def without(self, owner: str, kind: str) -> Iterator[None]:
        """Have a name without its records of a kind while the block runs."""
        data = self._of(owner, kind)
        self.set(owner, kind)
        try:
            yield
        finally:
            self.set(owner, kind, *data)

    @contextlib.contextmanager
    def apart(self) -> Iterator[None]:
        """Have the second server follow no change while the block runs, and all of them after."""
        self._knotc(SECONDARY, "zone-freeze", NAME)
        try:
            yield
        finally:
            self._knotc(SECONDARY, "zone-thaw", NAME)
            self._knotc(SECONDARY, "zone-refresh", NAME)
            self.settled()

    @contextlib.contextmanager
    def signed(self) -> Iterator[None]:
        """Have the zone signed (DNSSEC) while the block runs; nobody above it vouches for it."""
        self._signing("on")
        try:
            wait_for("a signed zone", lambda: bool(self._of("@", "DNSKEY")), timeout=_SECONDS)
            self.settled()
            yield
        finally:
            self._signing("off")
            self._unsign()
            self.settled()

    @contextlib.contextmanager
    def _transaction(self) -> Iterator[None]:
        """Change the first server's zone all at once, or not at all."""
        self._knotc(KNOT, "zone-begin", NAME)
        try:
            yield
        except BaseException:
            self._knotc(KNOT, "zone-abort", NAME)
            raise
        self._knotc(KNOT, "zone-commit", NAME)

    def _signing(self, state: str) -> None:
        file = self.machine.path(KNOT)
        text = file.read_text()
        file.write_text(re.sub(r"dnssec-signing: \w+", f"dnssec-signing: {state}", text))
        self._knotc(KNOT, "reload")

    def _unsign(self) -> None:
        """Take out what signing has brought: Knot leaves it where it is."""
        brought = {(owner, kind) for owner, _, kind, _ in self._split() if kind in _SIGNING}
        with self._transaction():
            for owner, kind in sorted(brought):
                self._knotc(KNOT, "zone-unset", NAME, owner, kind)

    def _split(self) -> Iterator[list[str]]:
        return (line.split(" ", 3) for line in self.records())

    def _of(self, owner: str, kind: str) -> list[str]:
        """Return the data of a name's records of a kind at the first server."""
        name = f"{NAME}." if owner == "@" else f"{owner}.{NAME}."
        return [data for found, _, its, data in self._split() if (found, its) == (name, kind)]

    def _agree(self) -> bool:
        said = {self.machine.run(_serial(server), check=False).text for server in SERVERS}
        return len(said) == 1 and bool(said.pop().strip())

    def _knotc(self, server: str, *words: str) -> str:
        return self.machine.run(["knotc", "-b", "-c", server, *words]).text


def _serial(server: str) -> list[str]:
    return ["kdig", "+short", "+time=1", "+retry=0", f"@{server}", NAME, "SOA"]
