"""The agent as a whole, with a mail log of the test's, and fakes of helper and primary."""

from __future__ import annotations

import asyncio
import errno
import sqlite3
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, field, replace
from pathlib import Path

import pytest
from relay_settings import SETTINGS, TARGET

from backup_mx.errors import MachineError
from backup_mx.net.canary import Outcome
from backup_mx.net.canary import Path as Way
from backup_mx.relay import agent as agent_module
from backup_mx.relay import certificate
from backup_mx.relay.agent import Agent
from backup_mx.relay.certificate import Asked, Certificate
from backup_mx.relay.decide import canary, lifetime
from backup_mx.relay.decide.standby import ACTION, DUNNO
from backup_mx.relay.ledger import Due, Progress, schema
from backup_mx.relay.ledger.query import Reader, reading
from backup_mx.relay.ledger.rows import Aged as Row
from backup_mx.relay.operator import look
from backup_mx.relay.queue import envelope, spool
from backup_mx.relay.queue.spool import Entry
from backup_mx.relay.root import client, maintenance
from backup_mx.relay.root.protocol import BROKEN, HELD_BEFORE, HELD_INSTEAD, NO_ROOM, Result
from backup_mx.relay.settings import Settings
from backup_mx.relay.state import (
    DOWN,
    STARTING,
    UP,
    Disk,
    Primary,
    Shown,
    Snapshot,
    Sums,
    Walk,
    from_text,
)
from backup_mx.relay.tasks import duties, policyhosts, system, systemd
from backup_mx.relay.tasks.books import Figures, message_of

DATA = Path(__file__).parents[1] / "data" / "postcat"
ID = "4jXLxl6PBszC6FB"
PATIENCE = 60.0
STOP = 30.0
"""Seconds that systemd gives the agent to end (TimeoutStopSec)."""


@dataclass
class World:
    """Where an agent runs: a folder, a mail log, a primary that answers if ``up`` is set."""

    folder: Path
    up: bool = False
    flushes: list[float] = field(default_factory=list)
    changes: list[tuple[str, tuple[str, ...]]] = field(default_factory=list)
    entries: list[Entry] = field(default_factory=list)

    @property
    def log(self) -> Path:
        return self.folder / "maillog"

    def take(self, queue_id: str = ID) -> None:
        """Let Postfix take a message that the primary does not answer for."""
        now = time.strftime("%b %e %H:%M:%S")
        self.entries.append(Entry("deferred", queue_id, 241, time.time()))
        with self.log.open("a") as log:
            log.write(
                f"{now} mx2 postfix/smtpd[51]: {queue_id}: client=a.example.net[192.0.2.25]\n"
                f"{now} mx2 postfix/cleanup[55]: {queue_id}: message-id=<1@example.net>\n"
                f"{now} mx2 postfix/qmgr[21]: {queue_id}: from=<a@example.net>, size=241, nrcpt=1"
                " (queue active)\n"
                f"{now} mx2 postfix/smtp[56]: {queue_id}: to=<jo@example.org>, relay=none,"
                " delay=0.1, delays=0.1/0/0/0, dsn=4.4.1, status=deferred (connect to"
                " mail.example.org[203.0.113.10]:25: Connection refused)\n"
            )

    def hold(self, queue_id: str = ID) -> None:
        """Let the helper have put a message on hold for retention."""
        now = time.strftime("%b %e %H:%M:%S")
        with self.log.open("a") as log:
            log.write(
                f"{now} mx2 backup-mx/helper[77]: {queue_id}: hold by=retention\n"
                f"{now} mx2 postfix/postsuper[78]: {queue_id}: placed on hold\n"
            )

    def walk(self, _: Way) -> Outcome:
        if self.up:
            return Outcome(time.time(), "rset", "", "250 ok", 0.01)
        return Outcome(time.time(), "connect", "unreachable", "refused", 0.01)

    def change(self, verb: str, ids: tuple[str, ...], *, by: str) -> list[Result]:
        assert by == lifetime.RETENTION
        self.changes.append((verb, tuple(ids)))
        return [Result(each, True, "done") for each in ids]

    def agent(self, settings: Settings = SETTINGS) -> Agent:
        """Make an agent that lives here."""
        made = Agent(settings, self.folder, self.log, self.folder)
        made.present.draining.flush = lambda: self.flushes.append(time.time())
        made.present.draining.flushed = self.folder / "flushed"
        made.present.books.entries = lambda: iter(self.entries)
        for each in made.present.walkers:
            each.stroll = self.walk
        return made


