"""The ledger's tables, how an older one becomes today's, and what is done about a broken one."""

from __future__ import annotations

import sqlite3
import stat
import time
from contextlib import closing
from pathlib import Path
from typing import Any
from urllib.parse import quote

from backup_mx.errors import MachineError
from backup_mx.relay.log import events
from backup_mx.relay.queue import reasons

PATH = Path("/srv/backup-mx/agent/ledger.sqlite")
"""Where it lies on a relay."""

COUNTERS = (
    "accepted",
    "delivered",
    "deleted",
    "held",
    "released",
    "requeued",
    "imported",
    "expired",
    "dsn",
    "deliveries",
    "softened",
    "bounced",
    *(f"attempts:{name}" for name in reasons.CLASSES),
    *(f"refusals:{kind}" for kind in events.REJECTIONS),
    *(f"postscreen:{name}" for name in ("connect", "pass", "pregreet", "dnsbl", "hangup")),
    "connections",
    "warnings",
    "fatals",
    "lines",
    "garbage",
    "gaps",
    "renewed",
    "found",
    "reopened",
)
"""What is counted since the ledger began, as name or name:label.

Messages: accepted to dsn (notices that Postfix made). Attempts, one for each recipient:
deliveries, softened (a 5xx taken for a 4xx), bounced, attempts by the class of their deferral.
Answers of the intake: refusals. lines of the log, garbage among them; gaps where it was lost;
renewed: how often the ledger had to be begun anew; found: messages that only the spool told of;
reopened: messages that were told as gone and lie in the spool.
"""

ACCEPTED = "sum:accepted"
"""The counter of messages accepted less those found to be one and the same."""

ARRIVING, WAITING, HELD, DELIVERED, DELETED = range(5)
"""The fates as they are stored; what is arriving was not accepted yet, and may never be."""

BUSY_MS = 10_000
_FILES = ("", "-wal", "-shm")  # the ledger's, by the end of the name
_READ_BUSY_MS = 2000
_PATIENCE = 10.0  # seconds that one question to the ledger may take
_STEPS = 10_000  # of SQLite's machine, between looks at the clock

