"""The verbs on a relay: what they take, what they show, and what they end with."""

from __future__ import annotations

import contextlib
import io
import json
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from backup_mx.errors import MachineError
from backup_mx.relay import __main__ as relay_main
from backup_mx.relay import state
from backup_mx.relay.certificate import Asked
from backup_mx.relay.ledger.rows import Filter
from backup_mx.relay.operator import answers, look, status, verbs
from backup_mx.relay.operator import who as whose
from backup_mx.relay.queue import postfix, reasons
from backup_mx.relay.root import client, maintenance
from backup_mx.relay.root.protocol import GONE, Result, Who
from backup_mx.relay.state import (
    Count,
    Disk,
    Primary,
    Shown,
    Snapshot,
    Sums,
    TableState,
    Trouble,
    Walk,
)

NOW = time.time()
DAY = 86_400
AWAY = "connect to mail.example.org[198.51.100.10]:2526: Connection timed out"
REFUSED = "host mail.example.org[198.51.100.10] said: 550 5.1.1 no (in reply to RCPT TO command)"


def listed(number: int, **changes: object) -> str:
    """A line of postqueue -j; the higher the number the younger."""
    entry: dict[str, object] = {
        "queue_name": "deferred",
        "queue_id": f"4jXLpZ33n{number:04d}zJ0G7",
        "arrival_time": int(NOW) - 5000 + number,
        "message_size": 2048,
        "sender": "a@example.net",
        "recipients": [{"address": "alice@example.org", "delay_reason": AWAY}],
    }
    return json.dumps(entry | changes)


LINES = (
    listed(3),
    listed(1, recipients=[{"address": "Bob@example.com", "delay_reason": REFUSED}]),
    listed(2, queue_name="hold"),
    listed(4, queue_name="active", recipients=[{"address": "carol@sub.example.org"}]),
)


@contextlib.contextmanager
def postqueue() -> Iterator[Sequence[str]]:
    yield LINES


DOWN = Walk(NOW, False, "connect", "unreachable", AWAY, 1)
ASKED = Asked("acme.example.net a.example", NOW, 3, NOW - 7200, "no such name")
SNAPSHOT = Snapshot(
    time=NOW,
    started=NOW - 3 * DAY,
    relay="mx2",
    hostname="mx2.example.org",
    version="0123456789abcdef",
    primaries=(
        Primary("home", "down", NOW - 2 * DAY, walk=DOWN),
    ),
    counts=(
        Count("waiting", "unreachable", 1000, 10 << 20, NOW - 2 * DAY),
        Count("waiting", "refused", 2, 2048, NOW - DAY),
        Count("held", "held", 1, 1024, NOW - 40 * DAY),
    ),
    sums=Sums(accepted=2000, delivered=990, waiting=1002, held=1, deleted=7),
    disk=Disk(40 << 30, 50 << 30, 1 << 28),
    certificate=NOW + 60 * DAY,
    retention=30 * DAY,
)  # fmt: skip


@pytest.fixture
def snapshot(monkeypatch: pytest.MonkeyPatch) -> Callable[[Snapshot | None], None]:
    """A setter of what the agent said last; there is no ledger to read from."""

    def last(said: Snapshot | None) -> None:
        @contextlib.contextmanager
        def agent(*_: object) -> Iterator[tuple[None, Snapshot | None]]:
            yield None, said

        monkeypatch.setattr(look, "agent", agent)

    monkeypatch.setattr(time, "time", lambda: NOW)
    monkeypatch.setattr(look, "postqueue", postqueue)
    monkeypatch.setattr(maintenance, "until", lambda: 0.0)
    last(None)
    return last


