"""Tasks that survive their own failures, and threads that hold nobody up."""

from __future__ import annotations

import asyncio
import logging
import threading
import time
from collections.abc import Awaitable, Callable

import pytest

from backup_mx.errors import MachineError
from backup_mx.relay.tasks.tending import NEVER, Tending
from backup_mx.relay.tasks.threads import Worker, aside


def run(work: Callable[[], Awaitable[float]], until: Callable[[Tending], bool]) -> Tending:
    """Run a task until it has come so far."""
    found = Tending()

    async def main() -> None:
        task = asyncio.create_task(found.forever("task", work))
        async with asyncio.timeout(10):
            while not until(found):
                await asyncio.sleep(0.001)
                found.wake("task")
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)

    asyncio.run(main())
    return found


def test_a_failing_task_goes_on(caplog: pytest.LogCaptureFixture) -> None:
    """It is told once when it fails, and once when it works again; each failure is counted."""
    turns = 0

    async def work() -> float:
        nonlocal turns
        turns += 1
        if 2 <= turns <= 4:
            raise MachineError("no helper")
        return 0.0

    with caplog.at_level(logging.INFO):
        found = run(work, lambda _: turns > 6)
    assert found.failures == {"task": 3}
    assert caplog.messages == ["task: no helper", "task: works again after 3 failures"]


def test_an_unexpected_failure_tells_where_it_was(caplog: pytest.LogCaptureFixture) -> None:
    """A mistake of ours comes with its traceback; an error one expects does not."""

    async def work() -> float:
        raise KeyError("x")

    run(work, lambda found: found.failures["task"] > 1)
    (record,) = caplog.records
    assert record.exc_info


def test_a_waiting_task_can_be_woken() -> None:
    """Even one that has nothing more to do."""
    turns = 0

    async def work() -> float:
        nonlocal turns
        turns += 1
        return NEVER

    run(work, lambda _: turns > 1)


def test_a_stuck_task_is_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    """The watchdog is fed only while the vital tasks turn."""
    now = time.monotonic()

    turned = threading.Event()

    async def work() -> float:
        turned.set()
        return NEVER

    found = run(work, lambda _: turned.is_set())
    assert found.turning(["task"], 60)
    monkeypatch.setattr(time, "monotonic", lambda: now + 100)
    assert not found.turning(["task"], 60)


def test_work_aside_returns_and_raises() -> None:
    """What a thread returns or raises arrives where it was waited for."""

    def fail() -> None:
        raise MachineError("no")

    async def main() -> None:
        assert await aside(lambda: 7) == 7
        with pytest.raises(MachineError, match="no"):
            await aside(fail)

    asyncio.run(main())


def test_one_worker_does_one_thing_at_a_time() -> None:
    """In order, always in the same thread."""
    done: list[tuple[int, int]] = []

    async def main() -> None:
        worker = Worker("test")
        jobs = [
            worker.do(lambda number=number: done.append((number, threading.get_ident())))  # type: ignore[misc]
            for number in range(20)
        ]
        await asyncio.gather(*jobs)

    asyncio.run(main())
    assert [number for number, _ in done] == list(range(20))
    assert len({thread for _, thread in done}) == 1


def test_a_stuck_thread_does_not_delay_the_end() -> None:
    """A walk that hangs is forgotten, and its late answer harms nobody."""
    go = threading.Event()
    began = time.monotonic()

    async def main() -> None:
        task = asyncio.create_task(aside(lambda: go.wait(10)))
        await asyncio.sleep(0)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)

    asyncio.run(main())
    assert time.monotonic() - began < 5
    go.set()
