"""Who may do what on the dashboard: everything that a request passes before a page sees it.

In this order: the peer's address, the name it asked for (against DNS rebinding), the session, and,
for whatever changes something, the origin and the form's token (against forged requests).
https://cheatsheetseries.owasp.org/cheatsheets/Cross-Site_Request_Forgery_Prevention_Cheat_Sheet.html
"""

from __future__ import annotations

import logging
import time
from collections.abc import Awaitable, Callable
from concurrent.futures import Executor, ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlsplit

from aiohttp import web

from backup_mx.errors import BackupMxError
from backup_mx.relay.settings import Settings
from backup_mx.relay.web.serving import here, may_ask, peer
from backup_mx.relay.web.session import Guesses, Session, Sessions, same
from backup_mx.relay.web.view import View
from backup_mx.relay.web.visit import Form, Visit

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]
Middleware = Any  # aiohttp 3.8 has no name for it
Page = Callable[[Visit], Awaitable[web.Response]]

_log = logging.getLogger(__name__)

HEADERS = {
    "Content-Security-Policy": "default-src 'none'; style-src 'self'; script-src 'self'; "
    "img-src 'self'; connect-src 'self'; form-action 'self'; frame-ancestors 'none'; "
    "base-uri 'none'",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    # With "no-referrer", a browser sends "Origin: null" with our own forms as well (Fetch, 3.2.4).
    "Referrer-Policy": "same-origin",
    "Cache-Control": "no-store",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Permissions-Policy": "camera=(), geolocation=(), microphone=()",
}
FORM = "application/x-www-form-urlencoded"
LARGEST_FORM = 64 * 1024


@dataclass
class Guard:
    """What stands between the network and the pages, and remembers who is logged in."""

    view: View
    sessions: Sessions = field(default_factory=Sessions)
    guesses: Guesses = field(default_factory=Guesses)
    thread: Executor = field(default_factory=lambda: ThreadPoolExecutor(1, "dashboard"))

    def admit(self, request: web.Request) -> None:
        """Let in only peers that the settings name, and only under a name that is ours."""
        settings = self.view.settings
        outside = settings.dashboard_from if settings.dashboard_password else ()
        if not may_ask(peer(request.transport), outside):
            raise web.HTTPForbidden(text="This address is not in access.dashboard_from.")
        if not settings.is_named(request.headers.get("Host", ""), here(request.transport)):
            raise web.HTTPMisdirectedRequest(
                text=f"The dashboard answers as localhost, as {settings.hostname}, "
                "or by the relay's address."
            )

    def guarded(self, page: Page, *, to_all: bool = False) -> Handler:
        """Return the handler of a page; to_all: whoever was admitted may open it."""

        async def handler(request: web.Request) -> web.StreamResponse:
            known = self._session(request)
            session = known or self.begin(not self.view.settings.dashboard_password)
            if not (session.trusted or to_all):
                raise web.HTTPSeeOther("/login")
            response = await page(await self._visit(request, session))
            if known is None and not response.cookies:
                self.remember(request, response, session)
            return response

        return handler

    def begin(self, trusted: bool) -> Session:
        """Return a new session."""
        return self.sessions.start(trusted, time.time())

    def remember(self, request: web.Request, response: web.Response, session: Session) -> None:
        """Give the browser the cookie of a session."""
        name, value = cookie_name(self.view.settings), self.sessions.cookie(session)
        secure = request.secure
        response.set_cookie(name, value, httponly=True, samesite="Strict", secure=secure)

    def _session(self, request: web.Request) -> Session | None:
        cookie = request.cookies.get(cookie_name(self.view.settings), "")
        return self.sessions.read(cookie, time.time())

    async def _visit(self, request: web.Request, session: Session) -> Visit:
        token = self.sessions.token(session)
        form = await _unforged(request, token) if request.method == "POST" else {}
        address = str(peer(request.transport) or "")
        return Visit(request, self.view, session, token, form, address, self.thread)


def dress(guard: Guard) -> Middleware:
    """Return the middleware that admits, and gives every answer headers, every failure a page."""

    @web.middleware
    async def middleware(request: web.Request, handler: Handler) -> web.StreamResponse:
        response: web.StreamResponse
        try:
            guard.admit(request)
            response = await handler(request)
        except web.HTTPRedirection as elsewhere:
            elsewhere.headers.update(HEADERS)
            raise
        except web.HTTPException as refused:
            response = _failed(refused)
        except BackupMxError as error:
            response = _problem(503, str(error))
        except Exception:
            _log.exception("a page of the dashboard failed: %r", request.path)
            response = _problem(500, "The dashboard has a fault; the agent's log names it.")
        response.headers.update(HEADERS)
        return response

    return middleware


def _failed(refused: web.HTTPException) -> web.Response:
    page = _problem(refused.status, refused.text or refused.reason)
    kept = {
        name: refused.headers[name] for name in ("Allow", "Retry-After") if name in refused.headers
    }
    page.headers.update(kept)
    return page


def _problem(status: int, words: str) -> web.Response:
    from backup_mx.relay.web.rendering import render  # only now: see there

    text = render("problem.html", status=status, words=words)
    return web.Response(text=text, content_type="text/html", status=status)


def cookie_name(settings: Settings) -> str:
    """Return the cookie's name: two relays behind two forwarded ports share "localhost"."""
    return f"backup-mx-{settings.relay}"


async def _unforged(request: web.Request, token: str) -> Form:
    """Return the fields of a form that a page of ours, of this session, has sent."""
    if request.content_type != FORM:
        raise web.HTTPUnsupportedMediaType(text="A form is needed.")
    origin = urlsplit(request.headers.get("Origin", ""))
    elsewhere = request.headers.get("Sec-Fetch-Site", "same-origin") != "same-origin"
    if elsewhere or origin.netloc.lower() != request.headers["Host"].lower():
        raise web.HTTPForbidden(text="This form was not sent by a page of this dashboard.")
    try:
        fields = await request.post()
    except (LookupError, ValueError):  # its charset is none, or another than it says
        raise web.HTTPBadRequest(text="This form cannot be read.") from None
    form = {name: tuple(map(str, fields.getall(name))) for name in fields}
    if not same(form.get("token", ("",))[0], token):
        raise web.HTTPForbidden(text="This form is out of date. Go back, reload, and try again.")
    return form
