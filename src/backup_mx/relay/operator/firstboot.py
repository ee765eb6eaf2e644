"""How this machine became a relay, as relay.pyz has noted it (machine/apply/steps.py)."""

from __future__ import annotations

import json
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from backup_mx.relay import text

REPORT = Path("/var/lib/backup-mx/first-boot.json")
OK, RUNNING = "ok", "running"
_WORDS = 160  # characters of what went wrong


@dataclass(frozen=True)
class Step:
    """A step: how many seconds and tries it took, and "ok", "running" or what went wrong."""

    step: str
    seconds: float
    tries: int
    outcome: str


@dataclass(frozen=True)
class FirstBoot:
    """All steps, and when the first one began, in seconds since 1970."""

    began: float
    steps: tuple[Step, ...]

    @property
    def line(self) -> str:
        """It in words: how long it took, or what it came to grief over."""
        head = f"first boot: {text.moment(self.began)}"
        for each in self.steps:
            if each.outcome == RUNNING:
                return f"{head}, NOT COMPLETE: {each.step} did not end"
            if each.outcome != OK:
                return f"{head}, FAILED: {each.step}: {each.outcome[:_WORDS]}"
        again = "".join(f", {it.step} at try {it.tries}" for it in self.steps if it.tries > 1)
        return f"{head}, in {text.span(sum(each.seconds for each in self.steps))}{again}"


def read(path: Path = REPORT) -> FirstBoot | None:
    """Return what is noted; None where nothing is, or nothing that can be read."""
    try:
        steps = json.loads(path.read_bytes())["steps"]
        return FirstBoot(
            datetime.fromisoformat(steps[0]["began"]).timestamp(), tuple(map(_step, steps))
        )
    except (OSError, ValueError, LookupError, TypeError):
        return None


def _step(found: dict[str, object]) -> Step:
    """Raise LookupError, TypeError or ValueError where it is none."""
    return Step(
        str(found["step"]),
        float(str(found["seconds"])),
        int(str(found["tries"])),
        str(found["outcome"]),
    )
