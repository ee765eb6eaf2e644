"""``backup-mx cloud check``: ask an account for its facts, one after the other, and judge each."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property

from backup_mx.cloud import judge
from backup_mx.cloud.facts import Machine, Plan, Region
from backup_mx.cloud.oracle import Account
from backup_mx.cloud.wanted import Wanted
from backup_mx.config.known import FREE_SHAPE
from backup_mx.errors import CloudError
from backup_mx.findings import Finding

Tell = Callable[[str], None]
_FREE_SHAPES = (FREE_SHAPE, "VM.Standard.A1.Flex")


def check(account: Account, wanted: Wanted, progress: Tell) -> list[Finding]:
    """Return what the account gives a relay, and what threatens one there; a few seconds.

    What Oracle does not tell is a finding of its own. Raises CloudError where it tells nothing at
    all (the key, the tenancy), UnreachableError.
    """
    progress("asking Oracle: the regions")
    home = next((each for each in account.regions() if each.home), None)
    if home is None:
        raise CloudError("Oracle tells of no home region: the account is not ready yet")
    findings = list(judge.tenancy(account.tenancy, wanted))
    if findings:
        return findings
    asked = _Asked(account, wanted, home)
    for gate, look in asked.looks():
        progress(f"asking Oracle: {gate}")
        findings += _told(gate, look)
    return findings


def _told(gate: str, look: Callable[[], Iterable[Finding]]) -> list[Finding]:
    try:
        return list(look())
    except CloudError as error:
        return [Finding(gate, "unknown", str(error))]


@dataclass(frozen=True)
class _Asked:
    """What is asked, each thing once; what fails is asked again where it is needed again."""

    account: Account
    wanted: Wanted
    home: Region

    def looks(self) -> Sequence[tuple[str, Callable[[], Iterable[Finding]]]]:
        return (
            (judge.REGION, lambda: [judge.region(self.home, self.wanted)]),
            (judge.PLAN, lambda: [judge.plan(self.plan)]),
            (judge.MACHINES, self.free_machines),
            (judge.STORAGE, self.storage),
            (judge.ADDRESS, self.addresses),
            (judge.IDLE, self.idle),
        )

    @property
    def region(self) -> str:
        return self.wanted.region or self.home.name

    @cached_property
    def plan(self) -> Plan | None:
        return self.account.plan(self.home.name)

    @cached_property
    def compartments(self) -> tuple[str, ...]:
        return self.account.compartments()

    @cached_property
    def machines(self) -> tuple[Machine, ...]:
        return self.account.machines(self.region, self.compartments)

    def free_machines(self) -> Iterator[Finding]:
        if self.wanted.shape == FREE_SHAPE:
            quotas = self.account.quotas(self.region, FREE_SHAPE)
            yield judge.machines(quotas, self.machines, self.wanted)

    def storage(self) -> Iterator[Finding]:
        yield judge.storage(self.account.disks(self.region, self.compartments), self.wanted)

    def addresses(self) -> Iterator[Finding]:
        told = self.account.addresses(self.region, self.compartments)
        return judge.addresses(told, self.account.address_count(self.region), self.wanted)

    def idle(self) -> Iterator[Finding]:
        """Judge the relays' machines; before there is a config, all that are there."""
        free = [each for each in self.machines if each.shape in _FREE_SHAPES]
        ours = [each for each in free if self.wanted.wants(each.name)]
        if not ours:
            yield Finding(judge.IDLE, "pass", "no relay has a free machine yet")
        for machine in ours:
            week = self.account.week(self.region, machine)
            yield judge.idle(machine, week, self._known_plan())

    def _known_plan(self) -> Plan | None:
        try:
            return self.plan
        except CloudError:  # told already, by the subscription's own finding
            return None
