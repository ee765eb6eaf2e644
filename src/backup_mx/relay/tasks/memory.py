"""What must outlive agent and ledger: when it last flushed, when the daily message went."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path

from backup_mx.relay import files


@dataclass
class Memory:
    """Moments by name, in seconds since 1970, kept in a file; without one, it forgets.

    A number of something may stand among them, too.
    """

    path: Path
    moments: dict[str, float] = field(default_factory=dict)

    @classmethod
    def open(cls, path: Path) -> Memory:
        """Read what is kept; a file that is missing or damaged holds nothing."""
        try:
            found = json.loads(path.read_bytes())
            return cls(path, {str(key): float(value) for key, value in found.items()})
        except (OSError, ValueError, TypeError, AttributeError):
            return cls(path)

    def get(self, name: str) -> float:
        """Return a moment, 0.0 where there was none."""
        return self.moments.get(name, 0.0)

    def keep(self, name: str, moment: float) -> None:
        """Keep a moment. Raises OSError where the file cannot be written; it is kept till then."""
        self.moments[name] = moment
        files.replace(self.path, json.dumps(self.moments), 0o600)
