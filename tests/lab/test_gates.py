"""Each gate against a lab that is broken in its one way.

They look over the lab's own network, by SSH; all of them at once by the operator's command line.
The gates that look at port 25 from outside, and those that need the operator, have files of their
own.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cached_property

import pytest
from operators import Operator
from relays import Relay, wait_for
from watchers import Watch
from worlds import fresh_name

from backup_mx.errors import LabError
from backup_mx.findings import Finding
from backup_mx.gates import gate, monitoring, run
from backup_mx.gates.all import GATES
from backup_mx.gates.views import view
from backup_mx.lab import certificates, names, network, operator
from backup_mx.lab.layout import RESOLVER
from backup_mx.lab.machine import Machine
from backup_mx.lab.place import PORT
from backup_mx.lab.stations import LabHost
from backup_mx.lab.world import World, standard
from backup_mx.lab.zone import Zone
from backup_mx.machine.ship import SshHost
from backup_mx.monitoring.render import render
from backup_mx.net.dns import Names
from backup_mx.relay.operator.verbs import PROGRAM

pytestmark = pytest.mark.lab

AGENT = "backup-mx-agent.service"
ALERTMANAGER_UNIT = "prometheus-alertmanager.service"
INTERNET = "192.0.2.25"
PROMETHEUS = f"http://{INTERNET}:9090"
OPTIONS = f"""
[access]
metrics_from = ["{INTERNET}/32"]
[monitoring]
prometheus = "{PROMETHEUS}"
"""
PROMETHEUS_YML = """
rule_files: [/etc/prometheus/backup-mx.rules.yml]
scrape_config_files: [/etc/prometheus/backup-mx.scrape.yml]
alerting: {alertmanagers: [{static_configs: [{targets: ["localhost:9093"]}]}]}
"""
ALERTMANAGER_YML = f"""
route: {{receiver: place, group_wait: 0s, group_interval: 1s}}
receivers: [{{name: place, webhook_configs: [{{url: "http://127.0.0.1:{PORT}/"}}]}}]
"""
ALERTMANAGER = "/etc/prometheus/alertmanager.yml"


@dataclass(frozen=True)
class Site:
    """A relay that nobody publishes yet, with all that its gates ask for."""

    world: World

    @property
    def mx2(self) -> Machine:
        return self.world.machine("mx2")

    @property
    def internet(self) -> Machine:
        return self.world.machine("internet")

    @property
    def tool(self) -> Operator:
        """The operator's command line."""
        return Operator(self.world)

    @cached_property
    def seen(self) -> gate.Site:
        """The relay as the gates are given it."""
        config, key = self.world.made_from, self.who.ssh_config
        return gate.Site(
            config=config,
            relay=config.relays["mx2"],
            host=SshHost(config.relays["mx2"].ssh, key),
            outside=view(config, (), lambda _: LabHost(self.mx2)),
            names=Names((RESOLVER,)),
            folder=self.who.folder / "build",
            now=lambda: datetime.now(UTC),
            tell=print,
        )

    @property
    def who(self) -> operator.Operator:
        return operator.Operator(self.world.name)

    def gate(self, name: str) -> Finding:
        """Let one gate judge from where the operator stands."""
        with network.inside(names.scoped(self.world.name, "net")):
            return gate.together(name, run.judged(self.seen, GATES[name]))

    def sees(self, name: str, verdict: str, words: str = "") -> None:
        """Wait until a gate says so: a service that is reloaded is what it was for a moment."""
        found: list[Finding] = []

        def said() -> bool:
            found[:] = [self.gate(name)]
            return found[0].verdict == verdict and words in found[0].saw

        with contextlib.suppress(LabError):
            wait_for(words or verdict, said, 60)
        assert found[0].verdict == verdict, found
        assert words in found[0].saw

    def certify(self, name: str) -> None:
        """Have the relay show a certificate of the lab's authority, for a host of that name."""
        chain = certificates.issue(self.world.name, self.internet.root, name)
        self.mx2.run(["tee", "/srv/backup-mx/tls/chain.pem"], stdin=chain.encode())
        self.mx2.run(["postfix", "reload"])

    def ready(self) -> bool:
        """Whether Prometheus answers: it says 503 until it has read what it stored."""
        return Watch(self.world, {}).ask("up") is not None

    def heard(self) -> bool:
        """Whether Prometheus could scrape the relay just now."""
        with network.inside(names.scoped(self.world.name, "net")):
            return list(monitoring.heard(PROMETHEUS, "mx2").targets.values()) == [True]

    def tells(self) -> bool:
        """Whether Prometheus knows an Alertmanager, and that one answers."""
        with network.inside(names.scoped(self.world.name, "net")):
            return list(monitoring.heard(PROMETHEUS, "mx2").alertmanagers.values()) == [""]

    @contextlib.contextmanager
    def stopped(self, machine: Machine, unit: str) -> Iterator[None]:
        """Have a service of a machine off for a while."""
        machine.run(["systemctl", "stop", unit])
        try:
            yield
        finally:
            machine.run(["systemctl", "start", unit])

    @contextlib.contextmanager
    def altered(self, *words: str) -> Iterator[None]:
        """Have a file of Postfix's changed by postconf for a while."""
        files = ("/etc/postfix/main.cf", "/etc/postfix/master.cf")
        before = {each: self.mx2.path(each).read_bytes() for each in files}
        self.mx2.run(["postconf", *words])
        try:
            yield
        finally:
            for path, content in before.items():
                self.mx2.run(["tee", path], stdin=content)

    @contextlib.contextmanager
    def ruled(self, *rule: str) -> Iterator[None]:
        """Have a rule of the relay's firewall in front of all others for a while."""
        self.mx2.run(["iptables", "-I", "INPUT", *rule])
        try:
            yield
        finally:
            self.mx2.run(["iptables", "-D", "INPUT", *rule])


