"""A relay as it is found: asked once before it is made anew, and until all is well afterwards."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from backup_mx.errors import MachineError
from backup_mx.machine import probe, ship
from backup_mx.machine.sent import ask
from backup_mx.machine.ship import Host
from backup_mx.relay import state
from backup_mx.relay.operator.verbs import PROGRAM
from backup_mx.relay.state import Snapshot


@dataclass(frozen=True)
class Certificate:
    """What senders see after STARTTLS; own: self-signed; until in seconds since 1970."""

    sha256: str
    issuer: str
    own: bool
    until: float


@dataclass(frozen=True)
class Look:
    """What a relay was at a moment; see `backup_mx.machine.probe` for most of it.

    snapshot is what its agent last said, None without one; maintenance its end in seconds since
    1970, 0.0 without; left the boot at which its root disk was to be replaced.
    """

    boot: str
    settled: bool
    version: str
    volume: str
    queue: Mapping[str, str]
    certificate: Certificate | None
    wireguard: str
    ssh: tuple[str, ...]
    snapshot: Snapshot | None = None
    maintenance: float = 0.0
    left: str = ""

    def still(self, before: Look) -> bool:
        """Whether this is the machine that ``before`` was, even if it was started again since."""
        return before.boot in (self.boot, self.left)

    @property
    def text(self) -> str:
        """All of it as JSON."""
        return json.dumps(asdict(self))


def look(host: Host, ssh_port: int) -> Look:
    """Ask a relay for its state; with ssh_port 0 not for its certificate and SSH keys.

    Raises MachineError, UnreachableError.
    """
    facts = ask(host, probe, ssh_port)
    status = host.run((PROGRAM, "status", "--json"))
    if status.code == 0:
        told = ship.facts(status.stdout)
        facts |= {"snapshot": told.get("snapshot"), "maintenance": told.get("maintenance") or 0.0}
    return of_facts(facts)


def read(text: str) -> Look:
    """Read back what Look.text wrote. Raises MachineError."""
    return of_facts(ship.facts(text))


def of_facts(facts: Mapping[str, Any]) -> Look:
    """Return what a relay, or a file, tells as a Look. Raises MachineError at other shapes."""
    try:
        found, known = facts["certificate"], facts.get("snapshot")
        return Look(
            boot=str(facts["boot"]),
            settled=bool(facts["settled"]),
            version=str(facts["version"]),
            volume=str(facts["volume"]),
            queue={str(key): str(value) for key, value in facts["queue"].items()},
            certificate=Certificate(**found) if found else None,
            wireguard=str(facts["wireguard"]),
            ssh=tuple(map(str, facts["ssh"])),
            snapshot=state.of(known) if known else None,
            maintenance=float(facts.get("maintenance", 0.0)),
            left=str(facts.get("left", "")),
        )
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise MachineError(f"the relay does not say what it is: {error!r}") from None
