"""The place where a lab's operator is told, as drills read what it has noted."""

from __future__ import annotations

import json
import sys
import threading
import urllib.request
from collections.abc import Iterator
from http.server import HTTPServer
from importlib import resources
from pathlib import Path

import pytest

from backup_mx.lab import names, place
from backup_mx.lab.inside.place import Taken
from backup_mx.lab.place import Place
from backup_mx.lab.world import World

SEVERAL = {
    "title": "[mx2] on hold: 3 messages (and 1 more)",
    "message": "[mx2] on hold: 3 messages\nThey waited.\n\n[mx2] over: home is down\nFor 3 min.",
}


@pytest.fixture
def noted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The file of the place in a lab that is not up."""
    monkeypatch.setattr(names, "LABS", tmp_path)
    path = World("nolab").machine("internet").path(place.TOLD)
    path.parent.mkdir(parents=True)
    return path


@pytest.fixture
def told() -> Place:
    """The place in that lab."""
    return Place(World("nolab").machine("internet"))


def test_a_notice_is_found_by_how_its_title_begins(noted: Path, told: Place) -> None:
    """Also one of several in a message; not by words in between, nor what came earlier."""
    assert not told.has("on hold: ", 0.0)
    noted.write_text(json.dumps({"time": 100.0, "told": SEVERAL}) + '\n{"time": 1')
    assert told.has("on hold: ", 99.0)
    assert told.has("over: (?:home|office) is down", 99.0)
    assert not told.has("home is down", 99.0)
    assert not told.has("on hold: ", 100.0)


@pytest.fixture
def address(noted: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """Where the place's program listens."""
    monkeypatch.setattr(sys, "argv", ["place.py", "0", str(noted)])
    with HTTPServer(("127.0.0.1", 0), Taken) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}/"
        server.shutdown()
        thread.join()


def test_what_is_posted_is_noted(address: str, told: Place) -> None:
    """As Apprise posts it."""
    body = json.dumps({"version": "1.0", "type": "warning", **SEVERAL}).encode()
    with urllib.request.urlopen(address, body, timeout=20) as answer:  # noqa: S310
        assert answer.status == 200
    assert told.has("on hold: 3 messages", 0.0)


def test_the_place_is_where_the_lab_s_config_says() -> None:
    """On the port that its unit and the operator's config name."""
    files = resources.files("backup_mx.lab")
    unit = files / "machines/internet/etc/systemd/system/lab-place.service"
    assert f"place.py {place.PORT} /var/lib/lab-place/told.jsonl" in unit.read_text()
    config = (files / "backup-mx-operator.toml").read_text()
    assert f"json://192.0.2.25:{place.PORT}/" in config
