"""Each gate's judgement of what was seen: the one thing that it exists for fails it."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from dataclasses import replace
from ipaddress import ip_network
from pathlib import Path
from typing import Any

import pytest

from backup_mx.config import parse
from backup_mx.errors import MachineError
from backup_mx.findings import Finding, Verdict, worst
from backup_mx.gates import (
    access,
    canary,
    certificate,
    ledger,
    monitoring,
    notices,
    refusal,
    retention,
    size,
    version,
)
from backup_mx.gates.gate import together
from backup_mx.gates.monitoring import Heard
from backup_mx.gates.relay import Facts, Word
from backup_mx.machine import probe
from backup_mx.machine.ship import Answer, Tell, run_local
from backup_mx.net.fetch import FetchError
from backup_mx.relay.state import Primary, Snapshot, Sums, Walk

CONFIG = parse((Path(__file__).parents[1] / "data/config/five-lines.toml").read_text(), "test")
NOW = 1_800_000_000.0
MONTH = 30 * 86_400

FACTS = Facts(
    version="v1",
    main={
        "soft_bounce": "no",
        "maximal_queue_lifetime": "100d",
        "bounce_queue_lifetime": "100d",
        "delay_warning_time": "0",
        "notify_classes": "2bounce",
        "header_checks": "",
    },
    services=(
        "smtp/inet",
        "smtpd/pass",
        "relay/unix",
        "error/unix",
        "bounce/unix",
        "defer/unix",
        "trace/unix",
    ),
    overrides={
        "smtp/inet/soft_bounce": "yes",
        "relay/unix/soft_bounce": "yes",
        "error/unix/soft_bounce": "yes",
        "bounce/unix/cleanup_service_name": "cleanup-notice",
        "defer/unix/cleanup_service_name": "cleanup-notice",
        "trace/unix/cleanup_service_name": "cleanup-notice",
        "cleanup-notice/unix/header_checks": "static:HOLD",
    },
    guarded=20.0,
    guard="active",
    agent="active",
    postfix="active",
)
WALK = Walk(NOW - 30, good=True, step="rset", why="", words="250 ok", seconds=0.1)
HOME = Primary("home", "up", NOW - 500, walk=WALK)
SAID = Snapshot(
    time=NOW,
    started=NOW - 600,
    relay="mx2",
    hostname="mx2.example.org",
    version="v1",
    primaries=(HOME,),
    sums=Sums(accepted=3, delivered=3),
    reconciled=NOW - 300,
    retention=MONTH,
)
WORD = Word(NOW, alive=True, blind=False, snapshot=SAID)


def said(**changes: Any) -> Word:  # noqa: ANN401  any field of a Snapshot
    return replace(WORD, snapshot=replace(SAID, **changes))


def main(**changes: str) -> Facts:
    return replace(FACTS, main={**FACTS.main, **changes})


def override(name: str, value: str | None) -> Facts:
    others = {each: told for each, told in FACTS.overrides.items() if each != name}
    return replace(FACTS, overrides=others if value is None else {**others, name: value})


def test_a_gate_is_as_good_as_its_worst_finding() -> None:
    """A failure is worse than what is not known, and nothing at all is not known."""
    found = [Finding("g", verdict, verdict) for verdict in ("pass", "unknown", "warn")]
    assert worst(found) == "unknown"
    assert worst([*found, Finding("g", "fail", "")]) == "fail"
    assert worst([]) == "unknown"


def test_a_gate_s_sum_names_what_is_wrong() -> None:
    """Of many findings only the worst are told, and what to do about each, once."""
    found = [
        Finding("one", "fail", "broken", "mend"),
        Finding("two", "pass", "fine"),
        Finding("three", "fail", "broken, too", "mend"),
    ]
    assert together("g", found) == Finding("g", "fail", "one: broken; three: broken, too", "mend")
    many = [Finding(f"part {number}", "pass", "fine") for number in range(4)]
    assert together("g", many).saw == "4 things looked at, all in order"


@pytest.mark.parametrize(("octets", "verdict"), [(28_800, "pass"), (28_801, "warn")])
def test_user_data_that_is_nearly_too_large(octets: int, verdict: Verdict) -> None:
    """The machine can still be made, but the next key may be one too many."""
    assert size.judged(octets).verdict == verdict


def test_the_version_that_was_applied() -> None:
    """It has to be the config's, with Postfix running."""
    assert version.applied("v1", FACTS).verdict == "pass"
    assert version.applied("v2", FACTS).verdict == "fail"
    assert version.applied("v1", replace(FACTS, version="")).verdict == "fail"
    assert version.applied("v1", replace(FACTS, postfix="failed")).verdict == "fail"


