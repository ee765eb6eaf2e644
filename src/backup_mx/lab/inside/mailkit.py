"""Submit mail and read mailboxes, inside a lab machine: JSON lines on stdout.

    mailkit.py send    --folder F       submits F/envelopes.json's mail over SMTP
    mailkit.py collect --users A,B      lists every message in those users' mailboxes over IMAP

It runs alone, on the machine's own Python (3.11 to 3.13), and needs Debian's python3-dkim only to
sign or to verify. Any error ends with status 1 and one line on stderr.
"""

from __future__ import annotations

import argparse
import email
import hashlib
import imaplib
import importlib
import json
import queue
import re
import smtplib
import sys
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor, as_completed
from email.message import Message
from pathlib import Path
from types import ModuleType
from typing import Any

TRACE_FIELDS = (
    *(b"received", b"return-path", b"delivered-to", b"x-original-to"),
    *(b"received-spf", b"authentication-results"),  # RFC 7208 9.1, RFC 8601
    b"x-comment",  # policyd-spf's, for a client that it does not judge
)
VERDICT_FIELDS = (b"x-spam", b"x-rspamd-", b"x-backup-")
"""How the names of those fields begin that a spam filter or a kit of ours puts on top."""
TAG = b"\r\nX-Spam: Yes"
FOLDERS = ("INBOX", "Junk")
TIMEOUT = 120  # seconds that one answer of a server may take
FETCH_AT_ONCE = 50  # messages; a round trip each would triple the time of a collection


class MailkitError(Exception):
    """What was asked for did not work; its text is one line."""


def canonical(raw: bytes) -> bytes:
    """Return the message without the trace fields that MTAs have put on top of it.

    The block of TRACE_FIELDS and VERDICT_FIELDS at the very start goes, folded lines included, up
    to the first other field (RFC 5321 4.4: trace information is prepended). All else counts as it
    stands: line ends are not normalised, and a final CRLF is not completed, since every message
    that went over SMTP ends in one (RFC 5321 4.1.1.4) and its loss would be a change. TAG, when it
    is the last field of all, goes as well: there rspamd puts it if it has nothing else to say.
    """
    head, blank, body = raw[_end_of_trace(raw) :].partition(b"\r\n\r\n")
    return head.removesuffix(TAG) + blank + body


def _end_of_trace(raw: bytes) -> int:
    position = 0
    while position < len(raw):
        end = raw.find(b"\n", position) + 1 or len(raw)
        line = raw[position:end]
        folded = position > 0 and line[:1] in (b" ", b"\t")
        if not folded and not _is_added(line.partition(b":")[0].rstrip().lower()):
            break
        position = end
    return position


def _is_added(name: bytes) -> bool:
    return name in TRACE_FIELDS or name.startswith(VERDICT_FIELDS)


def _digest(raw: bytes) -> dict[str, Any]:
    content = canonical(raw)
    return {"sha256": hashlib.sha256(content).hexdigest(), "size": len(content)}


# --- send ---------------------------------------------------------------------------------------


def send(args: argparse.Namespace) -> None:
    """Submit the mails numbered ``first`` to ``last``; print a line for each as it is answered.

    Raises MailkitError when a file cannot be read or a connection fails; an answer other than 250
    is no error: it stands in the line's ``code`` and ``reply``.
    """
    waiting: queue.SimpleQueue[dict[str, Any]] = queue.SimpleQueue()
    for envelope in json.loads((args.folder / "envelopes.json").read_bytes()):
        if args.first <= envelope["number"] <= (args.last or sys.maxsize):
            waiting.put(envelope)
    sign, stop = _signer(args), threading.Event()
    with ThreadPoolExecutor(args.connections) as pool:
        workers = [pool.submit(_work, args, waiting, sign, stop) for _ in range(args.connections)]
        try:
            for worker in as_completed(workers):
                worker.result()
        finally:
            stop.set()  # one connection failed: the others finish their mail in hand, no more


