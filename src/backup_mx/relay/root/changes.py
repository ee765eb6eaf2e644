"""Hold, release, requeue and delete, so that no message is harmed that is just being delivered.

What is changed is taken first (taking.py). What was pulled for that and then not changed goes back,
whatever goes wrong (pulls.py).

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
import time
from collections.abc import Callable, Iterable, Iterator, Sequence

from backup_mx.errors import MachineError
from backup_mx.relay.decide.lifetime import RETENTION
from backup_mx.relay.queue import commands, expiry, spool
from backup_mx.relay.root import corrupt, fit, protocol, pulls, taking
from backup_mx.relay.root.batch import MOVING, NOWHERE, Batch, Postfix
from backup_mx.relay.root.protocol import Result, Who
from backup_mx.relay.root.pulls import Pulls

_REQUEUED = ("maildrop", NOWHERE)
_REVIVING = ("requeue", "release")


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
        batch = Batch(postfix, locks)
        taking.sort(batch, verb, ids)
        if verb in _REVIVING:
            batch.near = _near(batch)
        with _putting_back(batch, pulled, keep=verb == "hold"):
            taken = {*batch.ours, *batch.pulled, *batch.aside}
            changed = [each for each in ids if each in taken]
            noted = (*_claimed(batch, verb, who), *changed)
            postfix.note([f"{each}: {_done_as(batch, verb, each)} {who}" for each in noted])
            taking.pull(batch)
            if verb != "release":
                _leave_delivered(batch)
            _VERBS[verb](batch)
    if verb in _REVIVING:
        _wake(postfix)
    return batch.said


def _near(batch: Batch) -> frozenset[str]:
    found = {*batch.ours, *batch.pulled}
    limit, now = batch.postfix.lifetime() if found else 0, time.time()
    return frozenset(each for each in found if expiry.near(each, limit, now))


def _done_as(batch: Batch, verb: str, queue_id: str) -> str:
    """Return what Postfix will say that was done: who asked for it is known by that."""
    return "requeue" if queue_id in batch.near else verb


def _claimed(batch: Batch, verb: str, who: Who) -> list[str]:
    """Return what is noted although nothing is done to it.

    What is nowhere is noted when it is deleted: so an operator writes off what the ledger misses.
    What is held already is from then on held by who asked, but for retention: it claims nothing.
    """
    claims = {"delete": protocol.GONE, "hold": protocol.HELD_BEFORE}
    if (verb, who.name) == ("hold", RETENTION):
        return []
    return [each.id for each in batch.said.values() if each.said == claims.get(verb)]


@contextlib.contextmanager
def _putting_back(batch: Batch, pulled: Pulls, *, keep: bool) -> Iterator[None]:
    """Release what was pulled and then not changed, unless on hold is where it shall be."""
    if keep or not _written_down(batch, pulled):
        yield
        return
    try:
        yield
    except BaseException:
        with contextlib.suppress(MachineError):  # the next one who comes tries again
            pulled.end(batch.staying)
        raise
    for each in pulled.end(batch.staying):
        batch.refuse(each, "Postfix did not do it: it was put back")


def _written_down(batch: Batch, pulled: Pulls) -> bool:
    """Write down what will be pulled, if anything is; leave that alone where it cannot be done."""
    try:
        if batch.pulled:
            pulled.begin(batch.pulled)
    except MachineError as error:  # the disk is full
        for each in batch.pulled:
            batch.refuse(each, str(error))
        batch.pulled.clear()
    return bool(batch.pulled)


def _leave_delivered(batch: Batch) -> None:
    """Leave what everybody has to qmgr: an agent has noted each of them before it let go of it."""
    over = batch.postfix.delivered(batch.ours)
    on_hold = [each for each in over if batch.ours.pop(each).queue == "hold"]
    for each in over:
        batch.refuse(each, protocol.DELIVERED)
    batch.supervise(commands.RELEASE, on_hold)


def _leave_unfit(batch: Batch, ids: Iterable[str]) -> None:
    """Leave where it is what cannot be requeued, or on hold, if it would soon expire there."""
    found = dict(fit.unfit(batch.postfix, {each: batch.files[each] for each in ids}))
    for each, unfit in found.items():
        batch.refuse(each, unfit.why)
    moving = [each for each in found if batch.ours.pop(each).queue != "hold"]
    back = [each for each in found if each in batch.pulled]
    batch.supervise(commands.RELEASE, back)
    ending = [each for each in (*moving, *back) if each in batch.near]
    if not ending:
        return
    batch.postfix.note([f"{each}: hold {found[each].holder}" for each in ending])
    batch.supervise(commands.HOLD, ending)
    for each, place in spool.find(ending, batch.postfix.spool).items():
        if place.queue == "hold":
            batch.refuse(each, f"{found[each].why}; {protocol.HELD_INSTEAD}")
            batch.staying.add(each)


def _hold(batch: Batch) -> None:
    wanted = [each for each, place in batch.ours.items() if place.queue != "hold"]
    batch.supervise(commands.HOLD, wanted)
    batch.judge(batch.ours, ("hold",), "put on hold")


def _release(batch: Batch) -> None:
    _leave_unfit(batch, batch.near)
    near = [each for each in batch.ours if each in batch.near]
    young = [each for each in batch.ours if each not in batch.near]
    batch.supervise(commands.REQUEUE, near)
    batch.supervise(commands.RELEASE, young)
    batch.judge(near, _REQUEUED, "requeued: its lifetime was nearly over")
    batch.judge(young, (*MOVING, NOWHERE), "released")


def _requeue(batch: Batch) -> None:
    _leave_unfit(batch, list(batch.ours))
    batch.supervise(commands.REQUEUE, list(batch.ours))
    batch.judge(batch.ours, _REQUEUED, "requeued")


def _delete(batch: Batch) -> None:
    for each in batch.aside:
        _unlink(batch, each)
    batch.supervise(commands.DELETE, list(batch.ours))
    batch.judge(batch.ours, (NOWHERE,), "deleted")


def _unlink(batch: Batch, queue_id: str) -> None:
    try:
        corrupt.delete(batch.postfix.spool, queue_id)
    except OSError as error:
        batch.refuse(queue_id, f"it cannot be deleted: {error.strerror}")
    else:
        batch.end(queue_id, "deleted")


_VERBS: dict[str, Callable[[Batch], None]] = {
    "hold": _hold,
    "release": _release,
    "requeue": _requeue,
    "delete": _delete,
}


def _wake(postfix: Postfix) -> None:
    """Let requeued mail be taken at once; if that is impossible, pickup looks every minute."""
    with contextlib.suppress(MachineError):
        postfix.pick_up()
