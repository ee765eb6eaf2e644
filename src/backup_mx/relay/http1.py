"""As little of HTTP/1.1 (RFC 9112) as the relay's two small servers need: metrics and policies.

aiohttp would cost the agent a third of the memory that it may have.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Request:
    """What is asked: the method, the path without its query, the Host header as it came.

    host is empty unless there is exactly one such header (RFC 9112 section 3.2).
    """

    method: str
    path: str
    host: str


def request(head: bytes) -> Request:
    """Read a request's head, up to its empty line; what is missing in it is empty."""
    line, *fields = head.decode("latin-1").split("\r\n")
    method, _, rest = line.partition(" ")
    pairs = [field.partition(":") for field in fields]
    hosts = [value.strip() for name, _, value in pairs if name.lower() == "host"]
    return Request(
        method=method,
        path=rest.partition(" ")[0].partition("?")[0],
        host=hosts[0] if len(hosts) == 1 else "",
    )


def reply(status: str, *fields: str, body: bytes = b"", head_only: bool = False) -> bytes:
    """Return a whole answer, after which the connection is closed.

    status is the code with its phrase. head_only, as HEAD asks: the body's length, without it.
    """
    lines = (
        f"HTTP/1.1 {status}", *fields, f"Content-Length: {len(body)}", "Connection: close", "", "",
    )  # fmt: skip
    return "\r\n".join(lines).encode() + (b"" if head_only else body)
