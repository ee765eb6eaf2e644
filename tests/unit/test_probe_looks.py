"""What the probes make of what they see: a server, its certificate, metrics, MX records."""

from __future__ import annotations

import math
import sys
import time
from collections.abc import Callable
from pathlib import Path
from smtpd import certificate

import pytest
from click.testing import CliRunner
from interrupts import Crowd

from backup_mx import config as configs
from backup_mx.cli.probe import probe as cli
from backup_mx.config import Config
from backup_mx.dns.records import Record
from backup_mx.dns.seen import Said, Seen
from backup_mx.errors import DnsError, MachineError
from backup_mx.findings import Finding
from backup_mx.gates.views import Command
from backup_mx.mta_sts import look
from backup_mx.mta_sts import policy as policies
from backup_mx.net import shown
from backup_mx.net.dns import Names, Server
from backup_mx.net.shown import Fact
from backup_mx.probe import canary, smtp, table, zone
from backup_mx.probe.canary import Sample, samples
from backup_mx.probe.probe import Probe, Scene, Target
from backup_mx.probe.probe import Seen as Found

NOW = 1_795_000_000.0
MX2 = Target("mx2.example.org", "mx2", "203.0.113.20")

CONFIG = """
[relay.mx2]
hostname = "mx2.example.org"
address = "203.0.113.20"
[primary.home]
hostname = "mail.example.org"
[domain."example.org"]
other_mx = ["mx3.example.net"]
[domain."example.com"]
"""


@pytest.fixture
def load(tmp_path: Path) -> Callable[[str], Config]:
    def made(more: str = "") -> Config:
        (tmp_path / "backup-mx.toml").write_text(CONFIG + more)
        return configs.load(tmp_path / "backup-mx.toml")

    return made


GREETED = {"greeting": {"code": 220, "text": "mx2 ESMTP"}, "seconds": 6.1}
SECURED = {"secured": {"code": 250, "text": "mx2"}, "version": "TLSv1.3"}
SILENT = {"tls": {"error": "timed out"}}
LATER, NEVER = ({"greeting": {"code": code, "text": "not you"}} for code in (450, 554))
PLAIN = {**GREETED, "starttls": {"code": 502, "text": "what?"}}


@pytest.mark.parametrize(
    ("seen", "verdict", "words"),
    [
        ({"tls": {**GREETED, **SECURED}}, "pass", "greets after 6.1 s, and begins TLSv1.3"),
        ({"tls": LATER}, "warn", "turns strangers away: 450 not you"),
        ({"tls": NEVER}, "fail", "turns strangers away: 554 not you"),
        ({"tls": PLAIN}, "fail", "does not begin TLS: 502 what?"),
        ({"tls": {**GREETED, "error": "handshake failure"}}, "fail", "TLS: handshake failure"),
        ({**SILENT, "control": {"code": 220, "text": ""}}, "fail", "does not answer: timed out"),
        ({**SILENT, "control": {"error": "timed out"}}, "unknown", "nor does any other server"),
        (SILENT, "unknown", "nor does any other server"),
    ],
)
def test_a_server_is_judged_by_how_it_meets_a_stranger(
    seen: Fact, verdict: str, words: str
) -> None:
    """Put off is a warning; a place from which no server answers tells nothing of one."""
    found = smtp.judged("mx2.example.org", seen)
    assert (found.verdict, words in found.saw) == (verdict, True), found
    assert bool(found.do) == (verdict != "pass")


