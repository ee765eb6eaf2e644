"""A lab: machines, their wire, and the files that make each what it is.

world = standard("lab")
world.up(print)
world.machine("primary").kill()
world.down()
"""

from __future__ import annotations

import contextlib
import socket
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from importlib import resources

from backup_mx.config import Config
from backup_mx.errors import LabError
from backup_mx.kit import edge, primary
from backup_mx.lab import (
    certificates,
    host,
    image,
    mounts,
    names,
    network,
    operator,
    prepare,
    settings,
    sweep,
)
from backup_mx.lab.host import Progress
from backup_mx.lab.image import Image, ImageSpec
from backup_mx.lab.layout import ROLES, role
from backup_mx.lab.machine import Machine
from backup_mx.lab.operator import Operator
from backup_mx.lab.stations import LabHost
from backup_mx.machine import ship
from backup_mx.machine.bundle import bundle
from backup_mx.machine.cloudinit import user_data

_READY_SECONDS = 60.0
_SET_UP_SECONDS = 300.0  # on a plain image, cloud-init installs packages first
_UP = "up"  # a file in the lab's folder: this lab came up, it is no leftover of a broken start


@dataclass(frozen=True)
class Status:
    """What a machine does now.

    state is "running" or "off", pid its init's on the host, since when it was started (ISO 8601).
    """

    machine: str
    state: str
    address: str
    pid: int | None
    since: str | None

    def as_dict(self) -> dict[str, str | int | None]:
        """Return it as JSON can carry it."""
        return asdict(self)


