"""Messages to very many: what a stranger sends in an hour may not fill the relay's memory."""

import sqlite3
import tracemalloc
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import pytest
from ledgers import A, B, C, Desk, active, asked, removed, super_, tried

from backup_mx.relay.ledger.query import SHOWN, Reader, reading
from backup_mx.relay.ledger.rows import Filter, Row, Story
from backup_mx.relay.queue import reasons

MESSAGES, PEOPLE = 30, 1000
NAMES = [f"4jXLxq4KF0z{number:04}" for number in range(MESSAGES)]
LATER = "host m[192.0.2.1] said: 450 4.2.0 later " + "x" * 100
NO_USER = "host m[192.0.2.1] said: 550 no user"
MIB = 1 << 20


@pytest.fixture
def desk(tmp_path: Path) -> Iterator[Desk]:
    desk = Desk(tmp_path)
    yield desk
    desk.ledger.close()


@pytest.fixture
def crowd(desk: Desk) -> Desk:
    """A ledger of some messages for a thousand people each, as their attempts would leave it."""
    for name in NAMES:
        desk.accept(name, recipients=PEOPLE)
        desk.say(tried(name, "u0@example.org", "deferred", LATER))
    with closing(sqlite3.connect(desk.path)) as database, database:
        database.execute(
            "INSERT INTO recipient WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n"
            " WHERE i < 999) SELECT message, 'u' || i || '@example.org', domain, done,"
            " status, why, words, dsn, relay, first, last, times, total FROM recipient, n"
        )
    return desk


def look(desk: Desk, ask: Callable[[Reader], object]) -> object:
    with reading(desk.path) as reader:
        return ask(reader)


def story(desk: Desk, queue_id: str) -> Story:
    found = look(desk, lambda reader: reader.message(queue_id))
    assert isinstance(found, Story)
    return found


def peak(work: Callable[[], object]) -> int:
    """Return the most bytes that were in use at a time while it worked."""
    tracemalloc.start()
    try:
        work()
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


def people(desk: Desk, fate: int) -> int:
    with closing(sqlite3.connect(desk.path)) as database:
        found = database.execute("SELECT count(*) FROM recipient WHERE done = ?", (fate,))
        return int(found.fetchone()[0])


@pytest.mark.parametrize(
    ("lines", "parts", "done"),
    [
        (lambda name: (asked(name, "hold"), super_(name, "placed on hold")), "held", 0),
        (lambda name: (asked(name, "requeue"), super_(name, "requeued")), "waiting", 0),
        (lambda name: (asked(name, "delete"), super_(name, "removed")), "deleted", 0),
        (lambda name: (tried(name, "u7@example.org", "deferred", LATER),), "waiting", 0),
        (lambda name: (active(name), removed(name)), "delivered", MESSAGES * PEOPLE),
    ],
    ids=["hold", "requeue", "delete", "retry", "deliver"],
)  # fmt: skip
def test_a_batch_needs_little_memory_however_many_a_message_is_for(
    crowd: Desk, lines: Callable[[str], tuple[str, ...]], parts: str, done: int
) -> None:
    """Lines about many such messages: the agent may use 256 MiB, and dies of more each time."""
    crowd.write(*(line for name in NAMES for line in lines(name)))
    assert peak(crowd.ledger.catch_up) < 3 * MIB
    assert getattr(crowd.sums, parts) == MESSAGES
    assert people(crowd, 1) == done
    assert story(crowd, NAMES[0]).row.to == PEOPLE


def test_held_and_released_it_waits_for_what_it_waited_for(crowd: Desk) -> None:
    """The reason is that of the one recipient who needs the operator most."""
    name = NAMES[0]
    crowd.say(tried(name, "u999@example.org", "SOFTBOUNCE", NO_USER))
    assert story(crowd, name).row.why == reasons.REFUSED
    crowd.say(super_(name, "placed on hold"))
    assert story(crowd, name).row.why == reasons.HELD
    crowd.say(super_(name, "released from hold"))
    assert story(crowd, name).row.why == reasons.REFUSED
    crowd.say(active(name), tried(name, "u999@example.org"))
    assert story(crowd, name).row.why == reasons.PUT_OFF


