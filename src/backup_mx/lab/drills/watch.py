"""Two moments of a drain, taken while it happens: the first good answer, the first delivery."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable

from backup_mx.errors import LabError
from backup_mx.lab.host import wait_for

_POLL_SECONDS = 0.02
_LAST_LOOK_SECONDS = 10.0

Question = Callable[[], bool]


class Watch:
    """Looks on in threads from when it is made until ``stop``.

    welcome tells whether the primary would take mail of the relay, greeted whether it says anything
    to it, delivered how many messages lie in its mailboxes. good and first are seconds of
    time.monotonic(), None until then; dark is when it was last asked for a greeting in vain.
    """

    def __init__(self, welcome: Question, greeted: Question, delivered: Callable[[], int]) -> None:
        self.good: float | None = None
        self.first: float | None = None
        self.dark = time.monotonic()
        self._stopped = threading.Event()
        self._welcome, self._greeted, self._delivered = welcome, greeted, delivered
        self._before = delivered()
        looks = (self._look_for_first, self._look_for_welcome, self._look_for_greeting)
        self._threads = [threading.Thread(target=look, daemon=True) for look in looks]
        for thread in self._threads:
            thread.start()

    @property
    def seconds(self) -> float | None:
        """Seconds from the first good answer to the first delivery, None unless both were seen.

        Where the good answer was seen only after the delivery, they count from the last look that
        found no greeting: rather too long than too short.
        """
        if self.first is None or self.good is None:
            return None
        return self.first - (self.good if self.good <= self.first else self.dark)

    def stop(self) -> None:
        """Look no longer, but for a good answer that comes after the first delivery."""
        self._stopped.set()
        for thread in self._threads:
            thread.join()
        if self.first is not None:
            with contextlib.suppress(LabError):
                wait_for("a good answer", self._welcomed, timeout=_LAST_LOOK_SECONDS)

    def _look_for_first(self) -> None:
        while not self._stopped.is_set():
            if self._delivered() > self._before:
                self.first = time.monotonic()
                self._stopped.set()
            self._stopped.wait(_POLL_SECONDS)

    def _look_for_welcome(self) -> None:
        while not (self._stopped.is_set() or self._welcomed()):
            self._stopped.wait(_POLL_SECONDS)

    def _look_for_greeting(self) -> None:
        while not self._stopped.is_set():
            began = time.monotonic()
            if self._greeted():
                return
            if self.first is None:
                self.dark = began
            self._stopped.wait(_POLL_SECONDS)

    def _welcomed(self) -> bool:
        """Ask once, unless there was a good answer."""
        began = time.monotonic()
        if self.good is None and self._welcome():
            self.good = began
        return self.good is not None