_FIRST = """
CREATE TABLE meta (key TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID;
CREATE TABLE counter (name TEXT PRIMARY KEY, value INTEGER NOT NULL) WITHOUT ROWID;

-- A message: all the queue IDs that it has had stand in alias, its current one here.
CREATE TABLE message (
    id INTEGER PRIMARY KEY,
    queue_id TEXT NOT NULL,
    fate INTEGER NOT NULL,
    why TEXT NOT NULL,
    domain TEXT NOT NULL,
    accepted REAL NOT NULL,
    queued REAL NOT NULL,
    ended REAL,
    size INTEGER NOT NULL,
    recipients INTEGER NOT NULL,
    sender TEXT NOT NULL,
    message_id TEXT NOT NULL,
    client TEXT NOT NULL,
    origin TEXT NOT NULL,
    held REAL,
    held_by TEXT NOT NULL,
    released REAL,
    ended_by TEXT NOT NULL,
    trouble TEXT NOT NULL,   -- ledger and spool differ, in these words
    doubt TEXT NOT NULL,     -- what a listing of the spool made of it
    doubted REAL,
    parked INTEGER NOT NULL, -- it, or its notice, goes to hold as soon as it is complete
    expired INTEGER NOT NULL,
    notice TEXT NOT NULL,    -- the queue ID of the notice that carries it on
    asked TEXT NOT NULL      -- what the helper announced: JSON [action, verb, by, time]
);
CREATE INDEX message_here ON message (accepted, id) WHERE fate IN (1, 2);
CREATE INDEX message_why ON message (fate, why, accepted) WHERE fate IN (1, 2);
CREATE INDEX message_queued ON message (queued) WHERE fate = 1;
CREATE INDEX message_ended ON message (ended) WHERE ended IS NOT NULL;
CREATE INDEX message_arriving ON message (queued) WHERE fate = 0;
CREATE INDEX message_trouble ON message (id) WHERE trouble <> '';
CREATE INDEX message_doubt ON message (id) WHERE doubt <> '';
CREATE INDEX message_found ON message (id) WHERE origin = 'spool' AND fate IN (1, 2);

CREATE TABLE alias (queue_id TEXT PRIMARY KEY, message INTEGER NOT NULL) WITHOUT ROWID;
CREATE INDEX alias_message ON alias (message);

CREATE TABLE recipient (
    message INTEGER NOT NULL,
    address TEXT NOT NULL,
    domain TEXT NOT NULL,
    done INTEGER NOT NULL,   -- 0 waits, 1 has it, 2 bounced
    status TEXT NOT NULL,
    why TEXT NOT NULL,
    words TEXT NOT NULL,
    dsn TEXT NOT NULL,
    relay TEXT NOT NULL,
    first REAL NOT NULL,
    last REAL NOT NULL,
    times INTEGER NOT NULL,  -- of the latest run of equal attempts
    total INTEGER NOT NULL,
    PRIMARY KEY (message, address)
) WITHOUT ROWID;

-- Earlier runs of equal attempts.
CREATE TABLE attempt (
    id INTEGER PRIMARY KEY,
    message INTEGER NOT NULL,
    address TEXT NOT NULL,
    status TEXT NOT NULL,
    why TEXT NOT NULL,
    words TEXT NOT NULL,
    dsn TEXT NOT NULL,
    relay TEXT NOT NULL,
    first REAL NOT NULL,
    last REAL NOT NULL,
    times INTEGER NOT NULL
);
CREATE INDEX attempt_message ON attempt (message, id);

CREATE TABLE action (
    id INTEGER PRIMARY KEY,
    message INTEGER,
    time REAL NOT NULL,
    verb TEXT NOT NULL,
    queue_id TEXT NOT NULL,
    by TEXT NOT NULL,
    source TEXT NOT NULL,
    done INTEGER NOT NULL
);
CREATE INDEX action_message ON action (message) WHERE message IS NOT NULL;

CREATE TABLE sweep (time REAL NOT NULL, messages INTEGER NOT NULL, heard REAL);
CREATE TABLE stranger (queue_id TEXT PRIMARY KEY, since REAL NOT NULL) WITHOUT ROWID;
CREATE TABLE sample (minute INTEGER PRIMARY KEY, messages INTEGER NOT NULL, octets INTEGER NOT NULL,
    held INTEGER NOT NULL, accepted INTEGER NOT NULL, delivered INTEGER NOT NULL);
CREATE TABLE change (id INTEGER PRIMARY KEY, time REAL NOT NULL, name TEXT NOT NULL,
    state TEXT NOT NULL, words TEXT NOT NULL);

-- How many messages have each fate; of the delivered and deleted, those pruned still count.
CREATE TABLE tally (fate INTEGER NOT NULL, why TEXT NOT NULL, messages INTEGER NOT NULL,
    octets INTEGER NOT NULL, PRIMARY KEY (fate, why)) WITHOUT ROWID;
CREATE TRIGGER message_new AFTER INSERT ON message WHEN new.fate > 0 BEGIN
    INSERT INTO tally VALUES (new.fate, iif(new.fate > 2, '', new.why), 1, new.size)
        ON CONFLICT DO UPDATE SET messages = messages + 1, octets = octets + excluded.octets;
END;
CREATE TRIGGER message_changed AFTER UPDATE OF fate, why, size ON message
WHEN old.fate <> new.fate OR old.why <> new.why OR old.size <> new.size BEGIN
    UPDATE tally SET messages = messages - 1, octets = octets - old.size
        WHERE fate = old.fate AND why = iif(old.fate > 2, '', old.why);
    INSERT INTO tally
        SELECT new.fate, iif(new.fate > 2, '', new.why), 1, new.size WHERE new.fate > 0
        ON CONFLICT DO UPDATE SET messages = messages + 1, octets = octets + excluded.octets;
END;
CREATE TRIGGER message_gone AFTER DELETE ON message WHEN old.fate IN (1, 2) BEGIN
    UPDATE tally SET messages = messages - 1, octets = octets - old.size
        WHERE fate = old.fate AND why = old.why;
END;
"""