def test_what_bounced_for_one_of_many_lives_on_in_its_notice(desk: Desk) -> None:
    """Who got it back is known from an earlier batch, and so is everybody else."""
    desk.accept(A, recipients=4)
    desk.say(tried(A, "u0@example.org", "bounced", NO_USER))
    desk.say(*(tried(A, f"u{number}@example.org") for number in (1, 2)))
    desk.say(f"postfix/bounce[6]: {A}: sender non-delivery notification: {B}", removed(A))
    assert story(desk, A).row.id == B
    assert desk.parts == (1, 0, 1, 0, 0, 0)
    with closing(sqlite3.connect(desk.path)) as database:
        found = dict(database.execute("SELECT address, done FROM recipient"))
    assert found == {"u0@example.org": 2, "u1@example.org": 1, "u2@example.org": 1}


def test_two_that_are_one_have_their_recipients_together(desk: Desk) -> None:
    """A message for many that was exported, deleted and put back here keeps them all."""
    desk.accept(A, recipients=4)
    desk.say(*(tried(A, f"u{n}@example.org", "deferred", LATER) for n in range(3)))
    desk.say(asked(A, "delete"), super_(A, "removed"))
    desk.accept(B, recipients=4)
    desk.say(tried(B, "u2@example.com", "deferred", NO_USER))
    desk.say(f"backup-mx/helper[8]: {B}: import from=mx2/{A} accepted=1700000000 by=root")
    found = story(desk, A)
    assert found.ids == (A, B)
    assert sorted(each.address for each in found.recipients) == [
        "u0@example.org",
        "u1@example.org",
        "u2@example.com",
        "u2@example.org",
    ]
    assert (found.row.to, found.row.domain, found.row.attempts) == (4, "example.com", 4)
    assert found.row.why == reasons.REFUSED
    assert desk.sums.even


def test_a_page_needs_little_memory(crowd: Desk) -> None:
    """A list names the first few of those who wait, and counts the others."""
    rows: list[Row] = []
    assert peak(lambda: rows.extend(crowd_rows(crowd))) < 2 * MIB
    assert [row.id for row in rows] == NAMES
    row = rows[0]
    assert (row.to, len(row.recipients), row.attempts) == (PEOPLE, SHOWN, PEOPLE)
    assert row.words.startswith("host m[192.0.2.1] said: 450")


def crowd_rows(desk: Desk) -> list[Row]:
    with reading(desk.path) as reader:
        return reader.waiting(Filter())


@pytest.mark.parametrize("wanted", [Filter(), Filter(search="x"), Filter(older=5, offset=7)])
def test_a_page_is_not_sorted_out_of_all_that_waits(desk: Desk, wanted: Filter) -> None:
    """They are read in their order, as far as the page goes: ten pages are no ten sorts."""
    asked_for: list[str] = []
    with reading(desk.path) as reader:
        database = reader._database
        database.set_trace_callback(asked_for.append)
        reader.waiting(wanted)
        database.set_trace_callback(None)
        (listing,) = (each for each in asked_for if "LIMIT" in each)
        plan = [row[3] for row in database.execute(f"EXPLAIN QUERY PLAN {listing}")]
    assert any("INDEX message_here" in each for each in plan)
    assert not any("ORDER BY" in each for each in plan)


def test_a_page_names_who_waits_and_the_worst_reason(crowd: Desk) -> None:
    """Not those who have it; the words are those of the worst reason, of whomever."""
    crowd.now += 60
    crowd.say(tried(NAMES[0], "u0@example.org"))
    crowd.say(tried(NAMES[0], "u999@example.org", "SOFTBOUNCE", NO_USER))
    row = crowd_rows(crowd)[0]
    assert not any(each.done for each in row.recipients)
    assert row.words == NO_USER
    assert (row.attempts, row.last) == (PEOPLE + 2, crowd.now)
    assert replace(row, recipients=()) == replace(story(crowd, row.id).row, recipients=())


def test_ids_alone_are_asked_for_without_anything_else(crowd: Desk) -> None:
    """All of them in the order of the list, however many; no recipient is looked at."""
    crowd.say(super_(NAMES[3], "placed on hold"))
    assert look(crowd, lambda reader: reader.ids(Filter(limit=0))) == NAMES
    assert look(crowd, lambda reader: reader.ids(Filter(fate="held"))) == [NAMES[3]]
    assert look(crowd, lambda reader: reader.ids(Filter(limit=2, offset=1))) == NAMES[1:3]
    assert look(crowd, lambda reader: reader.ids(Filter(search=C))) == []
