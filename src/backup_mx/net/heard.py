"""Servers that are heard only so far: the libraries let each speak for ever."""

from __future__ import annotations

import imaplib
import smtplib
import socket
from contextlib import suppress

from backup_mx.net.session import Session

OCTETS = 64 << 20
"""Of all that a mailbox answers to one question."""


class SessionTls(Session, smtplib.SMTP_SSL):
    """An SMTP session, where TLS begins with the connection."""


class Imap(imaplib.IMAP4):
    """An IMAP server that is heard for ``left`` bytes, and no further."""

    left = OCTETS

    def read(self, size: int) -> bytes:
        """Read what the server said is to come. Raises IMAP4.abort where that is too much."""
        self._count(size)
        return super().read(size)

    def readline(self) -> bytes:
        """Read a line. Raises IMAP4.abort where it is too much."""
        line = super().readline()
        self._count(len(line))
        return line

    def _count(self, size: int) -> None:
        self.left -= size
        if self.left < 0:
            hang_up(self.sock)
            raise self.abort(f"an answer too long: more than {OCTETS:,} bytes")


class ImapTls(Imap, imaplib.IMAP4_SSL):
    """Such a server, where TLS begins with the connection."""


def hang_up(line: socket.socket | None) -> None:
    """End a connection that another thread may be waiting at."""
    with suppress(OSError):
        if line is not None:
            # Not TLS's own shutdown, which another thread must not call.
            socket.socket.shutdown(line, socket.SHUT_RDWR)