# Of mail that waits, for whom; of what left, how much went to whom.
_BY_DOMAIN = """
DROP TRIGGER message_new;
DROP TRIGGER message_changed;
DROP TRIGGER message_gone;
DROP INDEX message_why;
CREATE INDEX message_domain ON message (fate, why, domain, accepted) WHERE fate IN (1, 2);

ALTER TABLE tally RENAME TO before;
CREATE TABLE tally (fate INTEGER NOT NULL, why TEXT NOT NULL, domain TEXT NOT NULL,
    messages INTEGER NOT NULL, octets INTEGER NOT NULL,
    PRIMARY KEY (fate, why, domain)) WITHOUT ROWID;
INSERT INTO tally SELECT fate, iif(fate > 2, '', why) AS class, domain, count(*), sum(size)
    FROM message WHERE fate > 0 GROUP BY fate, class, domain;
-- Of those that were pruned, nobody knows it any more.
INSERT INTO tally SELECT fate, '', '',
    messages - (SELECT count(*) FROM message WHERE fate = before.fate),
    octets - (SELECT coalesce(sum(size), 0) FROM message WHERE fate = before.fate)
    FROM before WHERE fate > 2
    ON CONFLICT DO UPDATE SET messages = messages + excluded.messages,
        octets = octets + excluded.octets;
DROP TABLE before;

CREATE TRIGGER message_new AFTER INSERT ON message WHEN new.fate > 0 BEGIN
    INSERT INTO tally VALUES (new.fate, iif(new.fate > 2, '', new.why), new.domain, 1, new.size)
        ON CONFLICT DO UPDATE SET messages = messages + 1, octets = octets + excluded.octets;
END;
CREATE TRIGGER message_changed AFTER UPDATE OF fate, why, domain, size ON message
WHEN old.fate <> new.fate OR old.why <> new.why OR old.domain <> new.domain
    OR old.size <> new.size BEGIN
    UPDATE tally SET messages = messages - 1, octets = octets - old.size
        WHERE fate = old.fate AND why = iif(old.fate > 2, '', old.why) AND domain = old.domain;
    INSERT INTO tally
        SELECT new.fate, iif(new.fate > 2, '', new.why), new.domain, 1, new.size
        WHERE new.fate > 0
        ON CONFLICT DO UPDATE SET messages = messages + 1, octets = octets + excluded.octets;
END;
CREATE TRIGGER message_gone AFTER DELETE ON message WHEN old.fate IN (1, 2) BEGIN
    UPDATE tally SET messages = messages - 1, octets = octets - old.size
        WHERE fate = old.fate AND why = old.why AND domain = old.domain;
END;
"""

_MIGRATIONS = (_FIRST, _BY_DOMAIN)
"""One script for each version of the tables, in order; user_version says how many were run."""

VERSION = len(_MIGRATIONS)
"""The version of the tables that this program knows."""


def writable(path: Path, error: sqlite3.Error | None = None) -> tuple[sqlite3.Connection, str]:
    """Open the ledger, making or migrating it; one that is broken is moved aside.

    error says that it is known to be broken. Returns the connection, and what has to be told about
    it or "". Raises MachineError.
    """
    try:
        if error is None:
            try:
                return _open(path), ""
            except sqlite3.DatabaseError as found:
                if not broken(found):
                    raise
                error = found
        aside = move_aside(path)
        told = f"the ledger was broken ({error}): it is begun anew, the old one is {aside}"
        return _open(path), told
    except (OSError, sqlite3.Error) as failure:
        raise MachineError(f"the ledger {path} cannot be opened: {failure}") from None


class _Impatient(sqlite3.Connection):
    """Gives up a question that takes too long: "interrupted"."""

    _until = 0.0

    def execute(self, sql: str, parameters: Any = (), /) -> sqlite3.Cursor:  # noqa: ANN401  as there
        self._until = time.monotonic() + _PATIENCE
        return super().execute(sql, parameters)

    def late(self) -> bool:
        return time.monotonic() > self._until


