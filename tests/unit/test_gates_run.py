"""Gates run side by side, what they found is kept, and what changed is told."""

from __future__ import annotations

import json
import os
import threading
import time
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from interrupts import Crowd
from relay_settings import SETTINGS

from backup_mx import evidence
from backup_mx.config import Config, parse
from backup_mx.errors import BackupMxError, MachineError
from backup_mx.findings import Finding, Verdict
from backup_mx.gates import access, inside, lock, notices, rebuild, relay, telling
from backup_mx.gates.gate import Gate, Site, View
from backup_mx.gates.run import proof, record, run
from backup_mx.gates.views import Command, view
from backup_mx.machine import bundle, sent
from backup_mx.machine.ship import Answer, Tell
from backup_mx.machine.tool import tool
from backup_mx.net.dns import Names
from backup_mx.relay.operator.status import Status
from backup_mx.relay.state import Snapshot

FIVE_LINES = (Path(__file__).parents[1] / "data/config/five-lines.toml").read_text()
MX3 = '[relay.mx3]\nhostname = "mx3.example.org"\naddress = "203.0.113.30"\n'
NOW = datetime(2026, 11, 22, 15, 0, tzinfo=UTC)
HOUR, DAY = timedelta(hours=1), timedelta(days=1)


class Nowhere:
    """A host that nobody should ask."""

    def run(self, argv: Sequence[str], *, stdin: bytes = b"", tell: Tell | None = None) -> Answer:
        del argv, stdin, tell
        raise MachineError("nobody is here")


class Clock:
    """Time that passes when it is told to."""

    def __init__(self) -> None:
        self.now = NOW

    def __call__(self) -> datetime:
        return self.now


@dataclass
class Applied(Nowhere):
    """A relay that tells which version was applied, and nothing else."""

    version: str

    def run(self, argv: Sequence[str], *, stdin: bytes = b"", tell: Tell | None = None) -> Answer:
        if tuple(argv) != ("python3", "-I", "-"):
            return super().run(argv, stdin=stdin, tell=tell)
        told = {"version": self.version, "main": {}, "services": [], "overrides": {}}
        more = {"agent": "active", "postfix": "active", "guard": "active", "guarded": 1.0}
        return Answer(0, json.dumps({**told, **more}), "")


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def site(tmp_path: Path, clock: Clock) -> Site:
    return site_of(parse(FIVE_LINES, "test"), tmp_path, clock)


def site_of(config: Config, folder: Path, now: Callable[[], datetime]) -> Site:
    made = bundle.version(bundle.bundle(config, "mx2"))
    return Site(
        config=config,
        relay=config.relays["mx2"],
        host=Applied(made),
        outside=View("afar", Nowhere()),
        names=Names(),
        folder=folder,
        now=now,
        tell=lambda _line: None,
    )


def found(name: str, verdict: Verdict = "pass") -> Finding:
    return Finding(name, verdict, f"{name} is {verdict}", "")


def gate(name: str, verdict: Verdict = "pass", **about: bool) -> Gate:
    return Gate(name, name, ("MX",), lambda _site: [found(name, verdict)], **about)


def gates(*listed: Gate) -> dict[str, Gate]:
    return {each.name: each for each in listed}


def test_all_are_run_and_kept_in_order(site: Site) -> None:
    """Each has its proof, with its time, and from where it looked if that was elsewhere."""
    done = run(site, gates(gate("b"), gate("a", abroad=True)))
    assert [each.gate.name for each in done.results] == ["b", "a"]
    assert done.passed
    kept = evidence.read(site.folder / "evidence.json")["mx2"]
    assert kept == done.evidence
    assert kept.allows == ("A", "MX")[1:]
    assert (kept.version, kept.config) == (site.version, evidence.config_hash(site.config))
    assert [each.seen_from for each in kept.proofs.values()] == ["", "afar"]
    assert kept.until == NOW + DAY


def test_they_run_side_by_side(site: Site) -> None:
    """Two that wait for each other come to an end."""
    both = threading.Barrier(2, timeout=20)

    def judge(_site: Site) -> Iterable[Finding]:
        both.wait()
        return [found("x")]

    assert run(site, gates(Gate("x", "", ("MX",), judge), Gate("y", "", ("MX",), judge))).passed


