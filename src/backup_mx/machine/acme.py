"""What a relay needs to ask a certificate authority; part of the agent's layer."""

from __future__ import annotations

from urllib.parse import urlsplit

from backup_mx.config import Config
from backup_mx.config.files import certificates
from backup_mx.config.options import Tls
from backup_mx.machine.apply.files import Service

# The timer, and not what it starts: no deploy waits for an authority.
SERVICES = (
    Service(
        "backup-mx-acme.timer",
        ("/etc/systemd/system/backup-mx-acme", "/etc/backup-mx/certbot.ini"),
    ),
)


def authority(tls: Tls) -> str:
    """Return what the authority is called that is asked: its directory's host."""
    return urlsplit(tls.acme_directory).hostname or ""


def own_authority(config: Config) -> str:
    """Return the certificates by which the ACME server is known, "" where everybody knows them.

    Raises MachineError where the file cannot be read or is not such.
    """
    if not (config.tls.acme and config.tls.acme_ca):
        return ""
    return certificates(config.folder / config.tls.acme_ca)
