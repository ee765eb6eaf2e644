"""Whether an alarm reaches anybody: one is sent as a test, and Alertmanager counts what it sends.

As Prometheus does, it is handed to every Alertmanager; which of them tells is theirs to settle.
"""

from __future__ import annotations

import json
import re
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from backup_mx.errors import MachineError
from backup_mx.findings import Finding
from backup_mx.gates import monitoring
from backup_mx.gates.gate import Gate, Site
from backup_mx.net.fetch import FetchError, fetch

TEST = "BackupMxTest"
"""The name of the alarm that is sent; no rule has it."""
_LASTS = timedelta(minutes=10)
_SECONDS = 15.0
_NAME = "alarms"
# https://github.com/prometheus/alertmanager, notify/notify.go: each try, by whatever receiver.
_TRIES = re.compile(
    r"^alertmanager_notification_requests(_failed)?_total(?:\{.*\})? (\S+)$", re.MULTILINE
)


@dataclass(frozen=True)
class Patience:
    """Seconds: until a notification has to go, its group's interval included; for more; a look."""

    sent: float = 330.0
    others: float = 5.0
    pace: float = 1.0


@dataclass(frozen=True)
class Tries:
    """How often Alertmanagers tried to tell somebody, and how many of these tries failed."""

    all: float = 0.0
    failed: float = 0.0

    def since(self, before: Tries) -> Tries:
        """Return the tries that were made since."""
        return Tries(self.all - before.all, self.failed - before.failed)


def judge(
    site: Site, patience: Patience = Patience(), sleep: Callable[[float], None] = time.sleep
) -> Iterator[Finding]:
    """Send an alarm, where there is a Prometheus, and see it go out. Raises MachineError."""
    url = site.config.monitoring.prometheus
    if url is None:
        yield Finding(_NAME, "pass", "no Prometheus is named in [monitoring]: it sends none")
        return
    found = monitoring.heard(str(url).rstrip("/"), site.relay.name).alertmanagers
    places = [monitoring.near(str(url), each) for each, why in found.items() if not why]
    if not places:
        saw = "no Alertmanager answers from here: none was sent"
        yield Finding(_NAME, "warn", saw, "see that an alarm reaches you")
        return
    site.tell(f"sending the alarm {TEST} by your Alertmanager")
    before = _tries(places)
    for place in places:
        post(place, alarm(site.relay.name, site.now()))
    yield judged(_seen(places, before, patience, sleep))


def alarm(relay: str, now: datetime) -> bytes:
    """Return the alarm as Alertmanager's API, version 2, takes it.

    Its time makes it another one than the last, which would not be told again so soon.
    """
    ran = now.astimezone(UTC).isoformat(timespec="seconds")
    told = {
        "labels": {"alertname": TEST, "severity": "info", "relay": relay, "ran": ran},
        "annotations": {
            "summary": f"a test for {relay}: this is how an alarm reaches you",
            "description": "Nothing is wrong, nothing is to be done.",
        },
        "startsAt": now.astimezone(UTC).isoformat(),
        "endsAt": (now + _LASTS).astimezone(UTC).isoformat(),
    }
    return json.dumps([told]).encode()


def post(place: str, alarms: bytes) -> None:
    """Hand alarms to the Alertmanager at a URL. Raises MachineError."""
    try:
        fetch(f"{place}/api/v2/alerts", seconds=_SECONDS, body=alarms)
    except FetchError as error:
        raise MachineError(f"Alertmanager took no alarm: {error}") from None


def counted(text: str) -> Tries:
    """Sum what an Alertmanager's metrics say of all its receivers."""
    found = [(bool(failed), float(count)) for failed, count in _TRIES.findall(text)]
    return Tries(
        sum(count for failed, count in found if not failed),
        sum(count for failed, count in found if failed),
    )


def _tries(places: Sequence[str]) -> Tries:
    try:
        each = [counted(fetch(f"{place}/metrics", seconds=_SECONDS).decode()) for place in places]
    except (FetchError, ValueError) as error:
        raise MachineError(f"Alertmanager does not say what it has sent: {error}") from None
    return Tries(sum(one.all for one in each), sum(one.failed for one in each))


def _seen(
    places: Sequence[str], before: Tries, patience: Patience, sleep: Callable[[float], None]
) -> Tries:
    """Return the tries since, once there was one, and others have had the time for theirs."""
    ends = time.monotonic() + patience.sent
    while _tries(places).since(before).all == 0 and time.monotonic() < ends:
        sleep(patience.pace)
    sleep(patience.others)
    return _tries(places).since(before)


def judged(tries: Tries) -> Finding:
    """Judge what became of the alarm. Alertmanager counts all that it tells, so others', too."""
    look = "its log, and its receivers' settings"
    if tries.all < 0 or tries.failed < 0:
        return Finding(_NAME, "unknown", "Alertmanager was started anew meanwhile", "run it again")
    if not tries.all:
        do = f"see to where its routes lead {TEST}, severity info; or is it silenced?"
        return Finding(_NAME, "warn", "Alertmanager took the alarm, and told nobody", do)
    if tries.failed >= tries.all:
        return Finding(_NAME, "fail", "Alertmanager cannot tell its receiver anything", look)
    if tries.failed:
        saw = f"{tries.failed:.0f} of Alertmanager's {tries.all:.0f} notifications failed"
        return Finding(_NAME, "warn", saw, look)
    return Finding(_NAME, "pass", f"a receiver took {TEST}: see that it arrived")


GATE = Gate(
    _NAME, "an alarm reaches a receiver of your Alertmanager", ("MX",), judge,
    lasting=True, of_relay=False,
)  # fmt: skip
