"""What happens without the agent: nothing expires, and maintenance ends."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import runpy
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from itertools import pairwise
from pathlib import Path

import pytest
from queues import OTHER, Postsuper, empty, put, where

from backup_mx.errors import MachineError
from backup_mx.machine.apply import diff, files
from backup_mx.machine.apply.files import File
from backup_mx.relay.queue import commands, expiry
from backup_mx.relay.root import guard, maintenance, postlog, protocol, pulls
from backup_mx.relay.root.maintenance import OFF
from backup_mx.relay.root.protocol import Result, Who

DAY = 86_400
HUNDRED_DAYS = 100 * DAY
MADE = 1795333641.113951
ID = "4jXLkx0p7MzJ0mR"
WHO = Who("root")


@dataclass
class Said:
    """A Postfix that remembers what it was told."""

    steps: list[str] = field(default_factory=list)
    failing: str = ""
    taken: list[str] = field(default_factory=lambda: ["example.org", "example.com"])

    def domains(self) -> list[str]:
        return self.taken

    def note(self, lines: Sequence[str]) -> None:
        self.steps += lines

    def reload(self) -> None:
        self._do("reload")

    def flush(self) -> None:
        self._do("flush")

    def _do(self, step: str) -> None:
        if step == self.failing:
            raise MachineError(f"no {step} today")
        self.steps.append(step)


@pytest.mark.parametrize(("age", "expected"), [(0, False), (89, False), (91, True), (1000, True)])
def test_a_message_is_due_at_nine_tenths_of_its_lifetime(age: int, expected: bool) -> None:
    """By the age of its queue file, which is what qmgr judges by."""
    assert expiry.near(ID, HUNDRED_DAYS, MADE + age * DAY) == expected
    assert guard.due([ID], HUNDRED_DAYS, MADE + age * DAY) == [ID] * expected


def test_a_file_that_does_not_tell_its_age_is_due() -> None:
    """A short queue ID gets a long one, once."""
    assert guard.due(["1A2B3C4D5E"], HUNDRED_DAYS, MADE) == ["1A2B3C4D5E"]


def test_what_is_no_message_is_not_due() -> None:
    """A file in the queue that Postfix did not name is nobody's to requeue."""
    assert guard.due([".nfs01", "lost+found"], HUNDRED_DAYS, MADE) == []


