"""A config with a round trip, whose messages come to a mailbox that tests have made."""

from __future__ import annotations

from pathlib import Path

from backup_mx import config
from backup_mx.config import Config

_CONFIG = """
[relay.mx2]
hostname = "mx2.example.org"
address = "203.0.113.20"
[primary.home]
hostname = "mail.example.org"
[domain."example.org"]
primary = "home"
[roundtrip]
submit = "smtp.example.net:587"
submit_user = "prober"
submit_password = {{ file = "password" }}
sender = "prober@example.net"
recipient = "probe@example.org"
imap = "localhost:{port}"
imap_user = "probe"
imap_password = {{ file = "password" }}
ca = "{ca}"
"""


def configured(folder: Path, port: int, ca: Path, more: str = "") -> Config:
    """Write backup-mx.toml and its password to a folder; return what it says.

    port is the mailbox's, on this host; ca vouches for it; more goes on with [roundtrip].
    """
    password = folder / "password"
    password.write_text("sesame\n")
    password.chmod(0o600)
    file = folder / "backup-mx.toml"
    file.write_text(_CONFIG.format(port=port, ca=ca) + more)
    return config.load(file)
