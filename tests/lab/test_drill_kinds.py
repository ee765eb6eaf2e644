"""Each drill beside outage in a lab of its own, small, and the drill of senders seen to fail."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from worlds import fresh_name

from backup_mx.lab.drills import drill
from backup_mx.lab.matrix import letters
from backup_mx.lab.report import write_report
from backup_mx.lab.timeline import Timeline
from backup_mx.lab.world import World, standard

pytestmark = pytest.mark.lab


def up(world: World) -> Iterator[World]:
    """Bring a lab up, and down when the tests that need it are done."""
    try:
        world.up(print)
        yield world
    finally:
        world.down()


@pytest.fixture(scope="module")
def home() -> Iterator[World]:
    """The lab of the docs: the primary as strict as in life, our kit on it."""
    yield from up(standard(fresh_name(), agent=True))


@pytest.fixture(scope="module")
def raw() -> Iterator[World]:
    """The same without the kit."""
    yield from up(standard(fresh_name(), kit=False))


@pytest.fixture(scope="module")
def tunnelled() -> Iterator[World]:
    """A lab whose relay drains through a tunnel."""
    yield from up(standard(fresh_name(), tunnel=True, agent=True))


def run(world: World, name: str, messages: int, folder: Path) -> dict[str, Any]:
    """Run a drill; return its report, of which both files could be written."""
    report = drill(name)(world, Timeline(time.monotonic), messages).run()
    write_report(report, folder)
    return report


def assert_kept(report: dict[str, Any], sent: int) -> None:
    """Nothing was lost, bounced or altered, and nothing else was wrong."""
    assert report["reasons"] == []
    counts = {name: report[name] for name in ("sent", "delivered", "lost", "altered", "dsn")}
    assert counts == {"sent": sent, "delivered": sent, "lost": 0, "altered": 0, "dsn": 0}


def test_senders_are_judged_alike(home: World, tmp_path: Path) -> None:
    """Every sender of the matrix fares by the relay as it does straight."""
    report = run(home, "senders", len(letters()), tmp_path)
    assert [row["differences"] for row in report["rows"]] == [[]] * (2 * len(letters()))
    assert_kept(report, len(letters()))
    places = {row["ended"] for row in report["rows"] if row["path"] == "by the relay"}
    assert places == {"INBOX", "Junk"}


@pytest.mark.long
def test_without_the_kit_no_sender_is_at_parity(raw: World, tmp_path: Path) -> None:
    """The drill can fail: on a primary that nobody prepared, each row says where its mail waits."""
    report = run(raw, "senders", len(letters()), tmp_path)
    assert report["verdict"] == "fail"
    assert report["dsn"] == 0
    rows = [row for row in report["rows"] if row["path"] == "by the relay"]
    waiting = [row for row in rows if row["ended"].startswith("waiting on the relay: ")]
    assert len(waiting) == len(letters())
    assert not any(row["parity"] for row in waiting)
    straight = [row for row in report["rows"] if row["path"] == "straight"]
    assert all(row["parity"] for row in straight)


def test_a_broken_primary_bounces_nothing(home: World, tmp_path: Path) -> None:
    """550, 554 and 451: everything stays on the relay, with the primary's words, and goes on."""
    report = run(home, "refusal", 20, tmp_path)
    assert_kept(report, 20)
    assert [stage["words"][:3] for stage in report["stages"]] == ["550", "554", "451"]
    for stage in report["stages"]:
        assert (stage["waiting"], stage["delivered"], stage["notices"]) == (20, 0, 0)
        assert all(stage["words"] in reason for reason in stage["reasons"])


def test_a_router_restarts(home: World, tmp_path: Path) -> None:
    """Mail that arrives while the router is away is delivered once it is back."""
    report = run(home, "edge-reboot", 30, tmp_path)
    assert_kept(report, 30)
    assert "this lab has no tunnel" in report["timeline"][0]["text"]


@pytest.mark.long
def test_a_router_forgets_its_tunnel(tunnelled: World, tmp_path: Path) -> None:
    """While the peer is gone nothing passes, and nothing is lost; then all is delivered."""
    report = run(tunnelled, "edge-reboot", 30, tmp_path)
    assert_kept(report, 30)
    marks = [event["mark"] for event in report["timeline"] if event["mark"]]
    assert marks == ["router off", "router back", "peer gone", "peer back", "drained"]


def test_a_drain_is_not_throttled(home: World, tmp_path: Path) -> None:
    """Three times what a stranger may send in a minute is drained at once."""
    report = run(home, "flood", 100, tmp_path)
    assert_kept(report, 100)
    assert report["figures"]["drained, s"] < 60
    assert report["figures"]["messages waiting on the relay"] == 100


@pytest.mark.long
def test_without_the_kit_a_flood_does_not_pass(raw: World, tmp_path: Path) -> None:
    """The drill can fail: the primary's limits hold a stranger back."""
    raw.machine("mx2").run(["postsuper", "-d", "ALL"])
    report = run(raw, "flood", 40, tmp_path)
    assert report["verdict"] == "fail"
    assert any("does not take mail from the relay" in reason for reason in report["reasons"])
