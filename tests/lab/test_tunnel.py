"""The drain through WireGuard: it carries mail, finds an edge that moved, leads nowhere else."""

from __future__ import annotations

import contextlib
import secrets
import smtplib
import socket
from collections.abc import Iterator

import pytest
from watchers import Listener, Watch, hearing, hears
from worlds import fresh_name

from backup_mx.config import Config, load
from backup_mx.lab import host, names, network
from backup_mx.lab.drills.agent import Agent
from backup_mx.lab.machine import Machine
from backup_mx.lab.stations import LabHost, Mailboxes, RelayQueue
from backup_mx.lab.world import World, standard
from backup_mx.lab.zone import Zone
from backup_mx.machine.bundle import pack
from backup_mx.machine.ship import deploy
from backup_mx.machine.tree import tree
from backup_mx.relay.queue import reasons

pytestmark = pytest.mark.lab

RELAY = "203.0.113.20"
INNER = "10.0.20.1"
OLD = "198.51.100.10:51820"
NEW = "198.51.100.77:51820"
# From which of its addresses the edge speaks to the relay.
TO_RELAY = ("ip", "route", "replace", "203.0.113.0/24", "dev", "eth0", "scope", "link", "src")
GONE = b"""table ip gone {
    chain in { type filter hook input priority -10; ip daddr 198.51.100.10 udp dport 51820 drop; }
    chain out { type filter hook output priority -10; ip saddr 198.51.100.10 udp sport 51820 drop; }
}"""
LATER = b"#!/bin/sh\necho $(($(/bin/date +%s) + 200))\n"
OPTIONS = """
[access]
metrics_from = ["192.0.2.0/24"]
"""
SILENT = 300.0  # a minute more than watchers.HURRY leaves it
LATE = b"[Service]\nEnvironment=PATH=/run/late:/usr/sbin:/usr/bin:/sbin:/bin\n"


@pytest.fixture(scope="module")
def world() -> Iterator[World]:
    """The lab's world in which the relay drains through the tunnel."""
    made = standard(fresh_name(), tunnel=True, agent=True, options=OPTIONS)
    try:
        made.up(print)
        yield made
    finally:
        made.down()


@pytest.fixture
def relay(world: World) -> Machine:
    """The relay, its tunnel up."""
    machine = world.machine("mx2")
    wait_until_up(machine)
    return machine


def shown(relay: Machine, what: str) -> str:
    """Return what ``wg show`` says under that name of the relay's only peer."""
    return relay.run(["wg", "show", "backup-mx", what]).text.split("\t")[-1].strip()


def wait_until_up(relay: Machine, timeout: float = 60) -> None:
    host.wait_for(
        "the tunnel to be up", lambda: shown(relay, "latest-handshakes") > "0", timeout=timeout
    )


def reaches(world: World, address: str, port: int) -> bool:
    """Whether somebody answers the relay there within three seconds."""
    with network.inside(names.scoped(world.name, "mx2")), contextlib.suppress(OSError):
        socket.create_connection((address, port), 3.0).close()
        return True
    return False


def wait_until_reached(world: World) -> None:
    host.wait_for("the relay to reach the drain", lambda: reaches(world, INNER, 2526), timeout=60)


def send(world: World) -> None:
    """Hand the relay a message for alice, as a stranger's MTA would."""
    lines = [
        "From: someone@test.invalid",
        "To: alice@example.org",
        f"Subject: {secrets.token_hex(8)}",
    ]
    with network.inside(names.scoped(world.name, "internet")):
        session = smtplib.SMTP(RELAY, 25, "mta.example.net", timeout=20)
    with session:
        session.sendmail(
            "someone@test.invalid", ["alice@example.org"], "\r\n".join([*lines, "", "x"])
        )


def drained(world: World, before: int) -> bool:
    """Whether one message more than ``before`` lies in the mailboxes, and none waits."""
    waiting = RelayQueue(world.machine("mx2")).waiting
    return (waiting, Mailboxes(world.machine("primary")).count) == (0, before + 1)


def wait_until_drained(world: World, before: int) -> None:
    host.wait_for("the message to be drained", lambda: drained(world, before), timeout=60)


