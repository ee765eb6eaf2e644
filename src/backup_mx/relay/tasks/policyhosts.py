"""The hosts of MTA-STS policies as senders see them: what each shows, what became of asking."""

from __future__ import annotations

import socket
import subprocess
from collections.abc import Iterable

from backup_mx.net.tls import anybody
from backup_mx.relay import certificate
from backup_mx.relay.certificate import Run
from backup_mx.relay.policyhost import PORT
from backup_mx.relay.state import Shown
from backup_mx.relay.tasks import system

SECONDS = 10.0  # for each step; a server that is flooded lets one wait


def look(hosts: Iterable[str], run: Run = system.run, port: int = PORT) -> tuple[Shown, ...]:
    """Return what is known of each host's certificate."""
    return tuple(_one(host, run, port) for host in hosts)


def _one(host: str, run: Run, port: int) -> Shown:
    asked = certificate.last(certificate.asked_for(host))
    try:
        found = certificate.read(_der(host, port), run, "DER")
    except (OSError, subprocess.SubprocessError, ValueError):
        return Shown(host, None, asked=asked)
    return Shown(host, found.ends, found.lifetime, asked)


def _der(host: str, port: int) -> bytes:
    """Return the certificate that is shown for ``host``. Raises OSError where there is none."""
    with (
        socket.create_connection(("127.0.0.1", port), SECONDS) as line,
        anybody().wrap_socket(line, server_hostname=host) as secured,
    ):
        return secured.getpeercert(binary_form=True) or b""
