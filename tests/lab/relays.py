"""Relays booted from real user-data, one of each Postfix, and what talks to them on the wire."""

from __future__ import annotations

import contextlib
import socket
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Self

import pytest
from worlds import fresh_name, standing

from backup_mx.lab import host, image, names, network, settings
from backup_mx.lab.machine import Machine
from backup_mx.lab.world import World
from backup_mx.relay.queue import postfix

ADDRESS = "203.0.113.20"
IMAGES = {"3.7": image.PLAIN_BOOKWORM, "3.10": image.WORLD}
"""Postfix's release to the image that brings it: Debian 12's and Debian 13's."""
RELEASES = [pytest.param("3.7", marks=pytest.mark.long), "3.10"]
"""Both, the older one in `make long`: for what other tests touch on both at every change."""
SPOOL = "/srv/backup-mx/spool"
MAILLOG = "/srv/backup-mx/log/maillog"
CONFIG = Path(__file__).parents[1] / "data" / "lab" / "relay.toml"
_PATIENCE = 20.0  # seconds: postscreen lets a new client wait for six


@dataclass(frozen=True)
class Reply:
    """One answer of a server: its code, and its lines without the code."""

    code: int
    lines: tuple[str, ...]

    def __str__(self) -> str:
        """Return the last line as it came."""
        return f"{self.code} {self.lines[-1]}"


class Session:
    """A client that says what it is told to, byte for byte."""

    def __init__(self, wire: socket.socket) -> None:
        self.wire = wire
        self._answers = wire.makefile("rb")

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._answers.close()
        self.wire.close()

    def hear(self) -> Reply:
        """Read one reply (RFC 5321 section 4.2.1). Raises EOFError when the server hung up."""
        lines: list[str] = []
        while True:
            line = self._answers.readline().decode(errors="replace")
            if not line:
                raise EOFError("the server hung up")
            lines.append(line[4:].rstrip("\r\n"))
            if line[3:4] != "-":
                return Reply(int(line[:3]), tuple(lines))

    def say(self, words: bytes) -> Reply:
        """Send a line, or lines that end in their own CRLF, and return the answer."""
        self.wire.sendall(words if words.endswith(b"\r\n") else words + b"\r\n")
        return self.hear()

    def greeted(self) -> Self:
        """Wait for the greeting and say EHLO."""
        self.hear()
        self.say(b"EHLO client.example.net")
        return self

    def envelope(self, sender: bytes, *recipients: bytes) -> list[Reply]:
        """Say MAIL and each RCPT; the addresses come without their angle brackets."""
        asked = [b"MAIL FROM:<%b>" % sender, *(b"RCPT TO:<%b>" % each for each in recipients)]
        return [self.say(line) for line in asked]

    def content(self, message: bytes) -> Reply:
        """Say DATA and a message that ends in CRLF; return the answer to its end."""
        assert self.say(b"DATA").code == 354
        stuffed = message.replace(b"\r\n.", b"\r\n..")
        return self.say(b"." * message.startswith(b".") + stuffed + b".\r\n")


@dataclass(frozen=True)
class Relay:
    """mx2 in a lab of its own, without a primary."""

    world: World

    @property
    def machine(self) -> Machine:
        """The machine itself."""
        return self.world.machine("mx2")

    def client(self, source: str | None = None) -> Session:
        """Connect from a client that postscreen knows, or from an address of ``internet``."""
        part, bound = ("internet", (source, 0)) if source else ("net", None)
        with network.inside(names.scoped(self.world.name, part)):
            target = (ADDRESS, 25)
            return Session(socket.create_connection(target, _PATIENCE, source_address=bound))

    def submit(self, recipient: bytes, message: bytes, sender: bytes = b"a@example.net") -> str:
        """Have a message accepted; return its queue ID."""
        with self.client() as client:
            replies = client.greeted().envelope(sender, recipient)
            assert [reply.code for reply in replies] == [250, 250], replies
            answer = client.content(message)
        assert answer.code == 250
        return answer.lines[-1].rpartition(" ")[2]

    def kept(
        self, recipient: bytes, message: bytes = b"Subject: x\r\n", sender: bytes = b"a@example.net"
    ) -> str:
        """Have a message accepted that nobody takes, and tried once; return its queue ID.

        Before that it may be being delivered, and then it cannot be put on hold.
        """
        queue_id = self.submit(recipient, message, sender)
        wait_for("it to be deferred", lambda: self.queued(queue_id).queue == "deferred", 60)
        return queue_id

    def queue(self) -> list[postfix.Message]:
        """Return what is in its queue."""
        return postfix.messages(self.shell(*postfix.LIST).splitlines())

    def queued(self, queue_id: str = "") -> postfix.Message:
        """Return the message of that queue ID, or the only one there is.

        A listing misses what moves meanwhile: it is asked for again. Raises LabError in the end.
        """
        found: list[postfix.Message] = []

        def listed() -> bool:
            found[:] = [each for each in self.queue() if queue_id in ("", each.id)]
            return len(found) == 1

        wait_for(f"{queue_id or 'one message'} to be in the queue", listed)
        return found[0]

    def shell(self, *argv: str) -> str:
        """Run a command on it and return what it printed."""
        return self.machine.run(list(argv)).text

    def setting(self, *parameters: str) -> list[str]:
        """Return what Postfix takes parameters for."""
        return self.shell("postconf", "-hx", *parameters).splitlines()

    def log(self) -> str:
        """Return its mail log."""
        return (self.machine.root / MAILLOG.lstrip("/")).read_text(errors="replace")

    def empty(self) -> None:
        """Delete all that is in its queue."""
        self.machine.run(["postsuper", "-d", "ALL"])

    def stop(self) -> None:
        """Stop Postfix; Debian 12's unit says that it has before it has."""
        self.shell("systemctl", "stop", "postfix")
        status = ["postfix", "status"]
        wait_for("Postfix to stop", lambda: self.machine.run(status, check=False).returncode != 0)

    def start(self) -> None:
        """Start Postfix and wait until it listens."""
        self.shell("systemctl", "start", "postfix")
        self.machine.listening(25)

    @contextlib.contextmanager
    def altered(self, **parameters: str) -> Iterator[None]:
        """Run it for a while with other values of some of main.cf's parameters."""
        kept = (self.machine.root / "etc/postfix/main.cf").read_bytes()
        self.shell("postconf", "-e", *(f"{name}={value}" for name, value in parameters.items()))
        self.shell("postfix", "reload")
        try:
            yield
        finally:
            self.machine.run(["tee", "/etc/postfix/main.cf"], stdin=kept)
            self.shell("postfix", "reload")


@contextlib.contextmanager
def booted(
    release: str, *, agent: bool = False, options: str = "", name: str = ""
) -> Iterator[Relay]:
    """Boot the relay with that Postfix; end its lab after the block.

    options is text that is added to its config; name the lab's, a random one by default.
    """
    world = World(
        name or fresh_name(),
        config=settings.with_options(CONFIG.read_text(), options),
        agent=agent,
        members=("internet", "mx2"),
        relay_image=IMAGES[release],
    )
    with standing(world):
        relay = Relay(world)
        relay.machine.listening(25)
        with relay.client() as client:
            client.greeted()  # from now on postscreen knows this address
        yield relay


def wait_for(what: str, ready: host.Check, timeout: float = 60.0) -> None:
    """Wait until ``ready`` says so, at most ``timeout`` seconds. Raises LabError."""
    host.wait_for(what, ready, timeout=timeout)
