"""Hand the tables of recipients that the agent has fetched to Postfix; run by root, on its own.

The agent cannot write where Postfix reads. What it left is read as a stranger's: only a complete
table of its own domain, not far shorter than those of the last day, takes their place. So nobody is
refused for a table that is missing, empty, cut off or garbage. Nor for an old one: a domain that
has no such table any more, and later has one again, begins with none.

A file beside them says that Postfix may not have read one yet: the next run sees to what one that
was cut off left undone.
"""

from __future__ import annotations

import os
import stat
import time
from collections.abc import Callable, Collection, Iterable, Iterator
from pathlib import Path

from backup_mx.errors import MachineError
from backup_mx.relay import files, settings, tables
from backup_mx.relay.queue.commands import Postfix
from backup_mx.relay.tables import addresses, texthash
from backup_mx.relay.tasks.recipients import FOLDER, stamps

TABLES = Path("/etc/backup-mx/recipients")
"""Where Postfix reads them, a file a domain (relay_recipient_maps)."""

_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_LARGEST = 32 * 2**20  # bytes
_OWED = "# Postfix is still to be told of a table: the next run does.\n"


def take_over(
    domains: Iterable[str],
    may_shrink: int,
    reload: Callable[[], None],
    tell: Callable[[str], None],
    source: Path = FOLDER,
    target: Path = TABLES,
) -> None:
    """Replace each table of which there is another good one, and then let Postfix read them.

    What is there for any other than ``domains`` is dropped; may_shrink is a percentage. Raises
    MachineError when a table that is there is not good, or one cannot be dropped; the others are
    taken over. What an earlier run still owes Postfix is made up for.
    """
    wanted = frozenset(domains)
    folders = (source, stamps(source), target)
    trouble = [each for some in folders for each in _drop(some, wanted, tell)]
    for domain in sorted(wanted):
        try:
            found = _fetched(source, domain)
            if found and _replaced(target / domain, found, may_shrink):
                tell(f"{domain} has {len(found)} recipients now")
        except MachineError as error:
            trouble.append(f"the table of {domain} stays as it was: {error}")
    if owed(target).exists():
        _tell(reload, target)
    if trouble:
        raise MachineError("; ".join(trouble))


def owed(target: Path = TABLES) -> Path:
    """Return the file that is there from before a table changes until Postfix has been told."""
    return target / ".owed"  # no domain begins with a dot


def _tell(reload: Callable[[], None], target: Path) -> None:
    reload()
    try:
        owed(target).unlink()
    except OSError as error:
        raise MachineError(f"{owed(target)} cannot be removed: {error.strerror}") from None


def _drop(folder: Path, wanted: frozenset[str], tell: Callable[[str], None]) -> Iterator[str]:
    """Remove the tables of all but the ``wanted`` domains; yield what kept one where it is."""
    # A link where the agent's folder should be would lead root astray, so the folder is held open.
    try:
        handle = os.open(folder, _FOLDER)
    except FileNotFoundError:
        return
    except OSError as error:
        yield f"{folder} cannot be read: {error.strerror}"
        return
    try:
        for name in os.listdir(handle):  # noqa: PTH208  a handle, not a path
            # No domain begins with a dot: what does is being written.
            if name not in wanted and not name.startswith("."):
                yield from _remove(name, handle, folder, tell)
    finally:
        os.close(handle)


def _remove(name: str, handle: int, folder: Path, tell: Callable[[str], None]) -> Iterator[str]:
    try:
        os.unlink(name, dir_fd=handle)
    except OSError as error:
        yield f"{name!a} in {folder} cannot be dropped: {error.strerror}"
    else:
        tell(f"{name!a} in {folder} is dropped: the settings name no such table")


def _replaced(path: Path, found: Collection[str], may_shrink: int) -> bool:
    """Give Postfix a domain's table if it is good; return whether it had another one."""
    noted, kept = _kept(path)
    peak = tables.peak(noted, kept, time.time())
    table = tables.believed(found, kept, peak.recipients, may_shrink)
    if table == kept:
        return False
    note = peak.beside(table)
    lines = texthash(sorted(table), "exists")
    try:
        files.replace(owed(path.parent), _OWED)
        files.replace(path, f"# {note}{lines}" if note else lines)
    except OSError as error:
        raise MachineError(f"{path} cannot be written: {error.strerror}") from None
    return True


def _kept(path: Path) -> tuple[str, frozenset[str]]:
    """Return Postfix's own table, its comment and its recipients; nothing where there is none."""
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except FileNotFoundError:
        return "", frozenset()
    except (OSError, UnicodeDecodeError) as error:
        raise MachineError(f"{path} cannot be read: {error}") from None
    noted = [line for line in lines if line.startswith("#")]
    return "\n".join(noted), frozenset(
        line.partition(" ")[0] for line in lines if not line.startswith("#")
    )


def _fetched(folder: Path, domain: str) -> tuple[str, ...]:
    """Return the recipients that the agent has left there; none where there is no such file."""
    path = folder / domain
    try:
        with open(_opened(folder, domain), "rb") as file:
            found = os.fstat(file.fileno())
            if not stat.S_ISREG(found.st_mode) or found.st_size > _LARGEST:
                raise MachineError(f"{path} is no file of a table's size")
            return addresses(file.read(_LARGEST).decode(), domain, str(path))
    except FileNotFoundError:
        return ()
    except OSError as error:
        raise MachineError(f"{path} cannot be read: {error.strerror}") from None
    except UnicodeDecodeError:
        raise MachineError(f"{path} is not text in UTF-8") from None


def _opened(folder: Path, name: str) -> int:
    """Open a file: folder and file are the agent's, so no link is followed, no pipe waited for."""
    handle = os.open(folder, _FOLDER)
    try:
        flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
        return os.open(name, flags, dir_fd=handle)
    finally:
        os.close(handle)


def main() -> None:
    """Do it for every domain whose table is fetched. Ends with a message where one is not good."""
    try:
        told = settings.read()
        domains = [table.domain for table in told.tables]
        take_over(domains, told.recipients_may_shrink, Postfix().reload, print)
    except MachineError as error:
        raise SystemExit(str(error)) from None


if __name__ == "__main__":
    main()
