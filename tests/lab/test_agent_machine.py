"""The agent's place on the relay: its sandbox, its ways in and out; and Postfix without it."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from dropins import altered
from primaries import Primary
from relays import ADDRESS, CONFIG, MAILLOG, RELEASES, SPOOL, Relay, booted, wait_for

from backup_mx import config
from backup_mx.errors import MachineError
from backup_mx.lab import network
from backup_mx.lab.settings import with_options
from backup_mx.lab.stations import LabHost
from backup_mx.machine import ship
from backup_mx.machine.apply.files import File
from backup_mx.machine.bundle import pack
from backup_mx.machine.tree import Tree, tree
from backup_mx.relay.root import maintenance

pytestmark = pytest.mark.lab

OPTIONS = """
[intake]
standby = true
[access]
metrics_from = ["192.0.2.25/32"]
"""
ALICE = b"alice@example.org"
AGENT = "backup-mx-agent.service"
SILENT = 3.0  # seconds for which Postfix waits for one that listens and says nothing (main.cf)
FED = "WatchdogTimestampMonotonic"
LIBRARY = "/usr/local/lib/backup-mx"
EXPOSURE = re.compile(r"Overall exposure level for \S+: ([0-9.]+) ")
# The policy server's side of what the tests ask; with nothing to say it listens and is silent.
POLICY = """
import socket, sys
listener = socket.create_server(("127.0.0.1", 9726))
while True:
    wire, _ = listener.accept()
    stream = wire.makefile("rwb")
    while sys.argv[1:] and (line := stream.readline()):
        if line == b"\\n":
            stream.write(f"action={sys.argv[1]}\\n\\n".encode())
            stream.flush()
    kept = wire
"""


@pytest.fixture(scope="module", params=RELEASES)
def relay(request: pytest.FixtureRequest) -> Iterator[Relay]:
    """A relay with its agent, booted from user-data and deployed to."""
    with booted(request.param, agent=True, options=OPTIONS) as made:
        yield made


@pytest.fixture(autouse=True)
def running(relay: Relay) -> Iterator[None]:
    """Begin each test with an agent that runs, and an empty queue; end it with an empty queue."""
    relay.shell("systemctl", "start", AGENT)
    relay.empty()
    yield
    relay.empty()


@pytest.fixture
def without_agent(relay: Relay) -> None:
    """Stop the agent."""
    relay.shell("systemctl", "stop", AGENT)


def made_from() -> Tree:
    """Return the relay's tree."""
    text = with_options(CONFIG.read_text(), OPTIONS)
    return tree(config.parse(text, "the test's config"), "mx2")


def deploy(relay: Relay, wanted: Tree) -> list[str]:
    """Make the relay ``wanted``; return what was told."""
    said: list[str] = []
    ship.deploy(LabHost(relay.machine), pack("mx2", wanted), said.append)
    return said


def with_code(module: str, text: str) -> Tree:
    """Return the relay's tree with another content of a module."""
    path = Path(LIBRARY) / "backup_mx" / module
    wanted = made_from()
    assert path in [file.path for file in wanted.files]
    kept = [file for file in wanted.files if file.path != path]
    return replace(wanted, files=[*kept, File(path, content=text.encode())])


def shown(relay: Relay, name: str, unit: str = AGENT) -> str:
    """Return a property of a unit."""
    return relay.shell("systemctl", "show", "-P", name, unit).strip()


def accepted(relay: Relay) -> str:
    """Have a message accepted; return its ID."""
    return relay.submit(ALICE, b"Subject: x\r\n")


def answer(relay: Relay) -> str:
    """Return what a stranger hears after RCPT."""
    with relay.client() as client:
        return str(client.greeted().envelope(b"a@example.net", ALICE)[1])


def waited(relay: Relay) -> float:
    """Return how many seconds a stranger waits until he is let in."""
    began = time.monotonic()
    assert answer(relay) == "250 2.1.5 Ok"
    return time.monotonic() - began


