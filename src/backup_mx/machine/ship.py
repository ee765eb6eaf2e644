"""relay.pyz to a running machine, over SSH."""

from __future__ import annotations

import contextlib
import shlex
import subprocess
import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from backup_mx.errors import HostError, MachineError, UnreachableError
from backup_mx.values import SshTarget

Tell = Callable[[str], None]
# ssh's own exit code when it did not get as far as the remote command (ssh(1), EXIT STATUS).
SSH_FAILED = 255
UNKNOWN_KEY = "Host key verification failed"


@dataclass(frozen=True)
class Answer:
    """What a command on a machine ended with and said."""

    code: int
    stdout: str
    stderr: str


class Host(Protocol):
    """A machine on which commands can be run as root."""

    def run(self, argv: Sequence[str], *, stdin: bytes = b"", tell: Tell | None = None) -> Answer:
        """Run ``argv`` as root; hand each line of its standard output to ``tell`` as it comes."""


@dataclass(frozen=True)
class SshHost:
    """A machine reached by SSH, with keys only; ``config`` is an ssh_config(5) file to use."""

    target: SshTarget
    config: Path | None = None

    def run(self, argv: Sequence[str], *, stdin: bytes = b"", tell: Tell | None = None) -> Answer:
        """Run ``argv`` as root on the machine. Raises UnreachableError, HostError."""
        command = argv if self.target.user == "root" else ["sudo", "-n", "--", *argv]
        answer = run_local([*self.ssh(), shlex.join(command)], stdin, tell)
        if answer.code == SSH_FAILED:
            said = answer.stderr.strip() or "ssh said nothing"
            hint = "; log in once by hand to accept its key" if UNKNOWN_KEY in said else ""
            raise UnreachableError(f"{self.target} cannot be reached: {said}{hint}")
        return answer

    def ssh(self) -> list[str]:
        """Return the ssh command line up to the remote command."""
        config = ["-F", str(self.config)] if self.config else []
        return [
            *("ssh", *config, "-T", "-o", "BatchMode=yes", "-o", "ConnectTimeout=15"),
            *("-o", "ServerAliveInterval=15", "-p", str(self.target.port)),
            *("-l", self.target.user, "--", self.target.host),
        ]


def run_local(argv: Sequence[str], stdin: bytes, tell: Tell | None) -> Answer:
    """Run a program of this host; hand each line of its standard output to ``tell`` as it comes."""
    # Files, not pipes: nobody has to read or write them while the program runs.
    with tempfile.TemporaryFile() as given, tempfile.TemporaryFile() as complaints:
        given.write(stdin)
        given.seek(0)
        try:
            program = subprocess.Popen(argv, stdin=given, stdout=subprocess.PIPE, stderr=complaints)
        except FileNotFoundError:
            raise HostError(f"{argv[0]} is not installed on this host") from None
        out = "".join(listen(program, tell or (lambda _line: None)))
        complaints.seek(0)
        return Answer(program.wait(), out, complaints.read().decode(errors="replace"))


def listen(program: subprocess.Popen[bytes], tell: Tell) -> Iterator[str]:
    """Yield each line of a program's output, and tell it; end the program if that is cut short."""
    with program:
        try:
            for raw in program.stdout or ():
                line = raw.decode(errors="replace")
                tell(line.rstrip("\n"))
                yield line
        except BaseException:
            program.kill()
            raise


def deploy(host: Host, archive: bytes, tell: Tell, *, diff: bool = False) -> None:
    """Carry relay.pyz to ``host`` and run it there (with ``diff``: only show what would change).

    Raises MachineError with the machine's own words when it fails; what was is restored. A run
    that is cut off, by an interrupt here or on the way, ends on the machine by itself.
    """
    folder = must(host, ["mktemp", "-d"]).strip()
    path = f"{folder}/relay.pyz"
    with cleared_away(host, folder):
        must(host, ["dd", "status=none", f"of={path}"], stdin=archive)
        answer = host.run(["python3", path, *(["--diff"] if diff else [])], tell=tell)
    if answer.code:
        said = answer.stderr.strip().removeprefix("relay.pyz: ")
        raise MachineError(said or f"relay.pyz ended with {answer.code}")


@contextlib.contextmanager
def cleared_away(host: Host, folder: str) -> Iterator[None]:
    """Remove ``folder`` from ``host`` in the end; if that is impossible, the first error counts."""
    try:
        yield
    finally:
        with contextlib.suppress(MachineError):
            host.run(["rm", "-r", folder])


def must(host: Host, argv: Sequence[str], *, stdin: bytes = b"") -> str:
    """Run a command that has to succeed; return its standard output."""
    answer = host.run(argv, stdin=stdin)
    if answer.code:
        raise MachineError(answer.stderr.strip() or f"{argv[0]} ended with {answer.code}")
    return answer.stdout
