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
    prepare,
    settings,
    sweep,
)
from backup_mx.lab.host import Progress
from backup_mx.lab.image import Image, ImageSpec
from backup_mx.lab.layout import ROLES, role
from backup_mx.lab.machine import Machine
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
    and mx2's cloud-init gets user_data. mx2 runs relay_image; bare, the plain machine, runs
    bare_image and lets authorized_keys (lines as in OpenSSH's file of that name) in as root.
    """

    name: str = "lab"
    user_data: bytes = b"#cloud-config\n{}\n"
    members: tuple[str, ...] = ("internet", "edge", "primary", "mx2")
    config: str = ""
    kit: bool = True
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
        certificates.create_authority(self.name, machines[0].root)
        made_from = settings.write(self.name, self.config) if self.config else None
        for machine in machines:
            self._furnish(machine, images, made_from)
        if any(made.spec.debs for made in images.values()):
            # Packages come from the mirror: it must stand before the machines that ask it.
            self._boot([machine for machine in machines if machine.name == "internet"], progress)
        self._boot([machine for machine in machines if not machine.running], progress)
        progress("every machine answers")

    def _boot(self, machines: list[Machine], progress: Progress) -> None:
        """Switch machines on, all at once, and wait until each is ready."""
        # Those that cloud-init sets up take longest.
        for machine in sorted(machines, key=lambda machine: not machine.role.cloud):
            if machine.name == "primary" and self.config and self.kit:
                progress("applying the primary's kit")
                prepare.apply_kit(machine)
            machine.boot()
        for machine in machines:
            progress(f"waiting for {machine.name}")
            machine.ready(_SET_UP_SECONDS if machine.role.cloud else _READY_SECONDS)

    def _spec(self, machine: Machine) -> ImageSpec:
        return {"mx2": self.relay_image, "bare": self.bare_image}.get(machine.name, image.WORLD)

    def _furnish(
        self, machine: Machine, images: dict[str, Image], made_from: Config | None
    ) -> None:
        prepare.identity(machine)
        if machine.name == "mx2":
            data = user_data(made_from, "mx2") if made_from else self.user_data
            prepare.cloud(machine, data)
        elif machine.name == "bare":
            prepare.cloud(machine, prepare.provider_data(self.authorized_keys))
        else:
            prepare.no_cloud(machine)
            prepare.files(machine)
        if machine.role.cloud:
            prepare.wireguard(machine)
            certificates.trust(self.name, machine.root)
        if machine.name == "internet":
            prepare.dkim_key(machine)
            prepare.mirrors(machine, images.values())
        elif machine.name == "primary":
            prepare.certificate(machine)
        if made_from:
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


def standard(name: str = "lab", *, tunnel: bool = False, kit: bool = True) -> World:
    """Return the world of docs and drills: all in it is what the lab's own config describes.

    With tunnel, mx2 drains through WireGuard; without kit, the primary is as if no relay were
    planned.
    """
    file = "backup-mx-tunnel.toml" if tunnel else "backup-mx.toml"
    text = (resources.files("backup_mx.lab") / file).read_text()
    return World(name, config=text, kit=kit)


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
