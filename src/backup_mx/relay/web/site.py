"""The server of the dashboard, at port 8025: it listens at once, and is loaded when it is wanted.

aiohttp, Jinja2 and the pages cost 14 MiB: an operator who does not look does not pay for them.
"""

from __future__ import annotations

import asyncio
import contextlib
import importlib
import logging
import socket
from collections.abc import Sequence
from typing import Any

from backup_mx.relay.web.serving import Server, close, listeners, named
from backup_mx.relay.web.view import View

PORT = 8025
GRACE = 5.0
"""Seconds that a stop waits for what is being answered."""

_log = logging.getLogger(__name__)


async def serve(view: View, port: int = PORT) -> Server:
    """Show the dashboard on loopback, and to settings.dashboard_from if there is a password.

    Raises MachineError where the port is taken.
    """
    settings = view.settings
    bound = listeners(settings.dashboard_from if settings.dashboard_password else (), port)
    task = asyncio.create_task(_answer(view, bound))

    async def stop() -> None:
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task
        close(bound)  # a task that never began has not

    return Server(named(bound), stop)


async def _answer(view: View, bound: Sequence[socket.socket]) -> None:
    """Wait for somebody, load all that it takes, and answer until the task is cancelled."""
    runner: Any = None
    try:
        await _somebody(bound)
        modules = "backup_mx.relay.web.application", "backup_mx.relay.web.rendering"
        application, _ = [await asyncio.to_thread(importlib.import_module, one) for one in modules]
        runner = await application.run(application.Guard(view), bound)
        await asyncio.Event().wait()
    except Exception:
        _log.exception("the dashboard cannot answer; mail does not depend on it")
    finally:
        if runner:
            with contextlib.suppress(asyncio.TimeoutError):
                await asyncio.wait_for(runner.cleanup(), GRACE)
        close(bound)


async def _somebody(bound: Sequence[socket.socket]) -> None:
    """Return when the first connection waits to be accepted."""
    loop, came = asyncio.get_running_loop(), asyncio.Event()
    for each in bound:
        loop.add_reader(each, came.set)
    try:
        await came.wait()
    finally:
        for each in bound:
            loop.remove_reader(each)
