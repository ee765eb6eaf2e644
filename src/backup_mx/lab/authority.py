"""The lab's ACME server, pebble on ``internet``, and what a stranger is shown by the relay.

It runs for those who start it. It forgets all it knew when it stops, its own key included.
"""

from __future__ import annotations

import contextlib
import http.client
import json
import smtplib
import ssl
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from backup_mx.lab import names, network
from backup_mx.lab.layout import AUTHORITY
from backup_mx.lab.world import World
from backup_mx.lab.zone import Zone

OPTIONS = f"""[tls]
acme = true
acme_directory = "https://{AUTHORITY}:14000/dir"
acme_ca = "acme.pem"
"""
"""What a config says that has a relay ask it."""

UNIT = "lab-acme.service"
ADDRESS = "192.0.2.82"
CONFIG = "/etc/pebble/pebble.json"
_PATIENCE = 30.0  # seconds: postscreen lets a stranger wait for six


@dataclass(frozen=True)
class Shown:
    """The certificate that a server shows (DER), and why it is not to be trusted, "" if it is."""

    der: bytes
    trouble: str
    fields: Mapping[str, Any]

    @property
    def ends(self) -> float:
        """Until when it holds, in seconds since 1970; only of one that is to be trusted."""
        return float(ssl.cert_time_to_seconds(self.fields["notAfter"]))


@dataclass(frozen=True)
class Authority:
    """The authority of a lab that is up."""

    world: World

    def start(self, lifetime: int = 90 * 86_400) -> None:
        """Start it anew; its certificates hold for so many seconds. Raises LabError."""
        internet = self.world.machine("internet")
        told = json.loads(internet.path(CONFIG).read_text())
        told["pebble"]["certificateValidityPeriod"] = lifetime
        internet.path(CONFIG).write_text(json.dumps(told))
        internet.run(["systemctl", "restart", UNIT])
        internet.listening(14000, 15000)

    def stop(self) -> None:
        """Let nobody listen there any more."""
        self.world.machine("internet").run(["systemctl", "stop", UNIT])

    def freeze(self) -> None:
        """Let it take connections, and never answer."""
        self._signal("STOP")

    def thaw(self) -> None:
        """Let it go on as if nothing had been."""
        self._signal("CONT")

    def _signal(self, name: str) -> None:
        self.world.machine("internet").run(["systemctl", "kill", f"--signal={name}", UNIT])

    def root(self) -> str:
        """Return its root certificate as PEM. Raises OSError where it does not run."""
        known = self.world.machine("internet").path("/etc/pebble/own.crt").read_text()
        trust = ssl.create_default_context(cadata=known)
        wire = network.connect(self.world.name, ADDRESS, 15000)
        with contextlib.closing(http.client.HTTPSConnection(AUTHORITY, context=trust)) as asked:
            asked.sock = trust.wrap_socket(wire, server_hostname=AUTHORITY)
            asked.request("GET", "/roots/0")
            return asked.getresponse().read().decode()

    def shown(self, root: str) -> Shown:
        """Return what the relay shows to a sender who trusts ``root`` (PEM) alone."""
        try:
            return self._handshake(ssl.create_default_context(cadata=root), "")
        except ssl.SSLCertVerificationError as error:
            anybody = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
            anybody.check_hostname, anybody.verify_mode = False, ssl.CERT_NONE
            return self._handshake(anybody, error.verify_message)

    def session(self) -> smtplib.SMTP:
        """Return a session with the relay, greeted. Raises OSError."""
        relay = self.world.machine("mx2").role
        with network.inside(names.scoped(self.world.name, "net")):
            client = smtplib.SMTP(relay.addresses[0], 25, "client.example.net", _PATIENCE)
        # What the name in a certificate is held against.
        client._host = relay.hostname  # type: ignore[attr-defined]
        client.ehlo()
        return client

    def _handshake(self, context: ssl.SSLContext, trouble: str) -> Shown:
        with self.session() as client:
            client.starttls(context=context)
            wire = client.sock
            assert isinstance(wire, ssl.SSLSocket)  # noqa: S101  it is, after starttls
            der = wire.getpeercert(binary_form=True) or b""
            return Shown(der, trouble, wire.getpeercert() or {})

    def hide(self, name: str = "mx2") -> None:
        """Take a name's address out of the zone example.org."""
        Zone(self.world).set(name, "A")

    def unhide(self, name: str = "mx2") -> None:
        """Put it back."""
        Zone(self.world).set(name, "A", self.world.machine(name).role.addresses[0])
