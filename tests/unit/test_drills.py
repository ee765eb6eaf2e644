"""What drills there are, and their help."""

from __future__ import annotations

import ast
import re
import threading
import time
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from backup_mx.errors import LabError
from backup_mx.lab.drills import DRILLS, drill
from backup_mx.lab.drills import outage as outages
from backup_mx.lab.drills import watch as watching
from backup_mx.lab.drills.agent import Agent
from backup_mx.lab.drills.outage import Outage
from backup_mx.lab.drills.refusal import STAGES, Refusal
from backup_mx.lab.drills.watch import Watch
from backup_mx.lab.host import wait_for
from backup_mx.lab.stations import RelayQueue
from backup_mx.lab.timeline import Timeline
from backup_mx.lab.world import World
from backup_mx.relay.queue.postfix import Message, Recipient

ROOT = Path(__file__).parents[2]
GO_LIVE = ROOT / "src/backup_mx/lab/drills/go_live.py"
TYPED = re.compile(r"^(?: {4,}|\$ )?backup-mx (.+)$", re.MULTILINE)


def commands(text: str) -> set[str]:
    """Return the backup-mx commands in a page's code blocks, without options and remarks."""
    return {re.split(r" +(?:#|-)", each)[0].strip() for each in TYPED.findall(text)}


def walked() -> set[str]:
    """Return the commands that the drill go-live has the operator type, up to what varies."""
    found = set()
    for node in ast.walk(ast.parse(GO_LIVE.read_text())):
        if isinstance(node, ast.Call) and ast.unparse(node.func) == "self.do":
            words = [
                str(each.value) if isinstance(each, ast.Constant) else "-" for each in node.args
            ]
            end = next((at for at, word in enumerate(words) if word.startswith("-")), len(words))
            found.add(" ".join(words[:end]).removesuffix(" mx2"))  # it is the only one
    return found


def test_going_live_is_drilled_by_the_commands_of_the_manual() -> None:
    """Each that is typed there is in a code block, and each of its way's two chapters is typed."""
    manual = (ROOT / "docs/deploy.md").read_text()
    pages = commands(manual) | commands((ROOT / "docs/drain.md").read_text())
    assert {"init", "deploy", "primary render", "gate run failover"} <= walked()
    assert not {each for each in walked() if not begins(each, pages)}
    for heading in ("A plain VPS", "Going live"):
        chapter = commands(manual.partition(f"\n## {heading}")[2].partition("\n## ")[0])
        assert len(chapter) > 5
        assert not {each for each in chapter if not begins(each, walked())}


def begins(command: str, known: set[str]) -> bool:
    """Whether one of those that are known begins with a command's words."""
    return any(f"{each} ".startswith(f"{command} ") for each in known)


def test_how_it_works_has_every_drill() -> None:
    """A row each, in whatever order."""
    text = (ROOT / "docs/how-it-works.md").read_text().partition("\nThe drills,")[2]
    table = text.partition("\n\n")[2].partition("\n\n")[0]
    assert sorted(re.findall(r"^\| `([a-z-]+)` \|", table, re.MULTILINE)) == sorted(DRILLS)


def test_the_drills() -> None:
    """Each is called by its name, and has a line of help and a number of messages."""
    old = ["outage", "senders", "refusal", "edge-reboot", "flood"]
    assert list(DRILLS) == [
        *old, "retention", "maintenance", "standby", "flapping", "agent-killed", "certificate",
        "rebuild", "migrate", "first-boot", "go-live",
    ]  # fmt: skip
    for name, found in DRILLS.items():
        assert drill(name) is found
        assert found.summary
        assert len(found.summary) < 90
    assert drill("flood").default_messages == 5000


def test_an_unknown_drill_is_named_with_those_there_are() -> None:
    """A typing error is answered with what was meant."""
    with pytest.raises(LabError, match=r'no drill "flod": there is outage.* did you mean "flood"'):
        drill("flod")


@dataclass
class Home:
    """What a watch looks at: when the primary answers, and what it has."""

    greets: threading.Event = field(default_factory=threading.Event)
    takes: threading.Event = field(default_factory=threading.Event)
    mail: int = 7

    def watch(self) -> Watch:
        """Return a watch that looks on."""
        return Watch(self.takes.is_set, self.greets.is_set, lambda: self.mail)

    def deliver(self, watch: Watch) -> None:
        """Have a message come, and wait until it is seen."""
        self.mail += 1
        wait_for("the delivery", lambda: watch.first is not None, timeout=5)