@pytest.fixture
def world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[World]:
    made = World(tmp_path)
    made.log.touch()
    day = 86_400.0
    monkeypatch.setattr(client, "change", made.change)
    monkeypatch.setattr(maintenance, "until", lambda: 0.0)
    monkeypatch.setattr(system, "limits", lambda: system.Limits(100 * day, 1000))
    monkeypatch.setattr(spool, "disk", lambda _: Disk(1, 2, 3))
    monkeypatch.setattr(system, "shown", lambda _: Certificate(0.0, 1.0, ""))
    monkeypatch.setattr(certificate, "last", lambda: None)
    monkeypatch.setattr(duties, "BUSY", 0.05)
    monkeypatch.setattr(duties, "QUIET", 0.05)
    return made  # type: ignore[return-value]


def run(agent: Agent, *steps: Callable[[], object], ports: bool = False) -> None:
    """Run the agent; go on to the next step when one returns something true; then stop it."""

    async def main() -> None:
        stop = asyncio.Event()
        if not ports:  # others may use them on this host
            agent.servers.metrics = agent.servers.dashboard = forever  # type: ignore[method-assign]
        running = asyncio.create_task(agent.run(stop))
        try:
            for step in steps:
                async with asyncio.timeout(PATIENCE):
                    while not step():
                        assert not running.done(), running
                        await asyncio.sleep(0.02)
        finally:
            stop.set()
            began = time.monotonic()
            await running
        assert time.monotonic() - began < STOP

    asyncio.run(main())


async def forever() -> float:
    return 3600.0


def states(agent: Agent) -> list[str]:
    return [each.state for each in agent.present.shown.primaries]


def does(act: Callable[[], object]) -> Callable[[], bool]:
    """Return a step that does something, once."""

    def step() -> bool:
        act()
        return True

    return step


def test_a_primary_that_is_back_is_flushed_to_once(world: World) -> None:
    """The whole round: mail waits, the primary answers, the helper flushes, everybody can see."""
    agent = world.agent()
    world.take()
    run(
        agent,
        lambda: states(agent) == [DOWN] and agent.present.shown.sums.waiting == 1,
        does(lambda: setattr(world, "up", True)),
        lambda: states(agent) == [UP] and agent.present.shown.counters["flushes"] == 1,
    )
    assert len(world.flushes) == 1
    with reading(world.folder / "ledger.sqlite") as reader:
        kept = reader.snapshot()
        assert kept
        assert (kept.relay, kept.sums.accepted, kept.sums.waiting) == ("mx2", 1, 1)
        assert [each.state for each in reader.states(0.0)][-2:] == [DOWN, UP]


def test_a_restart_goes_on(world: World) -> None:
    """Counters grow on, a primary that was up is no edge, and nothing is counted twice."""
    world.take()
    world.up = True
    first = world.agent()
    run(first, lambda: states(first) == [UP] and world.flushes)
    walks = first.present.shown.counters["walks:good"]
    second = world.agent()
    run(
        second,
        lambda: second.present.walkers[0].good,
        lambda: states(second) == [UP] and second.present.shown.sums.accepted == 1,
    )
    assert len(world.flushes) == 1
    assert second.present.shown.counters["walks:good"] > walks
    assert second.present.shown.primaries[0].since == first.present.shown.primaries[0].since


def test_an_upgrade_forgets_nothing(world: World) -> None:
    """The ledger of the version before is brought up to date before it is asked."""
    now = time.time()
    last = replace(
        world.agent().present.shown,
        time=now - 5,
        given_up=now - 3600,
        counters={"flushes": 3, "bounced": 2},
        primaries=(Primary("home", UP, now - 900, 9, Walk(now - 9, True, "rset", "", "", 0.1)),),
    )
    with closing(sqlite3.connect(world.folder / "ledger.sqlite")) as old:
        old.executescript(f"{schema._FIRST}PRAGMA user_version = 1;")
        old.execute("INSERT INTO meta VALUES ('snapshot', ?)", (last.text,))
        old.commit()
    agent = world.agent()

    async def main() -> None:
        await agent._remember()
        await agent.present.books.close()

    asyncio.run(main())
    assert agent.present.before == {"flushes": 3}
    assert agent.present.look(now).given_up == now - 3600
    assert agent.present._gave == 2
    assert agent.present.walkers[0].judged.primary.since == now - 900


@pytest.mark.parametrize(
    ("address", "left"),
    [("postmaster@example.org", True), ("postmaster@Example.ORG", True), ("", False),
     ("postmaster@example.com", False)],
)  # fmt: skip
def test_no_daily_message_is_no_verdict(world: World, address: str, left: bool) -> None:
    """Where none goes to a primary any more, none would ever end what the last one told."""
    now = time.time()
    walk = Walk(now - 9, True, "rset", "", "", 0.1)
    home = Primary("home", UP, now - 900, 9, walk, message=replace(walk, good=False))
    last = replace(world.agent().present.shown, time=now - 5, primaries=(home,))
    agent = world.agent(replace(SETTINGS, canary_message_to=address))

    async def main() -> None:
        await agent.present.books.keep(last, ())
        await agent._remember()
        await agent.present.books.close()

    asyncio.run(main())
    [walker] = agent.present.walkers
    assert walker.judged.primary == (home if left else replace(home, message=None))


