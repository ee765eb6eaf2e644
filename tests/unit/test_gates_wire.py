"""The gates on the wire: what each answer means, and what a restart of the router looks like."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from backup_mx.config import Config, load, parse
from backup_mx.errors import MachineError, UnreachableError
from backup_mx.findings import Finding, passed
from backup_mx.gates import drain, inbound, intake, reboot
from backup_mx.gates.gate import Site, View
from backup_mx.gates.reboot import Patience
from backup_mx.kit import check
from backup_mx.machine.ship import Answer, Tell
from backup_mx.net.dns import Names
from backup_mx.relay.state import DOWN, FLAPPING, STARTING, UP, Primary, Snapshot, Walk

DATA = Path(__file__).parents[1] / "data"
CONFIG = load(DATA / "config/five-lines.toml")
TWO = parse((Path(__file__).parents[1] / "golden/tunnel.toml").read_text(), "test")
HOSTNAME, PLACE = "mx2.example.org", "this machine"
Facts = dict[str, Any]
Change = Callable[[Facts], object]


def reply(code: int, text: str = "fine") -> Facts:
    return {"code": code, "text": text}


def verdicts(findings: Iterable[Finding]) -> dict[str, str]:
    return {each.gate: each.verdict for each in findings}


# ── inbound ───────────────────────────────────────────────────────────────────────────────────────


def port(**tls: object) -> Facts:
    """Return what is seen of port 25 of a relay that is in order."""
    good = {
        "greeting": reply(220, f"{HOSTNAME} ESMTP Postfix\n{HOSTNAME} ESMTP Postfix"),
        "seconds": 6.1,
        "offer": reply(250, f"{HOSTNAME}\nSTARTTLS"),
        "starttls": reply(220),
        "sha256": "ab",
        "version": "TLSv1.3",
        "secured": reply(250, HOSTNAME),
    }
    return {"tls": {**good, **tls}}


def silent(error: str = "timed out", **more: object) -> Facts:
    return {"tls": {"error": error}, **more}


def looked(seen: Facts, own: Facts) -> list[Finding]:
    return list(inbound.judged(seen, own, hostname=HOSTNAME, place=PLACE))


def test_a_relay_that_answers_as_itself_passes() -> None:
    """It greets by its name, and shows outside the certificate that it shows at home."""
    findings = looked(port(), port())
    assert verdicts(findings) == {"port 25": "pass", "starttls": "pass"}
    assert PLACE in findings[0].saw


NO_TLS = port(starttls=reply(454, "4.7.0 TLS not available"))
del NO_TLS["tls"]["sha256"]
BROKEN_TLS = port(error="wrong version number")
del BROKEN_TLS["tls"]["sha256"]


@pytest.mark.parametrize(
    ("seen", "own", "part", "verdict", "words"),
    [
        (silent(control=reply(220)), port(), "port 25", "fail", "cloud's rules"),
        (silent(control={"error": "x"}), port(), "port 25", "unknown", "--outside"),
        (silent(), port(), "port 25", "unknown", "--outside"),
        (silent(control=reply(220)), silent("refused"), "port 25", "fail", "postfix"),
        (port(greeting=reply(554, "no")), port(), "port 25", "fail", "log"),
        (port(greeting=reply(220, "")), port(), "port 25", "fail", "whose"),
        (port(greeting=reply(220, "proxy.isp.example")), port(), "port 25", "fail", "whose"),
        (NO_TLS, port(), "starttls", "fail", "openssl"),
        (BROKEN_TLS, port(), "starttls", "fail", "openssl"),
        (port(sha256="cd"), port(), "starttls", "fail", "between"),
    ],
)
def test_what_is_wrong_with_port_25_is_told_apart(
    seen: Facts, own: Facts, part: str, verdict: str, words: str
) -> None:
    """A closed port, a network that lets nothing out, another machine, TLS that is none."""
    (found,) = (each for each in looked(seen, own) if each.verdict != "pass")
    assert (found.gate, found.verdict) == (part, verdict)
    assert words in found.do


def test_a_network_without_port_25_never_blames_the_relay() -> None:
    """Nothing answers from there, the primary neither: that says nothing of the relay."""
    (found,) = looked(silent(control={"error": "timed out"}), port())
    assert "nor from the primary" in found.saw
    assert found.verdict == "unknown"


# ── intake ────────────────────────────────────────────────────────────────────────────────────────

ASKED = intake.plan(CONFIG)


def answers(name: str, line: str) -> Facts:
    if name == "other domains" and line.startswith("RCPT"):
        return reply(554, "5.7.1 <x>: Relay access denied")
    return reply(552, "5.3.4 too big") if line == ASKED["size"][-1] else reply(250)


def spoken() -> Facts:
    """Return what a relay answers that is in order."""
    talks = {
        name: {"replies": [answers(name, line) for line in lines]} for name, lines in ASKED.items()
    }
    early = [reply(250), reply(250), *[reply(450, "4.5.1 Protocol error")] * 2]
    return {**port(), "talks": talks, "early": {"replies": early}}


def heard(seen: Facts, own: Facts | None = None) -> dict[str, str]:
    return verdicts(intake.judged(seen, own or spoken(), ASKED))


def change(name: str, at: int, code: int, text: str = "4.3.0 odd") -> Change:
    return lambda told: told["talks"][name]["replies"].__setitem__(at, reply(code, text))


def test_a_relay_in_order_passes() -> None:
    """Whom it must take it takes, whom it may refuse it refuses."""
    findings = list(intake.judged(spoken(), spoken(), ASKED))
    assert passed(findings)
    parts = ["early talkers", "own domains", "other domains", "odd clients", "size", "offer"]
    assert [each.gate for each in findings] == parts


@pytest.mark.parametrize(
    ("broken", "part", "verdict", "words"),
    [
        (change("own domains", 2, 452, "4.3.1 no room"), "own domains", "fail", "disk"),
        (change("own domains", 3, 550, "5.1.1 who?"), "own domains", "fail", "log"),
        (change("own domains", 3, 450, "4.1.1 not now"), "own domains", "fail", "log"),
        (change("own domains", 3, 450, "4.3.2 standby: the first"), "own domains", "pass", ""),
        (change("other domains", 4, 250), "other domains", "fail", "stop Postfix"),
        (change("other domains", 4, 550), "other domains", "fail", "deploy"),
        (change("other domains", 4, 450), "other domains", "fail", "deploy"),
        (change("odd clients", 8, 504), "odd clients", "fail", "deploy"),
        (change("odd clients", 8, 450), "odd clients", "pass", ""),
        (change("size", 1, 452), "size", "fail", "room"),
        (change("size", 1, 552), "size", "fail", "deploy"),
        (change("size", 3, 250), "size", "fail", "deploy"),
        (lambda told: told["tls"].update(offer=reply(250, "x\nETRN")), "offer", "fail", "deploy"),
        (lambda told: told["tls"].update(offer=reply(502, "no")), "offer", "fail", "deploy"),
    ],
)
def test_each_answer_has_its_meaning(broken: Change, part: str, verdict: str, words: str) -> None:
    """What a relay may not say fails by the part it belongs to, and says what to do."""
    told = spoken()
    broken(told)
    findings = list(intake.judged(told, spoken(), ASKED))
    assert {each.gate for each in findings if each.verdict != "pass"} <= {part}
    (found,) = (each for each in findings if each.gate == part)
    assert (found.verdict, words in found.do) == (verdict, True)


def test_a_full_disk_is_no_refusal() -> None:
    """Where MAIL is put off, "need MAIL" is said of recipients, which is no word on them."""
    told = spoken()
    for name, lines in ASKED.items():
        for at, line in enumerate(lines):
            if line.startswith("MAIL") and "SIZE=" not in line:
                change(name, at, 452, "4.3.1 Insufficient system storage")(told)
            elif line.startswith("RCPT"):
                change(name, at, 503, "5.5.1 Error: need MAIL command")(told)
    found = heard(told)
    assert (found["own domains"], found["other domains"]) == ("fail", "unknown")
    assert found["odd clients"] == "pass"


@pytest.mark.parametrize(
    ("codes", "verdict"),
    [
        ([250, 250, 450, 450], "pass"),
        ([250, 250, 250, 250], "fail"),
        ([250, 250, 550, 550], "fail"),
        ([502, 250, 450, 450], "fail"),
        ([250, 250], "unknown"),
        ([], "unknown"),
    ],
)
def test_who_speaks_too_early_is_put_off_and_not_refused(codes: list[int], verdict: str) -> None:
    """A 4xx and nothing else: a 5xx bounces mail, a 250 says that postscreen is not there."""
    told = spoken()
    told["early"] = {"replies": [reply(code) for code in codes], "error": "hung up"}
    assert heard(spoken(), told)["early talkers"] == verdict


@pytest.mark.parametrize(
    "seen", [silent(), {**spoken(), "talks": {}}], ids=["no answer", "nothing said"]
)
def test_where_nothing_answers_the_relay_is_asked_at_home(seen: Facts) -> None:
    """That nothing answers is another gate's; what it would say is asked on the relay itself.

    From where is told, for the evidence says that it was looked at from outside.
    """
    assert set(heard(seen).values()) == {"pass", "warn"}
    (told,) = [each for each in intake.judged(seen, spoken(), ASKED) if each.verdict == "warn"]
    assert told.gate == "from where"
    assert told.saw.startswith("asked on the relay itself: outside nothing answers")
    wrong = spoken()
    change("other domains", 4, 250)(wrong)
    assert heard(seen, wrong)["other domains"] == "fail"


def test_a_place_on_a_block_list_hears_nothing_of_use() -> None:
    """It is put off whatever it says; the relay is asked at home instead."""
    listed = spoken()
    for at in (2, 3):
        change("own domains", at, 450, "4.7.1 client [192.0.2.66] blocked using x")(listed)
    for at in range(2, 8):
        change("other domains", at, 450, "4.7.1 client [192.0.2.66] blocked using x")(listed)
    (told,) = [each for each in intake.judged(listed, spoken(), ASKED) if each.verdict != "pass"]
    assert (told.gate, told.verdict) == ("from where", "warn")
    assert told.saw.endswith("outside is on a block list")


def test_a_relay_that_nobody_can_ask_is_unknown() -> None:
    """Neither outside nor at home: not a pass."""
    own = {**silent(), "early": {"replies": [], "error": "timed out"}}
    assert heard(silent(), own) == {"early talkers": "unknown", "clients": "unknown"}


@pytest.mark.parametrize(("code", "verdict"), [(521, "fail"), (250, "unknown")])
def test_a_talk_that_breaks_off_is_no_pass(code: int, verdict: str) -> None:
    """A line that went is not known; a relay that hangs up with a 5xx has refused."""
    told = spoken()
    told["talks"]["odd clients"] = {"replies": [reply(code)], "error": "hung up"}
    assert heard(told)["odd clients"] == verdict


def test_a_session_that_breaks_off_after_the_greeting_is_no_pass() -> None:
    """What EHLO offers is not known then; all else is judged."""
    told = spoken()
    told["tls"] = {"greeting": reply(220, HOSTNAME), "seconds": 6.1, "error": "hung up"}
    findings = list(intake.judged(told, spoken(), ASKED))
    assert [(each.gate, each.saw) for each in findings if each.verdict == "unknown"] == [
        ("offer", "EHLO: hung up")
    ]


def test_the_other_domain_is_never_one_of_ours() -> None:
    """Nobody is called an open relay for taking his own mail."""
    text = (DATA / "config/five-lines.toml").read_text()
    own = parse(text.replace('domain."example.org"', 'domain."example.com"'), "test")
    lines = intake.plan(own)["other domains"]
    assert [line for line in lines if line == "RCPT TO:<probe@example.net>"]
    assert not [line for line in lines if line == "RCPT TO:<probe@example.com>"]


def test_no_line_hands_a_message_over() -> None:
    """DATA and BDAT are not among what is said."""
    said = [line for lines in intake.plan(TWO).values() for line in lines]
    assert not [line for line in said if line.upper().startswith(("DATA", "BDAT"))]


def test_a_neighbour_is_new_each_time() -> None:
    """A loopback address, but not the one that everybody on the relay comes from."""
    found = {inbound.neighbour() for _ in range(50)}
    assert len(found) > 45
    assert all(each.startswith("127.") and each != "127.0.0.1" for each in found)


# ── both ends, asked ──────────────────────────────────────────────────────────────────────────────


class Host:
    """A machine that answers what it is told to."""

    def __init__(self, run: Callable[[], str]) -> None:
        self.answer = run
        self.programs: list[str] = []

    def run(self, argv: Sequence[str], *, stdin: bytes = b"", tell: Tell | None = None) -> Answer:
        del argv, tell
        self.programs.append(stdin.decode())
        return Answer(0, self.answer(), "")


def site(host: Host, there: Host | None = None, config: Config = CONFIG) -> tuple[Site, list[str]]:
    """Return a site, and what its gates tell."""
    told: list[str] = []
    made = Site(
        config=config,
        relay=config.relays["mx2"],
        host=host,
        outside=View(PLACE, there or host),
        names=Names(),
        folder=Path("/nowhere"),
        now=lambda: datetime.now(UTC),
        tell=told.append,
    )
    return made, told


def test_each_side_is_asked_its_own() -> None:
    """Outside by the relay's address, at home by loopback, with the primary as what to compare."""
    here, there = (Host(lambda: json.dumps(port())) for _ in range(2))
    assert passed(inbound.judge(site(here, there)[0]))
    assert '"host": "203.0.113.20"' in there.programs[0]
    assert '"control": ["mail.example.org", 25]' in there.programs[0]
    assert '"host": "127.0.0.1"' in here.programs[0]
    here, there = (Host(lambda: json.dumps(spoken())) for _ in range(2))
    assert passed(intake.judge(site(here, there)[0]))
    sources = ['"early_source": "127.' in each.programs[0] for each in (here, there)]
    assert sources == [True, False]


