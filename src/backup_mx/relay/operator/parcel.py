"""An exported message: ID.eml, the bytes as they would be delivered, and ID.json beside it.

Between machines both travel as lines of JSON: the bytes in parts, then what stands in the JSON.
"""

from __future__ import annotations

import base64
import hashlib
import json
import os
import re
import time
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import IO, Any

from backup_mx.errors import BackupMxError
from backup_mx.relay import files
from backup_mx.relay.queue import queueid
from backup_mx.relay.text import cut, printable

FORMAT = 1
_PART = 1 << 20
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9.-]{0,252}")
_NEVER = re.compile(r"[\x00\r\n]")
"""What ends a command; a local part that is quoted may hold all else, and Postfix takes it."""
# Letters beyond ASCII are those of SMTPUTF8, or bytes that are no UTF-8: neither ends a command.
_LABEL = r"[A-Za-z0-9_\x80-\U0010ffff-]{1,63}"
_LITERAL = r"\[[A-Za-z0-9:.-]{1,60}\]"  # RFC 5321 section 4.1.3
_DOMAIN = re.compile(rf"(?=.{{1,255}}\Z)({_LABEL}(\.{_LABEL})*\.?|{_LITERAL})")
_AHEAD = 86_400  # seconds that another machine's clock may be ahead of ours
_SAID = 200  # columns
_FOREIGN = "not what backup-mx export writes"
_ODD = (KeyError, TypeError, ValueError, RecursionError)
"""What Python raises where JSON is not what was expected."""


class ParcelError(BackupMxError):
    """An exported message is not what export writes."""


class SpoiltError(ParcelError):
    """That is so of one message, id, which was asked for: others may be as they should."""

    def __init__(self, queue_id: str, trouble: str) -> None:
        self.id = queue_id
        super().__init__(trouble)


@dataclass(frozen=True)
class To:
    """A recipient who does not have the message yet, and why; orcpt and notify as in RFC 3461."""

    address: str
    original: str = ""
    orcpt: str = ""
    notify: str = ""
    reason: str = ""


@dataclass(frozen=True)
class Letter:
    """What stands in ID.json: a message's envelope; accepted in seconds since 1970.

    relay is the host it was exported from, ids the queue IDs it has had there, the last one its
    present one; size and sha256 are those of the .eml. Lone surrogates in text are bytes that are
    no UTF-8.
    """

    format: int
    relay: str
    ids: tuple[str, ...]
    sender: str
    recipients: tuple[To, ...]
    accepted: int
    held: bool
    size: int
    sha256: str
    smtputf8: bool
    eightbit: bool
    attributes: dict[str, str]

    @property
    def id(self) -> str:
        """Its queue ID when it was exported."""
        return self.ids[-1]

    @property
    def text(self) -> str:
        """The letter as JSON."""
        return json.dumps(asdict(self), indent=1) + "\n"


_NAMES = tuple(each.name for each in fields(Letter))


def read(text: str | bytes) -> Letter:
    """Read what Letter.text wrote. Raises ParcelError."""
    try:
        found = json.loads(text)
    except (RecursionError, ValueError) as error:
        raise ParcelError(f"{_FOREIGN}: no JSON: {_words(error)}") from None
    if trouble := _misshapen(found):
        raise ParcelError(f"{_FOREIGN}: {_words(trouble)}")
    people = tuple(To(**each) for each in found["recipients"])
    letter = Letter(**found | {"ids": tuple(found["ids"]), "recipients": people})
    if trouble := _trouble(letter):
        raise ParcelError(f"{_FOREIGN}: {trouble}")
    return letter


def read_file(file: Path) -> Letter:
    """Read an ID.json. Raises ParcelError, which names it, and OSError."""
    try:
        return read(file.read_bytes())
    except ParcelError as error:
        raise ParcelError(f"{file} is {error}") from None


