"""A mail account: hand a message to its submission server, find one in its mailbox.

Always over TLS, with a certificate that fits the server's name: at once at the ports that are meant
for it (465 and 993, RFC 8314), by STARTTLS at all others. Every call is bounded in time.
"""

from __future__ import annotations

import base64
import imaplib
import re
import smtplib
import socket
import ssl
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

from backup_mx.errors import MachineError
from backup_mx.net import heard
from backup_mx.net.heard import Imap, ImapTls, SessionTls, hang_up
from backup_mx.net.session import Session

SECONDS = 600.0
"""For a message to be handed over, and for one look into a mailbox: a big one over a slow line."""

FOLDERS = 50
"""So many of a mailbox's folders are looked into, those where mail arrives first."""

MOST = 50
"""So many messages of one folder are looked at; the newest ones."""

_STEP = 30.0  # seconds for an answer
_ANSWER = 120.0  # for one of SMTP: servers keep strangers waiting on purpose
_AT_ONCE = {465, 993}
_IN = 235  # RFC 4954, section 6
# RFC 6154: what has these holds copies, or nothing that arrived.
_PASSED_BY = {b"\\all", b"\\noselect", b"\\nonexistent", b"\\drafts", b"\\sent", b"\\flagged"}
_FIRST = re.compile(rb"inbox|junk|spam|bulk", re.IGNORECASE)
_LISTED = re.compile(rb'\((?P<flags>[^)]*)\) (?:NIL|"(?:\\.|[^"\\])*") (?P<name>.*)', re.DOTALL)
_FIELD = re.compile(r"[A-Za-z0-9-]+")
_WORD = re.compile(r"[A-Za-z0-9._<>@-]+")

_Line = TypeVar("_Line", Session, SessionTls, Imap, ImapTls)


@dataclass(frozen=True)
class Account:
    """A server, and who logs in there; ca is a PEM file to trust instead of the system's."""

    host: str
    port: int
    user: str
    password: str = field(repr=False)
    ca: Path | None = None

    @property
    def context(self) -> ssl.SSLContext:
        """TLS as this account wants it. Raises MachineError when ca cannot be read."""
        try:
            return ssl.create_default_context(cafile=str(self.ca) if self.ca else None)
        except (OSError, ssl.SSLError) as error:
            raise MachineError(f"{self.ca}: {error.strerror or 'not a PEM file'}") from None

    @property
    def plain(self) -> bytes:
        """What SASL's PLAIN says of who logs in (RFC 4616)."""
        return f"\0{self.user}\0{self.password}".encode()

    @property
    def at_once(self) -> bool:
        """Whether TLS begins with the connection."""
        return self.port in _AT_ONCE


@dataclass(frozen=True)
class Found:
    """A message in a mailbox: its folder and UID there, its header, when the server got it."""

    folder: bytes
    uid: str
    head: bytes
    arrived: datetime | None

    @property
    def where(self) -> str:
        """The folder's name as it can be shown."""
        return self.folder.decode("ascii", "replace").strip('"')


def submit(account: Account, sender: str, recipient: str, message: bytes) -> str:
    """Hand a message over; return the server's answer to it. Raises MachineError."""
    what = f"the submission server {account.host}"
    with _told(what), _session(account) as session:
        _authenticate(session, account)
        session.timeout = SECONDS  # a filter may read all of it before it answers
        options = ["BODY=8BITMIME"] if session.has_extn("8bitmime") else []
        steps: tuple[Callable[[], tuple[int, bytes]], ...] = (
            partial(session.mail, sender, options),
            partial(session.rcpt, recipient),
            partial(session.data, message),
        )
        for step in steps:
            code, answer = step()
            if code not in (250, 251):
                raise MachineError(f"{what} said: {code} {answer.decode(errors='replace')}")
        return answer.decode(errors="replace")


def _authenticate(session: smtplib.SMTP, account: Account) -> None:
    """Log in by SASL's PLAIN where it is offered: smtplib's own way knows no letters beyond ASCII.

    Raises SMTPException.
    """
    session.ehlo_or_helo_if_needed()
    if "PLAIN" not in session.esmtp_features.get("auth", "").upper().split():
        session.login(account.user, account.password)
        return
    secret = base64.b64encode(account.plain).decode("ascii")
    code, answer = session.docmd("AUTH", f"PLAIN {secret}")
    if code != _IN:
        raise smtplib.SMTPAuthenticationError(code, answer)


