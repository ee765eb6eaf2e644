"""Notices to the operator, through Apprise, by the relay itself: the home's monitoring is dark.

The program ``apprise`` is run for each place alone, with a time limit. Its URLs hold secrets: they
stand in a file that only the agent's user may read, while it runs, and nowhere else.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import os
import time
from collections.abc import Callable, Coroutine, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from backup_mx.relay import files
from backup_mx.relay.state import Snapshot
from backup_mx.relay.tell.alarm import WARNING
from backup_mx.relay.tell.alarms import Drain, Memory, Notice, Open, judge
from backup_mx.relay.tell.outbox import BODY, Place
from backup_mx.relay.text import span

FILE = "notices.json"
LIMIT_SECONDS = 120.0
"""How long apprise may take: it needs seconds to start on an eighth of a core."""
CRASHES, CRASH_SECONDS = 3, 3600.0
"""How many starts after a crash, within how long, are told."""
CRASHED = (
    "Mail is taken, kept and delivered without it, only slower. "
    "What to do: journalctl -u backup-mx-agent.service on the relay says why."
)
TITLE = 200

log = logging.getLogger(__name__)

Send = Callable[[str, Notice], Coroutine[Any, Any, str]]
"""Sends a notice to a URL; returns why that failed, in words without a secret, or ""."""


@dataclass
class Notifier:
    """Finds what is news in each Snapshot, and tells it to every place until each has it.

    relay is its name, path the file that outlives a run, clock the time in seconds since 1970.
    Places are called "1 (ntfys)": of a URL nothing but its scheme is ever written or said.
    """

    relay: str
    urls: Mapping[str, str]
    path: Path
    send: Send
    clock: Callable[[], float] = time.time
    memory: Memory = field(default_factory=Memory)
    places: dict[str, Place] = field(default_factory=dict)
    crashes: tuple[float, ...] = ()
    counters: dict[str, int] = field(
        default_factory=lambda: {"notify:new": 0, "notify:sent": 0, "notify:failed": 0}
    )

    def __post_init__(self) -> None:
        """Begin with an event that is to be set by who has something to tell."""
        self._news = asyncio.Event()

    @classmethod
    def open(cls, relay: str, urls: Sequence[str], *, folder: Path, runtime: Path) -> Notifier:
        """Go on where the last run ended, by the file in ``folder``; a damaged one is left behind.

        runtime is a folder of the agent's own that does not outlive a boot (RuntimeDirectory=).
        """
        named = {f"{number} ({_scheme(url)})": url for number, url in enumerate(urls, 1)}
        notifier = cls(relay, named, folder / FILE, Apprise(runtime).send)
        notifier._restore()
        return notifier

    @property
    def waiting(self) -> int:
        """How many notices some place has not had yet."""
        return sum(len(place.pending) for place in self.places.values())

    def look(self, snapshot: Snapshot) -> None:
        """Take what is news in a snapshot; ``run`` tells it. Never blocks, never raises."""
        before = self.memory
        self.memory, notices = judge(before, snapshot)
        if notices:
            self.tell(notices)
        elif self.memory != before:
            self._keep()

    def say(self, key: str, title: str, body: str = "") -> None:
        """Tell something that no snapshot shows, as a warning; ``key`` is what it is about."""
        self.tell([Notice(key, WARNING, f"[{self.relay}] {title}", body, self.clock())])

    def tell(self, notices: Iterable[Notice]) -> None:
        """Queue notices for every place."""
        told = tuple(notices)
        for notice in told:
            log.info("to tell: %s", notice.title)
        self.counters["notify:new"] += len(told)
        self.places = {name: place.add(told) for name, place in self.places.items()}
        self._keep()
        self._news.set()

    async def run(self) -> None:
        """Tell every place what it is due, for ever; cancelled, it ends when nobody is being told.

        A mistake of ours in one place ends all of them, and is raised as it is.
        """
        self._news.set()
        try:
            async with asyncio.TaskGroup() as group:
                for name in self.urls:
                    group.create_task(self._serve(name))
        except ExceptionGroup as failed:
            raise failed.exceptions[0] from None

    async def _serve(self, name: str) -> None:
        """Tell one place, at its own pace."""
        while True:
            place = self.places[name]
            message = place.message(self.clock())
            if message is None:
                await self._wait(place)
                continue
            trouble = await self.send(self.urls[name], message)
            self._note(name, place.pending, trouble)

    async def _wait(self, place: Place) -> None:
        """Wait for news, or until what waits is due."""
        self._news.clear()
        due = place.wait(self.clock()) if place.pending else None
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._news.wait(), due)

    def _note(self, name: str, told: Sequence[Notice], trouble: str) -> None:
        now, place = self.clock(), self.places[name]
        if trouble:
            self.counters["notify:failed"] += 1
            self.places[name] = place.failed(now)
            again = span(self.places[name].due - now)
            log.warning("place %s was not told: %s; again in %s", name, trouble, again)
        else:
            self.counters["notify:sent"] += 1
            self.places[name] = place.succeeded(told, now)
        self._keep()

    def close(self) -> None:
        """Remember that the agent's stop was a clean one."""
        self._keep(running=False)

    def _restore(self) -> None:
        """Go on from what the last run kept, and note whether it ended in good order."""
        now, kept = self.clock(), self._kept()
        self.memory = kept.memory
        self.places = {name: kept.places.get(name, Place()) for name in self.urls}
        recent = tuple(each for each in kept.crashes if now - each < CRASH_SECONDS)
        self.crashes = (*recent, now) if kept.running else recent
        if len(self.crashes) >= CRASHES and kept.running:
            within = f"{len(self.crashes)} times within {span(CRASH_SECONDS)}"
            self.say("crashes", f"the agent crashed {within}", CRASHED)
            self.crashes = ()
        self._keep()

    def _kept(self) -> _Kept:
        try:
            return _kept(json.loads(self.path.read_text(encoding="utf-8")))
        except FileNotFoundError:
            return _Kept()
        except (OSError, KeyError, TypeError, ValueError, AttributeError):
            log.warning("%s is damaged: what was not told yet is lost", self.path)
            return _Kept(running=True)

    def _keep(self, *, running: bool = True) -> None:
        """Write everything that outlives this run; a full disk is no reason to stop."""
        kept = _Kept(self.memory, self.places, self.crashes, running)
        try:
            files.replace(self.path, json.dumps(asdict(kept)), 0o600)
        except OSError as error:
            log.warning("%s cannot be written: %s", self.path, error.strerror)