def logged(relay: Relay, queue_id: str) -> bool:
    """Tell whether a message stands in the log."""
    return queue_id in relay.log()


def another(relay: Relay, pid: str) -> bool:
    """Tell whether another agent than that process runs."""
    return shown(relay, "ActiveState") == "active" and shown(relay, "MainPID") not in ("0", pid)


def test_no_unit_fails(relay: Relay) -> None:
    """All that the agent's layer starts is up."""
    assert relay.shell("systemctl", "--failed", "--no-legend") == ""
    assert shown(relay, "ActiveState") == "active"
    assert shown(relay, "ActiveState", "backup-mx-guard.timer") == "active"


@pytest.mark.parametrize(
    ("unit", "exposure"),
    [(AGENT, 2.0), ("backup-mx-helper.service", 3.5), ("backup-mx-guard.service", 3.5)],
)
def test_the_sandbox_is_tight(relay: Relay, unit: str, exposure: float) -> None:
    """Systemd itself judges what each could do, of 10; what root does has to be able to do more."""
    said = EXPOSURE.search(relay.shell("systemd-analyze", "security", "--no-pager", unit))
    assert said
    assert float(said[1]) <= exposure


def test_from_its_sandbox_the_agent_sees_what_it_needs(relay: Relay) -> None:
    """The log, the spool by its helper, the disk, the version: what the verbs tell is from it."""
    queue_id = accepted(relay)
    wait_for("the agent to read the log", lambda: queue_id in relay.shell("backup-mx", "queue"))
    applied = json.loads(relay.shell("cat", "/var/lib/backup-mx/applied.json"))
    wait_for("the version", lambda: status(relay)["version"] == applied["version"])
    wait_for("the disk to be looked at", lambda: status(relay)["disk"]["total"] > 0)
    wait_for("the spool to be listed", lambda: bool(status(relay)["reconciled"]))


def status(relay: Relay) -> dict[str, Any]:
    """Return what the agent said last."""
    found: dict[str, Any] = json.loads(relay.shell("backup-mx", "status", "--json"))["snapshot"]
    return found


def test_the_helper_does_its_work_in_its_sandbox(relay: Relay) -> None:
    """Hold, release, requeue and delete: as the operator asks for them."""
    relay.kept(ALICE)
    for verb, queue in (("hold", "hold"), ("release", "deferred"), ("requeue", "deferred")):
        asked = ["backup-mx", verb, relay.queued().id]
        wait_for(f"{verb} to be done", partial(succeeds, relay, asked))
        wait_for(f"it to be {queue}", partial(lies_in, relay, queue), 60)
    relay.shell("backup-mx", "delete", "--yes", relay.queued().id)
    assert relay.queue() == []


def succeeds(relay: Relay, argv: list[str]) -> bool:
    """Run a command that may fail; tell whether it did not. What is being delivered is in use."""
    return relay.machine.run(argv, check=False).returncode == 0


def lies_in(relay: Relay, queue: str) -> bool:
    """Tell whether the one message there is lies in that queue."""
    return relay.queued().queue == queue


def test_only_root_and_the_agent_reach_the_helper(relay: Relay) -> None:
    """Its socket is closed to everybody else on the machine."""
    ask = "import socket; socket.socket(socket.AF_UNIX).connect('/run/backup-mx/helper.sock')"
    for user, code in (("nobody", 1), ("postfix", 1), ("backup-mx", 0)):
        argv = ["runuser", "-u", user, "--", "python3", "-c", ask]
        assert relay.machine.run(argv, check=False).returncode == code, user


def test_the_settings_are_for_the_agent_alone(relay: Relay) -> None:
    """The file, which may hold secrets, is root's; systemd hands the agent a copy."""
    for user in ("nobody", "backup-mx"):
        argv = ["runuser", "-u", user, "--", "cat", "/etc/backup-mx/agent.json"]
        assert relay.machine.run(argv, check=False).returncode == 1