def _misshapen(found: Any) -> str:  # noqa: ANN401  whatever JSON holds
    """Tell what a letter lacks, or has that it should not, of its members."""
    if not isinstance(found, dict):
        return "no object"
    if wrong := _members(found, Letter, required=_NAMES):
        return wrong
    if not all(isinstance(found[name], list) for name in ("ids", "recipients")):
        return "ids and recipients are lists"
    for each in found["recipients"]:
        if not isinstance(each, dict):
            return "a recipient is an object"
        if wrong := _members(each, To, required=("address",)):
            return f"of a recipient, {wrong}"
    return ""


def _members(found: dict[str, Any], kind: type[Letter | To], required: Iterable[str]) -> str:
    if missing := [name for name in required if name not in found]:
        return f"it has no {', '.join(missing)}"
    unknown = sorted(found.keys() - {each.name for each in fields(kind)})
    return f"it has {', '.join(unknown)}" if unknown else ""


def _words(said: object) -> str:
    """Return what is said: it may quote all of a file."""
    return cut(printable(str(said)), _SAID)


def _trouble(letter: Letter) -> str:
    """Tell what is wrong in a letter: it comes from a file, and what is in it reaches an MTA."""
    if any(type(getattr(letter, name)) is not kind for name, kind in _KINDS.items()):
        return "a value of the wrong kind"
    texts = [text for each in letter.recipients for text in asdict(each).values()]
    if not all(map(_is_text, (letter.sender, *texts, *_flat(letter.attributes)))):
        return "a text that is none"
    if letter.format != FORMAT:
        return f"format {letter.format}"
    if not letter.ids or not all(map(queueid.valid, letter.ids)):
        return "a queue ID"
    if not _NAME.fullmatch(letter.relay):
        return "the relay's name"
    if not 0 <= letter.accepted <= time.time() + _AHEAD:
        return "when it was accepted"
    addresses = [each.address for each in letter.recipients]
    if not all(map(_is_address, (letter.sender, *addresses))):
        return "an address"
    return "" if addresses and all(addresses) else "no recipient"


def _flat(values: dict[Any, Any]) -> Iterator[Any]:
    for item in values.items():
        yield from item


def _is_text(value: object) -> bool:
    """Tell whether a value is text that bytes can stand for."""
    if not isinstance(value, str):
        return False
    try:
        value.encode("utf-8", "surrogateescape")
    except UnicodeEncodeError:
        return False
    return True


def _is_address(address: str) -> bool:
    """Tell whether SMTP can carry an address, or "": its local part is quoted where it has to be.

    The domain never is (RFC 5321 section 4.1.2): whatever else it held would be read as SMTP.
    """
    local, at, domain = address.rpartition("@")
    if len(address) >= 2048 or _NEVER.search(address):
        return False
    return not at or bool(local and _DOMAIN.fullmatch(domain))


_KINDS = {
    **dict.fromkeys(("relay", "sender", "sha256"), str),
    **dict.fromkeys(("format", "accepted", "size"), int),
    **dict.fromkeys(("held", "smtputf8", "eightbit"), bool),
    "attributes": dict,
}


def wire(stream: IO[bytes]) -> Iterator[bytes]:
    """Yield a stored message as SMTP would carry it: lines end in CR LF, the last one too."""
    last = b"\n"
    for line in stream:
        yield line[:-1] + b"\r\n" if line.endswith(b"\n") else line
        last = line
    if not last.endswith(b"\n"):
        yield b"\r\n"


def parts(chunks: Iterable[bytes]) -> Iterator[bytes]:
    """Yield the same bytes in parts of one size, so that none is large and few are small."""
    kept = bytearray()
    for chunk in chunks:
        kept += chunk
        while len(kept) >= _PART:
            yield bytes(kept[:_PART])
            del kept[:_PART]
    if kept:
        yield bytes(kept)


def carried(queue_id: str, chunks: Iterable[bytes]) -> Iterator[str]:
    """Yield the lines in which a message's bytes travel; a letter's line has to follow."""
    for part in parts(chunks):
        yield json.dumps({"id": queue_id, "part": base64.b64encode(part).decode()})