@pytest.fixture
def queue(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Postsuper:
    """A queue in which everything is old."""
    monkeypatch.setattr(pulls, "FOLDER", tmp_path / "pulled")
    queue = empty(tmp_path)
    queue.limit = 1
    return queue


def watch(queue: Postsuper, *, always: bool = True) -> list[Result]:
    """Let the guard run."""
    return guard.run(queue, lambda _: None, always=always)  # type: ignore[arg-type]


def test_what_could_not_be_requeued_is_an_error(queue: Postsuper) -> None:
    """A batch that fails is told in the end, and the other ones are requeued before."""
    ids = sorted(f"{number:010X}" for number in range(protocol.BATCH + 1))
    for each in ids:
        put(queue, "deferred", each)
    runs = iter([MachineError("no postsuper")])

    def once(_option: str) -> None:
        if error := next(runs, None):
            raise error

    queue.before = once
    with pytest.raises(MachineError, match="could not be requeued: no postsuper"):
        watch(queue)
    assert len(list((queue.spool / "maildrop").iterdir())) in {1, protocol.BATCH}


def test_a_message_that_postsuper_leaves_is_an_error(
    queue: Postsuper, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Words and a failure, not only a line; one that is just coming, or has just gone, is none."""
    put(queue, "incoming", OTHER, mode=0o600)
    assert [each.said for each in watch(queue)] == [protocol.RECEIVED_NOW]
    put(queue, "active", ID)
    queue.delivered_ones = frozenset({ID})
    assert protocol.DELIVERED in [each.said for each in watch(queue)]
    queue.delivered_ones = frozenset()
    monkeypatch.setattr(queue, "change", lambda *_: None)
    with pytest.raises(MachineError, match=f"{ID} was not requeued: Postfix did not do it"):
        watch(queue)


def test_what_is_put_on_hold_instead_is_no_error(queue: Postsuper) -> None:
    """Damaged or without room, it does not expire: the run did what it is for."""
    put(queue, "deferred").write_bytes(b"")
    [left] = watch(queue)
    assert left.said.endswith(protocol.HELD_INSTEAD)
    assert where(queue) == "hold"
    assert watch(queue) == []


Says = Callable[..., None]


@pytest.fixture
def says(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Says:
    """A maker of what systemctl says of Postfix's two units."""

    monkeypatch.setattr(postlog, "LOCK", tmp_path / "postlog.lock")

    def make(*states: str) -> None:
        program = tmp_path / "programs/systemctl"
        program.parent.mkdir(exist_ok=True)
        program.write_text(f"#!/bin/sh\nprintf '%s\\n' {' '.join(states)}\nexit 3\n")
        program.chmod(0o755)
        monkeypatch.setenv("PATH", str(program.parent), prepend=os.pathsep)

    return make


@pytest.mark.parametrize(("argument", "looks"), [((), False), ((guard.NOW,), True)])
def test_before_postfix_starts_the_queue_is_looked_through(
    queue: Postsuper,
    says: Says,
    monkeypatch: pytest.MonkeyPatch,
    argument: tuple[str, ...],
    looks: bool,
) -> None:
    """Whatever the clock says; and it does not wait for a look at what differs."""
    put(queue, "deferred")
    seen: list[object] = []
    monkeypatch.setattr(guard, "Postfix", lambda: queue)
    monkeypatch.setattr(guard, "time_to_look", lambda *_: False)
    monkeypatch.setattr(guard, "look_for_drift", seen.append)
    monkeypatch.setattr(sys, "argv", ["guard", *argument])
    monkeypatch.setattr(postlog, "kept", partial(postlog.kept, log=queue.spool / "maillog"))
    guard.main()
    assert where(queue) == "deferred", "nobody's queue yet: Postfix has never run there"
    (queue.spool / "public").mkdir()
    says("inactive", "inactive")
    guard.main()
    assert (queue.spool / "maillog").exists(), "postsuper can say what it does"
    assert where(queue) == ("maildrop" if looks else "deferred")
    assert len(seen) == 2 * (not looks)


@pytest.mark.parametrize("argument", [(), (guard.NOW,)])
def test_before_postfix_starts_it_is_told_nothing(
    queue: Postsuper, says: Says, monkeypatch: pytest.MonkeyPatch, argument: tuple[str, ...]
) -> None:
    """Maintenance that ended meanwhile is no failure then: the timer's next run tells Postfix."""

    def away(_postfix: object) -> bool:
        raise MachineError("the mail system is not running")

    monkeypatch.setattr(guard, "Postfix", lambda: queue)
    monkeypatch.setattr(guard, "look_for_drift", lambda _: None)
    monkeypatch.setattr(maintenance, "end_in_time", away)
    monkeypatch.setattr(sys, "argv", ["guard", *argument])
    monkeypatch.setattr(postlog, "kept", partial(postlog.kept, log=queue.spool / "maillog"))
    (queue.spool / "public").mkdir()
    says("inactive", "inactive")
    expected = contextlib.nullcontext() if argument else pytest.raises(MachineError, match="ended")
    with expected:
        guard.main()


def speak(place: Path, *lines: bytes) -> None:
    """Say something to postlogd, as Postfix's programs do."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as wire:
        for line in lines:
            wire.sendto(line, str(place))


def test_the_log_is_kept_while_postfix_is_away(tmp_path: Path, says: Says) -> None:
    """All that was said is in it, in order; a socket that nobody reads any more is replaced.

    What says nothing ends nothing.
    """
    says("inactive", "failed")
    (tmp_path / "public").mkdir()
    place, log = tmp_path / "public/postlog", tmp_path / "maillog"
    log.write_bytes(b"before\n")
    said = [b"line %d" % number for number in range(100)]
    for part in (said[:50], said[50:]):
        with postlog.kept(tmp_path, log):
            speak(place, b"", *part)
        assert place.stat().st_mode & 0o777 == 0o666
    assert log.read_bytes().splitlines() == [b"before", *said]


def test_whoever_keeps_the_log_does_so_alone(tmp_path: Path, says: Says) -> None:
    """The timer's guard would take the socket along that the one before Postfix's start uses."""
    says("inactive", "inactive")
    (tmp_path / "public").mkdir()
    place, log = tmp_path / "public/postlog", tmp_path / "maillog"

    def keep() -> None:
        with postlog.kept(tmp_path, log):
            speak(place, b"second")

    second = threading.Thread(target=keep, daemon=True)
    with postlog.kept(tmp_path, log):
        second.start()
        second.join(1.0)
        assert second.is_alive()
        speak(place, b"first")
    second.join(10.0)
    assert log.read_bytes() == b"first\nsecond\n"


def test_the_log_ends_whoever_has_its_socket_by_then(tmp_path: Path, says: Says) -> None:
    """Postfix may have been started meanwhile: nothing of ours is said to it, or waits for it."""
    says("inactive", "inactive")
    (tmp_path / "public").mkdir()
    place, log = tmp_path / "public/postlog", tmp_path / "maillog"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as postlogd:

        def keep() -> None:
            with postlog.kept(tmp_path, log):
                speak(place, b"ours")
                place.unlink()
                postlogd.bind(str(place))

        keeper = threading.Thread(target=keep, daemon=True)
        keeper.start()
        keeper.join(10.0)
        assert not keeper.is_alive()
        with pytest.raises(BlockingIOError):
            postlogd.recv(100, socket.MSG_DONTWAIT)
    assert log.read_bytes() == b"ours\n"


@pytest.mark.parametrize("states", [("active", "activating"), ("deactivating", "inactive")])
def test_a_postfix_on_its_way_makes_its_own_socket(
    tmp_path: Path, says: Says, states: tuple[str, str]
) -> None:
    """The one that it has just made would be taken from it, and its log be lost until a restart."""
    says(*states)
    (tmp_path / "public").mkdir()
    with postlog.kept(tmp_path, tmp_path / "maillog"):
        assert not (tmp_path / "public/postlog").exists()
    assert not (tmp_path / "maillog").exists()


def test_a_log_that_postfix_keeps_is_left_to_it(tmp_path: Path, says: Says) -> None:
    """Its lines would be lost on a socket that was taken away."""
    says("inactive", "inactive")
    (tmp_path / "public").mkdir()
    place, log = tmp_path / "public/postlog", tmp_path / "maillog"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as postlogd:
        postlogd.bind(str(place))
        with postlog.kept(tmp_path, log):
            speak(place, b"hers")
        postlogd.settimeout(5.0)
        assert postlogd.recv(100) == b"hers"
    assert not log.exists()
    with pytest.raises(MachineError, match="the mail log cannot be kept"), postlog.kept(log):
        pass


def test_the_guard_releases_what_was_pulled(queue: Postsuper) -> None:
    """It runs every minute, whether or not anybody needs the helper."""
    put(queue, "hold")
    pulls.FOLDER.mkdir()
    (pulls.FOLDER / "ids").write_text(f"{ID}\n")
    watch(queue, always=False)
    assert where(queue) in {"deferred", "maildrop"}


@pytest.mark.parametrize("limit", [60, 600, 5 * DAY, HUNDRED_DAYS])
def test_the_queue_is_looked_through_often_enough(limit: int) -> None:
    """Between a message's mark and Postfix's limit there are looks, but not one each minute."""
    start = 1_795_333_680
    looks = [now for now in range(start, start + 2 * DAY, 60) if guard.time_to_look(limit, now)]
    gaps = [later - earlier for earlier, later in pairwise(looks)]
    assert max(gaps) <= max(limit * (1 - expiry.SHARE) / 2, 60)
    assert max(gaps) <= 3600


def test_maintenance_sends_every_domain_to_retry(tmp_path: Path) -> None:
    """The table says so, with the end as a comment; who did it is in the log first."""
    table, postfix = tmp_path / "maintenance", Said()
    maintenance.switch(postfix, 1_795_340_000, WHO, table)
    assert maintenance.until(table) == 1_795_340_000
    rows = [line for line in table.read_text().splitlines() if not line.startswith("#")]
    words = "retry:4.3.2 maintenance until 2026-11-22T09:33:20Z"
    assert rows == [f"example.org {words}", f"example.com {words}"]
    assert postfix.steps == ["maintenance until=1795340000 by=root", "reload"]
    assert table.stat().st_mode & 0o777 == 0o644
    assert list(tmp_path.iterdir()) == [table]


def test_after_maintenance_mail_is_tried(tmp_path: Path) -> None:
    """Off is an empty table, and a flush."""
    table, postfix = tmp_path / "maintenance", Said()
    maintenance.switch(postfix, 0, WHO, table)
    assert table.read_text() == OFF
    assert postfix.steps[-2:] == ["reload", "flush"]
    assert maintenance.until(table) == 0


def test_maintenance_ends_when_its_time_is_over(tmp_path: Path) -> None:
    """Not before; and only once."""
    table, postfix = tmp_path / "maintenance", Said()
    maintenance.switch(postfix, int(time.time()) + 1000, WHO, table)
    assert not maintenance.end_in_time(postfix, table)
    table.write_text(maintenance.content(["example.org"], int(time.time()) - 1))
    assert maintenance.end_in_time(postfix, table)
    assert maintenance.until(table) == 0
    assert not maintenance.end_in_time(postfix, table)


@pytest.mark.parametrize("failing", ["reload", "flush"])
def test_the_end_that_postfix_was_not_told_of_is_told_again(tmp_path: Path, failing: str) -> None:
    """The guard goes on until Postfix has read the table and tried all mail; then never again."""
    table, postfix = tmp_path / "maintenance", Said()
    maintenance.switch(postfix, int(time.time()) + 1000, WHO, table)
    postfix.failing = failing
    with pytest.raises(MachineError, match=f"no {failing} today"):
        maintenance.switch(postfix, 0, WHO, table)
    with pytest.raises(MachineError, match=f"no {failing} today"):
        maintenance.end_in_time(postfix, table)
    assert maintenance.until(table) == 0
    postfix.failing, postfix.steps = "", []
    assert maintenance.end_in_time(postfix, table)
    assert postfix.steps == ["reload", "flush"]
    assert not maintenance.end_in_time(postfix, table)
    assert list(tmp_path.iterdir()) == [table]


def test_a_beginning_that_postfix_was_not_told_of_is_told_again(tmp_path: Path) -> None:
    """It is read late, nothing is flushed, and it is not over."""
    table, postfix = tmp_path / "maintenance", Said(failing="reload")
    with pytest.raises(MachineError):
        maintenance.switch(postfix, int(time.time()) + 1000, WHO, table)
    postfix.failing, postfix.steps = "", []
    assert not maintenance.end_in_time(postfix, table)
    assert postfix.steps == ["reload"]
    assert list(tmp_path.iterdir()) == [table]


def test_a_domain_that_comes_in_the_middle_of_it_is_kept_back_too(tmp_path: Path) -> None:
    """A deploy leaves the table alone: the guard adds what is new, and the end stays."""
    table, postfix = tmp_path / "maintenance", Said()
    end = int(time.time()) + 1000
    maintenance.switch(postfix, end, WHO, table)
    postfix.steps = []
    assert not maintenance.keep_up(postfix, table)
    assert postfix.steps == []
    postfix.taken = ["example.org", "example.net"]
    assert maintenance.keep_up(postfix, table)
    assert postfix.steps == [f"maintenance until={end} by=guard", "reload"]
    assert table.read_text() == maintenance.content(postfix.taken, end)
    assert not maintenance.keep_up(postfix, table)
    maintenance.switch(postfix, 0, WHO, table)
    postfix.taken.append("example.com")
    assert not maintenance.keep_up(postfix, table)
    assert table.read_text() == OFF


@pytest.mark.parametrize(
    ("act", "left", "steps"),
    [
        (partial(maintenance.switch, end=2_000_000_000, who=WHO), 1000, ["domains", "reload"]),
        (maintenance.keep_up, 1000, ["domains", "domains", "reload"]),
        (maintenance.end_in_time, -1, ["reload", "flush"]),
    ],
    ids=["switch", "keep up", "end"],
)
def test_maintenance_that_was_just_ended_is_not_brought_back(
    tmp_path: Path, act: Callable[..., object], left: int, steps: list[str]
) -> None:
    """Whoever changes it is alone until Postfix was told: the guard, and who switches it off."""
    table, postfix = tmp_path / "maintenance", Said()
    table.write_text(maintenance.content(["example.org"], int(time.time()) + left))
    done: list[str] = []

    def step(name: str) -> list[str]:
        done.append(name)
        folder = os.open(tmp_path, os.O_RDONLY)
        with pytest.raises(BlockingIOError):
            fcntl.flock(folder, fcntl.LOCK_EX | fcntl.LOCK_NB)
        os.close(folder)
        return ["example.net"]

    postfix._do = step  # type: ignore[assignment,method-assign]
    postfix.domains = partial(step, "domains")  # type: ignore[method-assign]
    act(postfix, path=table)
    assert done == steps


def test_the_guard_minds_the_domains(queue: Postsuper, monkeypatch: pytest.MonkeyPatch) -> None:
    """At each of its runs, with the files that are there."""
    table, postfix = queue.spool / "maintenance", Said()
    table.write_text(maintenance.content(["example.org"], int(time.time()) + 1000))
    monkeypatch.setattr(maintenance.end_in_time, "__defaults__", (table,))
    monkeypatch.setattr(maintenance.keep_up, "__defaults__", (table,))
    monkeypatch.setattr(queue, "domains", postfix.domains, raising=False)
    monkeypatch.setattr(queue, "reload", postfix.reload, raising=False)
    watch(queue, always=False)
    assert "example.com retry:" in table.read_text()
    assert postfix.steps == ["reload"]


def test_no_table_is_no_maintenance(tmp_path: Path) -> None:
    """Where the file is missing there is none; where it cannot be read, that is said."""
    assert maintenance.until(tmp_path / "none") == 0
    with pytest.raises(MachineError, match="cannot be read"):
        maintenance.until(tmp_path)


def test_a_table_that_cannot_be_written_stays(tmp_path: Path) -> None:
    """Postfix is not reloaded for what is not there."""
    postfix = Said()
    with pytest.raises(MachineError, match="cannot be written"):
        maintenance.switch(postfix, 0, WHO, tmp_path / "no folder" / "maintenance")
    assert "reload" not in postfix.steps


def test_the_end_of_maintenance_is_bounded() -> None:
    """Who types a year too much is told."""
    far = MADE + protocol.LONGEST_MAINTENANCE + 10
    line = b'{"verb": "maintenance", "by": "x", "until": %d}' % far
    with pytest.raises(protocol.RequestError, match="30 days"):
        protocol.parse(line, MADE)


@pytest.fixture
def archive(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where a deploy leaves its archive, of which there is none yet."""
    monkeypatch.setattr(guard, "KEPT", tmp_path / "relay.pyz")
    monkeypatch.setattr(protocol, "DRIFT", tmp_path / "drift")
    return tmp_path / "relay.pyz"


def keep(archive: Path, program: str, ago: float = 60.0) -> None:
    """Leave an archive that was applied some seconds ago."""
    archive.write_text(program)
    os.utime(archive, (time.time() - ago,) * 2)


def looked(ago: float = 0.0) -> str | None:
    """Let the guard look, some seconds after it has; return what it left."""
    if protocol.DRIFT.exists():
        os.utime(protocol.DRIFT, (time.time() - ago,) * 2)
    guard.look_for_drift(lambda _: None)
    return protocol.DRIFT.read_text() if protocol.DRIFT.exists() else None


def test_what_cannot_be_started_is_drift(archive: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No memory for a process, for one: the guard itself has done its work, and ends well."""

    def full(*_: object, **__: object) -> None:
        raise BlockingIOError(errno.EAGAIN, "Resource temporarily unavailable")

    keep(archive, SAME)
    monkeypatch.setattr(subprocess, "run", full)
    assert looked() == f"{archive} cannot be run: Resource temporarily unavailable"


def test_a_look_that_fails_does_not_end_the_guard(
    queue: Postsuper, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its unit would tell that it did not run, although all that matters was done."""
    put(queue, "deferred")
    monkeypatch.setattr(commands, "Postfix", lambda: queue)
    monkeypatch.setattr(protocol, "DRIFT", tmp_path / "drift")
    (tmp_path / "drift").symlink_to("drift")
    monkeypatch.delitem(sys.modules, guard.__name__)
    runpy.run_module(guard.__name__, run_name="__main__")


def test_a_clock_that_was_set_back_stops_no_look(archive: Path) -> None:
    """What was looked at in what is now the future was looked at some time ago."""
    keep(archive, SAME)
    assert looked() == ""
    keep(archive, OTHER_FILE)
    assert looked(ago=-7200) == "--- /etc/postfix/main.cf"


SAME = f"print({guard.NO_DRIFT!r})"
OTHER_FILE = "import sys; assert sys.argv[1:] == ['--diff']; print('--- /etc/postfix/main.cf')"


def test_without_an_archive_nothing_is_compared(archive: Path) -> None:
    """Nor is that a difference."""
    assert not archive.exists()
    assert looked() is None


def test_what_the_archive_would_change_is_drift(archive: Path) -> None:
    """It is told as it is, until it is put back; that it does not run is the worst of it."""
    keep(archive, SAME)
    assert looked() == ""
    keep(archive, OTHER_FILE)
    assert looked(ago=3601) == "--- /etc/postfix/main.cf"
    keep(archive, "import sys; sys.exit('damaged')")
    assert looked(ago=601) == "damaged"
    keep(archive, SAME)
    assert looked(ago=601) == ""


@pytest.mark.parametrize(
    ("first", "ago", "applied", "again"),
    [
        (SAME, 3500, 9999, False),
        (SAME, 3700, 9999, True),
        (SAME, 100, 50, True),
        (OTHER_FILE, 500, 9999, False),
        (OTHER_FILE, 700, 9999, True),
    ],
    ids=["soon", "after an hour", "after a deploy", "soon after a difference", "a while after one"],
)
def test_drift_is_looked_for_now_and_then(
    archive: Path, first: str, ago: float, applied: float, again: bool
) -> None:
    """It takes a second of an eighth of a core: once an hour, sooner while something differs."""
    keep(archive, first)
    before = looked()
    keep(archive, "print('another')", applied)
    assert looked(ago) == ("another" if again else before)


def test_the_deploy_s_own_words_are_those_that_mean_nothing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """If they were others, every relay would seem to have drifted."""
    monkeypatch.setattr(files, "APPLIED", tmp_path / "applied.json")
    monkeypatch.setattr(diff, "STATE", tmp_path)
    bundle = files.Bundle("mx2", "0", (), (), (), (), (), (), File(tmp_path / "kept"))
    diff.show_diff(bundle)
    assert capsys.readouterr().out.strip() == guard.NO_DRIFT
