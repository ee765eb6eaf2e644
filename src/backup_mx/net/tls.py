"""TLS with a server whose certificate is looked at, not trusted."""

from __future__ import annotations

import ssl


def anybody() -> ssl.SSLContext:
    """Return TLS that takes every certificate."""
    found = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    found.check_hostname = False
    found.verify_mode = ssl.CERT_NONE
    return found
