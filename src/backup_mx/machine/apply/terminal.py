"""Programs that complain only where there is a terminal."""

from __future__ import annotations

import contextlib
import os
import pty
import subprocess
from collections.abc import Iterator, Sequence

from .system import ENVIRONMENT


def run_on_terminal(argv: Sequence[str]) -> tuple[int, str]:
    """Run a program with stderr on a terminal: Postfix's scripts complain only there."""
    ours, theirs = pty.openpty()
    with open(ours, "rb", buffering=0) as screen:  # noqa: PTH123
        with subprocess.Popen(
            ["timeout", "60", *argv],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=theirs,
            env=ENVIRONMENT,
        ) as program:
            os.close(theirs)
            said = b"".join(read_until_hangup(screen.fileno()))
        return program.returncode, said.decode(errors="replace").replace("\r", "").strip()


def read_until_hangup(terminal: int) -> Iterator[bytes]:
    """Yield what comes from a terminal; Linux ends it with EIO once the other side is closed."""
    with contextlib.suppress(OSError):
        while chunk := os.read(terminal, 4096):
            yield chunk
