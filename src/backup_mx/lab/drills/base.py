"""What every drill has: three places that mail can be in, a clock, and the count at the end."""

from __future__ import annotations

import abc
import contextlib
import re
import secrets
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Executor, ThreadPoolExecutor
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, ClassVar

from backup_mx.errors import LabError
from backup_mx.lab import settings
from backup_mx.lab.corpus import corpus
from backup_mx.lab.drills.agent import Agent
from backup_mx.lab.drills.watch import Watch
from backup_mx.lab.host import wait_for
from backup_mx.lab.layout import ROLES
from backup_mx.lab.place import Place
from backup_mx.lab.reconcile import Sent, reconcile
from backup_mx.lab.report import report_json
from backup_mx.lab.stations import Mailboxes, RelayQueue, Sender
from backup_mx.lab.timeline import Timeline
from backup_mx.lab.world import World
from backup_mx.relay.tell import outbox

RELAY = "mx2.example.org"
PRIMARY = "mail.example.org"
RELAY_ADDRESS = ROLES["mx2"].addresses[0]
MAIN_CF = "/etc/postfix/main.cf"
SAMPLE_SECONDS = 0.25
RETRY_SECONDS = 3.0
INTAKE_SECONDS = 240.0
DRAIN_SECONDS = 240.0
FILE_SECONDS = 60.0
TELL_SECONDS = outbox.CROWDED_SECONDS + 90.0
"""For a notice to arrive: after many of them in an hour a relay lets a place rest."""
BUDGET_SECONDS = 5.0
"""From the primary's first good answer to the first delivery, at most (the design's budget)."""


