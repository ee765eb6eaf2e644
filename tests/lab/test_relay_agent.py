"""The agent on a real relay: mail moves by itself, whatever happened to the agent."""

from __future__ import annotations

import contextlib
import json
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from primaries import ADDRESS, Primary
from relays import RELEASES, Relay, booted, wait_for

from backup_mx.errors import LabError
from backup_mx.lab import host, names
from backup_mx.relay import state
from backup_mx.relay.state import DOWN, REFUSING, UP, Snapshot

pytestmark = pytest.mark.lab

AGENT = "backup-mx-agent.service"
ALICE = b"alice@example.org"
SOON = 60.0  # seconds: by itself Postfix needs two minutes and more
MEMORY = 45 * 1024  # KiB


@pytest.fixture(scope="module", params=RELEASES)
def relay(request: pytest.FixtureRequest) -> Iterator[Relay]:
    """A relay with its agent; its primary is whatever a test lets answer, and is soon missed."""
    with booted(request.param, agent=True, options='[queue]\ncanary_idle = "3s"\n') as made:
        yield made


@pytest.fixture(autouse=True)
def clean(relay: Relay) -> Iterator[None]:
    """Begin with an agent that runs, and an empty queue, and no primary."""
    relay.shell("systemctl", "start", AGENT)
    relay.empty()
    seen(relay, DOWN)
    yield
    relay.empty()


@pytest.fixture
def primary(relay: Relay, tmp_path: Path) -> Primary:
    """A primary that does not answer yet: enter it to have it do so."""
    return Primary(relay.world, tmp_path)


def snapshot(relay: Relay) -> Snapshot:
    """Return what the agent kept last."""
    said = json.loads(relay.shell("backup-mx", "status", "--json"))
    return state.from_text(json.dumps(said["snapshot"]))


def seen(relay: Relay, wanted: str) -> Snapshot:
    """Wait until the agent says that its primary is in this state; return what it knows then."""

    def there() -> bool:
        # Right after its first start there is nothing to read yet.
        with contextlib.suppress(LabError, TypeError):
            return [each.state for each in snapshot(relay).primaries] == [wanted]
        return False

    wait_for(f"the primary to be {wanted}", there, timeout=90)
    return snapshot(relay)


def waiting(relay: Relay, count: int) -> None:
    """Wait until the agent has seen that so many messages wait."""
    wait_for(f"{count} to wait", lambda: snapshot(relay).sums.waiting == count, timeout=60)


def nobody_there(relay: Relay, *, address: bool) -> None:
    """Let nobody listen at the drain target; with ``address`` the connection is refused."""
    verb = "add" if address else "del"
    with contextlib.suppress(LabError):  # it is so already
        namespace = names.scoped(relay.world.name, "net")
        host.call(["ip", "-n", namespace, "addr", verb, f"{ADDRESS}/32", "dev", "br0"])


@pytest.mark.parametrize("address", [True, False], ids=["refused", "unanswered"])
def test_mail_is_handed_over_by_itself(relay: Relay, primary: Primary, address: bool) -> None:
    """Nobody flushes: the first delivery comes soon after the first good answer."""
    nobody_there(relay, address=address)
    for number in range(3):
        relay.submit(ALICE, b"Subject: %d\r\n" % number)
    waiting(relay, 3)
    flushes = snapshot(relay).counters["flushes"]
    with primary:
        wait_for("the first delivery", lambda: bool(primary.messages), timeout=SOON)
        wait_for("all of them", lambda: len(primary.messages) == 3)
        seen(relay, UP)
        waiting(relay, 0)
    found = snapshot(relay)
    # None where Postfix was just trying by itself, and was let in before the canary walked.
    assert found.counters["flushes"] <= flushes + 1
    assert found.sums.even


def test_a_primary_that_is_not_ready_is_waited_for(relay: Relay, primary: Primary) -> None:
    """One that greets with 421 is down, in its own words; mail moves when it has opened."""
    primary.pause()
    with primary:
        relay.submit(ALICE, b"Subject: x\r\n")
        wait_for("its words", lambda: "restoring" in words(relay), timeout=60)
        assert snapshot(relay).primaries[0].state == DOWN
        primary.resume()
        wait_for("the delivery", lambda: bool(primary.messages), timeout=SOON)


def words(relay: Relay) -> str:
    """Return what the last walk heard."""
    walk = snapshot(relay).primaries[0].walk
    return walk.words if walk else ""


def test_a_primary_that_refuses_recipients_is_told_apart(relay: Relay, primary: Primary) -> None:
    """It takes connections, but not its postmaster's mail; it is no primary to flush to."""
    primary.refused = "postmaster@"
    with primary:
        found = seen(relay, REFUSING)
    walk = found.primaries[0].walk
    assert walk
    assert (walk.step, walk.why) == ("rcpt", "refused")


def test_a_killed_agent_goes_on_where_it_was(relay: Relay, primary: Primary) -> None:
    """Mail that came meanwhile is known, counters go on, and the sum adds up."""
    relay.submit(ALICE, b"Subject: before\r\n")
    waiting(relay, 1)
    before = snapshot(relay)
    relay.shell("systemctl", "kill", "--signal=KILL", AGENT)
    relay.submit(ALICE, b"Subject: meanwhile\r\n")
    waiting(relay, 2)
    after = snapshot(relay)
    assert after.started > before.started
    assert after.sums.accepted == before.sums.accepted + 1
    assert after.counters["walks:bad"] >= before.counters["walks:bad"]
    with primary:
        wait_for("both to be delivered", lambda: len(primary.messages) == 2, timeout=60)
        waiting(relay, 0)
    assert snapshot(relay).sums.even


def test_it_stops_cleanly_within_seconds(relay: Relay) -> None:
    """Even while a walk is under way to somebody who does not answer."""
    nobody_there(relay, address=False)
    relay.submit(ALICE, b"Subject: x\r\n")
    waiting(relay, 1)
    began = time.monotonic()
    relay.shell("systemctl", "stop", AGENT)
    assert time.monotonic() - began < 30, "systemd ends what has not stopped after 90"
    assert relay.shell("systemctl", "show", "-P", "Result", AGENT).strip() == "success"


def test_it_keeps_within_its_memory(relay: Relay) -> None:
    """Its resident memory, after all the above."""
    process = relay.shell("systemctl", "show", "-P", "MainPID", AGENT).strip()
    (line,) = (
        each
        for each in relay.shell("cat", f"/proc/{process}/status").splitlines()
        if each.startswith("VmRSS")
    )
    assert int(line.split()[1]) <= MEMORY
