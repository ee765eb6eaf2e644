"""Exported messages back into a queue: each once, however often it is tried.

A message is handed to this machine's own smtpd(8), as any sender would: SMTP alone keeps every
byte, every address and the wish for SMTPUTF8 or 8BITMIME, and takes only this relay's domains.

Before that a file says that it is begun, and where the mail log ends; after it, that it is taken,
and, when it is on hold as it was where it comes from, that it is done. Where a run was cut off in
between, the log tells whether Postfix has the message (traces.py).
"""

from __future__ import annotations

import json
import re
import smtplib
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack, closing, contextmanager, suppress
from dataclasses import asdict, dataclass
from pathlib import Path

from backup_mx.errors import MachineError
from backup_mx.relay.files import replace
from backup_mx.relay.log.logfiles import MAILLOG
from backup_mx.relay.operator import parcel
from backup_mx.relay.operator.parcel import Letter, ParcelError
from backup_mx.relay.operator.traces import Since, taken_since
from backup_mx.relay.queue.commands import Postfix
from backup_mx.relay.root import client
from backup_mx.relay.root.protocol import DELIVERED, GONE, Result, Who

DONE = Path("/srv/backup-mx/imported")
AGAIN = "was imported before"
_SECONDS = 300.0  # for an answer; postscreen lets a new client wait
_TOO_LATE = (GONE, DELIVERED)
"""Why a message will never be on hold."""
_QUEUED = re.compile(rb"queued as ([0-9A-Za-z]+)")
_ATOM = rb"[A-Za-z0-9!#$%&'*+/=?^_`{|}~\x80-\xff-]+"
_DOT_ATOM = re.compile(rb"%b(\.%b)*" % (_ATOM, _ATOM))


Hold = Callable[[str, Who], Result]


def _held(queue_id: str, who: Who) -> Result:
    """Put a message on hold. Raises MachineError when the helper cannot."""
    (result,) = client.change("hold", [queue_id], by=who.name, address=who.address)
    return result


@dataclass(frozen=True)
class Importer:
    """Puts exported messages into the queue of the Postfix that listens on host:port."""

    who: Who
    postfix: Postfix
    hold: Hold = _held
    host: str = "127.0.0.1"
    port: int = 25
    done: Path = DONE
    log: Path = MAILLOG

    def take(self, files: Iterable[Path]) -> Iterator[Result]:
        """Import the messages of which these are the ID.json; yield what became of each.

        Raises MachineError when Postfix cannot be spoken to or nothing can be remembered.
        """
        try:
            self.done.mkdir(mode=0o700, parents=True, exist_ok=True)
            yield from self._all(files)
        except (OSError, smtplib.SMTPException) as error:
            raise MachineError(f"importing was cut off: {error}") from None

    def _all(self, files: Iterable[Path]) -> Iterator[Result]:
        """Import them over one connection, and a new one after each that was not taken.

        Of 20 that are refused in a row smtpd(8) hangs up on the last (smtpd_hard_error_limit), and
        on any under stress: those before would keep the others out for ever.
        """
        with ExitStack() as connection:
            server = None
            for file in files:
                server = server or connection.enter_context(self._connected())
                result = self._one(server, file)
                yield result
                if not result.done:
                    connection.close()
                    server = None

    @contextmanager
    def _connected(self) -> Iterator[smtplib.SMTP]:
        with closing(smtplib.SMTP(self.host, self.port, "localhost", _SECONDS)) as server:
            server.ehlo()
            try:
                yield server
            finally:
                with suppress(smtplib.SMTPException):  # it may have hung up on us
                    server.quit()

    def _one(self, server: smtplib.SMTP, file: Path) -> Result:
        name = file.stem
        try:
            letter = parcel.read_file(file)
            body = file.with_suffix(".eml")
            parcel.check(body, letter)
            name = letter.id
            return self._done_before(letter) or self._import(server, letter, body)
        except (ParcelError, _RefusedError) as error:
            return Result(name, False, str(error))
        except FileNotFoundError as error:
            return Result(name, False, f"{error.filename} is missing")

    def _import(self, server: smtplib.SMTP, letter: Letter, body: Path) -> Result:
        marker = self._marker(letter)
        _write(marker, {"state": "begun", "log": asdict(Since.now(self.log))})
        try:
            new = submit(server, letter, body)
        except _RefusedError:
            marker.unlink()  # Postfix said so: it has not taken it
            raise
        return self._end(letter, new)

    def _end(self, letter: Letter, new: str) -> Result:
        """Note that Postfix has the message as ``new``, and put it on hold if it is to be."""
        _write(self._marker(letter), {"state": "taken" if letter.held else "done", "id": new})
        since = f"accepted={letter.accepted} by={self.who.name}"
        self.postfix.note([f"{new}: import from={letter.relay}/{letter.id} {since}"])
        return self._put_on_hold(letter, new) if letter.held else _imported(letter, new)

    def _put_on_hold(self, letter: Letter, new: str) -> Result:
        """Put on hold what is in the queue by now; the next run tries again what may still be."""
        try:
            result = self.hold(new, self.who)
        except MachineError as error:
            result = Result(new, False, str(error))
        if result.done or result.said in _TOO_LATE:
            _write(self._marker(letter), {"state": "done", "id": new})
        if result.done:
            return _imported(letter, new)
        words = f"imported as {new}, but it could not be put on hold: {result.said}"
        return Result(letter.id, False, words)

    def _done_before(self, letter: Letter) -> Result | None:
        """Tell what became of it in an earlier run; what was cut off then is made good."""
        marker = self._marker(letter)
        try:
            found = json.loads(marker.read_text())
            if found["state"] == "done":
                return Result(letter.id, True, AGAIN)
            if found["state"] == "taken":
                return self._put_on_hold(letter, str(found["id"]))
            since = Since(**found["log"])
        except FileNotFoundError:
            return None
        except (ValueError, TypeError, KeyError):
            since = Since(time=marker.stat().st_mtime)
        new = taken_since(self.log, since, letter.attributes.get("message_id", ""), self._known())
        return self._end(letter, new) if new else None

    def _known(self) -> frozenset[str]:
        """Return the IDs under which other messages were imported: they are none of this one's."""
        return frozenset(filter(None, map(_taken_as, self.done.iterdir())))

    def _marker(self, letter: Letter) -> Path:
        return self.done / f"{letter.relay}-{letter.id}"


