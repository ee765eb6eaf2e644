"""Drills: what can go wrong, done on purpose, with every message counted afterwards."""

from __future__ import annotations

import contextlib
import secrets
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Executor, ThreadPoolExecutor
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from backup_mx.errors import LabError, did_you_mean
from backup_mx.lab.corpus import corpus
from backup_mx.lab.host import wait_for
from backup_mx.lab.reconcile import Sent, reconcile
from backup_mx.lab.report import report_json
from backup_mx.lab.stations import Mailboxes, RelayQueue, Sender
from backup_mx.lab.timeline import Timeline
from backup_mx.lab.world import World

RELAY = "mx2.example.org"
DIRECT = 10
SAMPLE_SECONDS = 0.25
RETRY_SECONDS = 3.0
INTAKE_SECONDS = 240.0
DRAIN_SECONDS = 240.0


@dataclass
class Outage:
    """The drill ``outage``: the primary dies, the relay loses power in the middle, mail comes on.

    Nothing is reset by hand: the sender tries again as senders do, the relay finds its queue on
    its disk, and the operator flushes it once the primary is back.
    """

    world: World
    timeline: Timeline
    messages: int
    figures: dict[str, float] = field(default_factory=dict)

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
        with ThreadPoolExecutor() as pool, self.sampled(pool):
            self.deliver_directly()
            notices = self.notices
            self.mailboxes.empty()
            self.timeline.event("the primary's power is cut", "primary off")
            self.primary.kill()
            mails = corpus(self.messages, seed())
            sending = pool.submit(self.sender.submit, mails, "outage")
            failures = self.lose_and_regain()
            sent = sending.result()
        answers = self.sender.answers(RELAY)
        self.timeline.event("reading every mailbox over IMAP")
        result = reconcile(
            sent,
            answers.accepted & {each.message_id for each in sent},
            self.mailboxes.collect(),
            dsn=self.notices - notices,
            excusable_duplicates=answers.unanswered,
        )
        return report_json(
            "outage",
            result,
            self.timeline,
            started=started,
            figures=self.figures,
            failures=failures,
        )

    @property
    def notices(self) -> int:
        """How many notices were ever made: by the relay, or by others for the senders."""
        return self.sender.bounces + self.relay.notices

    def refuse_leftovers(self) -> None:
        """Raise LabError when a machine is off, or mail from before would blur the count."""
        again = f"backup-mx lab down --name {self.world.name}, then up, makes a new one"
        for status in self.world.status():
            if status.state != "running":
                raise LabError(f"{status.machine} is {status.state} in this lab: {again}")
        for place, count in (("sender", self.sender.waiting), ("relay", self.relay.waiting)):
            if count:
                raise LabError(f"{count} messages wait at the {place} from before: {again}")

    def deliver_directly(self) -> None:
        """Show that mail takes the primary while it is there."""
        before = self.mailboxes.count
        sent = self.sender.submit(corpus(DIRECT, seed()), "direct")
        wanted = before + copies(sent)
        wait_for(
            "mail to reach the primary directly", lambda: self.mailboxes.count >= wanted, timeout=60
        )
        if self.relay.waiting:
            raise LabError("mail took the relay although the primary was there")
        self.timeline.event(f"{len(sent)} messages went straight to the primary")

    def lose_and_regain(self) -> list[str]:
        """Go through the outage; return what did not come about. The primary is on afterwards."""
        try:
            self.fill_the_relay()
            self.bring_the_primary_back()
        except LabError as error:
            self.timeline.event(f"given up: {error}")
            return [str(error)]
        finally:
            if not self.primary.running:
                self.primary.boot()
                self.primary.ready()
        return [f"{self.relay.held} on hold on the relay"] if self.relay.held else []

    def fill_the_relay(self) -> None:
        """Wait for half of the mail, cut the relay's power, and wait for the rest."""
        began = time.monotonic()
        half = self.messages // 2
        wait_for(
            f"{half} messages to be on the relay", self.relay_has(half), timeout=INTAKE_SECONDS
        )
        self.timeline.event(f"the relay's power is cut with {half} messages on it", "power cut")
        self.relay.machine.kill()
        self.relay.machine.boot()
        self.relay.machine.ready()
        self.relay.machine.listening(25)
        self.timeline.event("the relay answers again", "relay back")
        wait_for("the relay to have all", self.relay_has(self.messages), timeout=INTAKE_SECONDS)
        wait_for(
            "the sender's queue to empty",
            self.retried(self.sender_is_empty),
            timeout=INTAKE_SECONDS,
        )
        self.figures["intake with the power cut, s"] = round(time.monotonic() - began, 1)
        self.figures["messages waiting on the relay"] = waiting = self.relay.waiting
        self.timeline.event(f"{waiting} messages wait on the relay")

    def bring_the_primary_back(self) -> None:
        """Switch the primary on, flush, and wait until it has everything."""
        self.primary.boot()
        self.primary.ready()
        self.timeline.event("the primary answers again", "primary back")
        back = time.monotonic()
        self.relay.flush()
        wait_for("the first delivery", lambda: self.mailboxes.count > 0, timeout=DRAIN_SECONDS)
        self.figures["first delivery after the flush, s"] = round(time.monotonic() - back, 1)
        self.timeline.event("the first message is in its mailbox")
        wait_for(
            "the relay's queue to empty", lambda: self.relay.waiting == 0, timeout=DRAIN_SECONDS
        )
        self.figures["drained after the flush, s"] = round(time.monotonic() - back, 1)
        self.timeline.event("the relay's queue is empty", "drained")
        wait_for("the primary to file it", lambda: self.mailboxes.on_the_way == 0, timeout=60)
        self.timeline.event("the primary has filed everything")

    def relay_has(self, count: int) -> Callable[[], bool]:
        """Return the question whether the relay keeps that many messages."""
        return self.retried(lambda: self.relay.waiting >= count)

    def sender_is_empty(self) -> bool:
        """Whether nothing waits at the sender."""
        return self.sender.waiting == 0

    def retried(self, question: Callable[[], bool]) -> Callable[[], bool]:
        """Return ``question``, asked while the sender tries its deferred mail now and then."""
        last = time.monotonic()

        def asked() -> bool:
            nonlocal last
            if time.monotonic() - last > RETRY_SECONDS:
                self.sender.retry()
                last = time.monotonic()
            return question()

        return asked

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


def seed() -> int:
    """Return a seed of its own for each run, so that no two runs share a Message-ID."""
    return secrets.randbelow(10**9)


def copies(sent: list[Sent]) -> int:
    """Return how many copies of ``sent`` have to be in mailboxes."""
    return sum(len(each.recipients) for each in sent)


DRILLS: dict[str, type[Outage]] = {"outage": Outage}


def drill(name: str) -> type[Outage]:
    """Return the drill called ``name``. Raises LabError when there is none."""
    try:
        return DRILLS[name]
    except KeyError:
        known = ", ".join(DRILLS)
        hint = did_you_mean(name, DRILLS)
        raise LabError(f'there is no drill "{name}": there is {known}. {hint}'.rstrip()) from None