@dataclass(frozen=True)
class World:
    """A lab to bring up.

    members are its machines; config is the text of the config file from which mx2 and the edge's
    kits are made, and with kit the one that the primary gets. Without a config there are no kits,
    and mx2's cloud-init gets user_data. With agent, mx2 gets all of its bundle once it has booted
    from user-data, as a relay does by ``backup-mx deploy``. With volume, mx2 has a second disk,
    which is blank. Without published, DNS knows no mx2. With bare, mx2 is as a provider hands
    machines out, and there are no kits: nobody has heard of a relay. mx2 runs relay_image; the
    machine "bare", a plain one, runs bare_image. Into both the lab's operator gets as root, into
    the plain one also who has one of authorized_keys (lines as in OpenSSH's file of that name).
    """

    name: str = "lab"
    user_data: bytes = b"#cloud-config\n{}\n"
    members: tuple[str, ...] = ("internet", "edge", "primary", "mx2")
    config: str = ""
    kit: bool = True
    agent: bool = False
    volume: bool = False
    published: bool = True
    bare: bool = False
    relay_image: ImageSpec = image.WORLD
    bare_image: ImageSpec = image.PLAIN_TRIXIE
    authorized_keys: tuple[str, ...] = ()

    def machine(self, name: str) -> Machine:
        """Return a machine of this lab. Raises LabError when it has none of that name."""
        machine = Machine(names.checked(self.name), role(name))
        if name not in self.members:
            raise LabError(f'lab {self.name} was brought up without "{name}"')
        return machine

    @property
    def machines(self) -> list[Machine]:
        """All machines of this lab."""
        return [self.machine(name) for name in self.members]

    def up(self, progress: Progress) -> None:
        """Bring the lab up; return when every machine answers.

        Leftovers of a lab of this name that is dead go first; if it does not come up, nothing of
        it stays. Raises HostError or LabError, the latter also when the lab runs already.
        """
        machines = self.machines
        host.require()
        with _alone(self.name):
            if is_up(self.name):
                raise LabError(
                    f"lab {self.name} is already running; backup-mx lab down --name {self.name}"
                    " ends it"
                )
            if sweep.leftovers(self.name):
                progress("clearing away what an earlier lab left")
                sweep.sweep(self.name)
            images = {
                machine.name: image.ensure(self._spec(machine), progress) for machine in machines
            }
            try:
                self._start(machines, images, progress)
            except BaseException:
                sweep.sweep(self.name)
                raise
            (names.folder(self.name) / _UP).touch()

    def _start(self, machines: list[Machine], images: dict[str, Image], progress: Progress) -> None:
        network.create(self.name)
        for machine in machines:
            machine.create(images[machine.name].root)
            if self.volume and machine.name == "mx2":
                machine.volume.create()
        certificates.create_authority(self.name, machines[0].root)
        operator.create(self.name, machines[0].root)
        made_from = settings.write(self.name, self.config) if self.config else None
        for machine in machines:
            self._furnish(machine, images, made_from)
        if any(made.spec.debs for made in images.values()):
            # Packages come from the mirror: it must stand before the machines that ask it.
            self._boot([machine for machine in machines if machine.name == "internet"], progress)
        self._boot([machine for machine in machines if not machine.running], progress)
        if self.agent:
            self.deploy(progress)
        progress("every machine answers")

    def _boot(self, machines: list[Machine], progress: Progress) -> None:
        """Switch machines on, all at once, and wait until each is ready."""
        # Those that cloud-init sets up take longest.
        for machine in sorted(machines, key=lambda machine: not machine.role.cloud):
            if machine.name == "primary" and self.config and self.kit and not self.bare:
                progress("applying the primary's kit")
                prepare.apply_kit(machine)
            machine.boot()
        for machine in machines:
            progress(f"waiting for {machine.name}")
            machine.ready(_SET_UP_SECONDS if machine.role.cloud else _READY_SECONDS)

    def deploy(self, progress: Progress, config: str = "") -> None:
        """Make mx2 what the lab's config says, or ``config`` if there is one, agent included.

        Raises MachineError with the machine's own words when it fails, LabError when it is off.
        """
        made_from = settings.replace(self.name, config) if config else self.made_from
        progress("deploying mx2's agent")
        said: list[str] = []
        ship.deploy(LabHost(self.machine("mx2")), bundle(made_from, "mx2"), said.append)

    def rebuild(self, progress: Progress) -> None:
        """Destroy mx2 but for its volume, make it anew, and wait for it; no agent is deployed.

        Raises LabError when it does not come up.
        """
        self.renew(progress)
        self._boot([self.machine("mx2")], progress)

    def renew(self, progress: Progress) -> None:
        """Destroy mx2 but for its volume; leave a new one of relay_image, which is off.

        It will boot from fresh user-data, of the lab's config as it is now.
        """
        machine, made_from = self.machine("mx2"), self.made_from
        made = image.ensure(self._spec(machine), progress)
        progress("destroying mx2")
        machine.destroy()
        machine.create(made.root)
        self._furnish(machine, {"mx2": made}, made_from, again=machine.volume.exists)
        prepare.mirrors(self.machine("internet"), [made])

    def _spec(self, machine: Machine) -> ImageSpec:
        return {"mx2": self.relay_image, "bare": self.bare_image}.get(machine.name, image.WORLD)

    def _furnish(
        self,
        machine: Machine,
        images: dict[str, Image],
        made_from: Config | None,
        *,
        again: bool = False,
    ) -> None:
        prepare.identity(machine)
        if machine.name == "mx2" and not self.bare:
            data = user_data(made_from, "mx2", again=again) if made_from else self.user_data
            prepare.cloud(machine, data)
            prepare.way_in(machine, Operator(self.name))
        elif machine.role.cloud:
            keys = (Operator(self.name).public_key, *self.authorized_keys)
            prepare.cloud(machine, prepare.provider_data(keys))
        else:
            prepare.no_cloud(machine)
            prepare.files(machine)
        if machine.role.cloud:
            prepare.wireguard(machine)
            certificates.trust(self.name, machine.root)
        if machine.name == "internet":
            prepare.certificate(machine, "mta.example.net")
            prepare.dkim_key(machine)
            prepare.name_servers(machine, Operator(self.name), published=self.published)
            prepare.authority(machine)
            prepare.place(machine)
            prepare.mirrors(machine, images.values())
        elif machine.name == "primary":
            prepare.certificate(machine, machine.role.hostname)
        if made_from and not self.bare:
            self._furnish_kits(machine, made_from)
        prepare.enable(machine)
        if images[machine.name].spec.debs:
            prepare.sources(machine, images[machine.name].spec.release)

    def _furnish_kits(self, machine: Machine, made_from: Config) -> None:
        if machine.name == "primary" and self.kit:
            prepare.kit(machine, primary.render(made_from, next(iter(made_from.primaries))))
        if machine.name == "edge":
            for kind in made_from.edges:
                prepare.install(machine, edge.render(made_from, kind))
            if key := settings.edge_key(self.name):
                prepare.wireguard(machine)
                prepare.tunnel(machine, key)

    @property
    def made_from(self) -> Config:
        """The config this lab was made from. Raises LabError when it was made without one."""
        return settings.read(self.name)

    def down(self) -> None:
        """Remove the lab, running or not; nothing of it stays."""
        down(self.name)

    def status(self) -> list[Status]:
        """Return what each machine does now."""
        return [_status(machine) for machine in self.machines]


