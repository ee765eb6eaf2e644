"""The ledger as a file: killed, broken, newer, hashed, read by root while another writes."""

import asyncio
import errno
import json
import os
import random
import sqlite3
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, closing
from dataclasses import replace
from pathlib import Path

import pytest
from ledgers import A, B, Desk, active, removed, tried

import backup_mx
from backup_mx.errors import MachineError
from backup_mx.relay.decide.drain import Tally
from backup_mx.relay.ledger import COUNTERS, Progress, schema, veil
from backup_mx.relay.ledger.query import reading
from backup_mx.relay.ledger.rows import Change, Filter
from backup_mx.relay.ledger.writer import Ledger
from backup_mx.relay.state import DOWN, UP, Count, Primary, Snapshot, Sums, Walk
from backup_mx.relay.tasks.books import Books

ENVIRONMENT = os.environ | {"PYTHONPATH": str(Path(backup_mx.__file__).parents[1])}
SNAPSHOT = Snapshot(1.7e9, 1.6e9, "mx2", "mx2.example.org", "v")


@pytest.fixture
def desk(tmp_path: Path) -> Iterator[Desk]:
    desk = Desk(tmp_path)
    yield desk
    desk.ledger.close()


def test_counters_begin_at_zero(desk: Desk) -> None:
    """Whoever counts rates needs every counter from the first moment on."""
    assert desk.ledger.counters() == dict.fromkeys(COUNTERS, 0)
    desk.say("postfix/smtpd[1]: NOQUEUE: reject: RCPT from a[192.0.2.1]: 454 4.7.1 x; from=<>", "x")
    counted = {name: value for name, value in desk.ledger.counters().items() if value}
    assert counted == {"refusals:other4xx": 1, "garbage": 1, "lines": 2}


def test_a_batch_says_what_it_brought(desk: Desk) -> None:
    """The agent reacts to what is new."""
    desk.write(f"postfix/smtpd[1]: {A}: client=a[192.0.2.7]", active(A))
    desk.write(tried(A, status="SOFTBOUNCE", words="host m[1] said: 550 no"))
    progress = desk.ledger.catch_up()
    assert (progress.read, progress.accepted) == (3, 1)
    assert progress.answers == {"example.org": Tally(refused=1)}
    desk.write(tried(A), removed(A))
    progress = desk.ledger.catch_up(1)
    assert progress.answers == {"example.org": Tally(delivered=1)}
    assert (desk.sums.delivered, progress.behind) == (0, True)
    desk.ledger.catch_up()
    assert desk.sums.delivered == 1


def test_a_log_that_grows_as_fast_as_it_is_read_is_read_up_to_a_moment(desk: Desk) -> None:
    """Whoever waits for what was written before a time need not wait for the log's end."""
    desk.accept(A)
    end = desk.ledger.catch_up()
    assert (end.behind, end.reached) == (False, desk.now)
    before = desk.now
    desk.now += 100
    desk.write(tried(A), removed(A))
    one = desk.ledger.catch_up(1)
    assert one.behind
    assert before < one.reached <= desk.now


def test_a_ledger_of_before_domains_were_counted_is_brought_up_to_date(tmp_path: Path) -> None:
    """By domain what is there, what left and what was pruned; and it goes on adding up."""
    path = tmp_path / "ledger.sqlite"
    with closing(sqlite3.connect(path)) as old:
        old.executescript(f"{schema._FIRST}PRAGMA user_version = 1;")
        row = "INSERT INTO message VALUES (?, ?, ?, ?, ?, 1, 1, ?, 100, 1, '', '', '', '', NULL, '', NULL, '', '', '', NULL, 0, 0, '', '')"  # noqa: E501
        for number, (fate, why, domain) in enumerate(
            [(1, "4xx", "a.example"), (1, "4xx", "b.example"), (2, "held", "a.example"),
             (3, "4xx", "a.example")], 1
        ):  # fmt: skip
            old.execute(
                row, (number, f"{number}" * 9, fate, why, domain, 9.0 if fate > 2 else None)
            )
        old.execute("UPDATE tally SET messages = 8, octets = 800 WHERE fate = 3")  # seven are gone
        old.execute("INSERT INTO counter VALUES ('sum:accepted', 11)")
        old.commit()
    desk = Desk(tmp_path)
    assert desk.ledger.sums() == Sums(11, 8, 2, 1)
    assert desk.ledger.delivered() == {"": 7, "a.example": 1}
    waits = Count("waiting", "4xx", 1, 100, 1.0)
    assert desk.ledger.shares() == {
        "a.example": (waits, Count("held", "held", 1, 100, 1.0)),
        "b.example": (waits,),
    }
    assert Count("waiting", "4xx", 2, 200, 1.0) in desk.ledger.counts()
    desk.accept(A)
    desk.say(tried(A, "jo@a.example"), removed(A))
    assert desk.ledger.delivered() == {"": 7, "a.example": 2}
    assert desk.ledger.sums() == Sums(12, 9, 2, 1)
    desk.ledger.close()


