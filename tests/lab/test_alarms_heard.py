"""Every alarm is heard: a fault made on purpose, real Prometheus and Alertmanager, a receiver.

So is every notice of the relay itself, by a place that its agent tells through Apprise. Only times
are shortened (watchers.HURRY, HURRIED_AGENT); that each rule waits as long as it says, promtool
tries, and test_alarms.py that each notice does.
"""

from __future__ import annotations

import atexit
import contextlib
import json
import subprocess
import threading
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from primaries import Primary
from relays import ADDRESS, CONFIG, Relay, wait_for
from watchers import HEARD, PROBE, Hearing, Listener, Watch, hearing, hears, hurry, tells
from worlds import fresh_name

from backup_mx.config.options import Queue
from backup_mx.evidence import NEVER, Proof, summed, write
from backup_mx.findings import Finding
from backup_mx.lab import names, network
from backup_mx.lab.operator import Operator
from backup_mx.lab.place import PORT
from backup_mx.lab.settings import with_options
from backup_mx.lab.volume import SIZE
from backup_mx.lab.world import World
from backup_mx.lab.zone import Zone
from backup_mx.monitoring.render import render
from backup_mx.probe import exporter
from backup_mx.probe.rota import Board

pytestmark = pytest.mark.lab

DATA = Path(__file__).parents[1] / "data" / "monitoring"
AGENT = "backup-mx-agent.service"
GUARD = "backup-mx-guard.timer"
HELPER = ("backup-mx-helper.socket", "backup-mx-helper.service")
ALICE = b"alice@example.org"
REFUSED = b"refused-after-data@example.org"
LATER = b"later@example.org"
PATIENCE = 90.0
# Nobody answers at 192.0.2.80: an authority, the first of the places to be told, a table.
OPTIONS = f"""
[relay.mx2]
volume = true
[domain."fetched.example"]
recipients = {{ fetch = "http://192.0.2.80:81/recipients" }}
[queue]
retention = "20s"
at_retention = "keep"
canary_idle = "2s"
canary_waiting = "2s"
canary_message_to = "{REFUSED.decode()}"
[access]
metrics_from = ["192.0.2.0/24"]
[notify]
urls = [
    {{ command = ["echo", "json://192.0.2.80:81/hook"] }},
    {{ command = ["echo", "json://192.0.2.25:{PORT}/"] }},
]
[tls]
acme = true
acme_directory = "https://acme.example.net:81/dir"
[mta_sts]
[monitoring]
probe_at = "{PROBE}"
"""
ALWAYS = {
    "CertificateNotRenewed",
    "DailyMessageRefused",
    "NoticesFail",
    "ProbeGone",
    "RecipientsStale",
}
"""What is wrong in this world from the start, or from when a primary has come up once."""


@pytest.fixture(scope="module")
def relay() -> Iterator[Relay]:
    """A relay with an agent and a volume, and nobody where its primary should be."""
    text = with_options(CONFIG.read_text().replace("acme = false\n", ""), OPTIONS)
    world = World(
        fresh_name(),
        config=text,
        agent=True,
        volume=True,
        members=("internet", "mx2"),
    )
    atexit.register(world.down)
    try:
        world.up(print)
        made = Relay(world)
        with made.client() as client:
            client.greeted()
        hurry(made)
        yield made
    finally:
        world.down()
        atexit.unregister(world.down)


@pytest.fixture(scope="module")
def watch(relay: Relay) -> Watch:
    """Prometheus and its like, which watch that relay."""
    made = Watch.of(relay.world)
    made.start()
    return made


@pytest.fixture(scope="module")
def listener(watch: Watch) -> Iterator[Listener]:
    """The place that Alertmanager tells."""
    with Listener(watch.world) as made:
        yield made


@pytest.fixture
def heard(request: pytest.FixtureRequest, watch: Watch, listener: Listener) -> Iterator[Hearing]:
    """Wait until alarms are told; those that a test is about do not fire when it begins."""
    about = set(getattr(request.function, HEARD)) - ALWAYS - {"CanaryFailing"}
    wait_for("earlier alarms to be over", lambda: not about & watch.firing(), PATIENCE)
    with hearing(request.function, listener) as made:
        yield made


