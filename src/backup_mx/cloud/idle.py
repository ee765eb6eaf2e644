"""Oracle's rule on idle machines, put to the figures of one.

An Always Free machine is idle if over 7 days the 95th percentile of its CPU, its network and, on an
A1 shape only, its memory are all below 20 %. An idle one may be stopped.
https://docs.oracle.com/en-us/iaas/Content/FreeTier/freetier_topic-Always_Free_Resources.htm
(10 % and 15 % before 2023: it moves.)
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean

from backup_mx.cloud.facts import DAYS, STEP, Machine, Week

LIMIT = 20.0
"""In per cent: what any one of the figures has to reach."""


@dataclass(frozen=True)
class Use:
    """How much of a machine was used, in per cent; None is what was not measured.

    memory is None where it does not count. days is how long the figures reach back.
    """

    cpu: float | None
    network: float | None
    memory: float | None
    days: float

    @property
    def idle(self) -> bool | None:
        """Tell whether the rule calls it idle; None when too little was measured to say so."""
        figures = [each for each in (self.cpu, self.network, self.memory) if each is not None]
        if any(each >= LIMIT for each in figures):
            return False
        return None if self.cpu is None or self.network is None else True


def use_of(machine: Machine, week: Week) -> Use:
    """Return how much of ``machine`` its ``week`` used."""
    memory = week.memory if ".A1." in machine.shape else ()
    return Use(
        cpu=percentile(week.cpu, 95),
        network=_network(machine.bandwidth, week),
        memory=fmean(memory) if memory else None,
        days=min(len(week.cpu) * STEP / 86_400, float(DAYS)),
    )


def percentile(values: Sequence[float], per_cent: int) -> float | None:
    """Return the smallest value that ``per_cent`` of ``values`` do not exceed; None of none."""
    if not values:
        return None
    return sorted(values)[math.ceil(len(values) * per_cent / 100) - 1]


def _network(bandwidth: float | None, week: Week) -> float | None:
    """Return the mean of the busier direction, in per cent of the shape's bandwidth.

    Oracle does not say what it divides by: this is the greatest it could be, so the result is the
    least.
    """
    rates = [fmean(each) / STEP for each in (week.received, week.sent) if each]
    if not rates or not bandwidth:
        return None
    return max(rates) * 8 / (bandwidth * 1e9) * 100
