"""Blocking work beside the event loop, in daemon threads: a stuck one never delays the stop."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from contextlib import suppress
from queue import SimpleQueue
from typing import TypeVar

T = TypeVar("T")
_Job = Callable[[], None]


async def aside(work: Callable[[], T]) -> T:
    """Do ``work`` in a thread of its own; return what it returns, raise what it raises."""
    done, job = _job(work)
    threading.Thread(target=job, daemon=True, name="aside").start()
    return await done


class Worker:
    """One thread that does everything it is given, in order: the owner of what only one may use."""

    def __init__(self, name: str) -> None:
        self._jobs: SimpleQueue[_Job] = SimpleQueue()
        threading.Thread(target=self._work, daemon=True, name=name).start()

    async def do(self, work: Callable[[], T]) -> T:
        """Do ``work`` in the thread; return what it returns, raise what it raises."""
        done, job = _job(work)
        self._jobs.put(job)
        return await done

    def _work(self) -> None:
        while True:
            self._jobs.get()()


def _job(work: Callable[[], T]) -> tuple[asyncio.Future[T], _Job]:
    """Return a future of this loop, and what fills it in when called in another thread."""
    loop = asyncio.get_running_loop()
    done: asyncio.Future[T] = loop.create_future()

    def tell(result: T | None, error: BaseException | None) -> None:
        if done.done():  # whoever waited was cancelled
            return
        if error is None:
            done.set_result(result)  # type: ignore[arg-type]
        else:
            done.set_exception(error)

    def job() -> None:
        result, failed = None, None
        try:
            result = work()
        except BaseException as error:
            failed = error
        with suppress(RuntimeError):  # the loop is closed: nobody waits any more
            loop.call_soon_threadsafe(tell, result, failed)

    return done, job