@pytest.fixture
def primary(relay: Relay, tmp_path: Path) -> Primary:
    """A primary that does not answer yet."""
    return Primary(relay.world, tmp_path)


@contextlib.contextmanager
def stopped(relay: Relay, *units: str) -> Iterator[None]:
    """Stop units while the block runs."""
    relay.shell("systemctl", "stop", *units)
    try:
        yield
    finally:
        relay.shell("systemctl", "start", *units)


def test_promtool_finds_every_rule_as_it_should_be(watch: Watch) -> None:
    """Each alarm after its time and not before, and what it must not be taken for."""
    folder = watch.machine.path("/srv/promtool")
    folder.mkdir()
    # As for an operator who lets the canary walk as it does by itself: the cases reckon with that.
    config = watch.world.made_from.model_copy(update={"queue": Queue()})
    [rules] = [each for each in render(config) if each.path.endswith("backup-mx.rules.yml")]
    (folder / "backup-mx.rules.yml").write_bytes(rules.content)
    cases = [path.name for path in DATA.glob("*.test.yml")]
    for name in cases:
        (folder / name).write_text((DATA / name).read_text())
    said = watch.promtool("test", "rules", *(f"/srv/promtool/{name}" for name in cases))
    assert said.count("SUCCESS") == len(cases)


def test_each_program_takes_its_file(watch: Watch) -> None:
    """As it is rendered: Prometheus', the blackbox exporter's, Alertmanager's."""
    run = watch.machine.run
    for path, text in watch.files.items():
        place = watch.machine.path(f"/srv/rendered/{path}")
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_text(text)
    (watch.machine.path("/srv/rendered") / "prometheus.yml").write_text(
        "rule_files: [prometheus/*.rules.yml]\nscrape_config_files: [prometheus/*.scrape.yml]\n"
    )
    assert "FAILED" not in watch.promtool("check", "config", "/srv/rendered/prometheus.yml")
    run(["amtool", "check-config", "/srv/rendered/alertmanager/alertmanager.yml"])
    module = "--config.file=/srv/rendered/blackbox/backup-mx.yml"
    run(["prometheus-blackbox-exporter", module, "--config.check"])


@hears("CanaryFailing", "DailyMessageRefused")
@tells("message", "primary")
def test_a_broken_way(watch: Watch, heard: Hearing, primary: Primary) -> None:
    """The primary refuses the daily message, and then is gone, while no mail waits yet."""
    with primary:
        heard("DailyMessageRefused")
        heard.notice("message")
        wait_for("all to be quiet", lambda: watch.firing() <= ALWAYS, PATIENCE)
        heard.forget()
    heard("CanaryFailing")
    heard.notice("primary")


@hears("PrimaryDown", "RetentionNear", "MailOverdue")
@tells("primary", "at-risk", "overdue", "drained")
def test_an_outage(relay: Relay, watch: Watch, heard: Hearing, primary: Primary) -> None:
    """Mail waits and waits; when the primary is back, whoever heard it hears that it is over.

    Nothing is left then but what is wrong anyway.
    """
    relay.submit(ALICE, b"Subject: x\r\n")
    heard("PrimaryDown", "RetentionNear", "MailOverdue")
    heard.notice("primary", "at-risk", "overdue")
    primary.going.clear()  # so that the relay tells that it is back before all is handed over
    with primary:
        heard.notice("primary", over=True)
        primary.going.set()
        heard("PrimaryDown", "MailOverdue", status="resolved")
        heard.notice("drained")
        wait_for("all to be quiet", lambda: watch.firing() <= ALWAYS, PATIENCE)


@pytest.mark.long
@hears("MailRefused", "FlushPaused")
@tells("undeliverable", "paused", "stuck")
def test_a_primary_that_refuses(relay: Relay, heard: Hearing, primary: Primary) -> None:
    """It takes recipients and refuses what is sent to them; one message is put off only.

    What is refused alone is not flushed for, so there would be nothing to pause.
    """
    for to in (*6 * [REFUSED], LATER):
        relay.submit(to, b"Subject: x\r\n")
    with primary:
        heard("MailRefused", "FlushPaused")
        heard.notice("undeliverable", "paused", "stuck")
    relay.empty()


