"""The mail a drill sends: a little of everything that an MTA is tempted to change.

Every mail here passes a stock Postfix unchanged when it is submitted with BODY=8BITMIME, so that a
difference at the mailbox is the doing of the path under test. What a stock cleanup(8) drops or
rewrites by itself is left out on purpose: Bcc, Return-Path, Content-Length
(``message_drop_headers``), unqualified addresses, lines above 998 octets (RFC 5321 4.5.3.1.6).
"""

from __future__ import annotations

import base64
import json
import quopri
import random
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from pathlib import Path

from backup_mx.errors import LabError

SENDER_DOMAIN = "example.net"
SENDERS = ("post", "news", "billing+2026", "o'hara", "first.last")
RECIPIENTS = ("alice@example.org", "bob@example.org", "carol@example.org", "dave@example.org")
LARGE_OCTETS = 15_000_000
LINE_OCTETS = 998  # without CRLF, RFC 5322 2.1.1

_DATE = b"Date: Thu, 01 Jan 2026 00:00:00 +0000"
_CRLF = b"\r\n"
_SENTENCE = (
    "mail kept while home was dark and handed over when the light came back "
    "a queue is a promise on a disk from a stranger to a friend"
)
_WORDS = _SENTENCE.split()
_ACCENTED = ["Grüße", "café", "Ångström", "niño", "façade", "Straße", "déjà"]


@dataclass(frozen=True)
class Mail:
    """One mail: its number (from 1), envelope (sender "" for null) and octets with CRLF.

    ``sign`` asks the sender's machine for a DKIM signature before it submits the mail.
    """

    number: int
    message_id: str
    kind: str
    sender: str
    recipients: tuple[str, ...]
    data: bytes
    sign: bool


@dataclass(frozen=True)
class _Draft:
    """What a kind decides: fields beside the common ones (which it may replace), and the body."""

    body: bytes
    fields: tuple[bytes, ...] = ()
    subject: bytes = b"A mail from the lab"
    encoding: bytes = b"7bit"
    content_type: bytes = b"text/plain; charset=us-ascii"


