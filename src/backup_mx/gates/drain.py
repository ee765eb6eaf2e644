"""The gates ``drain`` and ``parity``: the primary takes what the relay hands over, and whose it is.

drain    the whole dialogue on the real path, and a matrix of senders (`backup_mx.kit.check`)
parity   the relay offers the world no more than the primary takes
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace

from backup_mx.config import Config
from backup_mx.config.options import Primary, Relay
from backup_mx.findings import Finding
from backup_mx.gates.gate import Gate, Site
from backup_mx.kit import check
from backup_mx.kit.judge import PARITY
from backup_mx.machine.ship import Host

_Ask = Callable[[Host, Config, Relay, Primary], list[Finding]]


def judge(site: Site) -> Iterator[Finding]:
    """Hand each primary the matrix of senders, from the relay. Raises MachineError."""
    yield from _of_all(site, _all_but_parity)


def compare(site: Site) -> Iterator[Finding]:
    """Compare what the relay offers with what each primary does. Raises MachineError."""
    yield from _of_all(site, check.compare)


def _all_but_parity(host: Host, config: Config, relay: Relay, primary: Primary) -> list[Finding]:
    found = check.check(host, config, relay, primary)
    return [each for each in found if each.gate not in PARITY]


def _of_all(site: Site, ask: _Ask) -> Iterator[Finding]:
    """Yield what is found of each primary; of several, each finding says whose it is."""
    primaries = site.config.primaries.values()
    for primary in primaries:
        for finding in ask(site.host, site.config, site.relay, primary):
            whose = f", {primary.name}" if len(primaries) > 1 else ""
            yield replace(finding, gate=f"{finding.gate}{whose}")


GATE = Gate("drain", "the primary takes the relay's mail, whoever sent it", ("MX",), judge)
PARITY_GATE = Gate("parity", "the relay offers no more than the primary takes", ("MX",), compare)