def _work(
    args: argparse.Namespace,
    waiting: queue.SimpleQueue[dict[str, Any]],
    sign: Callable[[bytes], bytes],
    stop: threading.Event,
) -> None:
    if waiting.empty():
        return
    with smtplib.SMTP(args.host, args.port, timeout=TIMEOUT) as session:
        session.ehlo_or_helo_if_needed()
        while not stop.is_set():
            try:
                envelope = waiting.get_nowait()
            except queue.Empty:
                return
            data = (args.folder / envelope["file"]).read_bytes()
            if envelope["sign"]:
                data = sign(data)
            code, reply = _submit(session, envelope["sender"], envelope["recipients"], data)
            _answer(_sent(envelope, data, code, reply))


def _submit(
    session: smtplib.SMTP, sender: str, recipients: list[str], data: bytes
) -> tuple[int, bytes]:
    """Send one message; return the reply that decided: the first refusal, or DATA's.

    A message goes to all of its recipients or to none, so that one reply says it all.
    """
    options = ["BODY=8BITMIME", f"SIZE={len(data)}"]
    code, reply = session.mail(sender, options)
    for recipient in recipients:
        if code == 250:
            code, reply = session.rcpt(recipient)
    if code == 250:
        # Bytes go over as they are; smtplib only doubles leading dots (RFC 5321 4.5.2).
        code, reply = _data(session, data)
    if code != 250:
        session.rset()
    return code, reply


def _data(session: smtplib.SMTP, data: bytes) -> tuple[int, bytes]:
    try:
        return session.data(data)
    except smtplib.SMTPDataError as error:  # refused before the first byte of the message
        text = error.smtp_error
        return error.smtp_code, text if isinstance(text, bytes) else text.encode()


def _sent(envelope: dict[str, Any], data: bytes, code: int, reply: bytes) -> dict[str, Any]:
    kept = {key: envelope[key] for key in ("number", "message_id", "kind", "recipients")}
    answer = {"code": code, "reply": reply.decode(errors="replace")}
    return kept | {"signed": envelope["sign"]} | _digest(data) | answer


def _signer(args: argparse.Namespace) -> Callable[[bytes], bytes]:
    """Return what puts a DKIM-Signature field on top of a message (RFC 6376), or refuses to."""
    if args.dkim_key is None:
        return _refuse_to_sign
    key = args.dkim_key.read_bytes()
    selector, domain = args.dkim_selector.encode(), args.dkim_domain.encode()
    dkim = _dkim()

    def sign(data: bytes) -> bytes:
        try:
            # "simple" forgives nothing: one changed space on the way breaks the signature.
            field = dkim.sign(data, selector, domain, key, canonicalize=(b"simple", b"simple"))
        except dkim.DKIMException as error:
            raise MailkitError(f"cannot sign: {error}") from error
        return bytes(field) + data

    return sign


def _refuse_to_sign(_data: bytes) -> bytes:
    raise MailkitError("a mail wants a DKIM signature: give --dkim-key")


# --- collect ------------------------------------------------------------------------------------


def collect(args: argparse.Namespace) -> None:
    """Print a line for every message in INBOX and Junk of each of ``users``; changes no flag.

    Raises MailkitError, OSError or imaplib's error when a mailbox cannot be read.
    """
    password = args.password_file.read_text(encoding="utf-8").strip()
    for user in args.users.split(","):
        with imaplib.IMAP4(args.host, args.port, timeout=TIMEOUT) as mailbox:
            mailbox.login(user, password)
            for folder in FOLDERS:
                for raw in _messages(mailbox, user, folder):
                    _answer(_collected(user, folder, raw, args.trace))


def _messages(mailbox: imaplib.IMAP4, user: str, folder: str) -> Iterator[bytes]:
    status, answer = mailbox.select(folder, readonly=True)
    if status != "OK" and folder == "Junk":
        return  # made by the first message that is filed there
    if status != "OK":
        raise MailkitError(f"cannot open the {folder} of {user}: {_text(answer[0])}")
    count = int(_text(answer[0]))
    for first in range(1, count + 1, FETCH_AT_ONCE):
        last = min(first + FETCH_AT_ONCE - 1, count)
        status, parts = mailbox.fetch(f"{first}:{last}", "(BODY.PEEK[])")
        messages = [part[1] for part in parts if isinstance(part, tuple)]
        if status != "OK" or len(messages) != last - first + 1:
            raise MailkitError(f"messages {first} to {last} of {user} cannot be fetched")
        yield from messages


