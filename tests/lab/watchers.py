"""A real Prometheus, Alertmanager and blackbox exporter in a lab, and the places that are told."""

from __future__ import annotations

import http.server
import json
import re
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Self

from relays import Relay, wait_for

from backup_mx.lab import names, network
from backup_mx.lab.machine import Machine
from backup_mx.lab.place import Place
from backup_mx.lab.world import World
from backup_mx.monitoring import render

PLACE = network.OUTSIDER
PORT = 8099
PROBE = f"{PLACE}:9726"
FOLDER = "/etc/prometheus/backup-mx"
HEARD = "hears"
TOLD = "tells"
UNITS = ("prometheus-blackbox-exporter", "prometheus-alertmanager", "prometheus")
PATIENCE = 60.0
HEARING = 90.0
PROMETHEUS = f"""global: {{scrape_interval: 1s, evaluation_interval: 1s}}
scrape_config_files: [{FOLDER}/prometheus/*.scrape.yml]
rule_files: [{FOLDER}/prometheus/*.rules.yml]
alerting: {{alertmanagers: [{{static_configs: [{{targets: ["127.0.0.1:9093"]}}]}}]}}
"""
ARGUMENTS = {
    "prometheus-blackbox-exporter": f"--config.file={FOLDER}/blackbox/backup-mx.yml",
    "prometheus-alertmanager": f"--config.file={FOLDER}/alertmanager/alertmanager.yml "
    "--storage.path=/var/lib/prometheus/alertmanager --cluster.listen-address=",
    "prometheus": f"--config.file={FOLDER}/prometheus.yml",
}
# What takes minutes, hours or days takes a second: promtool has tried these times.
HURRY: Mapping[str, Sequence[tuple[str, str]]] = {
    "prometheus/backup-mx.rules.yml": (
        (r"for: \d+[mhd]", "for: 1s"),
        (r"start_time_seconds\[1h\]", "start_time_seconds[2m]"),
        (r'maintenance"}\) > 1800', 'maintenance"}) > 2'),
        (r"end_timestamp_seconds > 120", "end_timestamp_seconds > 1"),
        # The lab's machines show the host's own CPU: what is idle there, Watch.idle_below() says.
        (r"\[5d\]\) < 0\.2", "[5d]) < -1"),
        (r"(notices_\w+_total)\[6h\]", r"\1[30s]"),
        (r"handshake_timestamp_seconds > 600", "handshake_timestamp_seconds > 240"),
        (r"offset 4d", "offset 2s"),
    ),
    "prometheus/backup-mx.wanted.rules.yml": ((r'cloud: ""', 'cloud: "oci"'),),
    "prometheus/backup-mx.scrape.yml": (
        (r"scrape_interval: 30s", "scrape_interval: 1s"),
        (
            r"scrape_interval: 60s\n +scrape_timeout: 30s.*",
            "scrape_interval: 10s\n    scrape_timeout: 9s",
        ),
        (r"scrape_interval: 60s", "scrape_interval: 1s"),
    ),
    "alertmanager/alertmanager.yml": (
        (r"group_wait: \d+s", "group_wait: 0s"),
        (r"group_interval: \d+m", "group_interval: 1s"),
        (r"repeat_interval: \d+\w", "repeat_interval: 1s"),
        (r'url: "[^"]+"', f'url: "http://{PLACE}:{PORT}/"'),
    ),
}
HURRIED_AGENT = """
import dataclasses, runpy
from backup_mx.relay.tell import alarms, conditions, known, outbox
alarms._news = lambda opened, alarm, now, of=alarms._news: of(
    opened, dataclasses.replace(alarm, grace=1.0), now)
outbox.FIRST_RETRY = outbox.LAST_RETRY = 10.0
alarms.REST_SECONDS = outbox.GAP_SECONDS = outbox.CROWDED_SECONDS = 1.0
conditions.TROUBLE_SECONDS, conditions.COMPARED_FIRST = 1.0, 5.0
known.YOUNG_SECONDS = known.STUCK_SECONDS = 1.0
runpy.run_module("backup_mx.relay.agent", run_name="__main__", alter_sys=True)
"""
"""The agent, that tells at once what it tells after minutes; test_alarms.py has tried these."""
NOTICES: Mapping[str, str] = {
    "agent": "the agent cannot ",
    "asked": r"\S+ gives no (?:new )?certificate",
    "at-risk": "waiting for long: ",
    "certificate": "the certificate expires in ",
    "crashes": "the agent crashed ",
    "disk": r"\S+ \S+ left on the mail's disk|the mail's disk is damaged",
    "drained": "handed over to home: ",
    "given-up": "Postfix has given up mail",
    "guarded": "the guard against expiry does not run",
    "held": "on hold: ",
    "ledger": "the ledger does not add up",
    "maintenance": "the maintenance has not ended by itself",
    "message": "home does not take the daily message",
    "overdue": "mail waits for (?!.* although )",
    "paused": "no more flushing to home",
    "primary": "home is down; kept for it: |the way to home is broken",
    "reconciled": "ledger and spool are not compared",
    "stuck": "mail waits for .* although the primary is up",
    "table": "the recipients of fetched.example are not fetched",
    "undeliverable": "refused by the primary: ",
}
"""How the title of a notice begins, by what its key begins with."""