def test_the_agent_s_own_version() -> None:
    """An agent that is dead, or of before the deploy, fails."""
    assert version.running("v1", FACTS, WORD).verdict == "pass"
    assert version.running("v2", FACTS, WORD).verdict == "fail"
    assert version.running("v1", replace(FACTS, agent="failed"), WORD).verdict == "fail"
    assert version.running("v1", FACTS, replace(WORD, alive=False)).verdict == "fail"
    assert version.running("v1", FACTS, replace(WORD, snapshot=None)).verdict == "fail"


def test_what_a_deploy_would_change() -> None:
    """Each file is named once, by whatever words relay.pyz tells of it."""
    assert version.unaltered(["nothing to change"]).verdict == "pass"
    lines = [
        "packages to install: opendkim",
        "--- /etc/postfix/main.cf",
        "+++ /etc/postfix/main.cf",
        "@@ -1 +1 @@",
        "+a line",
        "to write: /etc/backup-mx/agent.json (its content is not shown)",
    ]
    found = version.unaltered(lines)
    assert found.verdict == "fail"
    assert found.saw == (
        "altered on the relay: package opendkim, /etc/postfix/main.cf, /etc/backup-mx/agent.json"
    )
    many = [f"to remove: /{number}" for number in range(9)]
    assert version.unaltered(many).saw.endswith("and 5 more")


@pytest.mark.parametrize(
    ("facts", "saw"),
    [
        (main(maximal_queue_lifetime="5d"), "maximal_queue_lifetime = 5d"),
        (main(bounce_queue_lifetime="0"), "bounce_queue_lifetime = 0"),
        (main(maximal_queue_lifetime=""), "maximal_queue_lifetime = ?"),
        (override("qmgr/unix/maximal_queue_lifetime", "1h"), "qmgr/unix/maximal_queue_lifetime"),
    ],
)
def test_a_lifetime_that_gives_mail_up(facts: Facts, saw: str) -> None:
    """Wherever Postfix has it from, master.cf included."""
    assert retention.limits(FACTS).verdict == "pass"
    found = retention.limits(facts)
    assert found.verdict == "fail"
    assert saw in found.saw


@pytest.mark.parametrize(
    ("change", "verdict"),
    [
        ({}, "pass"),
        ({"guard": "inactive"}, "fail"),
        ({"guard": ""}, "fail"),
        ({"guarded": None}, "unknown"),
        ({"guarded": 1801.0}, "fail"),
    ],
)
def test_the_guard_s_timer(change: Mapping[str, Any], verdict: Verdict) -> None:
    """It has to be on, and to have run lately."""
    assert retention.guard(replace(FACTS, **change)).verdict == verdict


def test_the_agent_s_retention() -> None:
    """It is the config's, not one from before."""
    assert retention.retention(CONFIG, WORD).verdict == "pass"
    assert retention.retention(CONFIG, said(retention=86_400)).verdict == "fail"
    assert retention.retention(CONFIG, replace(WORD, snapshot=None)).verdict == "unknown"