def corpus(count: int, seed: int) -> list[Mail]:
    """Make ``count`` mails: the same bytes for the same arguments.

    Kinds go round in the order of KINDS, except "large" (15 MB), which occurs once, in the first
    round. So a corpus of at least ``len(KINDS)`` mails holds every kind, a shorter one the first.
    """
    everyday = [kind for kind in KINDS if kind != "large"]
    turns = range(1, count // len(everyday) + 1)
    order = [(kind, 0) for kind in KINDS] + [(kind, turn) for turn in turns for kind in everyday]
    return [
        _mail(number, kind, turn, seed)
        for number, (kind, turn) in enumerate(order[:count], start=1)
    ]


def uniform(count: int, seed: int, octets: int) -> list[Mail]:
    """Make ``count`` plain mails of ``octets`` each, for one recipient each, round in turn."""
    return [_of_size(_mail(number, "plain", 0, seed), octets) for number in range(1, count + 1)]


def _of_size(mail: Mail, octets: int) -> Mail:
    """Make a mail ``octets`` long: the first line of its body over and over."""
    head, _, body = mail.data.partition(b"\r\n\r\n")
    line = body.partition(_CRLF)[0] + _CRLF
    count, rest = divmod(octets - len(head) - 6, len(line))
    return replace(mail, data=head + b"\r\n\r\n" + line * count + b"x" * rest + _CRLF)


def write(mails: Iterable[Mail], folder: Path) -> None:
    """Write NNNNN.eml for each mail and envelopes.json into ``folder``, for ``mailkit send``.

    Raises LabError when the folder cannot be written.
    """
    envelopes = []
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for mail in mails:
            name = f"{mail.number:05d}.eml"
            (folder / name).write_bytes(mail.data)
            envelopes.append(_envelope(mail, name))
        (folder / "envelopes.json").write_text(json.dumps(envelopes, indent=1), encoding="utf-8")
    except OSError as error:
        raise LabError(f"cannot write the drill's mail to {folder}: {error.strerror}") from error


def _envelope(mail: Mail, name: str) -> dict[str, object]:
    return {
        "number": mail.number,
        "message_id": mail.message_id,
        "kind": mail.kind,
        "sender": mail.sender,
        "recipients": mail.recipients,
        "sign": mail.sign,
        "file": name,
    }


def _mail(number: int, kind: str, turn: int, seed: int) -> Mail:
    # A generator of its own for each mail: the first mails of a longer corpus are the shorter one.
    chance = random.Random(f"{seed}/{number}")  # noqa: S311 (data to compare, not a secret)
    message_id = f"<{number:05d}.{seed}@lab.example.net>"
    author = f"{SENDERS[number % len(SENDERS)]}@{SENDER_DOMAIN}"
    recipients = _recipients(kind, number, turn)
    return Mail(
        number=number,
        message_id=message_id,
        kind=kind,
        sender="" if kind == "null sender" else author,
        recipients=recipients,
        data=_octets(KINDS[kind](chance, turn), message_id, author, recipients),
        sign=kind == "dkim-signed",
    )


def _recipients(kind: str, number: int, turn: int) -> tuple[str, ...]:
    count = 2 + turn % 3 if kind == "several recipients" else 1
    return tuple(RECIPIENTS[(number + step) % len(RECIPIENTS)] for step in range(count))


def _octets(draft: _Draft, message_id: str, author: str, recipients: tuple[str, ...]) -> bytes:
    # From comes first: reconciling takes the trace fields on top of a copy for added ones.
    common = (
        b"From: " + author.encode(),
        b"To: " + ", ".join(recipients).encode(),
        b"Subject: " + draft.subject,
        _DATE,
        b"Message-ID: " + message_id.encode(),
        b"MIME-Version: 1.0",
        b"Content-Type: " + draft.content_type,
        b"Content-Transfer-Encoding: " + draft.encoding,
    )
    replaced = {_name(field) for field in draft.fields}
    kept = tuple(field for field in common if _name(field) not in replaced)
    return _CRLF.join([*kept, *draft.fields, b"", draft.body])


def _name(field: bytes) -> bytes:
    return field.partition(b":")[0]


def _words(chance: random.Random, count: int, vocabulary: list[str]) -> str:
    return " ".join(vocabulary[chance.randrange(len(vocabulary))] for _ in range(count))


def _text(chance: random.Random, lines: int = 0, vocabulary: list[str] = _WORDS) -> str:
    """Return some lines of words, each ended by CRLF (a random number of lines unless told)."""
    count = lines or chance.randrange(3, 120)
    return "".join(
        _words(chance, chance.randrange(4, 13), vocabulary) + "\r\n" for _ in range(count)
    )


def _plain(chance: random.Random, _turn: int) -> _Draft:
    return _Draft(_text(chance).encode())


def _part(kind: bytes, encoding: bytes, content: bytes) -> bytes:
    head = b"Content-Type: " + kind + b"\r\nContent-Transfer-Encoding: " + encoding
    return b"--=_lab\r\n" + head + b"\r\n\r\n" + content


def _base64(octets: bytes) -> bytes:
    return base64.encodebytes(octets).replace(b"\n", _CRLF)


def _with_attachments(text: str, attachments: list[bytes]) -> _Draft:
    parts = [_part(b"text/plain; charset=us-ascii", b"7bit", text.encode())]
    for index, octets in enumerate(attachments):
        name = f'application/octet-stream; name="file-{index}.bin"'.encode()
        parts.append(_part(name, b"base64", _base64(octets)))
    return _Draft(
        b"".join(parts) + b"--=_lab--\r\n", content_type=b'multipart/mixed; boundary="=_lab"'
    )


def _multipart(chance: random.Random, turn: int) -> _Draft:
    # Most attachments are small; every fourth multipart mail carries 100 KB to 1 MB.
    low, high = (75_000, 740_000) if turn % 4 == 1 else (500, 20_000)
    sizes = [chance.randrange(low, high), chance.randrange(200, 2_000)]
    return _with_attachments(_text(chance, 5), [chance.randbytes(size) for size in sizes])


def _large(chance: random.Random, _turn: int) -> _Draft:
    octets_a_line = 57  # become 76 characters and CRLF
    size = LARGE_OCTETS // 78 * octets_a_line
    return _with_attachments(_text(chance, 3), [chance.randbytes(size)])


def _utf8(chance: random.Random, _turn: int) -> _Draft:
    body = _text(chance, vocabulary=_WORDS + _ACCENTED + ["日本語", "почта", "📮"]).encode()
    return _Draft(body, encoding=b"8bit", content_type=b"text/plain; charset=utf-8")


def _latin1(chance: random.Random, _turn: int) -> _Draft:
    body = _text(chance, vocabulary=_WORDS + _ACCENTED).encode("latin-1")
    return _Draft(body, encoding=b"8bit", content_type=b"text/plain; charset=iso-8859-1")


def _raw_octets(chance: random.Random, _turn: int) -> _Draft:
    lines = [
        bytes(octet | 0x80 for octet in chance.randbytes(chance.randrange(1, 400))) + _CRLF
        for _ in range(20)
    ]
    return _Draft(
        b"".join(lines), encoding=b"8bit", content_type=b"text/plain; charset=unknown-8bit"
    )


def _quoted_printable(chance: random.Random, _turn: int) -> _Draft:
    text = _text(chance, vocabulary=_WORDS + _ACCENTED + ["=", "a\t", "trailing "])
    body = quopri.encodestring(text.replace("\r\n", "\n").encode()).replace(b"\n", _CRLF)
    return _Draft(body, encoding=b"quoted-printable", content_type=b"text/plain; charset=utf-8")


def _long_lines(chance: random.Random, _turn: int) -> _Draft:
    # The limit is counted without the dot that transparency adds (RFC 5321 4.5.3.1.6).
    line = _words(chance, LINE_OCTETS, _WORDS)[: LINE_OCTETS - 1] + "|"
    lines = [line, "." + line[1:], "short", "x" * LINE_OCTETS, line[::-1]]
    return _Draft("".join(each + "\r\n" for each in lines).encode())


def _dot_lines(chance: random.Random, _turn: int) -> _Draft:
    lines = [".", "..", ".foo", "...", ". ", "before", ".", "after", "", ".", "", ".."]
    start = chance.randrange(len(lines))
    return _Draft("".join(line + "\r\n" for line in [*lines[start:], *lines[:start], "."]).encode())


def _dkim_signed(chance: random.Random, turn: int) -> _Draft:
    makers = (_plain, _utf8, _dot_lines, _quoted_printable)
    return makers[turn % len(makers)](chance, turn)


def _null_sender(chance: random.Random, _turn: int) -> _Draft:
    # An answer of an absence notifier, not a DSN: a drill counts DSNs, and wants none.
    fields = (b"Auto-Submitted: auto-replied",)
    return _Draft(_text(chance, 4).encode(), fields, subject=b"I am away")


def _folded_headers(chance: random.Random, _turn: int) -> _Draft:
    fields = (
        b"X-Folded:\r\n\tstarts on the next line\r\n\tand goes\ton\r\n  with  two  spaces",
        b"References: <1@lab.example.net>\r\n\t<2@lab.example.net>\r\n <3@lab.example.net>",
        b"x-lower-case:no space after the colon",
    )
    return _Draft(_text(chance, 6).encode(), fields, subject=b"A subject\r\n\tfolded by a tab")


def _long_header(chance: random.Random, _turn: int) -> _Draft:
    value = b"\r\n ".join(_words(chance, 12, _WORDS).encode() for _ in range(160))[:9_900]
    return _Draft(_text(chance, 6).encode(), (b"X-Long: " + value.rstrip() + b" end",))


def _repeated_headers(chance: random.Random, _turn: int) -> _Draft:
    fields = (b"X-Twice: one", b"X-Between: 1", b"X-Twice: two", b"X-Twice: one", b"X-None:")
    return _Draft(_text(chance, 6).encode(), (*fields, b"Comments: a", b"Comments: a"))


def _eight_bit_subject(chance: random.Random, turn: int) -> _Draft:
    # Not valid without SMTPUTF8 (RFC 6532), yet common; it must pass as it came.
    subject = _words(chance, 5, _ACCENTED)
    charset = ("utf-8", "latin-1")[turn % 2]
    return _Draft(_text(chance, 6).encode(), subject=subject.encode(charset))


def _address_comments(chance: random.Random, _turn: int) -> _Draft:
    fields = (
        b'Cc: "bob, at home" <bob@example.org> (write to bob),\r\n\tcarol@example.org (carol)',
        b"Reply-To: (root) post@example.net (or operator)",
        b'Sender: "post(master)" <post@example.net>',
    )
    return _Draft(_text(chance, 6).encode(), fields)


def _empty_body(_chance: random.Random, _turn: int) -> _Draft:
    return _Draft(b"")


KINDS: dict[str, Callable[[random.Random, int], _Draft]] = {
    "plain": _plain,
    "multipart": _multipart,
    "8-bit, UTF-8": _utf8,
    "8-bit, Latin-1": _latin1,
    "8-bit, raw octets": _raw_octets,
    "quoted-printable": _quoted_printable,
    "long lines": _long_lines,
    "dot lines": _dot_lines,
    "dkim-signed": _dkim_signed,
    "several recipients": _plain,
    "null sender": _null_sender,
    "folded headers": _folded_headers,
    "long header": _long_header,
    "repeated headers": _repeated_headers,
    "8-bit subject": _eight_bit_subject,
    "address comments": _address_comments,
    "empty body": _empty_body,
    "large": _large,
}