def test_the_drain_is_asked_of_each_primary(monkeypatch: pytest.MonkeyPatch) -> None:
    """All that `primary check` finds but parity, which has a gate of its own; whose it is."""
    found = [Finding("tls", "pass", "x"), Finding("parity-size", "fail", "x")]
    monkeypatch.setattr(check, "check", lambda *_: found)
    monkeypatch.setattr(check, "compare", lambda *_: found[1:])
    one, _ = site(Host(str))
    assert [each.gate for each in drain.judge(one)] == ["tls"]
    assert [each.gate for each in drain.compare(one)] == ["parity-size"]
    two, _ = site(Host(str), config=TWO)
    names = [f"tls, {name}" for name in TWO.primaries]
    assert [each.gate for each in drain.judge(two)] == names


# ── reboot ────────────────────────────────────────────────────────────────────────────────────────

BEGAN = 1_000_000.0
WALK = Walk(BEGAN, False, "connect", "unreachable", "Connection timed out", 5.0)
LONG, SHORT = Patience(5, 5, 0), Patience(0.2, 0.2, 0)
HOME = Primary("home", UP, BEGAN - 500, walk=replace(WALK, good=True))
SNAPSHOT = Snapshot(
    BEGAN, BEGAN - 900, "mx2", HOSTNAME, "ab", primaries=(HOME,), reconciled=BEGAN - 800
)


