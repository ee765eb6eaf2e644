"""The messages that a failover is tried with: one of each sort that a relay might harm."""

from __future__ import annotations

import base64
import hashlib
from dataclasses import dataclass
from email import message_from_bytes, policy
from email.header import Header
from email.message import Message
from email.parser import BytesHeaderParser
from email.utils import formatdate

FIELD = "X-Backup-MX-Failover"
"""By this a message is found again, whatever Message-ID it ends up with."""

_LINE = base64.b64encode(bytes(range(57))).decode() + "\r\n"
_LARGE = 11 * 2**20 // len(_LINE)  # lines, for more than ten megabytes
_PARTS = "part-of-backup-mx"
_UTF8 = "SMTPUTF8"
_REMARK = "Comments"  # the field that wants it
_HTML = "<p>backup-mx: <b>failover</b></p>"


@dataclass(frozen=True)
class Letter:
    """A message before it is sent: its sort, its token, its text in two parts.

    Lines end in CRLF. The body stands ``times`` times after the head and its empty line. sender is
    that of the envelope; utf8: its header wants SMTPUTF8 (RFC 6531).
    """

    sort: str
    token: str
    head: str
    body: str
    times: int = 1
    sender: str = ""
    utf8: bool = False

    @property
    def whole(self) -> bytes:
        """All of it."""
        return (self.head + self.body * self.times).encode()


def letters(
    token: str, sender: str, recipient: str, now: float, *, null: bool = False, utf8: bool = False
) -> tuple[Letter, ...]:
    """Return the messages of a trial, which all bear its token; now is their date.

    null: one of them has no sender, as a bounce. utf8: one has letters beyond ASCII in its header.
    """
    base64s = "Content-Transfer-Encoding: base64"
    plain = "Content-Type: text/plain; charset=utf-8"
    attached = (
        f"--{_PARTS}\r\nContent-Type: text/html\r\n\r\n{_HTML}\r\n"
        f"--{_PARTS}\r\nContent-Type: application/octet-stream\r\n"
        f'Content-Disposition: attachment; filename="a.bin"\r\n{base64s}\r\n\r\n{_LINE * 40}'
        f"--{_PARTS}--\r\n"
    )
    sorts = (
        ("plain", plain, "A plain message.\r\n.\r\n..and lines of dots.\r\n", 1),
        ("8-bit", f"{plain}\r\nContent-Transfer-Encoding: 8bit", "Grüße — żółć, 日本語\r\n", 1),
        ("attachment", f'Content-Type: multipart/mixed; boundary="{_PARTS}"', attached, 1),
        ("large", f"Content-Type: application/octet-stream\r\n{base64s}", _LINE, _LARGE),
        *([("null sender", plain, "As a bounce comes.\r\n", 1)] if null else []),
        *([(_UTF8, f"{_REMARK}: Grüße, 日本語\r\n{plain}", "SMTPUTF8.\r\n", 1)] if utf8 else []),
    )
    return tuple(
        Letter(
            sort,
            name,
            f"{_head(name, sort, sender, recipient, now)}{kind}\r\n\r\n",
            body,
            times,
            sender="" if sort == "null sender" else sender,
            utf8=sort == _UTF8,
        )
        for sort, kind, body, times in sorts
        for name in (f"{token}.{sort.split()[0]}",)
    )


def _head(token: str, sort: str, sender: str, recipient: str, now: float) -> str:
    subject = Header(f"backup-mx tries a failover ☂ {sort}: this can be deleted", "utf-8").encode()
    fields = (
        ("From", f"<{sender}>"),
        ("To", f"<{recipient}>"),
        ("Subject", subject.replace("\n", "\r\n")),
        ("Date", formatdate(now)),
        ("Message-ID", f"<{token}@{sender.rpartition('@')[2]}>"),
        (FIELD, token),
        ("Auto-Submitted", "auto-generated"),
        ("MIME-Version", "1.0"),
    )
    return "".join(f"{name}: {value}\r\n" for name, value in fields)


def token_of(head: bytes) -> str:
    """Return the token that a message's header bears, "" if none."""
    return str(BytesHeaderParser().parsebytes(head).get(FIELD, "")).strip()


def essence(message: bytes) -> str:
    """Return a hash of what a message says: its parts, decoded, and the field with other letters.

    It stays when a server on the way writes the same in another encoding (RFC 6152, section 3), and
    changes with the first letter that does.
    """
    whole = message_from_bytes(message, policy=policy.SMTPUTF8)
    said = [_said(part) for part in whole.walk() if not part.is_multipart()]
    return hashlib.sha256(b"\0".join([str(whole.get(_REMARK, "")).encode(), *said])).hexdigest()


def _said(part: Message) -> bytes:
    content = part.get_payload(decode=True)
    return bytes(content).replace(b"\r\n", b"\n").rstrip() if isinstance(content, bytes) else b""
