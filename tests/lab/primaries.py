"""A primary that does on purpose what primaries do in bad moments."""

from __future__ import annotations

import contextlib
import socket
import ssl
import threading
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO, Self

from backup_mx.errors import LabError
from backup_mx.lab import host, names, network
from backup_mx.lab.world import World

ADDRESS = "198.51.100.10"
PORT = 2526
_EHLO = "250-mail.example.org|250-PIPELINING|250-SIZE 60000000|250-XFORWARD NAME|250-XCLIENT NAME"


@dataclass(frozen=True)
class Arrived:
    """A message that the primary took: its content with the dots undoubled, and how it came."""

    sender: str
    recipients: tuple[str, ...]
    content: bytes
    tls: bool


class Primary:
    """A server at the lab's drain target, in a thread for each connection.

    refused-at-rcpt@ (or what ``refused`` says) and refused-after-data@ are what they say; later@ is
    put off, and cut-off@ ends the connection after the message. Everybody else's mail is in
    ``messages``, and every command's verb in ``verbs``. While ``going`` is not set, no message's
    end is answered.
    Its certificate, for the host ``name``, is its own authority.
    """

    def __init__(self, world: World, folder: Path, name: str = "mail.example.org") -> None:
        self.messages: list[Arrived] = []
        self.verbs: list[str] = []
        self.offers_tls = True
        self.refused = "refused-at-rcpt@"
        self.going = threading.Event()
        self.going.set()
        self._away = False
        self._namespace = names.scoped(world.name, "net")
        self._tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self.certificate = _certificate(world, folder, name)
        self._tls.load_cert_chain(self.certificate)

    def __enter__(self) -> Self:
        # A lab's wire outlives a test, the address may be there already.
        with contextlib.suppress(LabError):
            added = ["addr", "add", f"{ADDRESS}/32", "dev", "br0"]
            host.call(["ip", "-n", self._namespace, *added])
        with network.inside(self._namespace):
            self._listener = socket.create_server((ADDRESS, PORT))
        threading.Thread(target=self._listen, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        # Wakes the thread that waits for a connection, which close() alone does not.
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()

    def pause(self) -> None:
        """Greet everybody with 421 from now on."""
        self._away = True

    def resume(self) -> None:
        """Greet as usual."""
        self._away = False

    def _listen(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                wire, _ = self._listener.accept()
                threading.Thread(target=self._serve, args=(wire,), daemon=True).start()

    def _serve(self, wire: socket.socket) -> None:
        with contextlib.suppress(OSError), contextlib.closing(_Dialogue(self, wire)) as dialogue:
            if self._away:
                dialogue.reply("421 4.3.2 restoring the mailboxes")
            else:
                dialogue.run()

    def secured(self, wire: socket.socket) -> ssl.SSLSocket:
        """Do the server's part of a TLS handshake."""
        return self._tls.wrap_socket(wire, server_side=True)


@dataclass
class _Dialogue:
    """One connection."""

    primary: Primary
    wire: socket.socket
    tls: bool = False
    sender: str = ""
    recipients: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.stream: BinaryIO = self.wire.makefile("rb")

    def close(self) -> None:
        self.stream.close()
        self.wire.close()

    def reply(self, text: str) -> None:
        self.wire.sendall(b"".join(line.encode() + b"\r\n" for line in text.split("|")))

    def run(self) -> None:
        self.reply("220 mail.example.org ESMTP")
        while line := self.stream.readline():
            verb, _, argument = line.decode("latin-1").strip().partition(" ")
            self.primary.verbs.append(verb.upper())
            if not self.answer(verb.upper(), argument):
                return

    def answer(self, verb: str, argument: str) -> bool:
        """Answer one command; return whether the connection goes on."""
        if verb == "EHLO":
            tls = "|250-STARTTLS" if self.primary.offers_tls and not self.tls else ""
            self.reply(f"{_EHLO}{tls}|250 8BITMIME")
        elif verb == "STARTTLS":
            self.reply("220 go on")
            self.wire, self.tls = self.primary.secured(self.wire), True
            self.stream = self.wire.makefile("rb")
        elif verb == "DATA":
            return self.take()
        else:
            self.reply(self.envelope(verb, argument))
        return verb != "QUIT"

    def envelope(self, verb: str, argument: str) -> str:
        """Note senders and recipients; return the answer."""
        address = argument.partition("<")[2].rpartition(">")[0]
        if verb == "MAIL":
            self.sender, self.recipients = address, []
        elif verb == "RCPT" and address.startswith(self.primary.refused):
            return "550 5.1.1 no such user (the mailboxes are not mounted)"
        elif verb == "RCPT" and address.startswith("later@"):
            return "450 4.2.2 the mailbox is full"
        elif verb == "RCPT":
            self.recipients.append(address)
        return "250 2.0.0 fine"

    def take(self) -> bool:
        """Read a message; return whether the connection goes on."""
        if not self.recipients:
            self.reply("554 5.5.1 no recipients")
            return True
        self.reply("354 go on")
        lines = list(iter(self.stream.readline, b".\r\n"))
        name = self.recipients[0].partition("@")[0]
        if name == "cut-off":
            return False
        if name == "refused-after-data":
            self.reply("554 5.7.1 looks like spam")
            return True
        self.primary.going.wait()
        content = b"".join(line.removeprefix(b".") for line in lines)
        self.primary.messages.append(
            Arrived(self.sender, tuple(self.recipients), content, self.tls)
        )
        self.reply("250 2.0.0 taken")
        return True


def _certificate(world: World, folder: Path, name: str) -> Path:
    """Return a file with a self-signed certificate and its key, made by the lab's openssl."""
    subject = ["-subj", f"/CN={name}", "-days", "2", "-nodes"]
    key = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-keyout", "-"]
    argv = ["openssl", "req", "-x509", *subject, *key]
    path = folder / "primary.pem"
    path.write_bytes(world.machine("internet").run(argv).stdout)
    return path
