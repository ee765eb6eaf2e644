"""One request that has passed the guard, and what a page needs to answer it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from concurrent.futures import Executor
from dataclasses import dataclass
from typing import TypeVar

from aiohttp import web

from backup_mx.relay.ledger.query import Reader
from backup_mx.relay.web.session import Session
from backup_mx.relay.web.view import View

BY = "dashboard"
"""Who the record says did it; the address stands beside it."""

_Found = TypeVar("_Found")
Form = Mapping[str, tuple[str, ...]]


@dataclass(frozen=True)
class Visit:
    """Who asks for what: the request, its session, the form's fields (empty for a GET)."""

    request: web.Request
    view: View
    session: Session
    token: str
    form: Form
    address: str
    thread: Executor

    async def read(self, question: Callable[[Reader], _Found]) -> _Found:
        """Ask the ledger in the thread for that, so that the agent goes on meanwhile."""

        def ask() -> _Found:
            with self.view.reader() as reader:
                return question(reader)

        return await asyncio.get_running_loop().run_in_executor(self.thread, ask)

    def first(self, name: str) -> str:
        """Return a field of the form, "" where it is missing."""
        return next(iter(self.form.get(name, ())), "")

    def page(self, template: str, status: int = 200, **values: object) -> web.Response:
        """Render a page of the dashboard."""
        from backup_mx.relay.web.rendering import render  # only now: see there

        settings = self.view.settings
        text = render(
            template,
            token=self.token,
            path=self.request.path,
            relay=settings.relay,
            hostname=settings.hostname,
            can_act=settings.dashboard_actions,
            can_leave=bool(settings.dashboard_password),
            trusted=self.session.trusted,
            **values,
        )
        return web.Response(text=text, content_type="text/html", status=status)
