"""The gate failover in a real world: a primary switched off and on, a relay unpublished or not."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TypeVar

import pytest
from operators import Operator, Ran
from worlds import fresh_name, standing

import backup_mx
from backup_mx.lab import operator
from backup_mx.lab.world import World, standard
from backup_mx.lab.zone import Zone

pytestmark = pytest.mark.lab

OPTIONS = '[queue]\ncanary_idle = "2s"\ncanary_waiting = "2s"\n'
LIBRARY = Path(backup_mx.__file__).parents[1]
Result = TypeVar("Result")
Hear = Callable[[str], None]
CHECKS = "/etc/postfix/lost.regexp"
# The gate as it is, but for how long it waits.
HURRIED = """
import json, sys
from dataclasses import asdict
from pathlib import Path
from backup_mx import config
from backup_mx.cli.gate import site_of
from backup_mx.gates import failover

site = site_of(config.load(Path("backup-mx.toml")), "mx2")
patience = failover.Patience(operator=200, senders=100, drain=20, pace=1)
print(json.dumps([asdict(each) for each in failover.judge(site, patience)]))
"""


@pytest.fixture(scope="module")
def world() -> Iterator[World]:
    """A lab whose relay no MX record names."""
    made = standard(fresh_name(), agent=True, published=False, options=OPTIONS)
    with standing(made):
        yield made


def gone_through(world: World, gate: Callable[[Hear], Result]) -> Result:
    """Run the gate; the primary loses its power before, and has it again when the gate asks."""
    primary = world.machine("primary")

    def hear(line: str) -> None:
        if f"Switch {primary.role.hostname} on again now" in line:
            primary.boot()

    primary.kill()
    try:
        return gate(hear)
    finally:
        if not primary.running:
            primary.boot()


@pytest.mark.long
def test_an_outage_is_gone_through_before_anything_is_published(world: World) -> None:
    """By the verb alone; what it found is evidence, and counts for the MX record.

    What is delivered says that the primary's rspamd judged it as mail that a relay handed over.
    """

    def run(hear: Hear) -> Ran:
        return Operator(world).run("gate", "run", "failover", "--json", code=None, hear=hear)

    ran = gone_through(world, run)
    said = ran.json["mx2"]
    parts = {each["gate"]: each["verdict"] for each in said["ran"]["failover"]}
    assert parts == {
        "kept": "pass", "drained": "pass", "arrived": "pass", "filtered": "pass",
    }, said["ran"]["failover"]  # fmt: skip
    assert "null sender, SMTPUTF8" in json.dumps(said["ran"]["failover"])
    assert said["gates"]["failover"]["verdict"] == "pass"
    assert "from this machine" in json.dumps(said)
    assert "Switch mail.example.org off now" in ran.err
    assert not list((Operator(world).folder / "build").glob("failover*"))


@pytest.fixture
def published(world: World) -> Iterator[World]:
    """The same, while its zone names the relay after the primary."""
    zone = Zone(world)
    zone.set("mx2", "A", "203.0.113.20")
    zone.set("@", "MX", "10 mail.example.org.", "20 mx2.example.org.")
    yield world
    zone.set("@", "MX", "10 mail.example.org.")
    zone.set("mx2", "A")


@pytest.mark.long
def test_an_outage_is_gone_through_once_the_relay_is_published(published: World) -> None:
    """The account elsewhere takes all four; its server tries the primary, and turns to the relay.

    Large ones and 8-bit ones come home as they were submitted.
    """

    def run(hear: Hear) -> Ran:
        return Operator(published).run("gate", "run", "failover", "--json", code=None, hear=hear)

    ran = gone_through(published, run)
    said = ran.json["mx2"]
    found = {each["gate"]: each for each in said["ran"]["failover"]}
    assert {name: each["verdict"] for name, each in found.items()} == {
        "kept": "pass", "drained": "pass", "arrived": "pass", "filtered": "pass",
    }, found  # fmt: skip
    assert found["kept"]["saw"] == (
        "4 messages came by its MX record: plain, 8-bit, attachment, large"
    )
    assert "by the relay mx2" in found["arrived"]["saw"]
    assert "sending: large, through mta.example.net" in ran.err
    assert said["gates"]["failover"]["verdict"] == "pass"
    log = published.machine("internet").path("/var/log/mail.log").read_text().splitlines()
    went = [each for each in log if "to=<prober@example.org>" in each and "status=sent" in each]
    assert ["relay=mx2.example.org[203.0.113.20]:25" in each for each in went] == [True] * 4, went
    assert any("mail.example.org[" in each and "/smtp[" in each for each in log), "tried first"


@pytest.mark.long
def test_a_message_that_gets_lost_on_the_way_fails_the_gate(world: World) -> None:
    """The primary says 250 to one of them and throws it away."""
    checks: Path = world.machine("primary").path(CHECKS)
    checks.write_text(r"/^X-Backup-MX-Failover: .*\.attachment$/ DISCARD" + "\n")
    main_cf = world.machine("primary").path("/etc/postfix/main.cf")
    kept = main_cf.read_text()
    main_cf.write_text(f"{kept}\nheader_checks = regexp:{CHECKS}\n")

    def run(hear: Hear) -> list[dict[str, str]]:
        argv = ["env", f"PYTHONPATH={LIBRARY}", sys.executable, "-c", HURRIED]
        done = operator.Operator(world.name).run(argv, hear=hear)
        assert done.returncode == 0, done.stderr.decode()
        return list(json.loads(done.text))

    try:
        findings = gone_through(world, run)
    finally:
        main_cf.write_text(kept)
    parts = {each["gate"]: each["verdict"] for each in findings}
    assert parts == {
        "kept": "pass", "drained": "pass", "arrived": "fail", "filtered": "pass",
    }, findings  # fmt: skip
    assert findings[2]["saw"] == "not in the mailbox: attachment"
