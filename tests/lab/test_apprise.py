"""Notices through the real Apprise, to a small server that is well, down, slow, or broken.

And from the agent on a relay, out of its own sandbox.
"""

from __future__ import annotations

import asyncio
import http.server
import json
import shutil
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from primaries import ADDRESS as OUTSIDE
from relays import RELEASES, Relay, booted, wait_for

from backup_mx.lab import host, names, network
from backup_mx.relay.tell import outbox
from backup_mx.relay.tell.alarms import Notice
from backup_mx.relay.tell.notify import Apprise, Notifier

pytestmark = pytest.mark.lab

NOTICE = Notice(
    "disk", "warning", "[mx2] little left — ünicode", "on the disk\nWhat to do: this", 0.0
)
ADDRESS = "127.0.0.1"
PATIENCE = 60.0


class Place(http.server.ThreadingHTTPServer):
    """A place that is told: what it got, by path; ``status`` is what it answers."""

    status = 200
    delay = 0.0

    def __init__(self, port: int = 0, address: str = ADDRESS) -> None:
        self.got: list[tuple[str, dict[str, str], bytes]] = []
        super().__init__((address, port), Handler)
        threading.Thread(target=self.serve_forever, daemon=True).start()

    @property
    def port(self) -> int:
        """Its TCP port."""
        return int(self.server_address[1])

    def close(self) -> None:
        """Stop listening."""
        self.shutdown()
        self.server_close()


class Handler(http.server.BaseHTTPRequestHandler):
    """Takes a POST."""

    server: Place

    def do_POST(self) -> None:
        """Note what came, and answer."""
        body = self.rfile.read(int(self.headers["Content-Length"]))
        time.sleep(self.server.delay)
        if self.server.status == 200:
            self.server.got.append((self.path, dict(self.headers), body))
        self.send_response(self.server.status)
        self.end_headers()

    def log_message(self, *_: object) -> None:
        """Say nothing."""


@pytest.fixture
def place() -> Iterator[Place]:
    """A place that takes everything."""
    assert shutil.which("apprise"), "apprise is missing: make packages installs it"
    made = Place()
    yield made
    made.close()


def notifier(folder: Path, *urls: str) -> Notifier:
    """Open a Notifier that has one notice to tell."""
    made = Notifier.open("mx2", urls, folder=folder, runtime=folder)
    made.tell([Notice(NOTICE.key, NOTICE.severity, NOTICE.title, NOTICE.body, time.time())])
    return made


async def run_until(made: Notifier, done: Callable[[], bool]) -> None:
    """Run a Notifier until ``done`` says so."""
    task = asyncio.create_task(made.run())
    try:
        async with asyncio.timeout(PATIENCE):
            while not done():
                await asyncio.sleep(0.05)
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


def test_json_and_ntfy_are_told(place: Place, tmp_path: Path) -> None:
    """Title, body and severity arrive whole by both kinds of place, secrets as the place's."""
    made = notifier(
        tmp_path,
        f"json://user:secret@{ADDRESS}:{place.port}/hook",
        f"ntfy://{ADDRESS}:{place.port}/topic",
    )
    asyncio.run(run_until(made, lambda: made.waiting == 0))
    by_kind = {path: (headers, json.loads(body)) for path, headers, body in place.got}
    headers, hook = by_kind["/hook"]
    assert headers["Authorization"].startswith("Basic ")
    assert (hook["title"], hook["message"], hook["type"]) == (NOTICE.title, NOTICE.body, "warning")
    _, topic = by_kind["/"]
    assert (topic["topic"], topic["title"], topic["message"]) == (
        "topic", NOTICE.title, NOTICE.body,
    )  # fmt: skip


@pytest.mark.parametrize("trouble", ["down", "500", "slow"])
def test_a_place_in_trouble_is_told_later(
    place: Place, tmp_path: Path, trouble: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The other place is told at once; the ill one when it is well again, after a restart, too."""
    monkeypatch.setattr(outbox, "FIRST_RETRY", 0.5)
    ill = Place()
    port, ill.status, ill.delay = ill.port, 500, 30.0 if trouble == "slow" else 0.0
    if trouble == "down":
        ill.close()
    urls = (f"json://{ADDRESS}:{port}/ill", f"json://{ADDRESS}:{place.port}/well")
    made = notifier(tmp_path, *urls)
    made.send = Apprise(tmp_path, limit=5.0).send
    told = ("notify:sent", "notify:failed")  # both: one cut off while it is told is told again
    asyncio.run(run_until(made, lambda: all(made.counters[each] for each in told)))
    made.close()
    if trouble != "down":
        ill.close()
    mended = Place(port)
    again = Notifier.open("mx2", urls, folder=tmp_path, runtime=tmp_path)
    try:
        asyncio.run(run_until(again, lambda: again.waiting == 0))
    finally:
        mended.close()
    assert [path for path, _, _ in mended.got] == ["/ill"]
    assert [path for path, _, _ in place.got] == ["/well"]


def test_what_is_no_url_of_apprise_is_said(place: Place, tmp_path: Path) -> None:
    """A URL that Apprise does not know is a failure, told without the URL."""
    del place
    url = "notathing://secret/token"
    said = asyncio.run(Apprise(tmp_path).send(url, NOTICE))
    assert "its URL is none that apprise knows" in said
    assert "token" not in said


PORT = 8080
URLS = f"""
[notify]
urls = [{{ command = ["echo", "json://user:secret@{OUTSIDE}:{PORT}/hook"] }}]
"""


@pytest.fixture(params=RELEASES)
def relay(request: pytest.FixtureRequest) -> Iterator[Relay]:
    """A relay whose agent has a place to tell, at an address that is not the relay's."""
    with booted(request.param, agent=True, options=URLS) as made:
        yield made


@pytest.fixture
def outside(relay: Relay) -> Iterator[Place]:
    """That place, on the lab's wire."""
    namespace = names.scoped(relay.world.name, "net")
    host.call(["ip", "-n", namespace, "addr", "add", f"{OUTSIDE}/32", "dev", "br0"])
    with network.inside(namespace):
        made = Place(PORT, OUTSIDE)
    yield made
    made.close()


def test_the_agent_tells_out_of_its_sandbox(relay: Relay, outside: Place) -> None:
    """With the unit's own limits; what the place is told with is not in the journal."""
    relay.shell("backup-mx", "hold", relay.kept(b"eve@example.org"))
    wait_for("the notice to arrive", lambda: bool(outside.got), timeout=120)
    path, headers, body = outside.got[0]
    told = json.loads(body)
    assert path == "/hook"
    assert headers["Authorization"] == "Basic dXNlcjpzZWNyZXQ="
    assert told["title"].endswith("on hold: 1 message")
    assert "backup-mx queue mx2, then release" in told["message"]
    assert told["type"] == "warning"
    unit = ("-u", "backup-mx-agent.service")
    assert "secret" not in relay.shell("journalctl", "--no-pager", *unit)
    assert relay.shell("systemctl", "show", "-P", "NRestarts", unit[1]) == "0\n"
