"""A relay that can be replaced: it answers as a machine does, and notes what was done."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from backup_mx.errors import UnreachableError
from backup_mx.machine import probe
from backup_mx.machine.rebuild import Clock
from backup_mx.machine.ship import Answer, Tell
from backup_mx.relay.operator import parcel
from backup_mx.relay.operator.parcel import Letter, To
from backup_mx.relay.operator.verbs import PROGRAM
from backup_mx.relay.state import Primary, Snapshot, Sums

CERTIFICATE = {"sha256": "aa", "issuer": "CN=A Real One", "own": False, "until": 1_900_000_000.0}


def snapshot(waiting: int = 0, delivered: int = 0, state: str = "down") -> Snapshot:
    """Return what an agent says that has held its ledger against the queue."""
    return Snapshot(
        time=100.0,
        started=50.0,
        relay="mx2",
        hostname="mx2.example.org",
        version="v",
        primaries=(Primary("home", state, 60.0),),
        sums=Sums(accepted=waiting + delivered, delivered=delivered, waiting=waiting),
        reconciled=60.0,
    )


def facts(**others: object) -> dict[str, Any]:
    """Return what the probe tells of a relay with a volume on which nothing waits."""
    return {
        "boot": "first",
        "settled": True,
        "version": "v",
        "volume": "/dev/vdb",
        "queue": {},
        "certificate": CERTIFICATE,
        "wireguard": "",
        "ssh": ["SHA256:same"],
        **others,
    }


def ids(count: int) -> dict[str, str]:
    """Return that many messages, all deferred."""
    return {f"4Bmx00{number:04d}z1": "deferred" for number in range(count)}


def exported(folder: Path, queue_ids: list[str]) -> Path:
    """Write what export writes, one message for each ID."""
    body = b"Subject: hello\r\n\r\nhello\r\n"
    for each in queue_ids:
        (folder / f"{each}.eml").write_bytes(body)
        letter = Letter(
            format=parcel.FORMAT,
            relay="mx2.example.org",
            ids=(each,),
            sender="a@example.net",
            recipients=(To("alice@example.org"),),
            accepted=1_700_000_000,
            held=False,
            size=len(body),
            sha256=hashlib.sha256(body).hexdigest(),
            smtputf8=False,
            eightbit=False,
            attributes={},
        )
        parcel.write(folder, letter)
    return folder


@dataclass
class FakeRelay:
    """The relay, now this machine, now that; it is also what replaces it."""

    facts: dict[str, Any] = field(default_factory=facts)
    snapshot: Snapshot | None = field(default_factory=snapshot)
    maintenance: float | None = None
    unreachable: str = ""
    after: Callable[[FakeRelay], None] = lambda _: None
    """What a replacement makes of it."""
    arriving: dict[str, str] = field(default_factory=dict)
    """Mail that comes before Postfix has stopped."""
    busy: set[str] = field(default_factory=set)
    """Messages that are not taken at the first try."""
    running: bool = True
    """Whether Postfix runs, and whether systemd may start it."""
    masked: bool = False
    broken: bool = False
    """Whether Postfix cannot be started."""
    done: list[str] = field(default_factory=list)

    words = "by magic"

    def replace(self) -> None:
        """Put another machine in its place."""
        self.done.append("replace")
        self.facts |= {"boot": "second", "left": "", "version": ""}
        self.running, self.masked = True, False
        self.after(self)

    def run(self, argv: Sequence[str], *, stdin: bytes = b"", tell: Tell | None = None) -> Answer:
        """Answer as the machine would that is there now."""
        del tell
        if self.unreachable:
            raise UnreachableError(self.unreachable)
        match list(argv):
            case ["python3", "-I", "-"]:
                return Answer(0, json.dumps(self.facts), "")
            case [program, "status", "--json"] if program == PROGRAM:
                return self._status()
            case [program, "import", "--carry"] if program == PROGRAM:
                return self._import(stdin)
            case ["dd", _, place] if place == f"of={probe.LEFT}":
                self.facts["left"] = stdin.decode()
        return self._command(list(argv))

    def _command(self, argv: list[str]) -> Answer:
        match argv:
            case ["systemctl", verb, "postfix.service", *_]:
                self.done.append(verb)
                return self._systemctl(verb)
            case ["postfix", "status"]:
                return Answer(0 if self.running else 1, "", "")
            case ["env", "tailscale", *_]:
                return Answer(127, "", "")
            case ["mktemp", *_]:
                return Answer(0, "/tmp/x\n", "")
            case ["python3", _]:
                self.done.append("deploy")
                self.facts |= {"version": "the config's", "certificate": CERTIFICATE}
        return Answer(0, "", "")

    def _systemctl(self, verb: str) -> Answer:
        if verb in ("mask", "unmask"):
            self.masked = verb == "mask"
        elif verb == "stop":
            self.facts["queue"] |= self.arriving
            self.facts["certificate"] = None
            self.running = False
        elif self.masked or self.broken:
            return Answer(1, "", "it cannot be started")
        else:
            self.running = True
        return Answer(0, "", "")

    def _status(self) -> Answer:
        if self.snapshot is None:
            return Answer(127, "", "no such file")
        told = {"snapshot": asdict(self.snapshot), "maintenance": self.maintenance}
        return Answer(0, json.dumps(told), "")

    def _import(self, stdin: bytes) -> Answer:
        lines = [json.loads(line) for line in stdin.splitlines()]
        came = [line["id"] for line in lines if "letter" in line]
        taken = [each for each in came if each not in self.busy]
        self.busy.clear()
        self.done.append(f"import {len(taken)}")
        self.facts["queue"] |= dict.fromkeys((f"new{each}" for each in taken), "deferred")
        results = [{"id": each, "done": each in taken, "said": "busy"} for each in came]
        return Answer(0, json.dumps({"results": results}), "")


def hurried() -> Clock:
    """Return a clock whose time passes by sleeping only, and at once."""
    now = [0.0]

    def sleep(seconds: float) -> None:
        now[0] += seconds

    return Clock(lambda: now[0], sleep)


def later(relay: FakeRelay, **changes: object) -> None:
    """Have the agent say something else from now on."""
    assert relay.snapshot is not None
    relay.snapshot = replace(relay.snapshot, **changes)  # type: ignore[arg-type]
