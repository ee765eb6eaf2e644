"""Changing messages while Postfix may be delivering them: with real locks, without Postfix."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from queues import ID, OTHER, Postsuper, an_id, empty, put, where

from backup_mx.errors import MachineError
from backup_mx.relay import files
from backup_mx.relay.decide import lifetime
from backup_mx.relay.queue import spool, whole
from backup_mx.relay.root import changes, protocol, pulls, taking
from backup_mx.relay.root.batch import Batch
from backup_mx.relay.root.protocol import Result, Who
from backup_mx.relay.state import Disk

WHO = Who("root", "198.51.100.7")


@pytest.fixture
def postfix(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Postsuper:
    """A queue with nothing in it."""
    monkeypatch.setattr(pulls, "FOLDER", tmp_path / "pulled")
    return empty(tmp_path)


@contextmanager
def delivering(path: Path) -> Iterator[None]:
    """Be a delivery agent: it has a shared lock on the queue file (deliver_request.c)."""
    file = os.open(path, os.O_RDWR)
    try:
        fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
        yield
    finally:
        os.close(file)


def one(postfix: Postsuper, verb: str, queue_id: str = ID) -> Result:
    (result,) = changes.change(postfix, verb, [queue_id], WHO)
    return result


ENDS = {"hold": "hold", "requeue": "maildrop", "delete": "nowhere"}


@pytest.mark.parametrize("queue", ["incoming", "active", "deferred"])
@pytest.mark.parametrize("verb", ENDS)
def test_a_message_at_rest_is_changed(postfix: Postsuper, verb: str, queue: str) -> None:
    """From every queue; who did it is noted before anything is done."""
    put(postfix, queue)
    assert one(postfix, verb).done
    assert where(postfix) == ENDS[verb]
    assert postfix.steps[0] == f"{ID}: {verb} by=root from=198.51.100.7"


@pytest.mark.parametrize("queue", ["incoming", "active", "deferred", "hold"])
@pytest.mark.parametrize("verb", ["requeue", "delete"])
def test_a_message_that_is_being_delivered_is_left_alone(
    postfix: Postsuper, verb: str, queue: str
) -> None:
    """Where an agent has its lock, nothing is moved and nothing noted; the answer says why."""
    path = put(postfix, queue)
    with delivering(path):
        assert one(postfix, verb) == Result(ID, False, protocol.DELIVERED_NOW)
    assert where(postfix) == queue
    assert postfix.steps == []


def test_hold_of_a_message_that_is_being_delivered(postfix: Postsuper) -> None:
    """It is not held: it is on its way already."""
    with delivering(put(postfix, "active")):
        assert one(postfix, "hold").said == protocol.DELIVERED_NOW
    assert where(postfix) == "active"


@pytest.mark.parametrize("verb", ENDS)
def test_an_agent_that_is_faster_keeps_the_message(postfix: Postsuper, verb: str) -> None:
    """If an agent gets a message of the active queue while we reach for it, it goes back."""
    path = put(postfix, "active")
    agents = []

    def agent(option: str) -> None:
        if option == "-h":
            agents.append(delivering(path))
            agents[0].__enter__()

    postfix.before = agent
    assert one(postfix, verb) == Result(ID, False, protocol.DELIVERED_NOW)
    assert where(postfix) == "deferred"
    assert [step[:2] for step in postfix.steps[1:]] == ["-h", "-H"]
    agents[0].__exit__(None, None, None)


@pytest.mark.parametrize("verb", ENDS)
def test_nobody_can_take_a_message_while_it_is_changed(postfix: Postsuper, verb: str) -> None:
    """While postsuper works on it, qmgr does not get the lock without which it hands out none."""
    path = put(postfix, "deferred")
    tried = []

    def qmgr(_option: str) -> None:
        file = os.open(path, os.O_RDWR)
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            tried.append("still being delivered")
        finally:
            os.close(file)

    postfix.before = qmgr
    assert one(postfix, verb).done
    assert tried == ["still being delivered"]


def test_a_message_that_qmgr_loads_meanwhile_is_followed(postfix: Postsuper) -> None:
    """Found in deferred and moved to active before it is locked: it is taken from there."""
    path = put(postfix, "deferred")
    found = spool.Place("deferred", path)
    path.rename(postfix.spool / "active" / ID)
    batch = Batch(postfix, contextlib.ExitStack())
    taking._take(batch, ID, found)
    assert set(batch.pulled) == {ID}


@pytest.mark.parametrize(
    ("queue", "mode", "said"),
    [
        ("incoming", 0o600, protocol.RECEIVED_NOW),
        ("maildrop", 0o700, protocol.RECEIVED_NOW),
        ("corrupt", 0o700, protocol.DAMAGED),
    ],
)
def test_what_cannot_be_changed_yet(postfix: Postsuper, queue: str, mode: int, said: str) -> None:
    """A message that is not whole, or damaged, stays where it is."""
    put(postfix, queue, mode=mode)
    for verb in ("hold", "requeue"):
        assert one(postfix, verb).said == said
    assert where(postfix) == queue
    assert postfix.steps == []


def test_what_was_put_aside_as_corrupt_can_be_deleted(postfix: Postsuper) -> None:
    """Noted first, as every deletion is; the others in the request are deleted, too."""
    put(postfix, "corrupt")
    put(postfix, "deferred", OTHER)
    results = changes.change(postfix, "delete", [ID, OTHER], WHO)
    assert results == [Result(ID, True, "deleted"), Result(OTHER, True, "deleted")]
    assert postfix.steps == [f"{ID}: delete {WHO}", f"{OTHER}: delete {WHO}", f"-d {OTHER}"]
    assert (where(postfix), where(postfix, OTHER)) == ("nowhere", "nowhere")


@pytest.mark.parametrize("kind", ["link", "folder", "linked folder"])
def test_nothing_but_a_corrupt_file_is_deleted(
    postfix: Postsuper, tmp_path: Path, kind: str
) -> None:
    """Root is led nowhere by what Postfix's own user may leave there."""
    corrupt, other = postfix.spool / "corrupt", tmp_path / "other"
    other.mkdir()
    (other / ID).touch()
    match kind:
        case "link":
            (corrupt / ID).symlink_to(other / ID)
        case "folder":
            (corrupt / ID).mkdir()
        case "linked folder":
            corrupt.rmdir()
            corrupt.symlink_to(other)
    assert one(postfix, "delete").done == (kind == "link")
    assert (other / ID).exists()