@pytest.fixture(scope="module")
def site() -> Iterator[Site]:
    """The standard world, unpublished, with a certificate, Prometheus, and a place for notices."""
    made = standard(fresh_name(), agent=True, published=False, options=OPTIONS)
    try:
        made.up(print)
        found = Site(made)
        found.certify("mx2.example.org")
        watch(found)
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("SSL_CERT_FILE", str(found.who.own / "trusted.pem"))
            yield found
    finally:
        made.down()


def watch(site: Site) -> None:
    """Have Prometheus and Alertmanager, with what `monitoring render` writes."""
    for file in render(site.world.made_from):
        if file.path.startswith("prometheus/"):
            text = file.content.decode().replace("scrape_interval: 30s", "scrape_interval: 1s")
            site.internet.path(f"/etc/{file.path}").write_text(text)
    site.internet.path("/etc/prometheus/prometheus.yml").write_text(PROMETHEUS_YML)
    site.internet.path(ALERTMANAGER).write_text(ALERTMANAGER_YML)
    # Alone: to be one of several it insists on a private address, and ends without one.
    alone = 'ARGS="--cluster.listen-address="\n'
    site.internet.path("/etc/default/prometheus-alertmanager").write_text(alone)
    site.internet.run(["systemctl", "start", "prometheus", "prometheus-alertmanager"])
    site.internet.listening(9090, 9093, PORT)
    wait_for("Prometheus to be ready", site.ready, 60)
    wait_for("Prometheus to hear mx2", site.heard, 60)


def test_all_in_order(site: Site) -> None:
    """Every gate that needs nobody passes; the MX still waits for those that do."""
    ran = site.tool.run("gate", "run", "--json", code=None)
    found = ran.json["mx2"]
    verdicts = {name: each["verdict"] for name, each in found["gates"].items()}
    failing = {name: found["gates"][name]["saw"] for name in verdicts if verdicts[name] == "fail"}
    assert (ran.code, failing) == (0, {}), ran.err
    waiting = {name for name, verdict in verdicts.items() if verdict == "unknown"}
    assert {name for name, verdict in verdicts.items() if verdict == "warn"} == {
        "access", "names", "rebuild",
    }  # fmt: skip
    assert found["allows"] == ["A"]
    assert all(f"{name}: not run yet" in found["lacking"]["MX"] for name in waiting)
    assert found["gates"]["inbound"]["from"] == "this machine"
    status = site.tool.run("gate", "status", "--json", code=1).json["mx2"]
    assert status["lacking"] == found["lacking"]
    assert "Not its MX record" in site.tool.run("gate", "status", code=1).out


