"""What Prometheus, Alertmanager and Grafana are given: whole, and of one piece with the docs."""

from __future__ import annotations

import ast
import inspect
import json
import re
from collections.abc import Mapping
from dataclasses import replace
from functools import cache
from pathlib import Path
from types import ModuleType

import pytest
from prometheus_client.parser import text_string_to_metric_families

from backup_mx import config
from backup_mx.config import Config
from backup_mx.lab.settings import with_options
from backup_mx.machine import bundle
from backup_mx.monitoring import render
from backup_mx.monitoring.render import page
from backup_mx.probe import exporter
from backup_mx.probe.probe import Target
from backup_mx.probe.rota import Board
from backup_mx.relay.ledger import COUNTERS
from backup_mx.relay.state import Primary, Snapshot, TableState, Trouble, Walk
from backup_mx.relay.tell import certificates, conditions, exposition, metrics
from backup_mx.relay.tell.notify import Notifier

ROOT = Path(__file__).parents[2]
DATA = ROOT / "tests" / "data"
LAB = (DATA / "lab" / "relay.toml").read_text()
RULES = "prometheus/backup-mx.rules.yml"
DASHBOARD = "grafana/backup-mx.json"
SNAPSHOT = Snapshot(
    900.0, 800.0, "mx2", "mx2.example.org", "5f0c",
    primaries=(Primary("home", "up", 1.0),), tables=(TableState("example.org", 3, 1.0),),
    handshakes={"home": 1.0},
)  # fmt: skip
RECORDED = {
    "backup_mx_wanted_info", "backup_mx:machine_busy:ratio", "backup_mx:given_up:total",
}  # fmt: skip
ANOTHER = """
[relay.mx3]
hostname = "mx3.example.org"
address = "2001:db8::3"
metrics_at = "100.64.0.3:9725"
ssh = "root@mx3.example.org:2222"
"""
ORACLE = """
[cloud.oci]
tenancy = "ocid1.tenancy.oc1..aaaaexample"
region = "eu-frankfurt-1"
budget_mail = "me@example.net"
relays = ["mx2"]

[access]
ssh_keys = [
    "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIFDYWOCYXsx/YEGKrwzFq1h/QsJXCohAlanozKzQ9lRc me",
]
"""


def made_from(more: str = "") -> Config:
    """Return a config of one relay, with more in it."""
    return config.parse(with_options(LAB, more), "the test's config")


@cache
def files(more: str = "") -> dict[str, str]:
    """Return what is rendered, by path."""
    return {each.path: each.content.decode() for each in render.render(made_from(more))}


def alarms(rules: str) -> dict[str, str]:
    """Return the text of each alert rule by its name."""
    parts = re.split(r"^ +- (?=alert: |record: )", rules, flags=re.MULTILINE)[1:]
    named = (part.partition("\n") for part in parts if part.startswith("alert: "))
    return {first.removeprefix("alert: "): rest for first, _, rest in named}


def test_the_version_that_is_wanted_is_the_one_that_is_deployed() -> None:
    """What Prometheus compares with is the hash that the machine will report."""
    made = made_from(ANOTHER)
    wanted = files(ANOTHER)["prometheus/backup-mx.wanted.rules.yml"]
    for relay in ("mx2", "mx3"):
        version = bundle.version(bundle.bundle(made, relay))
        assert f'relay: {relay}\n          version: "{version}"' in wanted


def test_every_relay_is_asked_where_it_can_be() -> None:
    """Metrics where the config says, port 25 and SSH's own port at the public address."""
    scrape = files(ANOTHER)["prometheus/backup-mx.scrape.yml"]
    for target, relay in (
        ("203.0.113.20:9725", "mx2"),
        ("203.0.113.20:25", "mx2"),
        ("203.0.113.20:22", "mx2"),
        ("100.64.0.3:9725", "mx3"),
        ("[2001:db8::3]:25", "mx3"),
        ("[2001:db8::3]:2222", "mx3"),
    ):
        assert f'- targets: ["{target}"]\n        labels: {{relay: {relay}}}\n' in scrape
    assert '- targets: ["127.0.0.1:9727"]' in scrape


def test_only_a_cloud_that_minds_is_said_to() -> None:
    """Idle machines are an alarm at Oracle, for the relays that stand there."""
    text = files(ANOTHER + ORACLE)["prometheus/backup-mx.wanted.rules.yml"]
    assert re.findall(r'relay: (\w+)\n.*\n +cloud: "(\w*)"', text) == [("mx2", "oci"), ("mx3", "")]


