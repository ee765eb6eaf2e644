"""Accept and keep: mail is taken, and not handed over although the primary answers.

The state is a table of Postfix's, asked before the real one (transport_maps): empty, or each
domain to retry(8), with the end in a comment. So it needs no agent, and survives a restart.

A file beside it says that Postfix may not have read it yet: the guard sees to what is left undone,
and to domains that a deploy has brought meanwhile.
"""

from __future__ import annotations

import fcntl
import os
import re
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Protocol

from backup_mx.errors import MachineError
from backup_mx.relay import files
from backup_mx.relay.root.protocol import Who

PATH = Path("/etc/backup-mx/maintenance")
OWED = "# Postfix is still to be told of a change of maintenance: the guard does.\n"
OFF = "# No maintenance. Written whole by backup-mx maintenance.\n"
_UNTIL = re.compile(r"# until (\d{1,12})$", re.MULTILINE)


class Postfix(Protocol):
    """What is needed of Postfix (commands.Postfix has it)."""

    def domains(self) -> list[str]:
        """Return the domains that mail is taken for."""

    def note(self, lines: list[str]) -> None:
        """Write lines into the mail log."""

    def reload(self) -> None:
        """Let Postfix read its files again."""

    def flush(self) -> None:
        """Try all mail now."""


def until(path: Path = PATH) -> float:
    """Return until when it lasts, in seconds since 1970; 0 where there is none.

    Raises MachineError when that cannot be read.
    """
    found = _UNTIL.search(_read(path))
    return float(found[1]) if found else 0.0


def content(domains: Iterable[str], end: int) -> str:
    """Return the table (transport(5)) for maintenance that ends then; 0 for none."""
    if not end:
        return OFF
    moment = datetime.fromtimestamp(end, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    lines = [f"{domain} retry:4.3.2 maintenance until {moment}" for domain in domains]
    return "\n".join(["# Written whole by backup-mx maintenance.", f"# until {end}", *lines, ""])


def switch(postfix: Postfix, end: int, who: Who, path: Path = PATH) -> None:
    """Begin maintenance that ends at ``end`` (seconds since 1970), or end it (0).

    After its end mail is tried at once. Raises MachineError when it cannot be; then all is as
    it was, or the table is new and the guard will let Postfix read it.
    """
    with _alone(path):
        _switch(postfix, end, who, path)


def owed(path: Path = PATH) -> Path:
    """Return the file that is there from before the table changes until Postfix has been told."""
    return path.with_name(f"{path.name}.owed")


def end_in_time(postfix: Postfix, path: Path = PATH) -> bool:
    """End maintenance whose time is over; return whether that was so.

    What an earlier switch still owes Postfix is made up for. Raises MachineError.
    """
    with _alone(path):
        over = until(path)
        if over and over <= time.time():
            _switch(postfix, 0, Who("guard"), path)
            return True
        if not owed(path).exists():
            return False
        _tell(postfix, path)
        return not over


def keep_up(postfix: Postfix, path: Path = PATH) -> bool:
    """Let maintenance be for the domains of now; return whether it was for others.

    The table names those of when it was switched on, and no deploy touches it. Raises MachineError.
    """
    with _alone(path):
        end = int(until(path))
        if not end or _read(path) == content(postfix.domains(), end):
            return False
        _switch(postfix, end, Who("guard"), path)
        return True


@contextmanager
def _alone(path: Path) -> Iterator[None]:
    """Be the only one who changes it: the guard must not bring back what was just switched off."""
    try:
        folder = os.open(path.parent, os.O_RDONLY)
    except OSError:  # there is no table, and there can be none
        yield
        return
    try:
        fcntl.flock(folder, fcntl.LOCK_EX)
        yield
    finally:
        os.close(folder)


def _switch(postfix: Postfix, end: int, who: Who, path: Path) -> None:
    text = content(postfix.domains() if end else [], end)
    postfix.note([f"maintenance until={end} {who}"])
    _write(owed(path), OWED)
    _write(path, text)
    _tell(postfix, path)


def _read(path: Path) -> str:
    """Return the table, "" where there is none. Raises MachineError."""
    try:
        return path.read_text(encoding="utf-8")
    except FileNotFoundError:
        return ""
    except (OSError, UnicodeDecodeError) as error:
        raise MachineError(f"{path} cannot be read: {error}") from None


def _tell(postfix: Postfix, path: Path) -> None:
    """Let Postfix read the table and, where there is no maintenance, try all mail."""
    postfix.reload()
    if not until(path):
        postfix.flush()
    try:
        owed(path).unlink(missing_ok=True)
    except OSError as error:
        raise MachineError(f"{owed(path)} cannot be removed: {error.strerror}") from None


def _write(path: Path, text: str) -> None:
    try:
        files.replace(path, text)
    except OSError as error:
        raise MachineError(f"{path} cannot be written: {error.strerror}") from None
