"""The certificate an SMTP server shows after STARTTLS: what senders see, not what is on disk.

It can be sent to a relay (`backup_mx.machine.sent`), of whose Python, 3.11 or newer, it needs no
more than the standard library.
"""

from __future__ import annotations

import base64
import socket
from typing import Any

from backup_mx.net.tls import anybody
from backup_mx.net.wire import Broken, Clock, Wire

SECONDS = 30.0  # postscreen lets a stranger wait for 6


def facts(wanted: dict[str, Any]) -> dict[str, str]:
    """Look from where this is sent to: ``der`` is the certificate in base64, "" for none.

    wanted has what ``shown`` takes, by name.
    """
    return {"der": base64.b64encode(shown(**wanted) or b"").decode()}


def shown(host: str, port: int, ehlo: str, seconds: float = SECONDS) -> bytes | None:
    """Return the certificate in DER, None where there is none to be had within ``seconds``."""
    clock = Clock(seconds)
    try:
        with Wire(socket.create_connection((host, port), clock.left())) as wire:
            if wire.hear(clock).code != 220:
                return None
            wire.say(f"EHLO {ehlo}", clock)
            wire.hear(clock)
            wire.say("STARTTLS", clock)
            if wire.hear(clock).code != 220:
                return None
            wire.secure(anybody(), None, clock.left())
            return wire.certificate
    except (OSError, Broken):
        return None
