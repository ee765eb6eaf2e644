"""The gate ``reboot``: the way to the primary comes back by itself when the router restarts.

The operator restarts it; the relay's canary is watched as it goes and comes back. Who runs this
behind that router does not reach the relay meanwhile: what happened is read from it afterwards.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace

from backup_mx.errors import MachineError
from backup_mx.findings import Finding
from backup_mx.gates import relay
from backup_mx.gates.gate import Gate, Site
from backup_mx.machine.ship import Host
from backup_mx.relay.state import STARTING, UP, Primary, Snapshot
from backup_mx.relay.text import span


@dataclass(frozen=True)
class Patience:
    """Seconds: until the router is restarted, until it must be back, and between two looks."""

    go: float = 900.0
    back: float = 900.0
    pace: float = 2.0


@dataclass(frozen=True)
class Course:
    """What became of the way to a primary since a moment; times are the relay's, since 1970."""

    began: float
    gone: float | None = None
    back: float | None = None
    words: str = ""

    def after(self, primary: Primary) -> Course:
        """Return the course with what the relay says of the primary now."""
        if primary.state == UP:
            # Up since later than we began: it was away, even if nobody saw it.
            return replace(self, back=primary.since) if primary.since > self.began else self
        if primary.state == STARTING:
            return self
        words = primary.walk.words if primary.walk else ""
        return replace(self, gone=self.gone or primary.since, back=None, words=words)


def judge(
    site: Site, patience: Patience = Patience(), sleep: Callable[[float], None] = time.sleep
) -> Iterator[Finding]:
    """Ask the operator for a restart and watch it. Raises MachineError, UnreachableError."""
    word = relay.settled(site)
    if not word.alive or word.snapshot is None:
        yield Finding(_NAME, "unknown", "the relay's agent does not run: nobody would see it")
        return
    down = [each for each in word.snapshot.primaries if each.state != UP]
    if down:
        saw = f"{_some(each.name for each in down)} not up before anything was restarted"
        yield Finding(_NAME, "unknown", saw, "begin when it is up: backup-mx gate run canary")
        return
    courses = {each.name: Course(word.now) for each in word.snapshot.primaries}
    site.tell(f"Restart the router in front of {_some(courses)} now.")
    pace = span(site.config.queue.canary_idle)
    site.tell(f"It has to be away for longer than {pace}: that often the relay looks.")
    ended = _watched(site, courses, word.snapshot.started, patience, sleep)
    yield from judged(ended, patience)


def _watched(
    site: Site,
    courses: Mapping[str, Course],
    started: float,
    patience: Patience,
    sleep: Callable[[float], None],
) -> Mapping[str, Course]:
    """Return the courses when all are back, or the time is over.

    The relay itself may be out of reach from here: that the way is down is then as good as seen.
    Raises MachineError when the relay's agent was restarted, which knows nothing of before.
    """
    ends, gone = time.monotonic() + patience.go, False
    while time.monotonic() < ends and not all(each.back for each in courses.values()):
        sleep(patience.pace)
        snapshot = _look(site.host)
        if snapshot and snapshot.started != started:
            raise MachineError("the relay's agent was restarted meanwhile: begin again")
        if snapshot:
            seen = {each.name: each for each in snapshot.primaries}
            courses = {
                name: course.after(seen[name]) if name in seen else course
                for name, course in courses.items()
            }
        if not gone and (snapshot is None or any(each.gone for each in courses.values())):
            gone, ends = True, time.monotonic() + patience.back
            who = "away" if snapshot else "away, or this machine is"
            site.tell(f"It is {who}; it has {span(patience.back)} to come back.")
    return courses


def _look(host: Host) -> Snapshot | None:
    """Return what the agent says now, None while it cannot be asked."""
    with contextlib.suppress(MachineError):
        return relay.word(host).snapshot
    return None


def judged(courses: Mapping[str, Course], patience: Patience) -> Iterator[Finding]:
    """Judge how the way to each primary fared. Pure."""
    for name, course in courses.items():
        if course.back:
            since = f", {span(course.back - course.gone)} after it went" if course.gone else ""
            yield Finding(name, "pass", f"went away and came back by itself{since}")
        elif course.gone:
            saw = f"away, and not back within {span(patience.back)}: {course.words}"
            do = "see the tunnel and the forwarded port: what was not stored on the router is gone"
            yield Finding(name, "fail", saw, do)
        else:
            saw = f"never seen going, within {span(patience.go)}"
            yield Finding(
                name, "unknown", saw, "backup-mx gate run reboot, then restart the router"
            )


def _some(names: Iterable[str]) -> str:
    return " and ".join(names)


_NAME = "reboot"
GATE = Gate(
    _NAME, "the way to the primary outlives the router's restart", ("MX",), judge,
    live=True, lasting=True,
)  # fmt: skip
