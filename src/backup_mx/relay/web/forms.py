"""What changes something: hold, release, requeue, delete, drain, log-in and log-out."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from dataclasses import replace

from aiohttp import web

from backup_mx.relay.ledger.query import Reader
from backup_mx.relay.ledger.rows import Filter, Row
from backup_mx.relay.queue import queueid
from backup_mx.relay.root.protocol import Result
from backup_mx.relay.state import HELD, WAITING
from backup_mx.relay.text import counted
from backup_mx.relay.web.guard import Guard, Page
from backup_mx.relay.web.pages import MOST, MOST_DELETED, Wanted, wanted
from backup_mx.relay.web.serving import peer
from backup_mx.relay.web.session import same
from backup_mx.relay.web.shown import DONE, VERBS
from backup_mx.relay.web.visit import BY, Visit

_CHANGED = {"hold": WAITING, "release": HELD}
"""The fate of what a verb is for: so what one form did not get to is the first of the next."""
_NAMED = 20  # on the page that asks
_SLOW = 1.0  # seconds that a wrong password takes


async def act(visit: Visit) -> web.Response:
    """Answer POST /act: change the messages chosen, or ask first if they would be deleted."""
    _must_be_allowed(visit)
    verb, want = visit.first("verb"), wanted(visit.form)
    if verb not in VERBS:
        raise web.HTTPBadRequest(text="There is no such action.")
    ids, left = await _chosen(visit, want, verb)
    if verb == "delete" and ids and visit.first("sure") != "yes":
        return await _ask(visit, ids, left, want)
    results = await visit.view.change(verb, ids, BY, visit.address) if ids else ()
    return _told(visit, verb, results, left, want)


async def drain(visit: Visit) -> web.Response:
    """Answer POST /drain: try all waiting mail now."""
    _must_be_allowed(visit)
    await visit.view.drain(BY, visit.address)
    title = "All waiting mail is being tried now"
    return visit.page("done.html", title=title, back="/", failed=(), left=0)


def _must_be_allowed(visit: Visit) -> None:
    if not visit.view.settings.dashboard_actions:
        raise web.HTTPForbidden(
            text="This dashboard only looks: access.dashboard_actions is off in the config."
        )


async def _chosen(visit: Visit, want: Wanted, verb: str) -> tuple[list[str], int]:
    """Return which messages are meant, and how many more there are than one form may change."""
    most = MOST_DELETED if verb == "delete" else MOST
    if visit.first("all") == "yes":
        fate = want.fate or _CHANGED.get(verb, "")
        meant = replace(want.filter, fate=fate, limit=most, offset=0)
        return await visit.read(lambda reader: _matching(reader, meant))
    ids = list(dict.fromkeys(visit.form.get("id", ())))
    if not all(map(queueid.valid, ids)):
        raise web.HTTPBadRequest(text="One of these is no queue ID.")
    return ids[:most], len(ids[most:]) + _left(visit)


def _matching(reader: Reader, meant: Filter) -> tuple[list[str], int]:
    ids = reader.ids(meant)
    return ids, reader.total(meant) - len(ids)


def _left(visit: Visit) -> int:
    """Return how many more there were when it was asked whether these may be deleted."""
    left = visit.first("left")
    return int(left) if left.isascii() and left.isdecimal() and len(left) < 10 else 0


async def _ask(visit: Visit, ids: Sequence[str], left: int, want: Wanted) -> web.Response:
    """Name what is to be deleted; the form carries the very IDs, so that nothing else is."""
    rows = await visit.read(lambda reader: _rows(reader, ids[:_NAMED]))
    return visit.page(
        "delete.html",
        ids=ids,
        rows=rows,
        more=len(ids) - len(rows),
        left=left,
        fields=_kept(visit, want),
        back=_back(visit, want),
    )


def _rows(reader: Reader, ids: Sequence[str]) -> list[Row]:
    stories = (reader.message(each) for each in ids)
    return [story.row for story in stories if story]


def _told(
    visit: Visit, verb: str, results: Sequence[Result], left: int, want: Wanted
) -> web.Response:
    done = sum(each.done for each in results)
    failed = [each for each in results if not each.done]
    words = f"{counted(done)} {DONE[verb]}"
    title = words if results else "No message was chosen"
    return visit.page(
        "done.html", title=title, failed=failed, left=left, verb=verb, back=_back(visit, want)
    )


def _kept(visit: Visit, want: Wanted) -> dict[str, str]:
    of = visit.first("of")
    return want.fields | ({"of": of} if queueid.valid(of) else {})


def _back(visit: Visit, want: Wanted) -> str:
    """Return where the form came from: never an address that the form itself names."""
    of = visit.first("of")
    return f"/message/{of}" if queueid.valid(of) else want.at(want.page)


def log_in(guard: Guard) -> Page:
    """Return what answers POST /login; it needs to know the guesses and begin a session."""

    async def handler(visit: Visit) -> web.Response:
        address, now = peer(visit.request.transport), time.time()
        if address is None:
            raise web.HTTPForbidden
        wait = guard.guesses.wait(address, now)
        if wait > 0:
            said = f"Too many wrong passwords. Wait {max(1, round(wait / 60))} min."
            page = visit.page("login.html", status=429, said=said)
            page.headers["Retry-After"] = str(round(wait) + 1)
            return page
        password = visit.view.settings.dashboard_password
        if not password or not same(visit.first("password"), password):
            guard.guesses.note(address, now)
            await asyncio.sleep(_SLOW)
            return visit.page("login.html", status=403, said="That is not the password.")
        response = web.Response(status=303, headers={"Location": "/"})
        guard.remember(visit.request, response, guard.begin(trusted=True))
        return response

    return handler


def log_out(guard: Guard) -> Page:
    """Return what answers POST /logout."""

    async def handler(visit: Visit) -> web.Response:
        guard.sessions.end(visit.session)
        response = web.Response(status=303, headers={"Location": "/login"})
        guard.remember(visit.request, response, guard.begin(trusted=False))
        return response

    return handler
