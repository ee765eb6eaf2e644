"""The machine the agent runs on: disk, certificate, version, Postfix's limits. Standard library."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from backup_mx.net import certificate
from backup_mx.relay.certificate import Certificate, Run, read
from backup_mx.relay.queue import postfix
from backup_mx.relay.root.protocol import DRIFT
from backup_mx.relay.settings import Target

APPLIED = Path("/var/lib/backup-mx/applied.json")
HANDSHAKES = Path("/run/backup-mx/handshakes")
"""What backup-mx-tunnel.service leaves of ``wg show backup-mx latest-handshakes``."""
_SECONDS = 20.0
_ASKED = (
    "maximal_queue_lifetime",
    "bounce_queue_lifetime",
    "message_size_limit",
    "queue_minfree",
)


@dataclass(frozen=True)
class Limits:
    """Postfix's own: after how many seconds mail expires, below how many free bytes it takes none.

    minfree is what smtpd checks: queue_minfree, or 1.5 times message_size_limit where that is more.
    """

    lifetime: float
    minfree: int


def run(argv: tuple[str, ...], stdin: bytes = b"") -> str:
    """Run a program and return what it printed. Raises OSError, subprocess.SubprocessError."""
    done = subprocess.run(argv, input=stdin, capture_output=True, timeout=_SECONDS, check=True)
    return done.stdout.decode("utf-8", "replace")


def limits(run: Run = run) -> Limits:
    """Return Postfix's limits as main.cf has them. Raises OSError, ValueError, SubprocessError."""
    said = run(("postconf", "-h", *_ASKED), b"").split()
    lifetimes, (size, free) = said[:2], map(int, said[2:4])
    # smtpd_check.c, check_size: 1.5 times the largest message must fit.
    return Limits(min(map(postfix.seconds, lifetimes)), max(free, size * 3 // 2))


def shown(hostname: str, run: Run = run) -> Certificate | None:
    """Return the certificate that the intake shows, None where it shows none."""
    der = certificate.shown("127.0.0.1", 25, hostname)
    if der is None:
        return None
    try:
        return read(der, run, "DER")
    except (OSError, subprocess.SubprocessError, ValueError):
        return None


def version(path: Path = APPLIED) -> str:
    """Return the content hash of the bundle that was applied, "" where none is recorded."""
    try:
        return str(json.loads(path.read_bytes())["version"])
    except (OSError, KeyError, TypeError, ValueError):
        return ""


def handshakes(targets: Iterable[Target], path: Path = HANDSHAKES) -> dict[str, float]:
    """Return when the tunnel to each primary that has one last lived, 0 if never; wg(8)."""
    peers = {each.name: each.tunnel for each in targets if each.tunnel}
    try:
        said = dict(line.split("\t") for line in path.read_text().splitlines()) if peers else {}
        return {name: float(int(said.get(peer, "0"))) for name, peer in peers.items()}
    except (OSError, ValueError):
        return dict.fromkeys(peers, 0.0)


def drifted(path: Path = DRIFT) -> bool:
    """Tell whether the guard saw that a file is not as it was applied."""
    try:
        return path.stat().st_size > 0
    except OSError:
        return False
