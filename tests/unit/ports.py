"""Ports of this host that nothing but the test has, for as long as it needs them."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager


@contextmanager
def closed() -> Iterator[int]:
    """Give a port that refuses: it is taken, so that nobody else comes to listen there."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        yield taken.getsockname()[1]


@contextmanager
def both() -> Iterator[tuple[socket.socket, socket.socket]]:
    """Give a listener and a socket for datagrams at one port, as a server of DNS has them."""
    with ExitStack() as refused:
        while True:
            stream = socket.create_server(("127.0.0.1", 0))
            datagrams = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
            try:
                datagrams.bind(stream.getsockname())
            except OSError:  # another has the one with this number
                datagrams.close()
                refused.enter_context(stream)  # kept, so that the next is another
            else:
                break
    with stream, datagrams:
        yield stream, datagrams
