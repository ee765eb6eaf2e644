"""Tables of recipients: how they are fetched, and which are believed."""

from __future__ import annotations

import contextlib
import http.server
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from backup_mx.net import fetch
from backup_mx.net.fetch import FetchError
from backup_mx.relay.settings import Table
from backup_mx.relay.tasks import recipients

TABLE = Table("example.org", "https://mail.example.org/recipients")
NOW = 1_763_800_000.0
TEN = b"".join(b"user%d\n" % number for number in range(10))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "recipients"


def update(folder: Path, content: bytes | Exception, now: float = NOW) -> tuple[int, str]:
    """Fetch a table that is ``content``; return how many recipients there are then, and trouble."""

    def get(url: str) -> bytes:
        assert url == TABLE.url
        if isinstance(content, Exception):
            raise content
        return content

    state = recipients.update(TABLE, 20, now, folder, get)
    assert state.domain == "example.org"
    return state.recipients, state.trouble


def test_a_table_is_taken_over(folder: Path) -> None:
    """Local parts and addresses, in small letters, comments left out."""
    content = b"\xef\xbb\xbf# people\nAnn\nbob@Example.ORG  # his\n\n"
    assert update(folder, content) == (2, "")
    assert recipients.known("example.org", folder) == {"ann@example.org", "bob@example.org"}
    assert (folder / "example.org").read_text() == "ann@example.org\nbob@example.org\n"
    assert recipients.state("example.org", folder).fetched == NOW


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "no recipient"),
        (b"# nobody\n\n", "no recipient"),
        (TEN + b"<html>\n", "line 11"),
        (TEN + b"ann@other.example\n", "line 11"),
        (TEN + b"\xff\xfe\n", "UTF-8"),
        (b"".join(b"user%d\n" % number for number in range(7)), "shrank from 10 to 7"),
        (FetchError("connection refused"), "connection refused"),
    ],
)
def test_a_table_not_to_be_believed_leaves_the_one_before(
    folder: Path, content: bytes | Exception, words: str
) -> None:
    """Whatever is wrong with it, nobody is refused for it; and its trouble is told."""
    update(folder, TEN, NOW - 900)
    count, trouble = update(folder, content)
    assert count == 10
    assert words in trouble
    assert recipients.state("example.org", folder).fetched == NOW - 900


def test_a_table_may_shrink_a_little(folder: Path) -> None:
    """By twenty in a hundred here, in a day; the next one is compared with what it became then."""
    day, seven = 86_400, b"a\nb\nc\nd\ne\nf\ng\n"
    update(folder, TEN, NOW - 3600)
    assert update(folder, seven + b"h\n") == (8, "")
    for later in (0, 900, day - 900):
        assert update(folder, seven, NOW + later)[0] == 8
        assert update(folder, seven + b"h\n", NOW + later) == (8, "")
    assert update(folder, seven, NOW + day) == (7, "")


def test_a_table_may_grow_to_everybody(folder: Path) -> None:
    """One line that takes everybody refuses nobody, but the next is measured by those before it."""
    update(folder, TEN)
    assert update(folder, b"@example.org\n") == (11, "")
    assert update(folder, b"@example.org\n") == (11, "")
    assert update(folder, b"ann\n") == (11, "it shrank from 11 to 1 recipients, by more than 20 %")
    assert update(folder, TEN) == (10, "")


def test_an_unchanged_table_is_not_written_again(folder: Path) -> None:
    """Postfix reads a table again whenever it is written; it is fetched every few minutes."""
    update(folder, TEN, NOW - 900)
    before = (folder / "example.org").stat()
    update(folder, TEN)
    after = (folder / "example.org").stat()
    assert (after.st_ino, after.st_mtime_ns) == (before.st_ino, before.st_mtime_ns)
    assert recipients.state("example.org", folder).fetched == NOW


def test_a_full_disk_leaves_the_one_before(folder: Path) -> None:
    """What cannot be kept is told."""
    folder.parent.mkdir(exist_ok=True)
    folder.write_text("in the way")
    assert "cannot be kept" in update(folder, TEN)[1]


# --- over HTTP

Answer = Callable[[http.server.BaseHTTPRequestHandler], None]