@dataclass(frozen=True)
class _Kept:
    """The file that outlives a run; running: nobody has said that it ended in good order."""

    memory: Memory = field(default_factory=Memory)
    places: Mapping[str, Place] = field(default_factory=dict)
    crashes: tuple[float, ...] = ()
    running: bool = False


@dataclass(frozen=True)
class Apprise:
    """The program of that name (https://github.com/caronc/apprise), 1.2 and later."""

    runtime: Path
    limit: float = LIMIT_SECONDS
    program: str = "apprise"

    async def send(self, url: str, notice: Notice) -> str:
        """Send a notice to one URL; return why it failed, without the URL, or ""."""
        config = self.runtime / f"apprise-{os.urandom(8).hex()}.conf"
        try:
            files.replace(config, url + "\n", 0o600)
            return await self._run(config, notice)
        except OSError as error:
            return f"apprise cannot be run: {error.strerror}"
        finally:
            config.unlink(missing_ok=True)

    async def _run(self, config: Path, notice: Notice) -> str:
        # A title that begins with a dash stays a value. HOME: where it may keep its cache.
        argv = [self.program, f"--config={config}", f"--notification-type={notice.severity}",
                f"--title={notice.title[:TITLE]}"]  # fmt: skip
        pipe, null = asyncio.subprocess.PIPE, asyncio.subprocess.DEVNULL
        environment = {"HOME": str(self.runtime), "LANG": "C.UTF-8", "PATH": os.environ["PATH"]}
        child = await asyncio.create_subprocess_exec(
            *argv, stdin=pipe, stdout=null, stderr=null, env=environment
        )
        try:
            await asyncio.wait_for(
                child.communicate(notice.body[:BODY].encode(errors="replace")), self.limit
            )
        except TimeoutError:
            return f"apprise did not end within {span(self.limit)}"
        finally:
            if child.returncode is None:
                child.kill()
                await child.wait()
        return "" if child.returncode == 0 else (
            "it cannot be reached or does not take it, or its URL is none that apprise knows"
        )  # fmt: skip


def _scheme(url: str) -> str:
    scheme = url.partition("://")[0]
    return scheme if scheme.isalnum() and scheme.isascii() and len(scheme) < 16 else "?"


def _kept(found: dict[str, Any]) -> _Kept:
    """Read back what _Kept became. Raises KeyError, TypeError, ValueError, AttributeError."""
    memory = found["memory"]
    drains = {name: Drain(**each) for name, each in memory.get("drains", {}).items()}
    opened = {key: Open(**each) for key, each in memory["open"].items()}
    return _Kept(
        Memory(opened, dict(memory["down"]), drains),
        {name: _place(each) for name, each in found["places"].items()},
        tuple(float(each) for each in found["crashes"]),
        bool(found["running"]),
    )


def _place(found: dict[str, Any]) -> Place:
    pending = tuple(Notice(**each) for each in found["pending"])
    return Place(**found | {"pending": pending, "sent": tuple(found["sent"])})