def readable(path: Path) -> sqlite3.Connection:
    """Open the ledger for reading, as it is at this moment.

    Root does so, and the file is the agent's, who might be somebody else by then: what it refers
    to is not trusted, and no question may last. Raises MachineError, OSError, sqlite3.Error.
    """
    _check_files(path)
    database = sqlite3.connect(
        f"file:{quote(str(path))}?mode=ro",
        uri=True,
        isolation_level=None,
        check_same_thread=False,
        factory=_Impatient,
    )
    try:
        database.set_progress_handler(database.late, _STEPS)
        database.execute("PRAGMA trusted_schema = OFF")
        database.execute("PRAGMA cache_size = -1024")  # KiB: the agent reads so, too
        database.execute(f"PRAGMA busy_timeout = {_READ_BUSY_MS}")
        database.execute("BEGIN")
        _check_version(database, path)
    except BaseException:
        database.close()
        raise
    return database


def _check_files(path: Path) -> None:
    """Raise MachineError unless there is a ledger, of plain files: no link, no pipe to wait for."""
    for name in _FILES:
        companion = path.with_name(path.name + name)
        try:
            mode = companion.lstat().st_mode
        except FileNotFoundError:
            if name:
                continue
            words = "has the agent run on this machine?"
            raise MachineError(f"there is no ledger {path}: {words}") from None
        if not stat.S_ISREG(mode):
            raise MachineError(f"the ledger {companion} is not a plain file")


def _check_version(database: sqlite3.Connection, path: Path) -> None:
    version = int(database.execute("PRAGMA user_version").fetchone()[0])
    if version != VERSION:
        raise MachineError(f"the ledger {path} has version {version}, not {VERSION}")


def broken(error: sqlite3.Error) -> bool:
    """Tell whether an error says that the file is no sound database, rather than busy or full."""
    code = getattr(error, "sqlite_errorcode", 0) & 0xFF
    return code in (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB)


def move_aside(path: Path) -> Path:
    """Rename a broken ledger and its companions; return the new name. Raises OSError."""
    aside = path.with_name(f"{path.name}.broken-{time.strftime('%Y%m%dT%H%M%SZ', time.gmtime())}")
    for suffix in ("-wal", "-shm", ""):
        companion = path.with_name(path.name + suffix)
        if companion.exists():
            companion.rename(aside.with_name(aside.name + suffix))
    return aside


def _open(path: Path) -> sqlite3.Connection:
    """Open it soundly. Raises MachineError if it is newer than this program, sqlite3.Error."""
    database = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
    try:
        database.execute(f"PRAGMA busy_timeout = {BUSY_MS}")
        database.execute("PRAGMA journal_mode = WAL")
        database.execute("PRAGMA synchronous = NORMAL")
        database.execute("PRAGMA cache_size = -4096")  # KiB: memory is scarce on a relay
        # A checkpoint waits for the disk, and writes each page once however often it changed.
        database.execute("PRAGMA wal_autocheckpoint = 4000")  # pages of 4 KiB; the default is 1000
        database.execute("PRAGMA journal_size_limit = 16777216")
        _check(database)
        _migrate(database, path)
    except BaseException:
        database.close()
        raise
    return database


def _check(database: sqlite3.Connection) -> None:
    found = database.execute("PRAGMA quick_check(1)").fetchone()[0]
    if found != "ok":
        error = sqlite3.DatabaseError(found)
        error.sqlite_errorcode = sqlite3.SQLITE_CORRUPT
        raise error


def _migrate(database: sqlite3.Connection, path: Path) -> None:
    version = int(database.execute("PRAGMA user_version").fetchone()[0])
    if version > VERSION:
        raise MachineError(
            f"the ledger {path} was written by a newer backup-mx: version {version}. Deploy that"
            " one, or move the file away: it is begun anew from the log"
        )
    for number, script in enumerate(_MIGRATIONS[version:], version + 1):
        with closing(database.cursor()) as cursor:
            cursor.executescript(f"BEGIN IMMEDIATE;{script}PRAGMA user_version = {number};COMMIT;")
