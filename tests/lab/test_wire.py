"""The gates on the wire, in a lab: each passes a world in order, and names what was broken."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import pytest
from relays import wait_for
from worlds import altered, fresh_name, standing

from backup_mx.findings import Finding, passed
from backup_mx.gates import drain, inbound, intake, reboot
from backup_mx.gates.gate import Gate, Site, View
from backup_mx.gates.reboot import Patience
from backup_mx.lab.machine import Machine
from backup_mx.lab.stations import LabHost, Mailboxes, RelayQueue
from backup_mx.lab.world import World, standard
from backup_mx.net.dns import Names

pytestmark = pytest.mark.lab

QUICK = '[queue]\ncanary_idle = "5s"\n'
BLOCKED = ("-p", "tcp", "--dport", "25", "!", "-i", "lo", "-j", "REJECT")
GATES = (inbound.GATE, intake.GATE, drain.GATE, drain.PARITY_GATE)


@pytest.fixture(scope="module")
def world() -> Iterator[World]:
    """A whole lab, whose relay looks often."""
    with standing(standard(fresh_name(), agent=True, options=QUICK)) as made:
        yield made


@pytest.fixture
def site(world: World, tmp_path: Path) -> Site:
    """Its relay, looked at from the Internet's machine."""
    config = world.made_from
    return Site(
        config=config,
        relay=config.relays["mx2"],
        host=LabHost(world.machine("mx2")),
        outside=View("the Internet", LabHost(world.machine("internet"))),
        names=Names(),
        folder=tmp_path,
        now=lambda: datetime.now(UTC),
        tell=print,
    )


def found(site: Site, *gates: Gate) -> list[Finding]:
    """Return what gates find, run side by side."""
    with ThreadPoolExecutor() as pool:
        return [
            each for some in pool.map(lambda gate: list(gate.judge(site)), gates) for each in some
        ]


def failing(site: Site, *gates: Gate) -> set[str]:
    """Return the parts that fail."""
    return {each.gate for each in found(site, *gates) if each.verdict == "fail"}


@contextlib.contextmanager
def rule(machine: Machine, chain: str, *words: str) -> Iterator[None]:
    """Have a rule in front of a machine's firewall for a while."""
    machine.run(["iptables", "-I", chain, *words])
    try:
        yield
    finally:
        machine.run(["iptables", "-D", chain, *words])


def test_a_world_in_order_passes_and_gets_no_mail(world: World, site: Site) -> None:
    """All at once, twice in a row: nothing is left behind that the second look would stumble on."""
    for _ in range(2):
        findings = found(site, *GATES)
        assert passed(findings), [each for each in findings if each.verdict != "pass"]
    assert Mailboxes(world.machine("primary")).count == 0
    assert RelayQueue(world.machine("mx2")).waiting == 0


def test_a_closed_port_is_told_from_a_network_that_lets_nothing_out(
    world: World, site: Site
) -> None:
    """The primary's port 25 is the control: where it answers, the relay's is closed."""
    with rule(world.machine("mx2"), "INPUT", *BLOCKED):
        (closed,) = found(site, inbound.GATE)
    with rule(world.machine("internet"), "OUTPUT", "-p", "tcp", "--dport", "25", "-j", "REJECT"):
        (kept_in,) = found(site, inbound.GATE)
    assert (closed.verdict, kept_in.verdict) == ("fail", "unknown")


def test_a_port_without_tls_and_another_machine_s_are_named(world: World, site: Site) -> None:
    """STARTTLS has to work, and the address has to be this relay's."""
    with altered(world.machine("mx2"), smtpd_tls_security_level="none"):
        assert failing(site, inbound.GATE) == {"starttls"}
    elsewhere = site.relay.model_copy(update={"address": "192.0.2.25"})
    (other,) = found(replace(site, relay=elsewhere), inbound.GATE)
    assert (other.verdict, other.saw.split()[0]) == ("fail", "mta.example.net")


def test_an_intake_that_refuses_too_much_or_too_little_is_named(world: World, site: Site) -> None:
    """Each part by its own mistake in main.cf, early talkers by one in master.cf."""
    mx2 = world.machine("mx2")
    mistakes = {
        "relay_domains": "example.org example.com",  # other domains
        "smtpd_helo_restrictions": "reject_non_fqdn_helo_hostname",  # odd clients
        "message_size_limit": "10240000",  # size
        "smtpd_discard_ehlo_keywords": "",  # offer
    }
    with altered(mx2, **mistakes):
        assert failing(site, intake.GATE) == {"other domains", "odd clients", "size", "offer"}
    mx2.run(["postconf", "-P", "smtp/inet/soft_bounce=no"])
    mx2.run(["postfix", "reload"])
    try:
        with altered(mx2, queue_minfree="1000000000000"):
            assert failing(site, intake.GATE) == {"early talkers", "own domains", "size"}
    finally:
        mx2.run(["postconf", "-P", "smtp/inet/soft_bounce=yes"])
        mx2.run(["postfix", "reload"])


def test_a_primary_that_refuses_kinds_of_messages_is_named(world: World, site: Site) -> None:
    """Each kind by what commonly refuses it, and what the relay should not offer then."""
    mistakes = {
        "header_checks": "regexp:{{/^From:.*@example.com/ REJECT its DMARC policy}}",
        "body_checks": "regexp:{{/메시지/ REJECT no 8-bit mail}}",
        "smtputf8_enable": "no",
        "message_size_limit": "11000000",
    }
    with altered(world.machine("primary"), **mistakes):
        assert failing(site, drain.GATE, drain.PARITY_GATE) == {
            "message-dmarc",
            "message-8-bit",
            "message-smtputf8",
            "message-large",
            "parity-smtputf8",
            "parity-size",
        }


def test_a_router_that_restarts_is_seen_going_and_coming_back(world: World, site: Site) -> None:
    """The gate asks for the restart, and passes when the relay's canary is through again."""
    edge = world.machine("edge")

    def operator(line: str) -> None:
        if line.startswith("Restart the router"):
            edge.poweroff()
        elif line.startswith("It is away"):
            edge.boot()
            edge.ready()

    (back,) = reboot.judge(replace(site, tell=operator), Patience(60, 60, 1))
    assert (back.gate, back.verdict) == ("home", "pass"), back


@pytest.mark.long
def test_a_router_that_forgets_what_it_forwarded_fails(world: World, site: Site) -> None:
    """What does not come back by itself is a failure, with what the relay says of it."""
    edge = world.machine("edge")

    def operator(line: str) -> None:
        if line.startswith("Restart the router"):
            edge.run(["systemctl", "stop", "haproxy"])

    try:
        (away,) = reboot.judge(replace(site, tell=operator), Patience(60, 5, 1))
    finally:
        edge.run(["systemctl", "start", "haproxy"])
    assert (away.verdict, "198.51.100.10" in away.saw) == ("fail", True), away
    wait_for("the way to the primary", lambda: passed(found(site, drain.PARITY_GATE)))