def test_mail_drains_through_the_tunnel(world: World, relay: Machine) -> None:
    """A message goes to the inner address, in the tunnel, and lies in its mailbox."""
    before = Mailboxes(world.machine("primary")).count
    send(world)
    wait_until_drained(world, before)
    log = relay.path(relay.role.mail_log).read_text()
    assert f"relay={INNER}[{INNER}]:2526" in log
    assert (
        "[10.0.20.2]"
        in world.machine("primary").path(world.machine("primary").role.mail_log).read_text()
    )


def test_the_tunnel_leads_to_the_drain_and_nowhere_else(world: World, relay: Machine) -> None:
    """Only the inner address is routed; even a relay that wants more does not get it."""
    edge = world.machine("edge")
    assert relay.run(["ip", "route", "show", "dev", "backup-mx"]).text.split() == [
        INNER,
        "scope",
        "link",
    ]
    assert shown(relay, "allowed-ips") == f"{INNER}/32"
    # A relay in wrong hands, and an operator whose own rules let the tunnel pass.
    key = relay.run(["wg", "show", "backup-mx", "peers"]).text.strip()
    relay.run(["wg", "set", "backup-mx", "peer", key, "allowed-ips", "10.0.0.0/8"])
    relay.run(["ip", "route", "add", "10.0.10.10", "dev", "backup-mx"])
    edge.run(["nft", "insert", "rule", "inet", "filter", "forward", "accept"])
    try:
        assert reaches(world, INNER, 2526)
        assert not reaches(world, "10.0.10.10", 143)
        edge.run(["nft", "delete", "table", "inet", "backup_mx"])
        assert reaches(world, "10.0.10.10", 143)  # so it was our table that kept it out
    finally:
        edge.run(["systemctl", "reload", "nftables"])
        relay.run(["ip", "route", "del", "10.0.10.10", "dev", "backup-mx"])
        relay.run(["wg", "set", "backup-mx", "peer", key, "allowed-ips", f"{INNER}/32"])


def test_the_agent_knows_when_the_tunnel_last_lived(relay: Machine) -> None:
    """It may not ask WireGuard; a run of the tunnel's timer has left word for it."""
    agent = Agent(relay)

    def told() -> float:
        found = agent.snapshot()
        return found.handshakes["home"] if found and found.handshakes else 0.0

    host.wait_for("the agent to know", lambda: told() > 0, timeout=120)
    assert 0 <= float(shown(relay, "latest-handshakes")) - told() < 180


def test_mail_waits_while_the_edge_lacks_the_peer(world: World, relay: Machine) -> None:
    """An edge that has forgotten the relay is unreachable; once it knows it again, mail drains."""
    edge, queue = world.machine("edge"), RelayQueue(relay)
    before = Mailboxes(world.machine("primary")).count
    key = relay.run(["wg", "show", "backup-mx", "public-key"]).text.strip()
    edge.run(["wg", "set", "wg0", "peer", key, "remove"])
    send(world)
    host.wait_for(
        "the message to wait as unreachable",
        lambda: [message.why for message in queue.messages()] == [reasons.UNREACHABLE],
        timeout=60,
    )
    edge.run(["systemctl", "restart", "wg-quick@wg0"])
    wait_until_reached(world)
    queue.flush()
    wait_until_drained(world, before)


@pytest.fixture
def moved(world: World) -> Iterator[None]:
    """The edge at another address, of which its name tells."""
    edge, zone = world.machine("edge"), Zone(world)
    edge.run(["ip", "address", "add", "198.51.100.77/32", "dev", "eth0"])
    edge.run([*TO_RELAY, "198.51.100.77"])
    edge.run(["nft", "-f", "-"], stdin=GONE)
    zone.set("vpn", "A", "198.51.100.77")
    yield
    zone.set("vpn", "A", "198.51.100.10")
    edge.run(["nft", "delete", "table", "ip", "gone"])
    edge.run([*TO_RELAY, "198.51.100.10"])
    edge.run(["ip", "address", "del", "198.51.100.77/32", "dev", "eth0"])


@pytest.fixture
def later(relay: Machine) -> Iterator[None]:
    """For the timer's script it is 200 seconds later than it is."""
    dropin = "/run/systemd/system/backup-mx-tunnel.service.d"
    relay.run(["mkdir", "-p", "/run/late", dropin])
    relay.run(["tee", "/run/late/date"], stdin=LATER)
    relay.run(["chmod", "755", "/run/late/date"])
    relay.run(["tee", f"{dropin}/late.conf"], stdin=LATE)
    yield
    relay.run(["rm", "-r", "/run/late", dropin])
    relay.run(["systemctl", "daemon-reload"])


