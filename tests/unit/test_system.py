"""What the agent knows of its machine."""

from __future__ import annotations

import json
import os
import socket
from pathlib import Path
from smtpd import certificate, plain, secured, serving

import pytest

from backup_mx.net.certificate import shown
from backup_mx.relay.certificate import read
from backup_mx.relay.queue import postfix, spool
from backup_mx.relay.settings import Target
from backup_mx.relay.state import Disk
from backup_mx.relay.tasks import system, systemd


def test_postfix_limits() -> None:
    """The shorter lifetime counts; below 1.5 of the largest message nothing is taken."""

    def run(argv: tuple[str, ...], _: bytes) -> str:
        assert argv[:2] == ("postconf", "-h")
        return "100d\n50\n52428800\n0\n"

    assert system.limits(run) == system.Limits(50 * 86400.0, 78643200)


@pytest.mark.parametrize(
    ("value", "wanted"), [("100d", 8_640_000.0), ("2m", 120.0), ("90s", 90.0), ("1w", 604_800.0)]
)
def test_postfix_times(value: str, wanted: float) -> None:
    """A unit is a letter; without one, a lifetime is in days."""
    assert postfix.seconds(value) == wanted


def test_the_disk(tmp_path: Path) -> None:
    """Free is what Postfix may have."""
    found = spool.disk(5, tmp_path)
    assert 0 < found.free <= found.total
    assert found.needed == 5


@pytest.mark.parametrize(
    ("files", "left", "free"),
    [(1000, 500, 400), (1000, 20, 20), (1000, 0, 0), (0, 0, 400)],
)
def test_the_disk_is_as_full_as_it_can_take_files(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, files: int, left: int, free: int
) -> None:
    """Of a thousand bytes; some file systems know no limit, and say 0 of 0."""
    told = (1, 1, 1000, 450, 400, files, left, left, 0, 255)
    monkeypatch.setattr(os, "statvfs", lambda _: os.statvfs_result(told))
    assert spool.disk(5, tmp_path) == Disk(free, 1000, 5)


@pytest.mark.parametrize(
    ("options", "damaged"),
    [
        ("ro,nosuid shared:9 - ext4 /dev/sdb rw,discard", False),
        ("rw,nosuid - ext4 /dev/sdb ro", True),
        ("rw,nosuid shared:9 master:1 - ext4 /dev/sdb rw,errors=remount-ro,emergency_ro", True),
        ("rw - btrfs /dev/ro rw,errors=remount-ro", False),
    ],
)
def test_a_disk_that_is_read_only_as_a_whole(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, options: str, *, damaged: bool
) -> None:
    """What a service's sandbox forbids it is no damage, nor what another disk is."""
    device = tmp_path.stat().st_dev
    own = f"{os.major(device)}:{os.minor(device)}"
    shown = tmp_path / "mountinfo"
    shown.write_text(f"27 1 0:99 / / ro - ext4 /dev/sda ro\n28 27 {own} / /srv {options}\n")
    monkeypatch.setattr(spool, "MOUNTS", shown)
    assert spool.disk(5, tmp_path).damaged == damaged


def test_the_version(tmp_path: Path) -> None:
    """The bundle's hash is read from what apply recorded; without it there is none."""
    applied = tmp_path / "applied.json"
    assert system.version(applied) == ""
    applied.write_text(json.dumps({"version": "abc", "files": []}))
    assert system.version(applied) == "abc"
    applied.write_text("{")
    assert system.version(applied) == ""


def target(name: str, tunnel: str) -> Target:
    return Target(name, f"{name}.example.org", "10.0.20.1", 2526, "may", (), tunnel)


@pytest.mark.parametrize(
    ("said", "wanted"),
    [
        ("key=\t1795000000\nother=\t1795000050\n", {"home": 1_795_000_000.0, "away": 0.0}),
        ("key=\t0\n", {"home": 0.0, "away": 0.0}),
        ("", {"home": 0.0, "away": 0.0}),
        ("nonsense\n", {"home": 0.0, "away": 0.0}),
        ("key=\tsoon\n", {"home": 0.0, "away": 0.0}),
        (None, {"home": 0.0, "away": 0.0}),
    ],
)
def test_when_a_tunnel_last_lived(
    tmp_path: Path, said: str | None, wanted: dict[str, float]
) -> None:
    """For each primary that is behind one; never, where nobody knows."""
    path = tmp_path / "handshakes"
    if said is not None:
        path.write_text(said)
    targets = (target("home", "key="), target("away", "another="), target("plain", ""))
    assert system.handshakes(targets, path) == wanted
    assert system.handshakes(targets[2:], path) == {}


def test_what_the_guard_saw_changed(tmp_path: Path) -> None:
    """Nothing where it has not looked, or where all is as it was applied."""
    seen = tmp_path / "drift"
    assert not system.drifted(seen)
    seen.write_text("")
    assert not system.drifted(seen)
    seen.write_text("--- /etc/postfix/main.cf\n")
    assert system.drifted(seen)


def test_the_certificate_that_is_shown(tmp_path: Path) -> None:
    """Its end is what openssl reads, asked for on the wire as a sender would."""
    made = certificate(tmp_path, "mx2.example.org")
    with serving(secured(made)) as server:
        der = shown("127.0.0.1", server.port, "mx2.example.org")
    assert der is not None
    found = read(der, system.run, "DER")
    assert 2 * 86400 - 60 < found.ends - made.stat().st_mtime <= 2 * 86400
    assert (found.lifetime, found.issuer) == (2 * 86400, "")


def test_a_server_without_tls_shows_none() -> None:
    """No certificate is no crash."""
    with serving(plain(starttls="502 what")) as server:
        assert shown("127.0.0.1", server.port, "mx2.example.org") is None
    assert shown("127.0.0.1", server.port, "mx2.example.org") is None


def test_systemd_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A word is one datagram; a status is one line."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind(str(tmp_path / "notify"))
        manager.settimeout(5)
        monkeypatch.setenv("NOTIFY_SOCKET", str(tmp_path / "notify"))
        assert systemd.notify(systemd.READY, systemd.status("two\nlines"))
        assert manager.recv(1000) == b"READY=1\nSTATUS=two lines"


def test_without_systemd_nobody_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """And a manager that has gone away is no crash."""
    monkeypatch.delenv("NOTIFY_SOCKET", raising=False)
    assert not systemd.notify(systemd.READY)
    monkeypatch.setenv("NOTIFY_SOCKET", str(tmp_path / "gone"))
    assert not systemd.notify(systemd.READY)
