"""The gate ``alarms``: one that goes out, by an Alertmanager that counts what became of it."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, ClassVar

import pytest
from test_gates_run import Clock, Nowhere, site_of

from backup_mx.config import parse
from backup_mx.errors import MachineError
from backup_mx.findings import Finding, Verdict
from backup_mx.gates import alarms
from backup_mx.gates.alarms import Patience, Tries
from backup_mx.gates.gate import Site

FIVE_LINES = (Path(__file__).parents[1] / "data/config/five-lines.toml").read_text()
HURRY = Patience(sent=0.3, others=0.0, pace=0.01)


@dataclass
class Alertmanager:
    """An Alertmanager, and a Prometheus that has it; each alarm becomes tries of these."""

    tries: tuple[bool, ...] = ()
    status: int = 200
    alarms: list[dict[str, Any]] = field(default_factory=list)
    made: list[bool] = field(default_factory=lambda: [True, False])

    @property
    def metrics(self) -> str:
        return (
            f'alertmanager_notification_requests_total{{integration="webhook"}} {len(self.made)}\n'
            "alertmanager_notifications_total 99\n"
            "alertmanager_notification_requests_failed_total"
            f'{{integration="webhook",receiver_name="a}} 1"}} {self.made.count(False)}\n'
        )


class _Desk(BaseHTTPRequestHandler):
    one: ClassVar[Alertmanager]

    def do_GET(self) -> None:
        port = self.headers["Host"].rpartition(":")[2]
        answers: dict[str, Any] = {
            "/api/v1/query": {"result": []},
            "/api/v1/rules": {"groups": []},
            "/api/v1/alertmanagers": {
                "activeAlertmanagers": [{"url": f"http://localhost:{port}/am/api/v2/alerts"}]
            },
        }
        path = self.path.partition("?")[0]
        data = answers.get(path)
        text = json.dumps({"data": data}) if data else self.one.metrics
        assert data or path in ("/am/metrics", "/am/-/healthy")
        self._say(200, text)

    def do_POST(self) -> None:
        assert self.path == "/am/api/v2/alerts"
        assert self.headers["Content-Type"] == "application/json"
        self.one.alarms += json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        self.one.made += self.one.tries
        self._say(self.one.status, "")

    def _say(self, code: int, text: str) -> None:
        self.send_response(code)
        self.send_header("Content-Length", str(len(text)))
        self.end_headers()
        self.wfile.write(text.encode())

    def log_message(self, *_: object) -> None:
        """Say nothing."""


@pytest.fixture
def one() -> Alertmanager:
    return Alertmanager()


@pytest.fixture
def site(one: Alertmanager, tmp_path: Path) -> Iterator[Site]:
    desk = type("Desk", (_Desk,), {"one": one})
    with ThreadingHTTPServer(("127.0.0.1", 0), desk) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        url = f"http://127.0.0.1:{server.server_address[1]}"
        config = parse(f'{FIVE_LINES}[monitoring]\nprometheus = "{url}"\n', "test")
        yield replace(site_of(config, tmp_path, Clock()), host=Nowhere())
        server.shutdown()


def judged(site: Site) -> Finding:
    (found,) = alarms.judge(site, HURRY)
    return found


@pytest.mark.parametrize(
    ("tries", "verdict", "words"),
    [
        ((True,), "pass", "a receiver took BackupMxTest: see that it arrived"),
        ((), "warn", "took the alarm, and told nobody"),
        ((False,), "fail", "cannot tell its receiver anything"),
        ((True, False), "warn", "1 of Alertmanager's 2 notifications failed"),
    ],
)
def test_what_it_counts_decides(
    site: Site, one: Alertmanager, tries: tuple[bool, ...], verdict: Verdict, words: str
) -> None:
    """What was sent and what failed before is no matter."""
    one.tries = tries
    found = judged(site)
    assert (found.verdict, words in found.saw) == (verdict, True), found


@pytest.mark.parametrize("since", [Tries(-100.0, 0.0), Tries(1.0, -3.0)])
def test_an_alertmanager_that_was_started_anew_counts_for_nothing(since: Tries) -> None:
    """Its counters begin again: what became of the alarm is not known."""
    assert alarms.judged(since).verdict == "unknown"


def test_the_alarm_is_one_that_ends(site: Site, one: Alertmanager) -> None:
    """It says that nothing is wrong, is over by itself, and is not the one of before."""
    judged(site)
    (alarm,) = one.alarms
    assert alarm["labels"] == {
        "alertname": "BackupMxTest", "severity": "info", "relay": "mx2",
        "ran": "2026-11-22T15:00:00+00:00",
    }  # fmt: skip
    assert "Nothing is wrong" in alarm["annotations"]["description"]
    begins, ends = (datetime.fromisoformat(alarm[each]) for each in ("startsAt", "endsAt"))
    assert begins.astimezone(UTC) < ends
    assert (ends - begins).total_seconds() == 600


def test_an_alertmanager_that_refuses_it_is_unknown(site: Site, one: Alertmanager) -> None:
    """What it said is told."""
    one.status = 400
    with pytest.raises(MachineError, match=r"took no alarm: http://127.0.0.1: 400 "):
        judged(site)


def test_without_a_prometheus_there_is_none_to_send(tmp_path: Path) -> None:
    """The gate notices minds where nobody else is told."""
    assert judged(site_of(parse(FIVE_LINES, "test"), tmp_path, Clock())).verdict == "pass"


def test_what_does_not_count_tries_has_none() -> None:
    """An Alertmanager of before 2021."""
    assert alarms.counted("alertmanager_notifications_total 3\n") == Tries()