@contextmanager
def _session(account: Account) -> Iterator[Session]:
    context = account.context
    kind, more = (SessionTls, {"context": context}) if account.at_once else (Session, {})
    session = _made(kind, account.host, account.port, timeout=_ANSWER, **more)
    with _bounded(lambda: session.sock):
        try:
            if not account.at_once:
                session.starttls(context=context)
            yield session
            with suppress(smtplib.SMTPException):
                session.quit()
        finally:
            session.close()


@contextmanager
def opened(account: Account) -> Iterator[Mailbox]:
    """Log in to a mailbox, and log out in the end. Raises MachineError."""
    with _told(f"the IMAP server {account.host}"):
        mailbox = Mailbox(account)
        try:
            yield mailbox
        finally:
            mailbox.close()


class Mailbox:
    """A mailbox that one is logged in to. Every method raises MachineError when it cannot."""

    def __init__(self, account: Account) -> None:
        self._what = f"the IMAP server {account.host}"
        with _told(self._what):
            self._line = _connected(account)
            with self._asked():
                _log_in(self._line, account)

    def close(self) -> None:
        """Log out; a server that does not answer is left."""
        with suppress(OSError, imaplib.IMAP4.error), self._asked():
            self._line.logout()
        with suppress(OSError):
            self._line.shutdown()

    def find(self, name: str, words: str) -> list[Found]:
        """Return the messages whose header field ``name`` has ``words`` in it, in any folder."""
        if not (_FIELD.fullmatch(name) and _WORD.fullmatch(words)):
            raise ValueError(f"not to be searched for: {name}: {words}")
        with _told(self._what), self._asked():
            return [found for folder in self._folders() for found in self._in(folder, name, words)]

    def whole(self, found: Found) -> bytes:
        """Return a message as it lies there, header and body; nobody is told that it was read."""
        with _told(self._what), self._asked():
            self._select(found.folder)
            return _literal(self._uid("FETCH", found.uid, "(BODY.PEEK[])"))

    def delete(self, found: Found) -> None:
        """Delete a message for good, where the server can do that to a single one (UIDPLUS)."""
        with _told(self._what), self._asked():
            self._select(found.folder, readonly=False)
            self._uid("STORE", found.uid, "+FLAGS.SILENT", r"(\Deleted)")
            # Asked anew: before the login Dovecot does not say all that it can.
            able = b" ".join(_good(self._line.capability())).upper().split()
            if b"UIDPLUS" in able:
                # Without it, EXPUNGE would take along what somebody else has marked.
                self._uid("EXPUNGE", found.uid)

    def _folders(self) -> list[bytes]:
        """Return the folders that mail may have arrived in, as the server names them."""
        listed = [_folder(each) for each in _good(self._line.list())]
        found = [each for each in listed if each]
        return sorted(found, key=lambda name: not _FIRST.search(name))[:FOLDERS]

    def _in(self, folder: bytes, name: str, words: str) -> Iterator[Found]:
        try:
            self._select(folder)
        except imaplib.IMAP4.readonly:
            raise
        except imaplib.IMAP4.error:
            return  # removed since it was listed, or not ours to look into
        hits = b" ".join(self._uid("SEARCH", "HEADER", name, f'"{words}"')).split()
        for uid in hits[-MOST:]:
            answer = self._uid("FETCH", uid.decode(), "(INTERNALDATE BODY.PEEK[HEADER])")
            yield Found(folder, uid.decode(), _literal(answer), _arrived(answer))

    def _select(self, folder: bytes, *, readonly: bool = True) -> None:
        _good(self._line.select(folder.decode("latin-1"), readonly=readonly))

    def _uid(self, command: str, *arguments: str) -> list[Any]:
        return _good(self._line.uid(command, *arguments))

    @contextmanager
    def _asked(self) -> Iterator[None]:
        self._line.left = heard.OCTETS
        with _bounded(lambda: self._line.sock):
            yield