def test_without_an_agent_postfix_tells() -> None:
    """The oldest come first, all are counted, and it is said who told."""
    found = look.of_postfix(LINES, Filter(limit=2))
    assert [each.id[9:13] for each in found.items] == ["0001", "0002"]
    assert (found.total, found.agent) == (4, False)
    assert {(each.fate, each.why): each.messages for each in found.counts or ()} == {
        ("held", "held"): 1,
        ("waiting", "refused"): 1,
        ("waiting", "unreachable"): 1,
        ("waiting", "new"): 1,
    }


@pytest.mark.parametrize(
    ("wanted", "numbers"),
    [
        (Filter(domain="example.com"), "1"),
        (Filter(domain="EXAMPLE.org"), "23"),
        (Filter(why="refused"), "1"),
        (Filter(fate="held"), "2"),
        (Filter(fate="waiting"), "134"),
        (Filter(search="BOB@"), "1"),
        (Filter(search="0004z"), "4"),
        (Filter(search="0004Z"), ""),  # IDs of two messages may differ in that alone
        (Filter(search="nobody"), ""),
        (Filter(older=DAY), ""),
        (Filter(older=60, limit=0), "1234"),
    ],
)
def test_filters(wanted: Filter, numbers: str) -> None:
    """What all of a filter holds for, whatever the case of an address."""
    found = look.of_postfix(LINES, wanted)
    assert "".join(each.id[12] for each in found.items) == numbers
    assert found.total == len(numbers)


def test_a_message_that_moves_is_listed_once() -> None:
    """Even if postqueue meets it twice."""
    found = look.of_postfix((LINES[0], LINES[0].replace("deferred", "active")), Filter())
    assert len(found.items) == 1


def test_what_is_no_listing_is_one_message() -> None:
    """Nonsense of Postfix's is told as such."""
    with pytest.raises(MachineError, match="not a line of postqueue"):
        look.of_postfix(["what?"], Filter())


def test_status_is_one_screen(snapshot: Callable[[Snapshot | None], None]) -> None:
    """Everything an operator asks for first, each in a line."""
    snapshot(SNAPSHOT)
    shown = status.status()
    text = "\n".join(shown.lines)
    assert len(shown.lines) <= 12
    for words in (
        "mx2 (mx2.example.org), version 0123456789ab\n",
        "agent: alive for 3 d",
        "primary home: down since",
        "at connect: connect to mail.example.org[198.51.100.10]:2526: Connection timed out",
        "waiting: 1,002 messages, 10 MiB, the oldest for 2 d (2 refused, 1,000 unreachable)",
        "held: 1 message, 1 KiB, the oldest for 40 d",
        "retention: the oldest message reaches it in 28 d",
        "disk: 40.0 GiB free of 50.0 GiB",
        "certificate: expires in 60 d",
        "ledger: 2,000 accepted = 990 delivered + 1,002 waiting + 1 held + 7 deleted",
    ):
        assert words in text
    assert shown.data["agent"]["alive"]
    assert state.from_text(json.dumps(shown.data["snapshot"])) == SNAPSHOT


def test_a_silent_agent_is_told(snapshot: Callable[[Snapshot | None], None]) -> None:
    """What it said a minute ago is history: Postfix itself is asked what waits."""
    old = replace(SNAPSHOT, time=NOW - 7200, sums=replace(SNAPSHOT.sums, differences=1))
    snapshot(old)
    shown = status.status(lines=postqueue)
    text = "\n".join(shown.lines)
    assert "agent: SILENT for 2 h; what waits is Postfix's own word" in text
    assert "waiting: 3 messages" in text
    assert "as of " in text
    assert any(line.startswith("ledger: 2,000") and "as of " in line for line in shown.lines)
    assert "1 DIFFERENCE; backup-mx ledger names them" in text
    assert not shown.data["agent"]["alive"]


