"""Services: started where they do not run, reloaded where their files changed, else left alone."""

from __future__ import annotations

import contextlib
import socket
import time
from pathlib import Path
from typing import Any

from .files import Bundle, Changes
from .system import ApplyError, must, run, tell


def is_active(unit: str) -> bool:
    """Whether systemd says that ``unit`` runs."""
    return run(["systemctl", "is-active", "--quiet", unit])[0] == 0


def bring_up(service: dict[str, Any], changes: Changes, *, first: bool) -> None:
    """Start a service that does not run, reload one whose files changed, else leave it alone."""
    unit = service["unit"]
    if skips(service):
        return
    if not is_active(unit):
        if not service["start"]:
            return
        verb = "start"
    elif changes.touch(service["files"]):
        verb = "restart" if first else "try-reload-or-restart"
    else:
        return
    must(["systemctl", verb, unit])
    tell(f"{verb}: {unit}")


def skips(service: dict[str, Any]) -> bool:
    """Whether a service has no work: what it makes exists, or what it needs is not here."""
    made, needs = service["makes"], service["needs"]
    return bool(made and Path(made).exists()) or bool(needs and not Path(needs).exists())


def wait_for_greeting(port: int, patience: float = 30) -> None:
    """Wait until an SMTP server greets on ``port`` (RFC 5321 section 4.3.1)."""
    deadline = time.monotonic() + patience
    while time.monotonic() < deadline:
        with (
            contextlib.suppress(OSError),
            socket.create_connection(("127.0.0.1", port), 5) as server,
        ):
            if server.recv(64).startswith(b"220"):
                return
        time.sleep(0.1)
    said = run(["journalctl", "-q", "-n", "5", "-o", "cat", "-t", "postfix"])[1]
    raise ApplyError(f"no greeting on port {port} within {patience:.0f} s. {said}")


def serve(bundle: Bundle, changes: Changes, *, first: bool) -> None:
    """Bring every service up, and wait until the relay answers."""
    if changes.touch(["/etc/systemd/"]):
        must(["systemctl", "daemon-reload"])
    for service in bundle.manifest["services"]:
        bring_up(service, changes, first=first)
    wait_for_greeting(bundle.manifest["port"])