def test_a_watch_takes_both_moments() -> None:
    """The seconds run from the first good answer to the first delivery after the watch began."""
    home = Home()
    watch = home.watch()
    assert watch.seconds is None
    home.takes.set()
    wait_for("the good answer", lambda: watch.good is not None, timeout=5)
    assert watch.good is not None
    pass_by(watch.good + 0.2)
    home.deliver(watch)
    watch.stop()
    assert watch.seconds is not None
    assert 0.2 <= watch.seconds < 5


def pass_by(moment: float) -> None:
    """Wait until the monotonic clock is past a moment."""
    wait_for("the moment", lambda: time.monotonic() > moment, timeout=5)


def test_a_good_answer_seen_too_late_is_measured_from_the_dark() -> None:
    """Not from the delivery, as if there had been no wait: it is as long as it can have been."""
    home = Home()
    began = time.monotonic()
    watch = home.watch()
    pass_by(began + 0.2)
    home.greets.set()
    pass_by(began + 0.5)
    home.deliver(watch)
    home.takes.set()
    watch.stop()
    assert watch.seconds is not None
    assert 0.25 <= watch.seconds < 5


def test_a_watch_that_never_sees_a_good_answer_has_measured_nothing(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Though mail was delivered and the primary greets."""
    monkeypatch.setattr(watching, "_LAST_LOOK_SECONDS", 0.1)
    home = Home()
    home.greets.set()
    watch = home.watch()
    home.deliver(watch)
    watch.stop()
    assert watch.seconds is None


def test_a_watch_that_sees_nothing_ends_when_told() -> None:
    """Where nothing is delivered there are no seconds, and no thread is left."""
    threads = threading.active_count()
    watch = Home().watch()
    watch.stop()
    assert watch.seconds is None
    assert threading.active_count() == threads


class Pretended(Outage):
    """An outage whose machines are only a home."""

    def __init__(self, home: Home) -> None:
        super().__init__(World("nolab"), Timeline(time.monotonic), 1)
        self.home = home
        self.watch = home.watch()

    def filed(self) -> None:
        """Have nothing to wait for."""


@pytest.fixture
def outage(monkeypatch: pytest.MonkeyPatch) -> Pretended:
    """An outage of a relay with an agent, which ends."""
    monkeypatch.setattr(watching, "_LAST_LOOK_SECONDS", 0.1)
    monkeypatch.setattr(Agent, "installed", True)
    monkeypatch.setattr(RelayQueue, "greeted", lambda _self: True)
    monkeypatch.setattr(RelayQueue, "waiting", 0)
    return Pretended(Home())


def test_a_flush_in_time_is_within_the_budget(outage: Pretended) -> None:
    """Nothing is said against it."""
    outage.home.takes.set()
    wait_for("the good answer", lambda: bool(outage.watch and outage.watch.good), timeout=5)
    outage.home.mail += 1
    outage.drain()
    assert outage.late() == []


def test_a_flush_that_is_late_fails_the_drill(
    outage: Pretended, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Unless the agent is dead, and nobody flushes."""
    monkeypatch.setattr(outages, "BUDGET_SECONDS", 0.2)
    outage.home.takes.set()
    wait_for("the good answer", lambda: bool(outage.watch and outage.watch.good), timeout=5)
    pass_by(time.monotonic() + 0.3)
    outage.home.mail += 1
    outage.drain()
    (said,) = outage.late()
    assert "after the primary's first good answer, not within" in said
    outage.agent_dead = True
    assert outage.late() == []


def test_a_drain_that_nobody_measured_fails_the_drill(outage: Pretended) -> None:
    """Whatever the watch's question lacks, no figure comes of it."""
    outage.home.mail += 1
    with pytest.raises(LabError, match="is not measured: no good answer was seen"):
        outage.drain()
    assert "first_delivery_s" not in outage.figures


def test_a_refusal_is_judged_by_the_listing_that_told_of_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Of a moment later, when Postfix tries again, it would lack a message and a reason."""
    stage = STAGES[0]
    told, tried = (
        Message(queue, "4ZzZzZ0001", 0, 1, "", (Recipient("alice@example.org", reason),))
        for queue, reason in (("deferred", f"host said: {stage.words}"), ("active", ""))
    )
    listings = iter([[tried, tried], [told], [told, told], [tried]])
    monkeypatch.setattr(RelayQueue, "messages", lambda _: next(listings))
    monkeypatch.setattr(RelayQueue, "flush", lambda _: None)
    drill = Refusal(World("nolab"), Timeline(time.monotonic), 2)
    assert drill.until_told(stage) == ([told, told], [])
    assert list(listings) == [[tried]]
