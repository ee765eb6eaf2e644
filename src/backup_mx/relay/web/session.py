"""Who is logged in, as a signed cookie, and how often a password may be guessed. Pure: no I/O.

The secret is made anew at every start of the agent, so a restart logs everybody out. A cookie says
who may do what until when; nothing is kept here for it, except that somebody logged out.
"""

from __future__ import annotations

import hmac
import secrets
from collections import deque
from dataclasses import dataclass, field
from ipaddress import IPv4Address, IPv6Address, ip_network

LIFETIME = 12 * 3600
"""Seconds until a session ends, however busy."""
GUESSES = 5
"""Wrong passwords from one place within WINDOW; of IPv6, a place is a /64."""
GUESSES_IN_ALL = 50
WINDOW = 300.0
_REMEMBERED = 1000  # log-outs; more within LIFETIME forget the oldest


@dataclass(frozen=True)
class Session:
    """A browser: identity is random, trusted says whether it may see pages, ends is when not."""

    identity: str
    trusted: bool
    ends: int


@dataclass
class Sessions:
    """Makes and reads the cookies, and the tokens by which a form proves to be of this session."""

    secret: bytes = field(default_factory=lambda: secrets.token_bytes(32), repr=False)
    gone: deque[str] = field(default_factory=lambda: deque(maxlen=_REMEMBERED))

    def start(self, trusted: bool, now: float) -> Session:
        """Return a new session."""
        return Session(secrets.token_urlsafe(18), trusted, int(now) + LIFETIME)

    def cookie(self, session: Session) -> str:
        """Return the cookie's value for a session."""
        return f"{_plain(session)}.{self._sign('cookie', _plain(session))}"

    def read(self, cookie: str, now: float) -> Session | None:
        """Return the session of a cookie; None for one not ours, over, or logged out."""
        plain, _, signature = cookie.rpartition(".")
        if not same(signature, self._sign("cookie", plain)):
            return None
        identity, trusted, ends = plain.split(".")
        session = Session(identity, trusted == "in", int(ends))
        return session if session.ends > now and identity not in self.gone else None

    def end(self, session: Session) -> None:
        """Take a session's cookie out of use."""
        self.gone.append(session.identity)

    def token(self, session: Session) -> str:
        """Return what every form of this session carries."""
        return self._sign("form", _plain(session))

    def _sign(self, purpose: str, text: str) -> str:
        return hmac.digest(self.secret, f"{purpose}:{text}".encode(), "sha256").hex()


def _plain(session: Session) -> str:
    return f"{session.identity}.{'in' if session.trusted else 'out'}.{session.ends}"


def same(one: str, other: str) -> bool:
    """Compare two secrets without telling, by the time it takes, how much of them is equal."""
    return hmac.compare_digest(one.encode(errors="replace"), other.encode(errors="replace"))


@dataclass
class Guesses:
    """The wrong passwords of the last minutes; its memory is bounded by GUESSES_IN_ALL."""

    wrong: deque[tuple[float, str]] = field(default_factory=lambda: deque(maxlen=GUESSES_IN_ALL))

    def wait(self, address: IPv4Address | IPv6Address, now: float) -> float:
        """Return for how many seconds no guess from there is looked at; 0: go ahead."""
        recent = [(when, place) for when, place in self.wrong if now - when < WINDOW]
        same_place = [when for when, place in recent if place == _place(address)]
        if len(same_place) >= GUESSES:
            return same_place[-GUESSES] + WINDOW - now
        return recent[0][0] + WINDOW - now if len(recent) >= GUESSES_IN_ALL else 0.0

    def note(self, address: IPv4Address | IPv6Address, now: float) -> None:
        """Remember a wrong password."""
        self.wrong.append((now, _place(address)))


def _place(address: IPv4Address | IPv6Address) -> str:
    return str(ip_network((address, 64 if address.version == 6 else 32), strict=False))
