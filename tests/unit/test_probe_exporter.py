"""The exporter and those who mean it ill: what they can take of it is known beforehand."""

from __future__ import annotations

import contextlib
import socket
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from backup_mx.config.values import HostPort
from backup_mx.evidence import NEVER, Proof, summed, write
from backup_mx.findings import Finding
from backup_mx.probe import exporter
from backup_mx.probe.rota import Board

ASK = b"GET /metrics HTTP/1.0\r\n\r\n"
LONG = 10.0  # seconds that a test waits for what has to come


@pytest.fixture
def place() -> Iterator[tuple[str, int]]:
    with exporter.server(HostPort("127.0.0.1", 0), Board(())) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield "127.0.0.1", server.server_address[1]
        server.shutdown()


def said(line: socket.socket) -> bytes:
    """Return all that comes until the other side hangs up."""
    line.settimeout(LONG)
    with contextlib.suppress(ConnectionResetError), line.makefile("rb") as file:
        return file.read()
    return b""


def hung_up(line: socket.socket) -> bool:
    """Say one more letter; tell whether the other side has hung up."""
    try:
        line.sendall(b"G")
        return line.recv(1) == b""
    except TimeoutError:
        return False
    except ConnectionError:
        return True


def test_who_asks_a_letter_at_a_time_is_hung_up_on(
    place: tuple[str, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A connection has one time limit, and not one for each read."""
    monkeypatch.setattr(exporter, "PATIENCE", 0.5)
    began = time.monotonic()
    with socket.create_connection(place, LONG) as line:
        line.settimeout(0.05)
        while not hung_up(line):
            assert time.monotonic() - began < LONG, "waited in vain to be hung up on"


def test_more_than_a_few_at_a_time_are_hung_up_on(place: tuple[str, int]) -> None:
    """And when one of those has gone, the next is answered."""
    with contextlib.ExitStack() as lines:
        silent = [
            lines.enter_context(socket.create_connection(place, LONG))
            for _ in range(exporter.AT_ONCE)
        ]
        assert said(lines.enter_context(socket.create_connection(place, LONG))) == b""
        silent[0].sendall(ASK)
        assert said(silent[0]).startswith(b"HTTP/1.0 200 OK")
        answered, until = b"", time.monotonic() + LONG
        while not answered:
            assert time.monotonic() < until, "waited in vain for the place that has become free"
            with socket.create_connection(place, LONG) as again:
                with contextlib.suppress(ConnectionError):
                    again.sendall(ASK)
                answered = said(again)


RAN = datetime(2026, 11, 22, 15, 0, tzinfo=UTC)


def test_what_the_gates_found_is_told(tmp_path: Path) -> None:
    """Of each that ever ran, though what it found may not count any more; anew each time."""
    path = tmp_path / "evidence.json"
    day = Proof(Finding("drain", "warn", "slow"), RAN, until=RAN + timedelta(days=1))
    failed = replace(day, finding=Finding("names", "unknown", "silent"))
    never = Proof(Finding("reboot", "unknown", "not run yet"), NEVER)
    known = summed("v", "c", "t", {"drain": day, "reboot": never}, RAN)
    write(path, {"mx2": replace(known, earlier={"names": failed})})
    text = exporter.exposition(Board(()), path).decode()
    assert 'gate_ok{gate="drain",relay="mx2"} 1.0' in text
    assert 'gate_ok{gate="names",relay="mx2"} 0.0' in text
    assert f'gate_timestamp_seconds{{gate="drain",relay="mx2"}} {RAN.timestamp()}' in text
    assert 'gate_fresh_seconds{gate="drain",relay="mx2"} 86400.0' in text
    assert "reboot" not in text
    assert "gate_evidence_ok 1.0" in text
    path.write_text("{")
    assert "gate_evidence_ok 0.0" in exporter.exposition(Board(()), path).decode()
    path.unlink()
    assert "gate_evidence_ok 1.0" in exporter.exposition(Board(()), path).decode()
