"""The first boot of a relay, its volume, and what user-data does not carry."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from relays import SPOOL, Relay
from worlds import fresh_name

from backup_mx.lab import host
from backup_mx.lab.drills.first_boot import REPORT, FirstBoot, at_hand
from backup_mx.lab.timeline import Timeline
from backup_mx.lab.volume import SIZE
from backup_mx.lab.world import World, standard

pytestmark = pytest.mark.lab

WARY = "[relay.mx2]\nsecrets_in_user_data = false\n[tls]\nacme = false\n"
MAIL = b"Subject: kept\r\n\r\nkept\r\n"
HASTY = "[Service]\nTimeoutStartSec=3\n"


@pytest.fixture(scope="module")
def relay() -> Iterator[Relay]:
    """A relay with a volume and a tunnel, whose user-data has no secrets; nobody else is there."""
    world = standard(fresh_name(), tunnel=True, volume=True, options=WARY)
    world = replace(world, members=("internet", "mx2"))
    try:
        world.up(print)
        yield Relay(world)
    finally:
        world.down()


def mounted(relay: Relay) -> str:
    """Return the label and the type of what is mounted where the relay keeps its mail."""
    argv = ["findmnt", "--noheadings", "--output", "LABEL,FSTYPE", "/srv/backup-mx"]
    return " ".join(relay.machine.run(argv, check=False).text.split())


def postfix_is_up(relay: Relay) -> bool:
    """Whether a relay's Postfix runs: its master has a process id that lives."""
    return relay.machine.run(["postfix", "status"], check=False).returncode == 0


def first_boot(relay: Relay) -> dict[str, Any]:
    """Return each step of a machine's first boot by name."""
    steps = json.loads(relay.machine.path(REPORT).read_text())["steps"]
    return {step["step"]: step for step in steps}


def test_a_blank_disk_becomes_the_volume(relay: Relay) -> None:
    """The first boot formats it, and mail is kept there from the first message on."""
    assert mounted(relay) == "backup-mx ext4"
    assert {name: step["outcome"] for name, step in first_boot(relay).items()} == {
        "volume": "ok",
        "mount": "ok",
        "files and services": "ok",
    }
    queue_id = relay.submit(b"alice@example.org", MAIL)
    assert relay.queued(queue_id).size
    on_volume = relay.machine.volume.view / "spool"
    host.wait_for("it on the volume", lambda: bool(list(on_volume.rglob(queue_id))), timeout=60)
    assert not list((relay.machine.root / SPOOL[1:]).glob("*"))


def test_without_secrets_mail_is_taken_and_the_tunnel_comes_by_deploy(relay: Relay) -> None:
    """No key is on the machine until a deploy brings it; meanwhile mail waits."""
    machine = relay.machine
    assert not machine.path("/etc/wireguard/backup-mx.conf").exists()
    queue_id = relay.submit(b"alice@example.org", MAIL)
    relay.world.deploy(print)
    assert machine.run(["wg", "show", "interfaces"]).text.strip() == "backup-mx"
    assert relay.queued(queue_id).size
    assert "first boot: 20" in relay.shell("backup-mx", "status")


def test_a_rebuilt_machine_has_the_queue_of_the_old_one(relay: Relay) -> None:
    """Root disk gone, volume kept: same messages, same certificate, whatever Postfix's number."""
    queue_id = relay.submit(b"alice@example.org", MAIL)
    shown = relay.machine.path("/srv/backup-mx/tls/chain.pem").read_text()
    give_away = "chown -R --from=postfix 4242 /srv/backup-mx/spool"
    relay.machine.run(["sh", "-c", f"systemctl stop postfix && {give_away}"])
    relay.world.rebuild(print)
    relay.machine.listening(25)
    assert relay.queued(queue_id).size
    assert relay.machine.path("/srv/backup-mx/tls/chain.pem").read_text() == shown
    assert relay.machine.run(["postfix", "check"]).stderr == b""
    assert relay.submit(b"alice@example.org", MAIL)
    assert relay.machine.path("/var/lib/backup-mx/volume-exists").exists(), "no blank one will do"


def test_a_volume_that_has_grown_is_used_whole(relay: Relay) -> None:
    """After the next boot there is room for more."""
    relay.machine.kill()
    relay.machine.volume.grow(2 * SIZE)
    relay.machine.boot()
    relay.machine.listening(25)
    argv = ["findmnt", "--noheadings", "--bytes", "--output", "SIZE", "/srv/backup-mx"]
    assert int(relay.machine.run(argv).text) > 1.8 * SIZE, relay.shell(
        "journalctl", "-u", "backup-mx-volume"
    )


def test_without_its_volume_a_relay_takes_no_mail(relay: Relay) -> None:
    """Neither Postfix nor a deploy puts mail on the boot disk; both come back with the volume."""
    machine = relay.machine
    device = str(machine.volume.attach())
    hasty = machine.path("/etc/systemd/system/backup-mx-volume.service.d/hasty.conf")
    hasty.parent.mkdir()
    hasty.write_text(HASTY)
    machine.volume.hide()
    machine.run(["systemctl", "daemon-reload"])
    machine.run(["systemctl", "stop", "backup-mx-volume.service"])
    assert not postfix_is_up(relay)
    machine.run(["e2label", device, "other"])
    assert machine.run(["systemctl", "start", "postfix.service"], check=False).returncode
    archive = "/var/lib/backup-mx/relay.pyz"
    done = machine.run(["python3", archive, "--patience", "1"], check=False)
    said = f"no disk is labelled backup-mx; seen: {device}"
    assert done.stderr.decode() == f"relay.pyz: volume: given up after 1 s: {said}\n"
    assert not postfix_is_up(relay)
    assert list((machine.root / "srv/backup-mx").iterdir()) == []
    machine.run(["e2label", device, "backup-mx"])
    machine.run(["systemctl", "start", "postfix.service"])
    host.wait_for("Postfix", lambda: postfix_is_up(relay), timeout=60)
    host.wait_for("the mail", lambda: bool(relay.queue()), timeout=60)


def boot(world: World, messages: int = 10, **options: Any) -> dict[str, Any]:  # noqa: ANN401
    """Bring a lab up and run the drill in it; return the report."""
    world.up(print)
    timeline = Timeline(time.monotonic)
    return FirstBoot(world, timeline, messages, **options).run()


@pytest.mark.long
def test_a_plain_machine_becomes_the_relay_against_all_odds(
    make_world: Callable[[World], World],
) -> None:
    """debconf, network, mirror, clock and lock are missed, one after another, and it goes on."""
    report = boot(make_world(standard()), offline=5.0, releases=["Debian 13"])
    assert report["verdict"] == "pass", report["reasons"]
    assert report["figures"]["Debian 13: tries to install packages"] > 5


@pytest.mark.long
def test_the_drill_boots_each_release(make_world: Callable[[World], World], tmp_path: Path) -> None:
    """As late as a cloud's network can be; the agent is there again in the end."""
    world = make_world(standard(agent=True))
    report = boot(world, 20)
    (tmp_path / "report.json").write_text(json.dumps(report))
    assert report["verdict"] == "pass", report["reasons"]
    for release in at_hand():
        assert report["figures"][f"{release}: from power on to the relay, s"] > 90
    active = ["systemctl", "is-active", "backup-mx-agent.service"]
    assert world.machine("mx2").run(active).text == "active\n"
