"""The drills in which the relay's machine dies with mail on it."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from backup_mx.errors import LabError, MachineError
from backup_mx.lab.drills.migrate import Migrate
from backup_mx.lab.drills.rebuild import LATE, RebuildDrill
from backup_mx.lab.machine import Machine
from backup_mx.lab.rebuilding import LabRelay
from backup_mx.lab.timeline import Timeline
from backup_mx.lab.world import World, standard
from backup_mx.machine.look import Look, look
from backup_mx.machine.rebuild import Rebuild

pytestmark = pytest.mark.lab

MakeWorld = Callable[[World], World]


def drilled(kind: type[RebuildDrill], world: World, messages: int) -> dict[str, Any]:
    """Run a drill in a lab that is up."""
    return kind(world, Timeline(time.monotonic), messages).run()


def backup_mx(*arguments: str, folder: Path) -> subprocess.CompletedProcess[str]:
    program = [sys.executable, "-c", "from backup_mx.cli import main; main()", *arguments]
    return subprocess.run(
        program, capture_output=True, text=True, timeout=400, check=False, cwd=folder
    )


@dataclass
class Refusing:
    """A provider that replaces nothing; before that the machine is started again."""

    machine: Machine
    before: list[Look] = field(default_factory=list)

    words = "nothing"

    def replace(self) -> None:
        """See that neither a boot nor an upgrade starts Postfix."""
        self.machine.kill()
        self.machine.boot()
        self.machine.listening(22)
        self.machine.run(["systemctl", "is-system-running", "--wait"], check=False, timeout=120)
        for starting in (["postfix", "status"], ["systemctl", "restart", "postfix"]):
            assert self.machine.run(starting, check=False).returncode != 0
        assert self.machine.run(["postfix", "status"], check=False).returncode != 0
        assert look(LabRelay(self.machine), 0).still(self.before[0])
        raise MachineError("the provider refuses")


def refused_by_the_provider(world: World) -> None:
    """See that the old machine takes mail again."""
    machine = world.machine("mx2")
    refusing = Refusing(machine)
    said: list[str] = []
    job = Rebuild(world.made_from, "mx2", LabRelay(machine), said.append)
    with pytest.raises(MachineError, match="the provider refuses"):
        job.replace(job.planned(refusing), refusing, refusing.before.append)
    assert said[-1] == "the old machine takes mail again"
    machine.listening(25)


@pytest.mark.long
def test_a_machine_that_dies_takes_no_mail_with_it(make_world: MakeWorld, tmp_path: Path) -> None:
    """The volume is kept, the root disk is gone, and every message arrives once.

    The relay can be made anew again, by the command line, with nothing on it, and when it is off;
    where that does not come about, it takes mail as before.
    """
    world = make_world(standard(tunnel=True, agent=True, volume=True))
    world.up(print)
    result = drilled(RebuildDrill, world, 200)
    assert (result["verdict"], result["reasons"]) == ("pass", [])
    assert (result["sent"], result["delivered"]) == (200 + LATE, 200 + LATE)
    refused_by_the_provider(world)
    done = backup_mx("rebuild", "--lab", world.name, "--yes", "--json", folder=tmp_path)
    assert done.returncode == 0, done.stderr
    said = json.loads(done.stdout)
    assert said["plan"]["messages"] == 0
    assert {each["gate"]: each["verdict"] for each in said["findings"]} == dict.fromkeys(
        (
            *("machine", "version", "volume", "queue", "ledger", "certificate", "ssh keys"),
            *("tunnel", "canary"),
        ),
        "pass",
    )
    assert not list(tmp_path.rglob("before.json"))
    world.machine("mx2").kill()
    off = ("rebuild", "--lab", world.name, "--yes", "--relay-is-gone")
    done = backup_mx(*off, folder=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "it cannot be asked: mx2 is off" in done.stderr
    assert "what was there before, nobody could ask" in done.stdout


@pytest.mark.long
def test_mail_moves_to_another_relay(make_world: MakeWorld, tmp_path: Path) -> None:
    """Without a volume the verb refuses, with words that help, until the mail is exported."""
    world = make_world(standard(agent=True))
    world.up(print)
    with pytest.raises(LabError, match="this lab's relay has no volume"):
        drilled(RebuildDrill, world, 20)
    result = drilled(Migrate, world, 40)
    assert (result["verdict"], result["reasons"]) == ("pass", [])
    assert (result["sent"], result["delivered"]) == (40, 40)
    world.machine("primary").kill()
    world.machine("internet").run(
        ["sendmail", "-f", "a@example.net", "alice@example.org"], stdin=b"Subject: x\n\nx\n"
    )
    drill_relay = RebuildDrill(world, Timeline(time.monotonic), 1)
    drill_relay.fill_the_relay(1)
    refused = backup_mx("rebuild", "--lab", world.name, "--yes", folder=tmp_path)
    assert refused.returncode == 1
    assert "backup-mx rebuild mx2 --exported mx2-mail" in refused.stderr
    assert drill_relay.relay.waiting == 1
