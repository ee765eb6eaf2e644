"""Reading a log exactly once, in any order of events, and with the reader killed at any moment."""

import json
import os
import random
import sqlite3
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import ExitStack, closing
from pathlib import Path

from hypothesis import given, settings
from hypothesis import strategies as st
from logs import Log, Reader, lines

from backup_mx.relay.log import follow
from backup_mx.relay.log.follow import Position


class Night:
    """A log and its reader through which anything may happen, in any order."""

    def __init__(self, folder: Path) -> None:
        self.log = Log(folder)
        self.reader = Reader(self.log)
        self.rotated: list[Path] = []
        self.open = self.log.path

    def line(self) -> None:
        self.log.line()

    def torn(self) -> None:
        text = b"Nov 22 07:00:00 mx2 postfix/x[1]: line %d" % len(self.log.written)
        self.log.append(text[:20])
        self.reader.read()
        self.log.written.append(text)
        self.log.append(text[20:] + b"\n")

    def rotate(self) -> None:
        if self.open == self.log.path and self.log.path.stat().st_size:  # notifempty
            self.open = self.log.rotate()
            self.rotated.append(self.open)

    def reload(self) -> None:
        self.log.age(5)
        self.log.reload()
        self.open = self.log.path

    def compress(self) -> None:
        if self.rotated and self.rotated[0] != self.open:
            self.log.compress(self.rotated.pop(0))

    def cut(self) -> None:
        if self.open == self.log.path and self.log.path.stat().st_size:
            self.log.copytruncate()
            self.log.age(5)

    def read(self) -> None:
        self.reader.read(batches=2)

    def restart(self) -> None:
        self.reader.restart()


STEPS = [Night.line, Night.line, Night.line, Night.torn, Night.rotate, Night.reload]
STEPS += [Night.compress, Night.cut, Night.read, Night.restart]


@settings(max_examples=150, deadline=None)
@given(st.lists(st.sampled_from(STEPS), max_size=40))
def test_in_any_order_each_line_is_read_once(steps: list[Callable[[Night], None]]) -> None:
    """Lines, torn lines, rotations, archives, reloads and restarts: nothing is lost or doubled."""
    with tempfile.TemporaryDirectory() as folder:
        night = Night(Path(folder))
        for step in (*steps, Night.reload, Night.line):
            step(night)
        night.reader.read()
        night.reader.follower.close()
        night.log.close()
        assert night.reader.lines == night.log.written
        assert not night.reader.gaps


CHILD = """
import json, sqlite3, sys, time
from contextlib import closing
from dataclasses import asdict
from pathlib import Path
from backup_mx.relay.log import follow
from backup_mx.relay.log.follow import Follower, Position
follow._LINGER = 0.0  # the writer has left a file when the next one fills
base = sqlite3.connect(sys.argv[2], isolation_level=None)
base.execute("CREATE TABLE IF NOT EXISTS said (line)")
base.execute("CREATE TABLE IF NOT EXISTS position (one PRIMARY KEY, value)")
found = base.execute("SELECT value FROM position").fetchone()
position = Position(**json.loads(found[0])) if found else None
follower = Follower(Path(sys.argv[1]))
while True:
    batch = follower.read(position, 7)
    if batch.position != position:
        base.execute("BEGIN IMMEDIATE")
        base.executemany("INSERT INTO said VALUES (?)", [(line,) for line in batch.lines])
        value = json.dumps(asdict(batch.position))
        base.execute("INSERT OR REPLACE INTO position VALUES (1, ?)", (value,))
        base.execute("COMMIT")
        print("kept", flush=True)
        position = batch.position
    if not batch.behind:
        time.sleep(0.001)
"""


def test_a_reader_that_is_killed_reads_each_line_once(tmp_path: Path) -> None:
    """kill -9 at any moment, while lines come and files are rotated: the lines are all there."""
    log = Log(tmp_path)
    chance = random.Random(4)  # noqa: S311  a test's dice
    base = tmp_path / "said.sqlite"
    for _ in range(12):
        with (
            subprocess.Popen(
                [sys.executable, "-c", CHILD, str(log.path), str(base)],
                stdout=subprocess.PIPE,
                env=os.environ | {"PYTHONPATH": str(Path(follow.__file__).parents[3])},
            ) as child,
            ExitStack() as ends,
        ):
            ends.callback(child.kill)  # in any case: Popen would wait for it for ever
            assert child.stdout
            log.now = time.time()
            lines(log, 1)
            assert child.stdout.readline()
            for _ in range(chance.randrange(1, 40)):
                log.now = time.time()  # the child goes by the real clock
                lines(log, chance.randrange(1, 12))
                if chance.random() < 0.1:
                    old = log.rotate()
                    lines(log, 3)
                    log.reload()
                    if chance.random() < 0.5:
                        log.compress(old)
            time.sleep(chance.random() / 50)
    rest = Reader(log)
    with closing(sqlite3.connect(base)) as known:
        found = known.execute("SELECT value FROM position").fetchone()
        said = [row[0] for row in known.execute("SELECT line FROM said ORDER BY rowid")]
    rest.position = Position(**json.loads(found[0])) if found else None
    log.now = time.time() + 60
    rest.read(limit=1000)
    rest.follower.close()
    assert said + rest.lines == log.written
    assert said
    assert not rest.gaps
    log.close()