@pytest.mark.long
@hears("QueueStuck")
def test_a_primary_that_does_not_go_on(relay: Relay, heard: Hearing, primary: Primary) -> None:
    """It walks the canary through, and never answers to a message's end."""
    primary.going.clear()
    with primary:
        relay.submit(ALICE, b"Subject: x\r\n")
        heard("QueueStuck")
        primary.going.set()


@pytest.mark.long
@hears("NoticesFail", "AgentCrashes")
@tells("crashes")
def test_an_agent_that_crashes(relay: Relay, watch: Watch, heard: Hearing) -> None:
    """Three times; it tells that itself as well, until the other place does not answer either."""
    started = "backup_mx_agent_start_time_seconds"
    wait_for("the agent to be known", lambda: any(values(watch, started)), PATIENCE)
    for _ in range(3):
        before = values(watch, started)
        relay.shell("systemctl", "kill", "--signal=KILL", AGENT)
        wait_for("another agent", lambda: values(watch, started) != before, PATIENCE)  # noqa: B023
    heard("AgentCrashes")
    heard.notice("crashes")
    internet = relay.world.machine("internet")
    internet.run(["systemctl", "stop", "lab-place"])
    try:
        heard.forget()
        heard("NoticesFail")
    finally:
        internet.run(["systemctl", "start", "lab-place"])


def values(watch: Watch, metric: str) -> list[str]:
    """Return what Prometheus has of a metric, without when; what is gone for a moment stays."""
    return [line.partition(" @")[0] for line in watch.ask(f"last_over_time({metric}[1m])") or []]


@pytest.mark.long
@hears("MailHeld")
@tells("held")
def test_mail_on_hold(relay: Relay, heard: Hearing) -> None:
    """By the operator."""
    relay.shell("backup-mx", "hold", relay.kept(ALICE))
    heard("MailHeld")
    heard.notice("held")
    relay.empty()


@pytest.mark.long
@hears("MaintenanceLong", "MaintenanceStuck", "GuardStopped")
@tells("maintenance", "guarded")
def test_a_maintenance_that_does_not_end(relay: Relay, heard: Hearing) -> None:
    """With the timer dead that would end it."""
    with stopped(relay, GUARD):
        relay.shell("touch", "-d", "1 day ago", "/run/backup-mx/guarded")
        relay.shell("backup-mx", "maintenance", "on", "--for", "3s")
        heard("MaintenanceLong", "MaintenanceStuck", "GuardStopped")
        heard.notice("maintenance", "guarded")
        relay.shell("backup-mx", "maintenance", "off")


@pytest.mark.long
@hears("RecipientsStale", "Idle")
@tells("table")
def test_what_nobody_did(relay: Relay, watch: Watch, heard: Hearing) -> None:
    """A table that is not there to be fetched, and a machine with too little to do.

    It does the same when it is said to have enough to do.
    """
    relay.shell("systemctl", "restart", AGENT)  # so that it is told once more
    heard("RecipientsStale")
    heard.notice("table", ever=True)
    busy = watch.busy()
    watch.idle_below(busy + 0.1)
    heard("Idle")
    watch.idle_below(busy - 0.1)
    heard("Idle", status="resolved")


@pytest.mark.long
@hears("CertificateNotRenewed", "CertificateExpires")
@tells("asked", "certificate")
def test_a_certificate_that_ends(relay: Relay, heard: Hearing) -> None:
    """Its authority does not answer, and a day is left of a year."""
    relay.machine.run(["systemctl", "start", "backup-mx-acme@now.service"], check=False)
    today = datetime.now(UTC)
    dates = [f"{today + timedelta(days=days):%Y%m%d%H%M%SZ}" for days in (-364, 1)]
    subject = ("-subj", "/CN=mx2.example.org", "-not_before", dates[0], "-not_after", dates[1])
    key = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-keyout", "-")
    chain = relay.shell("openssl", "req", "-x509", *subject, *key)
    relay.machine.run(["tee", "/srv/backup-mx/tls/chain.pem"], stdin=chain.encode())
    relay.shell("postfix", "reload")
    relay.shell("systemctl", "restart", AGENT)
    heard("CertificateNotRenewed", "CertificateExpires")
    heard.notice("certificate")
    heard.notice("asked", ever=True)


