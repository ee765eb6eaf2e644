"""The canary: one walk down the drain path, as Postfix would go it, and where it ended.

    connect → greeting → EHLO → STARTTLS → EHLO → MAIL FROM:<> → RCPT → RSET or DATA → QUIT

Neither stricter nor laxer than smtp(8) with the relay's main.cf: the addresses of a name in turn,
a fall back to plain text where the policy is ``may``, HELO where EHLO is not known. Whatever the
server does, a walk ends: each step has its own limit, all of them together another one.
"""

from __future__ import annotations

import errno
import socket
import ssl
import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from queue import Empty, SimpleQueue

from backup_mx.net.wire import Broken, Clock, Reply, Wire

UNREACHABLE, TLS, PUT_OFF, REFUSED, LOCAL = "unreachable", "tls", "4xx", "refused", "local"
"""Why a walk ended early: the words of `backup_mx.relay.queue.reasons`."""

CONNECT_SECONDS = 5.0  # a host that has not answered a SYN by then is as good as away
STEP_SECONDS = 20.0  # postscreen alone lets a stranger wait for 6
TOTAL_SECONDS = 60.0
ADDRESSES = 5  # smtp_mx_address_limit
_OURS = {errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.ENOBUFS, errno.EACCES, errno.EPERM}
_CA_FILE = "/etc/ssl/certs/ca-certificates.crt"  # smtp_tls_CAfile


@dataclass(frozen=True)
class Path:
    """Where to walk, and as whom.

    tls is the config's word (none, may, encrypt, verify); name what the certificate must bear;
    ehlo how the relay greets; recipient who is asked for, "" for nobody; message, with its CRLFs,
    is handed over if there is one; ca_file holds the authorities, None for the system's.
    """

    host: str
    port: int
    tls: str
    name: str
    ehlo: str
    recipient: str = ""
    message: bytes = b""
    ca_file: str | None = None


@dataclass(frozen=True)
class Limits:
    """Seconds for a connection, for any other step, and for the whole walk."""

    connect: float = CONNECT_SECONDS
    step: float = STEP_SECONDS
    total: float = TOTAL_SECONDS


@dataclass(frozen=True)
class Outcome:
    """How a walk went: its last step, the class of what ended it ("" if all was well), and words.

    began is a time since 1970, seconds how long it took, offer the EHLO keywords at the end.
    """

    began: float
    step: str
    why: str
    words: str
    seconds: float
    offer: tuple[str, ...] = ()


class _EndedError(Exception):
    """The walk ended at a step, for a reason of a class."""

    def __init__(self, step: str, why: str, words: str) -> None:
        super().__init__(words)
        self.step, self.why, self.words = step, why, words


def walk(path: Path, limits: Limits = Limits()) -> Outcome:
    """Walk the path once and say how it went; never raises for what a network or server does."""
    began, clock = time.time(), Clock(limits.total)
    try:
        step, words, offer = _walked(path, limits, clock)
        return Outcome(began, step, "", words, clock.spent, offer)
    except _EndedError as ended:
        return Outcome(began, ended.step, ended.why, ended.words, clock.spent)


def _walked(path: Path, limits: Limits, clock: Clock) -> tuple[str, str, tuple[str, ...]]:
    """Return the last step, what was said to it, and the offer. Raises _EndedError."""
    last = _EndedError("connect", UNREACHABLE, f"{path.host} has no address")
    for address in _addresses(path, limits, clock):
        try:
            return _Walker(path, limits, clock).go(address)
        except _EndedError as ended:
            last = ended
            if ended.step not in ("connect", "greeting", "ehlo", "tls"):
                break  # from MAIL on, smtp(8) takes the answer for the destination's
    raise last


def _addresses(path: Path, limits: Limits, clock: Clock) -> list[tuple[socket.AddressFamily, str]]:
    """Resolve the host, in bounded time. Raises _EndedError."""
    answers: SimpleQueue[list[tuple[socket.AddressFamily, str]] | OSError] = SimpleQueue()

    def look_up() -> None:
        try:
            found = socket.getaddrinfo(path.host, path.port, type=socket.SOCK_STREAM)
            answers.put([(family, str(each[0])) for family, _, _, _, each in found])
        except OSError as error:
            answers.put(error)

    # getaddrinfo(3) has no time limit of its own; a thread that is stuck in it ends by itself.
    threading.Thread(target=look_up, daemon=True, name="canary-dns").start()
    try:
        answer = answers.get(timeout=clock.left(limits.step))
    except Empty:
        raise _EndedError("connect", UNREACHABLE, f"{path.host}: no answer from DNS") from None
    if isinstance(answer, OSError):
        raise _EndedError("connect", UNREACHABLE, f"{path.host}: {answer.strerror}")
    return list(dict.fromkeys(answer))[:ADDRESSES]


