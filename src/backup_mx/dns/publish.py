"""Make the changes, stage by stage, and see each at every name server before the next stage."""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace

from backup_mx.dns.judge import standing
from backup_mx.dns.plan import Change, nameless
from backup_mx.dns.provider import Room
from backup_mx.dns.providers import Providers
from backup_mx.dns.seen import Seen, look
from backup_mx.errors import DnsError
from backup_mx.findings import Finding, passed
from backup_mx.net.dns import Names
from backup_mx.relay.text import counted

Tell = Callable[[str], None]
PAUSE = 0.5
"""Seconds between the first two looks at the name servers; twice as long each time."""
_LONGEST = 8.0
_NEAR = 0.95  # of a limit: then it is said


@dataclass(frozen=True)
class Publisher:
    """Makes changes. patience is how many seconds each stage has to be seen at every server."""

    names: Names
    providers: Providers
    patience: float
    tell: Tell

    def make(self, changes: Sequence[Change]) -> list[Finding]:
        """Make those changes that wait for nothing; return what came of each.

        After a stage that is not seen everywhere there is no next one.
        """
        found: list[Finding] = []
        ready = [each for each in changes if not each.waits]
        for _, stage in itertools.groupby(ready, key=lambda change: change.stage):
            listed = list(stage)
            if not passed(found):
                found += [Finding(each.what, "unknown", _not_begun(each)) for each in listed]
                continue
            refused = dict(self._applied(listed))
            found += refused.values()
            found += self._seen([each for each in listed if each.zone not in refused])
        return found

    def _applied(self, changes: Sequence[Change]) -> Iterator[tuple[str, Finding]]:
        """Make the changes of a stage, zone by zone; yield each zone that is refused, and why."""
        for zone, each in _by_zone(changes):
            provider = self.providers.by_zone.get(zone)
            if provider is None:
                self._by_hand(zone, each)
                continue
            self.tell(f"{zone}: changing {len(each)}, {provider.words}")
            try:
                provider.apply(zone, each)
            except DnsError as error:
                if any(change.put for change in each):
                    yield zone, Finding(each[0].what, "fail", str(error))
                else:  # A withdrawal does not wait for a provider.
                    self.tell(str(error))
                    self._by_hand(zone, each)

    def _by_hand(self, zone: str, changes: Sequence[Change]) -> None:
        by: dict[str, list[Change]] = {}
        for each in changes:
            by.setdefault(self.providers.advice(each), []).append(each)
        for advice, own in by.items():
            self.tell(f"{zone}: {advice} these changes now:")
            for line in lines(own):
                self.tell(f"  {line}")

    def _seen(self, changes: Sequence[Change]) -> list[Finding]:
        """Look until every server has the changes, or patience is at its end."""
        if not changes:
            return []
        asked = list(dict.fromkeys(each.question for each in changes))
        end, pause = time.monotonic() + self.patience, PAUSE
        self.tell(f"looking at every name server, {self.patience:.0f} s at most")
        while True:
            world = look(self.names, asked)
            if all(each.made(world[each.question]) for each in changes):
                break
            if time.monotonic() + pause > end:
                break
            time.sleep(pause)
            pause = min(2 * pause, _LONGEST)
        return [found for each in changes for found in _outcome(each, world[each.question])]


def lines(changes: Iterable[Change]) -> Iterator[str]:
    """Yield changes as lines of a zone file, each after ``-`` or ``+``."""
    for change in changes:
        yield from (f"- {old.line(change.ttl)}" for old in change.gone)
        if change.put:
            yield f"+ {change.put.line(change.ttl)}"


def with_room(
    providers: Providers, changes: Sequence[Change]
) -> tuple[tuple[Change, ...], list[Finding]]:
    """Let what no longer fits into its zone wait, and tell where there is little room left.

    Raises DnsError where a provider does not tell.
    """
    found: list[Finding] = []
    waits: dict[str, str] = {}
    for zone, each in _by_zone(changes):
        provider = providers.by_zone.get(zone)
        room = provider.room(zone) if provider else None
        if room is None:
            continue
        finding = judge_room(zone, room, sum(change.growth for change in each if not change.waits))
        found.append(finding)
        if finding.verdict == "fail":
            waits[zone] = finding.saw
    held = [
        replace(each, waits=waits[each.zone]) if each.zone in waits and _grows(each) else each
        for each in changes
    ]
    # A mail exchanger in another zone waits as well: its name would lead nowhere.
    return tuple(replace(each, waits=each.waits or nameless(each, held)) for each in held), found


def judge_room(zone: str, room: Room, growth: int) -> Finding:
    """Judge whether a zone takes ``growth`` more records."""
    then = room.used + growth
    saw = f"{zone} would have {then} of {room.limit} records"
    if then > room.limit:
        return Finding("records", "fail", saw, "Delete what is no longer used, or move the zone.")
    if then > room.limit * _NEAR:
        return Finding("records", "warn", saw, "Delete what is no longer used.")
    return Finding("records", "pass", saw)


def _grows(change: Change) -> bool:
    return not change.waits and change.growth > 0


def _by_zone(changes: Iterable[Change]) -> Iterator[tuple[str, list[Change]]]:
    zones: dict[str, list[Change]] = {}
    for each in changes:
        zones.setdefault(each.zone, []).append(each)
    yield from zones.items()


def _outcome(change: Change, seen: Seen) -> Iterator[Finding]:
    """Judge one change by what is seen afterwards."""
    if change.put:
        yield from standing(change.what, change.put, seen)
        return
    for trouble in seen.troubles:
        yield Finding(change.what, "unknown", trouble)
    for old in change.gone:
        having = [str(each.server) for each in seen.answers if old in each.records]
        shown = f"{old.name} {old.kind} {old.data}"
        if having:
            yield Finding(change.what, "fail", f"{shown}: still at {', '.join(having)}")
        elif seen.answers:
            servers = counted(len(seen.answers), "server")
            yield Finding(change.what, "pass", f"{shown}: gone from {servers}")


def _not_begun(change: Change) -> str:
    return f"{' '.join(change.question)}: not begun: an earlier one is not everywhere yet"
