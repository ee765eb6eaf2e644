"""The whole manual, walked: a bare Debian becomes a relay that is proven, published and used."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any

import pytest
from worlds import fresh_name

from backup_mx.errors import LabError
from backup_mx.lab.drills.go_live import GoLive
from backup_mx.lab.timeline import Timeline
from backup_mx.lab.world import World, standard
from backup_mx.lab.zone import KNOT, SECONDARY, Zone

pytestmark = [pytest.mark.lab, pytest.mark.long]

MESSAGES = 40


def drill(world: World) -> GoLive:
    """Return the drill in a lab."""
    return GoLive(world, Timeline(time.monotonic), MESSAGES)


@pytest.fixture(scope="module")
def world() -> Iterator[World]:
    """A lab in which nobody has heard of a relay."""
    made = standard(fresh_name(), bare=True)
    try:
        made.up(print)
        yield made
    finally:
        made.down()


@pytest.fixture(scope="module")
def report(world: World) -> dict[str, Any]:
    """The report of the walk."""
    return drill(world).run()


def at(report: dict[str, Any], words: str) -> int:
    """Return the place of the first event with these words."""
    events = [event["text"] for event in report["timeline"]]
    return next(number for number, text in enumerate(events) if words in text)


def test_it_ends_well(report: dict[str, Any]) -> None:
    """Every message that anybody took while the primary was off is in its mailbox, once."""
    assert report["verdict"] == "pass", report["reasons"]
    assert (report["sent"], report["lost"], report["duplicated"]) == (MESSAGES, 0, 0)


def test_dns_comes_last(report: dict[str, Any]) -> None:
    """The name waits for the gates, the MX record for the certificate and the outage on purpose."""
    steps = (
        "$ backup-mx init",
        "$ backup-mx deploy",
        "$ backup-mx queue",
        "$ backup-mx drain",
        "a message has waited on the relay, and is in its mailbox",
        "before any gate was run, dns publish refuses",
        "the relay's name is in DNS, at both servers; no MX record is",
        "certificate: issued by",
        "Restart the router",
        "Switch mail.example.org off",
        "all gates have passed",
        "with the way to the primary broken, dns publish refuses",
        "the MX record is in DNS, at both servers",
        "$ backup-mx dns drift",
        f"{MESSAGES} messages wait on the relay",
    )
    places = [at(report, words) for words in steps]
    assert places == sorted(places)


def test_both_name_servers_name_the_relay_in_the_end(world: World, report: dict[str, Any]) -> None:
    """What was published stays."""
    assert report["figures"]["from the bare machine to the MX record, s"] > 0
    for server in (KNOT, SECONDARY):
        records = Zone(world).records(server)
        assert "example.org. 300 MX 20 mx2.example.org." in records
        assert "mx2.example.org. 300 A 203.0.113.20" in records


def test_a_lab_that_has_a_relay_is_not_fit_for_it(world: World, report: dict[str, Any]) -> None:
    """A second walk in the same lab would not begin with a bare machine."""
    assert report["drill"] == "go-live"
    with pytest.raises(LabError, match=r"mx2 is no bare machine in this lab: .* then up --bare"):
        drill(world).run()