@pytest.mark.usefixtures("moved", "later")
def test_an_edge_that_moved_is_found_again(world: World, relay: Machine) -> None:
    """The name is not looked up while both sides talk; after 135 s of silence it is."""
    relay.run(["systemctl", "start", "backup-mx-tunnel.service"])
    assert shown(relay, "endpoints") == OLD
    relay.run(["systemctl", "daemon-reload"])  # from now on it is later
    host.wait_for(
        "the tunnel to dial the new address",
        lambda: shown(relay, "endpoints") == NEW,
        timeout=60,
    )
    wait_until_reached(world)
    said = relay.run(["journalctl", "-o", "cat", "-u", "backup-mx-tunnel.service"]).text
    assert f"vpn.example.org: the tunnel dials {NEW}, before that {OLD}\n" in said
    before = Mailboxes(world.machine("primary")).count
    send(world)
    RelayQueue(relay).flush()
    wait_until_drained(world, before)


def mail_layer(config: Config) -> bytes:
    """Return a bundle that has no agent in it, and is for a machine that runs."""
    return pack("mx2", tree(config, "mx2", agent=False))


def test_a_deploy_brings_a_new_address_into_effect(world: World, relay: Machine) -> None:
    """What --diff shows holds no key; the interface is made anew, and nothing else restarts."""
    place = names.folder(world.name) / "config" / "moved.toml"
    text = place.with_name("backup-mx.toml").read_text()
    place.write_text(text.replace('"10.0.20.2"', '"10.0.20.3"'))
    deploy(LabHost(relay), mail_layer(world.made_from), print)  # in user-data no file has comments
    archive, said = mail_layer(load(place)), list[str]()
    deploy(LabHost(relay), archive, said.append, diff=True)
    conf = "/etc/wireguard/backup-mx.conf"
    assert said == [f"to write: {conf} (its content is not shown)"]
    deploy(LabHost(relay), archive, said.append)
    assert [line for line in said if "restart" in line] == [
        "try-reload-or-restart: wg-quick@backup-mx.service"
    ]
    assert "10.0.20.3/32" in relay.run(["ip", "address", "show", "dev", "backup-mx"]).text
    deploy(LabHost(relay), mail_layer(world.made_from), said.append)
    assert "10.0.20.3" not in relay.run(["ip", "address", "show", "dev", "backup-mx"]).text
    wait_until_up(relay)


@pytest.mark.long
@hears("TunnelSilent")
def test_a_tunnel_that_falls_silent_is_heard(world: World, relay: Machine) -> None:
    """By Prometheus and Alertmanager: it lives, its peer is gone from the edge, it lives again."""
    edge, watch = world.machine("edge"), Watch.of(world)
    watch.start()
    test = test_a_tunnel_that_falls_silent_is_heard
    with Listener(world) as listener, hearing(test, listener) as heard:
        lives = "time() - backup_mx_wireguard_handshake_timestamp_seconds < 200"
        # An agent that has just begun has not been told yet when it lived.
        host.wait_for(
            "Prometheus to see it live",
            lambda: any(watch.ask(lives) or ()) and "TunnelSilent" not in watch.firing(),
            timeout=120,
        )
        heard.forget()
        key = relay.run(["wg", "show", "backup-mx", "public-key"]).text.strip()
        edge.run(["wg", "set", "wg0", "peer", key, "remove"])
        host.wait_for("the alarm", lambda: "TunnelSilent" in watch.firing(), timeout=SILENT)
        heard("TunnelSilent")
        edge.run(["systemctl", "restart", "wg-quick@wg0"])
        heard("TunnelSilent", status="resolved")


@pytest.mark.long
def test_a_relay_boots_where_no_name_is_known(world: World, relay: Machine) -> None:
    """Without a resolver mail is taken and the tunnel is there; it dials once names are known."""
    internet = world.machine("internet")
    internet.kill()
    relay.poweroff()
    relay.boot()
    relay.listening(25)
    active = ["systemctl", "is-active", "wg-quick@backup-mx.service"]
    host.wait_for(
        "the interface of the tunnel",
        lambda: relay.run(active, check=False).text == "active\n",
        timeout=30,
    )
    assert shown(relay, "endpoints") == "(none)"
    internet.boot()
    internet.ready()
    wait_until_up(relay)
    wait_until_reached(world)