@pytest.mark.parametrize("kind", ["pipe", "link", "folder"])
def test_what_is_no_file_stops_nobody(postfix: Postsuper, kind: str, tmp_path: Path) -> None:
    """Root waits for no pipe and follows no link in the queue; the other messages are changed."""
    path = postfix.spool / "deferred" / ID
    match kind:
        case "pipe":
            os.mkfifo(path, 0o700)
        case "link":
            (tmp_path / "other").touch(0o700)
            path.symlink_to(tmp_path / "other")
        case "folder":
            path.mkdir()
    put(postfix, "deferred", OTHER)
    results = changes.change(postfix, "hold", [ID, OTHER], WHO)
    assert results == [Result(ID, False, protocol.NO_FILE), Result(OTHER, True, "put on hold")]


def test_holding_and_releasing_twice_is_fine(postfix: Postsuper) -> None:
    """Done is whatever is as it was asked to be."""
    young = an_id(time.time())
    put(postfix, "deferred", young)
    assert [one(postfix, "hold", young).said for _ in range(2)] == [
        "put on hold",
        "was on hold already",
    ]
    assert [one(postfix, "release", young).said for _ in range(2)] == [
        "released",
        "was not on hold",
    ]
    assert where(postfix, young) == "deferred"


@pytest.mark.parametrize(("age", "queue"), [(0.5, "deferred"), (0.95, "maildrop"), (2, "maildrop")])
def test_a_release_never_lets_a_message_expire(postfix: Postsuper, age: float, queue: str) -> None:
    """What is over nine tenths of its lifetime gets a new one when it is released."""
    old = an_id(time.time() - age * postfix.limit)
    put(postfix, "hold", old)
    assert one(postfix, "release", old).done
    assert where(postfix, old) == queue
    verb = "release" if queue == "deferred" else "requeue"
    assert postfix.steps[0] == f"{old}: {verb} {WHO}"


@pytest.mark.parametrize("queue", ["incoming", "active", "deferred", "hold"])
def test_a_damaged_file_is_not_requeued(postfix: Postsuper, queue: str) -> None:
    """Pickup would delete it: it stays, and is not on hold for that; the good one is requeued."""
    path = put(postfix, queue)
    os.truncate(path, path.stat().st_size - 200)
    put(postfix, queue, OTHER)
    bad, good = changes.change(postfix, "requeue", [ID, OTHER], WHO)
    assert (bad.done, bad.said) == (False, f"{protocol.BROKEN}: it ends within a record")
    assert good == Result(OTHER, True, "requeued")
    assert where(postfix) == ("deferred" if queue == "active" else queue)
    assert where(postfix, OTHER) == "maildrop"


