"""One machine of a lab: its disk, its power button, its plug, and a way in.

Its disk is an overlay of an image and a folder of its own; it keeps what was written through
power cuts, and goes with the machine. A volume, if it has one, outlives that.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from backup_mx.errors import LabError
from backup_mx.lab import cgroups, host, mounts, names, network, processes
from backup_mx.lab.layout import Answer, Role
from backup_mx.lab.volume import Volume

BOOT_SECONDS = 60.0
MOUNT_POINT = Path("/srv/backup-mx")
"""Where a machine has its volume."""
_CONSOLE_TAIL = 15
_TUN = Path("/dev/net/tun")
_OFF = "the machine is off"
_ANSI = re.compile(r"\x1b\[[0-9;?]*[a-zA-Z]")  # colours and cursor movements
PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
_ENVIRONMENT = {
    "HOME": "/root",
    "LANG": "C.UTF-8",
    "PATH": PATH,
    "USER": "root",
}


@dataclass(frozen=True)
class Done:
    """A command that ran to its end in a machine: exit status and what it printed."""

    argv: tuple[str, ...]
    returncode: int
    stdout: bytes
    stderr: bytes

    @property
    def text(self) -> str:
        """Its standard output as text."""
        return self.stdout.decode(errors="replace")


@dataclass(frozen=True)
class Machine:
    """The machine that plays ``role`` in the lab ``lab``. It holds no state: it looks each time."""

    lab: str
    role: Role

    @property
    def name(self) -> str:
        """Its name within the lab."""
        return self.role.name

    @property
    def folder(self) -> Path:
        """Its folder on the host."""
        return names.folder(self.lab) / self.name

    @property
    def root(self) -> Path:
        """Its root directory as the host sees it, whether it runs or not (without its tmpfs)."""
        return self.folder / "root"

    @property
    def volume(self) -> Volume:
        """Its volume, which it may have or not."""
        return Volume(self.folder)

    def path(self, inside: str | Path) -> Path:
        """Return where the host finds what is at the absolute path ``inside`` it."""
        place = Path(inside)
        if MOUNT_POINT in place.parents and self.volume.exists:
            return self.volume.view / place.relative_to(MOUNT_POINT)
        return self.root / place.relative_to("/")

    @property
    def console(self) -> Path:
        """The file that its console's output goes to, over all its boots."""
        return self.folder / "console.log"

    @property
    def running(self) -> processes.Running | None:
        """Its processes on the host, or None when it is off."""
        scoped = names.scoped(self.lab, self.name)
        return processes.machines(scoped).get(scoped)

    @property
    def leader(self) -> int:
        """The process id of its init. Raises LabError when it is off."""
        running = self.running
        if running is None or running.leader is None:
            raise LabError(f"{self.name} is not running")
        return running.leader

    def create(self, image: Path) -> None:
        """Make its disk over the tree ``image``. Raises HostError if the host has no overlay."""
        upper, work = self.folder / "upper", self.folder / "work"
        # Other users of the host have no business with setuid programs that nobody patches.
        names.LABS.mkdir(parents=True, exist_ok=True)
        names.LABS.chmod(0o700)
        for folder in (upper, work, self.root):
            folder.mkdir(parents=True)
        mounts.overlay(image, upper, work, self.root)

    def boot(self) -> None:
        """Switch it on; it has its disk and nothing else of an earlier boot. See ready()."""
        if self.running:
            raise LabError(f"{self.name} is running already")
        scoped = names.scoped(self.lab, self.name)
        network.detach(self.lab, self.name)
        self.volume.free()
        namespace = network.attach(self.lab, self.role)
        groups = [str(group) for group in cgroups.create(scoped)]
        launch = [sys.executable, "-I", str(Path(__file__).with_name("launch.py"))]
        host.call([*launch, str(self.console), *groups, "--", *self._nspawn(scoped, namespace)])

    def _nspawn(self, scoped: str, namespace: Path) -> list[str]:
        return [
            # Without it, systemd 257 finds no hierarchy it accepts on a host with cgroup v1.
            *("env", "SYSTEMD_NSPAWN_UNIFIED_HIERARCHY=1", "systemd-nspawn"),
            *("--quiet", "--settings=no", "--register=no", "--keep-unit", "--console=read-only"),
            *(f"--machine={scoped}", f"--directory={self.root}"),
            f"--network-namespace-path={namespace}",
            "--capability=CAP_NET_ADMIN",  # its own firewall is its own business
            *([f"--bind={_TUN}"] if _TUN.exists() else []),  # tunnels made without the kernel
            *([f"--bind={self.volume.attach()}"] if self.volume.exists else []),
            *("--resolv-conf=off", "--timezone=off", "--link-journal=no", "--boot"),
        ]

    def ready(self, timeout: float = BOOT_SECONDS) -> None:
        """Wait until every port of its role answers, and until cloud-init is done if it has one.

        Raises LabError after ``timeout`` seconds, or as soon as it is off or cloud-init failed.
        """
        for answer in self.role.answers:
            if answer.through and not self._neighbour_runs(answer.through):
                continue
            what = f"{self.name} to answer on {answer.address} port {answer.port}"
            self._wait(what, partial(self._answers, answer), timeout)
        if self.role.cloud:
            self._wait(f"{self.name}'s cloud-init", self._cloud_init_done, timeout)

    def _neighbour_runs(self, name: str) -> bool:
        scoped = names.scoped(self.lab, name)
        return scoped in processes.machines(scoped)

    def listening(self, *ports: int, timeout: float = BOOT_SECONDS) -> None:
        """Wait until somebody in it listens on each TCP port; nothing is sent to them.

        Raises LabError after ``timeout`` seconds, or as soon as it is off.
        """
        listed = ", ".join(str(port) for port in ports)
        self._wait(
            f"{self.name} to listen on {listed}",
            lambda leader: set(ports) <= _listening(leader),
            timeout,
        )

    def _wait(self, what: str, ready: Callable[[int], bool], timeout: float) -> None:
        """Wait for its init, then until ``ready``, given init's process id, says so."""
        try:
            host.wait_for(f"{self.name}'s init", self._started, timeout=timeout, dead=self._off)
            leader = self.leader
            host.wait_for(
                what,
                lambda: ready(leader),
                timeout=timeout,
                dead=lambda: _OFF if processes.gone(leader) else "",
            )
        except LabError as error:
            raise LabError(f"{error}\n{self._console_tail()}".rstrip()) from None

    def _started(self) -> bool:
        running = self.running
        return running is not None and running.leader is not None

    def _off(self) -> str:
        return "" if self.running else _OFF

    def _console_tail(self) -> str:
        if not self.console.exists():
            return ""
        text = _ANSI.sub("", self.console.read_text(errors="replace"))
        lines = [line for line in text.splitlines() if line.strip()][-_CONSOLE_TAIL:]
        return "\n".join(["its console's last words:", *(f"  {line}" for line in lines)])

    def _answers(self, expected: Answer, _leader: int) -> bool:
        try:
            with network.connect(self.lab, expected.address, expected.port, 1.0) as connection:
                connection.sendall(expected.request)
                return expected.greeting in connection.recv(512)
        except OSError:
            return False

    def _cloud_init_done(self, leader: int) -> bool:
        """Read cloud-init's own verdict on this boot. Raises LabError when it is a bad one."""
        try:
            path = Path(f"/proc/{leader}/root/run/cloud-init/result.json")
            errors = json.loads(path.read_text())["v1"]["errors"]
        except (OSError, ValueError):
            return False
        if errors:
            raise LabError(f"cloud-init failed in {self.name}: {'; '.join(map(str, errors))}")
        return True

    def kill(self) -> None:
        """Cut its power: nothing more leaves it, nothing in it is stopped, all of it ends."""
        network.detach(self.lab, self.name)
        running = self.running
        if running:
            processes.cut(running)
        for group in cgroups.found(names.scoped(self.lab, self.name)):
            cgroups.remove(group)

    def poweroff(self, timeout: float = 60.0) -> None:
        """Shut it down in good order (systemd's SIGRTMIN+4), within ``timeout`` seconds.

        Raises LabError when it does not end.
        """
        running = self.running
        if running is None or running.leader is None:
            self.kill()
            return
        os.kill(running.leader, signal.SIGRTMIN + 4)
        host.wait_for(
            f"{self.name} to power off",
            lambda: processes.gone(running.supervisor),
            timeout=timeout,
        )
        self.kill()

    def destroy(self) -> None:
        """Take the machine away, power and root disk; a volume stays."""
        self.kill()
        for point in mounts.below(self.root):
            mounts.unmount(point)
        for name in ("root", "upper", "work"):
            shutil.rmtree(self.folder / name, ignore_errors=True)

    def run(
        self,
        argv: list[str],
        *,
        stdin: bytes | None = None,
        timeout: float = 60.0,
        check: bool = True,
    ) -> Done:
        """Run a command in it, as root, with a clean environment, for at most ``timeout`` seconds.

        Raises LabError when it is off or the time is up, and, with check, when the command ends
        with another status than 0.
        """
        with subprocess.Popen(
            [*self._enter(), *argv],
            stdin=subprocess.PIPE if stdin is not None else subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env=_ENVIRONMENT,
            start_new_session=True,
        ) as process:
            try:
                out, err = process.communicate(stdin, timeout)
            except BaseException as error:
                # The group: nsenter's child would live on and hold the pipes.
                os.killpg(process.pid, signal.SIGKILL)
                if isinstance(error, subprocess.TimeoutExpired):
                    late = f"{' '.join(argv)} did not end within {timeout:.0f} s in {self.name}"
                    raise LabError(late) from None
                raise
        done = Done(tuple(argv), process.returncode, out, err)
        if check and done.returncode:
            words = (err or out).decode(errors="replace").strip()
            raise LabError(f"{' '.join(argv)} ended with {done.returncode} in {self.name}: {words}")
        return done

    def command(self, argv: Sequence[str]) -> list[str]:
        """Return the command line that runs ``argv`` in it, to be run on the host's terminal."""
        kept = [f"{key}={value}" for key, value in _ENVIRONMENT.items()]
        terminal = f"TERM={os.environ.get('TERM', 'dumb')}"
        return [*self._enter(), "env", "-i", *kept, terminal, *argv]

    def _enter(self) -> list[str]:
        spaces = ["--mount", "--uts", "--ipc", "--net", "--pid"]
        return ["nsenter", "--target", str(self.leader), *spaces, "--"]


def _listening(leader: int) -> set[int]:
    """Return the TCP ports that are listened on (state 0A) in a process's network namespace."""
    try:
        tables = [Path(f"/proc/{leader}/net/{kind}").read_text() for kind in ("tcp", "tcp6")]
    except OSError:
        return set()
    rows = [line.split() for table in tables for line in table.splitlines()[1:]]
    return {int(row[1].rpartition(":")[2], 16) for row in rows if row[3] == "0A"}
