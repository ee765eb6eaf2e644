"""A relay's port 25 as a stranger meets it: sessions that note what was answered, and no more.

It runs wherever one looks from, so it needs nothing but a Python of 3.9 or newer: the gates
have it sent there (`backup_mx.machine.sent`). No message is ever handed over. Every step is
bounded; what fails is a fact as well.
"""

from __future__ import annotations

import hashlib
import socket
import ssl
import time
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from backup_mx.net.tls import anybody

SECONDS = 30.0  # for one answer; postscreen lets a stranger wait for 6
CONNECT_SECONDS = 15.0
_LINES = 200  # of one answer; an EHLO answer has some twenty
_OCTETS = 64 * 1024  # of what is read ahead
Fact = dict[str, Any]
"""``code`` and ``text`` of a reply, or the ``error`` that came instead of one."""


def facts(wanted: Fact) -> Fact:
    """Look at a server as ``wanted`` says and return all that was answered.

    wanted: ``host``, ``port``, ``name`` (asked for by TLS), ``ehlo``, ``source`` (an address to
    come from, "" for any). It may have ``talks`` (by name the lines to say), ``early`` (lines that
    are begun before the greeting, from ``early_source``) and ``control``: another server's host and
    port, asked where the first one does not answer, to tell whether port 25 can be reached at all.
    """
    with ThreadPoolExecutor() as pool:
        early = pool.submit(_early, wanted) if wanted.get("early") else None
        found: Fact = {"tls": _secured(wanted)}
        if "greeting" in found["tls"]:
            found["talks"] = {
                name: _talk(wanted, lines) for name, lines in wanted.get("talks", {}).items()
            }
        elif wanted.get("control"):
            found["control"] = _greeting(*wanted["control"])
        if early:
            found["early"] = early.result()
        return found


class _Line:
    """A connection whose answers have an end."""

    def __init__(self, host: str, port: int, source: str = "") -> None:
        """Connect, from ``source`` if there is one. Raises OSError."""
        bound = (source, 0) if source else None
        self.wire = socket.create_connection((host, port), CONNECT_SECONDS, source_address=bound)
        self._read = b""

    def say(self, words: str) -> None:
        self.wire.settimeout(SECONDS)
        self.wire.sendall(words.encode() + b"\r\n")

    def hear(self) -> Fact:
        """Read one answer; its code is that of its last line. Raises OSError."""
        until = time.monotonic() + SECONDS
        said: list[str] = []
        while len(said) < _LINES:
            line = self._line(until)
            said.append(line[4:].decode(errors="replace"))
            if not line[:3].isdigit():
                raise OSError(f"this is no SMTP: {line[:60]!r}")
            if line[3:4] != b"-":
                return {"code": int(line[:3]), "text": "\n".join(said)}
        raise OSError(f"an answer too long: more than {_LINES} lines")

    def _line(self, until: float) -> bytes:
        while b"\n" not in self._read:
            left = until - time.monotonic()
            if left <= 0:
                raise TimeoutError("timed out")
            self.wire.settimeout(left)
            octets = self.wire.recv(4096)
            if not octets:
                raise ConnectionError("hung up")
            self._read += octets
            if len(self._read) > _OCTETS:
                raise OSError(f"an answer too long: more than {_OCTETS} bytes")
        line, _, self._read = self._read.partition(b"\n")
        return line.rstrip(b"\r")

    def secure(self, name: str) -> ssl.SSLSocket:
        """Begin TLS with whatever certificate: it is looked at, not trusted. Raises OSError."""
        self.wire.settimeout(SECONDS)
        secured = anybody().wrap_socket(self.wire, server_hostname=name)
        self.wire, self._read = secured, b""
        return secured


def _words(error: OSError) -> str:
    if isinstance(error, TimeoutError):
        return "timed out"
    reason = getattr(error, "reason", "") or error.strerror  # TLS has a long text and a short one
    return str(reason or error) or type(error).__name__


def _greeting(host: str, port: int) -> Fact:
    """Return how a server greets."""
    try:
        line = _Line(host, port)
        with line.wire:
            return line.hear()
    except OSError as error:
        return {"error": _words(error)}


def _secured(wanted: Fact) -> Fact:
    """Return the greeting, the seconds until it came, the offer, and what TLS there is."""
    found: Fact = {}
    try:
        line = _connected(wanted, wanted["source"], found)
        with line.wire:
            line.say(f"EHLO {wanted['ehlo']}")
            found["offer"] = line.hear()
            line.say("STARTTLS")
            found["starttls"] = line.hear()
            if found["starttls"]["code"] == 220:
                with line.secure(wanted["name"]) as secured:
                    shown = secured.getpeercert(binary_form=True) or b""
                    found["sha256"] = hashlib.sha256(shown).hexdigest()
                    found["version"] = secured.version()
                    line.say(f"EHLO {wanted['ehlo']}")
                    found["secured"] = line.hear()
    except OSError as error:
        found["error"] = _words(error)
    return found


def _connected(wanted: Fact, source: str, found: Fact) -> _Line:
    """Connect and hear the greeting; note it, and how long it took."""
    began = time.monotonic()
    line = _Line(wanted["host"], wanted["port"], source)
    try:
        found["greeting"] = line.hear()
        found["seconds"] = round(time.monotonic() - began, 2)
    except OSError:
        line.wire.close()
        raise
    return line


def _talk(wanted: Fact, lines: Iterable[str]) -> Fact:
    """Say ``lines``, one after the other's answer; return the answers, as far as they came."""
    found: Fact = {"replies": []}
    try:
        line = _connected(wanted, wanted["source"], found)
        with line.wire:
            _exchange(line, lines, found["replies"])
    except OSError as error:
        found["error"] = _words(error)
    return found


def _exchange(line: _Line, lines: Iterable[str], replies: list[Fact]) -> None:
    """Say each line and add its answer to ``replies``. Raises OSError where the talk ends."""
    for words in lines:
        line.say(words)
        replies.append(line.hear())


def _early(wanted: Fact) -> Fact:
    """Say the first line before the greeting has come (postscreen's pregreet), then the others."""
    found: Fact = {"replies": []}
    first, *others = wanted["early"]
    try:
        line = _Line(wanted["host"], wanted["port"], wanted["early_source"])
        with line.wire:
            line.say(first)
            answer = line.hear()
            # One that is caught hears no greeting of its own; its command is answered at once.
            found["replies"].append(line.hear() if answer["code"] == 220 else answer)
            _exchange(line, others, found["replies"])
    except OSError as error:
        found["error"] = _words(error)
    return found
