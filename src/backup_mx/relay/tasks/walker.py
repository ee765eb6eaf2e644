"""The task that walks to one primary for ever, at the pace that the moment asks for.

One walk at a time; three, if mail waits and the older ones are stuck: a proxy in front of the
primary may hold a connection for long that a fresh one would no longer be held for.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from email.utils import formatdate, make_msgid
from functools import partial

from backup_mx.net.canary import Outcome, Path, walk
from backup_mx.relay.decide import canary
from backup_mx.relay.decide.canary import Judged
from backup_mx.relay.settings import Settings, Target
from backup_mx.relay.state import UP
from backup_mx.relay.tasks.threads import aside

AT_ONCE = 3  # walks under way at most
DAY = 86_400.0  # seconds between daily messages
AGAIN = 3600.0  # seconds after which one that was not taken is tried again

SMTP = 25
_UNGREETED = ("connect", "greeting")
log = logging.getLogger("backup_mx.agent")

Changed = Callable[[Judged, Judged], None]


@dataclass
class Walker:
    """Walks to ``target``; tells ``changed`` what was known before each walk, and what is after it.

    ended hears with which mistake of ours a walk of that task ended, or with none: else nobody
    would know that the primary's state is of long ago. wanted says whether anything hangs on it
    now; message_at is when the daily message last went or was tried; stroll makes a walk and is
    what tests replace.
    """

    settings: Settings
    target: Target
    judged: Judged
    wanted: Callable[[], bool]
    changed: Changed
    ended: Callable[[str, Exception | None], None] = lambda *_: None
    message_at: float = 0.0
    stroll: Callable[[Path], Outcome] = walk
    good: int = 0
    bad: int = 0
    messages_good: int = 0
    messages_bad: int = 0
    _started: float = 0.0
    _ended: float = 0.0
    _greeted: float = float("-inf")
    _silent: bool = False
    _greeting: asyncio.Task[None] | None = None
    _running: set[asyncio.Task[None]] = field(default_factory=set)

    @property
    def task(self) -> str:
        """The name of its task."""
        return f"walk to {self.target.name}"

    async def turn(self) -> float:
        """Start a walk if one is due; return the seconds until the next may be."""
        now = time.monotonic()
        wait = self._due() - now
        if wait > 0:
            return wait
        if len(self._running) >= self._at_once():
            return canary.QUICK / 4
        self._started = now
        self._look_in_public()
        task = asyncio.create_task(self._watched())
        self._running.add(task)
        task.add_done_callback(self._running.discard)
        return min(canary.QUICK, self._pause())

    async def stop(self) -> None:
        """Forget the walks that are under way."""
        tasks = (*self._running, *((self._greeting,) if self._greeting else ()))
        for each in tasks:
            each.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def greeted(self, within: float) -> bool:
        """Tell whether the first MX, at its public name, greeted us in the last seconds."""
        return time.monotonic() - self._greeted < within

    def _look_in_public(self) -> None:
        """Knock where standby sends the senders, if it might; one look at a time."""
        busy = self._greeting is not None and not self._greeting.done()
        if self.settings.standby and self.judged.primary.state == UP and not busy:
            self._greeting = asyncio.create_task(self._greet())

    async def _greet(self) -> None:
        """Note whether a sender would be greeted; all that comes after is between those two."""
        began = time.monotonic()
        outcome = await aside(partial(self.stroll, public_path(self.settings, self.target)))
        before, self._silent = self._silent, bool(outcome.why) and outcome.step in _UNGREETED
        self._greeted = float("-inf") if self._silent else began
        if self._silent and not before:
            where = self.target.hostname
            log.warning("standby takes all mail: no greeting from %s: %s", where, outcome.words)
        elif before and not self._silent:
            log.info("%s greets again", self.target.hostname)

    def _due(self) -> float:
        """Return when the next walk starts, on the clock of this process."""
        return self._started + self._pause() if self._started else 0.0

    def _pause(self) -> float:
        return canary.pause(
            self.judged,
            time.time(),
            wanted=self.wanted(),
            waiting=self.settings.canary_waiting,
            idle=self.settings.canary_idle,
        )

    def _at_once(self) -> int:
        return AT_ONCE if self.wanted() and self.judged.primary.state != UP else 1

    async def _watched(self) -> None:
        try:
            await self._walk()
        except Exception as error:
            self.ended(self.task, error)
        else:
            self.ended(self.task, None)

    async def _walk(self) -> None:
        message = self._message()
        path = path_of(self.settings, self.target, message)
        outcome = await aside(partial(self.stroll, path))
        if message:
            self._posted(outcome)
        elif not outcome.why or time.monotonic() - outcome.seconds >= self._ended:
            # A failure that began before the last good walk's end is old news.
            self._judge(outcome)

    def _judge(self, outcome: Outcome) -> None:
        found = canary.walked(outcome)
        self.good += found.good
        self.bad += not found.good
        if found.good:
            self._ended = time.monotonic()
        before, self.judged = self.judged, canary.after(self.judged, found)
        self.changed(before, self.judged)

    def _message(self) -> bytes:
        """Return the daily message if it is due and this primary is up and owns its domain."""
        address = self.settings.canary_message_to
        waited = 0 <= time.time() - self.message_at < DAY  # else the clock was set back
        if waited or self.judged.primary.state != UP:
            return b""
        if address.rpartition("@")[2].lower() not in self.target.domains:
            return b""
        self.message_at = time.time()
        return message(self.settings.hostname, address)

    def _posted(self, outcome: Outcome) -> None:
        """Note what became of the daily message. It judges nobody: a full mailbox is no outage."""
        found = canary.walked(outcome)
        self.messages_good += found.good
        self.messages_bad += not found.good
        if not found.good:
            self.message_at += AGAIN - DAY
        before = self.judged
        self.judged = replace(before, primary=replace(before.primary, message=found))
        self.changed(before, self.judged)


def path_of(settings: Settings, target: Target, message: bytes = b"") -> Path:
    """Return the way to a primary, up to its postmaster, or to who gets the daily message."""
    postmaster = f"postmaster@{target.domains[0]}" if target.domains else ""
    return Path(
        host=target.host,
        port=target.port,
        tls=target.tls,
        name=target.hostname,
        ehlo=settings.hostname,
        recipient=settings.canary_message_to if message else postmaster,
        message=message,
    )


def public_path(settings: Settings, target: Target) -> Path:
    """Return the way that senders go to a primary: its name and port 25."""
    name = target.hostname
    return Path(host=name, port=SMTP, tls="none", name=name, ehlo=settings.hostname)


def message(hostname: str, recipient: str) -> bytes:
    """Return the daily message (RFC 5322): the null sender's, so that nothing answers it."""
    lines = (
        f"Date: {formatdate()}",
        f"From: backup-mx <postmaster@{hostname}>",
        f"To: <{recipient}>",
        f"Message-ID: {make_msgid(domain=hostname)}",
        "Subject: The way from the backup MX is open",
        "Auto-Submitted: auto-generated",
        "",
        f"{hostname} sends this once a day, over the way that kept mail takes.",
        "It can be deleted.",
    )
    return "".join(f"{line}\r\n" for line in lines).encode()
