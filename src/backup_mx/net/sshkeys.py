"""A relay's SSH as it is seen from elsewhere: the keys it shows, by OpenSSH's own ssh-keyscan(1).

It runs wherever one looks from, with whatever Python of 3.9 or newer is there: the gate access has
it sent there (`backup_mx.machine.sent`). Nobody logs in.
"""

from __future__ import annotations

import subprocess
from typing import Any

SECONDS = 60.0
Fact = dict[str, Any]
"""``printed``, what ssh-keyscan did, or the ``error`` that came instead."""


def facts(wanted: Fact) -> Fact:
    """Ask the SSH of ``host`` at ``port`` for its keys; none is what is printed where it is off."""
    argv = ["ssh-keyscan", "-T", "10", "-p", str(wanted["port"]), "--", wanted["host"]]
    try:
        done = subprocess.run(argv, capture_output=True, timeout=SECONDS, check=False)
    except (OSError, subprocess.TimeoutExpired) as error:
        return {"error": getattr(error, "strerror", "") or f"no end within {SECONDS:.0f} s"}
    return {"printed": done.stdout.decode(errors="replace")}
