"""What is said of a fetch that failed: short, printable, and without secrets."""

from __future__ import annotations

import contextlib
import socket
import threading
from collections.abc import Iterator

import pytest

from backup_mx.net import fetch
from backup_mx.net.fetch import FetchError

LONG = b"\x1b]0;x\x07\xe9" * 6000


@contextlib.contextmanager
def saying(answer: bytes) -> Iterator[str]:
    """Answer every connection with these bytes; yield a URL with a secret in its query."""
    listener = socket.create_server(("127.0.0.1", 0))

    def serve() -> None:
        with contextlib.suppress(OSError):
            while True:
                line, _ = listener.accept()
                with line, contextlib.suppress(OSError):
                    line.recv(65536)
                    line.sendall(answer)

    thread = threading.Thread(target=serve, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{listener.getsockname()[1]}/path?token=s3cret"
    finally:
        with contextlib.suppress(OSError):
            listener.shutdown(socket.SHUT_RDWR)
        listener.close()
        thread.join(10)


@pytest.mark.parametrize(
    "answer",
    [
        b"HTTP/1.1 500 " + LONG + b"\r\n\r\n",
        LONG + b"\r\n\r\n",
        b"HTTP/1.1 302 x\r\nLocation: http://e.example/" + LONG + b"\r\n\r\n",
        b"HTTP/1.1 302 x\r\nLocation: http://" + b"e" * 60_000 + b"/\r\n\r\n",
        b"HTTP/1.1 302 x\r\nLocation: http://[" + b"e" * 60_000 + b"/\r\n\r\n",
        b"HTTP/1.1 302 x\r\nLocation: http://[::1]x:y:z/\r\n\r\n",
        b"HTTP/1.1 302 x\r\nLocation: /path?token=s3cret&x=\x7f\r\n\r\n",
        b"HTTP/1.1 302 x\r\nLocation: gopher:s3cret\r\n\r\n",
        b"HTTP/1.1 302 x\r\nLocation: ?token=s3cret\r\n\r\n",
        b"HTTP/1.1 200 x\r\n\r\n",
        b"HTTP/1.1 200 x\r\nContent-Length: 10\r\n\r\nshort",
        b"HTTP/1.1 200 x\r\nContent-Length: 2000\r\n\r\n" + b"x" * 2000,
    ],
)
def test_what_a_hostile_server_says_is_cut(answer: bytes) -> None:
    """Never more than a line's worth, nothing that steers a terminal, and no query."""
    with saying(answer) as url, pytest.raises(FetchError) as told:
        fetch.fetch(url, seconds=5.0, most=1000)
    said = str(told.value)
    assert len(said) <= 200
    assert said.isprintable()
    assert "s3cret" not in said
    assert "/path" not in said


def test_a_url_that_none_can_ask_for_is_not_quoted() -> None:
    """A space in the config's URL, an odd port, another scheme: its secret is not told."""
    with saying(b"") as url:
        for odd in (f"{url} x", url.replace("/path", "9999999/path"), f"x{url}", f"http://[{url}"):
            with pytest.raises(FetchError) as told:
                fetch.fetch(odd, seconds=5.0)
            assert "s3cret" not in str(told.value)


def test_the_server_s_own_words_are_told() -> None:
    """Which server it was, and what it said."""
    with saying(b"HTTP/1.1 403 no such token\r\n\r\n") as url, pytest.raises(FetchError) as told:
        fetch.fetch(url, seconds=5.0)
    assert str(told.value) == "http://127.0.0.1: 403 no such token"


def test_what_is_posted_goes_nowhere_else() -> None:
    """A redirect would take it to a place that nobody named, even on the same host."""
    moved = b"HTTP/1.1 307 x\r\nLocation: /elsewhere\r\nContent-Length: 0\r\n\r\n"
    with saying(moved) as url, pytest.raises(FetchError, match=r"redirected$"):
        fetch.fetch(url, seconds=5.0, body=b"[]")
