"""The MTA-STS policies that a relay serves: where they are, what is answered (RFC 8461, 3.3).

Pure; `backup_mx.relay.policyhost` is the server.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

FOLDER = Path("/etc/backup-mx/policies")
"""The policies, each in a file that is called as its host is."""

PAIRS = Path("/srv/backup-mx/tls/policies")
"""Where backup_mx.relay.root.acme puts what a host shows: HOST, with its key, then its chain."""

UNIT = "backup-mx-mta-sts.service"
PATH = "/.well-known/mta-sts.txt"
_ALLOW = "Allow: GET, HEAD\r\n"


def reply(head: bytes, policies: Mapping[str, bytes]) -> bytes:
    """Return the whole answer to a request; policies are those there are, by host."""
    line, *fields = head.decode("latin-1").split("\r\n")
    method, _, rest = line.partition(" ")
    target = rest.partition(" ")[0].partition("?")[0]
    if method not in ("GET", "HEAD"):
        return _answer("405 Method Not Allowed", _ALLOW)
    content = policies.get(_host(fields)) if target == PATH else None
    if content is None:
        return _answer("404 Not Found")
    kind = "Content-Type: text/plain; charset=utf-8\r\n"
    return _answer("200 OK", kind, content, head_only=method == "HEAD")


def _host(fields: Sequence[str]) -> str:
    """Return the host that is asked, without its port."""
    for field in fields:
        name, _, value = field.partition(":")
        if name.lower() == "host":
            return value.strip().lower().partition(":")[0].rstrip(".")
    return ""


def _answer(
    status: str, fields: str = "", content: bytes = b"", *, head_only: bool = False
) -> bytes:
    head = f"HTTP/1.1 {status}\r\n{fields}Content-Length: {len(content)}\r\nConnection: close\r\n"
    return head.encode() + b"\r\n" + (b"" if head_only else content)
