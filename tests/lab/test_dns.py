"""`backup-mx dns` against two real name servers: updates by TSIG at one, seen at both."""

from __future__ import annotations

import contextlib
import hashlib
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from operators import Operator
from worlds import fresh_name

from backup_mx import evidence
from backup_mx.dns import facts
from backup_mx.dns.key import key
from backup_mx.evidence import Evidence, Proof
from backup_mx.findings import Finding
from backup_mx.gates.all import REQUIRED
from backup_mx.lab import settings
from backup_mx.lab.stations import LabHost
from backup_mx.lab.world import World, standard
from backup_mx.lab.zone import KNOT, SECONDARY, Zone
from backup_mx.machine import bundle
from backup_mx.machine.tool import tool

pytestmark = pytest.mark.lab

ADDRESS = "mx2.example.org. 300 A 203.0.113.20"
EXCHANGER = "example.org. 300 MX 20 mx2.example.org."
PRIMARY = "example.org. 300 MX 10 mail.example.org."


@pytest.fixture(scope="module")
def internet() -> Iterator[World]:
    """A world of two name servers, and a relay that they do not know."""
    made = replace(standard(fresh_name(), published=False), members=("internet", "mx2"))
    made.up(print)
    yield made
    made.down()


@pytest.fixture
def zone(internet: World) -> Iterator[Zone]:
    """The zone, unpublished before each test."""
    found = Zone(internet)
    yield found
    found.set("mx2", "A")
    found.set("@", "MX", "10 mail.example.org.")


@pytest.fixture
def operator(internet: World) -> Operator:
    return Operator(internet)


def prove(operator: Operator, failing: str = "", absent: str = "") -> None:
    """Write the evidence that all gates would have left: they pass but for ``failing``."""
    config = settings.read(operator.world.name)
    now = datetime.now(UTC)
    proofs = {}
    for name in {*REQUIRED} - {absent}:
        finding = Finding(name, "fail" if name == failing else "pass", f"{name} was looked at")
        proofs[name] = Proof(finding, now, waits=REQUIRED[name], until=now + timedelta(hours=24))
    version = bundle.version(bundle.bundle(config, "mx2"))
    known = evidence.config_hash(config)
    made: Evidence = evidence.summed(version, known, tool(), proofs, now)
    evidence.write(operator.folder / "build" / "evidence.json", {"mx2": made})


def both(zone: Zone) -> set[str]:
    """Return the records that both servers have."""
    return set(zone.records(KNOT)) & set(zone.records(SECONDARY))


def outcome(told: Any) -> list[tuple[str, str]]:  # noqa: ANN401  JSON
    return [(each["gate"], each["verdict"]) for each in told["outcome"]]


def test_what_is_proven_is_published_and_withdrawn(operator: Operator, zone: Zone) -> None:
    """The address and then the MX appear at both servers; withdrawing needs no evidence."""
    prove(operator)
    told = operator.run("dns", "publish", "--yes", "--json").json
    assert outcome(told) == [("address", "pass"), ("MX", "pass")]
    assert {ADDRESS, EXCHANGER, PRIMARY} <= both(zone)
    serial = _serial(zone)
    assert operator.run("dns", "publish", "--yes", "--json").json["changes"] == []
    assert _serial(zone) == serial
    assert operator.run("dns", "drift").out.endswith("All in order.\n")

    (operator.folder / "build" / "evidence.json").unlink()
    told = operator.run("dns", "withdraw", "--yes", "--json").json
    assert outcome(told) == [("MX", "pass")]
    assert EXCHANGER not in set(zone.records(KNOT)) | set(zone.records(SECONDARY))
    assert {ADDRESS, PRIMARY} <= both(zone)
    told = operator.run("dns", "withdraw", "--address", "--yes", "--json").json
    assert outcome(told) == [("address", "pass")]
    assert not [each for each in zone.records(KNOT) if each.startswith("mx2.")]


def test_without_proof_there_is_no_exchanger(operator: Operator, zone: Zone) -> None:
    """What is refused says which gate it waits for; what that gate is not for is published."""
    prove(operator, failing="certificate")
    ran = operator.run("dns", "publish", "--yes", code=1)
    assert ";   waits: certificate: certificate was looked at\n" in ran.out
    assert ran.out.endswith("Not published: example.org MX.\n")
    assert ADDRESS in both(zone)
    assert not [each for each in zone.records(KNOT) if "MX 20" in each]


def test_a_gate_that_was_never_run_keeps_the_exchanger_back(operator: Operator, zone: Zone) -> None:
    """Though all that the evidence has in it passed."""
    prove(operator, absent="failover")
    ran = operator.run("dns", "publish", "--yes", code=1)
    assert ";   waits: failover: not run yet\n" in ran.out
    assert ADDRESS in both(zone)
    assert not [each for each in zone.records(KNOT) if "MX 20" in each]


def test_what_fails_for_all_publishes_nothing(operator: Operator, zone: Zone) -> None:
    """Nothing at all changes, and it is no question of --yes."""
    prove(operator, failing="inbound")
    before = zone.records(KNOT)
    told = operator.run("dns", "publish", "--yes", "--json", code=1).json
    assert [bool(each["waits"]) for each in told["changes"]] == [True, True]
    assert told["outcome"] == []
    assert zone.records(KNOT) == before


def test_a_server_that_does_not_follow_is_named(operator: Operator, zone: Zone) -> None:
    """The MX is not published while one server lacks the address; when it follows, it is."""
    prove(operator)
    with zone.apart():
        told = operator.run("dns", "publish", "--yes", "--wait", "3s", "--json", code=1).json
        assert outcome(told) == [("address", "fail"), ("MX", "unknown")]
        assert "not at ns2.example.net (192.0.2.3)" in told["outcome"][0]["saw"]
        assert EXCHANGER not in zone.records(KNOT)
    assert outcome(operator.run("dns", "publish", "--yes", "--json").json) == [("MX", "pass")]