def test_what_could_not_be_looked_at_is_unknown(site: Site) -> None:
    """In the words of what went wrong, and it is no pass; the others are run all the same."""

    def broken(site: Site) -> Iterable[Finding]:
        site.host.run(["true"])
        yield found("x")

    done = run(site, gates(Gate("x", "", ("MX",), broken), gate("y")))
    assert done.results[0].findings == (Finding("x", "unknown", "nobody is here"),)
    assert done.results[1].findings == (found("y"),)
    assert not done.passed
    assert done.evidence.allows == ()


def test_a_defect_in_one_gate_ends_no_other(site: Site) -> None:
    """It is unknown; its own words, which may have a secret in them, are not told."""

    def broken(_site: Site) -> Iterable[Finding]:
        yield found("x")
        raise UnicodeEncodeError("ascii", "sesame", 0, 1, "no")

    done = run(site, gates(Gate("x", "", ("MX",), broken), gate("y")))
    (finding,) = done.results[0].findings
    assert finding.verdict == "unknown"
    assert finding.saw.startswith("a defect in backup-mx: UnicodeEncodeError at test_gates_run.py:")
    assert evidence.read(site.folder / "evidence.json")["mx2"].proofs["y"].finding == found("y")


def test_what_was_found_before_an_interrupt_is_kept(site: Site) -> None:
    """An operator may go while a gate waits for them."""

    def interrupted(_site: Site) -> Iterable[Finding]:
        raise KeyboardInterrupt

    live = Gate("live", "", ("MX",), interrupted, live=True)
    with pytest.raises(KeyboardInterrupt):
        run(site, gates(live, gate("y")), ["live", "y"])
    assert evidence.read(site.folder / "evidence.json")["mx2"].proofs["y"].finding == found("y")