class _RefusedError(Exception):
    """Postfix does not take the message; its text is Postfix's."""


def submit(server: smtplib.SMTP, letter: Letter, body: Path) -> str:
    """Hand a message over; return its queue ID. Raises _RefusedError, OSError, SMTPException.

    A server that has refused a message is not to be spoken to again.
    """
    options = ""
    if letter.smtputf8:
        if not server.has_extn("smtputf8"):
            raise _RefusedError("it needs SMTPUTF8, which this relay does not offer")
        options += " SMTPUTF8"
    if letter.eightbit and server.has_extn("8bitmime"):
        options += " BODY=8BITMIME"
    _must(server, b"MAIL FROM:<%b>%b" % (_address(letter.sender), options.encode()), 250)
    for each in letter.recipients:
        _must(server, b"RCPT TO:<%b>" % _address(each.address), 250)
    _must(server, b"DATA", 354)
    with body.open("rb") as stream:
        for line in stream:
            server.send(b"." + line if line.startswith(b".") else line)
    server.send(b".\r\n")
    said = _heard(server, 250)
    found = _QUEUED.search(said)
    return found[1].decode() if found else "unknown"


def _must(server: smtplib.SMTP, command: bytes, code: int) -> bytes:
    server.send(command + b"\r\n")
    return _heard(server, code)


def _heard(server: smtplib.SMTP, code: int) -> bytes:
    heard, said = server.getreply()
    if heard == code:
        return said
    raise _RefusedError(f"{heard} {said.decode(errors='replace')}")


def _address(address: str) -> bytes:
    """Return an address as SMTP writes it, quoted where it must be (RFC 5321 section 4.1.2)."""
    raw = address.encode("utf-8", "surrogateescape")
    local, at, domain = raw.rpartition(b"@")
    if not at:
        local, domain = raw, b""
    if (local and not _DOT_ATOM.fullmatch(local)) or (at and not local):
        local = b'"' + re.sub(rb'(["\\])', rb"\\\1", local) + b'"'
    return local + at + domain


def _imported(letter: Letter, new: str) -> Result:
    return Result(letter.id, True, f"imported as {new}" + (", on hold" if letter.held else ""))


def _taken_as(marker: Path) -> str:
    """Return the ID that a file names, "" where it names none."""
    try:
        return str(json.loads(marker.read_text()).get("id", ""))
    except (OSError, ValueError, AttributeError):
        return ""


def _write(file: Path, value: object) -> None:
    replace(file, json.dumps(value))


def letters(given: Sequence[str]) -> list[Path]:
    """Return the ID.json of each message that is meant by files or folders. Raises MachineError."""
    found: dict[Path, None] = {}
    for each in map(Path, given):
        inside = sorted(each.glob("*.json")) if each.is_dir() else [each.with_suffix(".json")]
        for file in inside:
            if not file.exists():
                raise MachineError(f"{file} is missing: export writes an ID.eml and an ID.json")
            found[file] = None
    if not found:
        raise MachineError("there is no exported message")
    return list(found)
