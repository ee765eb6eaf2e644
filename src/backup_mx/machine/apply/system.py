"""The one way programs are run on the machine, and how a failure is told."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Sequence
from types import FrameType
from typing import TextIO

ENVIRONMENT = {
    "PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
    "LC_ALL": "C.UTF-8",
    "DEBIAN_FRONTEND": "noninteractive",
}
SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


class ApplyError(Exception):
    """A step failed; code is the exit code."""

    def __init__(self, message: str, code: int = 1) -> None:
        self.code = code
        super().__init__(message)


def tell(line: str, stream: TextIO | None = None) -> None:
    """Say one thing that was done; go on in silence when nobody listens any more."""
    stream = stream or sys.stdout
    try:
        print(line, file=stream, flush=True)
    except OSError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())


def catch_signals() -> None:
    """Let the first signal end the run as a failure does, with everything put back."""

    def interrupt(_number: int, _frame: FrameType | None) -> None:
        ignore_signals()
        raise ApplyError("interrupted", 130)

    for name in SIGNALS:
        signal.signal(name, interrupt)


def ignore_signals() -> None:
    """Let no further signal stop what has to be finished."""
    for name in SIGNALS:
        signal.signal(name, signal.SIG_IGN)


def run(argv: Sequence[str], *, stdin: str = "", timeout: float = 300) -> tuple[int, str]:
    """Run a program without a terminal; return its exit code and all it said."""
    try:
        done = subprocess.run(
            argv,
            input=stdin,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
            timeout=timeout,
            env=ENVIRONMENT,
            check=False,
        )
    except FileNotFoundError:
        raise ApplyError(f"{argv[0]} is not on this machine: is it Debian or Ubuntu?", 3) from None
    except subprocess.TimeoutExpired:
        return 124, f"{argv[0]} gave no answer within {timeout:.0f} s"
    return done.returncode, done.stdout.strip()


def must(argv: Sequence[str], *, stdin: str = "", timeout: float = 300) -> str:
    """Run a program that has to succeed; return what it said."""
    code, said = run(argv, stdin=stdin, timeout=timeout)
    if code:
        raise ApplyError(f"{' '.join(argv)} ended with {code}: {said}")
    return said
