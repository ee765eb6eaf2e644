"""What every drill has: three places that mail can be in, a clock, and the count at the end."""

from __future__ import annotations

import abc
import contextlib
import secrets
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Executor, ThreadPoolExecutor
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, ClassVar

from backup_mx.errors import LabError
from backup_mx.lab.corpus import corpus
from backup_mx.lab.host import wait_for
from backup_mx.lab.reconcile import Sent, reconcile
from backup_mx.lab.report import report_json
from backup_mx.lab.stations import Mailboxes, RelayQueue, Sender
from backup_mx.lab.timeline import Timeline
from backup_mx.lab.world import World

RELAY = "mx2.example.org"
PRIMARY = "mail.example.org"
SAMPLE_SECONDS = 0.25
RETRY_SECONDS = 3.0
INTAKE_SECONDS = 240.0
DRAIN_SECONDS = 240.0
FILE_SECONDS = 60.0


@dataclass
class Drill(abc.ABC):
    """Something that can go wrong, done on purpose in ``world``, with every message counted.

    name is what an operator calls it, summary a line of help, default_messages how many messages
    it sends unless told; messages is how many it sends. Events go to the timeline as they happen.
    """

    name: ClassVar[str]
    summary: ClassVar[str]
    default_messages: ClassVar[int] = 500

    world: World
    timeline: Timeline
    messages: int
    figures: dict[str, float] = field(default_factory=dict)
    rows: list[dict[str, Any]] = field(default_factory=list)
    stages: list[dict[str, Any]] = field(default_factory=list)

    def __post_init__(self) -> None:
        """Name the places that mail can be in."""
        self.sender = Sender(self.world.machine("internet"))
        self.relay = RelayQueue(self.world.machine("mx2"))
        self.primary = self.world.machine("primary")
        self.mailboxes = Mailboxes(self.primary)

    def run(self) -> dict[str, Any]:
        """Run the drill; return its report. Raises LabError when the lab is not fit for one."""
        started = datetime.now(UTC).isoformat(timespec="seconds")
        self.refuse_leftovers()
        notices = self.notices
        with ThreadPoolExecutor() as pool, self.sampled(pool):
            sent, failures = self.rehearse(pool)
        self.timeline.event("reading every mailbox over IMAP")
        result = reconcile(
            sent,
            self.accepted & {each.message_id for each in sent},
            self.mailboxes.collect(),
            dsn=self.notices - notices,
            excusable_duplicates=self.sender.answers(RELAY).unanswered,
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
    def accepted(self) -> frozenset[str]:
        """The Message-IDs that the sender's MTA has a 250 for, whoever gave it."""
        answers = (self.sender.answers(host) for host in (RELAY, PRIMARY))
        return frozenset().union(*(each.accepted for each in answers))

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

    def cut_the_primary(self) -> None:
        """Empty the mailboxes, and cut the primary's power."""
        self.mailboxes.empty()
        self.timeline.event("the primary's power is cut", "primary off")
        self.primary.kill()

    def restore_the_primary(self) -> None:
        """Switch the primary on, if it is off, and wait until it answers."""
        if not self.primary.running:
            self.primary.boot()
            self.primary.ready()
            self.timeline.event("the primary answers again", "primary back")

    def submit(self, name: str) -> list[Sent]:
        """Hand the drill's mail, a new corpus, to the sender's MTA."""
        return self.sender.submit(corpus(self.messages, seed()), name)

    def fill_the_relay(self, count: int) -> None:
        """Wait until ``count`` messages are on the relay and none at the sender."""
        wait_for(f"{count} messages to be on the relay", self.relay_has(count),
                 timeout=INTAKE_SECONDS)  # fmt: skip
        wait_for("the sender's queue to empty", self.sender_is_empty(), timeout=INTAKE_SECONDS)

    def drain(self, timeout: float = DRAIN_SECONDS) -> None:
        """Flush the relay until it is empty and the primary has filed everything.

        It begins when the primary greets the relay on its drain path, which may be seconds after
        it is up. Figures of the first delivery and the last one are taken. Raises LabError after
        ``timeout`` seconds.
        """
        wait_for("the primary to greet the relay", self.relay.greeted, timeout=timeout)
        began = time.monotonic()
        self.relay.flush()
        before = self.mailboxes.count
        wait_for("the first delivery", self.flushed(lambda: self.mailboxes.count > before),
                 timeout=timeout)  # fmt: skip
        self.figures["first delivery after the flush, s"] = round(time.monotonic() - began, 1)
        self.timeline.event("the first message is in its mailbox")
        wait_for("the relay's queue to empty", self.flushed(lambda: self.relay.waiting == 0),
                 timeout=timeout)  # fmt: skip
        self.figures["drained after the flush, s"] = round(time.monotonic() - began, 1)
        self.timeline.event("the relay's queue is empty", "drained")
        self.filed()

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
        """Return ``question``, asked while the operator flushes now and then."""
        return now_and_then(self.relay.flush, question)

    @contextlib.contextmanager
    def sampled(self, pool: Executor) -> Iterator[None]:
        """Take the curve's samples while the block runs."""
        stop = threading.Event()

        def work() -> None:
            while not stop.wait(SAMPLE_SECONDS):
                self.timeline.sample(self.relay.waiting, self.mailboxes.count, self.sender.waiting)

        sampling = pool.submit(work)
        try:
            yield
        finally:
            stop.set()
        sampling.result()


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
