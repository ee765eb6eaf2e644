"""Start a program apart from its starter: own session, own control groups, output to a file.

    python3 -I launch.py LOG GROUP... -- PROGRAM ARGUMENT...

A program of its own, because joining a control group concerns a whole process: the lab, which
boots several machines at once, must not join theirs. Standard library only.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path


def main(arguments: list[str]) -> None:
    """Fork off the program and return; the program outlives this process and its session."""
    split = arguments.index("--")
    log, *groups = arguments[:split]
    program = arguments[split + 1 :]
    if os.fork():
        return
    os.setsid()
    for group in groups:
        (Path(group) / "cgroup.procs").write_text(str(os.getpid()))
    _redirect(log)
    os.execvp(program[0], program)  # noqa: S606 - no shell is what is wanted


def _redirect(log: str) -> None:
    """Let output go to the file ``log`` (appended), input come from nowhere."""
    nothing = os.open(os.devnull, os.O_RDONLY)
    output = os.open(log, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
    os.dup2(nothing, 0)
    os.dup2(output, 1)
    os.dup2(output, 2)


if __name__ == "__main__":
    main(sys.argv[1:])
