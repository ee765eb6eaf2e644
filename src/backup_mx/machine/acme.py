"""What a relay needs to ask a certificate authority; part of the agent's layer."""

from __future__ import annotations

import ssl
from urllib.parse import urlsplit

from backup_mx.config import Config
from backup_mx.config.options import Tls
from backup_mx.errors import MachineError
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
    place = config.folder / config.tls.acme_ca
    try:
        text = place.read_text(encoding="ascii").strip()
        if "PRIVATE KEY" in text:
            raise MachineError(f"{place} holds a private key: only its certificate goes here")
        ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT).load_verify_locations(cadata=text)
    except OSError as error:  # ssl.SSLError is one, too
        why = "is no PEM certificate" if isinstance(error, ssl.SSLError) else error.strerror
        raise MachineError(f"{place} cannot be used: {why}") from None
    except ValueError:
        raise MachineError(f"{place} cannot be used: is no PEM certificate") from None
    return text