@pytest.mark.parametrize(
    ("facts", "saw"),
    [
        (override("relay/unix/soft_bounce", None), "not in effect for relay/unix"),
        (override("smtp/inet/soft_bounce", "no"), "not in effect for smtp/inet"),
        (override("error/unix/soft_bounce", None), "not in effect for error/unix"),
        (override("smtpd/pass/soft_bounce", "yes"), "in effect for smtpd/pass, too"),
        (main(soft_bounce="yes"), "bounce/unix"),
    ],
)
def test_softened_where_it_must_be_and_nowhere_else(facts: Facts, saw: str) -> None:
    """Without it mail bounces; with it elsewhere nobody is told that he must not relay."""
    assert refusal.softened(FACTS).verdict == "pass"
    found = refusal.softened(facts)
    assert found.verdict == "fail"
    assert saw in found.saw


def test_a_postfix_that_tells_nothing_is_unknown() -> None:
    """No answer is not an answer without overrides."""
    assert refusal.softened(replace(FACTS, services=())).verdict == "unknown"


@pytest.mark.parametrize(
    "facts",
    [
        main(delay_warning_time="4h"),
        override("bounce/unix/cleanup_service_name", None),
        override("cleanup-notice/unix/header_checks", ""),
    ],
)
def test_a_notice_that_could_leave(facts: Facts) -> None:
    """Each of bounce(8)'s services writes by the cleanup that holds, and nobody hears of delays."""
    assert refusal.notices(FACTS).verdict == "pass"
    assert refusal.notices(facts).verdict == "fail"


def test_what_was_ever_lost() -> None:
    """One message is enough."""
    none = dict.fromkeys(("bounced", "dsn", "expired"), 0)
    assert refusal.counted(said(counters=none | {"attempts": 9})).verdict == "pass"
    for key in none:
        assert refusal.counted(said(counters=none | {key: 1})).verdict == "fail"
    assert refusal.counted(said(counters={"flushes": 1})).verdict == "unknown"
    assert refusal.counted(replace(WORD, snapshot=None)).verdict == "unknown"


@pytest.mark.parametrize(
    ("word", "verdict"),
    [
        (WORD, "pass"),
        (said(sums=Sums(accepted=3, delivered=2)), "fail"),
        (said(sums=Sums(accepted=3, delivered=3, differences=1)), "fail"),
        (said(reconciled=None), "unknown"),
        (said(reconciled=NOW - 700), "unknown"),
        (said(started=NOW - 9000, reconciled=NOW - 7201), "fail"),
        (replace(WORD, alive=False), "fail"),
        (replace(WORD, blind=True), "fail"),
        (replace(WORD, snapshot=None), "fail"),
    ],
)
def test_the_ledger(word: Word, verdict: Verdict) -> None:
    """It adds up, by a count of lately, by an agent that lives and sees."""
    assert ledger.judged(word).verdict == verdict


@pytest.mark.parametrize(
    ("primary", "verdict"),
    [
        (HOME, "pass"),
        (replace(HOME, state="down"), "fail"),
        (replace(HOME, state="refusing"), "fail"),
        (replace(HOME, state="starting"), "unknown"),
        (replace(HOME, walk=None), "unknown"),
        (replace(HOME, walk=replace(WALK, time=NOW - 301)), "fail"),
        (replace(HOME, paused="too many refusals"), "fail"),
        (replace(HOME, name="another"), "fail"),
    ],
)
def test_the_canary(primary: Primary, verdict: Verdict) -> None:
    """Each primary is walked to, lately, and takes recipients."""
    assert [each.verdict for each in canary.judged(CONFIG, said(primaries=(primary,)))] == [verdict]


def test_a_dead_agent_walks_nowhere() -> None:
    """Whatever it last said."""
    assert [each.verdict for each in canary.judged(CONFIG, replace(WORD, alive=False))] == ["fail"]


def test_the_daily_message() -> None:
    """One that was refused fails; one that has not gone yet is no reason to wait for a day."""
    assert canary.daily(HOME, NOW).verdict == "warn"
    assert canary.daily(replace(HOME, message=WALK), NOW).verdict == "pass"
    bad = replace(WALK, good=False, step="data", words="554 spam")
    assert canary.daily(replace(HOME, message=bad), NOW).verdict == "fail"


GOOD: dict[str, Any] = {
    "trouble": "",
    "own": False,
    "names": ["mx2.example.org"],
    "issuer": "An Authority",
    "begins": NOW - 60 * 86_400,
    "ends": NOW + 30 * 86_400,
}


