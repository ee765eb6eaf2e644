"""Tables of recipients: fetched, checked, and the last good one kept.

A table is authoritative: who is not in it is refused for good. So a new one is believed only if
every line is a recipient of its domain, there are some, and not far fewer than on the day before.
Root takes it over from here for Postfix (backup-mx-recipients.path), and checks it once more.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from backup_mx.errors import MachineError
from backup_mx.net.fetch import FetchError, fetch
from backup_mx.relay import files, tables
from backup_mx.relay.settings import Table
from backup_mx.relay.state import TableState
from backup_mx.relay.tables import addresses

FOLDER = Path("/srv/backup-mx/agent/recipients")


class TableError(MachineError):
    """A table is not to be believed; the text says why."""


def update(
    table: Table,
    may_shrink: int,
    now: float,
    folder: Path = FOLDER,
    get: Callable[[str], bytes] = fetch,
) -> TableState:
    """Fetch a table and take it over if it is to be believed; return how it stands now.

    may_shrink is a percentage. Whatever goes wrong, the table before stays and its trouble is told.
    """
    try:
        fetched = parse(table, get(table.url))
        before, stamp = known(table.domain, folder), stamps(folder) / table.domain
        peak = tables.peak(_noted(stamp), before, now)
        found = tables.believed(fetched, before, peak.recipients, may_shrink)
        if found != before:
            _write(folder / table.domain, found)
        _stamp(stamp, peak.beside(found), now)
    except (FetchError, MachineError) as error:
        return state(table.domain, folder, str(error))
    except OSError as error:
        return state(table.domain, folder, f"it cannot be kept: {error.strerror}")
    return state(table.domain, folder)


def state(domain: str, folder: Path = FOLDER, trouble: str = "") -> TableState:
    """Return how the kept table stands: how many recipients, since when."""
    try:
        fetched = (stamps(folder) / domain).stat().st_mtime
    except OSError:
        fetched = None
    return TableState(domain, len(known(domain, folder)), fetched, trouble)


def known(domain: str, folder: Path = FOLDER) -> frozenset[str]:
    """Return the addresses of the table that is kept; none where none is."""
    try:
        return frozenset((folder / domain).read_text(encoding="utf-8").split())
    except (OSError, UnicodeDecodeError):
        return frozenset()


def parse(table: Table, content: bytes) -> frozenset[str]:
    """Return the addresses that a fetched text lists. Raises MachineError for anything odd."""
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError:
        raise TableError("it is not text in UTF-8") from None
    return frozenset(addresses(text, table.domain, table.url))


def _write(path: Path, addresses: frozenset[str]) -> None:
    path.parent.mkdir(mode=0o755, parents=True, exist_ok=True)
    files.replace(path, "".join(f"{each}\n" for each in sorted(addresses)))


def stamps(folder: Path = FOLDER) -> Path:
    """Return the folder of the stamps, a file for each domain that is written after its table.

    Its mtime is when the table was last fetched, its content what is noted beside the table
    (tables.peak). Root drops the stamps of domains whose tables it drops.
    """
    return folder.with_name(f"{folder.name}-fetched")


def _noted(stamp: Path) -> str:
    with suppress(FileNotFoundError, UnicodeDecodeError):
        return stamp.read_text(encoding="utf-8")
    return ""


def _stamp(stamp: Path, note: str, now: float) -> None:
    stamp.parent.mkdir(mode=0o755, parents=True, exist_ok=True)
    files.replace(stamp, note)
    os.utime(stamp, (now, now))
