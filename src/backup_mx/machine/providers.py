"""How a machine is replaced: each provider has its own way, behind one small protocol."""

from __future__ import annotations

import contextlib
import shlex
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from backup_mx.errors import HostError, MachineError

if TYPE_CHECKING:
    from backup_mx.machine.ship import Tell

_STDERR = 2  # a result for programs has standard output to itself
_REMIND_S = 60.0


class Provider(Protocol):
    """Makes a machine anew, with a fresh root disk and today's user-data."""

    @property
    def words(self) -> str:
        """What it does, in the words of a command line."""

    def replace(self) -> None:
        """Replace the machine; return when that is under way.

        Raises MachineError, HostError; with HostError it has not even begun.
        """


@dataclass(frozen=True)
class Terraform:
    """Terraform, or OpenTofu, in the operator's ``folder``: planned() first, in it replace().

    Its plan lies in the file ``saved`` in between, so that nobody has to be asked once mail is
    stopped. Like Terraform's state it may hold secrets.
    """

    folder: Path
    relay: str
    saved: Path
    tell: Tell

    @property
    def words(self) -> str:
        """The command."""
        return shlex.join((*self._program, "apply", self._machine))

    @property
    def _program(self) -> tuple[str, ...]:
        program = next(filter(shutil.which, ("terraform", "tofu")), "terraform")
        return program, f"-chdir={self.folder}"

    @property
    def _machine(self) -> str:
        return f'-replace=oci_core_instance.relay["{self.relay}"]'

    @contextlib.contextmanager
    def planned(self) -> Iterator[None]:
        """Show in the operator's terminal what replace() does; it can be had in the block only.

        Raises MachineError, HostError.
        https://developer.hashicorp.com/terraform/cli/commands/plan#out-filename
        """
        self.saved.unlink(missing_ok=True)
        self.saved.touch(mode=0o600)
        try:
            in_the_terminal((*self._program, "plan", self._machine, f"-out={self.saved}"), Path())
            yield
        finally:
            self.saved.unlink(missing_ok=True)

    def replace(self) -> None:
        """Do what was planned; Terraform refuses where something has changed since."""
        in_the_terminal((*self._program, "apply", str(self.saved)), Path(), self.tell)


@dataclass(frozen=True)
class Command:
    """The operator's own command, run in ``folder``."""

    argv: tuple[str, ...]
    folder: Path
    tell: Tell

    @property
    def words(self) -> str:
        """The command."""
        return shlex.join(self.argv)

    def replace(self) -> None:
        """Run it in the operator's terminal."""
        in_the_terminal(self.argv, self.folder, self.tell)


def command(argv: Sequence[str], values: Mapping[str, str], folder: Path, tell: Tell) -> Command:
    """Return the operator's command with each ``{name}`` of ``values`` filled in."""
    filled = list(argv)
    for name, value in values.items():
        filled = [part.replace(f"{{{name}}}", value) for part in filled]
    return Command(tuple(filled), folder, tell)


def in_the_terminal(argv: Sequence[str], folder: Path, tell: Tell | None = None) -> None:
    """Run a program that may ask the operator. Raises MachineError when it fails.

    Raises HostError when it cannot be run. An interrupt is the program's to heed: Terraform ends
    what it is at, and writes down what it has made. So nothing else ends it here, either; where
    mail is stopped meanwhile, ``tell`` hears so every minute.
    """
    # Not SIG_IGN: that the program would inherit.
    heeded = signal.signal(signal.SIGINT, lambda _signal, _frame: None)
    try:
        with subprocess.Popen(argv, cwd=folder, stdout=_STDERR) as program:
            code = _awaited(program, argv[0], tell) if tell else program.wait()
    except FileNotFoundError as error:
        missing = error.filename if error.filename != argv[0] else f"{argv[0]} on this host"
        raise HostError(f"there is no {missing}") from None
    except OSError as error:
        raise HostError(f"{argv[0]} cannot be run: {error.strerror}") from None
    finally:
        signal.signal(signal.SIGINT, heeded)
    if code:
        raise MachineError(f"`{shlex.join(argv)}` ended with {code}")


def _awaited(program: subprocess.Popen[bytes], name: str, tell: Tell) -> int:
    """Wait for a program's end, and tell each minute that it takes; return its exit code."""
    began = time.monotonic()
    while True:
        try:
            return program.wait(_REMIND_S)
        except subprocess.TimeoutExpired:
            minutes = (time.monotonic() - began) / 60
            tell(
                f"{name} still runs, for {minutes:.0f} min; the relay takes no mail meanwhile,"
                " senders try again. Ctrl-C ends it"
            )