@pytest.mark.parametrize(
    ("change", "verdict"),
    [
        ({}, "pass"),
        ({"names": ["*.example.org"]}, "pass"),
        ({"names": ["mail.example.org"]}, "fail"),
        ({"names": []}, "fail"),
        ({"begins": NOW - 77 * 86_400, "ends": NOW + 13 * 86_400}, "warn"),
        ({"begins": NOW - 3 * 86_400, "ends": NOW + 3 * 86_400}, "pass"),
        ({"own": True}, "warn"),
        ({"trouble": "self-signed certificate"}, "fail"),
        ({"error": "timed out"}, "unknown"),
    ],
)
def test_the_certificate(change: Mapping[str, Any], verdict: Verdict) -> None:
    """It is trusted, for the relay's name, and not about to end."""
    found = certificate.judged(CONFIG, "mx2.example.org", {**GOOD, **change}, NOW)
    assert found.verdict == verdict


def test_a_certificate_of_its_own_where_it_is_wanted() -> None:
    """Without an authority it is as the config says, unless a policy has senders insist."""
    text = (Path(__file__).parents[1] / "data/config/five-lines.toml").read_text()
    own = {"trouble": "self-signed certificate"}
    for options, verdict in (
        ("[tls]\nacme = false\n", "warn"),
        ('[tls]\nacme = false\n[mta_sts]\nmode = "enforce"\n', "fail"),
    ):
        config = parse(text + options, "test")
        assert certificate.judged(config, "mx2.example.org", own, NOW).verdict == verdict


def test_an_authority_of_ones_own_is_not_the_senders() -> None:
    """They take it for none: that fails where a policy has them insist."""
    text = (Path(__file__).parents[1] / "data/config/five-lines.toml").read_text()
    config = parse(f'{text}[mta_sts]\nmode = "enforce"\n', "test")
    found = certificate.judged(config, "mx2.example.org", {**GOOD, "own": True}, NOW)
    assert (found.verdict, "of your own" in found.saw) == ("fail", True)


def test_an_authority_that_gives_none_is_quoted() -> None:
    """What to do is in its own words."""
    fact = {"trouble": "self-signed certificate"}
    found = certificate.judged(CONFIG, "mx2.example.org", fact, NOW, "no such name")
    assert found.do == "no such name"


def test_notices() -> None:
    """One place that does not take them fails; none is worth a word, unless it is all there is."""
    assert notices.untold(watched=True).verdict == "warn"
    assert notices.untold(watched=False).verdict == "fail"
    assert notices.judged({"1 (ntfys)": ""}).verdict == "pass"
    found = notices.judged({"1 (ntfys)": "", "2 (slack)": "it cannot be reached"})
    assert found.verdict == "fail"
    assert found.saw == "2 (slack): it cannot be reached"


@pytest.mark.parametrize(
    ("shown", "verdict"), [(["a", "b"], "pass"), (["c"], "fail"), ([], "warn")]
)
def test_the_public_address_s_ssh(shown: list[str], verdict: Verdict) -> None:
    """Another machine's key there is a fault; nothing there may be meant so."""
    assert access.public("there", ["b"], shown).verdict == verdict


@pytest.mark.parametrize(
    ("public", "tailnet", "elsewhere", "verdict"),
    [
        (True, True, True, "pass"),
        (True, True, False, "warn"),
        (True, None, True, "warn"),
        (False, True, True, "warn"),
        (False, None, True, "warn"),
        (True, False, True, "fail"),
    ],
)
def test_a_second_way_in(
    *, public: bool, tailnet: bool | None, elsewhere: bool, verdict: Verdict
) -> None:
    """Two ways that do not need each other are what is wanted, and not from home alone."""
    found = access.second(public=public, tailnet=tailnet, elsewhere=elsewhere)
    assert found.verdict == verdict