@pytest.mark.usefixtures("without_agent")
def test_the_log_stays_readable_when_it_is_rotated(relay: Relay) -> None:
    """The next day's log is Postfix's and the agent's, as the one before."""
    for rotated in ("", MAILLOG):
        if rotated:
            relay.shell("logrotate", "--force", "/etc/logrotate.d/backup-mx")
        queue_id = accepted(relay)
        wait_for("the log", partial(logged, relay, queue_id))
        assert relay.shell("stat", "-c", "%a %U:%G", MAILLOG) == "640 root:adm\n"
    reads = ["runuser", "-u", "backup-mx", "-G", "adm", "--", "cat", MAILLOG]
    assert relay.machine.run(reads, check=False).returncode == 0


def test_a_killed_agent_is_back(relay: Relay) -> None:
    """However it ends, it is started again, without end."""
    for _ in range(3):
        before = shown(relay, "MainPID")
        relay.shell("systemctl", "kill", "-s", "KILL", AGENT)
        wait_for("the next agent", partial(another, relay, before))


def test_an_agent_that_hangs_is_started_again(relay: Relay) -> None:
    """By systemd, which it tells every second that it turns; that waits for 15 s here, not 120."""
    with altered(relay, AGENT, "WatchdogSec=15"):
        before, started = shown(relay, "MainPID"), shown(relay, FED)
        wait_for("a sign of life", lambda: shown(relay, FED) != started)
        relay.shell("kill", "-STOP", before)
        wait_for("the next agent", partial(another, relay, before), 60)
        assert int(shown(relay, "NRestarts")) >= 1


def test_what_another_machine_owned_is_the_agents(relay: Relay) -> None:
    """On a volume that had another machine, the folder has that one's numbers: it is put right."""
    relay.shell("systemctl", "stop", AGENT)
    relay.shell("chown", "-R", "4242:4242", "/srv/backup-mx/agent")
    relay.shell("systemctl", "restart", "backup-mx-setup.service")
    owners = relay.shell("find", "/srv/backup-mx/agent", "-printf", "%U %u\\n")
    assert {line.split()[1] for line in owners.splitlines()} == {"backup-mx"}
    relay.shell("systemctl", "start", AGENT)


@pytest.mark.usefixtures("without_agent")
def test_without_the_agent_the_gate_is_open(relay: Relay) -> None:
    """Nobody answers for it: mail is taken, and at once."""
    answer(relay)
    assert min(waited(relay) for _ in range(5)) < SILENT


@pytest.mark.parametrize(
    ("action", "said"),
    [
        ("DEFER the first MX is up", "450 4.7.1 "),
        ("DUNNO", "250 2.1.5 Ok"),
        ("", "250 2.1.5 Ok"),
    ],
)
@pytest.mark.usefixtures("without_agent")
def test_the_gate_puts_off_whom_it_says_and_else_nobody(
    relay: Relay, action: str, said: str
) -> None:
    """Its word counts; one that says nothing is waited for, for seconds, and no more."""
    transient = ["systemd-run", "--quiet", "--collect", "--unit=gate", "python3", "-c", POLICY]
    relay.shell(*transient, *([action] if action else []))
    relay.machine.listening(9726)
    try:
        assert answer(relay).startswith(said)
    finally:
        relay.shell("systemctl", "stop", "gate")


@pytest.mark.usefixtures("without_agent")
def test_maintenance_keeps_mail_and_ends_by_itself(relay: Relay, tmp_path: Path) -> None:
    """Mail stays although the primary answers; when its time is over, root's timer lets it go.

    Of a domain, too, that was not there when it began: the timer minds that.
    """
    table = relay.machine.path(str(maintenance.PATH))
    with Primary(relay.world, tmp_path) as primary:
        table.write_text(maintenance.content(["example.com"], int(time.time()) + 3600))
        relay.shell("systemctl", "start", "backup-mx-guard.service")
        for each in (relay.kept(ALICE), relay.kept(b"postmaster")):
            reason = relay.queued(each).recipients[0].reason
            assert re.fullmatch(r"maintenance until 20\S+Z|.*4\.3\.2 maintenance.*", reason), reason
        relay.shell("postqueue", "-f")
        wait_for("both to be listed", lambda: len(relay.queue()) == 2)
        assert primary.messages == []
        table.write_text(maintenance.content(["example.org"], int(time.time()) - 1))
        relay.shell("systemctl", "start", "backup-mx-guard.service")
        wait_for("the mail to arrive", lambda: len(primary.messages) == 2)
    assert maintenance.until(table) == 0


