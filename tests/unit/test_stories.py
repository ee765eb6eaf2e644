"""What ``show``, ``ledger`` and ``queue`` say when the ledger is not of this minute."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from types import SimpleNamespace

import pytest

from backup_mx.errors import MachineError
from backup_mx.relay.ledger import PATH, query
from backup_mx.relay.ledger.rows import Row, Story
from backup_mx.relay.operator import answers, look
from backup_mx.relay.operator.asking import Asked, Said
from backup_mx.relay.root import client
from backup_mx.relay.root.protocol import Who
from backup_mx.relay.state import FOLLOW, WAITING, Snapshot, Sums, Trouble

ID = "4jXLpZ33n3zJ0G7"
STARTED = 1_763_800_000.0
ROW = Row(
    id=ID,
    fate="delivered",
    why="",
    words="",
    accepted=STARTED,
    queued=STARTED,
    ended=STARTED + 60,
    size=1000,
    sender="a@example.net",
    message_id="<x@example.net>",
    domain="example.org",
    to=0,
    recipients=(),
    attempts=1,
    last=STARTED + 60,
    asked_by="",
    trouble="",
)
STORY = Story(ROW, (ID,), "", "", (), (), ())
READER = SimpleNamespace(
    message=lambda _: STORY,
    sums=lambda: Sums(1, 1, 0, 0, 0),
    differences=lambda _: [],
    actions=lambda _: [],
)
Say = Callable[[str, Snapshot | None], Said]


def said_at(moment: float, *troubles: Trouble) -> Snapshot:
    return Snapshot(moment, STARTED, "mx2", "mx2.example.org", "0" * 64, troubles=troubles)


@pytest.fixture
def say(monkeypatch: pytest.MonkeyPatch) -> Say:
    """Asks a verb of a relay whose agent said that last; the answer's first part is returned."""

    def run(verb: str, last: Snapshot | None) -> Said:
        @contextlib.contextmanager
        def agent(*_: object) -> Iterator[tuple[SimpleNamespace, Snapshot | None]]:
            yield READER, last

        @contextlib.contextmanager
        def postqueue() -> Iterator[list[str]]:
            yield []

        monkeypatch.setattr(look, "agent", agent)
        monkeypatch.setattr(query, "reading", lambda: contextlib.nullcontext(READER))
        monkeypatch.setattr(look.listing, "__defaults__", (PATH, postqueue))
        monkeypatch.setattr(client, "ask", lambda *_, **__: pytest.fail("not asked for"))
        monkeypatch.setattr(client, "show", lambda *_, **__: None)
        given = (ID,) if verb == "show" else ()
        said = answers.of(verb)(
            Asked(verb, given, {}, Who("root"), (), None, pytest.fail, lambda _: False)
        )
        return said if isinstance(said, Said) else next(said)

    return run


@pytest.mark.parametrize("verb", ["show", "ledger"])
def test_a_blind_agent_is_not_called_silent(say: Say, verb: str) -> None:
    """It lives, but does not read the log: since when and why, printable."""
    trouble = Trouble(FOLLOW, "no\x1b log", STARTED)
    lines = say(verb, said_at(time.time(), trouble)).lines
    (line,) = (each for each in lines if "agent" in each)
    assert line == (
        "The agent cannot read the log since 2025-11-22 08:26 UTC"
        " (no\N{REPLACEMENT CHARACTER} log): the ledger is as old."
    )


@pytest.mark.parametrize("verb", ["show", "ledger"])
@pytest.mark.parametrize(
    "last", [None, said_at(STARTED), said_at(STARTED, Trouble(FOLLOW, "x", 1))]
)
def test_a_silent_agent_is_called_so(say: Say, verb: str, last: Snapshot | None) -> None:
    """Whatever it suffered from when it spoke last."""
    lines = say(verb, last).lines
    assert any(each.startswith("The agent is silent: ") for each in lines)


@pytest.mark.parametrize("verb", ["show", "ledger"])
def test_nothing_is_said_of_an_agent_that_is_well(say: Say, verb: str) -> None:
    """Other troubles do not make its ledger old."""
    lines = say(verb, said_at(time.time(), Trouble("reconcile", "no helper", 1))).lines
    assert not any("agent" in each for each in lines)


def test_postfix_tells_what_a_blind_agent_does_not(say: Say) -> None:
    """A queue that Postfix lists is said to be its own, not by which of the two reasons."""
    lines = list(say("queue", said_at(time.time(), Trouble(FOLLOW, "no log", STARTED))).lines)
    assert lines[0] == "The agent does not tell what waits; Postfix itself does."


def test_that_the_ledger_is_old_is_said_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """However many messages are shown; what the agent said last is read once for all of them."""
    read: list[object] = []

    def agent() -> contextlib.AbstractContextManager[object]:
        read.append(None)
        return contextlib.nullcontext((READER, None))

    monkeypatch.setattr(look, "agent", agent)
    monkeypatch.setattr(query, "reading", lambda: contextlib.nullcontext(READER))
    monkeypatch.setattr(client, "show", lambda *_, **__: None)
    given = (ID, f"{ID[:-1]}8")
    asked = Asked("show", given, {}, Who("root"), (), None, pytest.fail, lambda _: False)
    said = answers.of("show")(asked)
    assert not isinstance(said, Said)
    lines = [line for each in said for line in each.lines]
    assert len([line for line in lines if "is silent" in line]) == 1
    assert len([line for line in lines if line == f"{ID}: delivered"]) == 2
    assert len(read) == 1


def test_a_message_that_cannot_be_read_is_told_of_all_the_same(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The ledger knows it; why it cannot be read stands beside that, for programs as well."""

    def fail(*_: object, **__: object) -> None:
        raise MachineError("the helper does not answer")

    story = replace(STORY, row=replace(ROW, fate=WAITING))
    reader = SimpleNamespace(message=lambda _: story)
    monkeypatch.setattr(look, "agent", lambda: contextlib.nullcontext((reader, None)))
    monkeypatch.setattr(query, "reading", lambda: contextlib.nullcontext(reader))
    monkeypatch.setattr(client, "show", fail)
    asked = Asked("show", (ID,), {}, Who("root"), (), None, pytest.fail, lambda _: False)
    (said,) = answers.of("show")(asked)  # type: ignore[misc]
    assert list(said.lines)[-1] == "the message cannot be read: the helper does not answer"
    assert said.data
    assert (said.code, said.data["error"]) == (0, "the helper does not answer")
    assert said.data["story"]["row"]["id"] == ID


def test_a_message_lies_here_although_the_ledger_is_damaged(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Only its story is not known then; why is said."""
    lying = {
        "id": ID, "queue": "hold", "size": 9, "sender": "", "recipients": [], "attributes": {},
        "headers": "Subject: x\n", "cut": False,
    }  # fmt: skip

    def damaged(_: str) -> Story:
        raise MachineError("the ledger cannot be read")

    reader = SimpleNamespace(message=damaged)
    monkeypatch.setattr(look, "agent", lambda: contextlib.nullcontext((reader, None)))
    monkeypatch.setattr(query, "reading", lambda: contextlib.nullcontext(reader))
    monkeypatch.setattr(client, "show", lambda *_, **__: lying)
    asked = Asked("show", (ID,), {}, Who("root"), (), None, pytest.fail, lambda _: False)
    (said,) = answers.of("show")(asked)  # type: ignore[misc]
    lines = list(said.lines)
    assert (said.code, lines[0], lines[-1]) == (0, "the ledger cannot be read", "Subject: x")