BREAKS: dict[str, tuple[str, Callable[[Site], AbstractContextManager[None]], str]] = {
    "a file altered by hand": (
        "version", lambda site: site.altered("-e", "message_size_limit=1"), "/etc/postfix/main.cf",
    ),
    "no agent": (
        "version", lambda site: site.stopped(site.mx2, AGENT), "the agent does not run",
    ),
    "a short lifetime": (
        "retention", lambda site: site.altered("-e", "maximal_queue_lifetime=5d"), "5d",
    ),
    "no guard": (
        "retention",
        lambda site: site.stopped(site.mx2, "backup-mx-guard.timer"),
        "the guard's timer is inactive",
    ),
    "a drain that bounces": (
        "refusal", lambda site: site.altered("-P", "relay/unix/soft_bounce=no"), "relay/unix",
    ),
    "an error that bounces": (
        "refusal", lambda site: site.altered("-P", "error/unix/soft_bounce=no"), "error/unix",
    ),
    "an smtpd that never refuses": (
        "refusal", lambda site: site.altered("-P", "smtpd/pass/soft_bounce=yes"), "smtpd/pass",
    ),
    "nobody gets in": (
        "access",
        lambda site: site.ruled("-p", "tcp", "--dport", "22", "-j", "REJECT"),
        "cannot be reached",
    ),
    "nobody takes notices": (
        "notices",
        lambda site: site.ruled("-p", "tcp", "-s", INTERNET, "--sport", str(PORT), "-j", "DROP"),
        "1 (json): it cannot be reached",
    ),
}  # fmt: skip


def waiting_long(how: str) -> object:
    """Return a parameter; after some of them an agent has to start again, which takes long."""
    marks = [pytest.mark.long] if how == "no agent" else []
    return pytest.param(how, marks=marks)


@pytest.mark.parametrize("how", [waiting_long(each) for each in BREAKS])
def test_a_gate_fails_for_what_it_exists_for(site: Site, how: str) -> None:
    """It says what is wrong; put back, it passes again."""
    name, breaking, words = BREAKS[how]
    with breaking(site):
        found = site.gate(name)
        assert found.verdict == "fail", found
        assert words in found.saw
    if name == "version":  # an agent that has just started
        wait_for("the gate to pass", lambda: site.gate(name).verdict == "pass", 60)


def test_a_ledger_that_differs(site: Site) -> None:
    """A message that is gone from the disk is missed."""
    relay = Relay(site.world)
    relay.shell(PROGRAM, "maintenance", "on")
    try:
        lost = relay.submit(b"alice@example.org", b"Subject: lost\r\n\r\nlost\r\n")
        wait_for("it to be put off", lambda: bool(_files(site, lost)))
        for path in _files(site, lost):
            relay.shell("rm", path)
        relay.shell("systemctl", "restart", AGENT)
        missed = lambda: "1 difference" in site.gate("ledger").saw  # noqa: E731
        wait_for("the second look at the queue", missed, 60)
        assert site.gate("ledger").verdict == "fail"
        relay.shell(PROGRAM, "delete", "--yes", lost)
    finally:
        relay.shell(PROGRAM, "maintenance", "off")
    wait_for("the ledger to add up", lambda: site.gate("ledger").verdict == "pass", 60)


def _files(site: Site, queue_id: str) -> list[str]:
    said = site.mx2.run(["find", "/srv/backup-mx/spool/deferred", "-name", queue_id])
    return said.text.split()


@pytest.mark.long
def test_a_primary_that_is_away(site: Site) -> None:
    """The canary finds it so, and says at which step; it finds it when it is back."""
    with site.stopped(site.world.machine("primary"), "postfix"):
        site.mx2.run(["systemctl", "restart", AGENT])
        away = lambda: site.gate("canary").saw.startswith("home: down: at ")  # noqa: E731
        wait_for("the agent to find it away", away, 90)
        assert site.gate("canary").verdict == "fail"
    site.world.machine("primary").listening(10025)
    site.mx2.run(["systemctl", "restart", AGENT])
    wait_for("the edge to let mail in", lambda: site.gate("canary").verdict == "pass", 90)