def _connected(account: Account) -> Imap:
    context = account.context
    if account.at_once:
        made = {"ssl_context": context, "timeout": _STEP}
        return _made(ImapTls, account.host, account.port, **made)
    line = _made(Imap, account.host, account.port, timeout=_STEP)
    with _left_on_error(line), _bounded(lambda: line.sock):
        line.starttls(ssl_context=context)
    return line


def _log_in(line: imaplib.IMAP4, account: Account) -> None:
    """Log in by SASL's PLAIN where it is offered: LOGIN knows no letters beyond ASCII."""
    with _left_on_error(line):
        if "AUTH=PLAIN" in line.capabilities:
            line.authenticate("PLAIN", lambda _challenge: account.plain)
        else:
            line.login(account.user, account.password)


@contextmanager
def _left_on_error(line: imaplib.IMAP4) -> Iterator[None]:
    """Close a connection if the block fails; what made it fail is what counts."""
    try:
        yield
    except BaseException:
        with suppress(OSError):
            line.shutdown()
        raise


def _folder(listed: Any) -> bytes | None:  # noqa: ANN401  as imaplib hands it over
    """Return a folder's name as SELECT takes it, None for one that is passed by."""
    head, name = listed if isinstance(listed, tuple) else (listed or b"", None)
    found = _LISTED.fullmatch(head)
    if not found or _PASSED_BY & set(found["flags"].lower().split()):
        return None
    if name is None:
        return bytes(found["name"])
    # A literal: the name itself, which has to be quoted (RFC 3501, section 4.3).
    quoted: bytes = name.replace(b"\\", rb"\\").replace(b'"', rb"\"")
    return b'"%b"' % quoted


def _good(answer: tuple[str, list[Any]]) -> list[Any]:
    """Return what a server said, without what is not there. Raises IMAP4.error if it was no OK."""
    kind, data = answer
    if kind != "OK":
        said = [each.decode(errors="replace") for each in data if isinstance(each, bytes)]
        raise imaplib.IMAP4.error(" ".join(said) or kind)
    return [each for each in data if each is not None]


def _literal(answer: list[Any]) -> bytes:
    """Return the text that came in an answer to FETCH. Raises IMAP4.error when there is none."""
    for each in answer:
        if isinstance(each, tuple):
            return bytes(each[1])
    raise imaplib.IMAP4.error("the message is gone")


def _arrived(answer: list[Any]) -> datetime | None:
    for each in answer:
        moment = imaplib.Internaldate2tuple(each[0] if isinstance(each, tuple) else each)
        if moment:
            return datetime.fromtimestamp(time.mktime(moment), UTC)
    return None


def _made(kind: type[_Line], *arguments: Any, **more: Any) -> _Line:  # noqa: ANN401  kind's own
    """Make a connection; hearing the greeting is part of that, and bounded as all the rest."""
    line = kind.__new__(kind)
    with _bounded(lambda: getattr(line, "sock", None)):
        kind.__init__(line, *arguments, **more)
    return line


@contextmanager
def _bounded(line: Callable[[], socket.socket | None]) -> Iterator[None]:
    """Hang up when the block takes longer than SECONDS, however slowly the other side drips."""
    bell = threading.Timer(SECONDS, lambda: hang_up(line()))
    bell.daemon = True
    bell.start()
    try:
        yield
    finally:
        bell.cancel()


@contextmanager
def _told(what: str) -> Iterator[None]:
    """Turn what the libraries raise into one message."""
    try:
        yield
    except smtplib.SMTPResponseException as error:
        said = error.smtp_error
        text = said.decode(errors="replace") if isinstance(said, bytes) else said
        raise MachineError(f"{what} said: {error.smtp_code} {text}") from None
    except (smtplib.SMTPException, imaplib.IMAP4.error) as error:
        raise MachineError(f"{what}: {_plain(error)}") from None
    except UnicodeError:  # its words have the password in them
        words = "takes no letters beyond ASCII: is there one in the password, or in an address?"
        raise MachineError(f"{what} {words}") from None
    except OSError as error:
        words = getattr(error, "verify_message", "") or error.strerror or str(error)
        raise MachineError(f"{what}: {words or type(error).__name__}") from None


def _plain(error: Exception) -> str:
    """Return an error's words; imaplib has some as bytes."""
    said = error.args[0] if error.args else ""
    text = said.decode(errors="replace") if isinstance(said, bytes) else str(said)
    return text or type(error).__name__
