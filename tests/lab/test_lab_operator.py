"""The lab's operator: DNS that can be changed, a way in by SSH, an account here and one there."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import dns.query
import dns.tsig
import dns.tsigkeyring
import dns.update
import pytest
from operators import Operator
from worlds import fresh_name

from backup_mx.errors import LabError
from backup_mx.lab import host, names, network, operator
from backup_mx.lab.layout import EDGE, RESOLVER, SERVERS
from backup_mx.lab.world import World, standard
from backup_mx.lab.zone import KNOT, SECONDARY, Zone

pytestmark = pytest.mark.lab

DATA = Path(__file__).parents[1] / "data" / "lab"
RESOLV_CONF = Path("/etc/resolv.conf")
BEFORE, AFTER = ["10 mail.example.org."], ["10 mail.example.org.", "20 mx2.example.org."]


@pytest.fixture(scope="module")
def world() -> Iterator[World]:
    """The standard world, of which DNS does not know mx2 yet."""
    made = standard(fresh_name(), published=False)
    try:
        made.up(print)
        yield made
    finally:
        made.down()


def asked(world: World, server: str, name: str, kind: str) -> list[str]:
    """Ask a server from the operator's place; return the answers, sorted."""
    argv = ["kdig", "+short", f"@{server}", name, kind]
    return sorted(world.machine("internet").run(argv).text.split("\n")[:-1])


def knows_all(world: World, server: str) -> bool:
    """Whether a server has both MX records."""
    return asked(world, server, "example.org", "MX") == AFTER


def update(world: World, key: str) -> None:
    """Send an update that publishes mx2's MX, signed by ``key``."""
    ring = dns.tsigkeyring.from_text({"backup-mx": key})
    made = dns.update.UpdateMessage("example.org", keyring=ring, keyalgorithm="hmac-sha256")
    made.replace("@", 300, "MX", "10 mail.example.org.", "20 mx2.example.org.")
    with network.inside(names.scoped(world.name, "net")):
        dns.query.tcp(made, SERVERS[0], timeout=5)


def test_an_unpublished_zone_has_no_word_of_the_relay(world: World) -> None:
    """Neither server knows mx2, as before anything is published; the rest is there."""
    for server in (KNOT, SECONDARY):
        text = "\n".join(Zone(world).records(server))
        assert "mx2" not in text
        assert "mail.example.org. 300 A 198.51.100.10" in text
    assert asked(world, RESOLVER, "example.org", "MX") == BEFORE
    assert asked(world, RESOLVER, "mx2.example.org", "A") == []


def test_an_update_reaches_both_servers(world: World) -> None:
    """The operator's key signs it, ns1 takes it, ns2 follows; nobody else's key does."""
    key = (operator.Operator(world.name).folder / "tsig.key").read_text()
    with pytest.raises(dns.tsig.PeerBadSignature):
        update(world, "A" * 43 + "=")
    assert asked(world, SERVERS[0], "example.org", "MX") == BEFORE
    update(world, key)
    for server in SERVERS:
        host.wait_for(
            f"the MX at {server}",
            partial(knows_all, world, server),
            timeout=60,
        )
    Zone(world).set("@", "MX", "10 mail.example.org.")
    assert asked(world, RESOLVER, "example.org", "MX") == BEFORE


def test_the_second_server_can_be_left_behind(world: World) -> None:
    """While they are held apart, the second server knows nothing of what the first was told."""
    zone = Zone(world)
    with zone.apart():
        zone.change("apart", "A", "203.0.113.9")
        assert asked(world, SERVERS[0], "apart.example.org", "A") == ["203.0.113.9"]
        assert asked(world, SERVERS[1], "apart.example.org", "A") == []
    assert asked(world, SERVERS[1], "apart.example.org", "A") == ["203.0.113.9"]
    zone.set("apart", "A")
    assert asked(world, SERVERS[1], "apart.example.org", "A") == []


def test_a_zone_can_be_signed_for_a_while(world: World) -> None:
    """Both servers have signatures, and none afterwards."""
    with Zone(world).signed():
        for server in SERVERS:
            assert len(asked(world, server, "example.org", "DNSKEY")) >= 2
    assert asked(world, SERVERS[1], "example.org", "DNSKEY") == []
    assert "RRSIG" not in "\n".join(Zone(world).records())


def test_the_operator_works_in_the_lab_and_the_host_stays_as_it_is(world: World) -> None:
    """The lab's DNS, the relay's SSH and this backup-mx are there; resolv.conf is the host's."""
    before, me = RESOLV_CONF.read_bytes(), operator.Operator(world.name)
    script = "cat /etc/resolv.conf && getent hosts mail.example.org && backup-mx check"
    done = me.run(["sh", "-c", script])
    assert done.returncode == 0, done.stderr
    assert done.text.startswith(f"nameserver {RESOLVER}\n{EDGE}")
    assert "mx2: mx2.example.org (203.0.113.20)" in done.text
    assert me.run(["ssh", "root@203.0.113.20", "hostname"]).text == "mx2\n"
    assert RESOLV_CONF.read_bytes() == before
    assert Operator(world).run("check", "--config", "none.toml", code=2).err.startswith("backup-mx")


def test_a_message_goes_from_the_operators_account_to_the_mailbox(world: World) -> None:
    """Submitted elsewhere with a password over TLS, carried by MX, read at home over IMAPS."""
    program = (DATA / "there_and_back.py").read_bytes()
    done = operator.Operator(world.name).run([sys.executable, "-"], stdin=program, timeout=60)
    assert done.returncode == 0, done.stderr
    assert "by mail.example.org (Postfix) with ESMTPS" in done.text
    assert "by mta.example.net (Postfix) with ESMTPSA" in done.text


def test_what_the_operator_runs_is_heard_and_ended_in_time(world: World) -> None:
    """Each line of complaint is told as it comes; what hangs is ended, and that is said."""
    me, heard = operator.Operator(world.name), list[str]()
    with pytest.raises(LabError, match="did not end within 2 s"):
        me.run(["sh", "-c", "echo one >&2; sleep 4712"], timeout=2, hear=heard.append)
    assert heard == ["one"]
    assert me.run(["pgrep", "-f", "^sleep 4712"]).returncode == 1
