"""What the ledger makes of a log: the sum, message by message."""

import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import pytest
from ledgers import A, B, C, Desk, active, asked, removed, super_, tried

from backup_mx.relay.ledger import UNKNOWN, journal
from backup_mx.relay.ledger.clerk import MISSING
from backup_mx.relay.ledger.query import Reader, reading
from backup_mx.relay.ledger.rows import Filter, Story
from backup_mx.relay.queue import postfix, reasons

DATA = Path(__file__).parents[1] / "data" / "maillog"
REFUSED_BY_TCP = "connect to m[192.0.2.1]:25: Connection refused"


@pytest.fixture
def desk(tmp_path: Path) -> Iterator[Desk]:
    desk = Desk(tmp_path)
    yield desk
    desk.ledger.close()


def story(desk: Desk, queue_id: str) -> Story:
    with reading(desk.path) as reader:
        found = reader.message(queue_id)
    assert found
    return found


def test_a_message_is_accepted_waits_and_is_delivered(desk: Desk) -> None:
    """The plain life of a message, and the words it waited for."""
    desk.accept(A)
    assert desk.parts == (1, 0, 1, 0, 0, 0)
    desk.say(tried(A, status="deferred", words=REFUSED_BY_TCP))
    assert [(each.why, each.messages, each.octets) for each in desk.ledger.counts()] == [
        (reasons.UNREACHABLE, 1, 100)
    ]
    desk.say(active(A), tried(A), removed(A))
    assert desk.parts == (1, 1, 0, 0, 0, 0)
    assert desk.ledger.counts() == ()
    assert story(desk, A).row.attempts == 2


def shares(desk: Desk) -> dict[str, int]:
    """Return how many messages wait or are held for each domain."""
    return {
        name: sum(each.messages for each in counts) for name, counts in desk.ledger.shares().items()
    }


def test_what_waits_is_counted_for_the_domain_it_waits_for(desk: Desk) -> None:
    """For nobody before it is tried; then for one of those who have not got it yet."""
    desk.accept(A, recipients=2)
    desk.accept(B)
    assert shares(desk) == {"": 2}
    desk.say(
        tried(A, "jo@a.example", "deferred", REFUSED_BY_TCP),
        tried(A, "al@b.example", "deferred", REFUSED_BY_TCP),
        tried(B, "al@b.example", "deferred", REFUSED_BY_TCP),
    )
    assert shares(desk) == {"a.example": 1, "b.example": 1}
    desk.say(tried(A, "jo@a.example"))
    assert shares(desk) == {"b.example": 2}
    assert [each.messages for each in desk.ledger.counts()] == [2]
    desk.say(tried(A, "al@b.example"), removed(A), tried(B, "al@b.example"), removed(B))
    assert shares(desk) == {}
    assert desk.ledger.delivered() == {"b.example": 2}


def test_of_many_recipients_those_count_who_wait(desk: Desk) -> None:
    """Also where they stand in the ledger and not in hand."""
    desk.accept(A, recipients=6)
    people = [f"{name}@{domain}.example" for domain in "ab" for name in ("x", "y", "z")]
    desk.say(*(tried(A, each, "deferred", REFUSED_BY_TCP) for each in people))
    assert shares(desk) == {"a.example": 1}
    desk.say(*(tried(A, each) for each in people[:3]))
    assert shares(desk) == {"b.example": 1}


def test_it_waits_while_one_recipient_does(desk: Desk) -> None:
    """A message of which some recipients have it waits, for the reason of the others."""
    desk.accept(A, recipients=3)
    desk.say(
        tried(A, "one@example.org"),
        tried(A, "two@example.org", "SOFTBOUNCE", "host m[192.0.2.1] said: 550 no"),
        tried(A, "three@example.org", "deferred", REFUSED_BY_TCP),
    )
    found = story(desk, A)
    assert (found.row.fate, found.row.why) == ("waiting", reasons.REFUSED)
    assert found.row.words.endswith("550 no")
    assert {each.address: each.done for each in found.recipients} == {
        "one@example.org": True,
        "two@example.org": False,
        "three@example.org": False,
    }


def test_an_intake_that_breaks_off_was_not_accepted(desk: Desk) -> None:
    """No 250 was given where the queue manager never saw it."""
    desk.say(f"postfix/smtpd[1]: {A}: client=a[192.0.2.7]")
    desk.say(f"postfix/cleanup[2]: {A}: message-id=<x@example.net>")
    desk.say(f"postfix/cleanup[2]: {B}: removed (canceled)")
    assert desk.parts == (0, 0, 0, 0, 0, 0)
    assert desk.listed() == 0
    desk.now += 90_000
    desk.ledger.prune(0)
    assert desk.parts == (0, 0, 0, 0, 0, 0)


