"""What Prometheus is told of probes and gates: metrics from what was seen last, over HTTP."""

from __future__ import annotations

import contextlib
import socket
import threading
from collections.abc import Callable, Iterator, Sequence
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from socketserver import ThreadingTCPServer
from typing import Any

from backup_mx import __version__
from backup_mx.config.values import HostPort
from backup_mx.errors import MachineError
from backup_mx.probe import proven
from backup_mx.probe.probe import Reading
from backup_mx.probe.rota import Board, Place
from backup_mx.probe.trip import WAYS
from backup_mx.relay.tell import exposition as written
from backup_mx.relay.tell.exposition import CONTENT_TYPE, COUNTER, GAUGE, Family

PATIENCE = 10.0
"""Seconds that a connection may take, from its first letter to the answer's last."""
AT_ONCE = 16
"""How many are answered at a time; one more is hung up on."""

_LABELS = ("probe", "target", "relay")
_OF_A_READING: tuple[tuple[str, str, float, Callable[[Reading], float]], ...] = (
    # the metric, its help, its value before the first look, and after it
    ("ok", "1 while what is looked at is in order; 0 also while that is unknown.", 1,
     lambda each: each.finding.verdict in ("pass", "warn")),
    ("unknown", "1 while it cannot be looked at.", 0,
     lambda each: each.finding.verdict == "unknown"),
    ("timestamp_seconds", "When it was last looked at; 0: not yet.", 0,
     lambda each: each.began),
    ("duration_seconds", "How long that took.", 0,
     lambda each: each.seconds),
)  # fmt: skip


def exposition(board: Board, evidence: Path | None = None) -> bytes:
    """Return what was seen last in Prometheus' text format; evidence is what the gates write."""
    gates = proven.families(evidence) if evidence else ()
    return written.text((*_families(board), *gates, *written.process()))


def _families(board: Board) -> Iterator[Family]:
    yield Family(
        "backup_mx_probe_info", GAUGE, "What probes.", (((__version__,), 1),), ("version",)
    )
    readings = dict(board.readings)
    for name, doc, before, value in _OF_A_READING:
        rows = tuple(
            (_labels(place), value(readings[place]) if place in readings else before)
            for place in board.places
        )
        yield Family(f"backup_mx_probe_{name}", GAUGE, doc, rows, _LABELS)
    yield from _certificates(board, readings)
    yield from _trips(board)


def _certificates(board: Board, readings: dict[Place, Reading]) -> Iterator[Family]:
    places = [place for place in board.places if place[0] == "certificate"]
    seen = [readings[place].seen if place in readings else None for place in places]
    for name, doc, values in (
        ("expiry_timestamp_seconds", "When the certificate that senders see expires; 0: not known.",
         [each.expires if each else 0.0 for each in seen]),
        ("renewed_seconds", "How long before its end it should be renewed; 0: not known.",
         [each.renewed if each else 0.0 for each in seen]),
    ):  # fmt: skip
        rows = tuple((_labels(place)[1:], each) for place, each in zip(places, values, strict=True))
        yield Family(f"backup_mx_probe_certificate_{name}", GAUGE, doc, rows, _LABELS[1:])


def _trips(board: Board) -> Iterator[Family]:
    """Yield what became of messages that were sent the whole way, if any are."""
    if not any(probe == "roundtrip" for probe, _ in board.places):
        return
    for name, kind, doc, values in (
        ("roundtrip_way", GAUGE, "1 for the way of the last message.",
         [float(board.way == way) for way in WAYS]),
        ("roundtrips_total", COUNTER, "Messages sent the whole way, by how they came.",
         [float(board.counts[way]) for way in WAYS]),
    ):  # fmt: skip
        rows = tuple(((way,), value) for way, value in zip(WAYS, values, strict=True))
        yield Family(f"backup_mx_probe_{name}", kind, doc, rows, ("way",))
    yield written.one("backup_mx_probe_roundtrip_lost_messages", GAUGE,
                      "Messages that have been long overdue for up to a day, wherever they are.",
                      board.lost)  # fmt: skip
    yield written.one("backup_mx_probe_roundtrip_seconds", GAUGE,
                      "How long the last one that came was on its way.",
                      board.trip.seconds if board.trip else 0.0)  # fmt: skip
    yield written.one("backup_mx_probe_roundtrip_arrival_timestamp_seconds", GAUGE,
                      "When the last one that came was found.", board.arrived)  # fmt: skip


def _labels(place: Place) -> Sequence[str]:
    probe, target = place
    return (probe, target.name, target.relay)


class _Desk(BaseHTTPRequestHandler):
    """Answers one request a connection."""

    server: _Server
    server_version, sys_version = "backup-mx", ""

    def do_GET(self) -> None:
        """Answer /metrics, and nothing else."""
        if self.path.partition("?")[0] != "/metrics":
            self._say(404, b"only /metrics is here\n", "text/plain; charset=utf-8")
            return
        self._say(200, exposition(self.server.board, self.server.evidence), CONTENT_TYPE)

    def _say(self, code: int, body: bytes, kind: str) -> None:
        self.send_response(code)
        for name, value in (
            ("Content-Type", kind),
            ("Content-Length", str(len(body))),
            ("Cache-Control", "no-store"),
            ("X-Content-Type-Options", "nosniff"),
        ):
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002  its parent's name
        """Keep quiet: a scrape is no event."""


class _Server(ThreadingTCPServer):
    """Unlike http.server's own, it asks no DNS for its name before it listens."""

    daemon_threads = allow_reuse_address = True

    def __init__(self, place: HostPort, board: Board, evidence: Path | None) -> None:
        self.board, self.evidence = board, evidence
        self._places = threading.Semaphore(AT_ONCE)
        self.address_family = socket.AF_INET6 if ":" in place.host else socket.AF_INET
        super().__init__((place.host, place.port), _Desk)

    def verify_request(self, *_: object) -> bool:
        """Tell whether there is a place; where there is none, its parent hangs up."""
        return self._places.acquire(blocking=False)

    def process_request_thread(self, request: Any, client_address: Any) -> None:  # noqa: ANN401
        """Answer, and hang up when the time is over."""
        clock = threading.Timer(PATIENCE, _hang_up, (request,))
        clock.daemon = True
        clock.start()
        try:
            super().process_request_thread(request, client_address)
        finally:
            clock.cancel()
            self._places.release()

    def handle_error(self, request: object, client_address: object) -> None:
        """Keep quiet: a client that hangs up is no event either."""


def _hang_up(line: socket.socket) -> None:
    """End a connection, whoever waits for it."""
    with contextlib.suppress(OSError):  # it is closed already
        line.shutdown(socket.SHUT_RDWR)


def server(place: HostPort, board: Board, evidence: Path | None = None) -> ThreadingTCPServer:
    """Return a server that listens; its ``serve_forever`` answers. Raises MachineError."""
    try:
        return _Server(place, board, evidence)
    except OSError as error:
        raise MachineError(f"nothing can be served at {place}: {error.strerror}") from None
