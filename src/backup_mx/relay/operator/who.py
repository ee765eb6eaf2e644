"""Who asks, for the record: the login behind sudo, and the address that SSH came from."""

from __future__ import annotations

import ipaddress
import os
import pwd
import re
from collections.abc import Mapping
from pathlib import Path

from backup_mx.relay.root.protocol import Who

_UNSEEMLY = re.compile(r"[^!-~]")
_ANCESTORS = 12  # sudo, a shell or two, sshd
_PARENT = re.compile(r"^PPid:\s+(\d+)$", re.MULTILINE)


def who(environment: Mapping[str, str] = os.environ, proc: Path = Path("/proc")) -> Who:
    """Return who runs this process; sudo hides SSH_CONNECTION, but not from who looks above it."""
    name = environment.get("SUDO_USER") or _login()
    connection = environment.get("SSH_CONNECTION") or _above(proc)
    return Who(_UNSEEMLY.sub("_", name)[:64] or "unknown", _address(connection))


def _login() -> str:
    try:
        return pwd.getpwuid(os.getuid()).pw_name
    except KeyError:
        return f"uid-{os.getuid()}"


def _address(connection: str) -> str:
    """Return the client's address of SSH_CONNECTION (ssh(1)), "" for anything else."""
    try:
        return str(ipaddress.ip_address(connection.partition(" ")[0].partition("%")[0]))
    except ValueError:
        return ""


def _above(proc: Path) -> str:
    """Return SSH_CONNECTION of the nearest process above that has one."""
    process = os.getppid()
    for _ in range(_ANCESTORS):
        try:
            variables = (proc / str(process) / "environ").read_bytes().split(b"\0")
            parent = _PARENT.search((proc / str(process) / "status").read_text())
        except OSError:
            return ""
        for each in variables:
            if each.startswith(b"SSH_CONNECTION="):
                return each.partition(b"=")[2].decode(errors="replace")
        process = int(parent[1]) if parent else 0
    return ""
