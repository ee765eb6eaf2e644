"""A machine's processes, found by what systemd-nspawn was told: ``--machine=NAME``."""

from __future__ import annotations

import contextlib
import os
import signal
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from backup_mx.errors import LabError
from backup_mx.lab import host

PROC = Path("/proc")
_SUPERVISOR = "systemd-nspawn"


@dataclass(frozen=True)
class Running:
    """A machine that runs: its supervisor (systemd-nspawn) and its init, by process id.

    leader is None in the first moments, when init was not started yet.
    """

    supervisor: int
    leader: int | None

    @property
    def since(self) -> datetime:
        """When it was started."""
        return started(self.supervisor)


def started(pid: int) -> datetime:
    """Return when a process began (proc(5): field 22 of stat, in ticks since boot)."""
    ticks = int((PROC / str(pid) / "stat").read_text().rpartition(")")[2].split()[19])
    boot = next(
        int(line.split()[1])
        for line in (PROC / "stat").read_text().splitlines()
        if line.startswith("btime ")
    )
    return datetime.fromtimestamp(boot + ticks / os.sysconf("SC_CLK_TCK"), tz=UTC)


def machines(prefix: str) -> dict[str, Running]:
    """Return the machines that run and whose names begin with ``prefix``, by name."""
    starters: dict[str, list[int]] = {}
    for pid, name in _starters(prefix):
        starters.setdefault(name, []).append(pid)
    return {name: _running(pids) for name, pids in starters.items()}


def _starters(prefix: str) -> Iterator[tuple[int, str]]:
    """Yield every process that is systemd-nspawn, or is about to be, with its machine's name."""
    option = f"--machine={prefix}"
    for entry in PROC.iterdir():
        if not entry.name.isdigit():
            continue
        words = _words(int(entry.name))
        name = next((word for word in words if word.startswith(option)), "")
        if name and _SUPERVISOR in words:
            yield int(entry.name), name.removeprefix("--machine=")


def _running(starters: list[int]) -> Running:
    """Tell the supervisor, whose parent is no starter, from its forks; find its init.

    A fork that is init-to-be still has the supervisor's command line, and may have been born
    after ``starters`` were gathered: so it is looked at again.
    """
    outermost = [pid for pid in starters if _parent(pid) not in {0, *starters}]
    supervisor = next(iter(outermost), starters[0])
    inits = (pid for pid in _children(supervisor) if _is_init(pid))
    return Running(supervisor, next((pid for pid in inits if _SUPERVISOR not in _words(pid)), None))


def _words(pid: int) -> list[str]:
    """Return a process's command line; none when it is gone."""
    with contextlib.suppress(OSError):
        return (PROC / str(pid) / "cmdline").read_bytes().decode(errors="replace").split("\0")
    return []


def _parent(pid: int) -> int:
    with contextlib.suppress(OSError):
        return int((PROC / str(pid) / "stat").read_text().rpartition(")")[2].split()[1])
    return 0


def _children(pid: int) -> list[int]:
    with contextlib.suppress(OSError):
        return [
            int(child) for child in Path(PROC, f"{pid}/task/{pid}/children").read_text().split()
        ]
    return []


def _is_init(pid: int) -> bool:
    """Tell whether a process is number 1 of its process namespace."""
    with contextlib.suppress(OSError):
        for line in (PROC / str(pid) / "status").read_text().splitlines():
            if line.startswith("NSpid:"):
                return line.split()[-1] == "1"
    return False


def gone(pid: int) -> bool:
    """Tell whether a process has ended (one that nobody has waited for yet has)."""
    try:
        stat = (PROC / str(pid) / "stat").read_text()
    except OSError:
        return True
    return stat.rpartition(")")[2].split()[0] in "ZX"


def kill(pids: Iterable[int], number: signal.Signals = signal.SIGKILL) -> None:
    """Send a signal to each process; one that is gone is gone."""
    for pid in pids:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, number)


def cut(machine: Running) -> None:
    """End a machine at once, as a power cut does: init first, with it goes all it started.

    Raises LabError when it does not go.
    """
    if machine.leader is not None:
        kill([machine.leader])
        with contextlib.suppress(LabError):  # nspawn tidies up after itself if it can
            host.wait_for("nspawn", lambda: gone(machine.supervisor), timeout=1.0)
    kill([machine.supervisor])
    host.wait_for(
        f"process {machine.supervisor} to end", lambda: gone(machine.supervisor), timeout=10.0
    )
