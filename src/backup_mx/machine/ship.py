"""relay.pyz to a running machine, over SSH."""

from __future__ import annotations

import contextlib
import json
import math
import os
import re
import selectors
import shlex
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Protocol

from backup_mx.config.values import SshTarget
from backup_mx.errors import HostError, MachineError, UnreachableError

Tell = Callable[[str], None]
# ssh's own exit code when it did not get as far as the remote command (ssh(1), EXIT STATUS).
SSH_FAILED = 255
UNKNOWN_KEY = "Host key verification failed"
# What cloud-init has a key of root's say and do where an image lets nobody in as root (its module
# cc_ssh, disable_root_opts). It names the user who may.
_NOT_ROOT = re.compile(r'Please login as the user "([A-Za-z0-9_.-]+)" rather than the user')
_NOT_ROOT_CODE = 142
# Whatever ssh_config(5) says for other errands: no key, no screen, no port of this host is lent.
_ALONE = ("-a", "-x", "-o", "ClearAllForwardings=yes", "-o", "PermitLocalCommand=no")
SECONDS = 900.0
"""For an answer whose lines nobody hears as they come."""
OCTETS = 64 << 20
"""Of such an answer, at most."""
_HEARD = 8  # times that where somebody does: an export brings 48 MiB of mail, and one more message
_SLOWEST = 32 << 10  # bytes a second, on the way up
_COMPLAINTS = 1 << 20  # bytes of stderr that are kept, the last ones
_TOLD = 2000  # characters of them in a message
_OURS = "backup-mx: "
_PIECE = 64 << 10
_TICK = 0.1  # seconds until one looks again whether a program has ended


@dataclass(frozen=True)
class Answer:
    """What a command on a machine ended with and said."""

    code: int
    stdout: str
    stderr: str

    @property
    def words(self) -> str:
        """What it complained of, fit for a message: the end of it, without our own name.

        ssh ends its own lines with CR LF, and those it passes on with LF (OpenSSH, log.c).
        """
        lines = self.stderr.strip().splitlines()
        return "\n".join(line.removeprefix(_OURS) for line in lines)[-_TOLD:]

    @property
    def told(self) -> str:
        """What it complained of, or what it said otherwise where it complained of nothing."""
        return self.words or self.stdout.strip()[-_TOLD:]


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
        """Run ``argv`` as root on the machine. Raises MachineError, UnreachableError, HostError."""
        command = argv if self.target.user == "root" else ["sudo", "-n", "--", *argv]
        answer = run_local([*self.ssh(), shlex.join(command)], stdin, tell)
        if answer.code == SSH_FAILED:
            said = answer.words or "ssh said nothing"
            hint = "; log in once by hand to accept its key" if UNKNOWN_KEY in said else ""
            raise UnreachableError(f"{self.target} cannot be reached: {said}{hint}")
        if answer.code == _NOT_ROOT_CODE and (user := _NOT_ROOT.search(answer.stdout)):
            right = replace(self.target, user=user[1])
            raise MachineError(
                f"{self.target.host} lets nobody in as {self.target.user}, but as {user[1]}:"
                f' write ssh = "{right}" into the relay\'s section of backup-mx.toml'
            )
        return answer

    def ssh(self) -> list[str]:
        """Return the ssh command line up to the remote command."""
        config = ["-F", str(self.config)] if self.config else []
        return [
            *("ssh", *config, "-T", *_ALONE, "-o", "BatchMode=yes", "-o", "ConnectTimeout=15"),
            *("-o", "ServerAliveInterval=15", "-p", str(self.target.port)),
            *("-l", self.target.user, "--", self.target.host),
        ]


def run_local(
    argv: Sequence[str], stdin: bytes, tell: Tell | None, seconds: float | None = None
) -> Answer:
    """Run a program of this host; hand each line of its standard output to ``tell`` as it comes.

    It has ``seconds``, by default SECONDS and what its input takes on a slow line; where somebody
    hears each line, as long as it likes. Raises HostError where it is not there, UnreachableError
    when it takes too long, MachineError when it says too much.
    """
    limit = math.inf if tell else seconds or SECONDS + len(stdin) / _SLOWEST
    with tempfile.TemporaryFile() as given:  # nobody has to write it while the program runs
        given.write(stdin)
        given.seek(0)
        try:
            program = subprocess.Popen(
                argv, stdin=given, stdout=subprocess.PIPE, stderr=subprocess.PIPE
            )
        except FileNotFoundError:
            raise HostError(f"{argv[0]} is not installed on this host") from None
        except OSError as error:
            raise HostError(f"{argv[0]} cannot be run: {error.strerror}") from None
    lines = _Lines(tell)
    with program:
        try:
            complaints = _heard(program, lines, time.monotonic() + limit)
        except (TimeoutError, subprocess.TimeoutExpired):
            program.kill()
            raise UnreachableError(f"{argv[0]} did not end within {limit:.0f} s") from None
        except BaseException:
            program.kill()
            raise
    return Answer(program.returncode, lines.text, complaints.decode(errors="replace"))


