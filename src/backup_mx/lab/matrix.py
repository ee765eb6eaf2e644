"""The matrix of senders: whom the drill ``senders`` plays, read from senders.toml."""

from __future__ import annotations

import base64
import functools
import hashlib
import random
import tomllib
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from datetime import datetime
from email.utils import format_datetime
from importlib import resources
from typing import Any

from backup_mx.errors import LabError

LARGE_OCTETS = 20_000_000
GTUBE = "XJS*C4JDBQADN1.NSBN3*2IDNEN*GTUBE-STANDARD-ANTI-UBE-TEST-EMAIL*C.34X"
ANSWERS = ("take", "refuse", "defer")

_SENTENCE = (
    "Dear reader, the meeting is on Thursday at ten; please bring the figures of last month."
)
# One script a word: rspamd guesses at the language of words that mix Latin with its accents, by
# chance (R_MIXED_CHARSET), and not the same each time.
_EIGHT_BIT = "Αγαπητέ αναγνώστη, η συνάντηση είναι την Πέμπτη στις δέκα."


@dataclass(frozen=True)
class Letter:
    """One sender, and the letter it sends; the fields are those that senders.toml explains."""

    name: str
    address: str
    helo: str
    sender: str
    straight: str
    author: str = ""
    direct: bool = False
    recipients: tuple[str, ...] = ("alice@example.org",)
    body: str = "plain"
    sign: str = ""
    weight: float = 0.0
    tries: int = 1
    by: str = ""
    folder: str = ""
    judged: bool = True
    spf: str = ""
    dkim: str = ""
    dmarc: str = ""

    def envelope(self, token: str) -> str:
        """Return the envelope sender of the letter that is told by ``token``; "" for null."""
        return self.sender.format(token=token)

    @property
    def extensions(self) -> tuple[str, ...]:
        """The parameters of MAIL that it has to be sent with (RFC 6152, RFC 6531)."""
        eight = ("BODY=8BITMIME",) if self.body == "8bit" else ()
        return eight if self.sender.isascii() else (*eight, "SMTPUTF8")


@dataclass(frozen=True)
class Posted:
    """A letter as it is sent once: its Message-ID, envelope sender and octets with CRLF."""

    letter: Letter
    message_id: str
    sender: str
    data: bytes

    @property
    def sha256(self) -> str:
        """The hash by which mailkit tells whether a copy is unchanged."""
        return hashlib.sha256(self.data).hexdigest()


def letters() -> tuple[Letter, ...]:
    """Return the matrix. Raises LabError when the file is not what it should be."""
    text = (resources.files("backup_mx.lab") / "senders.toml").read_text(encoding="utf-8")
    return parse(text)


def parse(text: str) -> tuple[Letter, ...]:
    """Read a matrix from TOML. Raises LabError on a mistake, which it names."""
    try:
        tables = tomllib.loads(text)["letter"]
    except (tomllib.TOMLDecodeError, KeyError) as error:
        raise LabError(f"the matrix of senders cannot be read: {error}") from error
    found = tuple(map(_letter, tables))
    for key in ("name", "address"):
        values = [getattr(letter, key) for letter in found]
        if len(set(values)) < len(values):
            raise LabError(f"the matrix of senders has one {key} twice")
    return found


def _letter(table: Mapping[str, Any]) -> Letter:
    unknown = table.keys() - {field.name for field in fields(Letter)}
    if unknown:
        raise LabError(f"a letter of the matrix has no {', '.join(sorted(unknown))}: {table}")
    try:
        letter = Letter(**table)
    except TypeError as error:
        raise LabError(f"a letter of the matrix lacks something: {error}") from None
    if letter.straight not in ANSWERS or letter.body not in _BODIES:
        raise LabError(f'what is "{letter.straight}", "{letter.body}" in the letter {letter.name}?')
    return Letter(**(asdict(letter) | {"recipients": tuple(letter.recipients)}))


def post(letter: Letter, token: str, now: datetime) -> Posted:
    """Write ``letter`` with everything in it that has to be new each time: ``token``, a word.

    Neither its envelope sender nor its body was ever seen before, as a greylist needs it.
    """
    domain = (letter.author or letter.sender).rpartition("@")[2]
    date = format_datetime(now)
    message_id = f"<{token}@{domain}>"
    sender = letter.envelope(token)
    body, kind = _BODIES[letter.body](token)
    head = [
        # From comes first: trace fields on top of a copy are taken for added ones.
        f"From: {letter.author or sender}",
        *([] if letter.direct else _hops(letter.helo, date)),
        f"To: {', '.join(letter.recipients)}",
        f"Subject: The meeting on Thursday ({token})",
        f"Date: {date}",
        f"Message-ID: {message_id}",
        "MIME-Version: 1.0",
        *kind,
        *([f"X-Lab-Weight: {letter.weight}"] if letter.weight else []),
    ]
    data = "\r\n".join([*head, "", body]).encode()
    return Posted(letter, message_id, sender, data)


def _hops(helo: str, date: str) -> list[str]:
    """Return the fields of two hops within the sender's own house, as most mail has some."""
    domain = helo.partition(".")[2]
    return [
        f"Received: from post.{domain} (post.{domain} [192.0.2.121])\r\n"
        f"\tby {helo} (Postfix) with ESMTPS id 4inside2; {date}",
        f"Received: from desk.{domain} (desk.{domain} [192.0.2.122])\r\n"
        f"\tby post.{domain} (Postfix) with ESMTPS id 4inside1; {date}",
    ]


def _text(token: str, *sentences: str) -> str:
    return "\r\n".join([*sentences, f"The reference is {token}.", ""])


def _plain(token: str) -> tuple[str, list[str]]:
    return _text(token, _SENTENCE), [
        "Content-Type: text/plain; charset=us-ascii",
        "Content-Transfer-Encoding: 7bit",
    ]


def _eight_bit(token: str) -> tuple[str, list[str]]:
    return _text(token, _SENTENCE, _EIGHT_BIT), [
        "Content-Type: text/plain; charset=utf-8",
        "Content-Transfer-Encoding: 8bit",
    ]


def _gtube(token: str) -> tuple[str, list[str]]:
    return _text(token, _SENTENCE, GTUBE), _plain(token)[1]


def _large(token: str) -> tuple[str, list[str]]:
    parts = [
        "--=_lab",
        *_plain(token)[1],
        "",
        _plain(token)[0],
        "--=_lab",
        'Content-Type: application/octet-stream; name="figures.bin"',
        'Content-Disposition: attachment; filename="figures.bin"',
        "Content-Transfer-Encoding: base64",
        "",
        _attachment(),
        "--=_lab--",
        "",
    ]
    return "\r\n".join(parts), ['Content-Type: multipart/mixed; boundary="=_lab"']


@functools.cache
def _attachment() -> str:
    """Return LARGE_OCTETS of base64, always the same."""
    octets = random.Random(LARGE_OCTETS).randbytes(LARGE_OCTETS // 78 * 57)  # noqa: S311 (no secret)
    return base64.encodebytes(octets).decode().replace("\n", "\r\n")


_BODIES = {"plain": _plain, "8bit": _eight_bit, "gtube": _gtube, "large": _large}
