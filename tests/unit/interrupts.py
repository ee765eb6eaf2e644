"""Work for a pool of threads that is interrupted while most of it still waits for its turn."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field

import pytest

PATIENCE = 20.0  # seconds that a piece of work waits for the pool to be left


@dataclass
class Crowd:
    """The first piece is interrupted; each other lasts until its pool is left.

    begun are the numbers of those that were begun.
    """

    begun: list[int] = field(default_factory=list)
    _left: threading.Event = field(default_factory=threading.Event)

    def work(self, number: int) -> None:
        """Do the piece of that number, from 0."""
        self.begun.append(number)
        if number == 0:
            raise KeyboardInterrupt
        assert self._left.wait(PATIENCE), "waited in vain for the pool to be left"

    def watch(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """Notice when a pool is left: what is not begun by then must not be, if it is cancelled."""
        shutdown = ThreadPoolExecutor.shutdown

        def leave(
            pool: ThreadPoolExecutor, wait: bool = True, *, cancel_futures: bool = False
        ) -> None:
            shutdown(pool, wait=False, cancel_futures=cancel_futures)
            self._left.set()
            shutdown(pool, wait=wait)

        monkeypatch.setattr(ThreadPoolExecutor, "shutdown", leave)