def test_a_memory_that_comes_late_is_none(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """A ledger that answers after the walks have begun does not undo what they found."""
    world.up = True
    first = world.agent()
    run(first, lambda: states(first) == [UP])
    second, gate, right = world.agent(), threading.Event(), Reader.snapshot
    monkeypatch.setattr(agent_module, "STOP_SECONDS", 0.05)

    def late(reader: Reader) -> Snapshot | None:
        assert gate.wait(PATIENCE)
        return right(reader)

    monkeypatch.setattr(Reader, "snapshot", late)

    async def main() -> None:
        await second._remember()
        gate.set()
        await second.present.books.ask(lambda _: None)  # its turn is after the late one's

    asyncio.run(main())
    assert second.present.walkers[0].judged.primary.state == STARTING
    assert second.present.before == {}


def test_without_a_ledger_mail_moves_all_the_same(
    world: World, caplog: pytest.LogCaptureFixture
) -> None:
    """A ledger that cannot be opened is told once; the edge is flushed; it is tried again."""
    (world.folder / "ledger.sqlite").mkdir()
    agent = world.agent()
    run(
        agent,
        lambda: states(agent) == [DOWN],
        does(lambda: setattr(world, "up", True)),
        lambda: world.flushes,
        lambda: agent.tending.failures["follow"] > 1,
        does((world.folder / "ledger.sqlite").rmdir),
        lambda: not agent.present.blind,
    )
    assert sum(each.startswith("follow: the ledger") for each in caplog.messages) == 1


def trouble(agent: Agent) -> dict[str, str]:
    return {each.task: each.why for each in agent.present.shown.troubles}


def test_an_agent_that_cannot_read_the_log_says_so(world: World) -> None:
    """Why, and since when it is so, until it reads again; in what it keeps, too."""
    agent = world.agent()
    books, began = agent.present.books, time.time()
    right, blind = books.catch_up, list[Snapshot]()

    async def fail() -> Progress:
        raise MachineError("no log")

    run(
        agent,
        lambda: not agent.present.blind,
        does(lambda: setattr(books, "catch_up", fail)),
        lambda: agent.tending.failures["follow"] > 1 and "follow" in trouble(agent),
        does(lambda: blind.append(agent.present.shown)),
        does(lambda: setattr(books, "catch_up", right)),
        lambda: not agent.present.blind and not trouble(agent),
    )
    [found] = [each for each in blind[0].troubles if each.task == "follow"]
    assert found.why == "no log"
    assert began <= found.since <= time.time()
    assert from_text(blind[0].text) == blind[0]
    assert not look.fresh(blind[0])
    assert look.fresh(agent.present.shown)


def test_a_walk_that_fails_by_a_mistake_of_ours_is_named(
    world: World, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Until it works again: counted each time, and logged once."""
    agent = world.agent(replace(SETTINGS, canary_waiting=1, canary_idle=1))
    right, judged = canary.after, list[object]()

    def wrong(*_: object) -> None:
        judged.append(1)
        raise ZeroDivisionError("ours")

    monkeypatch.setattr(canary, "after", wrong)
    run(
        agent,
        lambda: len(judged) > 1 and trouble(agent) == {"walk to home": "ours"},
        lambda: agent.present.shown.counters["failures:walk to home"] > 1,
        does(lambda: monkeypatch.setattr(canary, "after", right)),
        lambda: not trouble(agent) and states(agent) == [DOWN],
    )
    assert caplog.messages.count("walk to home: ours") == 1


def test_no_task_of_the_agent_fails_in_silence(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Neither does what makes and keeps the snapshot, nor what tells, nor what starts a walk."""
    agent = world.agent()

    def wrong(*_: object) -> None:
        raise ZeroDivisionError("ours")

    async def fail(*_: object, **__: object) -> None:
        raise ZeroDivisionError("ours")

    monkeypatch.setattr(agent.notifier, "look", wrong)
    monkeypatch.setattr(agent.notifier, "run", fail)
    monkeypatch.setattr(agent.present.books, "keep", fail)
    monkeypatch.setattr(agent.present.walkers[0], "_due", wrong)

    async def main() -> None:
        for name in ("tell", "keep", "notify", "walk to home"):
            with pytest.raises(ZeroDivisionError):
                await agent._works()[name]()

    asyncio.run(main())
    assert set(agent.present.failing) == {"tell", "keep", "notify", "next walk to home"}


def test_mail_is_counted_for_the_primary_it_waits_for(world: World) -> None:
    """Two primaries: what one answers, what waits for it, and when it is flushed, is its own."""
    away = replace(TARGET, name="away", domains=("example.com",))
    agent = world.agent(replace(SETTINGS, targets=(TARGET, away)))
    agent.present.walkers[1].stroll = lambda _: Outcome(time.time(), "rset", "", "250 ok", 0.01)
    run(
        agent,
        lambda: states(agent) == [DOWN, UP] and world.flushes,  # what is heard counts from then on
        does(world.take),
        lambda: agent.present.shown.sums.waiting == 1,
    )
    assert [each.waiting for each in agent.present.shown.primaries] == [1, 0]
    home, other = (agent.present.scenes[name] for name in ("home", "away"))
    assert (home.up, home.waiting, other.up, other.waiting) == (False, 1, True, 0)
    assert agent.present.draining.of("home").tally.put_off == 1
    assert agent.present.draining.of("away").tally.answers == 0


def test_mail_that_was_given_up_is_noticed(world: World) -> None:
    """While the agent runs, or since the last time it did; what was before that is no news."""

    def bounce() -> None:
        now = time.strftime("%b %e %H:%M:%S")
        with world.log.open("a") as log:
            log.write(
                f"{now} mx2 postfix/smtp[56]: {ID}: to=<jo@example.org>, relay=none, delay=0.1,"
                " delays=0.1/0/0/0, dsn=5.1.1, status=bounced (no)\n"
            )

    world.take()
    bounce()
    first = world.agent()
    run(
        first,
        lambda: first.present.shown.counters.get("bounced") == 1,
        lambda: first.present.shown.given_up is None,
        does(bounce),
        lambda: first.present.shown.given_up is not None,
    )
    second = world.agent()
    run(
        second,
        lambda: second.present.shown.given_up == first.present.shown.given_up,
        lambda: "bounced" in second.present.shown.counters,
    )
    bounce()
    third = world.agent()
    run(third, lambda: (third.present.shown.given_up or 0) > (second.present.shown.given_up or 0))


def test_mail_that_was_given_up_is_not_forgotten_with_the_ledger(world: World) -> None:
    """What was told as a failure would be told as over, though it was no day ago."""
    first = world.agent().present
    bounced = Figures(counters={"bounced": 0}), Figures(counters={"bounced": 1})
    for number, first.figures in enumerate(bounced, 1):
        first.look(1000.0 + number)
    assert world.agent().present.shown.given_up == 1002.0
    second = world.agent().present
    second.go_on_from(replace(first.shown, given_up=None))
    assert second.look(1010.0).given_up == 1002.0
    second.go_on_from(replace(first.shown, given_up=1008.0))
    assert second.look(1010.0).given_up == 1008.0


@pytest.mark.parametrize("known", [True, False], ids=["counted before", "never counted"])
def test_bounces_of_long_ago_are_no_news(
    world: World, monkeypatch: pytest.MonkeyPatch, known: bool
) -> None:
    """A ledger that is begun anew counts them again, and says nothing until it is through."""
    monkeypatch.setattr("backup_mx.relay.tasks.books.LINES", 2)
    old = time.strftime("%b %e %H:%M:%S", time.localtime(time.time() - 7200))
    bounce = (
        f"{old} mx2 postfix/smtp[56]: {ID}: to=<jo@example.org>, relay=none, delay=0.1,"
        " delays=0.1/0/0/0, dsn=5.1.1, status=bounced (no)\n"
    )
    world.log.write_text(f"{old} mx2 postfix/qmgr[21]: {ID}: removed\n" * 3 + bounce * 3)
    if known:
        (world.folder / "moments.json").write_text('{"given up by then": 3}')
    agent = world.agent()

    async def seen(turns: int) -> list[tuple[int | None, bool]]:
        found = []
        for _ in range(turns):
            await agent.duties.follow()
            shown = agent.present.look(time.time())
            found.append((shown.counters.get("bounced"), shown.given_up is not None))
        return found

    async def main() -> None:
        await agent._remember()
        before = await seen(5)
        assert set(before) == {(None, False), (3, False)}
        assert before[-1] == (3, False)
        with world.log.open("a") as log:
            log.write(bounce)
        assert (await seen(1)) == [(4, True)]
        await agent.present.books.close()

    asyncio.run(main())
    assert world.agent().present._gave == 4


def test_the_pace_is_of_this_run(world: World) -> None:
    """What was delivered before, and is read only now, was delivered at another time."""
    present, paces = world.agent().present, []
    for second, (delivered, known) in enumerate(
        [(0, False), (5000, False), (9000, True), (9003, True), (9006, True), (10, True)]
    ):
        sums = Sums(delivered=delivered)
        present.figures = Figures(sums=sums, counters={"bounced": 0} if known else {})
        paces.append(present.look(1000.0 + second).per_second)
    assert paces == [0, 0, 0, 3, 3, 0]


def test_a_moment_that_cannot_be_kept_is_known_all_the_same(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A disk that is full makes no snapshot fail."""
    present = world.agent().present

    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(present.draining.memory, "keep", full)
    for number in range(2):
        present.figures = Figures(counters={"bounced": number})
        present.look(1000.0)
    assert present.shown.given_up == 1000.0


def test_a_postfix_that_says_nothing_hides_no_guard(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """That it ran, what it saw, and how the tunnels are is looked at all the same."""
    agent = world.agent()

    def fail() -> None:
        raise OSError(errno.ENOENT, "No such file or directory")

    monkeypatch.setattr(system, "limits", fail)
    monkeypatch.setattr(duties, "_guarded", lambda: 5.0)
    monkeypatch.setattr(system, "drifted", lambda: True)
    monkeypatch.setattr(system, "handshakes", lambda _: {"home": 7.0})
    with pytest.raises(MachineError, match="limits cannot be read"):
        asyncio.run(agent.duties.machine())
    said = agent.present.snapshot(9.0)
    assert (said.guarded, said.drifted, said.handshakes) == (5.0, True, {"home": 7.0})


def test_a_task_that_fails_is_named(world: World) -> None:
    """As without the helper, of which the counts say nothing."""
    agent = world.agent()

    def entries() -> Iterator[Entry]:
        raise MachineError("no helper")

    agent.present.books.entries = entries
    run(agent, lambda: trouble(agent) == {"reconcile": "no helper"})


def test_what_the_hosts_of_policies_show_is_looked_at(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """From the first moment they are named; where there are none, nobody looks."""
    found = (Shown("mta-sts.example.org", 90.0, 45.0, Asked("acme.example.net x", 5.0)),)
    monkeypatch.setattr(policyhosts, "look", lambda hosts: found if hosts else ())
    agent = world.agent(replace(SETTINGS, policies=("mta-sts.example.org",)))
    assert agent.present.shown.policies == (Shown("mta-sts.example.org", None),)
    run(agent, lambda: agent.present.shown.policies == found)
    assert from_text(agent.present.shown.text) == agent.present.shown
    assert "policies" not in world.agent()._works()


def test_a_new_certificate_is_noticed(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """Not within the hour, but as soon as an authority was asked."""
    agent = world.agent()
    asked = Asked("acme.example.net mx2.example.org", 5.0)

    async def nothing(_: object) -> int:
        return 0

    async def look() -> None:
        agent.present.books.ask = nothing  # type: ignore[assignment,method-assign]
        await agent.duties.machine()
        assert agent.present.snapshot(1.0).certificate_issuer == ""
        monkeypatch.setattr(system, "shown", lambda _: Certificate(0.0, 90.0, "CN=E7"))
        await agent.duties.machine()
        assert agent.present.snapshot(1.0).certificate_issuer == ""
        monkeypatch.setattr(certificate, "last", lambda: asked)
        await agent.duties.machine()

    asyncio.run(look())
    said = agent.present.snapshot(1.0)
    assert (said.certificate, said.certificate_lifetime) == (90.0, 90.0)
    assert (said.certificate_issuer, said.asked) == ("CN=E7", asked)
    assert from_text(said.text) == said


def test_what_the_comparison_reads_is_heard(world: World) -> None:
    """Attempts, acceptances and sentences for the operator, however the log was read."""
    world.take()
    agent = world.agent()
    told: list[tuple[str, str]] = []
    agent.duties.say = lambda about, what: told.append((about, what))
    right = agent.present.books.catch_up

    async def catch_up() -> Progress:
        return replace(await right(), told=("a gap",))

    agent.present.books.catch_up = catch_up  # type: ignore[method-assign]

    async def compare() -> None:
        await agent.duties.reconcile()
        await agent.present.books.close()

    asyncio.run(compare())
    assert told == [("ledger", "a gap")]
    assert agent.present.draining.of("home").tally.put_off == 1
    assert sum(agent.present.intake.values()) == 1
    assert agent.present.waiting == 1


def test_the_comparison_reads_no_further_than_it_must(world: World) -> None:
    """A log that grows as fast as it is read has no end that one could wait for."""
    agent = world.agent()
    reached: list[float] = []

    async def catch_up() -> Progress:
        reached.append(time.time() - (100 if len(reached) < 2 else -1))
        await asyncio.sleep(0)
        return Progress(read=1, behind=True, reached=reached[-1])

    agent.present.books.catch_up = catch_up  # type: ignore[method-assign]

    async def compare() -> None:
        async with asyncio.timeout(PATIENCE):
            await agent.duties.reconcile()
        await agent.present.books.close()

    asyncio.run(compare())
    assert len(reached) == 3


def test_the_comparison_leaves_turns_to_others(world: World) -> None:
    """It reads on in pieces: whoever wants something of the ledger waits for one at most."""
    agent = world.agent()
    order: list[str] = []
    left = 3

    async def catch_up() -> Progress:
        nonlocal left
        left -= 1
        order.append("piece")
        await asyncio.sleep(0)
        return Progress(read=1, behind=left > 0)

    agent.present.books.catch_up = catch_up  # type: ignore[method-assign]

    async def compare() -> None:
        await agent.duties.reconcile()
        await agent.present.books.close()

    asyncio.run(compare())
    assert order == ["piece"] * 3


def test_a_message_that_only_the_spool_knew_is_described() -> None:
    """By what postcat prints of it: local time, as asctime(3) writes it."""
    printed = (DATA / "half-done-3.10.txt").read_bytes()
    found = envelope.parse(printed)
    shown = {
        "queue": "deferred",
        "id": ID,
        "size": found.content,
        "arrival": found.arrival,
        "sender": found.sender,
        "recipients": [{"address": each.address, "done": each.done} for each in found.recipients],
    }
    message = message_of(shown)
    assert message.arrival == int(time.mktime((2026, 11, 22, 7, 50, 24, 0, 0, -1)))
    with pytest.raises(ValueError, match="arrival"):
        message_of(shown | {"arrival": "some day"})


def test_lifetimes_that_cannot_be_judged_stop_no_flush(
    world: World, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """What is on hold stays there for now; the rest goes."""
    agent = world.agent()
    present = agent.present

    async def fail(*_: float, **__: object) -> Due:
        raise MachineError("no answer")

    monkeypatch.setattr(present.books, "due", fail)
    present.held_back, present.limits = 1, system.Limits(1e6, 1000)
    good = Outcome(time.time(), "rset", "", "250 ok", 0.01)
    for each in present.walkers:
        each._judge(good)
    present.draining.rose("home")
    asyncio.run(agent.duties.drain())
    assert len(world.flushes) == 1
    assert any("no answer" in each for each in caplog.messages)


def test_standby_needs_a_first_mx_that_greets(world: World) -> None:
    """The drain path alone says nothing about where senders are sent to."""
    agent = world.agent(replace(SETTINGS, standby=True))
    request = {"protocol_state": "RCPT", "recipient": "jo@example.org"}
    [walker] = agent.present.walkers
    primary = Primary("home", UP, time.time() - 3600, 9, Walk(time.time(), True, "", "", "", 0.1))
    walker.judged = replace(walker.judged, primary=primary)
    assert agent.servers.action(request) == DUNNO
    walker._greeted = time.monotonic()
    assert agent.servers.action(request) == ACTION


@pytest.mark.parametrize("stuck", ["follow", "drain"])
def test_an_agent_that_is_stuck_feeds_no_watchdog(
    world: World, monkeypatch: pytest.MonkeyPatch, stuck: str
) -> None:
    """One vital task that turns no more is enough: systemd then starts the agent anew."""
    told: list[str] = []
    monkeypatch.setattr(systemd, "notify", lambda *words: told.extend(words))
    agent = world.agent()

    async def hang() -> float:
        await asyncio.Event().wait()
        return 0.0

    async def turn() -> float:
        return 0.01

    async def main() -> None:
        works = dict.fromkeys(agent_module.VITAL, turn) | {stuck: hang}
        tasks = [asyncio.create_task(agent.tending.forever(*each)) for each in works.items()]
        await agent._tell()
        assert systemd.WATCHDOG in told
        told.clear()
        monkeypatch.setattr(agent_module, "STUCK", 0.5)
        async with asyncio.timeout(PATIENCE):
            while agent.tending.turning([stuck], 0.5):
                await asyncio.sleep(0.02)
        assert agent.tending.turning(set(works) - {stuck}, PATIENCE)
        await agent._tell()
        for each in tasks:
            each.cancel()

    asyncio.run(main())
    assert told == []


def test_a_failing_dashboard_stops_nothing(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nor do failing metrics: they are tried again, and the drain goes on."""
    agent = world.agent()

    async def fail() -> float:
        raise RuntimeError("no web library")

    monkeypatch.setattr(agent.servers, "metrics", fail)
    monkeypatch.setattr(agent.servers, "dashboard", fail)
    world.up = True
    run(
        agent,
        lambda: world.flushes,
        lambda: agent.present.shown.counters.get("failures:dashboard"),
        lambda: agent.present.shown.counters.get("failures:metrics"),
        ports=True,
    )


def test_mail_beyond_retention_is_held(world: World) -> None:
    """By the helper, in the name of retention, while the primary is away."""
    world.take()
    agent = world.agent(replace(SETTINGS, retention=1))
    run(agent, lambda: ("hold", (ID,)) in world.changes)


def test_what_was_held_is_entered_as_soon_as_it_can_be(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also where the log has no room for its lines, nor the ledger at first."""
    agent = world.agent(replace(SETTINGS, retention=1000))
    agent.present.limits = system.Limits(1e6, 1000)
    [walker] = agent.present.walkers
    walker.judged = replace(walker.judged, primary=Primary("home", DOWN, 1.0))
    answers = {ID: Result(ID, True, "put on hold"), "B": Result("B", True, HELD_BEFORE)}
    monkeypatch.setattr(client, "change", lambda _verb, ids, **_: [answers[each] for each in ids])
    due = [Due(overdue=tuple(Row(each, 1.0, time.time(), "4xx", ()) for each in answers)), Due()]
    entered: list[set[str]] = []

    async def turn(*_: object, **__: object) -> Due:
        return due.pop(0)

    async def note_holds(holds: Mapping[str, float]) -> None:
        entered.append({*holds})
        if due:
            raise MachineError("no room")

    monkeypatch.setattr(agent.present.books, "due", turn)
    monkeypatch.setattr(agent.present.books, "note_holds", note_holds)
    for _ in range(2):
        asyncio.run(agent.duties.lifetimes())
    assert entered == [{ID}, {ID}]
    assert not agent.duties._holds


def test_what_was_held_for_want_of_room_is_retentions(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever becomes of the log's lines; what is damaged, or was on hold before, is not."""
    answers = {
        "a": Result("a", False, f"{NO_ROOM}: it has 3 KiB; {HELD_INSTEAD}"),
        "b": Result("b", False, f"{BROKEN}: it ends within a record; {HELD_INSTEAD}"),
        "c": Result("c", False, f"{NO_ROOM}: it has 3 KiB"),
        "d": Result("d", True, "requeued"),
        "e": Result("e", False, f"{NO_ROOM}: it has 9 KiB; {HELD_INSTEAD}"),
    }
    monkeypatch.setattr(client, "change", lambda _verb, ids, **_: [answers[each] for each in ids])
    done = duties._carry_out(lifetime.Orders(requeue=("a", "b", "c", "d"), release=("e",)))
    assert done.holds.keys() == {"a", "e"}
    assert done.unfit == {"a", "b", "c", "e"}
    assert (done.count, done.trouble) == (1, None)


def test_what_cannot_be_requeued_keeps_nothing_else_from_it(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is left out of the rounds of an hour, and then tried again."""
    agent = world.agent(replace(SETTINGS, retention=1000))
    agent.present.limits = system.Limits(1e6, 1000)
    [walker] = agent.present.walkers
    walker.judged = replace(walker.judged, primary=Primary("home", DOWN, 1.0))
    told = Result(ID, False, f"{BROKEN}: it ends within a record")
    monkeypatch.setattr(client, "change", lambda *_, **__: [told])
    left_out: list[list[str]] = []

    async def due(*_: object, but: list[str], **__: object) -> Due:
        left_out.append(but)
        return Due() if but else Due(expiring=(Row(ID, time.time(), 1.0, "4xx", ()),))

    monkeypatch.setattr(agent.present.books, "due", due)
    for _ in range(2):
        asyncio.run(agent.duties.lifetimes())
    monkeypatch.setattr(duties, "RARELY", 0.0)
    asyncio.run(agent.duties.lifetimes())
    assert left_out == [[], [ID], []]


def test_what_is_more_than_a_round_holds_is_let_go_at_once_and_flushed_once(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Rounds follow each other without a pause; the flush waits for the last of them."""
    monkeypatch.setattr(lifetime, "BATCH", 2)
    agent = world.agent(replace(SETTINGS, retention=1000))
    ids = [f"{ID[:-1]}{number}" for number in range(3)]
    now, since = time.time(), time.time() - 5
    primary = Primary("home", UP, since, 9, Walk(now, True, "", "", "", 0.1))
    [walker] = agent.present.walkers
    walker.judged = replace(walker.judged, primary=primary)
    agent.present.limits = system.Limits(1e6, 1000)
    rows = [Row(each, now - 2000, now - 2000, "held", ("example.org",), now - 1000) for each in ids]

    async def due(*_: object, limit: int, **__: object) -> Due:
        gone = {each for _, some in world.changes for each in some}
        return Due(held=tuple(each for each in rows if each.id not in gone)[:limit])

    monkeypatch.setattr(agent.present.books, "due", due)
    drains = agent.present.draining
    assert asyncio.run(agent.duties.lifetimes()) == duties.SOON
    assert not drains.edge
    assert asyncio.run(agent.duties.lifetimes()) == lifetime.pace(agent.present.terms)  # type: ignore[arg-type]
    assert drains.of("home").edge
    assert world.changes == [("release", tuple(ids[:2])), ("release", tuple(ids[2:]))]


def test_only_what_is_refused_is_held_while_the_primary_is_up(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is on its way is not, however long the primary has been up; what it refused is."""
    agent = world.agent(replace(SETTINGS, retention=1000))
    now, whys = time.time(), ("refused", "capability", "4xx", "new", "maintenance")
    agent.present.limits = system.Limits(1e6, 1000)
    [walker] = agent.present.walkers
    walker.judged = replace(walker.judged, primary=Primary("home", UP, now - 9000))
    rows = tuple(Row(each, now - 2000, now - 2000, each, ("example.org",)) for each in whys)

    held = tuple(replace(each, id=f"held {each.why}", held=now - 500) for each in rows)

    async def due(*_: object, **__: object) -> Due:
        return Due(overdue=rows, held=held)

    monkeypatch.setattr(agent.present.books, "due", due)
    asyncio.run(agent.duties.lifetimes())
    assert world.changes == [
        ("release", ("held 4xx", "held new", "held maintenance")),
        ("hold", ("refused", "capability")),
    ]


def test_what_fails_keeps_nothing_else_from_being_done(monkeypatch: pytest.MonkeyPatch) -> None:
    """A helper that cannot release holds all the same what is due."""
    asked = []

    def change(verb: str, ids: Sequence[str], by: str) -> list[Result]:
        asked.append((verb, ids, by))
        raise MachineError(f"no {verb}")

    monkeypatch.setattr(client, "change", change)
    done = duties._carry_out(lifetime.Orders(hold=("a",), release=("b",), requeue=("c",)))
    assert (str(done.trouble), done.count, done.holds) == ("no release", 0, {})
    assert [(verb, ids) for verb, ids, _ in asked] == [
        ("release", ("b",)), ("requeue", ("c",)), ("hold", ("a",)),
    ]  # fmt: skip


def test_what_cannot_be_done_is_not_tried_without_a_pause(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A round that is full and in vain is no reason for another one at once."""
    monkeypatch.setattr(lifetime, "BATCH", 1)
    monkeypatch.setattr(client, "change", lambda *_, **__: [Result(ID, False, "gone")])
    agent = world.agent(replace(SETTINGS, retention=1000))
    agent.present.limits = system.Limits(1e6, 1000)
    [walker] = agent.present.walkers
    walker.judged = replace(walker.judged, primary=Primary("home", DOWN, 1.0))

    async def due(*_: object, **__: object) -> Due:
        return Due(overdue=(Row(ID, 1.0, time.time(), "4xx", ("example.org",)),))

    monkeypatch.setattr(agent.present.books, "due", due)
    assert asyncio.run(agent.duties.lifetimes()) > duties.SOON


def test_what_is_on_hold_does_not_near_its_end(world: World) -> None:
    """It is with the operator; what waits and is old does."""
    world.take()
    agent = world.agent(replace(SETTINGS, retention=0))

    async def look() -> list[int]:
        found = []
        for hold in (False, True):
            if hold:
                world.hold()
            await agent.duties.follow()
            await agent.duties.machine()
            found.append(agent.present.at_risk)
        await agent.present.books.close()
        return found

    assert asyncio.run(look()) == [1, 0]


def test_what_retention_held_goes_with_the_edge(world: World) -> None:
    """It is walked for as for mail that waits, released when the primary is back, and flushed."""
    world.take()
    agent = world.agent(replace(SETTINGS, retention=1))
    run(
        agent,
        lambda: ("hold", (ID,)) in world.changes,
        does(world.hold),
        lambda: agent.present.held_back and agent.present.wanted and not agent.present.waiting,
        does(lambda: setattr(world, "up", True)),
        lambda: world.flushes,
    )
    assert world.changes[-1] == ("release", (ID,))
    assert len(world.flushes) == 1


def test_the_spool_is_compared(world: World) -> None:
    """What the queues hold is known soon after the start, and that they were looked at."""
    world.take()
    agent = world.agent()
    run(agent, lambda: agent.present.shown.reconciled and agent.present.shown.spool)
    assert agent.present.shown.spool == {"deferred": (1, 241)}
    assert agent.present.shown.disk == Disk(1, 2, 3)


def test_what_came_is_counted_by_the_primarys_state(world: World) -> None:
    """How much mail came although the primary was up tells spam from an outage."""
    agent = world.agent()
    run(
        agent,
        lambda: states(agent) == [DOWN],
        does(world.take),
        lambda: agent.present.shown.counters["intake:down"] == 1,
    )


def test_a_sender_that_is_put_off_lets_the_canary_walk(world: World) -> None:
    """Somebody came here although the first MX should be there: is it?"""
    world.up = True
    agent = world.agent(replace(SETTINGS, standby=False, canary_waiting=1))
    request = {"protocol_state": "RCPT", "recipient": "jo@example.org"}
    run(
        agent,
        lambda: agent.present.walkers[0].good == 1 and not agent.present.blind,
        does(lambda: agent.servers.action(request)),
        lambda: agent.present.walkers[0].good > 1,
    )
