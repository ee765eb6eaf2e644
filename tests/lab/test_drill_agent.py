"""The drills about the agent, with days and minutes made seconds, each seen to fail as well."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from worlds import fresh_name

from backup_mx.lab.drills import Drill, agent, flapping, killed, maintenance, retention, standby
from backup_mx.lab.drills.agent import GUARD, PROGRAM
from backup_mx.lab.drills.outage import Outage
from backup_mx.lab.host import wait_for
from backup_mx.lab.report import write_report
from backup_mx.lab.timeline import Timeline
from backup_mx.lab.world import World, standard

pytestmark = pytest.mark.lab


@pytest.fixture(scope="module")
def home() -> Iterator[World]:
    """The lab of the docs, with the agent."""
    made = standard(fresh_name(), agent=True)
    try:
        made.up(print)
        yield made
    finally:
        made.down()


def run(made: Drill, folder: Path) -> dict[str, Any]:
    """Run a drill; return its report, of which both files could be written."""
    report = made.run()
    write_report(report, folder)
    return report


def timed(world: World, drill: type[Drill], messages: int, *, agent_dead: bool = False) -> Drill:
    """Return a drill to run."""
    return drill(world, Timeline(time.monotonic), messages, agent_dead)


def swept(drill: Drill) -> None:
    """Take away what a failed drill left: the next one begins with empty queues."""
    for place in (drill.sender, drill.relay):
        place.machine.run(["postsuper", "-d", "ALL"])
    wait_for("the queues to be empty", lambda: drill.sender.waiting + drill.relay.waiting == 0,
             timeout=60)  # fmt: skip


def marks(report: dict[str, Any]) -> list[str]:
    """Return what the curve is marked with."""
    return [event["mark"] for event in report["timeline"] if event["mark"]]


def assert_kept(report: dict[str, Any], sent: int) -> None:
    """Nothing was lost, bounced or altered, and nothing else was wrong."""
    assert report["reasons"] == []
    counts = {name: report[name] for name in ("sent", "delivered", "lost", "altered", "dsn")}
    assert counts == {"sent": sent, "delivered": sent, "lost": 0, "altered": 0, "dsn": 0}


@pytest.fixture
def few(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the drills be shorter than they are for an operator."""
    monkeypatch.setattr(retention, "RETENTION", 10)
    monkeypatch.setattr(maintenance, "SECONDS", 15)
    monkeypatch.setattr(flapping, "TIMES", 2)
    monkeypatch.setattr(flapping, "PERIOD", 10.0)
    monkeypatch.setattr(killed, "AT_LEAST", 1)


@pytest.mark.usefixtures("few")
@pytest.mark.long
def test_mail_waits_for_too_long(home: World, tmp_path: Path) -> None:
    """It is held, told and released by the agent; without the agent none of it expires."""
    report = run(timed(home, retention.Retention, 20), tmp_path)
    assert_kept(report, 40)
    assert marks(report) == [
        *("primary off", "held", "primary back", "drained"),
        *("agent dead", "primary off", "renewed", "primary back", "drained"),
    ]


@pytest.mark.long
def test_without_the_guard_mail_would_expire(home: World, tmp_path: Path) -> None:
    """The drill can fail: with agent and guard dead Postfix's limit ends the messages."""

    class Unguarded(retention.Retention):
        @contextlib.contextmanager
        def guard(self) -> Iterator[None]:
            self.relay.machine.run(["systemctl", "stop", GUARD])
            yield
            self.relay.machine.run(["systemctl", "start", GUARD])

    drill = timed(home, Unguarded, 20)
    report = run(drill, tmp_path)
    assert report["verdict"] == "fail"
    assert any("messages expired" in reason for reason in report["reasons"])
    swept(drill)


@pytest.mark.long
@pytest.mark.usefixtures("few")
def test_maintenance_keeps_mail_and_ends(home: World, tmp_path: Path) -> None:
    """Nothing is handed over before its end, and everything after it, agent or none."""
    report = run(timed(home, maintenance.Maintenance, 20), tmp_path)
    assert_kept(report, 40)
    assert marks(report) == ["maintenance", "drained", "agent dead", "maintenance", "drained"]


@pytest.mark.long
@pytest.mark.usefixtures("few")
def test_mail_that_passes_in_the_maintenance_fails_the_drill(home: World, tmp_path: Path) -> None:
    """The drill can fail: somebody ends it early."""

    class Impatient(maintenance.Maintenance):
        def submit(self, name: str, count: int = 0, host: str = "127.0.0.1") -> list[Any]:
            self.relay.machine.run([PROGRAM, "maintenance", "off"])
            return super().submit(name, count, host)

    report = run(timed(home, Impatient, 20), tmp_path)
    assert (report["verdict"], report["lost"]) == ("fail", 0)
    assert "mail was handed over in the maintenance with the agent" in report["reasons"]


