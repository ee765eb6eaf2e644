"""Hold, release, requeue and delete, so that no message is harmed that is just being delivered.

Postfix's delivery agents have a shared lock (flock) on the queue file of the message they deliver,
and die when they do not get it; qmgr(8) takes an exclusive one before it hands a message to them,
and puts the message aside when it does not get that (deliver_request.c, qmgr_message.c).
postsuper(1) looks at no lock: a message that it requeues during its delivery may go out twice.

So a message that no agent can be given is locked while postsuper works on it. One in the active
queue, which an agent may be given at any time, is first put on hold, where none looks for it, and
locked there; if that fails, an agent was faster, and it goes back (to deferred: qmgr leaves it
alone as long as the agent is at it, and removes it when nobody is left in it to be delivered to).
Whatever else goes wrong, what was pulled goes back as well (pulls.py).

A requeued message is copied by pickup(8), which deletes a file that is damaged, and leaves one for
which there is no room where nobody delivers it: such a one is not requeued. It stays where it is,
but for one that would soon expire there: that is put on hold, where nothing does.

A damaged file that qmgr has put aside (corrupt) is out of postsuper's reach. Who deletes it has
root unlink it here.

A message that everybody has lies in the queue for a moment longer, until qmgr removes it: it is
none that could still be held, requeued or deleted. It is left to qmgr.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import stat
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from backup_mx.errors import MachineError
from backup_mx.relay.decide.lifetime import RETENTION
from backup_mx.relay.queue import commands, expiry, queueid, spool
from backup_mx.relay.queue.spool import Place
from backup_mx.relay.root import corrupt, fit, protocol, pulls
from backup_mx.relay.root.protocol import Result, Who
from backup_mx.relay.root.pulls import Pulls

_SETTLE = 0.05  # seconds an agent may need from opening a queue file to locking it
_MOVING = ("incoming", "active", "deferred")
_WRITTEN = (*_MOVING, "hold")
_NOWHERE = "no queue"
_REQUEUED = ("maildrop", _NOWHERE)
_REVIVING = ("requeue", "release")


class Postfix(pulls.Postfix, fit.Postfix, Protocol):
    """What is needed of Postfix (commands.Postfix has it)."""

    def delivered(self, ids: Iterable[str]) -> frozenset[str]:
        """Return which of the messages everybody has."""

    def pick_up(self) -> None:
        """Wake pickup(8)."""

    def lifetime(self) -> int:
        """Return Postfix's limit in seconds."""


@dataclass
class _Batch:
    """Messages that are changed together; those that are ours are locked until the end."""

    postfix: Postfix
    locks: contextlib.ExitStack
    said: dict[str, Result]
    ours: dict[str, Place]
    pulled: dict[str, Place]
    """Those in the active queue which nobody delivers at the moment."""
    near: frozenset[str] = frozenset()
    """Those whose lifetime is nearly over: a release of them is a requeue."""
    aside: list[str] = field(default_factory=list)
    """Those to be deleted that qmgr has put aside."""
    files: dict[str, int] = field(default_factory=dict)
    """What is open of those that are ours: qmgr may still move them."""

    def keep(self, queue_id: str, place: Place, file: int) -> None:
        """Make a message ours, whose file is locked."""
        self.locks.callback(os.close, file)
        self.ours[queue_id] = place
        self.files[queue_id] = file

    def refuse(self, queue_id: str, why: str) -> None:
        self.said[queue_id] = Result(queue_id, False, why)

    def end(self, queue_id: str, said: str) -> None:
        self.said[queue_id] = Result(queue_id, True, said)


def change(postfix: Postfix, verb: str, ids: Sequence[str], who: Who) -> list[Result]:
    """Hold, release, requeue or delete messages; return what became of each, in their order.

    Who did it is in the mail log before it is done. Raises MachineError when Postfix's own
    programs fail; what could be changed all the same stays so.
    """
    said: dict[str, Result] = {}
    trouble: MachineError | None = None
    for start in range(0, len(ids), protocol.BATCH):
        try:
            said |= _change(postfix, verb, ids[start : start + protocol.BATCH], who)
        except MachineError as error:
            trouble = trouble or error
    if trouble:
        raise trouble
    return [said[each] for each in ids]


def _change(postfix: Postfix, verb: str, ids: Sequence[str], who: Who) -> dict[str, Result]:
    with pulls.alone(postfix) as pulled, contextlib.ExitStack() as locks:
        batch = _Batch(postfix, locks, {}, {}, {})
        _sort(batch, verb, ids)
        if verb in _REVIVING:
            batch.near = _near(batch)
        taken = {*batch.ours, *batch.pulled, *batch.aside}
        changed = [each for each in ids if each in taken]
        noted = (*_claimed(batch, verb, who), *changed)
        postfix.note([f"{each}: {_done_as(batch, verb, each)} {who}" for each in noted])
        with _putting_back(batch, pulled, keep=verb == "hold"):
            _pull(batch)
            if verb != "release":
                _leave_delivered(batch)
            _VERBS[verb](batch)
    if verb in _REVIVING:
        _wake(postfix)
    return batch.said


