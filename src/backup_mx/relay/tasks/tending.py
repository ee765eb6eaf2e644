"""Small tasks that run for ever, each surviving its own failures; and whether they still turn."""

from __future__ import annotations

import asyncio
import logging
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Iterable

LONGEST = 60.0  # seconds between two tries of a task that fails
NEVER = float("inf")
"""What a task returns that has nothing more to do."""
log = logging.getLogger("backup_mx.agent")

Work = Callable[[], Awaitable[float]]


class Tending:
    """Who runs what: failures counts those of each task, by its name."""

    def __init__(self) -> None:
        self.failures: Counter[str] = Counter()
        self._turns: dict[str, float] = {}
        self._wakes: dict[str, asyncio.Event] = {}

    async def forever(self, name: str, work: Work) -> None:
        """Do ``work`` again and again; it returns the seconds until its next turn.

        A failure is logged when it begins and when it is over, counted, and tried again after
        1, 2, 4, … LONGEST seconds.
        """
        wake = self._wakes.setdefault(name, asyncio.Event())
        failed = 0
        while True:
            self._turns[name] = time.monotonic()
            wake.clear()
            try:
                pause = await work()
                if failed:
                    log.info("%s: works again after %d failures", name, failed)
                failed = 0
            except Exception as error:
                pause = min(2.0**failed, LONGEST)
                failed += 1
                self.failures[name] += 1
                if failed == 1:
                    log.warning("%s: %s", name, error or type(error).__name__, exc_info=_odd(error))
            await self._rest(wake, pause)

    def wake(self, name: str) -> None:
        """Let a task have its next turn now."""
        self._wakes.setdefault(name, asyncio.Event()).set()

    def turning(self, names: Iterable[str], within: float) -> bool:
        """Tell whether each of the tasks began a turn in the last ``within`` seconds."""
        now = time.monotonic()
        return all(now - self._turns.get(name, now) < within for name in names)

    async def _rest(self, wake: asyncio.Event, seconds: float) -> None:
        try:
            async with asyncio.timeout(None if seconds == NEVER else seconds):
                await wake.wait()
        except TimeoutError:
            return


def _odd(error: Exception) -> bool:
    """Tell whether an error is none of those one expects, so that its origin must be logged."""
    return not isinstance(error, OSError) and not type(error).__module__.startswith("backup_mx")
