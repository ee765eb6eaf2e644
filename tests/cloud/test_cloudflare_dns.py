"""Records at Cloudflare, by Cloudflare's own library, whose HTTP is answered on this host."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from zones import TOKEN, ZONE, Zone, serving

from backup_mx import config
from backup_mx.dns.cloudflare import Cloudflare
from backup_mx.dns.plan import Change
from backup_mx.dns.provider import Room
from backup_mx.dns.records import Record
from backup_mx.dns.wanted import Stage
from backup_mx.errors import DnsError

CONFIG = f"""
[relay.mx2]
hostname = "mx2.example.org"
address = "203.0.113.20"
[primary.home]
hostname = "mail.example.org"
[domain."example.org"]
[dns.cloudflare]
zones = {{ "example.org" = "{ZONE}" }}
record_limit = 200
"""
A = Record("mx2.example.org", "A", "203.0.113.20")
MX = Record("example.org", "MX", "20 mx2.example.org")
TXT = Record("_mta-sts.example.org", "TXT", "v=STSv1; id=2;")
TLSA = Record("_25._tcp.mx2.example.org", "TLSA", "3 1 1 " + "ab" * 32)


@pytest.fixture
def zone(monkeypatch: pytest.MonkeyPatch) -> Iterator[Zone]:
    """A zone with the primary and what else people have."""
    made = Zone()
    made.add("A", "mail.example.org", "198.51.100.10", proxied=False)
    made.add("MX", "example.org", "mail.example.org", priority=10)
    made.add("TXT", "example.org", '"v=spf1 mx -all"')
    made.add("CNAME", "www.example.org", "mail.example.org", proxied=True)
    monkeypatch.setattr("time.sleep", lambda _: None)
    with serving(made) as url:
        monkeypatch.setenv("CLOUDFLARE_BASE_URL", url)
        yield made


def account(token: str = TOKEN) -> Cloudflare:
    options = config.parse(CONFIG, "test").dns.cloudflare
    assert options
    return Cloudflare(options, token)


def put(record: Record, *gone: Record, ttl: int = 300) -> Change:
    relay = "mx2" if record.kind in ("A", "MX", "TLSA") else ""
    return Change("example.org", "MTA-STS", Stage.REST, record, gone, ttl, relay)


def taken(*gone: Record) -> Change:
    return Change("example.org", "MX", Stage.EXCHANGERS, None, gone, 300, "mx2")


def has(zone: Zone) -> set[tuple[str, str, str]]:
    return {(each["type"], each["name"], each["content"]) for each in zone.records.values()}


def test_records_are_made_in_one_step(zone: Zone) -> None:
    """Each type as Cloudflare takes it; what others have stays as it is."""
    before = has(zone)
    account().apply("example.org", [put(A), put(TXT), put(TLSA), put(MX, ttl=3600)])
    assert has(zone) - before == {
        ("A", "mx2.example.org", "203.0.113.20"),
        ("TXT", "_mta-sts.example.org", '"v=STSv1; id=2;"'),
        ("TLSA", "_25._tcp.mx2.example.org", "3 1 1 " + "ab" * 32),
        ("MX", "example.org", "mx2.example.org"),
    }
    assert before <= has(zone)
    address, _, _, exchanger = zone.batches[0]["posts"]
    assert (address["proxied"], address["comment"]) == (False, "backup-mx: the relay mx2")
    assert (exchanger["priority"], exchanger["ttl"]) == (20, 3600)


def test_what_is_made_already_is_no_request(zone: Zone) -> None:
    """A second run finds all of it there, whatever page it is on, and changes nothing."""
    changes = [put(A), put(TXT), put(TLSA), put(MX)]
    account().apply("example.org", changes)
    there = dict(zone.records)
    account().apply("example.org", changes)
    assert zone.records == there
    assert len(zone.batches) == 1


def test_an_old_record_goes_in_the_same_step(zone: Zone) -> None:
    """By the ID that Cloudflare has for it, and nobody else's of that type."""
    old = zone.add("MX", "example.org", "mx2.example.org", priority=5)
    account().apply("example.org", [put(MX, Record("example.org", "MX", "5 mx2.example.org"))])
    assert zone.batches[0]["deletes"] == [{"id": old}]
    assert ("MX", "example.org", "mail.example.org") in has(zone)