def test_a_damaged_file_stays_on_hold_near_its_end(postfix: Postsuper) -> None:
    """Its release would be a requeue; that of a young one is none, and goes on."""
    old, young = an_id(time.time() - 2 * postfix.limit), an_id(time.time())
    for each in (old, young):
        put(postfix, "hold", each).write_bytes(b"")
    said = changes.change(postfix, "release", [old, young], WHO)
    assert [each.done for each in said] == [False, True]
    assert said[0].said.startswith(protocol.BROKEN)
    assert (where(postfix, old), where(postfix, young)) == ("hold", "deferred")


@pytest.mark.parametrize("queue", ["incoming", "active", "deferred", "hold"])
@pytest.mark.parametrize(("age", "stays"), [(0.5, False), (0.95, True)])
def test_a_damaged_file_that_would_soon_expire_is_put_on_hold(
    postfix: Postsuper, queue: str, age: float, stays: bool
) -> None:
    """A second name, as a backup by hard links makes: what cannot be requeued must not go on."""
    old, other = (f"{an_id(time.time() - age * postfix.limit)[:-1]}{each}" for each in "RS")
    os.link(put(postfix, queue, old), postfix.spool / "backup")
    put(postfix, queue, other)
    left, good = changes.change(postfix, "requeue", [old, other], WHO)
    assert (left.done, good.done) == (False, True)
    assert left.said.startswith(f"{protocol.BROKEN}: it has 2 names")
    went = stays and queue != "hold"
    assert left.said.endswith(protocol.HELD_INSTEAD) == went
    assert (f"{old}: hold by=guard" in postfix.steps) == went
    free = "deferred" if queue == "active" else queue
    assert where(postfix, old) == ("hold" if stays else free)
    assert list(pulls.FOLDER.iterdir()) == []


@pytest.mark.parametrize(("age", "queue"), [(0.5, "deferred"), (0.95, "hold")])
def test_without_room_nothing_is_requeued(
    postfix: Postsuper, monkeypatch: pytest.MonkeyPatch, age: float, queue: str
) -> None:
    """Pickup could not copy it: it stays in delivery, or on hold in retention's name."""
    old = an_id(time.time() - age * postfix.limit)
    free = 5000 + put(postfix, "deferred", old).stat().st_size
    monkeypatch.setattr(spool, "disk", lambda needed, _: Disk(free, 10**9, needed))
    postfix.free = 5001
    left = one(postfix, "requeue", old)
    assert not left.done
    assert left.said.startswith(f"{protocol.NO_ROOM}: it has 3 KiB, and 3 KiB may")
    assert where(postfix, old) == queue
    assert (f"{old}: hold by=retention" in postfix.steps) == (queue == "hold")
    held = an_id(time.time() - postfix.limit)
    put(postfix, "hold", held)
    assert one(postfix, "release", held).said.startswith(protocol.NO_ROOM)
    assert where(postfix, held) == "hold"
    postfix.free = 5000
    assert one(postfix, "requeue", old).done


