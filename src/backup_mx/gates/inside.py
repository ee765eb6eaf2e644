"""What Postfix goes by on a relay at this moment, looked up on the relay itself.

`backup_mx.gates.relay` sends it there and runs it. Standard library only.
"""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

GUARDED = "/run/backup-mx/guarded"
PARAMETERS = (
    "soft_bounce",
    "maximal_queue_lifetime",
    "bounce_queue_lifetime",
    "delay_warning_time",
    "notify_classes",
    "header_checks",
)
_SECONDS = 30.0


def facts(_wanted: None) -> dict[str, Any]:
    """Return what can be seen; what cannot be is empty or None.

    version is that of the bundle that was applied last; main has PARAMETERS; services is what
    master.cf runs, each as ``name/type``, overrides what it changes for them, as
    ``name/type/parameter``; guarded is how many seconds ago the guard ran; guard (its timer), agent
    and postfix are what systemd says of these.
    """
    return {
        "version": version(),
        "main": dict(zip(PARAMETERS, said(["postconf", "-hx", *PARAMETERS]), strict=False)),
        "services": ["/".join(line.split()[:2]) for line in said(["postconf", "-M"])],
        "overrides": dict(
            line.split(" = ", 1) for line in said(["postconf", "-P"]) if " = " in line
        ),
        "guarded": age(Path(GUARDED)),
        "guard": state("backup-mx-guard.timer"),
        "agent": state("backup-mx-agent.service"),
        "postfix": state("postfix.service"),
    }


def said(argv: Sequence[str]) -> list[str]:
    """Return the lines that a program prints, none where it cannot be run."""
    path = {**os.environ, "PATH": f"/usr/sbin:/sbin:{os.environ.get('PATH', '/usr/bin:/bin')}"}
    with contextlib.suppress(OSError, subprocess.SubprocessError):
        done = subprocess.run(argv, env=path, capture_output=True, timeout=_SECONDS, check=False)
        return done.stdout.decode(errors="replace").splitlines()
    return []


def state(unit: str) -> str:
    """Return what systemd says of a unit: active, inactive, failed, …."""
    return "".join(said(["systemctl", "show", "-P", "ActiveState", unit]))


def version() -> str:
    """Return the version of the bundle that was applied last."""
    with contextlib.suppress(OSError, ValueError, KeyError, TypeError):
        return str(json.loads(Path("/var/lib/backup-mx/applied.json").read_text())["version"])
    return ""


def age(path: Path) -> float | None:
    """Return how many seconds ago a file was touched, None where there is none."""
    with contextlib.suppress(OSError):
        return time.time() - path.stat().st_mtime
    return None