def test_a_blind_agent_is_told(snapshot: Callable[[Snapshot | None], None]) -> None:
    """It lives and walks, but does not read the log: what waits is not what it says."""
    snapshot(replace(SNAPSHOT, troubles=(Trouble("follow", "no\x1b log", NOW - 7200),)))
    shown = status.status(lines=postqueue)
    text = "\n".join(shown.lines)
    assert "agent: BLIND for 2 h: no" in text
    assert "what waits is Postfix's own word" in text
    assert "waiting: 3 messages" in text
    assert "\x1b" not in text
    assert any(line.startswith("ledger: 2,000") and "as of " in line for line in shown.lines)
    assert shown.data["agent"]["alive"]
    assert shown.data["agent"]["blind"]


def test_a_lame_agent_is_told(snapshot: Callable[[Snapshot | None], None]) -> None:
    """Each task that fails, and why, in a line."""
    snapshot(replace(SNAPSHOT, troubles=(Trouble("reconcile", "no helper", NOW - 7200),)))
    shown = status.status()
    assert "trouble: reconcile has failed for 2 h: no helper" in shown.lines
    assert shown.data["agent"]["alive"]
    assert not shown.data["agent"]["blind"]


def test_no_agent_at_all(snapshot: Callable[[Snapshot | None], None]) -> None:
    """A relay whose agent never ran tells what Postfix knows."""
    snapshot(None)
    shown = status.status(lines=postqueue)
    assert shown.lines[0] == "agent: never heard of; what follows is Postfix's own word"
    assert "held: 1 message" in "\n".join(shown.lines)


@pytest.mark.parametrize(
    ("snap", "words"),
    [
        (replace(SNAPSHOT, certificate=NOW - DAY), "certificate: EXPIRED 1 d ago"),
        (
            replace(SNAPSHOT, policies=(Shown("a.example", NOW + 9 * DAY),)),
            "certificate of a.example: expires in 9 d",
        ),
        (
            replace(SNAPSHOT, policies=(Shown("a.example", NOW - DAY),)),
            "certificate of a.example: EXPIRED 1 d ago",
        ),
        (
            replace(SNAPSHOT, policies=(Shown("a.example", None, asked=ASKED),)),
            "certificate of a.example: NONE is shown\n"
            "acme.example.net gives a.example no certificate, for 2 h now: no such name",
        ),
        (replace(SNAPSHOT, disk=Disk(5, 9, 7)), "FULL, no mail is taken"),
        (replace(SNAPSHOT, disk=Disk(9, 9, 7, damaged=True)), ": DAMAGED, or read-only"),
        (replace(SNAPSHOT, sums=Sums(accepted=5)), "ledger: 5 accepted ≠ 0 delivered"),
        (replace(SNAPSHOT, retention=DAY), "is over it by 1 d"),
        (replace(SNAPSHOT, counts=()), "waiting: nothing"),
        (
            replace(SNAPSHOT, tables=(TableState("a.example", 9, 1.7e9, "it is empty"),)),
            "recipients of a.example: it is empty (the table of 2023-11-14 22:13 UTC stays)",
        ),
        (
            replace(SNAPSHOT, tables=(TableState("a.example", 0, None, "404"),)),
            "recipients of a.example: 404 (there is no table yet, so everybody is taken)",
        ),
    ],
)
def test_what_is_wrong_stands_out(
    snapshot: Callable[[Snapshot | None], None], snap: Snapshot, words: str
) -> None:
    """Each trouble has its words."""
    snapshot(snap)
    assert words in "\n".join(status.status().lines)


GOING = replace(
    SNAPSHOT,
    primaries=(Primary("home", "up", NOW, waiting=1002), Primary("x", "down", NOW, waiting=5000)),
)


@pytest.mark.parametrize(
    ("pace", "words"),
    [
        (0.0, ""),
        (0.032, "drain: 0.032 messages/s, the rest in 8 h 41 min"),
        (4.17, "drain: 4.2 messages/s, the rest in 4 min"),
        (1200.4, "drain: 1,200 messages/s, the rest in 1 s"),
    ],
)
def test_a_drain_tells_how_long_it_takes(
    snapshot: Callable[[Snapshot | None], None], pace: float, words: str
) -> None:
    """As long as it moves."""
    snapshot(replace(GOING, per_second=pace))
    assert [each for each in status.status().lines if each.startswith("drain:")] == (
        [words] if words else []
    )