def test_an_interrupt_begins_no_other(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is running comes to its end; what waits for its turn sends nothing any more."""
    crowd = Crowd()
    crowd.watch(monkeypatch)

    def numbered(number: int) -> Gate:
        def judge(_site: Site) -> Iterable[Finding]:
            crowd.work(number)
            return [found(str(number))]

        return Gate(str(number), "", ("MX",), judge, of_relay=False)

    with pytest.raises(KeyboardInterrupt):
        run(site, gates(*map(numbered, range(20))))
    # Five at once, and the one that took the place of the first.
    assert len(crowd.begun) <= 6


@pytest.mark.parametrize("said", ["[" * 100_000, "[1]", "1", "{"])
def test_an_answer_that_is_none_is_a_failure_of_the_machine(said: str) -> None:
    """However deep it is nested."""
    host = Agent(Answer(0, said, ""))
    for asking in (relay.facts, relay.word, notices.sent, lambda on: sent.ask(on, inside, 0)):
        with pytest.raises(MachineError, match="answered no facts"):
            asking(host)
    assert not access.joined(host)


@pytest.mark.parametrize(("state", "joined"), [("Running", True), ("NeedsLogin", False)])
def test_whether_it_is_in_the_tailnet(state: str, joined: bool) -> None:
    """As tailscale says, once it knows."""
    assert access.joined(Agent(Answer(0, json.dumps({"BackendState": state}), ""))) == joined
    with pytest.raises(MachineError, match="still starting"):
        access.joined(Agent(Answer(0, json.dumps({"BackendState": "Starting"}), "")))


def test_who_needs_the_operator_runs_when_named(site: Site) -> None:
    """Until then it is known that it has not run."""
    known = gates(gate("a"), gate("live", live=True, lasting=True))
    done = run(site, known)
    assert [each.gate.name for each in done.results] == ["a"]
    assert done.passed
    assert done.evidence.allows == ()
    assert done.evidence.proofs["live"].wanting(NOW) == "not run yet"
    named = run(site, known, ["live"])
    assert [each.gate.name for each in named.results] == ["live"]
    assert named.evidence.allows == ("MX",)


def test_a_drill_counts_for_long(site: Site, clock: Clock) -> None:
    """One that passed is not held again until it is stale, unless it is named."""
    known = gates(gate("a"), gate("drill", lasting=True))
    run(site, known)
    clock.now += 10 * DAY
    done = run(site, known)
    assert [each.gate.name for each in done.results] == ["a"]
    assert done.evidence.allows == ("MX",)
    assert done.evidence.proofs["drill"].at == NOW
    assert len(run(site, known, ["drill"]).results) == 1
    clock.now += 101 * DAY
    assert len(run(site, known).results) == 2


def test_a_drill_with_a_reserve_is_held_again(site: Site) -> None:
    """What is a warning may be in order by now."""
    known = gates(gate("drill", "warn", lasting=True))
    run(site, known)
    assert len(run(site, known).results) == 1


def test_another_version_s_passes_are_no_proof(site: Site) -> None:
    """What fails fails; no drill is begun; what is not about the relay is judged as ever."""
    begun: list[str] = []

    def held(_site: Site) -> Iterable[Finding]:
        begun.append("drill")
        return [found("drill")]

    drill = Gate("drill", "", ("MX",), held, live=True, lasting=True)
    known = gates(gate("a"), gate("b", "fail"), gate("own", of_relay=False), drill)
    done = run(replace(site, host=Applied("f" * 64)), known, [*known])
    told = {each.gate.name: each.findings[0] for each in done.results}
    assert [told[name].verdict for name in known] == ["unknown", "fail", "pass", "unknown"]
    assert told["a"].saw.startswith("it runs version ffffffffffff, the config makes ")
    assert told["a"].do == "backup-mx deploy"
    assert (done.evidence.allows, begun) == ((), [])
    assert set(done.evidence.proofs) == set(known)


def test_a_relay_that_does_not_tell_its_version_proves_nothing(site: Site) -> None:
    """Though it shows the world all that it should; gates that do not need it do not ask it."""
    silent = replace(site, host=Nowhere())
    (told,) = run(silent, gates(gate("certificate"))).results
    assert told.findings == (Finding("certificate", "unknown", "nobody is here"),)
    assert run(silent, gates(gate("size", of_relay=False))).passed


def test_a_deploy_amid_a_drill_makes_it_void(site: Site) -> None:
    """It is about a relay that was, in part; a drill that failed has failed all the same."""

    def held(verdict: Verdict) -> Callable[[Site], Iterable[Finding]]:
        def judge(_site: Site) -> Iterable[Finding]:
            assert isinstance(site.host, Applied)
            site.host.version = "other"
            return [found("drill", verdict)]

        return judge

    assert isinstance(site.host, Applied)
    before = site.host.version
    ends: dict[Verdict, Verdict] = {"pass": "unknown", "fail": "fail"}
    for verdict, recorded in ends.items():
        site.host.version = before
        drill = Gate("drill", "", ("MX",), held(verdict), live=True, lasting=True)
        done = run(site, gates(drill), ["drill"])
        assert done.evidence.proofs["drill"].finding.verdict == recorded
        assert not done.passed


def test_what_changed_is_told(site: Site) -> None:
    """Only verdicts that are others than at the last run, however long ago that was."""
    run(site, gates(gate("a"), gate("b"), gate("c", "fail"), gate("new", live=True)))
    after = gates(gate("a"), gate("b", "fail"), gate("c"), gate("new", live=True))
    told = run(site, after).changes
    assert [(each.gate, each.before, each.now.verdict) for each in told] == [
        ("b", "pass", "fail"),
        ("c", "fail", "pass"),
    ]
    assert run(site, after, ["new"]).changes == ()


def test_another_config_makes_old_proofs_void(tmp_path: Path, clock: Clock) -> None:
    """Also those of drills: they were about another relay."""
    known = gates(gate("a"), gate("drill", live=True, lasting=True))
    first = site_of(parse(FIVE_LINES, "test"), tmp_path, clock)
    run(first, known, ["drill"])
    assert run(first, known).evidence.allows == ("MX",)
    other = site_of(parse(FIVE_LINES + '[queue]\nretention = "9d"\n', "test"), tmp_path, clock)
    done = run(other, known)
    assert done.evidence.allows == ()
    assert done.evidence.proofs["drill"].at == evidence.NEVER


def test_a_change_of_config_does_not_hide_what_changed(tmp_path: Path, clock: Clock) -> None:
    """What failed last time and passes now is news whatever was changed to mend it."""
    run(site_of(parse(FIVE_LINES, "test"), tmp_path, clock), gates(gate("a", "fail")))
    other = site_of(parse(FIVE_LINES + '[queue]\nretention = "9d"\n', "test"), tmp_path, clock)
    assert [each.gate for each in run(other, gates(gate("a"))).changes] == ["a"]


def test_a_run_of_one_gate_does_not_hide_what_changed_of_others(
    tmp_path: Path, clock: Clock
) -> None:
    """Their verdicts of before count for nothing, and are kept until they run again."""
    before = gates(gate("a", "fail"), gate("b"), gate("gone"))
    run(site_of(parse(FIVE_LINES, "test"), tmp_path, clock), before)
    other = site_of(parse(FIVE_LINES + '[queue]\nretention = "9d"\n', "test"), tmp_path, clock)
    known = gates(gate("a"), gate("b"))
    one = run(other, known, ["b"]).evidence
    assert (set(one.earlier), one.proofs["a"].at) == ({"a"}, evidence.NEVER)
    assert evidence.read(tmp_path / "evidence.json")["mx2"] == one
    again = run(other, known)
    assert [(each.gate, each.before) for each in again.changes] == [("a", "fail")]
    assert not again.evidence.earlier


def test_an_older_tool_s_proofs_do_not_become_this_one_s(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Running one gate after an upgrade does not make the others run; a drill counts on."""
    known = gates(gate("a"), gate("b"), gate("drill", live=True, lasting=True))
    with monkeypatch.context() as older:
        older.setattr("backup_mx.gates.run.tool", lambda: "0.1.0+0123456789ab")
        run(site, known, [*known])
    one = run(site, known, ["a"]).evidence
    assert one.tool == tool()
    assert {name for name, each in one.proofs.items() if each.at == evidence.NEVER} == {"b"}
    assert one.allows == ()
    assert one.latest["b"].finding == found("b")
    assert run(site, known).evidence.allows == ("MX",)


def test_other_relays_keep_theirs(tmp_path: Path, clock: Clock) -> None:
    """Those that the config still has."""
    both = parse(FIVE_LINES + MX3, "test")
    mx3 = replace(site_of(both, tmp_path, clock), relay=both.relays["mx3"])
    run(mx3, gates(gate("a")))
    run(site_of(both, tmp_path, clock), gates(gate("a")))
    assert set(evidence.read(tmp_path / "evidence.json")) == {"mx2", "mx3"}
    run(site_of(parse(FIVE_LINES, "test"), tmp_path, clock), gates(gate("a")))
    assert set(evidence.read(tmp_path / "evidence.json")) == {"mx2"}


def test_what_two_record_at_once_is_kept(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each adds to what the other wrote, not to what there was before."""
    known = gates(*(gate(str(number)) for number in range(20)))
    read = evidence.read

    def slowly(path: Path) -> dict[str, evidence.Evidence]:
        told = read(path)
        time.sleep(0.005)  # so that all of them would have read before one has written
        return told

    monkeypatch.setattr(evidence, "read", slowly)
    with ThreadPoolExecutor(5) as pool:
        for each in known.values():
            pool.submit(record, site, known, {each.name: proof(site, each, [found(each.name)])})
    kept = read(site.folder / "evidence.json")["mx2"]
    assert [name for name, each in kept.proofs.items() if each.at == evidence.NEVER] == []


def test_who_has_the_record_for_ever_is_told(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    """A process that hangs does not make all others hang."""
    monkeypatch.setattr(lock, "PATIENCE", 0.2)
    with (
        lock.held(site.folder / "evidence.json"),
        pytest.raises(MachineError, match=r"another process has had .*evidence\.json for 0 s"),
    ):
        run(site, gates(gate("a")))


def test_a_broken_record_stops_a_run(site: Site) -> None:
    """Nothing is built on evidence that cannot be read."""
    (site.folder / "evidence.json").write_text("{")
    with pytest.raises(BackupMxError, match="delete it"):
        run(site, gates(gate("a")))


# ── The gate that goes by what is recorded ────────────────────────────────────────────────────────


VOLUME = "relay.mx2.volume = true\n" + FIVE_LINES


def test_a_rebuild_is_proven_by_one(tmp_path: Path, clock: Clock) -> None:
    """Until there was one it is unknown; then its proof stands until it is stale."""
    site = site_of(parse(VOLUME, "test"), tmp_path, clock)
    known = gates(rebuild.GATE)
    assert run(site, known).results[0].findings[0].verdict == "unknown"
    run(site, gates(replace(rebuild.GATE, judge=lambda _: [found("rebuild")])))
    clock.now += DAY
    for names in ((), ("rebuild",)):
        done = run(site, known, names)
        assert done.passed
        assert done.evidence.proofs["rebuild"].at == NOW
    clock.now += 100 * DAY
    stale = run(site, known).results[0].findings[0]
    assert (stale.verdict, stale.saw) == ("unknown", "stale since 2027-03-02 15:00 UTC")


def test_a_rebuild_that_failed_is_told_again(tmp_path: Path, clock: Clock) -> None:
    """Naming the gate does not make it good."""
    site = site_of(parse(VOLUME, "test"), tmp_path, clock)
    run(site, gates(replace(rebuild.GATE, judge=lambda _: [found("rebuild", "fail")])))
    done = run(site, gates(rebuild.GATE), ["rebuild"])
    assert not done.passed
    assert done.evidence.proofs["rebuild"].finding == found("rebuild", "fail")


def test_without_a_volume_there_is_nothing_to_rebuild_around(site: Site) -> None:
    """It is said, and no reason to wait."""
    assert run(site, gates(rebuild.GATE)).results[0].findings[0].verdict == "warn"


# ── From where ────────────────────────────────────────────────────────────────────────────────────


def test_where_one_looks_from() -> None:
    """Another relay, a command, what the config says, and else this machine."""
    here = Nowhere()
    both = parse(FIVE_LINES + MX3 + '[gates]\noutside = ["ssh", "vps", "python3", "-"]\n', "test")
    assert view(both, ["mx3"], lambda _: here) == View("the relay mx3", here)
    given = view(both, ["ssh", "a b", "python3", "-"], lambda _: here)
    assert given == View("`ssh 'a b' python3 -`", Command(("ssh", "a b", "python3", "-")))
    assert view(both, (), lambda _: here).words == "`ssh vps python3 -`"
    plain = parse(FIVE_LINES, "test")
    assert view(plain, (), lambda _: here).words == "this machine"


def test_this_machine_runs_what_it_is_given() -> None:
    """The program comes by standard input, and what it prints is the answer."""
    place = view(parse(FIVE_LINES, "test"), (), lambda _: Nowhere())
    answer = place.host.run(("python3", "-I", "-"), stdin=b"print(6 * 7)\nraise SystemExit(3)\n")
    assert (answer.code, answer.stdout) == (3, "42\n")


def test_a_command_that_is_not_there_is_told() -> None:
    """In words, by its name."""
    with pytest.raises(BackupMxError, match="no-such-program is not installed"):
        Command(("no-such-program",)).run(())


def test_notices_are_tried_with_less_than_the_agents_rights() -> None:
    """Never as root: what reads the URLs is a program of many authors."""
    asked: list[Sequence[str]] = []

    class Asked(Nowhere):
        def run(
            self, argv: Sequence[str], *, stdin: bytes = b"", tell: Tell | None = None
        ) -> Answer:
            del tell
            asked.append(argv)
            compile(stdin, "telling", "exec")
            return Answer(0, '{"1 (json)": ""}', "")

    assert notices.sent(Asked()) == {"1 (json)": ""}
    (argv,) = asked
    assert argv[0] == "systemd-run"
    assert argv[argv.index("--") :] == ("--", "python3", "-P", "-")
    for wanted in ("User=backup-mx", "CapabilityBoundingSet=", "PrivateTmp=yes"):
        assert f"--property={wanted}" in argv


def test_a_test_notice_goes_to_every_place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """By the settings that systemd hands over; nothing of the URLs stays behind."""
    program = tmp_path / "apprise"
    program.write_text("#!/bin/sh\ncat >/dev/null\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=os.pathsep)
    monkeypatch.setenv("CREDENTIALS_DIRECTORY", str(tmp_path))
    monkeypatch.setenv("RUNTIME_DIRECTORY", str(tmp_path))
    urls = ("json://localhost/geheim", "ntfy://topic")
    (tmp_path / "agent.json").write_text(replace(SETTINGS, notify_urls=urls).text)
    assert telling.told() == {"1 (json)": "", "2 (ntfy)": ""}
    assert {each.name for each in tmp_path.iterdir()} == {"agent.json", "apprise"}


# ── The relay's word ──────────────────────────────────────────────────────────────────────────────


class Agent(Nowhere):
    """A relay whose agent says one thing after the other."""

    def __init__(self, *said: Answer) -> None:
        self.said = list(said)

    def run(self, argv: Sequence[str], *, stdin: bytes = b"", tell: Tell | None = None) -> Answer:
        del argv, stdin, tell
        return self.said.pop(0) if len(self.said) > 1 else self.said[0]


def status(started: float, reconciled: float | None) -> Answer:
    last = Snapshot(9.0, started, "mx2", "mx2.example.org", "v", reconciled=reconciled)
    told = Status(9.0, last, agent=True, fresh=True, counts=(), disk=None, until=0.0, retention=1)
    return Answer(0, json.dumps(told.data), "")


def test_an_agent_that_has_just_started_is_given_time(site: Site) -> None:
    """It is asked again until it has counted its mail, and no longer than is sensible."""
    slept: list[float] = []
    young, old = status(5.0, None), status(5.0, 6.0)
    assert relay.settled(replace(site, host=Agent(young, young, old)), slept.append).settled
    assert len(slept) == 2
    waited = relay.settled(replace(site, host=Agent(young)), slept.append, patience=-1.0)
    assert not waited.settled
    assert len(slept) == 2


def test_an_agent_that_does_not_know_its_version_yet_has_just_started() -> None:
    """It began before the deploy had ended, and looks again within half a minute."""
    told = status(5.0, 6.0)
    early = Answer(0, told.stdout.replace('"version": "v"', '"version": ""'), "")
    assert relay.word(Agent(told)).settled
    assert not relay.word(Agent(early)).settled


def facts(guard: str, guarded: float | None) -> Answer:
    told = {"version": "v", "main": {}, "services": [], "overrides": {}, "agent": "active"}
    return Answer(0, json.dumps({**told, "postfix": "", "guard": guard, "guarded": guarded}), "")


def test_a_guard_that_is_due_is_waited_for(site: Site) -> None:
    """Where its timer does not run, it is not."""
    slept: list[float] = []
    coming, off = Agent(facts("active", None), facts("active", 3.0)), Agent(facts("failed", None))
    assert relay.guarded(replace(site, host=coming), slept.append).guarded == 3.0
    assert len(slept) == 1
    assert relay.guarded(replace(site, host=off), slept.append).guard == "failed"
    assert len(slept) == 1


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        (Answer(127, "", "no"), "does not have the agent yet"),
        (Answer(1, "", "backup-mx: no ledger"), "^no ledger$"),
        (Answer(0, "{}", ""), "does not say how it is"),
        (Answer(0, "[", ""), "answered no facts"),
    ],
)
def test_an_agent_that_does_not_tell(answer: Answer, words: str) -> None:
    """Why is told in words, whatever came instead of an answer."""
    with pytest.raises(MachineError, match=words):
        relay.word(Agent(answer))


def test_facts_of_another_shape_are_told() -> None:
    """An older relay may answer less."""
    with pytest.raises(MachineError, match="other facts"):
        relay.facts(Agent(Answer(0, '{"version": "v"}', "")))