def test_what_broke_off_does_not_pile_up(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    """All of it goes with the next prune, however little has ended; it counts as no message."""
    monkeypatch.setattr(journal, "_CHUNK", 2)
    ids = [f"4jXLxq4KF0z{number:04}" for number in range(7)]
    desk.say(*(f"postfix/smtpd[1]: {each}: client=a[192.0.2.7]" for each in ids))
    desk.now += 90_000
    desk.accept(A)
    desk.say(tried(A), removed(A))
    assert desk.ledger.prune(desk.now + 1) == 1
    with closing(sqlite3.connect(desk.path)) as database:
        assert database.execute("SELECT count(*) FROM message").fetchone() == (0,)


def test_a_probe_of_an_address_is_no_message(desk: Desk) -> None:
    """verify(8) sends probes through the queue; neither they nor their end are counted."""
    desk.say(f"postfix/cleanup[2]: {A}: message-id=<{A}@mx2.example.org>")
    desk.say(active(A, "double-bounce@mx2.example.org"))
    assert desk.parts == (0, 0, 0, 0, 0, 0)
    desk.listed(f"active {A}")  # a slow one is taken for a message
    desk.say(tried(A, status="undeliverable"), removed(A))
    assert desk.parts == (0, 0, 0, 0, 0, 0)
    assert desk.sums.even


def test_a_bounce_from_outside_is_a_message(desk: Desk) -> None:
    """A null sender alone makes no probe."""
    desk.accept(A, sender="")
    assert desk.parts == (1, 0, 1, 0, 0, 0)


def test_a_requeue_gives_it_another_id_and_lifetime(desk: Desk) -> None:
    """One message under two IDs, known by both, counted once."""
    desk.accept(A)
    first = desk.now
    desk.now += 3600
    desk.say(asked(A, "requeue", "retention"), super_(A, "requeued"))
    assert desk.parts == (1, 0, 1, 0, 0, 0)
    desk.say(f"postfix/pickup[5]: {B}: uid=1 from=<a@example.net> orig_id={A}", active(B))
    found = story(desk, A)
    assert found == story(desk, B)
    assert found.ids == (A, B)
    assert (found.row.accepted, found.row.queued) == (first, first + 3600)
    assert [(each.verb, each.by, each.done) for each in found.actions] == [
        ("requeue", "retention", True)
    ]
    desk.say(tried(B), removed(B))
    assert desk.parts == (1, 1, 0, 0, 0, 0)


def test_who_held_released_and_deleted_it_is_known(desk: Desk) -> None:
    """The helper says who, postsuper says that it happened."""
    desk.accept(A)
    desk.say(asked(A, "hold"), super_(A, "placed on hold"))
    assert desk.parts == (1, 0, 0, 1, 0, 0)
    assert story(desk, A).row.asked_by == "root"
    assert story(desk, A).row.why == reasons.HELD
    desk.say(asked(A, "release"), super_(A, "released from hold"))
    assert desk.parts == (1, 0, 1, 0, 0, 0)
    desk.say(asked(A, "delete"), super_(A, "removed"))
    assert desk.parts == (1, 0, 0, 0, 1, 0)
    last = story(desk, A).actions[-1]
    assert (last.verb, last.by, last.source, last.done) == (
        "delete",
        "root",
        "198.51.100.7",
        True,
    )


def test_what_goes_past_the_helper_is_by_nobody_known(desk: Desk) -> None:
    """postsuper's own lines are believed, but they do not say who; nor does an old announcement."""
    desk.accept(A)
    desk.say(asked(A, "delete"))
    desk.now += 3600
    desk.say(super_(A, "removed"))
    assert story(desk, A).row.asked_by == UNKNOWN
    assert [(each.by, each.done) for each in story(desk, A).actions] == [
        ("root", False),
        (UNKNOWN, True),
    ]


@pytest.mark.parametrize(("verb", "did"), [("delete", "removed"), ("requeue", "requeued")])
def test_what_is_pulled_before_it_is_changed_is_by_who_asked(
    desk: Desk, verb: str, did: str
) -> None:
    """The helper holds a message of the active queue first, and may have to let go of it once."""
    desk.accept(A)
    desk.say(asked(A, verb), super_(A, "placed on hold"), super_(A, "released from hold"))
    desk.say(super_(A, "placed on hold"), super_(A, did))
    assert [each.done for each in story(desk, A).actions if each.by == "root"] == [True]
    assert [each.by for each in story(desk, A).actions if each.verb == verb] == ["root"]
    if verb == "delete":
        assert story(desk, A).row.asked_by == "root"


def test_an_operators_hold_takes_over_retentions(desk: Desk) -> None:
    """What he holds that was held already is not released by itself; nor the other way round."""
    desk.accept(A)
    desk.say(asked(A, "hold", "retention"), super_(A, "placed on hold"))
    assert [each.id for each in desk.ledger.due(0, 0).held] == [A]
    desk.say(asked(A, "hold"))
    assert desk.ledger.due(0, 0).held == ()
    assert story(desk, A).row.asked_by == "root"
    assert story(desk, A).actions[-1].done
    desk.say(asked(A, "hold", "retention"))
    assert desk.ledger.due(0, 0).held == ()


def test_a_hold_of_which_the_lines_were_lost_stays_retentions(desk: Desk) -> None:
    """Where the agent asked for it last, and nobody did anything since."""
    for queue_id in (A, B):
        desk.accept(queue_id)
    desk.say(asked(A, "hold", "retention"), asked(B, "hold", "retention"))
    desk.say(super_(B, "placed on hold"), super_(B, "released from hold"))
    assert desk.listed(f"hold {A}", f"hold {B}") == 0
    assert [each.id for each in desk.ledger.due(0, 0).held] == [A]
    assert story(desk, B).row.asked_by == UNKNOWN


def test_a_hold_of_which_no_line_is_left_stays_retentions(desk: Desk) -> None:
    """The agent says so itself where the log had no room; an operator's is nobody's known."""
    for queue_id in (A, B):
        desk.accept(queue_id)
    desk.ledger.note_holds({A: desk.now, C: desk.now})
    assert desk.listed(f"hold {A}", f"hold {B}") == 0
    assert [each.id for each in desk.ledger.due(0, 0).held] == [A]
    assert story(desk, B).row.asked_by == UNKNOWN
    [hold] = story(desk, A).actions
    assert (hold.verb, hold.by, hold.done) == ("hold", "retention", True)


@pytest.mark.parametrize("first", ["agent", "log"])
def test_a_hold_that_agent_and_log_tell_of_is_one(desk: Desk, first: str) -> None:
    """Whoever comes first; a later one is another one."""
    desk.accept(A)
    told: list[Callable[[], None]] = [
        lambda: desk.ledger.note_holds({A: desk.now}),
        lambda: desk.say(asked(A, "hold", "retention"), super_(A, "placed on hold")),
    ]
    for tell in told if first == "agent" else reversed(told):
        tell()
    assert [each.done for each in story(desk, A).actions] == [True]
    desk.say(asked(A, "release", "retention"), super_(A, "released from hold"))
    for tell in told:
        tell()
    assert [each.verb for each in story(desk, A).actions] == ["hold", "release", "hold"]
    assert desk.parts == (1, 0, 0, 1, 0, 0)


def test_an_expired_message_lives_on_in_its_notice(desk: Desk) -> None:
    """What Postfix gives up is not gone: its notice, which carries it, is on hold."""
    desk.accept(A)
    desk.say(
        f"postfix/qmgr[3]: {A}: from=<a@example.net>, status=expired, returned to sender",
        f"postfix/cleanup[2]: {B}: hold: header Received: x",
        f"postfix/cleanup[2]: {B}: message-id=<{B}@mx2.example.org>",
        f"postfix/bounce[6]: {A}: sender non-delivery notification: {B}",
        removed(A),
    )
    assert desk.parts == (1, 0, 0, 1, 0, 0)
    assert story(desk, A).row.id == B
    assert desk.ledger.counters()["dsn"] == 1
    assert desk.listed(f"hold {B}") == 0
    desk.say(super_(B, "removed"))
    assert desk.parts == (1, 0, 0, 0, 1, 0)


def test_a_message_thrown_away_without_a_notice_is_a_difference(desk: Desk) -> None:
    """Postfix may drop a bounce of a bounce: that is a loss, and it is named."""
    desk.accept(A, sender="")
    desk.say(tried(A, status="bounced", words="host m said: 550 no"), removed(A))
    assert desk.sums.differences == 1
    assert not desk.sums.even
    assert desk.listed() == 1
    desk.say(asked(A, "delete"))
    assert desk.parts == (1, 0, 0, 0, 1, 0)


def test_a_message_held_as_it_came_is_found_by_the_listing(desk: Desk) -> None:
    """Its 250 stands in no log: the spool shows that it is complete."""
    desk.say(
        f"postfix/smtpd[1]: {A}: client=a[192.0.2.7]",
        f"postfix/cleanup[2]: {A}: hold: header Subject: x: from=<a> removed",
    )
    assert desk.parts == (0, 0, 0, 0, 0, 0)
    assert desk.listed(f"hold {A}") == 0
    assert desk.parts == (1, 0, 0, 1, 0, 0)


def test_what_the_log_never_told_is_taken_in_and_described(desk: Desk) -> None:
    """A file that only the spool knows is counted, and the queue's listing says what it is."""
    assert desk.listed(f"deferred {A}", f"hold {B}", f"maildrop {C}") == 0
    assert desk.parts == (2, 0, 1, 1, 0, 0)
    assert sorted(desk.ledger.unknown()) == [A, B]
    to = (postfix.Recipient("u@example.org", REFUSED_BY_TCP),)
    desk.ledger.describe([postfix.Message("deferred", A, 1_700_000_000, 99, "a@example.net", to)])
    assert desk.ledger.unknown() == [B]
    row = story(desk, A).row
    assert (row.accepted, row.why, row.domain) == (1.7e9, reasons.UNREACHABLE, "example.org")
    desk.say(tried(A), removed(A))
    assert desk.parts == (2, 1, 0, 1, 0, 0)


def test_a_message_in_neither_spool_nor_log_is_a_difference(desk: Desk) -> None:
    """It is named until the log tells, the spool has it again, or somebody writes it off."""
    for queue_id in (A, B, C):
        desk.accept(queue_id)
    assert desk.listed() == 3
    with reading(desk.path) as reader:
        assert {each.id for each in reader.differences()} == {A, B, C}
    desk.say(removed(A))
    assert desk.listed(f"deferred {B}") == 1
    desk.say(asked(C, "delete"))
    assert desk.parts == (3, 1, 1, 0, 1, 0)


def test_one_listing_is_not_enough_for_a_difference(desk: Desk) -> None:
    """What one listing missed may be moving, or have been told by lines not yet read."""
    desk.accept(A)
    desk.now += 30
    assert desk.ledger.reconcile([], desk.now) == 0
    desk.write(active(A))
    desk.now += 30
    desk.read()
    assert desk.ledger.reconcile([], desk.now) == 0


def test_without_the_log_no_listing_is_believed(desk: Desk) -> None:
    """While the ledger is behind with the log, nothing is a difference."""
    desk.accept(A)
    for _ in range(4):
        desk.now += 30
        assert desk.ledger.reconcile([], desk.now) == 0


def test_a_corrupt_file_is_a_difference(desk: Desk) -> None:
    """What Postfix has put into corrupt will not be delivered."""
    desk.accept(A)
    assert desk.listed(f"corrupt {A}") == 1
    assert desk.listed(f"deferred {A}") == 0


def test_the_spool_is_right_about_where_a_message_is(desk: Desk) -> None:
    """Held, released and back from the dead, with no word in the log: ``postsuper -h ALL``."""
    for queue_id in (A, B, C):
        desk.accept(queue_id)
    desk.say(super_(B, "placed on hold"), tried(C), removed(C))
    assert desk.parts == (3, 1, 1, 1, 0, 0)
    assert desk.listed(f"hold {A}", f"deferred {B}", f"deferred {C}") == 0
    assert desk.parts == (3, 0, 2, 1, 0, 0)
    assert story(desk, A).row.asked_by == UNKNOWN
    assert desk.ledger.counters()["reopened"] == 1


def test_messages_swept_away_unnamed_are_deleted(desk: Desk) -> None:
    """``postsuper -d ALL`` says how many, not which: what is missing then is not a difference."""
    for queue_id in (A, B, C):
        desk.accept(queue_id)
    desk.say(super_(A, "removed", 7), "postfix/postsuper[7]: Deleted: 1 message")
    desk.say("postfix/postsuper[9]: Deleted: 1 message")
    assert desk.listed() == 1
    assert desk.parts[4] == 2
    with reading(desk.path) as reader:
        assert [each.by for each in reader.actions()] == [UNKNOWN, UNKNOWN]


def test_an_imported_message_keeps_its_age(desk: Desk) -> None:
    """What was exported elsewhere is new here, but not young."""
    desk.accept(A)
    desk.say(f"backup-mx/helper[8]: {A}: import from=mx3/{B} accepted=1763800000 by=root")
    row = story(desk, A)
    assert (row.row.accepted, row.origin) == (1763800000.0, f"mx3/{B}")


def test_what_was_exported_deleted_and_imported_here_is_one_message(desk: Desk) -> None:
    """Mail that comes back is not counted twice."""
    desk.accept(A)
    desk.say(asked(A, "delete"), super_(A, "removed"))
    desk.accept(B)
    desk.say(f"backup-mx/helper[8]: {B}: import from=mx2/{A} accepted=1763800000 by=root")
    assert desk.parts == (1, 0, 1, 0, 0, 0)
    assert story(desk, A).row.id == B


def test_pruning_forgets_messages_not_sums(desk: Desk) -> None:
    """What ended long ago goes, its count stays; what waits stays."""
    desk.accept(A)
    desk.accept(B)
    desk.say(tried(A), removed(A))
    assert desk.ledger.prune(desk.now) == 0
    assert desk.ledger.prune(desk.now + 1) == 1
    with reading(desk.path) as reader:
        assert reader.message(A) is None
    assert desk.parts == (2, 1, 1, 0, 0, 0)
    assert desk.sums.even


def test_equal_attempts_are_one_run(desk: Desk) -> None:
    """A reason that comes again costs a number, also where a server counts seconds in it."""
    desk.accept(A)
    for seconds in range(60):
        desk.say(tried(A, status="deferred", words=f"host m said: 450 wait {seconds} s"))
    desk.say(tried(A, status="deferred", words=REFUSED_BY_TCP))
    found = story(desk, A)
    assert [each.times for each in found.attempts] == [60]
    assert found.row.attempts == 61


def test_a_server_that_says_something_else_each_time_fills_no_disk(desk: Desk) -> None:
    """Only the latest runs of a message's attempts are kept."""
    desk.accept(A)
    desk.say(
        *(tried(A, status="deferred", words=f"host m said: 450 {'y' * each}") for each in range(90))
    )
    assert len(story(desk, A).attempts) == 50


def test_what_is_old_is_found_for_the_decider(desk: Desk) -> None:
    """By age, by last requeue, and what is on hold by retention only."""
    desk.accept(A)
    desk.accept(B)
    desk.say(tried(A, status="deferred"), asked(B, "hold", "retention"))
    desk.say(super_(B, "placed on hold"))
    due = desk.ledger.due(desk.now, desk.now)
    assert [(each.id, each.domains) for each in due.overdue] == [(A, ("example.org",))]
    assert [(each.id, each.held) for each in due.held] == [(B, desk.now)]
    assert [each.id for each in due.expiring] == [A]
    assert desk.ledger.due(desk.now - 1, desk.now - 1).overdue == ()
    desk.say(super_(B, "released from hold"), super_(B, "placed on hold"))
    assert desk.ledger.due(0, 0) == replace(due, overdue=(), held=(), expiring=())


def test_mail_of_a_dead_primary_hides_no_other(desk: Desk) -> None:
    """Where there is more than a round takes, what a primary that came up waits for is first."""
    for queue_id, to in ((A, "u@example.org"), (B, "u@example.org"), (C, "u@example.com")):
        desk.accept(queue_id)
        desk.say(tried(queue_id, to=to, status="deferred"))
        desk.say(asked(queue_id, "hold", "retention"), super_(queue_id, "placed on hold"))
        desk.now += 1
    up = {"example.com": desk.now}

    def held(limit: int, up: dict[str, float] | None) -> list[str]:
        return [each.id for each in desk.ledger.due(0, 0, limit, up=up).held]

    assert held(2, None) == held(2, {}) == [A, B]
    assert held(2, up) == [C, A]
    assert held(1, up) == [C]
    assert held(9, up) == [C, A, B]
    assert held(2, {"example.com": desk.now - 60}) == [C, A]  # it never refused it
    desk.say(super_(C, "released from hold"))
    desk.say(tried(C, to="u@example.com", status="deferred", words="host m said: 550 no"))
    desk.say(asked(C, "hold", "retention"), super_(C, "placed on hold"))
    assert held(2, {"example.com": desk.now - 60}) == [A, B]
    assert [each.why for each in desk.ledger.due(0, 0).held] == ["local", "local", "refused"]


def test_what_was_to_be_deleted_and_is_gone_was_deleted(desk: Desk) -> None:
    """Postfix tells nothing of a corrupt one; what nobody asked to delete is missing."""
    for queue_id in (A, B, C):
        desk.accept(queue_id)
    desk.say(asked(A, "delete", "root"), asked(B, "requeue", "root"), asked(C, "delete", "root"))
    assert desk.listed(f"deferred {C}") == 1
    assert (story(desk, A).row.fate, story(desk, A).row.asked_by) == ("deleted", "root")
    assert [each.done for each in story(desk, A).actions] == [True]
    assert story(desk, B).row.trouble == MISSING
    assert [each.done for each in story(desk, C).actions] == [False]


def test_what_was_in_vain_is_left_out(desk: Desk) -> None:
    """Of what is to be requeued or released, not of what is to be held."""
    for queue_id in (A, B, C):
        desk.accept(queue_id)
    desk.say(asked(C, "hold", "retention"), super_(C, "placed on hold"))
    due = desk.ledger.due(desk.now, desk.now, up={"example.com": desk.now + 1}, but=[A, C])
    assert [each.id for each in due.expiring] == [B]
    assert due.held == ()
    assert [each.id for each in desk.ledger.due(desk.now, desk.now, but=[A]).overdue] == [A, B]


def test_mail_on_its_way_hides_none_that_is_to_be_held(desk: Desk) -> None:
    """What a primary that is up has not refused is left out; all else is old enough."""
    said = {
        A: ("u@example.com", "host m said: 450 later"),
        B: ("u@example.com", "host m said: 550 no"),
        C: ("u@example.org", "host m said: 450 later"),
    }
    for queue_id, (to, words) in said.items():
        desk.accept(queue_id)
        desk.say(tried(queue_id, to=to, status="deferred", words=words))
        desk.now += 1

    def overdue(up: dict[str, float] | None) -> list[str]:
        return [each.id for each in desk.ledger.due(desk.now, 0, 2, up=up).overdue]

    assert overdue(None) == [A, B]
    assert overdue({"example.com": 0.0}) == [B, C]
    assert overdue({"example.com": 0.0, "example.org": 0.0}) == [B]


@pytest.mark.parametrize(
    ("wanted", "expected"),
    [
        (Filter(), [A, B, C]),
        (Filter(fate="waiting"), [A, B]),
        (Filter(fate="held"), [C]),
        (Filter(why="held"), [C]),
        (Filter(domain="EXAMPLE.com"), [B]),
        (Filter(why=reasons.UNREACHABLE), [A]),
        (Filter(older=50), [A]),
        (Filter(search="LICE"), [B]),
        (Filter(search=A), [A]),
        (Filter(search=f"{C}@example"), [C]),
        (Filter(search="%"), []),
        (Filter(limit=1, offset=1), [B]),
        (Filter(fate="delivered"), []),
    ],
)
def test_messages_are_found_by_what_one_knows(
    desk: Desk, wanted: Filter, expected: list[str]
) -> None:
    """Fate, class, domain, age, and any part of an address or ID."""
    desk.now -= 100
    desk.accept(A)
    desk.say(tried(A, status="deferred", words=REFUSED_BY_TCP))
    desk.now += 100
    desk.accept(B)
    desk.say(tried(B, "alice@example.com", "deferred", "host m said: 450 later"))
    desk.accept(C)
    desk.say(super_(C, "placed on hold"))

    def look(ask: Callable[[Reader], object]) -> object:
        with reading(desk.path) as reader:
            return ask(reader)

    assert look(lambda reader: [row.id for row in reader.waiting(wanted)]) == expected
    if wanted.limit > 1:
        assert look(lambda reader: reader.total(wanted)) == len(expected)


@pytest.mark.parametrize("path", sorted(DATA.glob("*.log")), ids=lambda path: path.stem)
@pytest.mark.parametrize("batch", [1, 7, 5000])
def test_a_captured_log_adds_up_however_it_is_read(tmp_path: Path, path: Path, batch: int) -> None:
    """Batches of any size, restarts between them: the same sums as all at once."""
    desk = Desk(tmp_path)
    desk.log.write_bytes(path.read_bytes())
    while desk.ledger.catch_up(batch).behind:
        if batch == 7:
            desk.reopen()
    expected = (6, 0, 6, 0, 0, 1) if "hard" in path.stem else (23, 12, 1, 8, 2, 0)
    assert desk.parts == expected
    if "hard" not in path.stem:
        desk.now += 3600
        assert desk.listed() == 0  # the log's end is "postsuper -d ALL"
    desk.ledger.close()