@pytest.mark.parametrize(
    ("allowed", "alone"),
    [
        (("198.51.100.7/32",), True),
        (("198.51.100.0/29", "2001:db8:7::/56"), True),
        (("198.51.100.7/32", "192.0.2.9/32"), False),
        (("198.51.100.0/24",), False),
        (("0.0.0.0/0", "::/0"), False),
    ],
)
def test_who_is_let_in_from_home_alone(allowed: tuple[str, ...], *, alone: bool) -> None:
    """With its line down the operator is somewhere else."""
    networks = [ip_network(each) for each in allowed]
    assert access.at_home(networks, ["198.51.100.7", "2001:db8:7::25"]) == alone
    assert not access.at_home(networks, [])


class Elsewhere:
    """A place that runs what it is given as it is run here, where ssh-keyscan is a program."""

    def run(self, argv: Sequence[str], *, stdin: bytes = b"", tell: Tell | None = None) -> Answer:
        return run_local([sys.executable, *argv[1:]], stdin, tell)


def test_ssh_seen_from_elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """By what the place has for it; without that it is unknown."""
    program = tmp_path / "ssh-keyscan"
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(MachineError, match="ssh-keyscan cannot be run where it is looked from"):
        access.scanned(Elsewhere(), "203.0.113.20", 22)
    program.write_text('#!/bin/sh\necho "# $*"\necho "203.0.113.20 ssh-ed25519 AAAA"\n')
    program.chmod(0o755)
    assert access.scanned(Elsewhere(), "203.0.113.20", 22) == [probe.fingerprint("AAAA")]
    program.write_text("#!/bin/sh\n")
    assert access.scanned(Elsewhere(), "203.0.113.20", 22) == []


HEARD = Heard(
    {"mx2:9725": True},
    {"BackupMxDown": "ok", "BackupMxOld": "ok", "Own": "ok"},
    {"http://one:9093": "", "http://two:9093": "timed out"},
)
ALARMS = ("BackupMxDown", "BackupMxOld")


@pytest.mark.parametrize(
    ("heard", "failing"),
    [
        (HEARD, set()),
        (replace(HEARD, targets={}), {"target"}),
        (replace(HEARD, targets={"mx2:9725": False}), {"target"}),
        (replace(HEARD, rules={"BackupMxDown": "ok"}), {"rules"}),
        (replace(HEARD, rules={"BackupMxDown": "ok", "BackupMxOld": "err"}), {"rules"}),
        (replace(HEARD, alertmanagers={}), {"alertmanager"}),
    ],
)
def test_prometheus(heard: Heard, failing: set[str]) -> None:
    """It scrapes the relay, has every alarm's rule, and somebody to tell."""
    found = list(monitoring.judged(heard, ALARMS))
    assert {each.gate for each in found if each.verdict == "fail"} == failing


def test_an_alertmanager_that_does_not_answer() -> None:
    """Prometheus only has its name from somewhere; one that does is enough."""

    def judged(**each: str) -> Finding:
        found = monitoring.judged(replace(HEARD, alertmanagers=each), ALARMS)
        return next(one for one in found if one.gate == "alertmanager")

    assert judged(one="", two="timed out").verdict == "pass"
    silent = judged(one="connection refused")
    assert (silent.verdict, silent.saw) == ("warn", "none answers from here: connection refused")


def test_an_alertmanager_is_asked_where_prometheus_has_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """By its own path; "localhost" is Prometheus' machine, not this one."""
    asked: list[str] = []

    def fetched(url: str, **_: object) -> bytes:
        asked.append(url)
        if "two" in url:
            raise FetchError("timed out")
        return b"OK"

    monkeypatch.setattr(monitoring, "fetch", fetched)
    assert monitoring.health("http://p:9090", "http://localhost:9093/api/v2/alerts") == ""
    assert monitoring.health("http://p:9090", "https://two/am/api/v2/alerts") == "timed out"
    assert asked == ["http://p:9093/-/healthy", "https://two/am/-/healthy"]


def test_the_alarms_are_those_of_the_rendered_rules() -> None:
    """The gate wants what `monitoring render` writes, and nothing else."""
    assert "BackupMxDown" in monitoring.alarms(CONFIG)