def _status(machine: Machine) -> Status:
    running = machine.running
    return Status(
        machine.name,
        "running" if running else "off",
        machine.role.addresses[0],
        running.leader if running else None,
        running.since.isoformat(timespec="seconds") if running else None,
    )


def standard(
    name: str = "lab",
    *,
    tunnel: bool = False,
    kit: bool = True,
    agent: bool = False,
    volume: bool = False,
    published: bool = True,
    bare: bool = False,
    options: str = "",
) -> World:
    """Return the world of docs and drills: all in it is what the lab's own config describes.

    With tunnel, mx2 drains through WireGuard; without kit, the primary is as if no relay were
    planned; with agent, mx2 has one; with volume, its queue is on one; without published, DNS
    knows nothing of mx2. With bare, there is no relay yet: mx2 is a plain Debian. options is text
    that is added to the lab's config.
    """
    file = "backup-mx-tunnel.toml" if tunnel else "backup-mx.toml"
    package = resources.files("backup_mx.lab")
    text = (package / file).read_text()
    text = settings.with_options(text, (package / "backup-mx-operator.toml").read_text())
    text = settings.with_options(text, "[relay.mx2]\nvolume = true\n" * volume)
    text = settings.with_options(text, options)
    if bare:
        plain = image.PLAIN_TRIXIE
        return World(name, config=text, published=False, bare=True, relay_image=plain)
    return World(name, config=text, kit=kit, agent=agent, volume=volume, published=published)


def is_up(name: str) -> bool:
    """Tell whether a lab was brought up and still has a machine that runs."""
    return _came_up(name) and any(machine.running for machine in attach(name).machines)


def attach(name: str = "lab") -> World:
    """Return a running lab, for looking at it and working in it.

    Raises LabError when no lab of that name is up, HostError without root.
    """
    host.require()
    if not _came_up(name):
        raise LabError(f"lab {name} is not running; backup-mx lab up --name {name} starts it")
    folders = {path.name for path in names.folder(name).iterdir()}
    return World(name=name, members=tuple(member for member in ROLES if member in folders))


def _came_up(name: str) -> bool:
    """Tell whether a lab came up, and since the host booted: otherwise it has no mounts."""
    folder = names.folder(name)
    return (folder / _UP).exists() and bool(mounts.below(folder))


def down(name: str = "lab") -> None:
    """Remove whatever there is of a lab; nothing at all is fine.

    Raises LabError when something of it will not go.
    """
    host.require()
    with _alone(name):
        sweep.sweep(name)


@contextlib.contextmanager
def _alone(name: str) -> Iterator[None]:
    """Be the only process that brings this lab up or down, or drills in it.

    The lock is an abstract socket (unix(7)): the kernel frees it with the process, however that
    ends, and there is no file to leave behind.
    """
    with socket.socket(socket.AF_UNIX) as lock:
        try:
            lock.bind(f"\0backup-mx-{names.prefix(name)}lock")
        except OSError:
            busy = f"another backup-mx is at work on lab {name}: up, down or a drill"
            raise LabError(f"{busy}; end it or wait for it") from None
        yield


@contextlib.contextmanager
def claimed(name: str) -> Iterator[World]:
    """Have a running lab for oneself: nobody takes it down or drills in it meanwhile.

    Raises LabError when it is not up, or claimed already.
    """
    with _alone(name):
        yield attach(name)