@pytest.mark.parametrize(("idle", "seconds"), [("60s", 300), ("1h", 10_920)])
def test_a_canary_that_walks_rarely_is_waited_for(idle: str, seconds: int) -> None:
    """It is not taken for dead between two walks."""
    rules = files(f'[queue]\ncanary_idle = "{idle}"\n')[RULES]
    assert f"canary_last_walk_timestamp_seconds) > {seconds}\n" in rules


def test_each_alarm_leads_to_its_page() -> None:
    """By a verb, or by a link where the runbook is on the web."""
    for more, prefix in (
        ("", "runbook: backup-mx explain {}"),
        ('[monitoring]\nrunbook = "https://wiki.example.org/op"\n',
         "runbook_url: https://wiki.example.org/op#{}"),
    ):  # fmt: skip
        rules = files(more)[RULES]
        for name, text in alarms(rules).items():
            leads = prefix.format(name if not more else name.lower())
            assert f"          {leads}\n" in text, name


def test_no_template_is_left_unfilled() -> None:
    """Our marks are gone, Prometheus' own stay."""
    for path, text in files().items():
        assert "[[ " not in text, path
        assert "[% " not in text, path
    assert "{{ $labels.relay }}" in files()[RULES]


def test_promtool_tries_every_alarm() -> None:
    """Each alarm fires in a case of tests/data/monitoring, which the lab's promtool runs."""
    tried = {
        name
        for path in (DATA / "monitoring").glob("*.test.yml")
        for name in re.findall(r'alertname="(\w+)"', path.read_text())
    }
    assert tried == set(alarms(files()[RULES]))


def above_lab_tests(mark: str) -> set[str]:
    """Return what stands above the tests in tests/lab in marks of that name."""
    return {
        str(ast.literal_eval(name))
        for path in (ROOT / "tests" / "lab").glob("test_*.py")
        for each in ast.walk(ast.parse(path.read_text()))
        if isinstance(each, ast.Call) and ast.unparse(each.func) == mark
        for name in each.args
    }


def test_the_lab_hears_every_alarm() -> None:
    """Each stands above a test in tests/lab, which fails where it has heard less than that."""
    heard = {f"BackupMx{name}" for name in above_lab_tests("hears")}
    assert heard == set(alarms(files()[RULES]))


def keys(module: ModuleType) -> set[str]:
    """Return what the keys of a module's alarms begin with."""
    tree = ast.parse(inspect.getsource(module))
    assigned = {
        ast.unparse(each.targets[0]): each.value
        for each in ast.walk(tree)
        if isinstance(each, ast.Assign)
    }
    found = [
        assigned.get(ast.unparse(each.args[0]), each.args[0])
        for each in ast.walk(tree)
        if isinstance(each, ast.Call) and ast.unparse(each.func) == "Alarm"
    ]
    return {beginning(each, vars(module)) for each in found}


def beginning(expression: ast.expr, known: Mapping[str, object]) -> str:
    """Return what an expression's text begins with, up to a colon."""
    for each in ast.walk(expression):
        value = known.get(each.id) if isinstance(each, ast.Name) else getattr(each, "value", None)
        if isinstance(value, str):
            return value.partition(":")[0]
    raise ValueError(ast.unparse(expression))


def test_the_lab_hears_every_notice() -> None:
    """As an operator's place is told it; but for a canary that does not walk: no fault stops it."""
    found = keys(conditions) | keys(certificates) | {"crashes", "drained"}
    assert len(found) == 21
    assert above_lab_tests("tells") == found - {"canary"}


def told() -> set[str]:
    """Return the names of all metrics of an agent, of probes and gates, and what rules record."""
    board = Board((("certificate", Target("mail.example.org")), ("roundtrip", Target("a"))))
    evidence = DATA / "terraform/cloudflare/built/evidence.json"
    read = replace(SNAPSHOT, counters=dict.fromkeys(COUNTERS, 0))
    texts = metrics.exposition(read, SNAPSHOT.time), exporter.exposition(board, evidence)
    families = [each for text in texts for each in text_string_to_metric_families(text.decode())]
    return {sample.name for each in families for sample in each.samples} | RECORDED