def test_for_what_there_is_no_room_no_file_is_read(
    postfix: Postsuper, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its size is enough: the disk of a full relay has other work."""
    put(postfix, "deferred")
    monkeypatch.setattr(spool, "disk", lambda needed, _: Disk(0, 10**9, needed))
    monkeypatch.setattr(whole, "damage", lambda _: pytest.fail("read"))
    assert one(postfix, "requeue").said.startswith(protocol.NO_ROOM)


def test_a_hold_without_effect_is_not_claimed(
    postfix: Postsuper, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where the file lies is what counts: the guard is to tell that it could do nothing."""
    old = an_id(time.time() - postfix.limit)
    put(postfix, "deferred", old).write_bytes(b"")
    monkeypatch.setattr(postfix, "change", lambda *_: None)
    left = one(postfix, "requeue", old)
    assert left.said.startswith(protocol.BROKEN)
    assert not left.said.endswith(protocol.HELD_INSTEAD)


@pytest.mark.parametrize("queue", ["incoming", "active", "deferred", "hold"])
@pytest.mark.parametrize("verb", ENDS)
def test_what_everybody_has_is_left_to_qmgr(postfix: Postsuper, verb: str, queue: str) -> None:
    """Between its delivery and its removal: the answer is that, and no hold keeps the file."""
    put(postfix, queue)
    put(postfix, queue, OTHER)
    postfix.delivered_ones = frozenset({ID})
    if (verb, queue) == ("hold", "hold"):
        assert one(postfix, verb).said == "was on hold already"
        return
    results = changes.change(postfix, verb, [ID, OTHER], WHO)
    assert results[0] == Result(ID, False, protocol.DELIVERED)
    assert results[1].done
    assert where(postfix) == ("deferred" if queue in {"active", "hold"} else queue)
    assert where(postfix, OTHER) == ENDS[verb]


def test_what_is_not_there(postfix: Postsuper) -> None:
    """No message, no change; a deletion is noted all the same, for the ledger to write it off."""
    for verb in ("hold", "release", "requeue"):
        assert one(postfix, verb) == Result(ID, False, protocol.GONE)
    assert postfix.steps == []
    assert one(postfix, "delete") == Result(ID, False, protocol.GONE)
    assert postfix.steps == [f"{ID}: delete {WHO}"]


def test_a_postsuper_that_does_nothing_is_found_out(
    postfix: Postsuper, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What counts is where the message lies afterwards."""
    put(postfix, "deferred")
    monkeypatch.setattr(postfix, "change", lambda *_: None)
    assert one(postfix, "hold") == Result(ID, False, "Postfix did not do it: it lies in deferred")


def test_many_at_once(postfix: Postsuper) -> None:
    """Good and bad are answered for in the order they came, and no lock is left."""
    put(postfix, "deferred")
    put(postfix, "active", OTHER)
    results = changes.change(postfix, "hold", ["ALL", OTHER, "1A2B3C4D", ID], WHO)
    assert [each.done for each in results] == [False, True, False, True]
    with delivering(postfix.spool / "hold" / ID), delivering(postfix.spool / "hold" / OTHER):
        pass


LEFT_OVER = {"requeue": "-r", "delete": "-d"}


@pytest.mark.parametrize("verb", LEFT_OVER)
def test_what_was_pulled_goes_back_when_the_next_step_fails(postfix: Postsuper, verb: str) -> None:
    """A message of the active queue does not stay on hold because postsuper failed later."""
    put(postfix, "active")
    put(postfix, "hold", OTHER)
    postfix.before = failing(LEFT_OVER[verb])
    with pytest.raises(MachineError, match="no postsuper"):
        changes.change(postfix, verb, [ID, OTHER], WHO)
    assert (where(postfix), where(postfix, OTHER)) == ("deferred", "hold")


def failing(fails: str) -> Callable[[str], None]:
    def before(option: str) -> None:
        if option == fails:
            raise MachineError("no postsuper")

    return before


def test_what_postsuper_did_not_do_goes_back(
    postfix: Postsuper, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A requeue without effect leaves the message in delivery, and says so."""
    put(postfix, "active")
    move = postfix.change
    monkeypatch.setattr(
        postfix, "change", lambda option, ids: None if option == "-r" else move(option, ids)
    )
    assert one(postfix, "requeue") == Result(ID, False, "Postfix did not do it: it was put back")
    assert where(postfix) == "deferred"


def damaged_and_whole(postfix: Postsuper) -> tuple[str, str]:
    """Have two messages at their end in the active queue, of which one cannot be requeued."""
    bad, good = (f"{an_id(time.time() - postfix.limit)[:-1]}{each}" for each in "RS")
    put(postfix, "active", bad).write_bytes(b"")
    put(postfix, "active", good)
    return bad, good


def test_what_stays_on_hold_does_so_when_the_rest_cannot_go_back(
    postfix: Postsuper, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever comes next releases the rest alone: what is near its end would expire."""
    bad, good = damaged_and_whole(postfix)
    move, releases = postfix.change, iter([bad])

    def change(option: str, ids: Iterable[str]) -> None:
        if option == "-H" and next(releases, None) is None:
            raise MachineError("no postsuper")
        if option != "-r":
            move(option, ids)

    with monkeypatch.context() as patch:
        patch.setattr(postfix, "change", change)
        with pytest.raises(MachineError, match="no postsuper"):
            changes.change(postfix, "requeue", [bad, good], WHO)
    assert (where(postfix, bad), where(postfix, good)) == ("hold", "hold")
    pulls.recover(postfix)
    assert (where(postfix, bad), where(postfix, good)) == ("hold", "deferred")


def test_what_stays_on_hold_does_so_when_postsuper_fails(
    postfix: Postsuper, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What could be requeued goes back; what could not would expire there."""
    bad, good = damaged_and_whole(postfix)
    move = postfix.change

    def change(option: str, ids: Iterable[str]) -> None:
        if option == "-r":
            raise MachineError("no postsuper")
        move(option, ids)

    monkeypatch.setattr(postfix, "change", change)
    with contextlib.suppress(MachineError):
        changes.change(postfix, "requeue", [bad, good], WHO)
    assert (where(postfix, bad), where(postfix, good)) == ("hold", "deferred")


class Killed(BaseException):
    """What no program hears of."""


def test_what_a_killed_one_had_pulled_is_released(
    postfix: Postsuper, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The next one who changes anything releases it, once; what an operator holds stays held."""
    young = an_id(time.time())
    put(postfix, "active")
    put(postfix, "hold", young)

    def die(option: str) -> None:
        if option == "-r":
            raise Killed

    postfix.before = die
    with monkeypatch.context() as patch:
        patch.setattr(pulls.Pulls, "end", lambda *_: [])  # who is killed does nothing more
        with pytest.raises(Killed):
            one(postfix, "requeue")
    assert where(postfix) == "hold"
    pulls.recover(postfix)
    assert (where(postfix), where(postfix, young)) == ("deferred", "hold")
    assert one(postfix, "hold").said == "put on hold"
    pulls.recover(postfix)
    assert where(postfix) == "hold"


def test_what_is_being_pulled_is_nobody_elses(postfix: Postsuper) -> None:
    """It is written down before it is on hold, for root alone, and only while it is changed."""
    put(postfix, "active")
    noted: list[str] = []

    def look(option: str) -> None:
        if option == "-h":
            noted.append((pulls.FOLDER / "ids").read_text())
            file = os.open(pulls.FOLDER, os.O_RDONLY)
            with pytest.raises(BlockingIOError):
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            os.close(file)

    postfix.before = look
    assert one(postfix, "delete").done
    assert noted == [f"{ID}\n"]
    assert pulls.FOLDER.stat().st_mode & 0o777 == 0o700
    assert list(pulls.FOLDER.iterdir()) == []


def test_what_is_pulled_is_known_after_a_power_cut(
    postfix: Postsuper, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is on disk before the first message is on hold, and written but once."""
    steps: list[object] = []
    monkeypatch.setattr(files, "on_disk", steps.append)
    postfix.before = steps.append
    put(postfix, "active")
    assert one(postfix, "delete").done
    assert steps == [pulls.FOLDER, "-h", "-d"]


def test_without_room_to_write_it_down_nothing_is_pulled(
    postfix: Postsuper, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nor noted: what is in the active queue stays there, the rest is changed."""
    replace = files.replace

    def full(path: Path, content: str, mode: int) -> None:
        if path.parent == pulls.FOLDER:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        replace(path, content, mode)

    monkeypatch.setattr(files, "replace", full)
    put(postfix, "active")
    put(postfix, "deferred", OTHER)
    left, gone = changes.change(postfix, "delete", [ID, OTHER], WHO)
    assert not left.done
    assert left.said.endswith("cannot be written: No space left on device")
    assert gone == Result(OTHER, True, "deleted")
    assert postfix.steps == [f"{OTHER}: delete {WHO}", f"-d {OTHER}"]
    assert where(postfix) == "active"


def test_what_cannot_be_noted_is_not_pulled(
    postfix: Postsuper, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And nothing says any more that it is: an operator may hold it the next moment."""
    put(postfix, "active")

    def mute(_: object) -> None:
        raise MachineError("no log")

    monkeypatch.setattr(postfix, "note", mute)
    with pytest.raises(MachineError, match="no log"):
        one(postfix, "delete")
    assert where(postfix) == "active"
    assert list(pulls.FOLDER.iterdir()) == []


def test_an_operators_hold_of_what_is_held_already_is_noted(postfix: Postsuper) -> None:
    """So the ledger knows that it is his now; retention's own word takes nothing from him."""
    put(postfix, "hold")
    assert one(postfix, "hold") == Result(ID, True, "was on hold already")
    assert postfix.steps == [f"{ID}: hold {WHO}"]
    assert changes.change(postfix, "hold", [ID], Who(lifetime.RETENTION))[0].done
    assert len(postfix.steps) == 1


def test_a_hold_that_was_asked_for_is_not_undone(postfix: Postsuper) -> None:
    """It goes through the same pull, but on hold is where it shall be."""
    put(postfix, "active")
    assert one(postfix, "hold").done
    pulls.recover(postfix)
    assert where(postfix) == "hold"


def test_a_batch_that_fails_stops_no_other(
    postfix: Postsuper, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What can be changed is; the failure is raised in the end."""
    monkeypatch.setattr(protocol, "BATCH", 1)
    put(postfix, "deferred")
    put(postfix, "deferred", OTHER)
    runs = iter([MachineError("no postsuper")])

    def once(_option: str) -> None:
        if error := next(runs, None):
            raise error

    postfix.before = once
    with pytest.raises(MachineError, match="no postsuper"):
        changes.change(postfix, "requeue", [ID, OTHER], WHO)
    assert (where(postfix), where(postfix, OTHER)) == ("deferred", "maildrop")