def test_the_firewall_lets_in_whom_the_config_names(relay: Relay) -> None:
    """The metrics' port is open to the networks of [access], the dashboard's to nobody."""
    relay.shell("systemctl", "stop", AGENT)
    units = {port: f"listen{port}" for port in (9725, 8025)}
    for port, unit in units.items():
        listen = ["python3", "-m", "http.server", "--directory", "/run/empty", str(port)]
        relay.shell("systemd-run", "--quiet", "--collect", f"--unit={unit}", *listen)
    relay.machine.listening(*units)
    try:
        assert reaches(relay, 9725)
        assert not reaches(relay, 8025)
        with pytest.raises(OSError):
            network.connect(relay.world.name, ADDRESS, 9725, 2)
    finally:
        relay.shell("systemctl", "stop", *units.values())


def reaches(relay: Relay, port: int) -> bool:
    """Tell whether 192.0.2.25 reaches a port of the relay."""
    program = (
        "import socket, sys; socket.create_connection((sys.argv[1], int(sys.argv[2])), 2,"
        " ('192.0.2.25', 0))"
    )
    argv = ["python3", "-c", program, ADDRESS, str(port)]
    return relay.world.machine("internet").run(argv, check=False).returncode == 0


@pytest.mark.parametrize(
    ("module", "text", "complaint"),
    [
        ("relay/agent.py", "import nothing_of_this_name\n", "agent refuses the new files: "),
        ("relay/agent.py", "if __name__ == '__main__': raise SystemExit('I am broken')\n",
         f"{AGENT} does not start: "),
    ],
)  # fmt: skip
def test_a_broken_agent_is_not_deployed(
    relay: Relay, module: str, text: str, complaint: str
) -> None:
    """One that cannot be imported, or does not start: it is told, and the one before is back."""
    running = shown(relay, "ExecMainStartTimestamp")
    with pytest.raises(MachineError, match=complaint):
        deploy(relay, with_code(module, text))
    assert shown(relay, "ActiveState") == "active"
    assert "does not start" in complaint or shown(relay, "ExecMainStartTimestamp") == running
    assert deploy(relay, made_from())[1:] == ["done: nothing to change"]


def test_a_deploy_restarts_the_agent_when_its_code_is_another(relay: Relay) -> None:
    """New code runs once the deploy is done; Postfix is left alone."""
    agent, postfix = shown(relay, "MainPID"), relay.shell("cat", f"{SPOOL}/pid/master.pid")
    code = relay.machine.path(f"{LIBRARY}/backup_mx/errors.py").read_text()
    said = deploy(relay, with_code("errors.py", f"{code}\n# changed\n"))
    assert f"try-reload-or-restart: {AGENT}" in said
    assert shown(relay, "MainPID") != agent
    assert relay.shell("cat", f"{SPOOL}/pid/master.pid") == postfix
    deploy(relay, made_from())


def test_postfix_is_complete_without_the_agents_layer(relay: Relay) -> None:
    """No code, no user's folder, no table of maintenance: after the boot mail is taken and kept."""
    lost = [LIBRARY, "/srv/backup-mx/agent", str(maintenance.PATH), "/usr/local/bin/backup-mx"]
    relay.shell("rm", "-rf", *lost)
    relay.machine.kill()
    relay.machine.boot()
    relay.machine.listening(25)
    assert accepted(relay)
    assert relay.queued()
    deploy(relay, made_from())
    assert shown(relay, "ActiveState") == "active"
