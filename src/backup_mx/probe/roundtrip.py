"""A message that goes the whole way: handed over elsewhere, found in a mailbox at the primary.

send ── the Internet, by MX records ──> primary, or relay and then primary ──> look ──> Trip
"""

from __future__ import annotations

import secrets
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from email.utils import formatdate

from backup_mx.config import Config
from backup_mx.config.options_live import Roundtrip
from backup_mx.errors import MachineError
from backup_mx.findings import Finding
from backup_mx.net import mailbox
from backup_mx.net.mailbox import Account, Found, Mailbox
from backup_mx.probe import keeper
from backup_mx.probe.keeper import Answer
from backup_mx.probe.probe import Probe, Scene, Seen, Target, Tell
from backup_mx.probe.trip import Trip, Way, trip
from backup_mx.relay.text import span

FIELD = "X-Backup-MX-Roundtrip"
"""By this a message is found again: some submission servers write a Message-ID of their own."""
MISSING = "the config has no [roundtrip]: an account that sends, and a mailbox"
PAUSE = 2.0
"""Seconds between the first looks into the mailbox; later ones are further apart."""
LONGEST_PAUSE = 15.0


@dataclass(frozen=True)
class Sent:
    """A message on its way: its token, its Message-ID, when it was handed over."""

    token: str
    message_id: str
    at: float


@dataclass(frozen=True)
class Accounts:
    """Where it is sent from and looked for, with the passwords."""

    options: Roundtrip
    submit: Account
    imap: Account


def accounts(config: Config) -> Accounts:
    """Read the passwords. Raises MachineError without [roundtrip], SecretError."""
    options = config.roundtrip
    if options is None:
        raise MachineError(MISSING)
    ca = config.folder / options.ca if options.ca else None
    given = (
        (options.submit, options.submit_user, options.submit_password),
        (options.imap, options.imap_user, options.imap_password),
    )
    submit, imap = (
        Account(server.host, server.port, user, password.read(config.folder), ca)
        for server, user, password in given
    )
    return Accounts(options, submit, imap)


def send(accounts: Accounts) -> Sent:
    """Hand a message over to the submission server. Raises MachineError."""
    options, token = accounts.options, secrets.token_hex(16)
    sent = Sent(token, f"<{token}@{options.sender.rpartition('@')[2]}>", time.time())
    mailbox.submit(accounts.submit, options.sender, options.recipient, _message(options, sent))
    return sent


def _message(options: Roundtrip, sent: Sent) -> bytes:
    lines = (
        f"From: <{options.sender}>",
        f"To: <{options.recipient}>",
        "Subject: backup-mx looks which way mail takes; this can be deleted",
        f"Date: {formatdate(sent.at)}",
        f"Message-ID: {sent.message_id}",
        f"{FIELD}: {sent.token}",
        "Auto-Submitted: auto-generated",
        "MIME-Version: 1.0",
        "Content-Type: text/plain; charset=us-ascii",
        "",
        "`backup-mx probe` sent this, and deletes it when it has found it.",
    )
    return "\r\n".join((*lines, "")).encode()


@dataclass
class Letterbox:
    """The mailbox, logged in to as long as it answers; used as a context manager."""

    accounts: Accounts
    relays: dict[str, str]
    _open: ExitStack = field(default_factory=ExitStack)
    _mailbox: Mailbox | None = None

    def __enter__(self) -> Letterbox:
        return self

    def __exit__(self, *_: object) -> None:
        self._leave()

    def fetch(self, sent: Sent) -> Trip | None:
        """Return how a message came, and delete it; None if it is not there. Raises MachineError.

        A server that breaks off is logged in to anew at the next call. One that does so amid the
        deleting has shown the message, and may not have it any more: nothing is raised.
        """
        try:
            if self._mailbox is None:
                self._mailbox = self._open.enter_context(mailbox.opened(self.accounts.imap))
            found = self._mailbox.find(FIELD, sent.token)
        except MachineError:
            self._leave()
            raise
        try:
            for each in found:
                self._mailbox.delete(each)
        except MachineError:
            self._leave()
        return self._trip(sent, found[0]) if found else None

    def _trip(self, sent: Sent, found: Found) -> Trip:
        arrived = found.arrived.timestamp() if found.arrived else time.time()
        return trip(found.head, sent.at, self.relays, arrived)

    def _leave(self) -> None:
        self._mailbox = None
        self._open.close()


def letterbox(config: Config, accounts: Accounts) -> Letterbox:
    """Return the mailbox in which the messages of ``config`` arrive."""
    return Letterbox(accounts, {each.hostname: each.name for each in config.relays.values()})


