"""Take messages so that no agent is given one of them while it is changed.

Postfix's delivery agents have a shared lock (flock) on the queue file of the message they deliver,
and die when they do not get it; qmgr(8) takes an exclusive one before it hands a message to them,
and puts the message aside when it does not get that (deliver_request.c, qmgr_message.c).
postsuper(1) looks at no lock: a message that it requeues during its delivery may go out twice.

So a message that no agent can be given is locked while postsuper works on it. One in the active
queue, which an agent may be given at any time, is first put on hold, where none looks for it, and
locked there; if that fails, an agent was faster, and it goes back (to deferred: qmgr leaves it
alone as long as the agent is at it, and removes it when nobody is left in it to be delivered to).
"""

from __future__ import annotations

import fcntl
import os
import stat
import time
from collections.abc import Sequence

from backup_mx.relay.queue import commands, queueid, spool
from backup_mx.relay.queue.spool import Place
from backup_mx.relay.root import corrupt, protocol
from backup_mx.relay.root.batch import MOVING, Batch

_SETTLE = 0.05  # seconds an agent may need from opening a queue file to locking it
_WRITTEN = (*MOVING, "hold")


def sort(batch: Batch, verb: str, ids: Sequence[str]) -> None:
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


def _already(batch: Batch, verb: str, queue_id: str, place: Place) -> bool:
    """Answer for a message that is as it shall be."""
    held = place.queue == "hold"
    if verb == "hold" and held:
        batch.end(queue_id, protocol.HELD_BEFORE)
    elif verb == "release" and not held and place.queue in MOVING:
        batch.end(queue_id, "was not on hold")
    return queue_id in batch.said


def _take(batch: Batch, queue_id: str, place: Place, tries: int = 3) -> None:
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


def _follow(batch: Batch, queue_id: str, tries: int) -> None:
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


def pull(batch: Batch) -> None:
    """Put what is in the active queue on hold, and lock it there, or put it back."""
    if not batch.pulled:
        return
    batch.postfix.change(commands.HOLD, batch.pulled)
    time.sleep(_SETTLE)
    back = [each for each in batch.pulled if not _lock_held(batch, each)]
    if back:
        batch.postfix.change(commands.RELEASE, back)


def _lock_held(batch: Batch, queue_id: str) -> bool:
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
