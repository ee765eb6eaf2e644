"""The lab's operator at work: the real command line, over the lab's own network, DNS and SSH."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from backup_mx.lab import operator
from backup_mx.lab.world import World


@dataclass(frozen=True)
class Ran:
    """How a run of backup-mx ended, and what it said."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:  # noqa: ANN401  whatever the verb says
        """What it printed, which is JSON."""
        return json.loads(self.out)


@dataclass(frozen=True)
class Operator:
    """Who runs backup-mx in a lab that is up, in the folder of the lab's backup-mx.toml."""

    world: World

    @property
    def folder(self) -> Path:
        """The folder of backup-mx.toml and of build/."""
        return operator.Operator(self.world.name).folder

    def run(
        self,
        *words: str,
        code: int | None = 0,
        stdin: str = "",
        environment: Mapping[str, str] | None = None,
        timeout: float = 300.0,
        hear: Callable[[str], None] = lambda _line: None,
    ) -> Ran:
        """Run ``backup-mx WORDS``, which has to end with ``code`` (None: with any).

        hear gets each line of its standard error as it comes.
        """
        set_to = [f"{key}={value}" for key, value in (environment or {}).items()]
        argv = ["env", *set_to, "backup-mx", *words]
        its = operator.Operator(self.world.name)
        done = its.run(argv, stdin=stdin.encode(), timeout=timeout, hear=hear)
        ran = Ran(done.returncode, done.text, done.stderr.decode(errors="replace"))
        assert code is None or ran.code == code, f"ended with {ran.code}\n{ran.out}{ran.err}"
        return ran