@contextlib.contextmanager
def serving(answer: Answer) -> Iterator[str]:
    """Serve ``answer`` to every GET; yield the URL."""

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            with contextlib.suppress(OSError):
                answer(self)

        def log_message(self, *_: object) -> None:
            return

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}/table"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def say(
    handler: http.server.BaseHTTPRequestHandler, content: bytes, status: int = 200, **fields: str
) -> None:
    handler.send_response(status)
    for name, value in {"Content_Length": str(len(content)), **fields}.items():
        handler.send_header(name.replace("_", "-"), value)
    handler.end_headers()
    handler.wfile.write(content)


def test_a_text_is_fetched() -> None:
    """Whole, as it is."""
    with serving(lambda handler: say(handler, TEN)) as url:
        assert fetch.fetch(url) == TEN


def test_a_redirect_on_the_same_host_is_followed() -> None:
    """A new path is all that may change."""

    def answer(handler: http.server.BaseHTTPRequestHandler) -> None:
        if handler.path == "/table":
            say(handler, b"", 302, Location="/new?x=1")
        else:
            say(handler, handler.path.encode())

    with serving(answer) as url:
        assert fetch.fetch(url) == b"/new?x=1"


def _elsewhere(handler: http.server.BaseHTTPRequestHandler) -> None:
    say(handler, b"", 302, Location="http://localhost:1/")


def _round(handler: http.server.BaseHTTPRequestHandler) -> None:
    say(handler, b"", 302, Location="/table")


def _file(handler: http.server.BaseHTTPRequestHandler) -> None:
    say(handler, b"", 302, Location="file:///etc/passwd")


def _missing(handler: http.server.BaseHTTPRequestHandler) -> None:
    say(handler, b"no", 404)


def _cut(handler: http.server.BaseHTTPRequestHandler) -> None:
    say(handler, TEN, Content_Length="1000")


def _unmeasured(handler: http.server.BaseHTTPRequestHandler) -> None:
    handler.send_response(200)
    handler.end_headers()
    handler.wfile.write(TEN)


def _endless(handler: http.server.BaseHTTPRequestHandler) -> None:
    handler.send_response(200)
    handler.send_header("Content-Length", str(10**12))
    handler.end_headers()
    while True:
        handler.wfile.write(65536 * b"x")


def _drip(handler: http.server.BaseHTTPRequestHandler) -> None:
    handler.send_response(200)
    handler.send_header("Content-Length", "1000")
    handler.end_headers()
    while True:
        handler.wfile.write(b"x")
        time.sleep(0.05)


def _dripping_header(handler: http.server.BaseHTTPRequestHandler) -> None:
    while True:
        handler.wfile.write(b"H")
        time.sleep(0.05)


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        (_elsewhere, "same host"),
        (_file, "neither http nor https"),
        (_round, "more than 3 times"),
        (_missing, "404"),
        (_cut, "cut off"),
        (_unmeasured, "how long"),
        (_endless, "more than 100000 bytes"),
        (_drip, "cut off|reset"),  # what it sends after we hung up is answered with a reset
        (_dripping_header, "127.0.0.1: ."),
    ],
)
def test_a_hostile_server_gets_nobody_refused(answer: Answer, words: str) -> None:
    """Another host, half a text, one without an end: none is taken, and the time is bounded."""
    began = time.monotonic()
    with serving(answer) as url, pytest.raises(FetchError, match=words):
        fetch.fetch(url, seconds=1.0, most=100_000)
    assert time.monotonic() - began < 5


def test_plain_http_stays_at_home(monkeypatch: pytest.MonkeyPatch) -> None:
    """On the open net anybody on the way could write the table."""
    monkeypatch.setattr(fetch, "private", lambda _: False)
    with (
        serving(lambda handler: say(handler, TEN)) as url,
        pytest.raises(FetchError, match="https"),
    ):
        fetch.fetch(url)


@pytest.mark.parametrize(
    ("address", "wanted"),
    [
        ("10.0.20.1", True),
        ("192.168.1.1", True),
        ("100.64.3.4", True),
        ("fd00::1", True),
        ("fe80::1%eth0", True),
        ("::ffff:10.0.0.1", True),
        ("8.8.8.8", False),
        ("::ffff:8.8.8.8", False),
        ("2606:4700::1", False),
    ],
)
def test_private_addresses(address: str, wanted: bool) -> None:
    """Tunnels, LANs and tailnets are; the rest is the open net."""
    assert fetch.private(address) is wanted