def test_port_25_is_looked_at_from_where_the_config_says(
    load: Callable[[str], Config], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A program goes there, with another server to compare."""
    monkeypatch.setattr(smtp, "SMTP", 1)
    scene = Scene(load(""), outside=Command((sys.executable, "-I", "-")))
    target = Target("mx2.example.org", "mx2", "127.0.0.1")
    found = smtp.INBOUND.read(scene, target).finding
    assert found.saw.startswith("mx2.example.org does not answer: Connection refused")
    assert smtp._another(scene.config, target) == ["mail.example.org", 1]
    home = Target("mail.example.org", address="mail.example.org")
    assert smtp._another(scene.config, home) == ["203.0.113.20", 1]


def fact(days: float, trouble: str = "", *names: str) -> Fact:
    """Return what a server shows whose certificate has so many days left, of ninety."""
    ends = NOW + days * 86_400
    return {
        "trouble": trouble,
        "own": False,
        "names": names or ("mx2.example.org",),
        "begins": ends - 90 * 86_400,
        "ends": ends,
    }


@pytest.mark.parametrize(
    ("seen", "verdict", "words"),
    [
        (fact(60), "pass", "valid for another 60 d"),
        (fact(60, "", "*.example.org"), "pass", "valid"),
        (fact(13), "warn", "valid for another 13 d"),
        ({**fact(2), "begins": NOW - 4 * 86_400}, "pass", "valid for another 2 d"),
        (fact(60, "", "mail.example.org"), "fail", "it is for mail.example.org"),
        ({**fact(60), "own": True}, "warn", "only an authority of your own"),
        ({"trouble": "self-signed certificate"}, "fail", "self-signed certificate"),
    ],
)
def test_a_certificate_is_judged_by_trust_and_by_its_end(
    seen: Fact, verdict: str, words: str
) -> None:
    """Two weeks are soon, unless it lives for days only; a name in it has to fit."""
    found = smtp.certified("mx2.example.org", seen, NOW, insisting=False)
    assert (found.verdict, words in found.saw) == (verdict, True), found
    if verdict == "warn" and seen["own"]:
        insisted = smtp.certified("mx2.example.org", seen, NOW, insisting=True)
        assert insisted.verdict == "fail"


def metrics(**values: float) -> tuple[Sample, ...]:
    """Return what a relay says that is well, but for ``values``."""
    well = {
        "snapshot_age_seconds": 2.0,
        "agent_start_time_seconds": NOW - 9999,
        "canary_last_walk_timestamp_seconds": NOW - 30,
        "canary_up": 1.0,
    }
    named = {"primary": "home"}
    return tuple(
        Sample(f"backup_mx_{name}", named if "canary" in name else {}, value)
        for name, value in {**well, **values}.items()
    )


@pytest.mark.parametrize(
    ("said", "verdict", "words"),
    [
        (metrics(), "pass", "comes through"),
        (metrics(snapshot_age_seconds=600), "fail", "stuck since 10 min"),
        (metrics(canary_last_walk_timestamp_seconds=NOW - 900), "fail", "to home 15 min ago"),
        (metrics(canary_up=0), "warn", "to home now; it keeps it"),
        (
            metrics(canary_last_walk_timestamp_seconds=0, agent_start_time_seconds=NOW - 5),
            "pass",
            "comes through",
        ),
        (metrics()[1:], "unknown", "no agent"),
    ],
)
def test_a_relay_is_judged_by_its_own_metrics(
    said: tuple[Sample, ...], verdict: str, words: str
) -> None:
    """Stuck, a canary that sits, a primary that is away; one that has just started is not late."""
    found = canary.judged("mx2.example.org", said, 300.0, NOW)
    assert (found.verdict, words in found.saw) == (verdict, True), found


def test_metrics_are_read_as_prometheus_does() -> None:
    """Labels with quotes and braces in them, infinity, comments."""
    text = '# HELP a b\na{x="1",y="}\\" 2"} 3\nb +Inf\n\nnonsense\na{x="1"y="2"} 3\na{} 4\n'
    assert list(samples(text)) == [
        Sample("a", {"x": "1", "y": '}\\" 2'}, 3.0),
        Sample("b", {}, float("inf")),
        Sample("a", {}, 4.0),
    ]


@pytest.mark.parametrize("labels", ["b" * 4000, 'b="c' * 1000, 'b="c",' * 500 + "b" * 900])
def test_what_is_no_sample_is_passed_by_at_once(labels: str) -> None:
    """A relay that means ill says no line that takes longer than it is long."""
    began = time.process_time()
    assert list(samples(f"a{{{labels}}} 1\n" * 60)) == []
    assert time.process_time() - began < 2


def test_metrics_in_endless_lines_are_refused() -> None:
    """No agent of ours says such; the rest is not believed either."""
    with pytest.raises(ValueError, match=r"a line of 5007 characters"):
        list(samples('a 1\nb{c="' + "d" * 4998 + '"} 1'))


def test_a_number_that_is_none_is_not_said() -> None:
    """Infinitely old is as much as not told."""
    found = canary.judged("mx2.example.org", metrics(snapshot_age_seconds=math.inf), 300.0, NOW)
    assert found.verdict == "unknown"


def servers(*answers: tuple[str, ...] | str) -> Seen:
    """Return what name servers said: MX records, or what kept one from answering."""
    said = []
    for number, each in enumerate(answers, 1):
        server = Server(f"ns{number}.example.net", f"192.0.2.{number}")
        if isinstance(each, str):
            said.append(Said(server, trouble=each))
        else:
            records = frozenset(Record("example.org", "MX", data) for data in each)
            said.append(Said(server, records, 300))
    return Seen("example.org", tuple(said))


GOOD = ("10 mail.example.org", "20 mx2.example.org")


@pytest.mark.parametrize(
    ("seen", "verdict", "words"),
    [
        (servers(GOOD, GOOD), "pass", "MX 20 mx2.example.org, at 2 of 2 servers"),
        (servers(GOOD, GOOD[:1]), "fail", "MX 20 mx2.example.org: not at ns2.example.net"),
        (servers(GOOD[:1]), "fail", "MX 20 mx2.example.org: not published"),
        (servers((GOOD[0], "5 mx2.example.org")), "fail", "5 mx2.example.org instead of 20 mx2"),
        (servers(("30 mail.example.org", GOOD[1])), "fail", "the primary's preference is 30"),
        (servers(GOOD[1:]), "fail", "no MX record of the primary, mail.example.org"),
        (servers((*GOOD, "5 mx.example.com")), "fail", "5 mx.example.com is neither the primary"),
        (servers((*GOOD, "30 mx.example.com")), "fail", "30 mx.example.com is neither the primary"),
        (servers((*GOOD, "30 mx3.example.net")), "pass", "at 1 of 1 servers"),
        (servers(GOOD, "ns2 is silent"), "unknown", "ns2 is silent"),
        (servers("ns1 is silent"), "unknown", "ns1 is silent"),
        (Seen("", trouble="no resolver"), "unknown", "no resolver"),
    ],
)
def test_mx_records_are_judged_at_every_server(
    load: Callable[[str], Config],
    monkeypatch: pytest.MonkeyPatch,
    seen: Seen,
    verdict: str,
    words: str,
) -> None:
    """A relay missing at one of them, in front of the primary, or a stranger in between."""
    monkeypatch.setattr("backup_mx.dns.seen.look", lambda _, asked: dict.fromkeys(asked, seen))
    found = zone.MX.read(Scene(load(""), Names()), Target("example.org")).finding
    assert (found.gate, found.verdict, words in found.saw) == ("mx", verdict, True), found


def test_the_worst_of_a_policys_findings_counts() -> None:
    """With the words of all that are as bad."""
    findings = [
        Finding("mta-sts", "pass", "served"),
        Finding("mta-sts", "fail", "one", "mend"),
        Finding("mta-sts", "fail", "two", "mend"),
    ]
    assert zone.summed(findings) == Finding("mta-sts", "fail", "one; two", "mend")


def test_a_policy_is_judged_with_its_record_and_the_mail_exchangers(
    load: Callable[[str], Config], monkeypatch: pytest.MonkeyPatch
) -> None:
    """As a sender finds them; one that is away is no policy."""
    config = load('[mta_sts]\nmode = "enforce"\n')
    policy = policies.wanted(config, "example.org")
    assert policy
    zone_of = {"MX": GOOD, "TXT": (policy.record,)}

    class Fixed(Names):
        def lookup(self, name: str, kind: str) -> tuple[str, ...]:
            assert name == {"MX": "example.org", "TXT": "_mta-sts.example.org"}[kind]
            return zone_of[kind]

    served = {"example.org": (policy.text, "")}
    monkeypatch.setattr(look, "served", lambda domain: served[domain])
    scene = Scene(config, Fixed())
    assert zone.MTA_STS.read(scene, Target("example.org")).finding.verdict == "pass"
    zone_of["MX"] = (*GOOD, "30 mx.example.com")
    found = zone.MTA_STS.read(scene, Target("example.org")).finding
    assert (found.verdict, "mx.example.com" in found.saw) == ("fail", True), found
    served["example.org"] = ("", "timed out")
    assert zone.MTA_STS.read(scene, Target("example.org")).finding.verdict == "fail"


def test_what_there_is_to_look_at_follows_from_the_config(
    load: Callable[[str], Config],
) -> None:
    """Servers, domains, and where there is something to ask also metrics, and a mailbox."""
    quiet = [(probe.name, target.name) for probe, target in table.places(load(""))]
    assert quiet == [
        ("inbound", "mail.example.org"),
        ("inbound", "mx2.example.org"),
        ("certificate", "mail.example.org"),
        ("certificate", "mx2.example.org"),
        ("mx", "example.org"),
        ("mx", "example.com"),
        ("mta-sts", "example.org"),
        ("mta-sts", "example.com"),
    ]
    more = load('[access]\nmetrics_from = ["192.0.2.0/24"]\n')
    asked = [(probe.name, target.name) for probe, target in table.places(more)]
    assert set(asked) - set(quiet) == {("canary", "mx2.example.org")}


@pytest.mark.parametrize(
    ("place", "asked"),
    [("132.145.10.10:9725", False), ("[2603:c020::1]:9725", False), ("100.64.0.2:9725", True),
     ("10.0.0.2:9725", True), ("[fd00::2]:9725", True), ("mx2.tail.example:9725", True)],
)  # fmt: skip
def test_metrics_are_not_asked_for_in_public(place: str, asked: bool) -> None:
    """They never could be: it would be an alarm for ever. The list says what is left out."""
    text = CONFIG.replace("[primary.home]", f'metrics_at = "{place}"\n[primary.home]', 1)
    config = configs.parse(text + '[access]\nmetrics_from = ["::/0"]\n', "the test's config")
    assert [each.name for each in canary.CANARY.targets(config)] == ["mx2.example.org"] * asked
    out = canary.CANARY.left_out(config)
    assert [place in why for why in out] == [True] * (not asked)


def test_a_probe_that_is_named_and_has_nothing_to_look_at_is_unknown(
    load: Callable[[str], Config],
) -> None:
    """It passes nothing, and says what the config lacks; who names none has not asked for it."""
    found = [each.finding for each in table.run(Scene(load("")), ["canary", "roundtrip"])]
    assert [(each.gate, each.verdict) for each in found] == [
        ("canary", "unknown"),
        ("roundtrip", "unknown"),
    ]
    assert "[access] metrics_from is empty" in found[0].saw
    assert "no [roundtrip]" in found[1].saw
    file = str(load("").folder / "backup-mx.toml")
    said = CliRunner().invoke(cli, ["run", "roundtrip", "--config", file])
    assert (said.exit_code, said.stdout.splitlines()[-1]) == (1, "Not in order: roundtrip.")


def test_without_a_name_what_has_nothing_to_look_at_is_left_out(
    load: Callable[[str], Config], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The canary of a config whose metrics nobody may ask for."""
    monkeypatch.setattr(table, "QUICK", ("canary",))
    assert list(table.run(Scene(load("")))) == []


def test_what_cannot_be_looked_at_is_unknown(load: Callable[[str], Config]) -> None:
    """And never an error of the whole look."""

    def look(_scene: Scene, _target: Target) -> Found:
        raise DnsError("nobody answers")

    probe = Probe("mx", "", lambda _config: (MX2,), look)
    reading = probe.read(Scene(load("")), MX2)
    assert reading.finding == Finding("mx", "unknown", "mx2.example.org: nobody answers")


def test_an_interrupt_begins_no_other_look(
    load: Callable[[str], Config], monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is running comes to its end; what waits for its turn asks nobody any more."""
    crowd = Crowd()
    crowd.watch(monkeypatch)

    def look(_scene: Scene, target: Target) -> Found:
        crowd.work(int(target.name))
        return Found(Finding("mx", "pass", "fine"))

    targets = tuple(Target(str(number)) for number in range(20))
    monkeypatch.setitem(table.PROBES, "mx", Probe("mx", "", lambda _config: targets, look))
    with pytest.raises(KeyboardInterrupt):
        list(table.run(Scene(load("")), ["mx"]))
    # Eight at once, and the one that took the place of the first.
    assert len(crowd.begun) <= 9


def test_a_relays_own_authority_is_trusted_for_it_alone(
    load: Callable[[str], Config], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The primary has a certificate of somebody else."""
    scene, asked = Scene(load('[tls]\nacme_ca = "step.pem"\n')), list[str]()

    def facts(wanted: Fact) -> Fact:
        asked.append(wanted["ca"])
        name = wanted["servers"][0]["name"]
        return {name: fact(60, "", name)}

    monkeypatch.setattr(shown, "facts", facts)
    with pytest.raises(MachineError, match=r"step\.pem cannot be used: No such file"):
        smtp.trust(scene, MX2)
    both = certificate(tmp_path, "step.example").read_text()
    pem = both.partition("-----BEGIN PRIVATE KEY")[0]
    (scene.config.folder / "step.pem").write_text(pem)
    seen = smtp.trust(scene, MX2)
    assert (seen.expires, seen.renewed) == (NOW + 60 * 86_400, 14 * 86_400)
    smtp.trust(scene, Target("mail.example.org", address="mail.example.org"))
    assert asked == [pem.strip(), ""]


def test_a_server_that_shows_nothing_is_unknown(
    load: Callable[[str], Config], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whether its certificate is good, nobody can tell."""
    refused = {"mx2.example.org": {"error": "Connection refused"}}
    monkeypatch.setattr(shown, "facts", lambda _wanted: refused)
    reading = smtp.CERTIFICATE.read(Scene(load("")), MX2)
    assert reading.finding.verdict == "unknown"
    assert reading.finding.saw.endswith("no certificate is to be seen: Connection refused")
