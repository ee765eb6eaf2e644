"""Services: started where they do not run, reloaded where their files changed, else left alone."""

from __future__ import annotations

import contextlib
import socket
import time
from collections.abc import Sequence
from pathlib import Path

from .files import Changes, Service
from .system import ApplyError, run, tell


def is_up(service: Service) -> bool:
    """Whether a service runs; what systemd says of Debian 12's postfix.service means nothing."""
    active = run(["systemctl", "is-active", "--quiet", service.unit])[0] == 0
    return active and (not service.port or greets(service.port))


def greets(port: int) -> bool:
    """Whether an SMTP server greets, be it to say that it is busy (RFC 5321 section 4.2)."""
    with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 30) as server:
        return server.recv(3) in (b"220", b"421")
    return False


def bring_up(service: Service, changes: Changes, *, first: bool) -> None:
    """Start a service that does not run, reload one whose files changed, else leave it alone."""
    if has_no_work(service):
        return
    if not is_up(service):
        if not service.start:
            return
        verb = "restart"
    elif changes.touch(service.files):
        verb = "restart" if first else "try-reload-or-restart"
    else:
        return
    code, said = run(["systemctl", verb, service.unit])
    if code or (service.port and not greets_soon(service.port)):
        # Of a unit that is masked the journal has old news only.
        words = said if "masked" in said else last_words(service.unit) or said
        raise ApplyError(f"{service.unit} does not start: {words}")
    tell(f"{verb}: {service.unit}")


def has_no_work(service: Service) -> bool:
    """Whether what a service makes exists, or what it needs is not here."""
    made = bool(service.makes) and all(Path(path).exists() for path in service.makes)
    return made or bool(service.needs and not Path(service.needs).exists())


def greets_soon(port: int, patience: float = 30) -> bool:
    """Wait up to ``patience`` seconds until an SMTP server greets on ``port``."""
    deadline = time.monotonic() + patience
    while not greets(port):
        if time.monotonic() > deadline:
            return False
        time.sleep(0.1)
    return True


def last_words(unit: str) -> str:
    """Return what a unit, or an instance of it, said last."""
    pattern = unit.replace(".service", "*")
    return run(["journalctl", "-q", "-n", "5", "-o", "cat", "-u", pattern])[1]


def serve(services: Sequence[Service], changes: Changes, *, first: bool) -> None:
    """Bring every service up; return when the relay answers."""
    if changes.touch(["/etc/systemd/"]):
        run(["systemctl", "daemon-reload"])
    for service in services:
        bring_up(service, changes, first=first)
