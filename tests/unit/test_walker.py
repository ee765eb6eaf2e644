"""The task that walks: its pace, stuck walks, and the daily message."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable
from dataclasses import replace
from email import message_from_bytes

import pytest
from relay_settings import SETTINGS, TARGET

from backup_mx.net.canary import Outcome, Path
from backup_mx.relay.decide import canary
from backup_mx.relay.decide.canary import Judged
from backup_mx.relay.settings import Settings
from backup_mx.relay.state import DOWN, STARTING, UP
from backup_mx.relay.tasks import walker
from backup_mx.relay.tasks.walker import Walker


def good(_: Path) -> Outcome:
    return Outcome(time.time(), "rset", "", "250 ok", 0.01)


def bad(_: Path) -> Outcome:
    return Outcome(time.time(), "connect", "unreachable", "refused", 0.01)


def make(
    stroll: Callable[[Path], Outcome], *, wanted: bool = True, settings: Settings = SETTINGS
) -> tuple[Walker, list[tuple[Judged, Judged]]]:
    told: list[tuple[Judged, Judged]] = []
    made = Walker(
        settings=settings,
        target=TARGET,
        judged=canary.starting("home", time.time()),
        wanted=lambda: wanted,
        changed=lambda before, after: told.append((before, after)),
        stroll=stroll,
    )
    return made, told


def turned(made: Walker, until: Callable[[], bool]) -> None:
    """Let it walk until something is so."""

    async def main() -> None:
        async with asyncio.timeout(10):
            while not until():
                await made.turn()
                await asyncio.sleep(0.005)
        await made.stop()

    asyncio.run(main())


def test_the_first_walk_is_at_once() -> None:
    """What it told is handed on: what was known before, and what is known after."""
    made, told = make(good)
    turned(made, lambda: bool(told))
    (before, after) = told[0]
    assert (before.primary.state, after.primary.state) == (STARTING, UP)
    assert (made.good, made.bad) == (1, 0)


def test_a_mistake_of_ours_is_told() -> None:
    """Else the primary would keep its last state for ever; and the next walk is on time."""
    ended: list[Exception | None] = []
    walks = 0

    def stroll(path: Path) -> Outcome:
        nonlocal walks
        walks += 1
        if walks == 1:
            raise ZeroDivisionError("ours")
        return good(path)

    made, told = make(stroll, settings=replace(SETTINGS, canary_waiting=1))
    made.ended = lambda task, error: ended.append(error) if task == "walk to home" else None
    turned(made, lambda: bool(ended))
    assert [str(each) for each in ended] == ["ours"]
    assert not told
    turned(made, lambda: len(ended) > 1)
    assert ended[1] is None
    assert made.judged.primary.state == UP


def test_the_way_is_the_drains() -> None:
    """The same host, port and TLS as Postfix has, as the relay itself, to a postmaster."""
    found = walker.path_of(SETTINGS, TARGET)
    assert (found.host, found.port, found.tls, found.name) == (
        "203.0.113.10",
        25,
        "encrypt",
        "mail.example.org",
    )
    assert (found.ehlo, found.recipient) == ("mx2.example.org", "postmaster@example.org")


def test_walks_keep_their_pace() -> None:
    """After one walk the next is due when the pace says so, not before."""
    made, told = make(good)
    turned(made, lambda: bool(told))
    wait = asyncio.run(made.turn())
    assert 4 < wait <= 5
    idle, told = make(good, wanted=False)
    turned(idle, lambda: bool(told))
    assert 59 < asyncio.run(idle.turn()) <= 60


def test_a_stuck_walk_does_not_hide_that_the_primary_is_back(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A fresh walk starts beside it; what the stuck one says at last is old news."""
    monkeypatch.setattr(canary, "QUICK", 0.02)
    go, walks = threading.Event(), []

    def stroll(path: Path) -> Outcome:
        walks.append(path)
        began = time.time()
        if len(walks) == 1:
            return bad(path)
        if len(walks) == 2:
            go.wait(10)
            return Outcome(began, "greeting", "unreachable", "timed out", time.time() - began)
        return good(path)

    made, told = make(stroll)
    turned(made, lambda: made.good > 0)
    assert made.judged.primary.state == UP
    count = len(told)

    async def end() -> None:
        outcome = Outcome(time.time() - 20, "greeting", "unreachable", "timed out", 20.0)
        made.stroll = lambda _: outcome
        await made._walk()

    asyncio.run(end())
    go.set()
    assert made.judged.primary.state == UP
    assert len(told) == count


def test_no_more_than_a_few_walks_are_under_way(monkeypatch: pytest.MonkeyPatch) -> None:
    """However long they are stuck."""
    monkeypatch.setattr(canary, "QUICK", 0.01)
    go, walks = threading.Event(), []

    def stroll(path: Path) -> Outcome:
        walks.append(path)
        if len(walks) == 1:
            return bad(path)
        go.wait(10)
        return bad(path)

    made, _ = make(stroll)
    began = time.monotonic()
    turned(made, lambda: time.monotonic() - began > 0.5)
    assert len(walks) == 1 + walker.AT_ONCE
    assert made.judged.primary.state == DOWN
    go.set()