def test_an_address_behind_the_proxy_is_taken_from_there(zone: Zone) -> None:
    """The world sees another address than Cloudflare has: mail would end at the proxy."""
    zone.add("A", "mx2.example.org", "203.0.113.20", proxied=True)
    account().apply("example.org", [put(A, Record("mx2.example.org", "A", "198.18.0.1"))])
    found = [each for each in zone.records.values() if each["name"] == "mx2.example.org"]
    assert [(each["content"], each["proxied"]) for each in found] == [("203.0.113.20", False)]


def test_an_address_behind_the_proxy_is_withdrawn(zone: Zone) -> None:
    """Though nothing at Cloudflare has the address that the world sees."""
    before = has(zone)
    zone.add("A", "mx2.example.org", "203.0.113.20", proxied=True)
    account().apply("example.org", [taken(Record("mx2.example.org", "A", "198.18.0.1"))])
    assert has(zone) == before


def test_a_withdrawn_record_is_gone(zone: Zone) -> None:
    """And nothing else."""
    before = has(zone)
    account().apply("example.org", [put(MX)])
    account().apply("example.org", [taken(MX)])
    assert has(zone) == before


def test_every_preference_of_a_withdrawn_exchanger_goes(zone: Zone) -> None:
    """Where no name server tells it, Cloudflare's own list does."""
    before = has(zone)
    zone.add("MX", "example.org", "mx2.example.org", priority=5)
    account().apply("example.org", [taken(MX)])
    assert has(zone) == before


def test_records_are_counted_on_every_page(zone: Zone) -> None:
    """The zone's records, whoever made them, against the limit that the config has."""
    assert account().room("example.org") == Room(len(zone.records), 200)


@pytest.mark.parametrize(
    ("refusal", "words"),
    [
        ((403, 10000, "Authentication error"), 'needs "DNS: Edit" for this zone'),
        ((401, 1000, "Invalid API Token"), 'needs "DNS: Edit" for this zone'),
        ((400, 6003, "Invalid request headers"), "refuses: Invalid request headers (6003)"),
        ((404, 7003, "Could not route"), "knows no zone of the ID"),
        ((429, 971, "Please wait"), "throttles"),
        ((503, 10001, "Service is unavailable"), "fails: 503 Service is unavailable (10001)"),
    ],
)
def test_a_refusal_is_told_in_words(zone: Zone, refusal: tuple[int, int, str], words: str) -> None:
    """Never the token."""
    zone.refusal = refusal
    with pytest.raises(DnsError) as caught:
        account().apply("example.org", [put(A)])
    assert words in str(caught.value)
    assert TOKEN not in str(caught.value)


def test_a_wrong_token_changes_nothing(zone: Zone) -> None:
    """It is sent as it is read, and refused as it is."""
    before = has(zone)
    with pytest.raises(DnsError, match="does not accept the token for example"):
        account("another").apply("example.org", [put(A)])
    assert has(zone) == before


def test_a_full_zone_changes_nothing(zone: Zone) -> None:
    """Cloudflare's own word where the config's limit was wrong."""
    zone.limit, before = len(zone.records), has(zone)
    with pytest.raises(DnsError, match=r"refuses: Record quota exceeded\. \(81045\)"):
        account().apply("example.org", [put(A)])
    assert has(zone) == before


def test_nobody_there(monkeypatch: pytest.MonkeyPatch) -> None:
    """It says who does not answer."""
    monkeypatch.setattr("time.sleep", lambda _: None)
    monkeypatch.setenv("CLOUDFLARE_BASE_URL", "http://127.0.0.1:9")
    with pytest.raises(DnsError, match="Cloudflare does not answer, 3 times"):
        account().room("example.org")