def test_a_lost_log_is_told_once(desk: Desk) -> None:
    """What can never be read is counted, and said to the operator."""
    desk.accept(A)
    desk.log.unlink()
    desk.now += 10
    desk.write(tried(A))
    told = [desk.ledger.catch_up().told for _ in range(3)]
    assert [len(each) for each in told] == [1, 0, 0]
    assert desk.ledger.counters()["gaps"] == 1
    assert desk.parts == (1, 0, 1, 0, 0, 0)


def test_a_log_that_may_not_be_read_is_an_error(desk: Desk) -> None:
    """A folder in its place stands for whatever the agent cannot read."""
    desk.log.mkdir()
    with pytest.raises(MachineError, match="mail log"):
        desk.ledger.catch_up()


@pytest.mark.parametrize("damage", ["text", "middle"])
def test_a_broken_ledger_is_begun_anew(desk: Desk, damage: str) -> None:
    """It is moved aside, learnt again from the log, and told; the agent does not stop."""
    for number in range(300):
        desk.accept(f"4jXLxq4KF0z{number:04}")
    desk.ledger.close()
    for companion in desk.path.parent.glob("*-*"):
        companion.unlink()
    data = bytearray(desk.path.read_bytes())
    data[0 if damage == "text" else 8192 :] = b"x" * (len(data) // 2)
    desk.path.write_bytes(data)
    desk.ledger = desk.open()
    assert "begun anew" in desk.ledger.catch_up().told[0]
    desk.read()
    assert desk.parts == (300, 0, 300, 0, 0, 0)
    assert desk.ledger.counters()["renewed"] == 1
    assert list(desk.path.parent.glob("ledger.sqlite.broken-*"))


def broken(path: Path) -> None:
    """Overwrite all of a ledger but its first page."""
    with path.open("r+b") as file:
        for page in range(4096, path.stat().st_size, 4096):
            file.seek(page)
            file.write(b"\xff" * 4096)


def test_a_ledger_that_breaks_while_it_is_used_is_begun_anew(desk: Desk) -> None:
    """The call that meets the damage fails; the next ones work with a new ledger."""
    for number in range(300):
        desk.accept(f"4jXLxq4KF0z{number:04}")
    desk.reopen()
    desk.ledger.catch_up()
    assert desk.ledger.known
    broken(desk.path)
    desk.ledger._database.execute("PRAGMA shrink_memory")  # else it works on from its cache
    desk.write(active(A))
    with pytest.raises(MachineError, match="cannot be used"):
        desk.ledger.catch_up()
    assert not desk.ledger.known
    assert "begun anew" in "".join(desk.ledger.catch_up().told)
    desk.read()
    assert desk.parts[0] == 301


@pytest.mark.parametrize(
    ("where", "what", "error"),
    [
        (schema, "move_aside", OSError(errno.ENOSPC, "No space left on device")),
        (schema, "_open", sqlite3.OperationalError("database or disk is full")),
        (veil, "drawn", sqlite3.OperationalError("database or disk is full")),
    ],
    ids=["moved", "opened", "begun"],
)
def test_a_ledger_that_cannot_be_begun_anew_is_tried_again(
    desk: Desk, monkeypatch: pytest.MonkeyPatch, where: object, what: str, error: Exception
) -> None:
    """Until there is room, and without a restart; that it was broken is told all the same."""
    books = Books(desk.path, desk.log)

    def fail(*_: object) -> None:
        raise error

    async def main() -> Progress:
        await books.open()
        assert books._ledger
        books._ledger._database.execute("PRAGMA shrink_memory")  # as above
        broken(desk.path)
        desk.write(active(A))
        with monkeypatch.context() as patch:
            patch.setattr(where, what, fail)
            for _ in range(3):
                with pytest.raises(MachineError, match=r"cannot be (opened|used)"):
                    await books.catch_up()
        found = await books.catch_up()
        figures = await books.figures()
        assert (figures.sums.accepted, figures.counters["renewed"]) == (301, 1)
        await books.close()
        return found

    for number in range(300):
        desk.accept(f"4jXLxq4KF0z{number:04}")
    desk.ledger.close()
    assert "begun anew" in "".join(asyncio.run(main()).told)
    assert len(list(desk.path.parent.glob("ledger.sqlite.broken-*"))) == 1


def test_a_ledger_says_whether_it_knows_what_is_news(desk: Desk) -> None:
    """It does once it read what was there when it was opened, though more comes as fast."""
    for number in range(3):
        desk.accept(f"4jXLxq4KF0z{number:04}")
    desk.ledger.close()
    desk.path.unlink()
    desk.now += 100
    desk.ledger = desk.open()
    found = []
    for _ in range(9):
        desk.ledger.catch_up(1)
        found.append(desk.ledger.known)
    assert found == [False] * 9
    desk.now += 1
    desk.write(*(active(f"4jXLxq4KF1z{number:04}") for number in range(3)))
    assert desk.ledger.catch_up(1).behind
    assert desk.ledger.known


def test_a_newer_ledger_is_left_alone(desk: Desk) -> None:
    """After a downgrade the old program neither guesses nor destroys."""
    desk.ledger.close()
    with closing(sqlite3.connect(desk.path)) as database:
        database.execute("PRAGMA user_version = 99")
    with pytest.raises(MachineError, match="newer"):
        desk.open()
    with pytest.raises(MachineError, match="version"), reading(desk.path):
        pass
    desk.path.unlink()
    desk.ledger = desk.open()


def test_without_a_ledger_there_is_one_clear_word(tmp_path: Path) -> None:
    """Verbs fall back to the queue itself on a machine whose agent never ran."""
    with pytest.raises(MachineError, match="no ledger"), reading(tmp_path / "none"):
        pass
    (tmp_path / "other").write_text("not a database, but long enough to be taken for one" * 99)
    with pytest.raises(MachineError, match="cannot be read"), reading(tmp_path / "other"):
        pass


def test_addresses_can_be_hidden_and_still_be_asked_for(tmp_path: Path) -> None:
    """Senders, recipients, Message-IDs and what servers repeat of them are hashed with a key."""
    desk = Desk(tmp_path, hash_addresses=True)
    desk.accept(A, sender="Alice@example.net")
    desk.say(tried(A, "bob@example.org", "deferred", "host m said: 450 <bob@example.org> later"))
    with reading(desk.path) as reader:
        for known in ("alice@example.net", "bob@example.org", f"<{A}@example.net>", A):
            assert [row.id for row in reader.waiting(Filter(search=known))] == [A], known
        assert reader.waiting(Filter(search="bob")) == []
        assert [row.id for row in reader.waiting(Filter(domain="example.org"))] == [A]
        assert reader.waiting(Filter())[0].words == "host m said: 450 <[address]> later"
    desk.ledger.close()
    everything = b"".join(path.read_bytes() for path in tmp_path.glob("ledger.sqlite*"))
    assert b"alice" not in everything.lower()
    assert b"bob" not in everything.lower()


def test_hiding_begins_with_what_is_there(desk: Desk) -> None:
    """Switched on later it hides what was written before; switched off, each is still himself."""
    desk.accept(A, recipients=1)
    desk.say(tried(A, "bob@example.org", "deferred", "later"))
    desk.hash_addresses = True
    desk.reopen()
    with reading(desk.path) as reader:
        assert reader.waiting(Filter())[0].sender.startswith("#")
        assert reader.waiting(Filter(search="bob@example.org"))
    desk.hash_addresses = False
    desk.reopen()
    desk.say(tried(A, "bob@example.org", "deferred", "later"))
    with reading(desk.path) as reader:
        assert len(reader.waiting(Filter())[0].recipients) == 1
    desk.say(tried(A, "bob@example.org"), removed(A))
    assert desk.parts == (1, 1, 0, 0, 0, 0)


def test_the_agent_keeps_its_look_at_things(desk: Desk) -> None:
    """Snapshot, curve and states come back as they were kept."""
    with reading(desk.path) as reader:
        assert reader.snapshot() is None
    walk = Walk(1.0, good=False, step="connect", why="unreachable", words="refused", seconds=0.1)
    down = Primary("home", DOWN, 100.0, walk=walk)
    for primary in (down, down, replace(down, state=UP, since=200.0, walk=None)):
        desk.ledger.keep_state(primary)
    full = replace(SNAPSHOT, counts=(Count("held", "held", 2, 20, 1.0),), primaries=(down,))
    desk.ledger.keep_snapshot(full)
    for minutes in (0, 1, 2, 2, 5000):
        desk.ledger.sample(replace(full, time=full.time + 60 * minutes))
    with reading(desk.path) as reader:
        assert reader.snapshot() == full
        assert reader.states(0) == [
            Change(100.0, "home", DOWN, "refused"),
            Change(200.0, "home", UP, ""),
        ]
        assert [each.state for each in reader.states(150)] == [DOWN, UP]
        history = reader.history(0)
    assert [(each.messages, each.octets, each.held) for each in history] == [(2, 20, 2)] * 2
    assert history[-1].time == full.time // 60 * 60 + 300_000


def test_a_reader_sees_one_moment(desk: Desk) -> None:
    """What is written meanwhile does not make its sums uneven."""
    desk.accept(A)
    with reading(desk.path) as reader:
        assert reader.sums().accepted == 1
        desk.accept(B)
        assert reader.sums().accepted == 1
        assert reader.sums().even


@pytest.mark.skipif(os.geteuid() != 0, reason="another user's file needs root")
@pytest.mark.parametrize("killed", [True, False])
def test_root_reads_another_users_ledger_and_leaves_it_his(tmp_path: Path, killed: bool) -> None:
    """A verb run by root makes no file that the agent cannot write to, dead or alive."""
    nobody = 65534
    os.chown(tmp_path, nobody, nobody)
    for folder in (tmp_path, *tmp_path.parents[:3]):
        folder.chmod(0o755)
    program = """
import _strptime, os, sys
from pathlib import Path
from backup_mx.relay.ledger.writer import Ledger
os.setuid(65534)
folder = Path(sys.argv[1])
with (folder / "maillog").open("a") as log:
    log.write(sys.argv[2])
ledger = Ledger.open(folder / "ledger.sqlite", folder / "maillog")
ledger.catch_up()
print(ledger.sums().accepted, flush=True)
if sys.argv[3] == "killed":
    os.kill(os.getpid(), 9)
ledger.close()
"""

    def agent(queue_id: str, end: str) -> str:
        line = f"Nov 22 07:00:00 mx2 {active(queue_id)}\n"
        argv = [sys.executable, "-c", program, str(tmp_path), line, end]
        done = subprocess.run(argv, capture_output=True, text=True, check=False, env=ENVIRONMENT)
        assert not done.stderr
        return done.stdout.strip()

    assert agent(A, "killed" if killed else "closed") == "1"
    with reading(tmp_path / "ledger.sqlite") as reader:
        assert reader.sums().accepted == 1
        assert {path.stat().st_uid for path in tmp_path.iterdir()} == {nobody}
    assert {path.stat().st_uid for path in tmp_path.iterdir()} == {nobody}
    assert agent(B, "closed") == "2"


CHILD = """
import sys, time
from pathlib import Path
from backup_mx.relay.ledger.writer import Ledger
ledger = Ledger.open(Path(sys.argv[1]), Path(sys.argv[2]))
print("reading", flush=True)
while True:
    if not ledger.catch_up(9).behind:
        time.sleep(0.001)
"""


def test_a_ledger_that_is_killed_adds_up(desk: Desk) -> None:
    """kill -9 at random moments while mail flows: the same sums and counters as without."""
    chance = random.Random(7)  # noqa: S311  a test's dice
    number = 0
    for _ in range(10):
        argv = [sys.executable, "-c", CHILD, str(desk.path), str(desk.log)]
        with (
            subprocess.Popen(argv, stdout=subprocess.PIPE, env=ENVIRONMENT) as child,
            ExitStack() as ends,
        ):
            ends.callback(child.kill)  # in any case: Popen would wait for it for ever
            assert child.stdout
            assert child.stdout.readline()
            for _ in range(chance.randrange(10, 60)):
                number += 1
                queue_id = f"4jXLxq4KF0z{number:04}"
                desk.write(f"postfix/smtpd[1]: {queue_id}: client=a[192.0.2.7]", active(queue_id))
                if number % 2:
                    desk.write(tried(queue_id, f"u{number}@example.org"), removed(queue_id))
                if number % 5 == 0:
                    time.sleep(0.002)
    desk.reopen()
    desk.read()
    delivered = (number + 1) // 2
    assert desk.parts == (number, delivered, number - delivered, 0, 0, 0)
    counters = desk.ledger.counters()
    assert (counters["accepted"], counters["deliveries"]) == (number, delivered)
    with desk.log.open() as log:
        assert counters["lines"] == sum(1 for _ in log)


def test_two_writers_wait_for_each_other(desk: Desk) -> None:
    """A second agent, started by mistake, does not lock the first one out for good."""
    other = Ledger.open(desk.path, desk.log)
    other.keep_snapshot(SNAPSHOT)
    desk.accept(A)
    other.close()
    assert desk.parts == (1, 0, 1, 0, 0, 0)


def test_the_position_is_kept_with_what_was_learnt(desk: Desk) -> None:
    """One transaction holds both: a copy of the file at any time is a ledger that adds up."""
    desk.accept(A)
    with closing(sqlite3.connect(desk.path)) as database:
        found = database.execute("SELECT value FROM meta WHERE key = 'position'").fetchone()
    assert json.loads(found[0])["offset"] == desk.log.stat().st_size
