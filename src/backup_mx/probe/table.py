"""All probes, and looking at everything once."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor

from backup_mx.config import Config
from backup_mx.probe.canary import CANARY
from backup_mx.probe.probe import Probe, Reading, Scene, Target
from backup_mx.probe.roundtrip import ROUNDTRIP
from backup_mx.probe.smtp import CERTIFICATE, INBOUND
from backup_mx.probe.zone import MTA_STS, MX

PROBES = {each.name: each for each in (INBOUND, CERTIFICATE, MX, MTA_STS, CANARY, ROUNDTRIP)}
"""Every probe by its name, in the order in which they are shown."""

QUICK = tuple(name for name in PROBES if name != ROUNDTRIP.name)
"""Those that change nothing and take seconds."""

_AT_ONCE = 8


def places(config: Config, names: Iterable[str] = PROBES) -> Iterator[tuple[Probe, Target]]:
    """Yield each probe of those names with each of its targets, in order."""
    for name in names:
        for target in PROBES[name].targets(config):
            yield PROBES[name], target


def run(scene: Scene, names: Sequence[str] = ()) -> Iterator[Reading]:
    """Look once, side by side; yield what was seen in order, as it is known.

    What is named and has nothing to look at comes first, and is unknown. Without names it is all of
    QUICK that has something.
    """
    idle = [PROBES[name] for name in names if not PROBES[name].targets(scene.config)]
    yield from (each.nothing(scene.config) for each in idle)
    with ThreadPoolExecutor(_AT_ONCE) as pool:
        # Its generator begins no other look once it is left, by an interrupt too (Executor.map).
        yield from pool.map(
            lambda place: place[0].read(scene, place[1]), places(scene.config, names or QUICK)
        )
