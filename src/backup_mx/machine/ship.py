"""relay.pyz to a running machine, over SSH."""

from __future__ import annotations

import shlex
import subprocess
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from backup_mx.config import SshTarget
from backup_mx.errors import HostError, MachineError, UnreachableError

Tell = Callable[[str], None]
# ssh's own exit code when it did not get as far as the remote command (ssh(1), EXIT STATUS).
SSH_FAILED = 255


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
            raise UnreachableError(f"{self.target} cannot be reached: {said}")
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
    try:
        program = subprocess.Popen(
            argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE
        )
    except FileNotFoundError:
        raise HostError(f"{argv[0]} is not installed on this host") from None
    with program:
        return converse(program, stdin, tell)


def converse(program: subprocess.Popen[bytes], stdin: bytes, tell: Tell | None) -> Answer:
    """Feed a program, listen to it until it ends."""
    if tell is None:
        out, err = program.communicate(stdin)
        return Answer(
            program.returncode, out.decode(errors="replace"), err.decode(errors="replace")
        )
    assert program.stdin and program.stdout and program.stderr  # noqa: S101,PT018  opened above
    program.stdin.write(stdin)
    program.stdin.close()
    lines = []
    for raw in program.stdout:
        lines.append(raw.decode(errors="replace"))
        tell(lines[-1].rstrip("\n"))
    err = program.stderr.read()
    return Answer(program.wait(), "".join(lines), err.decode(errors="replace"))


def deploy(host: Host, archive: bytes, tell: Tell, *, diff: bool = False) -> None:
    """Carry relay.pyz to ``host`` and run it there (with ``diff``: only show what would change).

    Raises MachineError with the machine's own words when it fails; what was is restored.
    """
    folder = must(host, ["mktemp", "-d"]).strip()
    path = f"{folder}/relay.pyz"
    try:
        must(host, ["dd", "status=none", f"of={path}"], stdin=archive)
        argv = ["python3", path, *(["--diff"] if diff else [])]
        answer = host.run(argv, tell=tell)
    finally:
        must(host, ["rm", "-r", folder])
    if answer.code:
        raise MachineError(answer.stderr.strip() or f"relay.pyz ended with {answer.code}")


def must(host: Host, argv: Sequence[str], *, stdin: bytes = b"") -> str:
    """Run a command that has to succeed; return its standard output."""
    answer = host.run(argv, stdin=stdin)
    if answer.code:
        raise MachineError(f"{argv[0]}: {answer.stderr.strip() or f'exit code {answer.code}'}")
    return answer.stdout