@pytest.mark.parametrize(
    ("snap", "until"),
    [
        (replace(GOING, per_second=4.0, counts=SNAPSHOT.counts[2:]), 0.0),
        (replace(GOING, per_second=4.0, time=NOW - 7200), 0.0),
        (replace(GOING, per_second=4.0, troubles=(Trouble("follow", "no", NOW),)), 0.0),
        (replace(GOING, per_second=4.0), NOW + DAY),
        (replace(SNAPSHOT, per_second=4.0), 0.0),
    ],
    ids=["only what is held", "silent", "blind", "maintenance", "only for who is down"],
)
def test_no_pace_is_told_that_says_nothing(
    snapshot: Callable[[Snapshot | None], None],
    monkeypatch: pytest.MonkeyPatch,
    snap: Snapshot,
    until: float,
) -> None:
    """Where nothing moves any more, or nobody sees whether it does."""
    snapshot(snap)
    monkeypatch.setattr(maintenance, "until", lambda: until)
    assert "drain:" not in "\n".join(status.status(lines=postqueue).lines)


def test_servers_steer_no_terminal(snapshot: Callable[[Snapshot | None], None]) -> None:
    """What a primary said is shown, not obeyed."""
    walk = Walk(NOW, False, "rcpt", "refused", "550 \x1b[2J\x9b\r\nno", 1)
    snapshot(replace(SNAPSHOT, primaries=(Primary("home", "refusing", NOW, walk=walk),)))
    assert all(line.isprintable() for line in status.status().lines)


Run = Callable[..., tuple[int, str, str]]


@pytest.fixture
def run(
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    snapshot: Callable[[Snapshot | None], None],
) -> Run:
    """A maker of finished runs of the relay's own command line."""
    snapshot(None)
    monkeypatch.setattr(look, "listing", lambda wanted: look.of_postfix(LINES, wanted))
    monkeypatch.setattr(look, "ids", partial(look.ids, lines=postqueue))

    def done(*arguments: str, stdin: str = "", columns: str = "") -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["backup-mx", *arguments])
        monkeypatch.setattr(sys, "stdin", io.StringIO(stdin))
        monkeypatch.setenv("COLUMNS", columns)
        try:
            code = relay_main.main()
        except SystemExit as ended:
            code = int(ended.code or 0)
        out, err = capsys.readouterr()
        return code, out, err

    return done


def test_the_queue_fits_the_screen(run: Run) -> None:
    """Where the reader's screen is narrow, what is long is cut."""
    _, wide, _ = run("queue")
    assert f"{REFUSED}\n" in wide
    sums = "4 waiting, 8 KiB, the oldest for 1 h 23 min\n1 held, 1 refused, 1 unreachable, 1 new\n"
    assert sums in wide
    _, narrow, _ = run("queue", columns="90")
    assert max(map(len, narrow.splitlines())) <= 90