@pytest.mark.long
@hears("DiskFilling", "DiskFull")
@tells("disk")
def test_a_disk_that_fills(relay: Relay, heard: Hearing) -> None:
    """Up to 200 MiB, then up to 100."""
    filler, mib = "/srv/backup-mx/filler", 2**20
    shown = relay.shell("stat", "-f", "-c", "%a %S", "/srv/backup-mx").split()
    free = int(shown[0]) * int(shown[1])
    assert free < SIZE, "this is not the volume"
    try:
        for left, alarm in ((200, "DiskFilling"), (100, "DiskFull")):
            relay.shell("fallocate", "-l", str(free - left * mib), filler)
            heard(alarm)
            heard.notice("disk")
            heard.forget()
    finally:
        relay.shell("rm", filler)


@pytest.mark.long
@hears("DiskDamaged")
@tells("disk")
def test_a_disk_that_is_damaged(relay: Relay, heard: Hearing) -> None:
    """ext4 finds an error: no new mail is taken, what waits can be copied, a boot mends it."""
    kept = relay.kept(ALICE)
    relay.shell("sync")  # what the journal lacks by then cannot be read before the next boot
    device = relay.machine.volume.attach()
    Path("/sys/fs/ext4", device.name, "trigger_fs_error").write_text("1")
    heard("DiskDamaged")
    heard.notice("disk")
    with relay.client() as client:
        client.greeted().wire.settimeout(5)
        with pytest.raises(TimeoutError):  # cleanup(8) tries to make the file until it can
            client.envelope(b"a@example.net", ALICE)
    wait_for(
        "status to look at the disk itself, as the agent can keep nothing there",
        lambda: "DAMAGED, or read-only" in relay.shell("backup-mx", "status"),
        PATIENCE,
    )
    relay.shell("tar", "-C", "/srv/backup-mx", "-czf", "/root/kept.tar.gz", "spool")
    assert kept in relay.shell("tar", "-tzf", "/root/kept.tar.gz")
    relay.machine.kill()
    relay.machine.boot()
    relay.machine.listening(25)
    heard("DiskDamaged", status="resolved")
    assert relay.queued(kept).size
    relay.empty()


@pytest.mark.long
@hears("NotCompared", "AgentTrouble")
@tells("agent", "reconciled")
def test_an_agent_without_its_helper(relay: Relay, heard: Hearing) -> None:
    """It cannot see the spool, and says so."""
    with stopped(relay, *HELPER):
        relay.shell("systemctl", "restart", AGENT)
        heard("AgentTrouble", "NotCompared")
        heard.notice("agent", "reconciled")


@pytest.mark.long
@hears("NotWatched", "ConfigDrift")
def test_what_prometheus_does_not_know(watch: Watch, heard: Hearing) -> None:
    """A config that was not deployed, then a relay that is no target."""
    try:
        watch.write("another")
        watch.reload()
        heard("ConfigDrift")
        watch.write()
        watch.without(f"{ADDRESS}:9725")
        watch.reload()
        heard("NotWatched")
    finally:
        watch.write()
        watch.reload()


@pytest.mark.long
@hears("ConfigDrift")
def test_a_file_that_somebody_changed(relay: Relay, heard: Hearing) -> None:
    """By hand, and put back; the guard looks at once where nothing is known."""
    file, seen = "/etc/postfix/main.cf", "/run/backup-mx/drift"
    before = relay.shell("cat", file)
    try:
        relay.shell("postconf", "-e", "smtpd_banner=changed")
        relay.shell("rm", "-f", seen)
        heard("ConfigDrift")
    finally:
        relay.machine.run(["tee", file], stdin=before.encode())
        relay.shell("rm", "-f", seen)
    heard("ConfigDrift", status="resolved")


@pytest.mark.long
@hears("InboundFails", "MxDrift", "MtaStsFails", "CertificateUntrusted", "CanaryUnheard",
       "ProbeBlind", "ProbeGone")  # fmt: skip
