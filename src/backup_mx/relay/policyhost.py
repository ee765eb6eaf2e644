"""The web server that senders fetch MTA-STS policies from, and nothing else.

It runs by itself: mail and the agent know nothing of it. It is as small as what it serves, one file
a domain, each with a certificate of its own; another certificate has it started anew. As many as
there are threads are answered at a time, and the rest wait in the kernel's queue: what strangers
can take of the machine is known beforehand. Few of these places are for one network, and none for
long, so that no stranger takes them all.
"""

from __future__ import annotations

import contextlib
import os
import socket
import ssl
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from threading import Lock, Thread

from backup_mx.errors import MachineError
from backup_mx.relay.policies import FOLDER, reply
from backup_mx.relay.web import serving

PORT = 443
THREADS = 32
"""How many are answered at a time, by IPv4 and again by IPv6."""
EACH = 4
"""How many of these may be of one network."""
HANDSHAKE = 2.0
"""What a client has, in seconds, until the handshake is done."""
SECONDS = 5.0
"""What it has in all, until it has asked."""
MOST = 8192  # bytes of a request's head
_PARTING = 1.0  # seconds to say goodbye
_EVERYWHERE = ("0.0.0.0/0", "::/0")
_END = b"\r\n\r\n"


def contexts(pairs: Mapping[str, Path]) -> dict[str, ssl.SSLContext]:
    """Return what each host shows; one whose pair is of no use is left out, and that is said."""
    found: dict[str, ssl.SSLContext] = {}
    for host, pair in pairs.items():
        made = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        try:
            made.load_cert_chain(pair)
        except OSError as error:  # ssl.SSLError is one, too
            _say(f"no certificate for {host}: {error.strerror or error}")
            continue
        made.sni_callback = partial(_choose, found)
        found[host] = made
    return found


def _choose(
    by_host: Mapping[str, ssl.SSLContext],
    wire: ssl.SSLSocket | ssl.SSLObject,
    name: str | None,
    _: ssl.SSLContext,
) -> int | None:
    """Show who asks for a host that host's certificate; who names none gets the first."""
    if name is None:
        return None
    if name.lower() not in by_host:
        return ssl.ALERT_DESCRIPTION_UNRECOGNIZED_NAME
    wire.context = by_host[name.lower()]
    return None


def unheard(trouble: sys.UnraisableHookArgs) -> None:
    """Pass over a name in the handshake that is no text, which ssl would have Python tell.

    What else cannot be raised is told. As ``sys.unraisablehook``: strangers don't write a log.
    """
    if not isinstance(trouble.exc_value, UnicodeDecodeError):
        sys.__unraisablehook__(trouble)


def serve(
    policies: Mapping[str, bytes],
    by_host: Mapping[str, ssl.SSLContext],
    listeners: Sequence[socket.socket],
) -> list[Thread]:
    """Answer whoever asks, until the process ends or a listener is closed."""
    talk = partial(_talk, policies, next(iter(by_host.values())))
    places = _Places()
    threads = [
        Thread(target=_work, args=(listener, places, talk), daemon=True)
        for listener in listeners
        for _ in range(THREADS)
    ]
    for each in threads:
        each.start()
    return threads


class _Places:
    """The networks of those who are being answered, each as often: as many as threads at most."""

    def __init__(self) -> None:
        self._taken: list[bytes] = []
        self._lock = Lock()

    @contextlib.contextmanager
    def one(self, place: bytes) -> Iterator[None]:
        """Hold one for a network. Raises ConnectionAbortedError where it has EACH already."""
        with self._lock:
            if self._taken.count(place) >= EACH:
                raise ConnectionAbortedError("enough of this network")
            self._taken.append(place)
        try:
            yield
        finally:
            with self._lock:
                self._taken.remove(place)


def network(host: str) -> bytes:
    """Return what one client surely has to itself: an address of IPv4, a /64 of IPv6."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    return socket.inet_pton(family, host)[:8]


def _work(listener: socket.socket, places: _Places, talk: Callable[[socket.socket], None]) -> None:
    while listener.fileno() != -1:
        # Also where a client was gone before it was taken: accept(2).
        with contextlib.suppress(OSError):
            wire, address = listener.accept()
            with wire, places.one(network(address[0])):
                talk(wire)


def _talk(policies: Mapping[str, bytes], context: ssl.SSLContext, wire: socket.socket) -> None:
    """Answer one request. Raises OSError where it does not come in time, or is none."""
    until = time.monotonic() + SECONDS
    wire.settimeout(HANDSHAKE)
    with context.wrap_socket(wire, server_side=True) as secured:
        secured.sendall(reply(_head(secured, until), policies))
        secured.settimeout(_PARTING)
        secured.unwrap()


def _head(wire: socket.socket, until: float) -> bytes:
    """Return what is asked, up to the empty line. Raises OSError where there is none."""
    head = b""
    while _END not in head:
        wire.settimeout(max(until - time.monotonic(), 0.001))
        more = wire.recv(MOST)
        head += more
        if not more or len(head) > MOST:
            raise ConnectionError("no request")
    return head.partition(_END)[0]


def _say(line: str) -> None:
    sys.stderr.write(f"{line}\n")


def _serve_for_ever(credentials: Path) -> None:
    policies = {each.name: each.read_bytes() for each in sorted(FOLDER.iterdir())}
    # systemd calls the files of a folder so: systemd.exec(5), LoadCredential=
    pairs = {host: credentials / f"pair_{host}" for host in policies}
    by_host = contexts({host: pair for host, pair in pairs.items() if pair.exists()})
    if not by_host:
        raise MachineError("there is no certificate yet")
    listeners = serving.listeners(_EVERYWHERE, PORT)
    for each in listeners:
        each.setblocking(True)
    for thread in serve(policies, by_host, listeners):
        thread.join()


def main() -> None:
    """Serve until the unit is stopped; end with a message where that cannot be."""
    sys.unraisablehook = unheard
    try:
        _serve_for_ever(Path(os.environ["CREDENTIALS_DIRECTORY"]))
    except (MachineError, OSError) as error:
        raise SystemExit(str(error)) from None


if __name__ == "__main__":
    main()
