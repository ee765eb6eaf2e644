"""Fetch or post a small text over HTTP, bounded in time and size whatever the other side sends.

Plain http goes to private addresses only (a tunnel, a LAN): on the open net anybody on the way
could write the text. Redirects stay on the same host.
"""

from __future__ import annotations

import http.client
import ipaddress
import socket
import ssl
import threading
from contextlib import suppress
from dataclasses import dataclass
from urllib.parse import SplitResult, urljoin, urlsplit

SECONDS = 30.0
MOST = 8 * 1024 * 1024  # bytes
REDIRECTS = 3
_SHARED = ipaddress.ip_network("100.64.0.0/10")  # RFC 6598: where tailnets live
_SAID = 200  # characters of an error, which may be shown in a list
_MOVED = {301, 302, 303, 307, 308}


class FetchError(Exception):
    """It could not be fetched; the text says why."""


@dataclass(frozen=True)
class _Wish:
    """What one request may take and bring: see fetch."""

    seconds: float
    most: int
    kind: str
    body: bytes | None

    @property
    def headers(self) -> dict[str, str]:
        """What goes before the body, if there is one."""
        of_body = {} if self.body is None else {"Content-Type": "application/json"}
        return {"User-Agent": "backup-mx", "Connection": "close", **of_body}


def fetch(
    url: str,
    *,
    seconds: float = SECONDS,
    most: int = MOST,
    redirects: int = REDIRECTS,
    kind: str = "",
    body: bytes | None = None,
) -> bytes:
    """Return what is at ``url``, at most ``most`` bytes, in ``seconds``. Raises FetchError.

    kind is the media type it has to be of, "" where any will do. body is JSON that is posted there
    (RFC 9110, section 9.3.3): it goes nowhere else, so nothing is followed.
    """
    first, wish = _split(url), _Wish(seconds, most, kind, body)
    redirects = redirects if body is None else 0
    for _ in range(redirects + 1):
        found = _split(url)
        if found.scheme not in ("http", "https") or not found.hostname:
            raise _failed(found, "neither http nor https")
        if found.hostname != first.hostname or (first.scheme, found.scheme) == ("https", "http"):
            raise _failed(first, "redirected elsewhere; only the same host is followed")
        content, url = _got(found, wish)
        if not url:
            return content
    often = f" more than {redirects} times" if redirects else ""
    raise _failed(first, f"redirected{often}")


def _split(url: str) -> SplitResult:
    try:
        return urlsplit(url)
    except ValueError:
        raise FetchError("not a URL") from None


def _failed(url: SplitResult, words: str) -> FetchError:
    """Return an error that can be shown: the other side may have chosen any of its words.

    Of the URL it names scheme and host: its path and query may be a secret.
    """
    host = f"[{url.hostname}]" if ":" in (url.hostname or "") else url.hostname or ""
    said = f"{url.scheme}://{host}: {words}"
    shown = "".join(each if each.isprintable() else "\N{REPLACEMENT CHARACTER}" for each in said)
    return FetchError(shown if len(shown) <= _SAID else shown[: _SAID - 1] + "…")


def _got(url: SplitResult, wish: _Wish) -> tuple[bytes, str]:
    """Return the content, or else where it has moved to."""
    line = _connection(url, wish.seconds)
    try:
        line.connect()
        return _asked(line, url, wish)
    except http.client.InvalidURL:  # whose own words quote it
        raise _failed(url, "a URL with characters that none may have") from None
    except (OSError, ValueError, http.client.HTTPException) as error:
        said = getattr(error, "verify_message", "") or getattr(error, "strerror", "") or str(error)
        raise _failed(url, said or type(error).__name__) from None
    finally:
        line.close()


def _connection(url: SplitResult, seconds: float) -> http.client.HTTPConnection:
    host = url.hostname or ""
    try:
        port = url.port
    except ValueError:
        raise _failed(url, "no such port") from None
    if url.scheme == "http":
        return http.client.HTTPConnection(host, port, timeout=seconds)
    context = ssl.create_default_context()
    return http.client.HTTPSConnection(host, port, timeout=seconds, context=context)


def _asked(line: http.client.HTTPConnection, url: SplitResult, wish: _Wish) -> tuple[bytes, str]:
    if url.scheme == "http" and not private(line.sock.getpeername()[0]):
        raise _failed(url, "plain http to a public address; use https")
    # Each read has a limit of its own; this is the one for all of them, however slow they drip.
    bell = threading.Timer(wish.seconds, _hang_up, (line.sock,))
    bell.daemon = True
    bell.start()
    try:
        target = url._replace(scheme="", netloc="", fragment="").geturl() or "/"
        line.request("GET" if wish.body is None else "POST", target, wish.body, wish.headers)
        with line.getresponse() as answer:
            if answer.status in _MOVED:
                return b"", urljoin(url.geturl(), answer.getheader("Location", ""))
            if answer.status != http.client.OK:
                raise _failed(url, f"{answer.status} {answer.reason}")
            if wish.kind and answer.headers.get_content_type() != wish.kind:
                raise _failed(url, f"{answer.headers.get_content_type()} instead of {wish.kind}")
            return _whole(answer, url, wish.most), ""
    finally:
        bell.cancel()


def _whole(answer: http.client.HTTPResponse, url: SplitResult, most: int) -> bytes:
    """Return the content. A text that ended early must not pass for a shorter table."""
    content = answer.read(most + 1)
    if len(content) > most:
        raise _failed(url, f"more than {most} bytes")
    if answer.getheader("Content-Length") is None and not answer.chunked:
        raise _failed(url, "the server does not say how long it is")
    if not answer.isclosed():
        raise _failed(url, f"cut off after {len(content)} bytes")
    return content


def _hang_up(line: socket.socket) -> None:
    with suppress(OSError):
        # Not TLS's own shutdown, which another thread must not call.
        socket.socket.shutdown(line, socket.SHUT_RDWR)


def private(address: str) -> bool:
    """Tell whether an IP address is one that the open net does not route."""
    found = ipaddress.ip_address(address.partition("%")[0])
    mapped = getattr(found, "ipv4_mapped", None) or found
    return mapped.is_private or mapped.is_link_local or mapped in _SHARED
