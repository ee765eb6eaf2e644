"""What a lab asks of the host, and the one way its programs are called."""

from __future__ import annotations

import os
import shutil
import subprocess
import time
from collections.abc import Callable, Iterable
from pathlib import Path

from backup_mx.errors import HostError, LabError

Progress = Callable[[str], None]
"""Told, in a few words, what is being done."""

PROGRAMS = {
    "ip": "iproute2",
    "mmdebstrap": "mmdebstrap",
    "mount": "mount",
    "nsenter": "util-linux",
    "systemctl": "systemd",
    "systemd-nspawn": "systemd-container",
}
"""The programs a lab calls, and the package of Debian and Ubuntu that brings each."""

Check = Callable[[], bool]
"""Asked again and again until it says yes."""

_KEYRINGS = Path("/usr/share/keyrings")
_POLL_SECONDS = 0.05


def require() -> None:
    """Check that this host can carry a lab.

    Raises HostError, with everything that is missing in one message.
    """
    if os.geteuid() != 0:
        raise HostError("the lab boots machines and needs root: run it again with sudo")
    lacking = [*_missing_programs(PROGRAMS), *_missing_keys(_KEYRINGS), *_missing_features()]
    if lacking:
        raise HostError("this host cannot carry a lab: " + "; ".join(lacking))


def _missing_programs(programs: dict[str, str]) -> list[str]:
    """Name the programs that are not installed, and the command that installs them."""
    missing = [program for program in programs if shutil.which(program) is None]
    packages = sorted({programs[program] for program in missing})
    if not missing:
        return []
    return [f"{', '.join(missing)} missing (apt-get install {' '.join(packages)})"]


def _missing_keys(keyrings: Path) -> list[str]:
    """Name Debian's signing keys if they are not here, as on an Ubuntu host."""
    if any(keyrings.glob("debian-archive-keyring.*")):
        return []
    return ["Debian's signing keys missing (apt-get install debian-archive-keyring)"]


def _missing_features() -> list[str]:
    """Name the kernel's features that are not there, overlay being loaded if it is a module."""
    lacking = []
    if not _has_overlay() and shutil.which("modprobe"):
        subprocess.run(["modprobe", "overlay"], capture_output=True, check=False)
    if not _has_overlay():
        lacking.append("the kernel has no overlay file system")
    if not Path("/proc/self/ns/net").exists():
        lacking.append("the kernel has no network namespaces")
    if not Path("/proc/self/ns/pid").exists():
        lacking.append("the kernel has no process namespaces")
    return lacking


def _has_overlay(filesystems: Path = Path("/proc/filesystems")) -> bool:
    return any(line.split()[-1:] == ["overlay"] for line in filesystems.read_text().splitlines())


def call(argv: Iterable[str], *, stdin: str = "", timeout: float = 60.0) -> str:
    """Run one of the host's programs to its end and return what it printed.

    timeout is in seconds. Raises LabError with the program's own words when it fails.
    """
    arguments = list(argv)
    try:
        done = subprocess.run(
            arguments, input=stdin, capture_output=True, text=True, timeout=timeout, check=False
        )
    except subprocess.TimeoutExpired:
        raise LabError(f"{' '.join(arguments)} did not end within {timeout:.0f} s") from None
    if done.returncode:
        words = (done.stderr or done.stdout).strip()
        raise LabError(f"{' '.join(arguments)} failed: {words}")
    return done.stdout


def wait_for(
    what: str,
    ready: Check,
    *,
    timeout: float,
    dead: Callable[[], str] = lambda: "",
) -> None:
    """Wait until ``ready`` says so, for at most ``timeout`` seconds.

    dead returns the reason why waiting has become pointless, or nothing. Raises LabError, which
    says what was waited for.
    """
    deadline = time.monotonic() + timeout
    while not ready():
        if reason := dead():
            raise LabError(f"waited for {what}, but {reason}")
        if time.monotonic() > deadline:
            raise LabError(f"waited {timeout:.0f} s for {what}, in vain")
        time.sleep(_POLL_SECONDS)