def at(seconds: float, state: str, since: float | None = None, started: float = 0) -> Snapshot:
    """Return what the agent says so many seconds later; since as well, by default unchanged."""
    when = HOME.since if since is None else BEGAN + since
    primary = replace(HOME, state=state, since=when, walk=WALK)
    begun = started or SNAPSHOT.started
    return replace(SNAPSHOT, time=BEGAN + seconds, primaries=(primary,), started=begun)


def status(snapshot: Snapshot) -> str:
    agent = {"alive": True, "blind": False}
    return json.dumps({"asked": snapshot.time, "agent": agent, "snapshot": asdict(snapshot)})


def watched(*said: Snapshot | None, patience: Patience = LONG) -> list[Finding]:
    """Return what the gate finds while the relay says so, one after the other, or is silent.

    Each is said once; the last one for ever.
    """
    left = iter(said)
    last: list[Snapshot | None] = [SNAPSHOT]

    def answer() -> str:
        found = last[0]
        last[0] = next(left, found)
        if found is None:
            raise UnreachableError("mx2 cannot be reached")
        return status(found)

    made, _ = site(Host(answer))
    return list(reboot.judge(made, patience, lambda _: None))


GONE = at(60, DOWN, since=50)
BACK = at(200, UP, since=190)


@pytest.mark.parametrize(
    "course",
    [
        (SNAPSHOT, GONE, GONE, BACK),
        (GONE, at(100, FLAPPING, since=90), BACK),
        (None, None, GONE, None, BACK),
        (None, BACK),
        (BACK,),
    ],
    ids=["seen", "flapping", "from behind the router", "only afterwards", "too quick to be seen"],
)
def test_a_way_that_comes_back_passes(course: tuple[Snapshot | None, ...]) -> None:
    """However much of it was seen from here: the relay knows since when its primary is up."""
    (found,) = watched(*course)
    assert (found.gate, found.verdict) == ("home", "pass")
    assert "came back by itself" in found.saw
    assert ("2 min 20 s after it went" in found.saw) == (GONE in course)


