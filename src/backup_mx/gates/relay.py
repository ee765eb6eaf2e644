"""The relay, asked: what Postfix goes by there, and what its agent last said."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TypeVar

from backup_mx.errors import MachineError
from backup_mx.gates import inside
from backup_mx.gates.gate import Site
from backup_mx.machine import ship
from backup_mx.machine.sent import ask
from backup_mx.machine.ship import Host
from backup_mx.relay import state
from backup_mx.relay.operator.verbs import PROGRAM
from backup_mx.relay.state import Snapshot

PATIENCE_S = 120.0
"""How long a relay that has just started may take until it has looked at everything once."""
_POLL_S = 5.0
_NOT_FOUND = 127
Told = TypeVar("Told")


@dataclass(frozen=True)
class Facts:
    """What Postfix goes by; see `backup_mx.gates.inside.facts` for all of it."""

    version: str
    main: Mapping[str, str]
    services: tuple[str, ...]
    overrides: Mapping[str, str]
    guarded: float | None
    guard: str
    agent: str
    postfix: str


@dataclass(frozen=True)
class Word:
    """What the agent last said, and when it was asked (seconds since 1970, the relay's clock).

    alive is whether it still runs, blind whether it cannot read Postfix's log.
    """

    now: float
    alive: bool
    blind: bool
    snapshot: Snapshot | None

    @property
    def settled(self) -> bool:
        """Whether it has had a look at everything since it started."""
        last = self.snapshot
        if last is None or last.reconciled is None or last.reconciled < last.started:
            return False
        if not last.version:  # it began before the deploy had written that down
            return False
        return all(each.state != state.STARTING for each in last.primaries)


def facts(host: Host) -> Facts:
    """Ask a relay's Postfix. Raises MachineError, UnreachableError."""
    told = ask(host, inside)
    try:
        return Facts(**{**told, "services": tuple(told["services"])})
    except (KeyError, TypeError) as error:
        raise MachineError(f"the relay answered other facts than asked: {error}") from None


def word(host: Host) -> Word:
    """Ask a relay's agent. Raises MachineError where there is none, UnreachableError."""
    answer = host.run((PROGRAM, "status", "--json"))
    if answer.code == _NOT_FOUND or "No such file" in answer.stderr:
        raise MachineError("the relay does not have the agent yet: backup-mx deploy brings it")
    if answer.code:
        raise MachineError(answer.words or "no status")
    return read(answer.stdout)


def read(text: str) -> Word:
    """Read what `backup-mx status --json` prints. Raises MachineError."""
    told = ship.facts(text)
    try:
        agent, last = told["agent"], told["snapshot"]
        return Word(
            now=float(told["asked"]),
            alive=bool(agent["alive"]),
            blind=bool(agent["blind"]),
            snapshot=state.of(last) if last else None,
        )
    except (KeyError, TypeError, ValueError) as error:
        raise MachineError(f"the relay does not say how it is: {error!r}") from None


def settled(
    site: Site, sleep: Callable[[float], None] = time.sleep, patience: float = PATIENCE_S
) -> Word:
    """Ask the agent until it has had a look at everything, at most ``patience`` seconds.

    Raises MachineError, UnreachableError.
    """
    return _asked(
        lambda: word(site.host), lambda found: found.settled or not found.alive, sleep, patience
    )


def guarded(site: Site, sleep: Callable[[float], None] = time.sleep) -> Facts:
    """Ask Postfix until the guard, which is due every minute, has run since the machine started.

    At most PATIENCE_S. Raises MachineError, UnreachableError.
    """
    return _asked(
        lambda: facts(site.host),
        lambda found: found.guarded is not None or found.guard != "active",
        sleep,
        PATIENCE_S,
    )


def _asked(
    question: Callable[[], Told],
    enough: Callable[[Told], bool],
    sleep: Callable[[float], None],
    patience: float,
) -> Told:
    ends = time.monotonic() + patience
    while not enough(found := question()) and time.monotonic() < ends:
        sleep(_POLL_S)
    return found
