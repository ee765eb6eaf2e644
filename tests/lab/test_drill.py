"""The lab and its drill by the command line, as the README shows them."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from worlds import fresh_name

from backup_mx.lab import sweep
from backup_mx.lab.drills.outage import Outage
from backup_mx.lab.host import wait_for
from backup_mx.lab.stations import RelayQueue
from backup_mx.lab.timeline import Timeline
from backup_mx.lab.world import attach, claimed

pytestmark = pytest.mark.lab

MESSAGES = 60
SOON = 60.0  # seconds: by itself, without the agent, Postfix needs two minutes and more


@dataclass(frozen=True)
class Lab:
    """A lab, and the command line that speaks of it."""

    name: str

    def run(self, *arguments: str, code: int | None = 0) -> subprocess.CompletedProcess[str]:
        """Run backup-mx to its end, which has to be ``code``, if any."""
        program = [sys.executable, "-c", "from backup_mx.cli import main; main()", *arguments]
        done = subprocess.run(program, capture_output=True, text=True, timeout=400, check=False)
        assert code in (None, done.returncode), done.stdout + done.stderr
        return done


@pytest.fixture(scope="module")
def lab() -> Iterator[Lab]:
    """A lab brought up as an operator does."""
    made = Lab(fresh_name())
    try:
        made.run("lab", "up", "--name", made.name)
        yield made
    finally:
        made.run("lab", "down", "--name", made.name)
        assert not sweep.leftovers(made.name)


@pytest.fixture(scope="module")
def report(lab: Lab, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """The report of one outage."""
    folder = tmp_path_factory.mktemp("report")
    done = lab.run(
        *("lab", "drill", "outage", "--name", lab.name, "--messages", str(MESSAGES)),
        *("--json", "--report", str(folder)),
        code=None,
    )
    printed: dict[str, Any] = json.loads(done.stdout)
    assert done.returncode == {"pass": 0, "fail": 1}[printed["verdict"]]
    assert json.loads((folder / "report.json").read_text()) == printed
    assert "<script" not in (folder / "report.html").read_text()
    return printed


def test_nothing_is_lost_in_an_outage(report: dict[str, Any]) -> None:
    """Every message sent while the primary is dead is delivered once it is back, unchanged."""
    counts = {name: report[name] for name in ("sent", "accepted", "delivered", "lost", "altered")}
    wanted = {"sent": MESSAGES, "accepted": MESSAGES, "delivered": MESSAGES}
    assert counts == wanted | {"lost": 0, "altered": 0}
    # The drill judges by seconds, too: they are for an operator's machine, not for a busy one.
    wrong = [each for each in report["reasons"] if not each.startswith("the first delivery came ")]
    assert (report["drill"], wrong, report["dsn"]) == ("outage", [], 0)
    assert report["duplicated"] <= len(report["problems"].get("excused", []))


def test_the_mail_really_waited_on_the_relay(report: dict[str, Any]) -> None:
    """The curve shows the relay full and the mailboxes empty, then the other way round."""
    samples = report["samples"]
    assert max(sample["queue"] for sample in samples) >= MESSAGES
    assert samples[-1]["queue"] == 0
    marks = [event["mark"] for event in report["timeline"] if event["mark"]]
    assert marks == ["primary off", "power cut", "relay back", "primary back", "drained"]


def test_the_mail_goes_by_itself_within_seconds(report: dict[str, Any]) -> None:
    """Nobody flushes: soon after the primary's first good answer the agent has mail on its way."""
    assert report["figures"]["first_delivery_s"] <= SOON


def test_queue_tells_why_and_drain_tries(lab: Lab) -> None:
    """While the primary is off, queue names the reason and drain tries; then all goes by itself."""
    primary, internet = (attach(lab.name).machine(name) for name in ("primary", "internet"))
    primary.kill()
    letter = b"From: a@example.net\nTo: alice@example.org\nSubject: hello\n\nhello\n"
    internet.run(["sendmail", "-f", "a@example.net", "alice@example.org"], stdin=letter)
    message = wait_for_one(lab)
    assert message["sender"] == "a@example.net"
    assert message["recipients"][0]["address"] == "alice@example.org"
    assert "1 waiting" in lab.run("queue", "--lab", lab.name).stdout
    assert "1 message is tried now" in lab.run("drain", "--lab", lab.name).stdout
    primary.boot()
    primary.ready()
    wait_until_empty(lab)


def wait_for_one(lab: Lab) -> dict[str, Any]:
    """Return the one message that waits on the relay with a reason, once it does."""
    found: list[dict[str, Any]] = []

    def waiting() -> bool:
        found[:] = json.loads(lab.run("queue", "--lab", lab.name, "--json").stdout)["messages"]
        told = [each["reason"] for message in found for each in message["recipients"]]
        return any("198.51.100.10" in reason for reason in told)

    wait_for("a message to wait on the relay", waiting, timeout=60)
    return found[0]


