"""The certificates that mail exchangers show after STARTTLS, and whether senders would trust them.

It runs wherever one looks from, so it needs nothing but a Python of 3.9 or newer: the gates
have it sent there (`backup_mx.machine.sent`). Every step is bounded; what fails is a fact as well.
"""

from __future__ import annotations

import base64
import contextlib
import smtplib
import ssl
import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from backup_mx.net.session import EHLO, Session
from backup_mx.net.tls import anybody

SECONDS = 30.0  # for a whole session; postscreen lets a stranger wait for 6
Fact = dict[str, Any]


def facts(wanted: Fact) -> Fact:
    """Look at the servers of ``wanted`` and return what each shows, by its name.

    wanted: ``servers``, of each its ``name``, ``host`` and ``port``; ``ca``, PEM of authorities
    that the operator trusts, "" for none. A server's fact is an ``error`` where no certificate is
    to be had; else ``der`` is it in base64, and ``trouble`` says why nobody trusts it; where
    somebody does, ``own`` is whether that is ``ca`` alone, which no sender knows, ``names`` are
    those in it, ``issuer`` its authority, ``begins`` and ``ends`` when (seconds since 1970).
    """
    servers = wanted["servers"]
    trusts = [_trust(None), *([_trust(wanted["ca"])] if wanted["ca"] else [])]
    with ThreadPoolExecutor() as pool:
        found = pool.map(
            lambda each: shown(each["host"], each["port"], each["name"], trusts), servers
        )
        return {each["name"]: fact for each, fact in zip(servers, found)}  # noqa: B905  Python 3.9


def _trust(ca: str | None) -> ssl.SSLContext:
    """Return what trusts the authorities in ``ca`` and no others, without it the system's."""
    trust = ssl.create_default_context(cadata=ca)
    trust.check_hostname = False  # which names are right is for whoever asked to say
    return trust


def shown(host: str, port: int, name: str, trusts: list[ssl.SSLContext]) -> Fact:
    """Return what one server shows when it is asked for by ``name``: trusts are senders', own."""
    trouble = ""
    try:
        for own, trust in enumerate(trusts):
            try:
                found = _session(host, port, name, trust)
            except ssl.SSLCertVerificationError as error:
                trouble = error.verify_message
            else:
                return {**found, "trouble": "", "own": bool(own)}
        return {**_session(host, port, name, anybody()), "trouble": trouble}
    except (OSError, smtplib.SMTPException) as error:
        said = getattr(error, "strerror", "") or str(error) or type(error).__name__
        return {"error": said}


def _session(host: str, port: int, name: str, trust: ssl.SSLContext) -> Fact:
    server = Session(timeout=SECONDS)
    server.ends = time.monotonic() + SECONDS
    try:
        server.connect(host, port)
        server.ehlo(EHLO)
        server.secure(trust, name)
        line: ssl.SSLSocket = server.sock  # type: ignore[assignment]  # it is TLS by now
        der = line.getpeercert(binary_form=True) or b""
        return {"der": base64.b64encode(der).decode(), **_read(line.getpeercert() or {})}
    finally:
        with contextlib.suppress(OSError, smtplib.SMTPException):
            server.quit()
        server.close()


def _read(certificate: Fact) -> Fact:
    """Return what is in a certificate that was found good, nothing of another."""
    if not certificate:
        return {}
    issuer = {key: value for part in certificate["issuer"] for key, value in part}
    return {
        "names": [name for kind, name in certificate.get("subjectAltName", ()) if kind == "DNS"],
        "issuer": issuer.get("organizationName") or issuer.get("commonName") or "somebody",
        "begins": float(ssl.cert_time_to_seconds(certificate["notBefore"])),
        "ends": float(ssl.cert_time_to_seconds(certificate["notAfter"])),
    }