def test_the_widest_of_messages_has_room_on_eighty_columns(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An ID as long as most are, hours and minutes of two digits, a size just below 1 MiB."""
    widest = listed(
        1, queue_id="4jXLpZ33n0001z7", arrival_time=int(NOW) - 23 * 3600 - 59 * 60,
        message_size=1023 * 1024, sender="a-long-name@example.net",
    )  # fmt: skip
    monkeypatch.setattr(look, "listing", lambda wanted: look.of_postfix([widest], wanted))
    table = run("queue", columns="80")[1].splitlines()[:2]
    assert "unreachable  23 h 59 min  1023 KiB  a-" in table[1]
    assert max(map(len, table)) <= 80


def test_the_queue_as_json(run: Run) -> None:
    """For programs: every recipient with his reason."""
    code, out, _ = run("queue", "--class", "refused", "--json")
    (message,) = json.loads(out)["messages"]
    assert code == 0
    assert (message["class"], message["fate"]) == ("refused", "waiting")
    assert message["recipients"] == [{"address": "Bob@example.com", "reason": REFUSED}]


def test_ids_for_another_verb(run: Run) -> None:
    """All that are meant, one a line, whatever the limit."""
    assert len(run("queue", "--ids", "--limit", "1")[1].splitlines()) == 4


@pytest.fixture
def helper(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """What the helper is asked; it does all but to IDs that begin with 5."""
    asked: list[Any] = []

    def change(verb: str, ids: Sequence[str], *, by: str, address: str) -> list[Result]:
        asked.append((verb, list(ids), by, address))
        return [Result(each, each[0] != "5", GONE if each[0] == "5" else "done") for each in ids]

    def ask(verb: str, **fields: object) -> dict[str, Any]:
        asked.append((verb, fields))
        return {"done": True}

    monkeypatch.setattr(client, "change", change)
    monkeypatch.setattr(client, "ask", ask)
    monkeypatch.setattr(whose, "who", lambda: Who("eve", "198.51.100.7"))
    return asked


ID, OTHER = "4jXLpZ33n0001zJ0G7", "5jXLpZ33n0001zJ0G7"


def test_messages_are_meant_by_their_ids(run: Run, helper: list[Any]) -> None:
    """On the command line or on standard input, each once; what fails makes the exit code 1."""
    assert run("hold", ID) == (0, f"{ID}: done\n", "")
    code, out, _ = run("hold", "-", ID, stdin=f"{OTHER}\n\n{ID}\n")
    assert (code, out) == (1, f"{OTHER}: no such message\n{ID}: done\n")
    assert helper == [
        ("hold", [ID], "eve", "198.51.100.7"),
        ("hold", [OTHER, ID], "eve", "198.51.100.7"),
    ]


LETTER: dict[str, Any] = {
    "queue": "deferred",
    "size": 4,
    "sender": "a@example.net",
    "recipients": [],
    "attributes": {},
    "headers": "Subject: x\n",
    "cut": False,
}


@pytest.fixture
def letters(monkeypatch: pytest.MonkeyPatch) -> None:
    """A helper that can show every message whose ID does not begin with 5."""

    def show(queue_id: str, *, body: bool) -> dict[str, Any]:
        if queue_id[0] == "5":
            raise MachineError(f"{queue_id}: {GONE}")
        return LETTER | {"id": queue_id} | ({"body": "the body\n"} if body else {})

    monkeypatch.setattr(client, "show", show)


@pytest.mark.usefixtures("letters")
def test_many_messages_are_shown(run: Run) -> None:
    """Apart from each other, each once; one that is nowhere is told, and keeps none back."""
    code, out, err = run("show", "--body", OTHER, "-", stdin=f"{ID}\n{ID}\n{ID[:-1]}8\n")
    gone, one, two = out.split("\n\n\n")
    assert (code, err) == (1, "")
    assert gone == f"{OTHER}: no such message"
    assert one.startswith(f"{ID} lies in deferred, 4 B\n")
    assert one.endswith("\nthe body")
    assert two.startswith(f"{ID[:-1]}8 lies in deferred, 4 B\n")
    assert "body" not in run("show", ID)[1]


@pytest.mark.usefixtures("letters")
def test_messages_are_shown_to_programs_line_by_line(run: Run) -> None:
    """One object for each, of one shape whether it is one message or many; none for none."""
    code, out, _ = run("show", "--json", OTHER, ID)
    gone, found = map(json.loads, out.splitlines())
    assert code == 1
    error = f"{OTHER}: no such message"
    assert gone == {"id": OTHER, "story": None, "message": None, "error": error}
    assert found == {"id": ID, "story": None, "message": LETTER | {"id": ID}, "error": None}
    assert run("show", "--json", ID) == (0, f"{out.splitlines()[1]}\n", "")
    assert run("show", "--json", "-") == (0, "", "")
    assert run("show", "-") == (0, "No message is meant.\n", "")


@pytest.mark.usefixtures("letters")
def test_messages_that_a_filter_finds_are_shown(run: Run) -> None:
    """As they are held or released."""
    lines = run("show", "--waiting", "--json")[1].splitlines()
    assert [json.loads(each)["id"][9:13] for each in lines] == ["0001", "0003", "0004"]


def test_messages_are_meant_by_a_filter(run: Run, helper: list[Any]) -> None:
    """Those that it finds."""
    assert run("release", "--held")[0] == 0
    assert [len(ids) for _, ids, *_ in helper] == [1]
    assert run("requeue", "--all")[0] == 0
    assert len(helper[1][1]) == 4


@pytest.mark.parametrize(
    "arguments",
    [
        ("hold",),
        ("hold", "ALL"),
        ("hold", "x;y"),
        ("hold", "--", "-h"),
        ("hold", ID, "--all"),
        ("hold", "--held", "--waiting"),
        ("delete", "--older", "soon"),
        ("queue", "--limit", "-1"),
        ("queue", "--class", "odd"),
        ("maintenance",),
        ("maintenance", "off", "--for", "4h"),
        ("show",),
        ("show", "../x"),
        ("rm",),
    ],
)
def test_wrong_usage(run: Run, helper: list[Any], arguments: tuple[str, ...]) -> None:
    """Is told, ends with 2, and nothing is asked of the helper."""
    code, out, err = run(*arguments)
    assert (code, out) == (2, "")
    assert err
    assert helper == []


def test_delete_asks(run: Run, helper: list[Any]) -> None:
    """Where nobody is there to say yes, nothing is deleted, unless he said so before."""
    assert run("delete", ID)[0] == 1
    assert helper == []
    assert run("delete", ID, "--yes")[0] == 0
    assert helper[0][0] == "delete"


class Terminal(io.StringIO):
    """Somebody's, who leaves when he has said that."""

    def isatty(self) -> bool:
        return True


def test_who_leaves_at_the_question_has_said_no(
    run: Run, helper: list[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Ctrl-D is no y."""
    monkeypatch.setattr(io, "StringIO", Terminal)
    question = f"Delete {ID} for ever? [y/N] "
    assert run("delete", ID) == (1, f"{question}\n", "backup-mx: nothing was deleted\n")
    assert run("delete", ID, stdin="n\n")[0] == 1
    assert helper == []
    assert run("delete", ID, stdin="y\n") == (0, f"{question}{ID}: done\n", "")


def test_many_results_are_summed_up(run: Run, helper: list[Any]) -> None:
    """Thousands of answers are some lines: counts, and those that failed."""
    many = "\n".join(f"4jXLpZ33n{number:04d}zJ0G7" for number in range(1500)).replace("A", "B")
    code, out, _ = run("hold", "-", stdin=f"{many}\n{OTHER}\n")
    assert code == 1
    assert out == f"1,500 done\n1 no such message\n{OTHER}: no such message\n"
    assert len(helper[0][1]) == 1501


def test_drain_tells_what_is_tried(run: Run, helper: list[Any]) -> None:
    """A flush leaves what is on hold."""
    assert run("drain")[1] == "3 messages are tried now.\n1 message is on hold, and not tried.\n"
    assert helper == [("flush", {})]


def test_drain_tries_what_nobody_can_count(
    run: Run, helper: list[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A ledger that cannot be read, and a Postfix that says nothing, cost the number alone."""

    def listing(_wanted: Filter) -> look.Listing:
        assert helper == [("flush", {})]
        raise MachineError("postqueue: fatal: no \x07")

    monkeypatch.setattr(look, "listing", listing)
    code, out, _ = run("drain")
    assert (code, out) == (
        0, "All that waits is tried now; how much, nobody tells: postqueue: fatal: no �\n"
    )  # fmt: skip
    helper.clear()
    data = json.loads(run("drain", "--json")[1])
    assert (data["tried"], data["held"]) == (None, None)


@pytest.mark.usefixtures("helper")
def test_what_was_deleted_is_told_although_the_ledger_is_damaged(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Only what the ledger makes of it is not known then."""

    @contextlib.contextmanager
    def agent() -> Iterator[tuple[object, None]]:
        yield type("Damaged", (), {"message": raises(MachineError("it cannot be read"))}), None

    monkeypatch.setattr(look, "agent", agent)
    assert run("delete", OTHER, "--yes")[:2] == (1, f"{OTHER}: {GONE}\n")


def test_maintenance_is_switched(run: Run, helper: list[Any]) -> None:
    """For four hours, or as long as is said."""
    run("maintenance", "on", "--for", "30min")
    run("maintenance", "off")
    run("maintenance", "status")
    (on, off) = [fields for verb, fields in helper if verb == "maintenance"]
    assert on["until"] == pytest.approx(time.time() + 1800, abs=60)
    assert off == {"until": 0, "by": "eve", "from_": "198.51.100.7"}


def test_no_helper_is_one_line(run: Run) -> None:
    """A relay without its helper says so and ends with 1."""
    code, out, err = run("hold", ID)
    assert (code, out) == (1, "")
    assert err.startswith("backup-mx: the helper cannot be asked")
    assert err.count("\n") == 1


def raises(error: Exception) -> Callable[..., Any]:
    """A function that always does."""

    def fail(*_: object, **__: object) -> None:
        raise error

    return fail


ASKS = [
    *(["status"], ["queue"], ["show", "4jXLpZ33n0001zJ0G7"], ["ledger"], ["drain"], ["guard"]),
    *(["hold", "--all"], ["delete", "--all", "--yes"], ["export", "--all"], ["import", "x.json"]),
    ["maintenance", "status"],
]


@pytest.mark.parametrize("asked", ASKS, ids=lambda asked: asked[0])
@pytest.mark.parametrize(
    ("error", "told"),
    [
        (FileNotFoundError(2, "No such file or directory", "/x"), "/x: No such file or directory"),
        (OSError(28, "No space left on device"), "the output: No space left on device"),
        (KeyError("secret"), "a defect in backup-mx: KeyError at test_verbs.py:"),
    ],
)
def test_no_verb_shows_a_traceback(
    run: Run, monkeypatch: pytest.MonkeyPatch, asked: list[str], error: Exception, told: str
) -> None:
    """Whatever it meets: one line, and 1."""
    monkeypatch.setattr(answers, "of", lambda _verb: raises(error))
    code, out, err = run(*asked)
    assert (code, out) == (1, "")
    assert err.startswith(f"backup-mx: {told}")
    assert err.count("\n") == 1
    assert "secret" not in err


def test_a_traceback_is_there_for_who_wants_it(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """As in the operator's command; a unit's stands in the journal always."""
    monkeypatch.setattr(answers, "of", lambda _verb: raises(KeyError("x")))
    monkeypatch.setenv("BACKUP_MX_TRACEBACK", "1")
    assert "Traceback" in run("status")[2]
    monkeypatch.setattr(relay_main, "run", raises(KeyError("x")))
    with pytest.raises(KeyError):
        run("agent")


def test_without_postqueue_that_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    """As an error that a verb tells."""
    monkeypatch.setattr(postfix, "LIST", ("no-postqueue", "-j"))
    missing = pytest.raises(MachineError, match="no-postqueue cannot be run: No such file")
    with missing, look.postqueue():
        pass


def test_postqueue_is_found_by_who_has_no_sbin_in_his_path(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As on Debian, where anybody may run it."""
    (tmp_path / "postqueue").write_text("#!/bin/sh\necho {}\n")
    (tmp_path / "postqueue").chmod(0o755)
    monkeypatch.setattr(look, "_SBIN", str(tmp_path))
    monkeypatch.setenv("PATH", "/nowhere:/bin:/usr/bin")
    with look.postqueue() as lines:
        assert list(lines) == ["{}\n"]


def test_every_verb_has_an_answer() -> None:
    """The table and the code agree; no option has two meanings."""
    runs = {"agent", "helper"}
    assert {verb.name for verb in verbs.VERBS} == set(answers.ANSWERS) | runs
    assert all(callable(answers.of(verb)) for verb in answers.ANSWERS)
    for verb in verbs.VERBS:
        keys = [option.key for option in verb.options]
        assert len(keys) == len(set(keys))


@pytest.mark.parametrize("verb", ["status", "queue", "show", "ledger"])
def test_a_verb_that_only_reads_starts_light(verb: str) -> None:
    """What other verbs need is not imported: it takes longest on an eighth of a core."""
    program = f"import sys; from backup_mx.relay.operator import answers; answers.of({verb!r})"
    heavy = "{'smtplib', 'ssl', 'tempfile', 'asyncio', 'email.message'}"
    done = subprocess.run(
        [sys.executable, "-c", f"{program}; print(*{heavy} & set(sys.modules))"],
        check=True, capture_output=True, text=True,
    )  # fmt: skip
    assert done.stdout.split() == []


@pytest.mark.parametrize("verb", [verb.name for verb in verbs.VERBS])
def test_every_verb_explains_itself(run: Run, verb: str) -> None:
    """--help works everywhere."""
    code, out, _ = run(verb, "--help")
    assert code == 0
    assert out.startswith(f"usage: backup-mx {verb}")


def test_who_asks(tmp_path: Path) -> None:
    """The login behind sudo; the address from SSH, also where sudo hides it."""
    here = {"SUDO_USER": "eve", "SSH_CONNECTION": "198.51.100.7 50000 203.0.113.20 22"}
    assert whose.who(here, tmp_path) == Who("eve", "198.51.100.7")
    assert whose.who({"SUDO_USER": "a b\nc\x1b" + "x" * 80}, tmp_path).name == ("a_b_c_" + "x" * 58)
    assert whose.who({"SUDO_USER": "eve", "SSH_CONNECTION": "x by=root"}, tmp_path) == Who("eve")


def test_the_address_of_who_is_behind_sudo(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is that of the nearest process above that has one."""
    for process, parent, variables in (
        (30, 20, b"A=1"),
        (20, 1, b"SSH_CONNECTION=2001:db8::7 1 2 3"),
    ):
        (tmp_path / str(process)).mkdir()
        (tmp_path / str(process) / "environ").write_bytes(variables + b"\0B=2\0")
        (tmp_path / str(process) / "status").write_text(f"Name:\tx\nPPid:\t{parent}\n")
    monkeypatch.setattr("os.getppid", lambda: 30)
    assert whose.who({"SUDO_USER": "eve"}, tmp_path) == Who("eve", "2001:db8::7")


@given(st.text(), st.text())
def test_who_is_always_fit_for_the_log(name: str, connection: str) -> None:
    """Whatever the environment holds."""
    found = whose.who({"SUDO_USER": name, "SSH_CONNECTION": connection}, Path("/nonexistent"))
    assert found.name.isprintable()
    assert " " not in found.name
    assert " " not in found.address


def test_maintenance_has_its_class() -> None:
    """Mail that is kept on purpose is told from mail that cannot go."""
    assert reasons.class_of("maintenance until 2026-11-22T09:33:20Z") == reasons.MAINTENANCE
    assert reasons.worst(["maintenance", "unreachable"]) == "unreachable"
    assert state.WAITING == "waiting"