def wait_until_empty(lab: Lab) -> None:
    """Return once nothing waits on the relay's disk."""
    relay = RelayQueue(attach(lab.name).machine("mx2"))
    wait_for("the relay's queue to empty", lambda: relay.waiting == 0, timeout=60)


def test_a_loss_fails_the_drill(lab: Lab) -> None:
    """Messages that vanish from the relay's disk are missed, by name."""

    class Lossy(Outage):
        def restore_the_primary(self) -> None:
            queue = self.relay.machine.root / "srv/backup-mx/spool/deferred"
            # All but one: a message may be there twice, for the power cut.
            for victim in [path for path in queue.rglob("*") if path.is_file()][1:]:
                victim.unlink()
            super().restore_the_primary()

    result = Lossy(attach(lab.name), Timeline(time.monotonic), 20).run()
    assert result["verdict"] == "fail"
    assert result["lost"] == 20 - result["delivered"] > 0
    assert len(result["problems"]["missing"]) >= result["lost"]


@pytest.mark.long
def test_a_drain_that_does_not_come_about_fails_the_drill(lab: Lab) -> None:
    """A relay that cannot reach the primary any more gets a verdict and a count, not an error."""
    machine = attach(lab.name).machine("mx2")
    wall = ["-p", "tcp", "--dport", "2526", "-j", "DROP"]

    class Walled(Outage):
        def restore_the_primary(self) -> None:
            if not self.primary.running:
                machine.run(["iptables", "-I", "OUTPUT", *wall])
            super().restore_the_primary()

        def drain(self, timeout: float = 5.0, *, by_the_operator: bool = False) -> None:
            super().drain(timeout, by_the_operator=by_the_operator)

    result = Walled(attach(lab.name), Timeline(time.monotonic), 20).run()
    assert (result["verdict"], result["delivered"]) == ("fail", 0)
    assert result["lost"] == result["accepted"] > 0
    assert "waited 5 s for the primary to greet the relay, in vain" in result["reasons"]
    assert attach(lab.name).machine("primary").running
    machine.run(["iptables", "-D", "OUTPUT", *wall])
    lab.run("drain", "--lab", lab.name)
    wait_until_empty(lab)


def test_one_drill_at_a_time(lab: Lab, tmp_path: Path) -> None:
    """While somebody drills, neither another drill nor down gets into its way."""
    with claimed(lab.name):
        for verb in (["drill", "outage", "--report", str(tmp_path)], ["down"]):
            assert "is at work on lab" in lab.run("lab", *verb, "--name", lab.name, code=1).stderr


def test_a_report_that_cannot_be_written_is_known_first(lab: Lab, tmp_path: Path) -> None:
    """The place of the report is tried before the drill, not after it."""
    (tmp_path / "file").touch()
    where = str(tmp_path / "file" / "report")
    said = lab.run("lab", "drill", "outage", "--name", lab.name, "--report", where, code=1).stderr
    assert said == f"backup-mx: cannot write the report to {where}: Not a directory\n"


def test_a_lab_that_runs_is_left_alone(lab: Lab) -> None:
    """A second up refuses and says what to do; --if-needed is content."""
    said = lab.run("lab", "up", "--name", lab.name, code=1).stderr
    assert f"backup-mx lab down --name {lab.name}" in said
    lab.run("lab", "up", "--name", lab.name, "--if-needed")


def test_run_ends_as_the_command_does(lab: Lab) -> None:
    """lab run hands the command's output and exit code on."""
    done = lab.run("lab", "run", "--name", lab.name, "mx2", "--", "sh", "-c", "hostname; exit 7",
                   code=7)  # fmt: skip
    assert done.stdout == "mx2\n"


def test_logs(lab: Lab) -> None:
    """The journal and Postfix's own log can be read."""
    assert "cloud-init" in lab.run("lab", "logs", "--name", lab.name, "mx2").stdout
    assert "daemon started" in lab.run("lab", "logs", "--name", lab.name, "mx2", "--mail").stdout


def test_a_machine_that_is_not_there(lab: Lab) -> None:
    """A misspelt machine is named with those there are."""
    said = lab.run("lab", "run", "--name", lab.name, "primry", "--", "true", code=1).stderr
    assert 'did you mean "primary"?' in said


def test_a_lab_that_is_not_there(lab: Lab, tmp_path: Path) -> None:
    """Verbs about a lab that is not up say how to start it."""
    for verb in (["status"], ["drill", "outage", "--report", str(tmp_path)]):
        said = lab.run("lab", *verb, "--name", "nolab", code=1).stderr
        assert "backup-mx lab up --name nolab" in said
    assert not list(tmp_path.iterdir())
