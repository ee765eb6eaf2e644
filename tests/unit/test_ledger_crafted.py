"""A ledger that somebody else has written: root's verbs meet it, and neither hang nor fall."""

import json
import os
import sqlite3
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager, nullcontext, suppress
from dataclasses import replace
from itertools import count
from pathlib import Path
from types import SimpleNamespace

import pytest
from ledgers import A, Desk, tried

from backup_mx.errors import MachineError
from backup_mx.relay import state
from backup_mx.relay.ledger import schema
from backup_mx.relay.ledger.query import Reader, reading
from backup_mx.relay.ledger.rows import Filter
from backup_mx.relay.operator import look
from backup_mx.relay.state import Count, Primary, Snapshot, Walk

WALK = Walk(1.0, True, "rset", "", "", 0.5, ("SIZE",))
SNAPSHOT = Snapshot(
    1.7e9,
    1.6e9,
    "mx2",
    "mx2.example.org",
    "v",
    primaries=(Primary("home", "up", 1.0, walk=WALK),),
    counts=(Count("held", "held", 2, 20, None),),
    spool={"hold": (2, 20)},
    counters={"accepted": 2},
)
COUNT = "WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) SELECT count(*) FROM n"
ENDLESS = f"({COUNT})"


@pytest.fixture
def desk(tmp_path: Path) -> Iterator[Desk]:
    desk = Desk(tmp_path)
    desk.accept(A)
    desk.say(tried(A, status="deferred", words="host m said: 450 later"))
    yield desk
    desk.ledger.close()


def craft(desk: Desk, *statements: str) -> None:
    with closing(sqlite3.connect(desk.path)) as database, database:
        for each in statements:
            database.execute(each)


@pytest.mark.parametrize("name", ["ledger.sqlite", "ledger.sqlite-wal", "ledger.sqlite-shm"])
@pytest.mark.parametrize("make", [os.mkfifo, lambda path: path.symlink_to("/etc/passwd")])
def test_only_plain_files_are_opened(
    tmp_path: Path, name: str, make: Callable[[Path], None]
) -> None:
    """A pipe would be waited for, a link might lead anywhere."""
    with closing(schema.writable(tmp_path / "ledger.sqlite")[0]):
        pass
    (tmp_path / name).unlink(missing_ok=True)
    make(tmp_path / name)
    with pytest.raises(MachineError, match="plain file"), reading(tmp_path / "ledger.sqlite"):
        pass


def test_what_the_tables_refer_to_is_not_trusted(desk: Desk) -> None:
    """SQLite's own word for it: no function of a schema may have effects."""
    with reading(desk.path) as reader:
        trusted = reader._database.execute("PRAGMA trusted_schema").fetchone()
    assert trusted == (0,)