class _Walker:
    """One session with one address."""

    def __init__(self, path: Path, limits: Limits, clock: Clock) -> None:
        self.path, self.limits, self.clock = path, limits, clock

    def go(self, address: tuple[socket.AddressFamily, str]) -> tuple[str, str, tuple[str, ...]]:
        """Walk to the end: with TLS as the policy has it. Raises _EndedError."""
        try:
            return self._session(address, tls=self.path.tls != "none")
        except _EndedError as ended:
            if ended.step == "tls" and self.path.tls == "may":
                return self._session(address, tls=False)
            raise

    def _session(
        self, address: tuple[socket.AddressFamily, str], *, tls: bool
    ) -> tuple[str, str, tuple[str, ...]]:
        with self._connected(address) as wire:
            self._hear(wire, "greeting", good=(220,))
            offer = self._hello(wire)
            if tls:
                offer = self._secured(wire, offer)
            step, words = self._envelope(wire)
            with suppress(Broken):
                wire.say("QUIT")
            return step, words, offer

    def _connected(self, address: tuple[socket.AddressFamily, str]) -> Wire:
        family, host = address
        where = f"connect to {self.path.host}[{host}]:{self.path.port}"
        try:
            line = socket.socket(family, socket.SOCK_STREAM)
        except OSError as error:
            raise _EndedError("connect", _whose(error), f"{where}: {error.strerror}") from None
        try:
            line.settimeout(self.clock.left(self.limits.connect))
            line.connect((host, self.path.port))
        except OSError as error:
            line.close()
            words = "Connection timed out" if isinstance(error, TimeoutError) else error.strerror
            raise _EndedError("connect", _whose(error), f"{where}: {words}") from None
        return Wire(line)

    def _hello(self, wire: Wire) -> tuple[str, ...]:
        """Say EHLO, or HELO to a server that does not know it; return the keywords offered."""
        answer = self._answer(wire, "ehlo", f"EHLO {self.path.ehlo}")
        if answer.code // 100 == 5:
            answer = self._answer(wire, "ehlo", f"HELO {self.path.ehlo}")
            answer = Reply(answer.code, answer.lines[:1])
        return tuple(_judged("ehlo", answer, (250,)).lines[1:])

    def _secured(self, wire: Wire, offer: tuple[str, ...]) -> tuple[str, ...]:
        """Begin TLS as the policy has it; return what is offered then, or now without."""
        must = self.path.tls in ("encrypt", "verify")
        if not any(each.upper().split()[:1] == ["STARTTLS"] for each in offer):
            if must:
                raise _EndedError("tls", TLS, "TLS is required, but was not offered")
            return offer
        answer = self._answer(wire, "tls", "STARTTLS")
        if answer.code != 220:
            if must:
                raise _EndedError("tls", TLS, f"TLS is required, but host said: {answer}")
            return offer
        try:
            name = self.path.name if self.path.tls == "verify" else None
            wire.secure(context(self.path), name, self.clock.left(self.limits.step))
        except (OSError, ValueError) as error:
            raise _EndedError("tls", TLS, f"Cannot start TLS: {_tls_words(error)}") from None
        return self._hello(wire)

    def _envelope(self, wire: Wire) -> tuple[str, str]:
        """Say MAIL, RCPT, and RSET or the message; return the last step and its answer."""
        step, words = "mail", str(self._hear(wire, "mail", "MAIL FROM:<>"))
        if not self.path.recipient:
            return step, words
        answer = self._hear(wire, "rcpt", f"RCPT TO:<{self.path.recipient}>", good=(250, 251))
        if self.path.message:
            self._hear(wire, "data", "DATA", good=(354,))
            self._send(wire, stuffed(self.path.message))
            return "data", str(self._hear(wire, "data"))
        self._hear(wire, "rset", "RSET")
        return "rset", str(answer)

    def _hear(
        self, wire: Wire, step: str, words: str | None = None, good: tuple[int, ...] = (250,)
    ) -> Reply:
        return _judged(step, self._answer(wire, step, words), good)

    def _answer(self, wire: Wire, step: str, words: str | None = None) -> Reply:
        """Say ``words``, if any, and hear the reply. Raises _EndedError when there is none."""
        clock = Clock(self.clock.left(self.limits.step))
        try:
            if words is not None:
                wire.say(words, clock)
            return wire.hear(clock)
        except Broken as error:
            raise _EndedError(step, UNREACHABLE, f"{self.path.host}: {error}") from None

    def _send(self, wire: Wire, octets: bytes) -> None:
        try:
            wire.send(octets, Clock(self.clock.left(self.limits.step)))
        except Broken as error:
            raise _EndedError("data", UNREACHABLE, f"{self.path.host}: {error}") from None


def _judged(step: str, answer: Reply, good: tuple[int, ...]) -> Reply:
    """Return the answer if it is one of the good. Raises _EndedError otherwise."""
    if answer.code in good:
        return answer
    raise _EndedError(step, REFUSED if answer.code // 100 == 5 else PUT_OFF, str(answer))


def _whose(error: OSError) -> str:
    """Return whether a connection that failed failed here or on the way."""
    return LOCAL if error.errno in _OURS else UNREACHABLE


def _tls_words(error: Exception) -> str:
    """Return what went wrong in a handshake, in a few words."""
    said = getattr(error, "verify_message", "") or getattr(error, "reason", "") or str(error)
    return str(said) or type(error).__name__


def context(path: Path) -> ssl.SSLContext:
    """Return the TLS that smtp(8) would use: any certificate, unless the policy is ``verify``."""
    found = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)  # without 3.13's strictness about certificates
    found.minimum_version = ssl.TLSVersion.MINIMUM_SUPPORTED
    if path.tls == "verify":
        found.load_verify_locations(path.ca_file or _CA_FILE)
    else:
        found.check_hostname = False
        found.verify_mode = ssl.CERT_NONE
    # tls_client.c: level 0 where TLS is a bonus, 1 where it is required.
    found.set_ciphers(f"ALL:@SECLEVEL={0 if path.tls == 'may' else 1}")
    return found


def stuffed(message: bytes) -> bytes:
    """Return a message of CRLF lines as DATA wants it (RFC 5321, section 4.5.2), with its end."""
    return b"".join(_doubled(message)) + b".\r\n"


def _doubled(message: bytes) -> Iterator[bytes]:
    for line in message.splitlines():
        yield (b"." if line.startswith(b".") else b"") + line + b"\r\n"