def test_what_the_probe_sees(relay: Relay, watch: Watch, heard: Hearing) -> None:
    """A domain with another MX and no policy, a primary that is off, a certificate of one's own.

    Then nobody looks any more.
    """
    zone = Zone(relay.world)
    zone.set("_mta-sts", "TXT", '"v=STSv1; id=1"')
    with zone.without("@", "MX"), stopped(relay, AGENT):
        argv = Operator(relay.world.name).command(["backup-mx", "probe", "serve"])
        with subprocess.Popen(argv, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as serves:
            try:
                heard("InboundFails", "MxDrift", "MtaStsFails", "CertificateUntrusted",
                      "CanaryUnheard", "ProbeBlind")  # fmt: skip
                wait_for("it to be a target", lambda: "ProbeGone" not in watch.firing(), PATIENCE)
                heard.forget()
            finally:
                serves.terminate()
        heard("ProbeGone")


@pytest.mark.long
@hears("GateFails", "GatesStale")
def test_a_gate_that_fails_and_one_that_nobody_runs(
    relay: Relay, heard: Hearing, tmp_path: Path
) -> None:
    """As the exporter tells of what the gates wrote, which for one of them was long ago."""
    now, path = datetime.now(UTC).replace(microsecond=0), tmp_path / "evidence.json"
    fails = Proof(Finding("drain", "fail", "no"), now, until=now + timedelta(days=1))
    old = Proof(Finding("reboot", "pass", "back"), NEVER + timedelta(days=1), until=NEVER)
    write(path, {"mx2": summed("v", "c", "t", {"drain": fails, "reboot": old}, now)})
    with network.inside(names.scoped(relay.world.name, "net")):
        server = exporter.server(relay.world.made_from.monitoring.probe_at, Board(()), path)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        heard("GateFails", "GatesStale")
    finally:
        server.shutdown()
        server.server_close()


@pytest.mark.long
@hears("LedgerDiffers")
@tells("ledger")
def test_a_message_that_vanished(relay: Relay, heard: Hearing) -> None:
    """Its file was removed by hand."""
    queue_id = relay.submit(ALICE, b"Subject: x\r\n")
    relay.shell("find", "/srv/backup-mx/spool", "-name", queue_id, "-delete")
    relay.shell("systemctl", "restart", AGENT)
    heard("LedgerDiffers")
    heard.notice("ledger")
    relay.shell("backup-mx", "delete", "--yes", queue_id)


@pytest.mark.long
@hears("UnexpectedRefusal", "MailGivenUp")
@tells("given-up")
def test_a_postfix_that_somebody_changed(relay: Relay, heard: Hearing) -> None:
    """It refuses a sender for good, and lets mail expire."""
    relay.submit(ALICE, b"Subject: x\r\n")
    with relay.altered(
        maximal_queue_lifetime="0",
        bounce_queue_lifetime="0",
        smtpd_sender_restrictions="inline:{b@example.net=REJECT}",
    ):
        relay.shell("postqueue", "-f")
        with relay.client() as client:
            answers = client.greeted().envelope(b"b@example.net", ALICE)
        assert answers[-1].code == 554
        heard("UnexpectedRefusal", "MailGivenUp")
        heard.notice("given-up")
    relay.empty()


@pytest.mark.long
@hears("AgentGone", "Down", "FirstBootFailed")
def test_a_relay_that_is_silent(relay: Relay, heard: Hearing) -> None:
    """Its agent, or Postfix, or both: what a first boot leaves that gave up (test_first_boot)."""
    with stopped(relay, AGENT):
        heard("AgentGone")
    relay.stop()
    heard("Down")
    with stopped(relay, AGENT):
        heard("FirstBootFailed")
    relay.start()
    heard("FirstBootFailed", "Down", status="resolved")


@pytest.mark.long
def test_each_panel_of_the_dashboard_shows_something(watch: Watch) -> None:
    """After all that has happened here; what Grafana fills in is filled in."""
    dashboard = json.loads(watch.files["grafana/backup-mx.json"])
    for panel in dashboard["panels"]:
        for target in panel["targets"]:
            asked = target["expr"].replace("$relay", "mx2")
            assert watch.ask(f"max_over_time(({asked})[30m:5s])"), panel["title"]
