"""The service manager's side of a daemon: sd_notify(3), by the standard library alone."""

from __future__ import annotations

import os
import socket
from contextlib import suppress

READY, STOPPING, WATCHDOG = "READY=1", "STOPPING=1", "WATCHDOG=1"
_STATUS_LENGTH = 200


def notify(*words: str) -> bool:
    """Tell systemd; return whether there was one to tell (NOTIFY_SOCKET). Never raises."""
    where = os.environ.get("NOTIFY_SOCKET", "")
    if not where:
        return False
    address = "\0" + where[1:] if where.startswith("@") else where
    with suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as line:
        line.setblocking(False)
        line.sendto("\n".join(words).encode(), address)
        return True
    return False


def status(text: str) -> str:
    """Return the word by which ``systemctl status`` shows a line of text."""
    return f"STATUS={' '.join(text.split())[:_STATUS_LENGTH]}"