def test_the_daily_message() -> None:
    """Once a day, to the configured address, when the primary is up; it has a whole header."""
    paths: list[Path] = []

    def stroll(path: Path) -> Outcome:
        paths.append(path)
        return good(path)

    made, told = make(stroll, settings=replace(SETTINGS, canary_message_to="c@example.org"))
    made.judged = canary.after(made.judged, canary.walked(good((paths and paths[0]) or None)))  # type: ignore[arg-type]
    turned(made, lambda: bool(told))
    assert [path.recipient for path in paths] == ["c@example.org"]
    message = message_from_bytes(paths[0].message)
    assert {"From", "To", "Date", "Message-ID", "Subject", "Auto-Submitted"} <= {*message}
    assert made.judged.primary.message
    assert made.judged.primary.message.good
    made._started = 0.0
    turned(made, lambda: len(told) > 1)
    assert paths[-1].recipient == "postmaster@example.org"


def test_a_daily_message_that_is_refused_is_no_outage() -> None:
    """A full mailbox is told, and tried again an hour later; mail for others goes on."""

    def stroll(path: Path) -> Outcome:
        if path.message:
            return Outcome(time.time(), "data", "refused", "552 full", 0.1)
        return good(path)

    made, told = make(stroll, settings=replace(SETTINGS, canary_message_to="c@example.org"))
    turned(made, lambda: bool(told))
    made._started = 0.0
    turned(made, lambda: len(told) > 1)
    primary = made.judged.primary
    assert primary.state == UP
    assert primary.message
    assert primary.message.words == "552 full"
    assert walker.AGAIN - 10 < made.message_at + walker.DAY - time.time() <= walker.AGAIN


def test_only_the_owner_of_its_domain_gets_it() -> None:
    """Another primary would refuse to relay it."""
    made, told = make(good, settings=replace(SETTINGS, canary_message_to="c@other.example"))
    turned(made, lambda: bool(told))
    assert made._message() == b""


def test_a_clock_that_was_set_back_hides_no_outage(monkeypatch: pytest.MonkeyPatch) -> None:
    """A failure is compared with the last good walk by a clock that nobody sets."""
    made, told = make(good)
    turned(made, lambda: bool(told))
    monkeypatch.setattr(canary, "QUICK", 0.02)

    def earlier(_: Path) -> Outcome:
        return Outcome(time.time() - 86_400, "connect", "unreachable", "refused", 0.01)

    made.stroll, made._started = earlier, 0.0
    turned(made, lambda: len(told) > 1)
    assert made.judged.primary.state == DOWN


def test_the_daily_message_outlives_a_clock_that_was_set_back() -> None:
    """One that was sent in the future was sent long ago."""
    made, told = make(good, settings=replace(SETTINGS, canary_message_to="c@example.org"))
    turned(made, lambda: bool(told))
    made.message_at = time.time() + 10 * walker.DAY
    assert made._message()


def test_with_standby_the_first_mx_itself_is_greeted() -> None:
    """At its public name and port 25, and beside the drain path; one bad look opens the gate."""
    paths: list[Path] = []
    answers = {"public": good}

    def stroll(path: Path) -> Outcome:
        paths.append(path)
        return (answers["public"] if path.host == TARGET.hostname else good)(path)

    made, told = make(stroll, settings=replace(SETTINGS, standby=True))
    assert not made.greeted(60)
    turned(made, lambda: bool(told))
    made._started = 0.0
    turned(made, lambda: made.greeted(60))
    public = next(path for path in paths if path.host == TARGET.hostname)
    assert (public.port, public.recipient) == (25, "")
    assert not made.greeted(0)
    answers["public"], made._started = bad, 0.0
    turned(made, lambda: not made.greeted(60))
    assert made.judged.primary.state == UP


def test_a_first_mx_that_never_greets_is_told_once(caplog: pytest.LogCaptureFixture) -> None:
    """As where the relay's host lets nothing out to port 25: why does standby put nobody off?"""
    looks: list[Path] = []

    def stroll(path: Path) -> Outcome:
        if path.host != TARGET.hostname:
            return good(path)
        looks.append(path)
        return bad(path)

    made, told = make(stroll, settings=replace(SETTINGS, standby=True))
    turned(made, lambda: bool(told))

    def looked() -> bool:
        made._started = 0.0
        return len(looks) > 2

    turned(made, looked)
    assert [each for each in caplog.messages if "standby takes all mail" in each] == [
        "standby takes all mail: no greeting from mail.example.org: refused"
    ]


def test_after_the_greeting_the_first_mx_may_say_what_it_likes() -> None:
    """It may want TLS or another sender: senders can reach it."""
    outcome = Outcome(time.time(), "mail", "refused", "530 Must issue a STARTTLS command", 0.1)
    made, told = make(lambda path: outcome if path.host == TARGET.hostname else good(path),
                      settings=replace(SETTINGS, standby=True))  # fmt: skip
    turned(made, lambda: bool(told))
    made._started = 0.0
    turned(made, lambda: made.greeted(60))


def test_without_standby_nobody_greets_the_first_mx() -> None:
    """Port 25 may not be open to the relay's host, and nothing hangs on it."""
    paths: list[Path] = []

    def stroll(path: Path) -> Outcome:
        paths.append(path)
        return good(path)

    made, told = make(stroll)
    turned(made, lambda: bool(told))
    made._started = 0.0
    turned(made, lambda: len(told) > 1)
    assert {path.host for path in paths} == {TARGET.host}
