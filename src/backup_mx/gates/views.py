"""From where a relay is looked at: this machine, another relay, or wherever a command leads."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from backup_mx.config import Config
from backup_mx.gates.gate import View
from backup_mx.machine.ship import Answer, Host, Tell, run_local

HERE = "this machine"
"""The name of a view from this machine itself."""
SECONDS = 300.0
"""How long a program may take elsewhere: longer than all its own limits together."""


@dataclass(frozen=True)
class Command:
    """A command that runs Python somewhere and passes on its standard input.

    run() starts that command, whatever argv it is given.
    """

    words: tuple[str, ...]

    def run(self, argv: Sequence[str], *, stdin: bytes = b"", tell: Tell | None = None) -> Answer:
        """Run the command. Raises what `backup_mx.machine.ship.run_local` does."""
        del argv, tell
        return run_local(self.words, stdin, None, SECONDS)


def view(config: Config, wanted: Sequence[str], reach: Callable[[str], Host]) -> View:
    """Return from where a relay is looked at.

    wanted are the words of a command, or another relay's name alone; none are what the config says,
    by default this machine. reach returns a relay as a host.
    """
    if relay := relay_meant(config, wanted):
        return View(f"the relay {relay}", reach(relay))
    words = tuple(wanted) or config.gates.outside
    if words:
        return View(f"`{shlex.join(words)}`", Command(words))
    return View(HERE, Command((sys.executable, "-I", "-")))


def relay_meant(config: Config, wanted: Sequence[str]) -> str:
    """Return the relay that such words name, "" where they are a command."""
    return wanted[0] if len(wanted) == 1 and wanted[0] in config.relays else ""
