"""`primary check` over the real drain path: it names the layer that lacks, and no other."""

from __future__ import annotations

from collections.abc import Iterator

import kits
import pytest
from worlds import fresh_name

from backup_mx.findings import Finding, passed
from backup_mx.kit import check, primary
from backup_mx.kit.primary import LAYERS
from backup_mx.lab.stations import LabHost, Mailboxes
from backup_mx.lab.world import World, standard

pytestmark = pytest.mark.lab

# Without the original sender's address there is nobody whose mail a rule could judge; without the
# ceiling, what rspamd rejects for its sender's DMARC policy is rejected.
ALSO = {"external-relay": {"local-addrs"}, "ceiling": {"message-dmarc"}}


@pytest.fixture(scope="module")
def world() -> Iterator[World]:
    """A relay in a tunnel, whose inner address rspamd takes for one of its own network."""
    made = standard(fresh_name(), kit=False, tunnel=True)
    try:
        made.up(print)
        yield made
    finally:
        made.down()


def asked(world: World) -> dict[str, Finding]:
    """Return what `primary check` finds, by gate."""
    config = world.made_from
    host = LabHost(world.machine("mx2"))
    findings = check.check(host, config, config.relays["mx2"], config.primaries["home"])
    return {finding.gate: finding for finding in findings}


def apply(world: World, layer: str = "") -> None:
    """Apply the kit, without a layer if one is named; postscreen forgets whom it knew."""
    files = primary.render(world.made_from, "home")
    kits.put(world, kits.without(files, layer) if layer else files)
    kits.run(world, "apply")
    forget = ["sh", "-c", "rm -f /var/lib/postfix/postscreen_cache* && postfix reload"]
    world.machine("primary").run(forget)


def test_a_primary_without_the_kit_fails(world: World) -> None:
    """Of a primary that nobody prepared no layer passes, and no capability is in doubt."""
    found = asked(world)
    assert found["drain-path"].verdict == "pass"
    assert {found[layer].verdict for layer in LAYERS} <= {"fail", "unknown"}
    assert found["client-restrictions"].verdict == "fail"


def test_the_whole_kit_passes(world: World) -> None:
    """With the kit everything is in order, nothing is delivered, and it can be asked again."""
    apply(world)
    before = Mailboxes(world.machine("primary")).count
    for _ in range(2):
        found = asked(world)
        assert passed(found.values()), [each for each in found.values() if each.verdict != "pass"]
    assert Mailboxes(world.machine("primary")).count == before


@pytest.mark.parametrize("layer", kits.mostly_long(LAYERS))
def test_a_layer_that_was_left_out_is_named(world: World, layer: str) -> None:
    """Without one layer that one fails."""
    apply(world, layer)
    failing = {gate for gate, finding in asked(world).items() if finding.verdict == "fail"}
    assert layer in failing
    assert failing <= {layer} | ALSO.get(layer, set())
