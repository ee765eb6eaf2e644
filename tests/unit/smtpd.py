"""Small SMTP servers for tests, each a script of what it does with a connection."""

from __future__ import annotations

import contextlib
import itertools
import socket
import ssl
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

Script = Callable[["Peer"], None]
PATIENCE = 20.0


class Peer:
    """The server's end of one connection; heard are the lines that came."""

    def __init__(self, line: socket.socket) -> None:
        self.line = line
        self.heard: list[str] = []
        self._input = line.makefile("rb")

    def say(self, words: str) -> None:
        self.line.sendall(words.encode() + b"\r\n")

    def hear(self) -> str:
        """Return the next line. Raises EOFError."""
        line = self._input.readline()
        if not line:
            raise EOFError
        self.heard.append(line.decode("latin-1").rstrip("\r\n"))
        return self.heard[-1]

    def close(self) -> None:
        self._input.close()
        self.line.close()

    def secure(self, certificate: Path) -> None:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(certificate)
        self._input.close()
        self.line = context.wrap_socket(self.line, server_side=True)
        self._input = self.line.makefile("rb")


class Server:
    """A listener on loopback that plays ``script`` for each connection, one at a time."""

    def __init__(self, script: Script) -> None:
        self.script = script
        self.peers: list[Peer] = []
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        self._thread = threading.Thread(target=self._serve, daemon=True)
        self._thread.start()

    @property
    def heard(self) -> list[str]:
        """Every line that came, over all connections."""
        return [line for peer in self.peers for line in peer.heard]

    def _serve(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                line, _ = self._listener.accept()
                line.settimeout(PATIENCE)
                self.peers.append(Peer(line))
                with contextlib.suppress(OSError, EOFError, ValueError):
                    self.script(self.peers[-1])
                self.peers[-1].close()

    def stop(self) -> None:
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self._thread.join(PATIENCE)


@contextlib.contextmanager
def serving(script: Script) -> Iterator[Server]:
    server = Server(script)
    try:
        yield server
    finally:
        server.stop()


def plain(**answers: str) -> Script:
    """Return a server that answers 250 to everything, but what ``answers`` names by its verb.

    Further names: greeting, ehlo (keywords, separated by spaces; "" answers 502 to EHLO), end
    (the answer to a message).
    """
    return _script(answers, None)


def secured(certificate: Path, **answers: str) -> Script:
    """Return such a server with STARTTLS and this certificate."""
    return _script(answers, certificate)


def _script(answers: dict[str, str], certificate: Path | None) -> Script:
    def script(peer: Peer) -> None:
        peer.say(answers.get("greeting", "220 here"))
        offer = answers.get("ehlo", "PIPELINING STARTTLS" if certificate else "PIPELINING")
        while True:
            verb = peer.hear().split(" ")[0].split(":")[0].lower()
            if verb == "ehlo":
                words = ["here", *offer.split()]
                for word in words[:-1]:
                    peer.say(f"250-{word}")
                peer.say(f"250 {words[-1]}" if offer else "502 no EHLO")
            elif verb == "starttls" and certificate and "starttls" not in answers:
                peer.say("220 go on")
                peer.secure(certificate)
            elif verb == "data" and "data" not in answers:
                peer.say("354 go on")
                while peer.hear() != ".":
                    pass
                peer.say(answers.get("end", "250 taken"))
            else:
                peer.say(answers.get(verb, "250 fine"))
            if verb == "quit":
                return

    return script


def more_lines(peer: Peer) -> None:
    """Greet with lines without end."""
    while True:
        peer.say("220-more")


def long_line(peer: Peer) -> None:
    """Greet with a line without end."""
    while True:
        peer.line.sendall(b"220-" + b"x" * 1000)


def dripping(peer: Peer) -> None:
    """Greet with an octet now and then, and no end."""
    while True:
        peer.line.sendall(b"2")
        time.sleep(0.05)


def endless(words: str = "220-here", pause: float = 0.0) -> Script:
    """Return a server whose greeting has no end; pause is in seconds, between two of its letters.

    Without one, it says all that is taken.
    """

    def script(peer: Peer) -> None:
        while not pause:
            peer.line.sendall(f"{words}\r\n".encode() * 1000)
        for letter in itertools.cycle(words):
            peer.line.sendall(letter.encode())
            with contextlib.suppress(TimeoutError):
                peer.line.settimeout(pause)
                if not peer.line.recv(1):
                    return

    return script


def certificate(folder: Path, name: str) -> Path:
    """Make a key and a self-signed certificate for ``name``; return the file that holds both."""
    key, made = folder / "key.pem", folder / f"{name}.pem"
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256",
         "-noenc", "-days", "2", "-subj", f"/CN={name}", "-addext", f"subjectAltName=DNS:{name}",
         "-keyout", str(key), "-out", str(made)],
        check=True, capture_output=True,
    )  # fmt: skip
    made.write_bytes(made.read_bytes() + key.read_bytes())
    return made