def test_another_host_s_certificate(site: Site) -> None:
    """What senders are shown has to be for the name by which they look the relay up."""
    site.certify("mx9.example.org")
    try:
        site.sees("certificate", "fail", "it is for mx9.example.org, not mx2.example.org")
    finally:
        site.certify("mx2.example.org")
    site.sees("certificate", "pass")


@pytest.mark.parametrize(
    ("owner", "kind", "data", "words"),
    [
        ("mx2", "A", "192.0.2.99", "192.0.2.99 instead of 203.0.113.20"),
        ("@", "MX", "30 mail.example.org.", "the primary's preference is 30"),
        ("_mta-sts", "TXT", '"v=STSv1; id=1;"', "the policy cannot be fetched"),
    ],
)
def test_names_that_disagree(site: Site, owner: str, kind: str, data: str, words: str) -> None:
    """A wrong record at a name server is a failure; one that is not there yet is not."""
    zone = Zone(site.world)
    with zone.without(owner, kind):
        zone.set(owner, kind, data)
        found = site.gate("names")
        assert found.verdict == "fail", found
        assert words in found.saw
    assert site.gate("names").verdict == "warn"


def test_a_server_that_does_not_follow(site: Site) -> None:
    """What only one of two name servers knows is not published."""
    zone = Zone(site.world)
    with zone.apart():
        zone.change("mx2", "A", "203.0.113.20")
        found = site.gate("names")
        assert found.verdict == "fail", found
        assert "not at ns2.example.net" in found.saw
        zone.change("mx2", "A")


def test_a_prometheus_that_hears_nothing(site: Site) -> None:
    """A target that is down fails, rules that are not loaded do; nobody to tell is a warning."""
    assert site.gate("monitoring").verdict == "pass"
    with site.stopped(site.internet, "prometheus-alertmanager"):
        assert "none answers from here" in site.gate("monitoring").saw
    with site.stopped(site.mx2, AGENT):
        site.sees("monitoring", "fail", "target: 203.0.113.20:9725 cannot be scraped")
    site.internet.path("/etc/prometheus/backup-mx.rules.yml").write_text("groups: []\n")
    site.internet.run(["systemctl", "reload", "prometheus"])
    site.sees("monitoring", "fail", "without the alarms BackupMx")


def test_an_alarm_that_reaches_nobody(site: Site) -> None:
    """A receiver that takes nothing fails; put right, it passes."""
    file, reload = site.internet.path(ALERTMANAGER), ["systemctl", "reload", ALERTMANAGER_UNIT]
    wait_for("Prometheus to have an Alertmanager that answers", site.tells, 60)
    try:
        file.write_text(ALERTMANAGER_YML.replace(str(PORT), "8098"))
        site.internet.run(reload)
        site.sees("alarms", "fail", "Alertmanager cannot tell its receiver anything")
    finally:
        file.write_text(ALERTMANAGER_YML)
        site.internet.run(reload)
    site.sees("alarms", "pass")  # a try of before may still be going on, for the old place


def test_looking_from_elsewhere(site: Site) -> None:
    """A command that runs Python somewhere is all that it takes, and the evidence says so."""
    there = "ssh root@203.0.113.20 python3 -"
    ran = site.tool.run("gate", "run", "certificate", "--outside", there, "--json")
    found = ran.json["mx2"]["gates"]["certificate"]
    assert found["verdict"] in ("pass", "warn")  # mx2's own openssl may not know the authority
    assert found["from"] == f"`{there}`"
    refused = site.tool.run("gate", "run", "certificate", "--outside", "mx2", code=2)
    assert "mx2 cannot look at itself from outside: choose another place" in refused.err


@pytest.mark.long
def test_what_changed_is_told_first(site: Site) -> None:
    """People see what is other than last time before all the rest, and how it ends."""
    site.tool.run("gate", "run", "retention")
    with site.stopped(site.mx2, "backup-mx-guard.timer"):
        ran = site.tool.run("gate", "run", "retention", "size", code=1)
    lines = ran.out.splitlines()
    assert lines[1:3] == [
        "Changed since the last run:",
        "  retention: pass → fail: guard: the guard's timer is inactive",
    ]
    assert any(line.startswith("pass    size ") for line in lines)
    assert lines[-1].startswith("Not its MX record: ")
    assert "retention: guard: the guard's timer is inactive" in lines[-1]