@dataclass(frozen=True)
class Awaited:
    """How waiting for a message ended: its way, or None, and the last trouble with the mailbox.

    relays is what they say of one that is missing, None while nobody has asked them.
    """

    sent: Sent
    trip: Trip | None
    trouble: str = ""
    relays: Answer | None = None

    @property
    def missing(self) -> bool:
        """Whether the mailbox could be looked into, and the message was not there."""
        return self.trip is None and not self.trouble

    @property
    def way(self) -> Way | None:
        """Its way, None where nobody can tell; it is lost where no relay keeps it either."""
        if self.trip:
            return self.trip.way
        if not self.missing:
            return None
        return "lost" if self.relays == Answer() else "missing"


def await_it(
    box: Letterbox, sent: Sent, patience: float, rest: Callable[[float], object] = time.sleep
) -> Awaited:
    """Look for a message until it is there, or ``patience`` seconds are over.

    rest waits for so many seconds; what is true of what it returns ends the waiting.
    """
    until, trouble = time.monotonic() + patience, ""
    for pause in _pauses():
        try:
            if found := box.fetch(sent):
                return Awaited(sent, found)
            trouble = ""
        except MachineError as error:
            trouble = str(error)
        left = until - time.monotonic()
        if left <= 0 or rest(min(pause, left)):
            break
    return Awaited(sent, None, trouble)


def _pauses() -> Iterator[float]:
    pause = PAUSE
    while True:
        yield pause
        pause = min(pause * 1.5, LONGEST_PAUSE)


def judged(ended: Awaited, patience: float) -> Finding:
    """Judge how waiting for a message ended."""
    if ended.trip:
        return Finding("roundtrip", "pass" if ended.trip.way == "direct" else "warn",
                       ended.trip.words, _WHY_LATE * (ended.trip.way == "relay"))  # fmt: skip
    if ended.missing:
        return _missing(ended, patience)
    saw = f"sent, but whether it came cannot be seen: {ended.trouble}"
    do = "where the primary is down, the relay keeps it: backup-mx queue lists it"
    return Finding("roundtrip", "unknown", saw, do)


def _missing(ended: Awaited, patience: float) -> Finding:
    """Judge a message that is not in the mailbox, by what the relays say of it."""
    gate, relays = "roundtrip", ended.relays
    saw = f"{ended.sent.message_id} is in no folder after {span(patience)}"
    if relays is None:
        do = "backup-mx probe roundtrip asks the relays whether they keep one"
        return Finding(gate, "warn", f"not there yet: {saw}", do)
    if relays.relay:
        saw = f"not there yet: {saw}; the relay {relays.relay} keeps it: {relays.why}"
        return Finding(gate, "warn", saw, _WHY_LATE)
    if relays.silent:
        return Finding(gate, "unknown", f"{saw}, and {relays.silent}", "mend that, and ask again")
    do = "its own server may still try (greylisting): ask there, then see the primary's log"
    return Finding(gate, "fail", f"lost: {saw}, and on no relay", do)


_WHY_LATE = "the primary did not take it itself; mail is safe, but see why"


def once(config: Config, tell: Tell, patience: float | None = None) -> Awaited:
    """Send a message and wait for it; where it does not come, ask the relays.

    Raises MachineError, SecretError.
    """
    used = accounts(config)
    wait = used.options.patience if patience is None else patience
    tell(f"handing a message over to {used.submit.host}, as {used.options.sender}")
    sent = send(used)
    tell(f"looking for {sent.message_id} at {used.imap.host}, for {span(wait)} at most")
    with letterbox(config, used) as box:
        ended = await_it(box, sent, wait)
        if not ended.missing:
            return ended
        tell("it is not there: asking the relays whether they keep it")
        said = keeper.asked(config, used.options.recipient, sent.at, FIELD, sent.token)
        if not said.relay:  # it may have come home since the last look
            ended = await_it(box, sent, 0.0)
    return replace(ended, relays=said)


def _targets(config: Config) -> tuple[Target, ...]:
    return (Target(config.roundtrip.recipient),) if config.roundtrip else ()


def _left_out(config: Config) -> tuple[str, ...]:
    return () if config.roundtrip else (MISSING,)


def _look(scene: Scene, _target: Target) -> Seen:
    ended = once(scene.config, lambda _line: None)
    patience = scene.config.roundtrip.patience if scene.config.roundtrip else 0.0
    return Seen(judged(ended, patience))


ROUNDTRIP = Probe("roundtrip", "a message goes the whole way", _targets, _look, _left_out)