@pytest.mark.long
def test_a_relay_stands_by(home: World, tmp_path: Path) -> None:
    """Put off while the primary is up, taken while it is down, taken with the agent dead."""
    report = run(timed(home, standby.Standby, 20), tmp_path)
    assert_kept(report, 20 + standby.FEW)
    assert marks(report) == [
        *("put off", "primary off", "taken", "primary back", "drained", "put off", "agent dead"),
    ]


def test_a_relay_that_does_not_stand_by_fails_the_drill(
    home: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The drill can fail: a relay that was not told to stand by takes mail."""
    monkeypatch.setattr(standby, "OPTIONS", "[intake]\nstandby = false\n")
    monkeypatch.setattr(standby, "PATIENCE", 3.0)
    report = run(timed(home, standby.Standby, 20), tmp_path)
    assert report["verdict"] == "fail"
    assert any("to put mail off: the primary is up, in vain" in each for each in report["reasons"])


@pytest.mark.long
@pytest.mark.usefixtures("few")
def test_a_primary_comes_and_goes(home: World, tmp_path: Path) -> None:
    """Nothing is lost, and the agent flushes once or twice for each return."""
    report = run(timed(home, flapping.Flapping, 40), tmp_path)
    assert_kept(report, 40)
    assert 1 <= report["figures"]["flushes"] <= 2 * flapping.TIMES


@pytest.mark.long
@pytest.mark.usefixtures("few")
def test_a_storm_of_flushes_fails_the_drill(home: World, tmp_path: Path) -> None:
    """The drill can fail: an agent that flushes all the time is seen to."""

    class Stormy(flapping.Flapping):
        @property
        def flushes(self) -> int:
            return super().flushes + (100 if self.figures else 0)

        def settle(self) -> None:
            super().settle()
            self.figures["settled"] = 1

    report = run(timed(home, Stormy, 20), tmp_path)
    assert report["verdict"] == "fail"
    assert any("flushes for 2 returns" in reason for reason in report["reasons"])


@pytest.mark.usefixtures("few")
def test_the_ledger_adds_up_whenever_the_agent_dies(home: World, tmp_path: Path) -> None:
    """Killed in the intake and in the drain, it goes on where it was."""
    report = run(timed(home, killed.AgentKilled, 150), tmp_path)
    assert_kept(report, 150)
    assert report["figures"]["delivered, as the ledger says"] >= 150
    assert marks(report).count("kill") >= 2


LEDGER = "/srv/backup-mx/agent/ledger.sqlite"
FORGET = """
import sqlite3, sys
with sqlite3.connect(sys.argv[1], timeout=30) as ledger:
    (row,) = ledger.execute("SELECT min(id) FROM message WHERE fate = 1").fetchone()
    for table, column in (("alias", "message"), ("recipient", "message"), ("message", "id")):
        ledger.execute(f"DELETE FROM {table} WHERE {column} = ?", (row,))
"""


@pytest.mark.long
@pytest.mark.usefixtures("few")
def test_a_ledger_that_forgets_a_message_fails_the_drill(
    home: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The drill can fail: between two kills a row goes that no log line took away."""

    class Forgetful(killed.AgentKilled):
        def compare(self) -> list[str]:
            self.relay.machine.run(["python3", "-c", FORGET, LEDGER])
            monkeypatch.setattr(agent, "START_SECONDS", 20.0)
            return super().compare()

    drill = timed(home, Forgetful, 60)
    report = run(drill, tmp_path)
    assert report["verdict"] == "fail"
    assert any("the ledger to add up with the relay full" in each for each in report["reasons"])
    swept(drill)
    drill.relay.machine.run(["systemctl", "stop", agent.UNIT])
    for suffix in ("", "-wal", "-shm"):
        drill.relay.machine.path(LEDGER + suffix).unlink(missing_ok=True)
    drill.relay.machine.run(["systemctl", "start", agent.UNIT])


@pytest.mark.long
def test_everything_is_delivered_with_the_agent_dead(home: World, tmp_path: Path) -> None:
    """Postfix alone hands everything over, minutes later."""
    report = run(timed(home, Outage, 60, agent_dead=True), tmp_path)
    assert_kept(report, 60)
    assert marks(report)[0] == "agent dead"
