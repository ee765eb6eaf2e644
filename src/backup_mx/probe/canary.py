"""A relay's own metrics: whether its agent lives, and its canary still walks."""

from __future__ import annotations

import ipaddress
import math
import re
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from backup_mx.config import Config
from backup_mx.config.options import Relay
from backup_mx.errors import MachineError
from backup_mx.findings import Finding
from backup_mx.net.fetch import FetchError, fetch, private
from backup_mx.probe.probe import Probe, Scene, Seen, Target, relays
from backup_mx.relay.text import span

SECONDS = 15.0
MOST = 1024 * 1024
STUCK = 120.0
"""Seconds after which what an agent says is too old; it looks every few."""

_LONGEST = 4096  # characters of a line; the agent's own have some hundred
_LABEL = re.compile(r'(\w+)="((?:\\.|[^"\\])*)"')
# Each label where the one before ends: looked for anywhere, they take the square of the length.
_LINE = re.compile(r'(\w+)(?:\{((?:\w+="(?:\\.|[^"\\])*"(?:, ?|(?=\})))*)\})? (\S+)')
_WALKED = "backup_mx_canary_last_walk_timestamp_seconds"
_UP = "backup_mx_canary_up"


@dataclass(frozen=True)
class Sample:
    """A line of Prometheus' text format."""

    name: str
    labels: Mapping[str, str]
    value: float

    @property
    def primary(self) -> str:
        """The primary it is about."""
        return self.labels.get("primary", "")


def samples(text: str) -> Iterator[Sample]:
    """Read metrics; what is no sample is passed by. Raises ValueError for what no agent says."""
    for line in text.splitlines():
        if len(line) > _LONGEST:
            raise ValueError(f"a line of {len(line)} characters")
        found = _LINE.fullmatch(line.strip())
        if found and not line.startswith("#"):
            yield Sample(found[1], dict(_LABEL.findall(found[2] or "")), float(found[3]))


def look(scene: Scene, target: Target) -> Seen:
    """Fetch a relay's metrics and judge them. Raises MachineError."""
    place = scene.config.relays[target.relay].metrics_at
    try:
        text = fetch(f"http://{place}/metrics", seconds=SECONDS, most=MOST)
        said = tuple(samples(text.decode(errors="replace")))
    except (FetchError, ValueError) as error:
        hint = "[access] metrics_from names who may ask, metrics_at where"
        raise MachineError(f"its metrics cannot be fetched: {error} ({hint})") from None
    return Seen(judged(target.name, said, scene.config.queue.canary_late, time.time()))


def judged(name: str, said: Sequence[Sample], late: float, now: float) -> Finding:
    """Judge a relay's metrics; late is how many seconds after a walk it has stopped."""
    said = [each for each in said if math.isfinite(each.value)]
    age, started = _one(said, "snapshot_age_seconds"), _one(said, "agent_start_time_seconds")
    if age is None or started is None:
        return Finding("canary", "unknown", f"{name}: what answers there is no agent of backup-mx")
    if age > STUCK:
        do = "systemctl status backup-mx-agent on the relay tells why"
        return Finding("canary", "fail", f"{name}: its agent is stuck since {span(age)}", do)
    # Before its first walk, an agent that has just started is not late.
    walked = {each.primary: max(each.value, started) for each in said if each.name == _WALKED}
    primary = min(walked, key=lambda each: walked[each], default="")
    if walked and now - walked[primary] > late:
        saw = f"{name}: its canary last walked to {primary} {span(now - walked[primary])} ago"
        return Finding("canary", "fail", saw, "the journal of backup-mx-agent tells why")
    return _came_through(name, said)


def _came_through(name: str, said: Sequence[Sample]) -> Finding:
    down = [each.primary for each in said if each.name == _UP and not each.value]
    if down:
        saw = f"{name} cannot hand mail over to {', '.join(down)} now; it keeps it"
        return Finding("canary", "warn", saw, "backup-mx status says more")
    return Finding("canary", "pass", f"{name}: its canary walks, and comes through")


def _one(said: Sequence[Sample], name: str) -> float | None:
    return next((each.value for each in said if each.name == f"backup_mx_{name}"), None)


def _targets(config: Config) -> Sequence[Target]:
    asked = relays(config) if config.access.metrics_from else ()
    return tuple(each for each in asked if not _in_public(config.relays[each.relay]))


def _left_out(config: Config) -> Sequence[str]:
    if not config.access.metrics_from:
        return ("[access] metrics_from is empty: nobody may ask for metrics",)
    return tuple(
        f"{each.hostname}: metrics_at = {each.metrics_at} is in public, and its http is in clear"
        for each in config.relays.values()
        if _in_public(each)
    )


def _in_public(relay: Relay) -> bool:
    """Whether its metrics had to be asked for over the open net; a name may lead anywhere."""
    try:
        ipaddress.ip_address(relay.metrics_at.host)
    except ValueError:
        return False
    return not private(relay.metrics_at.host)


CANARY = Probe("canary", "each relay's agent looks after the way home", _targets, look, _left_out)