def _near(batch: _Batch) -> frozenset[str]:
    found = {*batch.ours, *batch.pulled}
    limit, now = batch.postfix.lifetime() if found else 0, time.time()
    return frozenset(each for each in found if expiry.near(each, limit, now))


def _done_as(batch: _Batch, verb: str, queue_id: str) -> str:
    """Return what Postfix will say that was done: who asked for it is known by that."""
    return "requeue" if queue_id in batch.near else verb


def _claimed(batch: _Batch, verb: str, who: Who) -> list[str]:
    """Return what is noted although nothing is done to it.

    What is nowhere is noted when it is deleted: so an operator writes off what the ledger misses.
    What is held already is from then on held by who asked, but for retention: it claims nothing.
    """
    claims = {"delete": protocol.GONE, "hold": protocol.HELD_BEFORE}
    if (verb, who.name) == ("hold", RETENTION):
        return []
    return [each.id for each in batch.said.values() if each.said == claims.get(verb)]


def _sort(batch: _Batch, verb: str, ids: Sequence[str]) -> None:
    """Find and lock what can be changed; answer for all else."""
    proper = [each for each in ids if queueid.valid(each)]
    found = spool.find(proper, batch.postfix.spool)
    for each in ids:
        if each not in proper:
            batch.refuse(each, protocol.NO_ID)
        elif each not in found:
            batch.refuse(each, protocol.GONE)
        elif verb == "delete" and found[each].queue == corrupt.QUEUE:
            batch.aside.append(each)
        elif not _already(batch, verb, each, found[each]):
            _take(batch, each, found[each])


def _already(batch: _Batch, verb: str, queue_id: str, place: Place) -> bool:
    """Answer for a message that is as it shall be."""
    held = place.queue == "hold"
    if verb == "hold" and held:
        batch.end(queue_id, protocol.HELD_BEFORE)
    elif verb == "release" and not held and place.queue in _MOVING:
        batch.end(queue_id, "was not on hold")
    return queue_id in batch.said


def _take(batch: _Batch, queue_id: str, place: Place, tries: int = 3) -> None:
    """Lock a message where no agent can be given it, or note that it has to be pulled."""
    if place.queue not in _WRITTEN:
        damaged = place.queue == corrupt.QUEUE
        batch.refuse(queue_id, protocol.DAMAGED if damaged else protocol.RECEIVED_NOW)
    elif not _is_file(place):
        batch.refuse(queue_id, protocol.NO_FILE)
    elif (file := _open(place)) is None:
        _follow(batch, queue_id, tries)
    elif not spool.complete(os.fstat(file)):
        os.close(file)
        batch.refuse(queue_id, protocol.RECEIVED_NOW)
    elif not _lock(file):
        os.close(file)
        batch.refuse(queue_id, protocol.DELIVERED_NOW)
    elif place.queue == "active":
        os.close(file)  # at once: an agent that is given the message now must get its lock
        batch.pulled[queue_id] = place
    elif place.path.exists():
        batch.keep(queue_id, place, file)
    else:
        os.close(file)
        _follow(batch, queue_id, tries)


def _is_file(place: Place) -> bool:
    """Tell whether it is a file, or was until a moment ago: one that is gone is looked for."""
    try:
        return stat.S_ISREG(place.path.lstat().st_mode)
    except FileNotFoundError:
        return True


