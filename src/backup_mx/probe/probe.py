"""What a probe is, what it looks at, and what comes of a look."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from types import ModuleType

from backup_mx.config import Config
from backup_mx.errors import BackupMxError, defect
from backup_mx.findings import Finding
from backup_mx.machine.sent import ask
from backup_mx.machine.ship import Host
from backup_mx.net.dns import Names
from backup_mx.net.outside import Fact

Tell = Callable[[str], None]


@dataclass(frozen=True)
class Scene:
    """What the probes look at: a config's world, by the names that DNS has for it.

    outside is a host from which port 25 is looked at; None: this machine does it.
    """

    config: Config
    names: Names = field(default_factory=Names)
    outside: Host | None = None

    def see(self, program: ModuleType, wanted: Fact) -> Fact:
        """Return the facts of a module of `backup_mx.net` that can be sent elsewhere.

        Raises MachineError, UnreachableError, HostError.
        """
        if self.outside:
            return ask(self.outside, program, wanted)
        return dict(program.facts(wanted))


@dataclass(frozen=True)
class Target:
    """What one look is about: a host, a domain or a mailbox, and the relay it belongs to, if any.

    address is where a host is, which need not be in DNS yet.
    """

    name: str
    relay: str = ""
    address: str = ""


@dataclass(frozen=True)
class Seen:
    """What came of a look.

    expires is a certificate's end (seconds since 1970), renewed how long before that it should
    have been by then (seconds); 0: not known.
    """

    finding: Finding
    expires: float = 0.0
    renewed: float = 0.0


@dataclass(frozen=True)
class Reading:
    """A look that is over: when it began (seconds since 1970) and how long it took."""

    probe: str
    target: Target
    seen: Seen
    began: float
    seconds: float

    @property
    def finding(self) -> Finding:
        """What was found."""
        return self.seen.finding


@dataclass(frozen=True)
class Probe:
    """One thing that is looked at.

    targets says where; look raises BackupMxError where nothing is to be seen, which makes what it
    is about unknown. Both are bounded. left_out says what of the config is no target, and why.
    """

    name: str
    summary: str
    targets: Callable[[Config], Sequence[Target]]
    look: Callable[[Scene, Target], Seen]
    left_out: Callable[[Config], Sequence[str]] = lambda _config: ()

    def read(self, scene: Scene, target: Target) -> Reading:
        """Look at one target; whatever goes wrong, even a defect, is a reading as well."""
        began, clock = time.time(), time.monotonic()
        try:
            seen = self.look(scene, target)
        except BackupMxError as error:
            seen = Seen(Finding(self.name, "unknown", f"{target.name}: {error}"))
        except Exception as error:
            seen = Seen(Finding(self.name, "unknown", f"{target.name}: {defect(error)}"))
        return Reading(self.name, target, seen, began, time.monotonic() - clock)

    def nothing(self, config: Config) -> Reading:
        """Return what came of a look where there is no target."""
        why = "; ".join(self.left_out(config)) or "the config has nothing that it looks at"
        return Reading(
            self.name, Target(""), Seen(Finding(self.name, "unknown", why)), time.time(), 0.0
        )


def relays(config: Config) -> Iterable[Target]:
    """Yield every relay, at the address that the config gives it."""
    for relay in config.relays.values():
        yield Target(relay.hostname, relay.name, str(relay.address))


def servers(config: Config) -> Sequence[Target]:
    """Return every host that MX records name: the primaries of the domains, then the relays."""
    used = {domain.primary: None for domain in config.domains.values()}
    homes = (config.primaries[name].hostname for name in used)
    return (*(Target(host, address=host) for host in homes), *relays(config))


def domains(config: Config) -> Sequence[Target]:
    """Return every domain."""
    return tuple(Target(name) for name in config.domains)
