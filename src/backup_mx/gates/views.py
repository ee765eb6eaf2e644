"""From where a relay is looked at: this machine, another relay, or wherever a command leads."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from backup_mx.config import Config
from backup_mx.errors import MachineError
from backup_mx.gates.gate import View
from backup_mx.machine.ship import Answer, Host, Tell, run_local

HERE = "this machine"
"""What a view is called that is from nowhere else."""
SECONDS = 300.0
"""How long a program may take elsewhere: longer than all its own limits together."""


@dataclass(frozen=True)
class Command:
    """A command that runs Python somewhere, and passes it its standard input.

    It stands for whatever it is asked to run.
    """

    words: tuple[str, ...]

    def run(self, argv: Sequence[str], *, stdin: bytes = b"", tell: Tell | None = None) -> Answer:
        """Run the command. Raises what `backup_mx.machine.ship.run_local` does."""
        del argv, tell
        return run_local(self.words, stdin, None, SECONDS)


def view(config: Config, relay: str, wanted: str | None, reach: Callable[[str], Host]) -> View:
    """Return from where the relay called ``relay`` is looked at.

    wanted is another relay's name or a command as a shell has it; None is what the config says, by
    default this machine. reach returns a relay as a host. Raises MachineError for the relay itself.
    """
    if wanted == relay:
        raise MachineError(f"{relay} cannot look at itself from outside: choose another place")
    if wanted in config.relays:
        return View(f"the relay {wanted}", reach(str(wanted)))
    words = tuple(_words(wanted)) if wanted else config.gates.outside
    if words:
        return View(f"`{shlex.join(words)}`", Command(words))
    return View(HERE, Command((sys.executable, "-I", "-")))


def _words(command: str) -> list[str]:
    try:
        return shlex.split(command)
    except ValueError as error:
        raise MachineError(f"{command!r} is no command: {error}") from None