def sealed(letter: Letter) -> str:
    """Return the line that ends a message on its way."""
    return json.dumps({"id": letter.id, "letter": letter.text})


@dataclass
class Inbox:
    """Takes the lines in which messages travel, and makes files of them in a folder.

    wanted are the IDs of those it takes, each once; None: whatever comes.
    """

    folder: Path
    wanted: set[str] | None = None
    _begun: set[str] = field(default_factory=set)

    def take(self, line: str) -> Letter | None:
        """Take a line; return the letter when its message is whole and both files are there.

        Raises SpoiltError when a message that is wanted is not what was sent, and ParcelError for
        anything else that is not to come.
        """
        try:
            found: dict[str, Any] = json.loads(line)
            queue_id = found["id"]
            if not queueid.valid(queue_id):
                raise ParcelError("a line without a queue ID")
            if self.wanted is not None and queue_id not in self.wanted:
                raise ParcelError(f"{queue_id} came, which was not asked for")
            if "part" in found:
                self._append(queue_id, base64.b64decode(found["part"], validate=True))
                return None
            text = found["letter"]
        except _ODD as error:
            raise ParcelError(f"not a line of backup-mx export: {_words(error)}") from None
        try:
            return self._close(queue_id, read(text))
        except ParcelError as error:
            self._forget(queue_id)
            raise SpoiltError(queue_id, str(error)) from None

    def end(self) -> None:
        """Forget what is not whole, and return when all that is will outlast a power cut."""
        for each in tuple(self._begun):
            self._forget(each)
        files.on_disk(self.folder)

    def _append(self, queue_id: str, part: bytes) -> None:
        mode = "ab" if queue_id in self._begun else "xb"  # never into a file of somebody else's
        with open(self._new(queue_id), mode, opener=_private) as file:
            self._begun.add(queue_id)
            file.write(part)

    def _close(self, queue_id: str, letter: Letter) -> Letter:
        if letter.id != queue_id:
            raise ParcelError(f"{queue_id} came with the letter of {letter.id}")
        new = self._new(queue_id)
        self._append(queue_id, b"")
        check(new, letter)
        files.on_disk(new)
        new.replace(self.folder / f"{queue_id}.eml")
        self._begun.discard(queue_id)
        write(self.folder, letter)
        if self.wanted is not None:
            self.wanted.discard(queue_id)
        return letter

    def _forget(self, queue_id: str) -> None:
        if queue_id in self._begun:
            self._begun.discard(queue_id)
            self._new(queue_id).unlink()

    def _new(self, queue_id: str) -> Path:
        return self.folder / f".{queue_id}.eml.new"

    def begin(self) -> None:
        """Make the folder, and forget what an earlier run left half done."""
        self.folder.mkdir(parents=True, exist_ok=True)
        for each in self.folder.glob(".*.eml.new"):
            each.unlink()
        self._begun.clear()


def check(file: Path, letter: Letter) -> None:
    """Compare a message's bytes with its letter. Raises ParcelError.

    A last line without its end would hide the one that ends DATA (RFC 5321 section 4.1.1.4).
    """
    with file.open("rb") as stream:
        digest = hashlib.file_digest(stream, "sha256").hexdigest()
        stream.seek(max(stream.seek(0, os.SEEK_END) - 2, 0))
        end = stream.read()
    if digest != letter.sha256:
        raise ParcelError(f"{letter.id}.eml is not what was exported: its SHA-256 differs")
    if end not in (b"", b"\r\n"):
        raise ParcelError(f"{letter.id}.eml is cut off: it has no line end at its end")


def write(folder: Path, letter: Letter) -> None:
    """Write ID.json, in one step; its .eml has to be there."""
    files.replace(folder / f"{letter.id}.json", letter.text, 0o600)


def _private(path: str, flags: int) -> int:
    return os.open(path, flags | os.O_NOFOLLOW, 0o600)