def _open(place: Place) -> int | None:
    """Open a queue file, None where it is gone. Raises OSError where it has become a link."""
    try:  # the queue is Postfix's: whatever it puts there, root waits for no pipe
        return os.open(place.path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except FileNotFoundError:
        return None


def _follow(batch: _Batch, queue_id: str, tries: int) -> None:
    """Take a message that has just been moved, by qmgr, or out of the queue."""
    place = spool.find([queue_id], batch.postfix.spool).get(queue_id)
    if place is None:
        batch.refuse(queue_id, protocol.GONE)
    elif tries:
        _take(batch, queue_id, place, tries - 1)
    else:
        batch.refuse(queue_id, protocol.DELIVERED_NOW)


def _lock(file: int) -> bool:
    """Take the exclusive lock that qmgr takes; False while an agent delivers the message."""
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


@contextlib.contextmanager
def _putting_back(batch: _Batch, pulled: Pulls, *, keep: bool) -> Iterator[None]:
    """Release what was pulled and then not changed, unless on hold is where it shall be."""
    if keep or not batch.pulled:
        yield
        return
    pulled.begin(batch.pulled)
    try:
        yield
    except BaseException:
        with contextlib.suppress(MachineError):  # the next one who comes tries again
            pulled.end()
        raise
    pulled.begin(batch.pulled)  # without those that are to stay on hold
    for each in pulled.end():
        batch.refuse(each, "Postfix did not do it: it was put back")


def _pull(batch: _Batch) -> None:
    """Put what is in the active queue on hold, and lock it there, or put it back."""
    if not batch.pulled:
        return
    batch.postfix.change(commands.HOLD, batch.pulled)
    time.sleep(_SETTLE)
    back = [each for each in batch.pulled if not _lock_held(batch, each)]
    if back:
        batch.postfix.change(commands.RELEASE, back)


def _lock_held(batch: _Batch, queue_id: str) -> bool:
    """Lock a message that was put on hold; False if it has to go back."""
    place = Place("hold", batch.postfix.spool / "hold" / queue_id)
    file = _open(place)
    if file is None:
        delivered = queue_id not in spool.find([queue_id], batch.postfix.spool)
        batch.refuse(queue_id, protocol.GONE if delivered else protocol.DELIVERED_NOW)
        return True
    if not _lock(file):
        os.close(file)
        batch.refuse(queue_id, protocol.DELIVERED_NOW)
        return False
    batch.keep(queue_id, place, file)
    return True


def _leave_delivered(batch: _Batch) -> None:
    """Leave what everybody has to qmgr: an agent has noted each of them before it let go of it."""
    over = batch.postfix.delivered(batch.ours)
    on_hold = [each for each in over if batch.ours.pop(each).queue == "hold"]
    for each in over:
        batch.refuse(each, protocol.DELIVERED)
    _supervise(batch, commands.RELEASE, on_hold)


def _leave_unfit(batch: _Batch, ids: Iterable[str]) -> None:
    """Leave where it is what cannot be requeued, or on hold, if it would soon expire there."""
    found = dict(fit.unfit(batch.postfix, {each: batch.files[each] for each in ids}))
    for each, unfit in found.items():
        batch.refuse(each, unfit.why)
    moving = [each for each in found if batch.ours.pop(each).queue != "hold"]
    back = [each for each in found if each in batch.pulled]
    _supervise(batch, commands.RELEASE, back)
    ending = [each for each in (*moving, *back) if each in batch.near]
    if not ending:
        return
    batch.postfix.note([f"{each}: hold {found[each].holder}" for each in ending])
    _supervise(batch, commands.HOLD, ending)
    for each, place in spool.find(ending, batch.postfix.spool).items():
        if place.queue == "hold":
            batch.refuse(each, f"{found[each].why}; {protocol.HELD_INSTEAD}")
            batch.pulled.pop(each, None)


def _hold(batch: _Batch) -> None:
    wanted = [each for each, place in batch.ours.items() if place.queue != "hold"]
    _supervise(batch, commands.HOLD, wanted)
    _judge(batch, batch.ours, ("hold",), "put on hold")


def _release(batch: _Batch) -> None:
    _leave_unfit(batch, batch.near)
    near = [each for each in batch.ours if each in batch.near]
    young = [each for each in batch.ours if each not in batch.near]
    _supervise(batch, commands.REQUEUE, near)
    _supervise(batch, commands.RELEASE, young)
    _judge(batch, near, _REQUEUED, "requeued: its lifetime was nearly over")
    _judge(batch, young, (*_MOVING, _NOWHERE), "released")


def _requeue(batch: _Batch) -> None:
    _leave_unfit(batch, list(batch.ours))
    _supervise(batch, commands.REQUEUE, list(batch.ours))
    _judge(batch, batch.ours, _REQUEUED, "requeued")


def _delete(batch: _Batch) -> None:
    for each in batch.aside:
        _unlink(batch, each)
    _supervise(batch, commands.DELETE, list(batch.ours))
    _judge(batch, batch.ours, (_NOWHERE,), "deleted")


def _unlink(batch: _Batch, queue_id: str) -> None:
    try:
        corrupt.delete(batch.postfix.spool, queue_id)
    except OSError as error:
        batch.refuse(queue_id, f"it cannot be deleted: {error.strerror}")
    else:
        batch.end(queue_id, "deleted")


_VERBS: dict[str, Callable[[_Batch], None]] = {
    "hold": _hold,
    "release": _release,
    "requeue": _requeue,
    "delete": _delete,
}


def _supervise(batch: _Batch, option: str, ids: Sequence[str]) -> None:
    if ids:
        batch.postfix.change(option, ids)


def _judge(batch: _Batch, ids: Iterable[str], right: Sequence[str], said: str) -> None:
    """Answer by where each message lies now: not what a program says, but what it did."""
    wanted = list(ids)
    found = spool.find(wanted, batch.postfix.spool)
    for each in wanted:
        queue = found[each].queue if each in found else _NOWHERE
        if queue in right:
            batch.end(each, said)
        else:
            batch.refuse(each, f"Postfix did not do it: it lies in {queue}")


def _wake(postfix: Postfix) -> None:
    """Let requeued mail be taken at once; if that is impossible, pickup looks every minute."""
    with contextlib.suppress(MachineError):
        postfix.pick_up()