def test_a_question_without_an_end_is_given_up(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    """A view in a table's place may count for ever; what asks gets an error."""
    monkeypatch.setattr(schema, "_PATIENCE", 0.3)
    craft(desk, "DROP TABLE sweep", "ALTER TABLE meta RENAME TO mete",
          f"CREATE VIEW meta AS SELECT 'snapshot' AS key, {ENDLESS} AS value")  # fmt: skip
    begun = time.monotonic()
    with pytest.raises(MachineError, match="interrupted"), reading(desk.path) as reader:
        reader.snapshot()
    with look.agent(desk.path) as told:
        assert told == (None, None)
    assert time.monotonic() - begun < 10


def test_many_quick_questions_are_answered(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    """The patience is for each of them, not for all that a verb asks."""
    looks = count()  # a clock that goes on by a second at each look
    monkeypatch.setattr(schema, "time", SimpleNamespace(monotonic=lambda: next(looks)))
    monkeypatch.setattr(schema, "_STEPS", 1)
    monkeypatch.setattr(schema, "_PATIENCE", 1000.0)
    with reading(desk.path) as reader:
        while next(looks) < 5000:
            assert reader.ids(Filter()) == [A]


@pytest.mark.parametrize(
    ("statement", "ask"),
    [
        ("UPDATE message SET accepted = 'soon'", lambda reader: reader.waiting(Filter())),
        ("UPDATE message SET accepted = 9e999", lambda reader: reader.message(A)),
        ("UPDATE message SET sender = x'ff'", lambda reader: reader.waiting(Filter())),
        ("UPDATE message SET recipients = 'all'", lambda reader: reader.waiting(Filter())),
        ("UPDATE message SET queue_id = x'00'", lambda reader: reader.ids(Filter())),
        ("UPDATE recipient SET words = x'00'", lambda reader: reader.waiting(Filter())),
        ("UPDATE recipient SET last = 'x'", lambda reader: reader.message(A)),
        ("UPDATE recipient SET total = 'x'", lambda reader: reader.waiting(Filter())),
        ("INSERT INTO meta VALUES ('hash_key', 'x')", lambda reader: reader.total(Filter())),
        ("INSERT INTO action VALUES (1, 1, 'x', '', '', '', '', 1)", lambda r: r.actions()),
        ("UPDATE message SET accepted = 'soon'", lambda reader: reader.counts()),
        ("UPDATE tally SET octets = x'00'", lambda reader: reader.counts()),
        ("UPDATE tally SET messages = 9e999", lambda reader: reader.sums()),
        ("UPDATE counter SET value = 'all'", lambda reader: reader.counters()),
    ],
)
def test_a_value_of_a_wrong_type_is_an_error(
    desk: Desk, statement: str, ask: Callable[[Reader], object]
) -> None:
    """One that says that the ledger cannot be read, not one of what would have shown it."""
    craft(desk, statement)
    with pytest.raises(MachineError, match="cannot be read"), reading(desk.path) as reader:
        ask(reader)


READERS: tuple[Callable[[Reader], object], ...] = (
    lambda reader: reader.snapshot(),
    lambda reader: reader.sums(),
    lambda reader: reader.counts(),
    lambda reader: reader.counters(),
    lambda reader: reader.waiting(Filter()),
    lambda reader: reader.waiting(Filter(fate=state.DELIVERED)),
    lambda reader: reader.ids(Filter(search="x")),
    lambda reader: reader.total(Filter()),
    lambda reader: reader.message(A),
    lambda reader: reader.differences(),
    lambda reader: reader.history(0.0),
    lambda reader: reader.states(0.0),
    lambda reader: reader.actions(),
)


@pytest.mark.parametrize("value", ["'soon'", "x'ff'", "9e999", "-9e999", "9223372036854775807"])
def test_whatever_stands_in_a_column(desk: Desk, value: str) -> None:
    """What is asked gets an answer, or is told that the ledger cannot be read: no third thing."""
    desk.ledger.keep_snapshot(SNAPSHOT)
    desk.ledger.sample(SNAPSHOT)
    desk.ledger.keep_state(SNAPSHOT.primaries[0])
    told = 0
    with closing(sqlite3.connect(desk.path, isolation_level=None)) as database:
        for table, column in _columns(database):
            database.execute("SAVEPOINT before")
            with suppress(sqlite3.IntegrityError):
                database.execute(f"UPDATE OR IGNORE {table} SET {column} = {value}")  # noqa: S608
            for ask in READERS:
                try:
                    with _translated():
                        ask(Reader(database))
                except MachineError:
                    told += 1
            database.execute("ROLLBACK TO before")
    assert told


def _columns(database: sqlite3.Connection) -> list[tuple[str, str]]:
    query = "SELECT name FROM sqlite_schema WHERE type = 'table' AND name NOT LIKE 'sqlite%'"
    tables = [name for (name,) in database.execute(query)]
    return [
        (table, row[1])
        for table in tables
        for row in database.execute(f"PRAGMA table_info({table})")
    ]


@contextmanager
def _translated() -> Iterator[None]:
    """As reading() does it."""
    try:
        yield
    except sqlite3.Error as error:
        raise MachineError(str(error)) from None


def test_where_the_ledger_is_damaged_postfix_tells(desk: Desk) -> None:
    """An agent that lives does not make its ledger readable."""
    desk.ledger.keep_snapshot(replace(SNAPSHOT, time=time.time()))
    assert look.listing(Filter(limit=1), desk.path, lambda: nullcontext(())).agent
    assert look.ids(Filter(), desk.path, lambda: nullcontext(())) == [A]
    craft(desk, "UPDATE message SET accepted = 'soon'", "UPDATE message SET queue_id = x'00'")
    listed = look.listing(Filter(limit=1), desk.path, lambda: nullcontext(()))
    assert (listed.total, listed.agent) == (0, False)
    assert look.ids(Filter(), desk.path, lambda: nullcontext(())) == []


def test_a_reason_nobody_knows_is_the_last(desk: Desk) -> None:
    """Of a later version, say."""
    craft(desk, "UPDATE recipient SET why = 'bored'")
    with reading(desk.path) as reader:
        assert reader.waiting(Filter())[0].words.startswith("host m")


def test_a_snapshot_comes_back() -> None:
    """Whatever it holds; from a version that knew less, too."""
    assert state.from_text(SNAPSHOT.text) == SNAPSHOT
    told = json.loads(SNAPSHOT.text)
    del told["counters"]
    assert state.from_text(json.dumps(told)).counters == {}


@pytest.mark.parametrize(
    "change",
    [
        {"time": "now"},
        {"time": None},
        {"time": True},
        {"time": 1e300},
        {"time": float("nan")},
        {"relay": 1},
        {"later": 1},
        {"primaries": "home"},
        {"primaries": ["home"]},
        {"primaries": [{"name": "home"}]},
        {"primaries": [{"name": "home", "state": "up", "since": "x"}]},
        {"counts": {}},
        {"counts": [["held", "held", 1, 1, 1]]},
        {"sums": []},
        {"spool": []},
        {"spool": {"hold": [1]}},
        {"spool": {"hold": "12"}},
        {"disk": {"free": 1.5, "total": 2, "needed": 3}},
        {"counters": {"accepted": "2"}},
    ],
)
def test_a_snapshot_of_another_shape_is_none(desk: Desk, change: dict[str, object]) -> None:
    """It is as if the agent had not taken one."""
    text = json.dumps(json.loads(SNAPSHOT.text) | change)
    with pytest.raises(ValueError, match=r"\S"):
        state.from_text(text)
    desk.ledger._database.execute("INSERT OR REPLACE INTO meta VALUES ('snapshot', ?)", (text,))
    with reading(desk.path) as reader:
        assert reader.snapshot() is None


@pytest.mark.parametrize("text", ["", "[]", "1", "null", "[" * 100_000, '"x"', b"\xff"])
def test_what_is_no_snapshot_at_all_is_none(text: str | bytes) -> None:
    """Not even an object."""
    with pytest.raises(ValueError, match=r"\S"):
        state.from_text(text)
