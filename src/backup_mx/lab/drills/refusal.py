"""The drill ``refusal``: the primary comes back, but broken; no answer of its bounces anything."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass

from backup_mx.errors import LabError
from backup_mx.lab.drills.base import Drill
from backup_mx.lab.host import wait_for
from backup_mx.lab.reconcile import Sent
from backup_mx.relay.queue.postfix import Message

MAIN_CF = "/etc/postfix/main.cf"
STAGE_SECONDS = 180.0


@dataclass(frozen=True)
class Stage:
    """A way to be broken: lines that end the primary's main.cf, and the words it says then."""

    title: str
    lines: str
    words: str


STAGES = (
    Stage(
        "its table of mailboxes is empty, as with a volume that is not mounted",
        "virtual_mailbox_maps = inline:{ nobody@example.org=yes }",
        "550 5.1.1",
    ),
    Stage(
        "it refuses every message after DATA",
        "smtpd_end_of_data_restrictions ="
        " check_client_access static:{554 5.3.0 the filter is not configured}",
        "554 5.3.0",
    ),
    Stage(
        "it puts every message off",
        "smtpd_end_of_data_restrictions ="
        " check_client_access static:{451 4.3.0 the filter is not ready}",
        "451 4.3.0",
    ),
)


@dataclass
class Refusal(Drill):
    """The drill ``refusal``: a primary half restored, in stages, then a whole one."""

    name = "refusal"
    summary = "the primary comes back broken: it says 550, then 554, then 451, then it is well"
    default_messages = 40  # after ten errors in a session, a Postfix takes a second for each answer

    def rehearse(self, pool: Executor) -> tuple[list[Sent], list[str]]:
        """Break the primary in every way, and mend it."""
        self.cut_the_primary()
        sending = pool.submit(self.submit, self.name)
        file = self.primary.path(MAIN_CF)
        whole = file.read_bytes()
        try:
            self.fill_the_relay(self.messages)
            failures = [failure for stage in STAGES for failure in self.endure(stage, whole)]
        finally:
            file.write_bytes(whole)
            self.restore_the_primary()
            sent = sending.result()
        self.primary.run(["postfix", "reload"])
        self.timeline.event("the primary is mended", "mended")
        self.look_on()
        try:
            self.drain(by_the_operator=True)
        except LabError as error:
            return sent, [*failures, str(error)]
        return sent, failures

    def endure(self, stage: Stage, whole: bytes) -> list[str]:
        """Flush against a primary that is broken; return what should not have come of it.

        It is well at no moment: ``whole`` is its main.cf, to which the stage's lines are added.
        """
        notices, delivered = self.notices, self.mailboxes.count
        self.timeline.event(f"the primary is broken: {stage.title}", stage.words[:3])
        self.primary.path(MAIN_CF).write_bytes(whole + f"\n{stage.lines}\n".encode())
        if self.primary.running:
            self.primary.run(["postfix", "reload"])
        else:
            self.restore_the_primary()
        self.relay.flush()
        listed, failures = self.until_told(stage)
        counts = {
            "waiting": len(listed),
            "delivered": self.mailboxes.count - delivered,
            "notices": self.notices - notices,
        }
        self.stages.append({"stage": stage.title, "words": stage.words, **counts,
                            "reasons": dict(reasons(listed).most_common(5))})  # fmt: skip
        if counts != {"waiting": self.messages, "delivered": 0, "notices": 0}:
            failures.append(f"while {stage.title}: {counts}, of {self.messages} messages")
        return failures

    def until_told(self, stage: Stage) -> tuple[list[Message], list[str]]:
        """Wait until the queue shows the primary's words for every message.

        Return the listing that does, or the last one, and what did not come about. A moment later
        messages are tried again: what moves is not listed then, nor why what is tried has waited.
        """
        listed: list[Message] = []

        def told() -> bool:
            listed[:] = self.relay.messages()
            return self.told(listed, stage.words)

        try:
            wait_for(f'the queue to say "{stage.words}" of each', told, timeout=STAGE_SECONDS)
        except LabError as error:
            return listed, [str(error)]
        self.timeline.event(f'the queue says "{stage.words}" of each message')
        return listed, []

    def told(self, queue: Sequence[Message], words: str) -> bool:
        """Whether ``words`` are why each message waits; what waits for another reason is tried."""
        count = sum(
            all(words in recipient.reason for recipient in message.recipients) for message in queue
        )
        # Not before: a message that is tried again shows no reason meanwhile.
        if count < self.messages and all(message.queue == "deferred" for message in queue):
            self.relay.flush()
        return count >= self.messages


def reasons(queue: Iterable[Message]) -> Counter[str]:
    """Count the messages by the reason for which they wait."""
    return Counter(message.recipients[0].reason for message in queue)
