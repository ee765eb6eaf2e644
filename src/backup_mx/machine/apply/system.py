"""The one way programs are run on the machine, and what goes wrong is named."""

from __future__ import annotations

import contextlib
import os
import pty
import subprocess
from collections.abc import Iterator, Sequence


class ApplyError(Exception):
    """A step failed; code is the exit code."""

    def __init__(self, message: str, code: int = 1) -> None:
        self.code = code
        super().__init__(message)


class InterruptedRunError(ApplyError):
    """Somebody ended the run by a signal."""

    def __init__(self) -> None:
        super().__init__("interrupted", 130)


def tell(line: str) -> None:
    """Say one thing that was done; go on when nobody listens any more."""
    with contextlib.suppress(BrokenPipeError):
        print(line, flush=True)


def run(argv: Sequence[str], *, stdin: str = "", timeout: float = 300) -> tuple[int, str]:
    """Run a program without a terminal; return its exit code and all it said."""
    environment = {
        "PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
        "LC_ALL": "C.UTF-8",
        "DEBIAN_FRONTEND": "noninteractive",
    }
    try:
        done = subprocess.run(
            argv,
            input=stdin,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
            timeout=timeout,
            env=environment,
            check=False,
        )
    except FileNotFoundError:
        raise ApplyError(f"{argv[0]} is not on this machine: is it Debian or Ubuntu?", 3) from None
    except subprocess.TimeoutExpired:
        return 124, f"gave no answer within {timeout:.0f} s"
    return done.returncode, done.stdout.strip()


def must(argv: Sequence[str], stdin: str = "") -> str:
    """Run a program that has to succeed; return what it said."""
    code, said = run(argv, stdin=stdin)
    if code:
        raise ApplyError(f"{' '.join(argv)} ended with {code}: {said}")
    return said


def run_on_terminal(argv: Sequence[str]) -> tuple[int, str]:
    """Run a program with stderr on a terminal: Postfix's scripts complain only there."""
    ours, theirs = pty.openpty()
    with open(ours, "rb", buffering=0) as screen:  # noqa: PTH123
        with subprocess.Popen(
            argv, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=theirs
        ) as program:
            os.close(theirs)
            said = b"".join(read_until_hangup(screen.fileno()))
        return program.returncode, said.decode(errors="replace").replace("\r", "").strip()


def read_until_hangup(terminal: int) -> Iterator[bytes]:
    """Yield what comes from a terminal; Linux ends it with EIO once the other side is closed."""
    with contextlib.suppress(OSError):
        while chunk := os.read(terminal, 4096):
            yield chunk
