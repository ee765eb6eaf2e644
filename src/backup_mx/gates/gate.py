"""What a gate is, and what it is given to look at."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from backup_mx.config import Config
from backup_mx.config.options import Relay
from backup_mx.evidence import Record
from backup_mx.findings import Finding, worst
from backup_mx.machine.bundle import bundle, version
from backup_mx.machine.ship import Host

if TYPE_CHECKING:
    from backup_mx.net.dns import Names

Tell = Callable[[str], None]
_NAMED = 3  # parts of a gate that its sum names one by one


@dataclass(frozen=True)
class View:
    """A place from which a relay is looked at as a stranger sees it.

    words say where that is; host runs ("python3", "-I", "-") there, with a program on its standard
    input, and nothing else.
    """

    words: str
    host: Host


@dataclass(frozen=True)
class Site:
    """What a gate looks at: a relay of a config, and the ways to it.

    host is the relay as root, outside a stranger's view of it, names the DNS, folder where
    `backup-mx build` writes, now the time (UTC); tell hears of progress.
    """

    config: Config
    relay: Relay
    host: Host
    outside: View
    names: Names
    folder: Path
    now: Callable[[], datetime]
    tell: Tell

    @cached_property
    def bundle(self) -> bytes:
        """The relay.pyz that the config makes."""
        return bundle(self.config, self.relay.name)

    @cached_property
    def version(self) -> str:
        """The version that the relay is to run."""
        return version(self.bundle)


Judge = Callable[[Site], Iterable[Finding]]


@dataclass(frozen=True)
class Gate:
    """One check of a relay.

    judge returns at least one finding, each called after what it is about. It may raise any
    BackupMxError, which makes the gate unknown. Where it returns none, it has nothing new to say:
    what is recorded stays, and if nothing is, the gate is unknown.

    waits names the records that are not published without it. One that is live needs the operator:
    it runs only when it is named. What is found by one that is lasting stays fresh for
    [gates] drills_fresh, not [gates] fresh. abroad: it looks from Site.outside. of_relay: it is
    about the relay as it runs, which has to be the config's version for anything to be proven.
    """

    name: str
    summary: str
    waits: tuple[Record, ...]
    judge: Judge
    live: bool = False
    lasting: bool = False
    abroad: bool = False
    of_relay: bool = True


def together(name: str, findings: Sequence[Finding]) -> Finding:
    """Return a gate's findings as one: its worst verdict, and those that made it so."""
    verdict = worst(findings)
    telling = [each for each in findings if each.verdict == verdict]
    told = [each.saw if each.gate == name else f"{each.gate}: {each.saw}" for each in telling]
    if verdict == "pass" and len(told) > _NAMED:
        return Finding(name, verdict, f"{len(told)} things looked at, all in order")
    do = dict.fromkeys(each.do for each in telling if each.do)
    return Finding(name, verdict, "; ".join(told), "; ".join(do))
