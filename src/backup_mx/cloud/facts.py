"""What is known of an account at Oracle: plain values, whoever told them."""

from __future__ import annotations

from dataclasses import dataclass

DAYS = 7
"""Over how many days Oracle looks before it calls a machine idle."""
STEP = 300
"""How many seconds a point of a measured series stands for."""


@dataclass(frozen=True)
class Region:
    """A region that the account uses; home is where it was opened."""

    name: str
    home: bool


@dataclass(frozen=True)
class Plan:
    """What the account pays by.

    kind and upgrade are Oracle's words: FREE_TIER or PAYG; PROMO, SUBMITTED, ERROR or UPGRADED.
    """

    kind: str
    upgrade: str


@dataclass(frozen=True)
class Quota:
    """How many machines of a shape an availability domain allows and has (None: not told).

    offered tells whether the domain has that shape at all: a limit may be left over where it never
    was.
    """

    domain: str
    limit: int
    used: int | None
    offered: bool


@dataclass(frozen=True)
class Count:
    """How many of something the account may have, and has."""

    limit: int
    used: int


@dataclass(frozen=True)
class Disk:
    """A boot or block volume, of a size in GB."""

    name: str
    gigabytes: int


@dataclass(frozen=True)
class Reserved:
    """A reserved public address, and whether a machine has it."""

    address: str
    assigned: bool


@dataclass(frozen=True)
class Machine:
    """An instance.

    state is Oracle's word; bandwidth is that of its network, in Gbit/s (None: not told).
    """

    name: str
    ocid: str
    compartment: str
    shape: str
    state: str
    bandwidth: float | None


@dataclass(frozen=True)
class Week:
    """What was measured of a machine in the last 7 days, a point every 5 minutes.

    cpu and memory are per cent; received and sent are bytes in each step.
    """

    cpu: tuple[float, ...] = ()
    memory: tuple[float, ...] = ()
    received: tuple[float, ...] = ()
    sent: tuple[float, ...] = ()
