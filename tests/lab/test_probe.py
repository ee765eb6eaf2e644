"""The probes in a real world: what is well, what is not, and the ways a message can go."""

from __future__ import annotations

import contextlib
import re
import subprocess
import time
import urllib.request
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from operators import Operator
from relays import wait_for
from watchers import PROBE, Hearing, Listener, Watch, hearing, hears
from worlds import altered, fresh_name, standing

from backup_mx.lab import names, network, operator
from backup_mx.lab.machine import Machine
from backup_mx.lab.stations import RelayQueue
from backup_mx.lab.world import World, standard
from backup_mx.lab.zone import Zone

pytestmark = pytest.mark.lab

# A probe walks with a relay's own metrics as well, and its canary must not take a minute. Nor do
# messages a quarter of an hour.
OPTIONS = f"""
[access]
metrics_from = ["192.0.2.0/24"]
[queue]
canary_idle = "5s"
[roundtrip]
every = "5s"
patience = "5s"
[monitoring]
probe_at = "{PROBE}"
"""
DISCARD = "regexp:{{/^X-Backup-MX-Roundtrip:/ DISCARD}}"


@pytest.fixture(scope="module")
def world() -> Iterator[World]:
    """A lab with all that is looked at."""
    with standing(standard(fresh_name(), agent=True, options=OPTIONS)) as made:
        yield made


@pytest.fixture
def run(world: World) -> Callable[..., Any]:
    """What runs `backup-mx probe …` as the operator and returns what it says in JSON."""

    def ran(*words: str) -> object:
        found = Operator(world).run("probe", *words, "--json", code=None)
        assert found.code in (0, 1), found.err
        return found.json

    return ran


def verdicts(readings: list[dict[str, Any]]) -> dict[tuple[str, str], str]:
    return {(each["probe"], each["target"]): each["verdict"] for each in readings}


def test_a_world_that_is_well_is_in_order(run: Callable[..., Any]) -> None:
    """But for the relay's certificate: nobody has signed it yet."""
    readings = run("run")
    assert verdicts(readings) == {
        ("inbound", "mail.example.org"): "pass",
        ("inbound", "mx2.example.org"): "pass",
        ("certificate", "mail.example.org"): "pass",
        ("certificate", "mx2.example.org"): "fail",
        ("mx", "example.org"): "pass",
        ("mta-sts", "example.org"): "pass",
        ("canary", "mx2.example.org"): "pass",
    }, readings
    expiry = {each["target"]: each["certificate_expires"] for each in readings}
    assert expiry["mail.example.org"] > time.time()
    assert expiry["mx2.example.org"] is None, "nobody vouches for what it says of itself"


def test_each_probe_sees_its_own_thing_break(world: World, run: Callable[..., Any]) -> None:
    """Postfix stopped, a record that one name server lacks, an agent that is dead."""
    relay = world.machine("mx2")
    relay.run(["systemctl", "stop", "postfix", "backup-mx-agent"])
    zone = Zone(world)
    try:
        with zone.apart():
            zone.change("@", "MX", "10 mail.example.org.")
            readings = run("run")
    finally:
        zone.set("@", "MX", "10 mail.example.org.", "20 mx2.example.org.")
        relay.run(["systemctl", "start", "postfix", "backup-mx-agent"])
        relay.listening(25, 9725)
    found = verdicts(readings)
    assert found["inbound", "mx2.example.org"] == "fail"
    assert found["inbound", "mail.example.org"] == "pass"
    assert found["mx", "example.org"] == "fail"
    assert found["canary", "mx2.example.org"] == "unknown"
    (drift,) = (each["saw"] for each in readings if each["probe"] == "mx")
    assert "MX 20 mx2.example.org: not at ns1.example.net" in drift


def test_a_message_goes_straight_while_all_is_well(run: Callable[..., Any]) -> None:
    """The first of the three worlds."""
    said = run("roundtrip", "--patience", "60s")
    assert (said["way"], said["verdict"]) == ("direct", "pass"), said


