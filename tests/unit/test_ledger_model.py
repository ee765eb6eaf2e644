"""A model of Postfix, a listing and a reader that all go their own pace: never a false difference.

The model knows the truth. Lines reach the log late, the log is read later still, the spool is
listed queue by queue while messages move, and the agent's two calls come whenever they come.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule
from ledgers import Desk, active, asked, removed, super_, tried

from backup_mx.relay.ledger import Entry
from backup_mx.relay.state import Sums

LAG = 3.0  # seconds that a line needs at the most to get into the log
SCAN = ("maildrop", "incoming", "active", "deferred", "hold", "corrupt", "incoming", "active")


class Relay(RuleBasedStateMachine):
    """Postfix, its operator, and the agent."""

    def __init__(self) -> None:
        super().__init__()
        self.folder = tempfile.TemporaryDirectory()
        self.desk = Desk(Path(self.folder.name))
        self.spool: dict[str, str] = {}
        self.ended: dict[str, str] = {}
        self.origin: dict[str, str] = {}
        self.late: list[tuple[float, str]] = []
        self.number = 0
        self.scan: Iterator[str] | None = None
        self.seen: dict[str, str] = {}
        self.begun = 0.0

    def teardown(self) -> None:
        self.desk.ledger.close()
        self.folder.cleanup()

    # --- Postfix

    def log(self, *said: str) -> None:
        self.late += [(self.desk.now, each) for each in said]

    def flush(self, before: float) -> None:
        while self.late and self.late[0][0] <= before:
            self.desk.write(self.late.pop(0)[1])

    def pick(self, data: st.DataObject, *queues: str) -> str | None:
        found = [each for each, queue in self.spool.items() if queue in queues]
        return data.draw(st.sampled_from(found)) if found else None

    def name(self) -> str:
        self.number += 1
        return f"4jXLxq4KF0z{self.number:04}"

    @rule(whole=st.booleans(), held=st.booleans())
    def arrive(self, whole: bool, held: bool) -> None:
        queue_id = self.name()
        self.log(f"postfix/smtpd[1]: {queue_id}: client=a[192.0.2.7]")
        if held:
            self.log(f"postfix/cleanup[2]: {queue_id}: hold: header Subject: removed")
        if whole:
            self.origin[queue_id] = queue_id
            self.spool[queue_id] = "hold" if held else "incoming"

    @rule(data=st.data())
    def activate(self, data: st.DataObject) -> None:
        if queue_id := self.pick(data, "incoming", "deferred"):
            self.spool[queue_id] = "active"
            self.log(active(queue_id))

    @rule(data=st.data())
    def deliver(self, data: st.DataObject) -> None:
        if queue_id := self.pick(data, "active"):
            self.log(tried(queue_id))
            del self.spool[queue_id]
            self.ended[self.origin[queue_id]] = "delivered"
            self.log(removed(queue_id))

    @rule(data=st.data())
    def defer(self, data: st.DataObject) -> None:
        if queue_id := self.pick(data, "active"):
            self.log(tried(queue_id, status="deferred", words="connect to m: timed out"))
            self.spool[queue_id] = "deferred"

    @rule(data=st.data())
    def expire(self, data: st.DataObject) -> None:
        if queue_id := self.pick(data, "active"):
            notice = self.name()
            self.origin[notice] = self.origin[queue_id]
            self.spool[notice] = "hold"
            self.log(
                f"postfix/qmgr[3]: {queue_id}: from=<a@b>, status=expired, returned to sender",
                f"postfix/cleanup[2]: {notice}: hold: header Received: x",
                f"postfix/bounce[6]: {queue_id}: sender non-delivery notification: {notice}",
            )
            del self.spool[queue_id]
            self.log(removed(queue_id))

    @rule(data=st.data())
    def pick_up(self, data: st.DataObject) -> None:
        if queue_id := self.pick(data, "maildrop"):
            new = self.name()
            self.origin[new] = self.origin[queue_id]
            self.log(f"postfix/pickup[5]: {new}: uid=1 from=<a@b> orig_id={queue_id}")
            del self.spool[queue_id]
            self.spool[new] = "incoming"

    # --- The operator

    @rule(data=st.data(), announced=st.booleans(), verb=st.sampled_from(["hold", "delete"]))
    def hold_or_delete(self, data: st.DataObject, announced: bool, verb: str) -> None:
        if queue_id := self.pick(data, "deferred", "incoming", "hold"):
            self.log(*([asked(queue_id, verb)] if announced else []))
            if verb == "hold":
                self.spool[queue_id] = "hold"
                self.log(super_(queue_id, "placed on hold"))
            else:
                del self.spool[queue_id]
                self.ended[self.origin[queue_id]] = "deleted"
                self.log(super_(queue_id, "removed"))

    @rule(data=st.data(), again=st.booleans())
    def release_or_requeue(self, data: st.DataObject, again: bool) -> None:
        if queue_id := self.pick(data, "hold"):
            self.spool[queue_id] = "maildrop" if again else "deferred"
            self.log(super_(queue_id, "requeued" if again else "released from hold"))

    # --- Time, and the agent

    @rule(seconds=st.sampled_from([0.1, 1.0, 4.0, 15.0, 60.0]))
    def wait(self, seconds: float) -> None:
        for _ in range(int(seconds // LAG) + 1):
            self.desk.now += min(seconds, LAG)
            self.flush(self.desk.now - LAG)

    @rule()
    def lines_arrive(self) -> None:
        self.flush(self.desk.now)

    @rule(lines=st.sampled_from([1, 3, 1000]))
    def read(self, lines: int) -> None:
        self.desk.ledger.catch_up(lines)

    @rule()
    def restart(self) -> None:
        self.desk.reopen()

    @precondition(lambda self: self.scan is None)
    @rule()
    def begin_listing(self) -> None:
        self.scan, self.seen, self.begun = iter(SCAN), {}, self.desk.now

    @precondition(lambda self: self.scan is not None)
    @rule(queues=st.integers(1, 8))
    def list_some(self, queues: int) -> None:
        assert self.scan
        for queue in [each for _, each in zip(range(queues), self.scan, strict=False)]:
            here = {each for each, place in self.spool.items() if place == queue}
            self.seen |= {each: queue for each in here if each not in self.seen}
        if queues == 8:
            self.finish_listing()

    @rule()
    def list_at_once(self) -> None:
        self.begun, self.seen = self.desk.now, dict(self.spool)
        self.finish_listing()

    def finish_listing(self) -> None:
        entries = [Entry(queue, each, 100, self.begun) for each, queue in self.seen.items()]
        self.desk.ledger.reconcile(entries, self.begun)
        self.scan = None

    @invariant()
    def nothing_differs_and_all_adds_up(self) -> None:
        sums = self.desk.sums
        assert not sums.differences
        assert sums.even

    @rule()
    def when_all_is_quiet_the_truth_is_known(self) -> None:
        self.flush(self.desk.now)
        for _ in range(3):
            self.desk.now += 30
            self.desk.read()
            entries = [Entry(queue, each, 100, 0.0) for each, queue in self.spool.items()]
            self.desk.ledger.reconcile(entries, self.desk.now)
        self.scan = None
        here = {self.origin[each]: queue for each, queue in self.spool.items()}
        held = sum(queue == "hold" for queue in here.values())
        ended = [fate for each, fate in self.ended.items() if each not in here]
        delivered = ended.count("delivered")
        accepted = len(here) + len(ended)
        waiting = len(here) - held
        expected = Sums(accepted, delivered, waiting, held, len(ended) - delivered, 0)
        assert self.desk.sums == expected


Relay.TestCase.settings = settings(max_examples=50, stateful_step_count=40, deadline=None)
TestRelay = Relay.TestCase
