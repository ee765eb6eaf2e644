"""Play senders, inside a lab machine: a client of its own for each letter, JSON lines on stdout.

    client.py --letters F/letters.json --server 198.51.100.10:25 --server 203.0.113.20:25

Each connects from its own address and says its own HELO. The servers are tried in order, as a
sender tries MX hosts (RFC 5321 5.1): the next one only when one cannot be talked to. A 4xx is
tried again a little later, within bounds. It runs alone, on the machine's own Python.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import smtplib
import ssl
import sys
import time
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

TIMEOUT = 60  # seconds that one answer of a server may take


def deliver(letter: dict[str, Any], args: argparse.Namespace) -> dict[str, Any]:
    """Send one letter until it is taken or refused; return the answers in their order.

    Each answer is a string, "451 4.7.1 Try again later"; server is the one that gave the last,
    "" when none could be talked to.
    """
    answers: list[str] = []
    deadline = time.monotonic() + args.patience
    while True:
        code, reply, server = _try(letter, args.server)
        answers.append(f"{code} {reply}" if server else reply)
        if code // 100 != 4 or time.monotonic() + args.pause > deadline:
            return {"name": letter["name"], "code": code, "server": server, "answers": answers}
        time.sleep(args.pause)


def _try(letter: dict[str, Any], servers: Iterable[str]) -> tuple[int, str, str]:
    """Return code, text and server of the answer that decided; a code of 421 when none came."""
    words = "nobody to talk to"
    for server in servers:
        host, _, port = server.rpartition(":")
        try:
            code, reply = _converse(letter, host, int(port))
            return code, " ".join(reply.decode(errors="replace").split()), server
        except smtplib.SMTPServerDisconnected as error:
            words = f"{server}: {error}"
        except OSError as error:
            words = f"{server}: {error.strerror}"
    return 421, words, ""


def _converse(letter: dict[str, Any], host: str, port: int) -> tuple[int, bytes]:
    """Connect, hand the letter over, and return the reply that decided."""
    source = (letter["address"], 0)
    try:
        session = smtplib.SMTP(host, port, letter["helo"], TIMEOUT, source)
    except smtplib.SMTPConnectError as error:  # a greeting that refuses
        return error.smtp_code, _octets(error.smtp_error)
    with contextlib.closing(session):  # what is said to QUIT changes nothing
        return _submit(session, letter)


def _octets(reply: bytes | str) -> bytes:
    return reply if isinstance(reply, bytes) else reply.encode()


def _submit(session: smtplib.SMTP, letter: dict[str, Any]) -> tuple[int, bytes]:
    """Go through one transaction; return the reply that decided it."""
    code, reply = session.ehlo()
    if letter["tls"] and session.has_extn("starttls"):
        # As MTAs do: encrypted, with whoever it is (RFC 7435).
        session.starttls(context=ssl._create_unverified_context())  # noqa: S323
        code, reply = session.ehlo()
    if code == 250:
        session.command_encoding = "utf-8"
        parameters = " ".join([f"SIZE={letter['size']}", *letter["extensions"]])
        code, reply = session.docmd("MAIL", f"FROM:<{letter['sender']}> {parameters}")
    for recipient in letter["recipients"]:
        if code == 250:
            code, reply = session.rcpt(recipient)
    if code == 250:
        try:
            code, reply = session.data(Path(letter["file"]).read_bytes())
        except smtplib.SMTPDataError as error:  # refused before the first byte of the message
            code, reply = error.smtp_code, _octets(error.smtp_error)
    return code, reply


def main() -> int:
    """Run the command line; return the exit status."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--letters", type=Path, required=True)
    parser.add_argument("--server", action="append", required=True, help="ADDRESS:PORT, in order")
    parser.add_argument("--pause", type=float, default=4.0, help="seconds between two tries")
    parser.add_argument("--patience", type=float, default=14.0, help="seconds for all tries")
    args = parser.parse_args()
    try:
        letters = json.loads(args.letters.read_bytes())
        with ThreadPoolExecutor(max(1, len(letters))) as pool:
            for answer in pool.map(lambda letter: deliver(letter, args), letters):
                print(json.dumps(answer), flush=True)
    except (OSError, ValueError, KeyError) as error:
        print(f"client: {' '.join(str(error).split())}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