def test_a_message_takes_the_relay_while_the_primary_is_off(
    world: World, run: Callable[..., Any]
) -> None:
    """The second: it waits there, comes when the primary is back, and says how late."""
    primary, queue = world.machine("primary"), RelayQueue(world.machine("mx2"))
    primary.kill()
    with ThreadPoolExecutor() as pool:
        trip = pool.submit(run, "roundtrip", "--patience", "280s")
        try:
            wait_for("the message to be on the relay", lambda: queue.waiting == 1, 90.0)
        finally:
            primary.boot()
        said = trip.result()
    assert (said["way"], said["relay"], said["verdict"]) == ("relay", "mx2", "warn"), said
    assert said["seconds"] >= said["waited_on_relay"] > 0
    assert said["saw"].startswith("by the relay mx2, ")
    assert said["saw"].endswith(" late")


def test_a_message_that_somebody_swallows_is_lost(world: World, run: Callable[..., Any]) -> None:
    """The third: the primary says 250 and throws it away."""
    with altered(world.machine("primary"), header_checks=DISCARD):
        said = run("roundtrip", "--patience", "8s")
    assert (said["way"], said["verdict"]) == ("lost", "fail"), said


@contextlib.contextmanager
def stopped(machine: Machine, unit: str) -> Iterator[None]:
    """Stop a unit while the block runs."""
    machine.run(["systemctl", "stop", unit])
    try:
        yield
    finally:
        machine.run(["systemctl", "start", unit])


def test_a_message_that_a_relay_keeps_is_missing(world: World, run: Callable[..., Any]) -> None:
    """The primary's mailboxes can be read, and its Postfix is stopped."""
    with stopped(world.machine("primary"), "postfix"):
        said = run("roundtrip", "--patience", "25s")
    assert (said["way"], said["relay"], said["verdict"]) == ("missing", "mx2", "warn"), said
    assert "the relay mx2 keeps it: " in said["saw"]


@contextlib.contextmanager
def looking(world: World) -> Iterator[None]:
    """Have the probes look again and again, for Prometheus."""
    argv = operator.Operator(world.name).command(["backup-mx", "probe", "serve"])
    with subprocess.Popen(argv, stdout=subprocess.PIPE, text=True) as serving:
        try:
            assert serving.stdout
            assert serving.stdout.readline() == f"http://{PROBE}/metrics\n"
            wait_for("a round trip", lambda: ways(world) == {"direct"}, 90)
            yield
        finally:
            serving.terminate()
    assert serving.returncode == 0


def test_prometheus_can_ask_for_all_of_it(world: World) -> None:
    """The exporter looks by itself; what it saw is there to be scraped."""
    with looking(world):
        text = scraped(world)
    assert 'probe_ok{probe="inbound",target="mx2.example.org",relay="mx2"} 1.0' in text
    assert 'probe_ok{probe="mx",target="example.org",relay=""} 1.0' in text


def scraped(world: World) -> str:
    """Ask the exporter from where it runs."""
    with network.inside(names.scoped(world.name, "net")):
        url = f"http://{PROBE}/metrics"
        with urllib.request.urlopen(url, timeout=10) as answer:
            return str(answer.read().decode())


def ways(world: World) -> set[str]:
    """Return which way the last message took, as the exporter has it."""
    return set(re.findall(r'roundtrip_way\{way="(\w+)"\} 1', scraped(world)))


@pytest.fixture
def heard(request: pytest.FixtureRequest, world: World) -> Iterator[Hearing]:
    """What waits until Alertmanager tells of alarms, in a hurry."""
    Watch.of(world).start()
    with Listener(world) as listener, hearing(request.function, listener) as made:
        yield made


@pytest.mark.long
@hears("RoundtripLate", "RoundtripLost")
def test_prometheus_hears_what_is_late_and_what_is_lost(world: World, heard: Hearing) -> None:
    """Mail that waits on the relay, however long, is late; mail that somebody swallows is lost."""
    primary = world.machine("primary")
    with looking(world):
        with stopped(primary, "postfix"):
            heard("RoundtripLate")
            wait_for("a message to be overdue", lambda: "lost_messages 0" not in scraped(world), 90)
            counted = 'roundtrips_total{way="missing"} '
            before = scraped(world).partition(counted)[2][:2]
            wait_for("one more", lambda: scraped(world).partition(counted)[2][:2] != before, 60)
            assert not heard.told("RoundtripLost"), "it waits on the relay"
        wait_for("all to be there", lambda: "lost_messages 0" in scraped(world), 90)
        heard("RoundtripLate", status="resolved")
        with altered(primary, header_checks=DISCARD):
            heard("RoundtripLost")
