"""Where a lab's operator is told: a place on the Internet, which notes each notice that it takes.

``lab-place.service`` on the machine internet; backup-mx-operator.toml names it.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass

from backup_mx.lab.machine import Machine

PORT = 8090
TOLD = "/var/lib/private/lab-place/told.jsonl"


@dataclass(frozen=True)
class Place:
    """The place on ``machine``."""

    machine: Machine

    def has(self, words: str, since: float) -> bool:
        """Whether it has a notice of mx2 whose title begins so (a regular expression).

        Only what came after ``since`` counts, in seconds since 1970.
        """
        title = re.compile(rf"^\[mx2\] (?:{words})", re.MULTILINE)
        return any(title.search(text) for text in self._texts(since))

    def _texts(self, since: float) -> Iterator[str]:
        """Yield each notice; one that stands for several has their titles in its body."""
        file = self.machine.path(TOLD)
        # The last line may not be whole yet.
        for line in file.read_text().split("\n")[:-1] if file.exists() else []:
            read = json.loads(line)
            if read["time"] > since:
                yield f"{read['told'].get('title')}\n{read['told'].get('message')}"
