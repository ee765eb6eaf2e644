"""The drain in action: what is flushed, remembered, and tried again."""

from __future__ import annotations

import asyncio
import os
import time
from pathlib import Path

import pytest

from backup_mx.errors import MachineError
from backup_mx.relay.decide import drain
from backup_mx.relay.decide.drain import Scene, Tally
from backup_mx.relay.state import Count
from backup_mx.relay.tasks.draining import Draining, scene
from backup_mx.relay.tasks.memory import Memory


class Helper:
    """Counts the flushes it is asked for; fails while it is told to."""

    def __init__(self) -> None:
        self.flushes = 0
        self.fails = False

    def __call__(self) -> None:
        if self.fails:
            raise MachineError("no helper")
        self.flushes += 1


def make(folder: Path, helper: Helper) -> Draining:
    return Draining(Memory.open(folder / "moments.json"), helper, folder / "flushed")


def turn(draining: Draining, now: float, *, up: bool = True, maintenance: bool = False) -> bool:
    moment = Scene(now, up=up, waiting=50, oldest=0.0, maintenance=maintenance)
    return asyncio.run(draining.turn({"home": moment}))


def test_the_edge_is_flushed_and_remembered(tmp_path: Path) -> None:
    """An agent that is started again right after a flush does not flush again."""
    helper = Helper()
    made = make(tmp_path, helper)
    made.rose("home")
    assert turn(made, 1000.0)
    assert (helper.flushes, made.flushes) == (1, 1)
    again = make(tmp_path, helper)
    again.rose("home")
    assert not turn(again, 1001.0)
    assert turn(again, 1000.0 + drain.GAP)


def test_a_helper_that_fails_is_asked_again(tmp_path: Path) -> None:
    """The edge is not lost, and no gap has to pass."""
    helper = Helper()
    made = make(tmp_path, helper)
    made.rose("home")
    helper.fails = True
    with pytest.raises(MachineError):
        turn(made, 1000.0)
    helper.fails = False
    assert turn(made, 1001.0)


def test_the_end_of_maintenance_is_an_edge(tmp_path: Path) -> None:
    """What was kept on purpose is handed over."""
    made = make(tmp_path, Helper())
    assert not turn(made, 1000.0, maintenance=True)
    assert turn(made, 1100.0)


def test_the_operators_flush_ends_a_pause(tmp_path: Path) -> None:
    """The helper leaves a file behind; the drain begins anew from there."""
    made = make(tmp_path, Helper())
    made.rose("home")
    now = time.time() - 1000
    turn(made, now)
    made.heard("home", Tally(refused=30))
    turn(made, now + 100)
    assert made.of("home").paused is not None
    (tmp_path / "flushed").touch()
    os.utime(tmp_path / "flushed", (now + 150, now + 150))
    assert not turn(made, now + 155)
    assert made.of("home").paused is None
    assert made.of("home").flushed == now + 150


class Two:
    """A drain of two primaries, home and away, for each of which 50 messages have long waited."""

    def __init__(self, folder: Path) -> None:
        self.helper = Helper()
        self.draining = make(folder, self.helper)

    def turn(self, now: float, **up: bool) -> bool:
        """Decide, with those primaries up; return whether there was a flush."""
        scenes = {
            name: Scene(now, up=up.get(name, False), waiting=50 if waits else 0, oldest=0.0)
            for name, waits in (("home", self.home_waits), ("away", True))
        }
        return asyncio.run(self.draining.turn(scenes))

    home_waits = False


def test_mail_for_a_dead_primary_is_not_flushed_because_another_one_is_up(tmp_path: Path) -> None:
    """Hours long, the flushes are those on the other one's edge, and on its own."""
    two = Two(tmp_path)
    two.draining.rose("home")
    flushed = [now for now in range(10_000, 20_000, 50) if two.turn(now, home=True)]
    assert flushed == [10_000]
    two.draining.rose("away")
    flushed = [now for now in range(30_000, 30_100, 10) if two.turn(now, home=True, away=True)]
    assert flushed == [30_000, 30_060]


def test_refusals_of_one_primary_pause_no_other(tmp_path: Path) -> None:
    """What home refuses says nothing about what waits for away."""
    two = Two(tmp_path)
    two.home_waits = True
    for name in ("home", "away"):
        two.draining.rose(name)
    assert two.turn(10_000, home=True, away=True)
    two.draining.heard("home", Tally(refused=30))
    assert not two.turn(10_059, home=True, away=True)
    assert two.draining.of("home").paused == 10_059
    assert two.draining.of("away").paused is None
    assert two.turn(10_060, home=True, away=True)
    assert two.draining.of("home").paused == 10_059


def test_two_that_rise_together_are_flushed_once(tmp_path: Path) -> None:
    """And one that rises right after a flush waits until the gap is over."""
    two = Two(tmp_path)
    for name in ("home", "away"):
        two.draining.rose(name)
    flushed = [now for now in range(10_000, 10_030) if two.turn(now, home=True, away=True)]
    assert flushed == [10_000]
    (tmp_path / "other").mkdir()
    two = Two(tmp_path / "other")
    two.draining.rose("home")
    assert two.turn(10_000, home=True)
    two.draining.rose("away")
    flushed = [now for now in range(10_001, 10_030) if two.turn(now, home=True, away=True)]
    assert flushed == [10_000 + drain.GAP]


def test_the_moment_is_made_of_the_ledgers_counts() -> None:
    """What is held does not wait; what is refused waits in vain."""
    counts = [
        Count("waiting", "unreachable", 5, 500, 9.0),
        Count("waiting", "4xx", 1, 500, 8.0),
        Count("waiting", "refused", 2, 200, 1.0),
        Count("waiting", "capability", 1, 100, 1.0),
        Count("waiting", "new", 0, 0, None),
        Count("held", "held", 7, 700, 1.0),
    ]
    found = scene(counts, up=True, maintenance=False)
    assert (found.waiting, found.oldest) == (9, 8.0)
    assert scene(None, up=True, maintenance=False).waiting is None


def test_a_damaged_memory_is_forgotten(tmp_path: Path) -> None:
    """Half a file is no reason not to start."""
    path = tmp_path / "moments.json"
    for content in ("", "{", "[1]", '{"flushed": "x"}'):
        path.write_text(content)
        assert Memory.open(path).get("flushed") == 0.0
    memory = Memory.open(path)
    memory.keep("flushed", 5.0)
    assert Memory.open(path).get("flushed") == 5.0


def test_an_operators_flush_before_the_rise_leaves_the_edge(tmp_path: Path) -> None:
    """It was tried while the primary was away: once the gap is over, all of it is tried again."""
    helper = Helper()
    made = make(tmp_path, helper)
    (tmp_path / "flushed").touch()
    now = time.time()
    os.utime(tmp_path / "flushed", (now - 1, now - 1))
    made.rose("home")
    assert not turn(made, now)
    assert turn(made, now + drain.GAP)
    assert helper.flushes == 1