@dataclass
class Drill(abc.ABC):
    """Something that can go wrong, done on purpose in ``world``, with every message counted.

    name is what an operator calls it, summary a line of help, default_messages how many messages
    it sends unless told; messages is how many it sends, agent_dead whether the relay's agent is
    killed first and stays dead. Events go to the timeline as they happen.
    """

    name: ClassVar[str]
    summary: ClassVar[str]
    default_messages: ClassVar[int] = 500

    world: World
    timeline: Timeline
    messages: int
    agent_dead: bool = False
    figures: dict[str, float] = field(default_factory=dict)
    rows: list[dict[str, Any]] = field(default_factory=list)
    stages: list[dict[str, Any]] = field(default_factory=list)

    def __post_init__(self) -> None:
        """Name the places that mail can be in."""
        self.sender = Sender(self.world.machine("internet"))
        self.relay = RelayQueue(self.world.machine("mx2"))
        self.primary = self.world.machine("primary")
        self.mailboxes = Mailboxes(self.primary)
        self.agent = Agent(self.relay.machine)
        self.place = Place(self.sender.machine)
        self.watch: Watch | None = None

    def run(self) -> dict[str, Any]:
        """Run the drill; return its report. Raises LabError when the lab is not fit for one."""
        started = datetime.now(UTC).isoformat(timespec="seconds")
        self.refuse_leftovers()
        notices = self.notices
        try:
            with ThreadPoolExecutor() as pool, self.sampled(pool), self.with_or_without_agent():
                sent, failures = self.rehearse(pool)
        finally:
            self.look_away()
        self.timeline.event("reading every mailbox over IMAP")
        result = reconcile(
            sent,
            self.accepted & {each.message_id for each in sent},
            self.mailboxes.collect(),
            dsn=self.notices - notices,
            excusable_duplicates=self.excusable,
        )
        return report_json(
            self.name,
            result,
            self.timeline,
            started=started,
            figures=self.figures,
            failures=[*failures, *self.left_over()],
            rows=self.rows,
            stages=self.stages,
        )

    @abc.abstractmethod
    def rehearse(self, pool: Executor) -> tuple[list[Sent], list[str]]:
        """Do it; return the mail that has to be in the mailboxes now, and what did not come about.

        Raises LabError when the lab is not fit for it. Every machine is on afterwards.
        """

    @property
    def notices(self) -> int:
        """How many notices were ever made: by relay and primary, or by others for the senders."""
        return self.sender.bounces + self.relay.notices + RelayQueue(self.primary).notices

    @property
    def excusable(self) -> frozenset[str]:
        """The Message-IDs that may have come twice: a cut took the answer to them."""
        return self.sender.answers(RELAY).unanswered

    @property
    def accepted(self) -> frozenset[str]:
        """The Message-IDs that the sender's MTA has a 250 for, whoever gave it."""
        answers = (self.sender.answers(host) for host in (RELAY, PRIMARY))
        return frozenset().union(*(each.accepted for each in answers))

    @contextlib.contextmanager
    def with_or_without_agent(self) -> Iterator[None]:
        """Kill the agent, for good, while the block runs, if that was asked for.

        Raises LabError when there is none to kill.
        """
        if not self.agent_dead:
            yield
            return
        self.need_the_agent()
        with self.agent.dead():
            self.timeline.event("the relay's agent is killed, and stays dead", "agent dead")
            yield

    def need_the_agent(self) -> None:
        """Raise LabError when this lab's relay has no agent."""
        if not self.agent.installed:
            raise LabError(
                f"this lab's relay has no agent: backup-mx lab down --name {self.world.name}, "
                "then up, makes one that has"
            )

    def left_over(self) -> list[str]:
        """Say what still waits on the relay."""
        places = ((self.relay.held, "on hold"), (self.relay.waiting, "waiting"))
        return [f"{count} {where} on the relay" for count, where in places if count]

    def refuse_leftovers(self) -> None:
        """Raise LabError when a machine is off, or mail from before would blur the count."""
        again = f"backup-mx lab down --name {self.world.name}, then up, makes a new one"
        for status in self.world.status():
            if status.state != "running":
                raise LabError(f"{status.machine} is {status.state} in this lab: {again}")
        for place, count in (("sender", self.sender.waiting), ("relay", self.relay.waiting)):
            if count:
                raise LabError(f"{count} messages wait at the {place} from before: {again}")

    def cut_the_primary(self, *, empty: bool = True) -> None:
        """Empty the mailboxes, unless told not to, and cut the primary's power."""
        if empty:
            self.mailboxes.empty()
        self.timeline.event("the primary's power is cut", "primary off")
        self.primary.kill()

    def restore_the_primary(self) -> None:
        """Switch the primary on, if it is off, and wait until it answers."""
        if not self.primary.running:
            self.look_on()
            self.primary.boot()
            self.primary.ready()
            self.timeline.event("the primary answers again", "primary back")

    def submit(self, name: str, count: int = 0, host: str = "127.0.0.1") -> list[Sent]:
        """Hand the drill's mail, or ``count`` messages, to the sender's MTA or to another host."""
        return self.sender.submit(corpus(count or self.messages, seed()), name, host)

    @contextlib.contextmanager
    def configured(self, options: str) -> Iterator[None]:
        """Have the relay deployed with these options, tables of the config, while the block runs.

        Raises MachineError when a deploy fails.
        """
        text = settings.text(self.world.name)
        self.timeline.event(f"the relay is deployed with {' '.join(options.split())}")
        self.world.deploy(_ignore, settings.with_options(text, options))
        try:
            yield
        finally:
            self.world.deploy(_ignore, text)

    @contextlib.contextmanager
    def altered(self, values: Mapping[str, str]) -> Iterator[None]:
        """Have the relay's Postfix run with other values in its main.cf while the block runs."""
        file = self.relay.machine.path(MAIN_CF)
        whole = text = file.read_text()
        for name, value in values.items():
            # In its place: of a name that stands there twice Postfix complains in its log.
            text = re.sub(rf"^{name} = .*$", f"{name} = {value}", text, flags=re.MULTILINE)
        try:
            file.write_text(text)
            self.relay.machine.run(["postfix", "reload"])
            yield
        finally:
            file.write_text(whole)
            self.relay.machine.run(["postfix", "reload"])

    def fill_the_relay(self, count: int) -> None:
        """Wait until ``count`` messages are on the relay and none at the sender."""
        wait_for(f"{count} messages to be on the relay", self.relay_has(count),
                 timeout=INTAKE_SECONDS)  # fmt: skip
        wait_for("the sender's queue to empty", self.sender_is_empty(), timeout=INTAKE_SECONDS)

    def look_on(self) -> None:
        """Watch from now on for the primary's first good answer, and for the first delivery."""
        self.look_away()
        self.watch = Watch(self.relay.welcome, self.relay.greeted, lambda: self.mailboxes.count)

    def look_away(self) -> None:
        """Watch no longer."""
        if self.watch:
            self.watch.stop()
            self.watch = None

    def drain(self, timeout: float = DRAIN_SECONDS, *, by_the_operator: bool = False) -> None:
        """Wait until the relay is empty and the primary has filed everything.

        Nobody flushes: the agent does, or where it is dead Postfix tries by itself, later. The
        operator flushes where there never was one, as in the lab without, or if told to. Figures
        of the first delivery and the last one are taken. Raises LabError after ``timeout`` seconds.
        """
        if self.watch is None:
            self.look_on()
        wait_for("the primary to greet the relay", self.relay.greeted, timeout=timeout)
        began = time.monotonic()
        if by_the_operator or not self.agent.installed:
            self.relay.flush()
        self.first_delivery(timeout)
        wait_for("the relay's queue to empty", self.flushed(lambda: self.relay.waiting == 0),
                 timeout=timeout)  # fmt: skip
        self.figures["drained after the primary's greeting, s"] = round(time.monotonic() - began, 1)
        self.timeline.event("the relay's queue is empty", "drained")
        self.filed()

    def first_delivery(self, timeout: float) -> None:
        """Wait for it, and take how long it took from the primary's first good answer.

        Raises LabError where nobody saw that answer: then nothing was measured.
        """
        watch = self.watch
        assert watch is not None  # noqa: S101  drain() saw to it
        wait_for("the first delivery", self.flushed(lambda: watch.first is not None),
                 timeout=timeout)  # fmt: skip
        self.look_away()
        if watch.seconds is None:
            raise LabError("how soon mail was delivered is not measured: no good answer was seen")
        self.figures["first_delivery_s"] = round(watch.seconds, 2)
        self.timeline.event("the first message is in its mailbox")

    def tells(self, words: str, since: float, timeout: float = TELL_SECONDS) -> None:
        """Wait until the operator's place has a notice whose title begins with ``words``.

        It came after ``since``, in seconds since 1970. Raises LabError after ``timeout`` seconds.
        """
        wait_for(f"the operator to be told: {words}", lambda: self.place.has(words, since),
                 timeout=timeout)  # fmt: skip

    def filed(self) -> None:
        """Wait until nothing is on its way within the primary."""
        wait_for(
            "the primary to file it", lambda: self.mailboxes.on_the_way == 0, timeout=FILE_SECONDS
        )
        self.timeline.event("the primary has filed everything")

    def relay_has(self, count: int) -> Callable[[], bool]:
        """Return the question whether the relay keeps that many messages."""
        return now_and_then(self.sender.retry, lambda: self.relay.waiting >= count)

    def sender_is_empty(self) -> Callable[[], bool]:
        """Return the question whether nothing waits at the sender, who tries again meanwhile."""
        return now_and_then(self.sender.retry, lambda: self.sender.waiting == 0)

    def flushed(self, question: Callable[[], bool]) -> Callable[[], bool]:
        """Return ``question``, asked while the operator, where there is no agent, flushes."""
        return question if self.agent.installed else now_and_then(self.relay.flush, question)

    @contextlib.contextmanager
    def sampled(self, pool: Executor) -> Iterator[None]:
        """Take the curve's samples while the block runs."""
        stop = threading.Event()

        def sample() -> None:
            self.timeline.sample(self.relay.waiting, self.mailboxes.count, self.sender.waiting)

        def work() -> None:
            while not stop.wait(SAMPLE_SECONDS):
                sample()
            sample()  # the curve ends with what the drill left

        sampling = pool.submit(work)
        try:
            yield
        finally:
            stop.set()
        sampling.result()


def _ignore(_said: str) -> None:
    """Tell nobody."""


def now_and_then(act: Callable[[], None], question: Callable[[], bool]) -> Callable[[], bool]:
    """Return ``question``, asked with ``act`` done every RETRY_SECONDS."""
    last = time.monotonic()

    def asked() -> bool:
        nonlocal last
        if time.monotonic() - last > RETRY_SECONDS:
            act()
            last = time.monotonic()
        return question()

    return asked


def seed() -> int:
    """Return a seed of its own for each run, so that no two runs share a Message-ID."""
    return secrets.randbelow(10**9)


def copies(sent: list[Sent]) -> int:
    """Return how many copies of ``sent`` have to be in mailboxes."""
    return sum(len(each.recipients) for each in sent)
