"""Looking again and again: each probe by itself, and what was seen last kept for who asks."""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from backup_mx.errors import BackupMxError, MachineError, defect
from backup_mx.findings import Finding
from backup_mx.probe import roundtrip
from backup_mx.probe.probe import Probe, Reading, Scene, Seen, Target
from backup_mx.probe.roundtrip import ROUNDTRIP, Accounts, Awaited, Letterbox, Sent
from backup_mx.probe.table import places
from backup_mx.probe.trip import Trip, Way

EVERY = 300.0
"""Seconds between two looks of a probe; the round trip has an option for it."""
OVERDUE = 3
"""After so many times its patience a message that is missing counts as lost."""
_TOLD = 86_400.0  # seconds for which that is told, or two looks into the mailbox if that is longer
REMEMBERED = 1000
"""How many late messages are still looked for: those of ten days, at four an hour."""

Place = tuple[str, Target]


@dataclass
class Board:
    """What was seen last; threads write it, and the exporter reads it.

    way, trip and arrived (seconds since 1970) are of the last message that went the whole way;
    counts says how often it ended how. lost are those that have been missing for long.
    """

    places: tuple[Place, ...]
    readings: dict[Place, Reading] = field(default_factory=dict)
    way: Way | None = None
    trip: Trip | None = None
    arrived: float = 0.0
    counts: Counter[Way] = field(default_factory=Counter)
    lost: int = 0

    def put(self, reading: Reading) -> None:
        """Keep what was seen."""
        self.readings[reading.probe, reading.target] = reading

    def count(self, trip: Trip | None) -> None:
        """Keep how a message came; None: it did not in time."""
        self.way = trip.way if trip else "missing"
        self.counts[self.way] += 1
        if trip:
            self.trip, self.arrived = trip, time.time()


@contextmanager
def looking(scene: Scene, every: float = EVERY) -> Iterator[Board]:
    """Have every probe look again and again while the block runs.

    Raises SecretError when a password of [roundtrip] cannot be read.
    """
    found = tuple(places(scene.config))
    board = Board(tuple((probe.name, target) for probe, target in found))
    stop = threading.Event()
    tasks = [_task(scene, probe, target, board, stop, every) for probe, target in found]
    threads = [threading.Thread(target=task, daemon=True) for task in tasks]
    for thread in threads:
        thread.start()
    try:
        yield board
    finally:
        stop.set()


def _task(
    scene: Scene, probe: Probe, target: Target, board: Board, stop: threading.Event, every: float
) -> Callable[[], None]:
    """Return the work of a thread that looks at one target."""
    if probe is ROUNDTRIP:
        messenger = Messenger(scene, target, board, stop)
        pace = float(messenger.accounts.options.every)
        return lambda: _again(messenger.go, pace, stop)
    return lambda: _again(lambda: board.put(probe.read(scene, target)), every, stop)


def _again(act: Callable[[], None], every: float, stop: threading.Event) -> None:
    while not stop.is_set():
        began = time.monotonic()
        act()
        stop.wait(max(1.0, every - (time.monotonic() - began)))


class Messenger:
    """Sends messages, and looks for those of earlier rounds that had not come in time."""

    def __init__(self, scene: Scene, target: Target, board: Board, stop: threading.Event) -> None:
        self.accounts: Accounts = roundtrip.accounts(scene.config)
        self._scene, self._target, self._board, self._stop = scene, target, board, stop
        self._missing: list[Sent] = []

    def go(self) -> None:
        """Send one and wait for it; whatever goes wrong is a reading as well."""
        began, clock = time.time(), time.monotonic()
        try:
            finding = self._round()
        except Exception as error:
            self._board.lost = 0  # nothing is called lost while nobody can look
            said = str(error) if isinstance(error, BackupMxError) else defect(error)
            finding = Finding(ROUNDTRIP.name, "unknown", said)
        if not self._stop.is_set():
            seconds = time.monotonic() - clock
            self._board.put(Reading(ROUNDTRIP.name, self._target, Seen(finding), began, seconds))

    def _round(self) -> Finding:
        with roundtrip.letterbox(self._scene.config, self.accounts) as box:
            # At once: were it 0 while they are looked for, a scrape would end the alarm.
            self._board.lost = self._long_missing(box)
            sent = roundtrip.send(self.accounts)
            patience = self.accounts.options.patience
            ended = roundtrip.await_it(box, sent, patience, self._stop.wait)
        self._note(ended)
        return roundtrip.judged(ended, patience)

    def _note(self, ended: Awaited) -> None:
        """Count how it ended; what did not come is looked for again."""
        if ended.trip is None and not self._stop.is_set():
            self._missing = [*self._missing, ended.sent][-REMEMBERED:]
        if ended.trip or (ended.missing and not self._stop.is_set()):
            self._board.count(ended.trip)

    def _long_missing(self, box: Letterbox) -> int:
        """Look for what had not come; return how many of them are lost, 0 if nobody can look."""
        for sent in tuple(self._missing):
            try:
                trip = box.fetch(sent)
            except MachineError:
                return 0  # what is wrong with the mailbox is told of the next message
            if trip:
                self._missing.remove(sent)
                self._board.count(trip)
        return sum(self._lost(sent) for sent in self._missing)

    def _lost(self, sent: Sent) -> bool:
        """Whether a message that is missing, the mailbox having been seen, is long overdue."""
        options = self.accounts.options
        overdue = time.time() - sent.at - OVERDUE * options.patience
        return 0 < overdue < max(_TOLD, 2.0 * options.every)
