"""The MTA-STS policies that a relay serves: where they are, what is answered (RFC 8461, 3.3).

Pure; `backup_mx.relay.policyhost` is the server.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from backup_mx.relay import http1

FOLDER = Path("/etc/backup-mx/policies")
"""The policies, each in a file that is called as its host is."""

PAIRS = Path("/srv/backup-mx/tls/policies")
"""Where backup_mx.relay.root.acme puts what a host shows: HOST, with its key, then its chain."""

UNIT = "backup-mx-mta-sts.service"
PATH = "/.well-known/mta-sts.txt"


def reply(head: bytes, policies: Mapping[str, bytes]) -> bytes:
    """Return the whole answer to a request; policies are those there are, by host."""
    asked = http1.request(head)
    if asked.method not in ("GET", "HEAD"):
        return http1.reply("405 Method Not Allowed", "Allow: GET, HEAD")
    host = asked.host.lower().partition(":")[0].rstrip(".")
    content = policies.get(host) if asked.path == PATH else None
    if content is None:
        return http1.reply("404 Not Found")
    kind = "Content-Type: text/plain; charset=utf-8"
    return http1.reply("200 OK", kind, body=content, head_only=asked.method == "HEAD")