def test_a_way_that_stays_away_fails() -> None:
    """With the relay's own words, once the time is over."""
    (found,) = watched(None, GONE, patience=SHORT)
    assert found.verdict == "fail"
    assert "Connection timed out" in found.saw


def test_nothing_that_happened_is_not_a_pass() -> None:
    """Neither a restart that nobody made, nor one of the agent, nor a primary that was down."""
    assert [each.verdict for each in watched(SNAPSHOT, patience=SHORT)] == ["unknown"]
    assert [each.verdict for each in watched(None, patience=SHORT)] == ["unknown"]
    assert [each.verdict for each in watched(at(9, STARTING), patience=SHORT)] == ["unknown"]
    with pytest.raises(MachineError, match="restarted"):
        watched(GONE, at(90, UP, since=80, started=BEGAN + 70))
    made, told = site(Host(lambda: status(GONE)))
    assert [each.verdict for each in reboot.judge(made)] == ["unknown"]
    assert told == []


def test_a_dead_agent_sees_nothing() -> None:
    """Then there is nothing to be watched."""
    text = status(SNAPSHOT).replace('"alive": true', '"alive": false')
    assert [each.verdict for each in reboot.judge(site(Host(lambda: text))[0])] == ["unknown"]


def test_of_two_ways_each_has_to_come_back() -> None:
    """The one that stays away is named."""
    office = replace(HOME, name="office")
    before = replace(SNAPSHOT, primaries=(HOME, office))
    after = replace(BACK, primaries=(*BACK.primaries, replace(GONE.primaries[0], name="office")))
    said = iter([status(before)])
    made, told = site(Host(lambda: next(said, status(after))))
    findings = list(reboot.judge(made, SHORT, lambda _: None))
    assert verdicts(findings) == {"home": "pass", "office": "fail"}
    assert "home and office" in told[0]


def test_a_way_that_the_relay_tells_of_later_is_not_watched() -> None:
    """A deploy meanwhile may have brought one, or taken one."""
    other = replace(HOME, name="office")
    after = replace(BACK, primaries=(*BACK.primaries, other))
    (found,) = watched(GONE, after)
    assert (found.gate, found.verdict) == ("home", "pass")
    (found,) = watched(GONE, replace(BACK, primaries=(other,)), patience=SHORT)
    assert (found.gate, found.verdict) == ("home", "fail")