class _Lines:
    """What a program says, as far as that is sensible; each line is told as it comes."""

    def __init__(self, tell: Tell | None) -> None:
        self._tell = tell
        self._most = self._left = OCTETS * (_HEARD if tell else 1)
        self._all: list[bytes] = []
        self._line: list[bytes] = []

    @property
    def text(self) -> str:
        return b"".join(self._all).decode(errors="replace")

    def add(self, piece: bytes) -> None:
        """Take what was read next. Raises MachineError when it is too much."""
        self._left -= len(piece)
        if self._left < 0:
            raise MachineError(f"the answer has more than {self._most:,} bytes")
        self._all.append(piece)
        first, *others = piece.split(b"\n")
        self._line.append(first)
        for each in others:
            self._told()
            self._line = [each]

    def end(self) -> None:
        """Tell a last line that nothing ended."""
        if any(self._line):
            self._told()

    def _told(self) -> None:
        if self._tell:
            self._tell(b"".join(self._line).decode(errors="replace"))


def _heard(program: subprocess.Popen[bytes], lines: _Lines, ends: float) -> bytes:
    """Hear a program until it has ended; return its last complaints. Raises TimeoutError."""
    complaints, over = b"", False
    with selectors.DefaultSelector() as ready:
        for pipe in filter(None, (program.stdout, program.stderr)):
            ready.register(pipe, selectors.EVENT_READ)
        while True:
            left = ends - time.monotonic()
            if left <= 0:
                raise TimeoutError
            if not ready.get_map():
                program.wait(left)
                over = True
            events = ready.select(0 if over else min(left, _TICK))
            for key, _ in events:
                piece = os.read(key.fd, _PIECE)
                if not piece:
                    ready.unregister(key.fileobj)
                elif key.fileobj is program.stdout:
                    lines.add(piece)
                else:
                    complaints = (complaints + piece)[-_COMPLAINTS:]
            if over and not events:
                lines.end()
                return complaints
            # Only its own end counts: ssh leaves stderr to a master of its own (ControlPersist).
            over = program.stdout not in ready.get_map() and program.poll() is not None


def deploy(host: Host, archive: bytes, tell: Tell, *, diff: bool = False) -> None:
    """Carry relay.pyz to ``host`` and run it there (with ``diff``: only show what would change).

    Raises MachineError with the machine's own words when it fails; what was is restored. A run
    that is cut off, by an interrupt here or on the way, ends on the machine by itself. Showing has
    a limit in time, since gates do it with nobody there, and so is told at its end. Raises
    UnreachableError also where it is done, and the machine lets nobody in from here any more.
    """
    folder = must(host, ["mktemp", "-d"]).strip()
    path = f"{folder}/relay.pyz"
    with cleared_away(host, folder):
        must(host, ["dd", "status=none", f"of={path}"], stdin=archive)
        if diff:
            answer = host.run(["python3", path, "--diff"])
            for line in answer.stdout.splitlines():
                tell(line)
        else:
            answer = host.run(["python3", path], tell=tell)
        if answer.code:
            said = answer.words.removeprefix("relay.pyz: ")
            raise MachineError(said or f"relay.pyz ended with {answer.code}")


@contextlib.contextmanager
def cleared_away(host: Host, folder: str) -> Iterator[None]:
    """Remove ``folder`` from ``host`` in the end; if that is impossible, the first error counts.

    Raises UnreachableError where it is the only one: a firewall that shuts us out leaves the
    connection alone over which it came, and this is the first new one.
    """
    remove = ["rm", "-r", folder]
    try:
        yield
    except BaseException:
        with contextlib.suppress(MachineError):
            host.run(remove)
        raise
    try:
        host.run(remove)
    except UnreachableError as error:
        raise UnreachableError(
            f"it is done, but the machine lets nobody in from here any more: {error}. Does [access]"
            f" ssh_from name this place? The provider's console leads in; {folder} is still there"
        ) from None


def must(host: Host, argv: Sequence[str], *, stdin: bytes = b"") -> str:
    """Run a command that has to succeed; return its standard output."""
    answer = host.run(argv, stdin=stdin)
    if answer.code:
        raise MachineError(answer.told or f"{argv[0]} ended with {answer.code}")
    return answer.stdout


def facts(text: str) -> dict[str, Any]:
    """Read the one JSON object that a machine answered. Raises MachineError."""
    with contextlib.suppress(RecursionError, ValueError):
        if isinstance(found := json.loads(text), dict):
            return found
    raise MachineError(f"the machine answered no facts: {text[:200]!r}")
