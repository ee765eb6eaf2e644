"""A primary's kit in the lab: put on the primary, whole or without one layer; and mail for it."""

from __future__ import annotations

import re
import smtplib
import uuid
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from email import message_from_bytes
from email.message import Message
from typing import Any

import pytest

from backup_mx.kit.files import KitFile
from backup_mx.lab import host, network
from backup_mx.lab.layout import PRIMARY
from backup_mx.lab.machine import Done
from backup_mx.lab.world import World

KIT = "/root/kit"
INNER = "10.0.20.2"
SENDER = "192.0.2.25"
PUBLIC = "203.0.113.20"
CONFIG = f"""
[relay.mx2]
hostname = "mx2.example.org"
address = "{PUBLIC}"
wireguard_address = "{INNER}"
wireguard_key = {{ file = "mx2.key" }}
[primary.home]
hostname = "mail.example.org"
drain_to = "10.0.20.1:2526"
wireguard_endpoint = "vpn.example.org:51820"
wireguard_public_key = "xTIBA5rboUvnH4htodjb6e697QjLERt1NAB4mZqp8Dg="
[domain."example.org"]
"""
"""A relay in a tunnel: an address without a name, in a network that rspamd takes for its own."""
_MAIL = "/srv/mail/example.org/alice/Maildir"
_DELIVERY_SECONDS = 20.0


def mostly_long(layers: Iterable[str]) -> list[Any]:
    """Return all layers as parameters of a test; all but one of Postfix and one of rspamd long."""
    return [
        layer if layer in ("client-restrictions", "external-relay")
        else pytest.param(layer, marks=pytest.mark.long)
        for layer in layers
    ]  # fmt: skip


def without(files: Iterable[KitFile], layer: str) -> tuple[KitFile, ...]:
    """Return a kit without what stands in its files under ``layer: LAYER``."""
    block = re.compile(
        rb"^[ \t]*(?:#|--) layer: " + layer.encode() + rb"\n.*?^[ \t]*(?:#|--) end of layer\n",
        re.DOTALL | re.MULTILINE,
    )
    return tuple(replace(file, content=block.sub(b"", file.content)) for file in files)


def put(world: World, files: Iterable[KitFile]) -> None:
    """Put a rendered kit on the primary in the place of the one there."""
    primary = world.machine("primary")
    primary.run(["rm", "-rf", KIT])
    for file in files:
        target = primary.path(f"{KIT}/{file.path}")
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(file.content)


def run(world: World, verb: str, *, check: bool = True) -> Done:
    """Run the kit's program on the primary."""
    return world.machine("primary").run(["sh", f"{KIT}/backup-mx-kit", verb], check=check)


@dataclass(frozen=True)
class Letter:
    """A message as a relay hands it over; origin is who sent it there, name its reverse name."""

    sender: str = "bob@example.net"
    origin: str = SENDER
    name: str = "mta.example.net"
    helo: str = "mta.example.net"
    header: str = ""
    text: str = "Hello there, this is a letter.\n"
    received: bool = True
    id: str = field(default_factory=lambda: uuid.uuid4().hex)

    @property
    def content(self) -> bytes:
        """The message: a relay's trace, a header, a text."""
        trace = (
            f"Received: from {self.helo} ({self.name} [{self.origin}])\n"
            "\tby mx2.example.org (Postfix) with ESMTP id 4dHf2w0Vz3z1r\n"
            "\tfor <alice@example.org>; Sun, 22 Nov 2026 04:00:00 +0000 (UTC)\n"
        )
        local = "Received: by mx2.example.org (Postfix, from userid 0)\n\tid 4dHf2w0Vz3z1r\n"
        head = (
            f"From: Bob <{self.sender or 'mailer-daemon@example.net'}>\nTo: <alice@example.org>\n"
            f"Subject: a letter\nDate: Sun, 22 Nov 2026 04:00:00 +0000\n"
            f"Message-ID: <{self.id}@example.net>\n{self.header}\n"
        )
        return ((trace if self.received else local) + head + self.text).encode()


def client(world: World, address: str = INNER, helo: str = "mx2.example.org") -> smtplib.SMTP:
    """Return an SMTP session with the primary's port 25, which takes us for ``address``.

    The lab's LAN is where PROXY comes from: the address is what the PROXY header says
    (https://www.haproxy.org/download/3.0/doc/proxy-protocol.txt, section 2.1).
    """
    wire = network.connect(world.name, PRIMARY, 25, timeout=30.0)
    wire.sendall(f"PROXY TCP4 {address} {PRIMARY} 40000 25\r\n".encode())
    session = smtplib.SMTP()
    session.sock, session.file = wire, None
    code, words = session.getreply()
    if code != 220:
        raise smtplib.SMTPConnectError(code, words)
    session.ehlo(helo)
    return session


def drain(world: World, letter: Letter) -> str:
    """Hand a letter over as the relay does; return the answer to it, refusals included."""
    session = client(world)
    try:
        session.sendmail(letter.sender, ["alice@example.org"], letter.content)
    except smtplib.SMTPResponseException as error:
        return f"{error.smtp_code} {error.smtp_error!r}"
    except smtplib.SMTPRecipientsRefused as error:
        return "{} {!r}".format(*error.recipients["alice@example.org"])
    finally:
        session.close()
    return "250"


@dataclass(frozen=True)
class Filed:
    """A message in alice's mailbox: the folder it was filed in, and its header."""

    folder: str
    header: Message

    @property
    def action(self) -> str:
        """What rspamd did with it."""
        return str(self.header["X-Rspamd-Action"])

    @property
    def symbols(self) -> str:
        """What rspamd saw in it."""
        return " ".join(str(self.header["X-Spamd-Result"]).split())


def filed(world: World, letter: Letter) -> Filed:
    """Wait for a letter in alice's mailbox. Raises LabError when it does not come."""
    mailbox = world.machine("primary").path(_MAIL)
    found: list[Filed] = []

    def there() -> bool:
        for folder, path in (("INBOX", mailbox), ("Junk", mailbox / ".Junk")):
            for file in [*path.glob("new/*"), *path.glob("cur/*")]:
                header = message_from_bytes(file.read_bytes())
                if header["Message-ID"] == f"<{letter.id}@example.net>":
                    found.append(Filed(folder, header))
        return bool(found)

    host.wait_for(f"the letter {letter.id}", there, timeout=_DELIVERY_SECONDS)
    return found[0]
