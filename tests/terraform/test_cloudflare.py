"""terraform/cloudflare, planned by the real Terraform: no record without evidence or room."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from terraformers import VARIABLES, Folder, alter

pytest_plugins = ["folders"]

Make = Callable[[str], Folder]
ADDRESSES = {f'cloudflare_dns_record.address["{name}"]' for name in ("mx2", "mx3")}
EXCHANGERS = {f'cloudflare_dns_record.exchanger["{name} example.org"]' for name in ("mx2", "mx3")}


def published(folder: Folder) -> None:
    """Let the zone have what was applied, as Cloudflare tells it."""
    relays = json.loads((folder.path / VARIABLES).read_text())["relays"].values()

    def both(relay: dict[str, Any]) -> tuple[dict[str, Any], ...]:
        name, exchanger = relay["hostname"], {"type": "MX", "name": "example.org"}
        return (
            {"id": f"A{name}", "type": "A", "name": name, "content": relay["address"]},
            {"id": f"MX{name}", **exchanger, "content": name, "priority": relay["preference"]},
        )

    told = [each for relay in relays for each in both(relay)]
    folder.answers(lambda world: world["data"]["cloudflare_dns_records"]["result"].extend(told))


def evidence(folder: Folder, change: Callable[[dict[str, Any]], object]) -> None:
    """Alter what the gates have found."""
    alter(folder.path.parent / "built/evidence.json", change)


def test_what_is_proven_is_published(folder: Make) -> None:
    """The files are right; each relay gets its name's record, and each domain its exchangers."""
    new = folder("cloudflare")
    assert new.validate() == ()
    plan = new.plan()
    assert not plan.errors
    assert set(plan.changes) == ADDRESSES | EXCHANGERS


def test_what_stands_is_left_alone(standing: Make) -> None:
    """A second run changes nothing; a relay that is taken out needs no evidence to go."""
    made = standing("cloudflare")
    assert made.plan().changes == {}
    made.variables(lambda read: read["relays"].pop("mx3"))
    evidence(made, lambda read: read.pop("mx3"))
    assert made.plan().changes == {
        'cloudflare_dns_record.address["mx3"]': "delete",
        'cloudflare_dns_record.exchanger["mx3 example.org"]': "delete",
    }


def test_what_stands_needs_no_evidence(standing: Make) -> None:
    """A relay leaves, and MX records are withdrawn, while nothing at all is proven."""
    made = standing("cloudflare")
    published(made)
    evidence(made, lambda read: read.clear())
    plan = made.plan()
    assert (plan.errors, plan.changes) == ((), {})
    made.variables(lambda read: read["relays"]["mx2"].update(domains={}))
    made.variables(lambda read: read["relays"].pop("mx3"))
    plan = made.plan()
    assert not plan.errors
    assert plan.changes == dict.fromkeys(
        (EXCHANGERS | ADDRESSES) - {'cloudflare_dns_record.address["mx2"]'}, "delete"
    )


def test_what_changes_needs_evidence(standing: Make) -> None:
    """Another address or another preference is proven anew, though a record of that name stands."""
    made = standing("cloudflare")
    published(made)
    evidence(made, lambda read: read.clear())
    made.variables(lambda read: read["relays"]["mx2"].update(preference=30))
    plan = made.plan()
    assert plan.says("mx2 does not become a mail exchanger of example.org without evidence")
    made.variables(lambda read: read["relays"]["mx3"].update(address="198.18.7.31"))
    plan = made.plan()
    assert plan.says("address of mx3 is not published without evidence")


def test_without_evidence_nothing_is_published(folder: Make) -> None:
    """Evidence that is missing, or about something else, makes no record, and says why."""
    new = folder("cloudflare")
    said = json.loads((new.path / VARIABLES).read_text())
    known, built = said["config"], said["relays"]["mx3"]["version"]
    evidence(new, lambda read: read.pop("mx2"))
    evidence(new, lambda read: read["mx3"].update(version="another"))
    plan = new.plan()
    assert not plan.changes
    assert plan.says(
        "address of mx2 is not published without evidence that it works: there is none"
    )
    assert plan.says("evidence that it works: it is about another version than the one")
    evidence(new, lambda read: read["mx3"].update(version=built, config="another"))
    assert new.plan().says("evidence that it works: it is about another config than the one")
    evidence(new, lambda read: read["mx3"].update(config=known, tool="0.9"))
    assert new.plan().says(
        "evidence that it works: another backup-mx judged than the one that built (1.0)"
    )


def in_minutes(minutes: float) -> str:
    """Return a time from now as the gates write it."""
    return (datetime.now(UTC) + timedelta(minutes=minutes)).strftime("%Y-%m-%dT%H:%M:%SZ")


def alters(gate: str, **fields: Any) -> Callable[[dict[str, Any]], object]:  # noqa: ANN401  JSON
    """Return what alters the proof that a gate has filed of mx2."""
    return lambda read: read["mx2"]["gates"][gate].update(fields)


@pytest.mark.parametrize(
    ("fields", "told"),
    [
        ({"at": "1970-01-01T00:00:00Z"}, "not run yet"),
        ({"verdict": "fail", "saw": "nobody answers"}, "nobody answers"),
        ({"verdict": "fail", "saw": ""}, "it did not pass"),
        ({"verdict": "unknown", "saw": "it was not asked"}, "it was not asked"),
        ({"until": in_minutes(-1)}, "stale since 20"),
        ({"at": in_minutes(60)}, "it is of the future, 20"),
        ({"at": "soon"}, "it is not what the gates wrote"),
    ],
)
def test_each_proof_has_to_hold(folder: Make, fields: dict[str, str], told: str) -> None:
    """One that failed, is stale, or is dated ahead keeps back what waits for it, and only that.

    So an address may be published before its exchanger: a certificate needs the name in DNS.
    """
    new = folder("cloudflare")
    evidence(new, alters("inbound", **fields))
    plan = new.plan()
    assert [each.count("mx2") for each in plan.errors] == [1]
    assert plan.says(
        f"a mail exchanger of example.org without evidence that it is one: inbound: {told}"
    )
    new.variables(lambda read: read["relays"]["mx2"].update(domains={}))
    assert not new.plan().errors