Test = Callable[..., None]


def hears(*alarms: str) -> Callable[[Test], Test]:
    """Note which alarms a test is about; test_monitoring.py looks whether any has none."""

    def note(test: Test) -> Test:
        setattr(test, HEARD, alarms)
        return test

    return note


def tells(*keys: str) -> Callable[[Test], Test]:
    """Note of which keys a test hears notices; test_monitoring.py looks whether any has none."""

    def note(test: Test) -> Test:
        setattr(test, TOLD, keys)
        return test

    return note


class Listener(http.server.ThreadingHTTPServer):
    """A place on the Internet that Alertmanager tells: what it was told last of each alarm."""

    daemon_threads = True

    def __init__(self, world: World) -> None:
        self.world = world
        self.alarms: dict[str, dict[str, Any]] = {}

    def __enter__(self) -> Self:
        with network.inside(names.scoped(self.world.name, "net")):
            super().__init__((PLACE, PORT), _Hook)
        threading.Thread(target=self.serve_forever, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self.shutdown()
        self.server_close()

    def told(self, alarm: str, status: str = "firing") -> bool:
        """Tell whether it was told that an alarm has begun to fire, or is "resolved"."""
        return self.alarms.get(alarm, {}).get("status") == status


class Hearing:
    """Waits until alarms are told, as they should be, and the relay's own notices.

    fired are the alarms that it has heard of, noticed the keys of the notices.
    """

    def __init__(self, listener: Listener) -> None:
        self.fired: set[str] = set()
        self.noticed: set[str] = set()
        self._listener = listener
        self._place = Place(listener.world.machine("internet"))
        self.forget()

    def forget(self) -> None:
        """Forget what was told until now."""
        self._listener.alarms.clear()
        self._since = time.time()

    def notice(self, *keys: str, over: bool = False, ever: bool = False) -> None:
        """Wait until the place has a notice of each key, or that it is over; or ever had one."""
        since = 0.0 if ever else self._since
        for key in keys:
            words = "over: " * over + f"(?:{NOTICES[key]})"
            wait_for(f"a notice: {words}", lambda: self._place.has(words, since), HEARING)  # noqa: B023
        self.noticed |= set(keys)

    def __call__(self, *alarms: str, status: str = "firing") -> None:
        """Wait until each of them is told to fire, or to be "resolved"."""
        for alarm in alarms:
            name = f"BackupMx{alarm}"
            wait_for(f"{name} to be {status}", lambda: self._listener.told(name, status), HEARING)  # noqa: B023
            said = self._listener.alarms[name]["annotations"]
            assert said["runbook"] == f"backup-mx explain {name}"
            assert "rror" not in said["summary"] + said["description"], said
        if status == "firing":
            self.fired |= set(alarms)

    def told(self, alarm: str) -> bool:
        """Tell whether one fires now, as far as was told."""
        return self._listener.told(f"BackupMx{alarm}")


@contextmanager
def hearing(test: Test, listener: Listener) -> Iterator[Hearing]:
    """Let a test hear from now on; it has heard all that it is about, and nothing else."""
    made = Hearing(listener)
    yield made
    assert made.fired == set(getattr(test, HEARD)), "not what stands above the test"
    assert made.noticed == set(getattr(test, TOLD, ())), "not what stands above the test"


class _Hook(http.server.BaseHTTPRequestHandler):
    server: Listener

    def do_POST(self) -> None:
        """Take a notification (Alertmanager's webhook format, version 4)."""
        told = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        for alert in told["alerts"]:
            self.server.alarms[alert["labels"]["alertname"]] = alert
        self.send_response(200)
        self.end_headers()

    def log_message(self, *_: object) -> None:
        """Say nothing."""


@dataclass(frozen=True)
class Watch:
    """The three on the machine ``internet``, in a hurry; files are what an operator gets, by path.

    They are of the world's own config.
    """

    world: World
    files: Mapping[str, str]

    @classmethod
    def of(cls, world: World) -> Self:
        """Render for a world."""
        made = render.render(world.made_from)
        return cls(world, {file.path: file.content.decode() for file in made})

    @property
    def machine(self) -> Machine:
        """Where they run."""
        return self.world.machine("internet")

    def start(self) -> None:
        """Start all three; return when they answer. Raises LabError."""
        self.write()
        for unit, arguments in ARGUMENTS.items():
            self.machine.path(f"/etc/default/{unit}").write_text(f"ARGS='{arguments}'\n")
        self.machine.run(["systemctl", "start", *UNITS])
        self.machine.listening(9115, 9093, 9090)
        wait_for("Prometheus to be ready", lambda: self.ask("up") is not None, PATIENCE)

    def write(self, version: str = "") -> None:
        """Write what is rendered, for an mx2 that should run ``version``, or else what it runs."""
        applied = self.world.machine("mx2").path("/var/lib/backup-mx/applied.json")
        version = version or json.loads(applied.read_text())["version"]
        self._put("prometheus.yml", PROMETHEUS)
        for path, text in self.files.items():
            hurried = in_a_hurry(path, text)
            self._put(path, re.sub('version: ".*"', f'version: "{version}"', hurried))

    def without(self, target: str) -> None:
        """Take a target out of the scrape config; its job stays, else it would seem up for long."""
        path = self.machine.path(f"{FOLDER}/prometheus/backup-mx.scrape.yml")
        before = path.read_text()
        kept = before.replace(f'"{target}"', "")
        assert kept != before, f"there is no target {target}"
        path.write_text(kept)

    def busy(self) -> float:
        """Return how busy the machine was, of which BackupMxIdle thinks: 0 to 1."""
        (shown,) = self.ask("quantile_over_time(0.95, backup_mx:machine_busy:ratio[5d])") or [""]
        return float(shown.partition("=> ")[2].split()[0])

    def idle_below(self, share: float) -> None:
        """Have BackupMxIdle take a machine for idle that was less busy than this."""
        path = self.machine.path(f"{FOLDER}/prometheus/backup-mx.rules.yml")
        path.write_text(re.sub(r"(\[5d\]\) <) \S+", rf"\1 {share:.3f}", path.read_text()))
        self.reload()

    def reload(self) -> None:
        """Have Prometheus read its files anew."""
        self.machine.run(["systemctl", "reload", "prometheus"])

    def promtool(self, *argv: str) -> str:
        """Run promtool where Prometheus runs; return what it printed. Raises LabError."""
        return self.machine.run(["promtool", *argv], timeout=300.0).text

    def ask(self, expression: str) -> list[str] | None:
        """Return what Prometheus answers to a query, None while it does not."""
        argv = ["promtool", "query", "instant", "http://127.0.0.1:9090", expression]
        done = self.machine.run(argv, check=False)
        return None if done.returncode else done.text.splitlines()

    def firing(self) -> set[str]:
        """Return the names of the alarms that fire now."""
        found = self.ask('count by (alertname) (ALERTS{alertstate="firing"})') or []
        return set(re.findall(r'alertname="BackupMx(\w+)"', "\n".join(found)))

    def _put(self, path: str, text: str) -> None:
        place = self.machine.path(f"{FOLDER}/{path}")
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_text(text)


def in_a_hurry(path: str, text: str) -> str:
    """Return a file with its times shortened."""
    for pattern, instead in HURRY.get(path, ()):
        text, count = re.subn(pattern, instead, text)
        assert count, f"{path} has no {pattern}"
    return text


def hurry(relay: Relay) -> None:
    """Have a relay's agent run as HURRIED_AGENT, now and after each start."""
    relay.machine.path("/srv/hurried.py").write_text(HURRIED_AGENT)
    dropin = relay.machine.path("/etc/systemd/system/backup-mx-agent.service.d/hurried.conf")
    dropin.parent.mkdir(exist_ok=True)
    dropin.write_text("[Service]\nExecStart=\nExecStart=/usr/bin/python3 -P /srv/hurried.py\n")
    relay.shell("systemctl", "daemon-reload")
    relay.shell("systemctl", "restart", "backup-mx-agent.service")