def test_drift_at_one_server_is_seen(operator: Operator, zone: Zone) -> None:
    """A record that somebody takes away at one of two servers only."""
    prove(operator)
    operator.run("dns", "publish", "--yes")
    with zone.apart():
        zone._knotc(KNOT, "zone-begin", "example.org")
        zone._knotc(KNOT, "zone-unset", "example.org", "@", "MX", "20 mx2.example.org.")
        zone._knotc(KNOT, "zone-commit", "example.org")
        found = operator.run("dns", "drift", "--json", code=1).json["findings"]
        failed = [each["saw"] for each in found if each["verdict"] == "fail"]
        assert failed == ["example.org MX 20 mx2.example.org: not at ns1.example.net (192.0.2.2)"]


def test_a_strangers_exchanger_is_seen(operator: Operator, zone: Zone) -> None:
    """Whoever can write to the zone can take the mail: drift and the probe both fail."""
    prove(operator)
    operator.run("dns", "publish", "--yes")
    own = ("10 mail.example.org.", "20 mx2.example.org.")
    zone.set("@", "MX", "5 mx.example.net.", *own)
    saw = "example.org: 5 mx.example.net is neither the primary nor a relay of this config"
    found = operator.run("dns", "drift", "--json", code=1).json["findings"]
    assert [each["saw"] for each in found if each["verdict"] == "fail"] == [saw]
    told = operator.run("probe", "run", "mx", "--json", code=1).out
    assert saw in told


@pytest.mark.parametrize(
    ("key", "words"),
    [
        ('key_name = "another"', "it does not know the TSIG key"),
        ('key = { env = "TSIG" }', "it has another secret or algorithm for the TSIG key"),
    ],
)
def test_a_key_that_the_server_does_not_accept(
    operator: Operator, zone: Zone, key: str, words: str
) -> None:
    """It is said in words, and nothing is changed."""
    text = settings.text(operator.world.name)
    settings.replace(operator.world.name, settings.with_options(text, f"[dns.rfc2136]\n{key}\n"))
    try:
        prove(operator)
        before = zone.records(KNOT)
        wrong = {"TSIG": "c2VjcmV0IHNlY3JldCBzZWNyZXQgc2VjcmV0"}
        ran = operator.run("dns", "publish", "--yes", "--json", code=1, environment=wrong)
        assert words in ran.json["outcome"][0]["saw"]
        assert zone.records(KNOT) == before
    finally:
        settings.replace(operator.world.name, text)


def test_a_text_that_is_cut_makes_way(operator: Operator, zone: Zone) -> None:
    """However it was cut when somebody wrote it: of two such texts senders would heed neither."""
    text = settings.text(operator.world.name)
    more = '[mta_sts]\nreports_to = "tls@example.org"\n'
    settings.replace(operator.world.name, settings.with_options(text, more))
    try:
        prove(operator)
        zone.set("_smtp._tls", "TXT", '"v=TLSRPTv1;" " rua=mailto:old@example.org"', '"else"')
        told = operator.run("dns", "publish", "--yes", "--json", code=1).json
        assert ("TLS reports", "pass") in outcome(told), told
        texts = [each for each in zone.records(KNOT) if each.startswith("_smtp._tls.")]
        assert sorted(each.partition(" TXT ")[2] for each in texts) == [
            '"else"',
            '"v=TLSRPTv1; rua=mailto:tls@example.org"',
        ]
    finally:
        settings.replace(operator.world.name, text)
        zone.set("_smtp._tls", "TXT")


def test_in_a_signed_zone_the_key_is_published(operator: Operator, zone: Zone) -> None:
    """Before the MX is, the TLSA record of the very key that the relay shows to senders."""
    prove(operator)
    with zone.signed(), _vouched_for(zone):
        told = operator.run("dns", "publish", "--yes", "--json").json
        assert outcome(told) == [("address", "pass"), ("TLSA", "pass"), ("MX", "pass")]
        record = next(each for each in both(zone) if " 300 TLSA " in each)
    assert record.startswith("_25._tcp.mx2.example.org. 300 TLSA 3 1 1 ")
    assert record.split()[-1].lower() == _key_of(operator.world)
    # It is the relay itself that was asked: port 25 proves nothing about who stands on the way.
    seen = facts._asked_there(LabHost(operator.world.machine("mx2")))
    assert key(seen).digest == _key_of(operator.world)
    zone.set("_25._tcp.mx2", "TLSA")


@contextlib.contextmanager
def _vouched_for(zone: Zone) -> Iterator[None]:
    """Let the zone's parent vouch for it, as far as the resolver knows."""

    def unbound(*words: str) -> None:
        zone.machine.run(["unbound-control", *words])

    unbound("local_zone", "example.org.", "typetransparent")
    unbound("local_data", "example.org.", "5", "IN", "DS", "60485", "13", "2", "ab" * 32)
    try:
        yield
    finally:
        unbound("local_zone_remove", "example.org.")


def _key_of(world: World) -> str:
    """Return the SHA-256 of the relay's key as openssl has it, from the file that Postfix reads."""
    relay = world.machine("mx2")
    chain = relay.run(["postconf", "-h", "smtpd_tls_chain_files"]).text.split(",")[0].strip()
    raw = relay.run(["openssl", "x509", "-in", chain, "-noout", "-pubkey"]).stdout
    der = relay.run(["openssl", "pkey", "-pubin", "-outform", "DER"], stdin=raw).stdout
    return hashlib.sha256(der).hexdigest()


def _serial(zone: Zone) -> str:
    return next(each for each in zone.records(KNOT) if " SOA " in each)