@pytest.mark.parametrize(
    ("gate", "kept", "told"),
    [
        ("inbound", {'exchanger["mx2 example.org"]'}, "mx2 is a mail exchanger of example.org"),
        ("version", {'address["mx2"]', 'exchanger["mx2 example.org"]'}, "the address of mx2 works"),
    ],
)
def test_a_plan_that_lies_about_is_not_applied(
    folder: Make, gate: str, kept: set[str], told: str
) -> None:
    """Its evidence has to hold when it is applied, too, whatever it did when the plan was made."""
    new = folder("cloudflare")
    assert set(new.plan("-out=saved").changes) == ADDRESSES | EXCHANGERS
    evidence(new, alters(gate, until=in_minutes(1 / 60)))
    time.sleep(1)  # until that is over
    done = new.apply("saved")
    assert not {f"cloudflare_dns_record.{each}" for each in kept} & set(done.changes)
    assert 'cloudflare_dns_record.address["mx3"]' in done.changes
    assert done.says(f"evidence that {told} is stale since 20")


def test_clocks_may_differ_a_little(folder: Make) -> None:
    """What the gates' machine has just seen counts, though the clock here is behind."""
    new = folder("cloudflare")
    evidence(new, alters("inbound", at=in_minutes(3)))
    assert not new.plan().errors


def test_a_gate_that_the_evidence_lacks_is_missed(folder: Make) -> None:
    """What there has to be says the tool that built, and not the file: that may have been cut."""
    new = folder("cloudflare")
    evidence(new, lambda read: read["mx2"]["gates"].pop("inbound"))
    plan = new.plan()
    assert [each.count("mx2") for each in plan.errors] == [1]
    assert plan.says("of example.org without evidence that it is one: inbound: not run yet.")
    evidence(new, lambda read: read["mx2"]["gates"].clear())
    assert new.plan().says("of mx2 is not published without evidence that it works: version: not")


def test_what_a_proof_says_of_itself_frees_no_record(folder: Make) -> None:
    """Neither the records that it names nor what the evidence sums up count for anything."""
    new = folder("cloudflare")
    evidence(new, alters("inbound", verdict="fail", saw="nobody answers", waits=[]))
    assert new.plan().says("without evidence that it is one: inbound: nobody answers")


def test_a_full_zone_is_told_beforehand(folder: Make) -> None:
    """Records are counted against the plan's limit; those that are ours already count once."""
    new = folder("cloudflare")
    new.variables(lambda read: read["zones"]["example.org"].update(record_limit=6))
    assert not new.plan().errors
    new.answers(
        lambda world: world["data"]["cloudflare_dns_records"]["result"].append(
            {"id": "3", "type": "A", "name": "mx2.example.org", "content": "198.18.7.20"}
        )
    )
    assert not new.plan().errors
    new.variables(lambda read: read["zones"]["example.org"].update(record_limit=5))
    assert new.plan().says("The zone example.org would have more records than Cloudflare allows it")


def test_a_full_zone_keeps_what_it_has(standing: Make) -> None:
    """There a withdrawal makes room, also where the limit was passed by others."""
    made = standing("cloudflare")
    published(made)
    made.variables(lambda read: read["zones"]["example.org"].update(record_limit=4))
    made.variables(lambda read: read["relays"]["mx3"].update(domains={}))
    plan = made.plan()
    assert not plan.errors
    assert plan.changes == {'cloudflare_dns_record.exchanger["mx3 example.org"]': "delete"}


def test_a_zone_that_nobody_lists_is_told_in_words(folder: Make) -> None:
    """Of a relay, or of a domain: that, and no index that is invalid."""
    new = folder("cloudflare")

    def stray(read: dict[str, Any]) -> None:
        read["relays"]["mx2"].update(hostname="mx2.example.net", zone="example.net")
        read["relays"]["mx3"].update(domains={"example.com": "example.com"})

    new.variables(stray)
    (told,) = new.plan().errors
    assert "What is to be in example.com or example.net is in no zone that is listed" in told
    assert "those are example.org." in told
    new.variables(lambda read: read.update(zones={}))
    assert new.plan().says("There is at least one zone")


def test_a_wrong_value_is_told_in_words(folder: Make) -> None:
    """Each variable's check answers, all at once."""
    new = folder("cloudflare")

    def wrong(read: dict[str, Any]) -> None:
        read["zones"]["example.org"] = {"id": "example.org", "record_limit": 0}
        read["evidence"] = "/evidence"
        read["config"] = "another"
        read["tool"] = "another"
        read["gates"] = {"version": ["A"]}
        read["relays"]["mx2"].update(address="here", preference=0, version="one")
        read["relays"]["mx3"].update(hostname="MX3.example.net", domains={"a.net": "example.org"})

    new.variables(wrong)
    plan = new.plan()
    for told in (
        "A zone's ID is 32 digits",
        "The limit is a number of records",
        "The evidence is a file of JSON",
        "The config's hash is the SHA-256",
        "The tool's version is that which",
        "Each record waits for gates",
        "Each relay's hostname is a full one in small letters",
        "A bundle's version is the SHA-256",
        "A relay's address is an IPv4 or IPv6 address",
        "A preference is a number from 1 to 65535",
        "A relay's hostname is in its zone",
        "A domain is in its zone",
    ):
        assert plan.says(told), (told, plan.errors)
