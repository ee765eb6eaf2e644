"""The dashboard put together: addresses, pages, static files; site has it answer."""

from __future__ import annotations

import socket
from collections.abc import Awaitable, Callable, Iterable
from pathlib import Path

from aiohttp import web

from backup_mx.relay.web import forms, overview, pages
from backup_mx.relay.web.guard import LARGEST_FORM, Guard, dress
from backup_mx.relay.web.serving import BACKLOG

STATIC = Path(__file__).parent / "static"
KINDS = {".css": "text/css", ".js": "text/javascript", ".svg": "image/svg+xml"}


def application(guard: Guard) -> web.Application:
    """Return the dashboard, not yet listening."""
    app = web.Application(middlewares=[dress(guard)], client_max_size=LARGEST_FORM)
    page = guard.guarded
    app.router.add_get("/", page(overview.overview))
    app.router.add_get("/queue", page(pages.queue))
    app.router.add_get("/message/{id}", page(pages.message))
    app.router.add_get("/ledger", page(pages.ledger))
    app.router.add_get("/activity", page(pages.activity))
    app.router.add_get("/login", page(pages.entrance, to_all=True))
    app.router.add_post("/login", page(forms.log_in(guard), to_all=True))
    app.router.add_post("/logout", page(forms.log_out(guard)))
    app.router.add_post("/act", page(forms.act))
    app.router.add_post("/drain", page(forms.drain))
    for path in STATIC.iterdir():
        app.router.add_get(f"/static/{path.name}", _static(path))

    async def close(_: web.Application) -> None:
        guard.thread.shutdown(wait=False, cancel_futures=True)

    app.on_cleanup.append(close)
    return app


def _static(path: Path) -> Callable[[web.Request], Awaitable[web.Response]]:
    content, kind = path.read_bytes(), KINDS[path.suffix]

    async def handler(_: web.Request) -> web.Response:
        return web.Response(body=content, content_type=kind, charset="utf-8")

    return handler


async def run(guard: Guard, listeners: Iterable[socket.socket]) -> web.AppRunner:
    """Answer at these sockets; the runner's cleanup ends that and closes them."""
    runner = web.AppRunner(application(guard), access_log=None, handle_signals=False)
    await runner.setup()
    for each in listeners:
        await web.SockSite(runner, each, backlog=BACKLOG).start()
    return runner
