"""Messages handed straight to a relay's port 25, as a sender's server does.

It runs wherever one looks from, so it needs nothing but a Python of 3.9 or newer: the gate failover
has it sent there (`backup_mx.machine.sent`). Every step is bounded; what fails is a fact as well.
"""

from __future__ import annotations

import smtplib
from contextlib import closing, suppress
from typing import Any

from backup_mx.net.session import Session
from backup_mx.net.tls import anybody

SECONDS = 120.0  # for one answer; a relay that syncs eleven megabytes to its disk takes some
Fact = dict[str, Any]
"""``code`` and ``text`` of the reply that decided, or the ``error`` that came instead of one."""


def facts(wanted: Fact) -> Fact:
    """Hand messages over in one session; return what became of each, in order: ``answers``.

    wanted: ``host``, ``port``, ``ehlo``, ``recipient``, ``messages``: each with ``sender``,
    ``utf8`` (whether it needs SMTPUTF8), ``head``, ``body``, and ``times``, how often the body is
    repeated.
    """
    found: list[Fact] = []
    try:
        session = Session(wanted["host"], wanted["port"], wanted["ehlo"], SECONDS)
        with closing(session):
            _secured(session)
            for message in wanted["messages"]:
                found += [_one(session, wanted, message)]
            with suppress(OSError, smtplib.SMTPException):  # all that counts has been answered
                session.quit()
    except (OSError, smtplib.SMTPException) as error:
        found += [{"error": getattr(error, "strerror", "") or str(error)}]
    return {"answers": found}


def _secured(session: Session) -> None:
    """Begin TLS with whatever certificate there is, as senders do."""
    session.ehlo()
    if session.has_extn("starttls"):
        session.starttls(context=anybody())
        session.ehlo()


def _one(session: Session, wanted: Fact, message: Fact) -> Fact:
    options = ["BODY=8BITMIME"] if session.has_extn("8bitmime") else []
    options += ["SMTPUTF8"] if message["utf8"] else []  # where it is not offered, that is an error
    code, text = session.mail(message["sender"], options)
    if code == 250:
        code, text = session.rcpt(wanted["recipient"])
    if code == 250:
        content = message["head"] + message["body"] * message["times"]
        code, text = session.data(content.encode())
    else:
        session.rset()
    return {"code": code, "text": text.decode(errors="replace")}
