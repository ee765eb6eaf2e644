"""What a run does, step by step; of the first one on a machine, a file tells afterwards."""

from __future__ import annotations

import contextlib
import json
import time
from collections.abc import Callable, Iterator
from typing import Any

from .files import APPLIED, STATE
from .system import ApplyError, tell

REPORT = STATE / "first-boot.json"
PAUSE_S = 5


class Steps:
    """The steps of a run that is patient for so many seconds.

    REPORT tells of each while this machine has not been made a relay yet: when it began (UTC), how
    many seconds and tries it took, and its outcome: ``running``, ``ok`` or what went wrong.
    """

    def __init__(self, relay: str, version: str, patience: float) -> None:
        self.patience = patience
        self.deadline = time.monotonic() + patience
        self.first = not APPLIED.exists()
        self.report: dict[str, Any] = {"relay": relay, "version": version, "steps": []}

    @contextlib.contextmanager
    def step(self, name: str) -> Iterator[dict[str, Any]]:
        """Take part of what the block does; the block may count its tries."""
        began = time.monotonic()
        step = {
            "step": name,
            "began": time.strftime("%FT%TZ", time.gmtime()),
            "seconds": 0.0,
            "tries": 1,
            "outcome": "running",
        }
        self.report["steps"].append(step)
        self.write()
        try:
            yield step
            step["outcome"] = "ok"
        except BaseException as error:
            step["outcome"] = str(error) or repr(error)
            raise
        finally:
            step["seconds"] = round(time.monotonic() - began, 1)
            self.write()

    def until(self, name: str, attempt: Callable[[], str]) -> None:
        """Do a step that returns a complaint until it has none, or the patience has run out."""
        with self.step(name) as step:
            while complaint := attempt():
                left = self.deadline - time.monotonic()
                if left <= 0:
                    raise ApplyError(f"{name}: given up after {self.patience:.0f} s: {complaint}")
                tell(f"{name}: not yet ({complaint}); trying again")
                time.sleep(min(PAUSE_S, left))
                step["tries"] += 1

    def write(self) -> None:
        """Replace REPORT; a full disk is no reason to stop."""
        if self.first:
            with contextlib.suppress(OSError):
                new = REPORT.with_suffix(".new")
                new.write_text(json.dumps(self.report, indent=1))
                new.replace(REPORT)