@pytest.mark.parametrize("path", [RULES, DASHBOARD])
def test_rules_and_dashboard_name_metrics_that_there_are(path: str) -> None:
    """A metric that is renamed would silence an alarm without anybody noticing."""
    text = files()[path]
    expressions = (
        "\n".join(re.findall(r"expr: (.*(?:\n {10}.*)*)", text))
        if path == RULES
        else "\n".join(
            target["expr"] for panel in json.loads(text)["panels"] for target in panel["targets"]
        )
    )
    named = set(re.findall(r"\b(?:backup_mx|process)_[a-z_:]+|backup_mx:[a-z_:]+", expressions))
    assert len(named) > 10
    assert named <= told()


def test_the_dashboard_is_one() -> None:
    """No two panels share an id or a place; each asks the Prometheus that is chosen."""
    dashboard = json.loads(files()[DASHBOARD])
    panels = dashboard["panels"]
    assert len({each["id"] for each in panels}) == len(panels)
    assert len({(each["gridPos"]["x"], each["gridPos"]["y"]) for each in panels}) == len(panels)
    assert {each["datasource"]["uid"] for each in panels} == {"${datasource}"}


def one(text: bytes, name: str, **labels: str) -> float:
    """Return a sample."""
    for family in text_string_to_metric_families(text.decode()):
        for sample in family.samples:
            if sample.name == name and sample.labels == labels:
                return sample.value
    raise KeyError(name)


def test_the_agent_tells_what_its_alarms_need() -> None:
    """Tasks that fail, a daily message that was not taken, how long a certificate holds."""
    refused = Walk(5.0, good=False, step="data", why="refused", words="554 no", seconds=0.1)
    snapshot = replace(
        SNAPSHOT,
        certificate_lifetime=90.0,
        troubles=(Trouble("follow", "no", 1.0), Trouble("drain", "no", 1.0)),
        primaries=(Primary("home", "up", 1.0, message=refused), Primary("work", "up", 1.0)),
    )
    text = metrics.exposition(snapshot, snapshot.time)
    assert one(text, "backup_mx_failing_tasks") == 2
    assert one(text, "backup_mx_certificate_lifetime_seconds", host="mx2.example.org") == 90
    assert one(text, "backup_mx_canary_message_ok", primary="home") == 0
    assert one(text, "backup_mx_canary_message_ok", primary="work") == 1


def test_notices_are_counted(tmp_path: Path) -> None:
    """All that the one who tells them counts is a metric of its own."""
    notifier = Notifier.open("mx2", [], folder=tmp_path, runtime=tmp_path)
    notifier.say("held", "3 messages")
    text = metrics.exposition(replace(SNAPSHOT, counters=notifier.counters), SNAPSHOT.time)
    assert one(text, "backup_mx_notices_told_total") == 1
    assert one(text, "backup_mx_notices_sent_total") == 0
    assert one(text, "backup_mx_notices_failed_total") == 0
    assert b"backup_mx_events_total{" not in text


def test_how_busy_the_machine_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """By proc(5): waiting for a disk is idle, too; a guest's time counts once, lo does not."""
    (tmp_path / "stat").write_text("cpu  100 10 50 800 40 0 0 0 60 0\ncpu0 1 1 1 1\n")
    (tmp_path / "net").mkdir()
    (tmp_path / "net/dev").write_text(
        "Inter-|   Receive  |  Transmit\n face |bytes packets|bytes packets\n"
        "    lo: 900 9 0 0 0 0 0 0 900 9 0 0 0 0 0 0\n"
        "  eth0:1000 9 0 0 0 0 0 0 200 9 0 0 0 0 0 0\n"
        "  ens3: 30 9 0 0 0 0 0 0 4 9 0 0 0 0 0 0\n"
    )
    monkeypatch.setattr(exposition, "_STAT", tmp_path / "stat")
    monkeypatch.setattr(exposition, "_SELF", tmp_path)
    monkeypatch.setattr("os.sysconf", lambda _: 10)
    text = exposition.text(exposition.machine())
    cpu, network = "backup_mx_machine_cpu_seconds_total", "backup_mx_machine_network_bytes_total"
    assert one(text, cpu, mode="idle") == 84
    assert one(text, cpu, mode="busy") == 16
    assert one(text, network, direction="received") == 1030
    assert one(text, network, direction="sent") == 204


def test_a_link_is_an_anchor_in_small_letters() -> None:
    """As web pages make them of headings."""
    assert (
        page("https://a.example/x")("BackupMxDown")
        == "runbook_url: https://a.example/x#backupmxdown"
    )
