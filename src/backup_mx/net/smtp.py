"""What a primary answers on the drain path: a walk through SMTP that notes facts, and no more.

It runs on the relay, from whose address alone the answers mean something: `backup_mx.kit.check`
has it sent there (`backup_mx.machine.sent`). So it needs nothing but a distribution's Python, 3.11
or newer. Every step is bounded; what fails is a fact as well.
"""

from __future__ import annotations

import smtplib
import ssl
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import partial
from typing import Any

from backup_mx.net.session import Session
from backup_mx.net.tls import anybody

SECONDS = 30.0  # for one answer; postscreen's own pause before it greets is 6
LARGE_SECONDS = 90.0  # for the answer to a large message, on top: filters read all of it
Fact = dict[str, Any]
"""``code`` and ``text`` of a reply, or the ``error`` that came instead of one."""


def facts(wanted: Fact) -> Fact:
    """Walk the drain path as ``wanted`` says and return all that was answered.

    wanted: ``host``, ``port``, ``tls`` (none, may, encrypt, verify), ``name`` (in the certificate),
    ``ehlo``, ``recipient``, ``senders`` and ``messages`` (each by name; a message has ``sender``
    and ``data``, may have ``options`` of MAIL, and ``fill``: octets of base64 to go on with),
    ``transactions`` and ``connections`` (of the burst).
    """
    with ThreadPoolExecutor() as pool:
        offer = pool.submit(_own_offer, wanted["ehlo"])
        opened = _opened(wanted)
        if "offer" not in opened:  # each further step would only wait in vain
            return {"opened": opened, "relay": offer.result()}
        found = {
            "opened": opened,
            "envelopes": {
                name: _fact(partial(_envelope, wanted, sender))
                for name, sender in wanted["senders"].items()
            },
            "messages": _messages(wanted),
            "burst": _fact(partial(_burst, wanted)),
        }
        return {**found, "relay": offer.result()}


def _fact(step: Callable[[], Fact]) -> Fact:
    """Return what a step answers, or what went wrong."""
    try:
        return step()
    except (OSError, smtplib.SMTPException) as error:
        # A failed verification's own text is long; its reason is what matters.
        reason = getattr(error, "verify_message", "") or getattr(error, "strerror", "")
        return {"error": reason or str(error) or type(error).__name__}


def _reply(answer: tuple[int, bytes]) -> Fact:
    return {"code": answer[0], "text": answer[1].decode(errors="replace")}


def _own_offer(ehlo: str) -> Fact:
    """Return what this relay itself offers to the world."""

    def step() -> Fact:
        with Session("127.0.0.1", 25, timeout=SECONDS) as session:
            return _reply(session.ehlo(ehlo))

    return _fact(step)


def _opened(wanted: Fact) -> Fact:
    """Return the greeting, the seconds until it came, and what was offered after TLS, if any."""
    began = time.monotonic()
    found: Fact = {}

    def step() -> Fact:
        with _session(wanted, found) as session:
            return {"offer": _reply(session.ehlo(wanted["ehlo"]))}

    found.update(_fact(step))
    found.setdefault("seconds", round(time.monotonic() - began, 2))
    return found


@contextmanager
def _session(wanted: Fact, found: Fact | None = None) -> Iterator[Session]:
    """Open a session as the relay's Postfix would; note greeting, pause and TLS in ``found``."""
    found = {} if found is None else found
    began = time.monotonic()
    session = Session(timeout=SECONDS)
    try:
        found["greeting"] = _reply(session.connect(wanted["host"], wanted["port"]))
        found["seconds"] = round(time.monotonic() - began, 2)
        if found["greeting"]["code"] != 220:
            raise smtplib.SMTPConnectError(found["greeting"]["code"], found["greeting"]["text"])
        session.ehlo(wanted["ehlo"])
        found["tls"] = session.has_extn("starttls")
        if wanted["tls"] != "none" and found["tls"]:
            session.secure(_trust(wanted["tls"]), wanted["name"])
            session.ehlo(wanted["ehlo"])
        elif wanted["tls"] in ("encrypt", "verify"):
            raise smtplib.SMTPNotSupportedError("TLS is not offered")
        yield session
        session.quit()
    finally:
        session.close()


def _trust(level: str) -> ssl.SSLContext:
    """Return TLS that verifies if the level is verify."""
    if level != "verify":
        return anybody()
    context = ssl.create_default_context()
    # As Postfix verifies: without the pedantry that Python 3.13 has by default.
    context.verify_flags &= ~ssl.VERIFY_X509_STRICT
    return context


def _envelope(wanted: Fact, sender: str) -> Fact:
    """Return the answer to a recipient, or to the sender if that was not taken."""
    with _session(wanted) as session:
        answer = session.mail(sender)
        if answer[0] == 250:
            answer = session.rcpt(wanted["recipient"])
        return _reply(answer)


def _messages(wanted: Fact) -> Fact:
    """Return the answers to each message, up to the first one that the primary takes."""
    found: Fact = {}
    for name, message in wanted["messages"].items():
        found[name] = _fact(partial(_message, wanted, message))
        if found[name].get("code") == 250:
            break
    return found


def _message(wanted: Fact, message: Fact) -> Fact:
    """Return the answer that decided about a message, and the ``step`` it was the answer to."""
    with _session(wanted) as session:
        answer = session.mail(message["sender"], message.get("options", ()))
        if answer[0] != 250:
            return {**_reply(answer), "step": "MAIL"}
        answer = session.rcpt(wanted["recipient"])
        if answer[0] != 250:
            return {**_reply(answer), "step": "RCPT"}
        session.timeout = SECONDS + (LARGE_SECONDS if "fill" in message else 0.0)
        return {**_reply(session.data(_octets(message))), "step": "DATA"}


def _octets(message: Fact) -> bytes:
    """Return what is sent; a large message is filled up here, not carried to the relay."""
    line = b"A" * 76 + b"\r\n"
    filled: bytes = message["data"].encode() + line * (message.get("fill", 0) // len(line))
    return filled


def _burst(wanted: Fact) -> Fact:
    """Begin many transactions in many connections; return the first answer that is no 250."""
    for count in range(wanted["connections"]):
        with _session(wanted) as session:
            for _ in range(wanted["transactions"] // wanted["connections"]):
                answer = session.mail(wanted["senders"]["outside"])
                if answer[0] != 250:
                    return {**_reply(answer), "connections": count + 1}
                session.rset()
    return {"code": 250, "text": "", "connections": wanted["connections"]}