def _collected(user: str, folder: str, raw: bytes, with_trace: bool) -> dict[str, Any]:
    trace = raw[: _end_of_trace(raw)]
    top = email.message_from_bytes(trace)
    head = email.message_from_bytes(re.split(rb"\r?\n\r?\n", canonical(raw), maxsplit=1)[0])
    return {
        "user": user,
        "folder": folder,
        "message_id": str(head.get("Message-ID", "")).strip(),
        **_digest(raw),
        "dkim": _verify(raw) if "DKIM-Signature" in head else None,
        "relayed_by": _relayed_by(top),
        "is_dsn": _is_dsn(top, head),
        "trace": trace.decode(errors="replace") if with_trace else "",
    }


def _relayed_by(top: Message) -> list[str]:
    """Return the "by" hosts of the added Received fields, the last hop first (RFC 5321 4.4)."""
    bare = [re.sub(r"\([^()]*\)", " ", str(each)) for each in top.get_all("Received", [])]
    found = [re.search(r"(?:^|\s)by\s+([^\s;]+)", field) for field in bare]
    return [match[1] for match in found if match]


def _is_dsn(top: Message, head: Message) -> bool:
    """Tell a bounce: a null return path (or none noted), and a report's type or author."""
    if str(top.get("Return-Path", "<>")).strip() != "<>":
        return False
    report = head.get_content_type() == "multipart/report"
    status = str(head.get_param("report-type", "")).lower() == "delivery-status"
    return (report and status) or "mailer-daemon" in str(head.get("From", "")).lower()


def _verify(raw: bytes) -> bool:
    dkim = _dkim()
    try:
        return bool(dkim.DKIM(raw).verify())
    except (
        dkim.DnsTimeoutError,
        RuntimeError,
    ) as error:  # no verdict: the resolver is at fault or absent
        raise MailkitError(f"cannot look a DKIM key up: {error}") from error
    except dkim.DKIMException:
        return False


def _dkim() -> ModuleType:
    # Only a mail with a signature needs it, so only then is it missed.
    try:
        return importlib.import_module("dkim")
    except ImportError as error:
        raise MailkitError("python3-dkim is not installed on this machine") from error


# --- the command line ---------------------------------------------------------------------------

_stdout = threading.Lock()


def _answer(record: dict[str, Any]) -> None:
    with _stdout:
        print(json.dumps(record), flush=True)


def _text(value: object) -> str:
    return value.decode(errors="replace") if isinstance(value, bytes) else str(value)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    commands = parser.add_subparsers(required=True)
    sender = commands.add_parser("send", help="submit mail over SMTP")
    sender.set_defaults(run=send)
    sender.add_argument("--folder", type=Path, required=True)
    sender.add_argument("--host", default="127.0.0.1")
    sender.add_argument("--port", type=int, default=25)
    sender.add_argument("--first", type=int, default=1, help="number of the first mail")
    sender.add_argument("--last", type=int, help="number of the last mail (default: all)")
    sender.add_argument("--connections", type=int, default=4)
    sender.add_argument("--dkim-key", type=Path)
    sender.add_argument("--dkim-domain", default="example.net")
    sender.add_argument("--dkim-selector", default="lab")
    reader = commands.add_parser("collect", help="list what mailboxes hold, over IMAP")
    reader.set_defaults(run=collect)
    reader.add_argument("--host", default="127.0.0.1")
    reader.add_argument("--port", type=int, default=143)
    reader.add_argument("--users", required=True, help="addresses, separated by commas")
    reader.add_argument("--password-file", type=Path, required=True, help="one for all users")
    reader.add_argument("--trace", action="store_true", help="show the fields that MTAs put on top")
    return parser


def main() -> int:
    """Run the command line; return the exit status."""
    args = _parser().parse_args()
    try:
        args.run(args)
    except (MailkitError, OSError, smtplib.SMTPException, imaplib.IMAP4.error, ValueError) as error:
        print(f"mailkit: {' '.join(str(error).split()) or type(error).__name__}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
