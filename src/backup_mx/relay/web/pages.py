"""The pages that only look: the queue, one message, the ledger, what was done, and log-in."""

from __future__ import annotations

import math
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlencode

from aiohttp import web

from backup_mx.errors import BackupMxError
from backup_mx.relay.ledger.query import Reader
from backup_mx.relay.ledger.rows import Action, Attempt, Filter, Row
from backup_mx.relay.ledger.veil import Veil
from backup_mx.relay.queue import queueid, reasons
from backup_mx.relay.state import FATES, HELD, WAITING
from backup_mx.relay.web.visit import Form, Visit

PAGE = 50
"""Messages on a page of the queue."""
MOST = 10_000
"""Messages that one form may change; MOST_DELETED of them at a time are deleted."""
MOST_DELETED = 1000
LONGEST = 200
"""Characters of a search that are looked at."""
AGES = (
    ("", "any age"),
    ("3600", "over 1 hour"),
    ("14400", "over 4 hours"),
    ("86400", "over 1 day"),
    ("604800", "over 7 days"),
)
DIFFERENCES, ACTIONS, CHANGES = 200, 200, 200


@dataclass(frozen=True)
class Wanted:
    """Which messages the queue's page shows, as its address says it."""

    search: str = ""
    domain: str = ""
    why: str = ""
    fate: str = ""
    older: str = ""
    page: int = 1

    @property
    def filter(self) -> Filter:
        """The same, for the ledger."""
        return Filter(
            domain=self.domain,
            why=self.why,
            fate=self.fate,
            older=float(self.older or 0),
            search=self.search,
            limit=PAGE,
            offset=PAGE * (self.page - 1),
        )

    @property
    def fields(self) -> dict[str, str]:
        """What makes it up, for the fields of a form: all but the page."""
        named = {
            "search": self.search,
            "domain": self.domain,
            "why": self.why,
            "fate": self.fate,
            "older": self.older,
        }
        return {name: value for name, value in named.items() if value}

    def at(self, page: int) -> str:
        """Return the address of another page of the same messages."""
        return "/queue?" + urlencode(self.fields | {"page": str(page)})


def wanted(form: Form) -> Wanted:
    """Read a filter; what is none of its values is as if it were not there."""

    def one_of(name: str, known: tuple[str, ...]) -> str:
        value = next(iter(form.get(name, ())), "")
        return value if value in known else ""

    def text(name: str) -> str:
        return next(iter(form.get(name, ())), "").strip()[:LONGEST]

    number = text("page")
    return Wanted(
        search=text("search"),
        domain=text("domain").lower(),
        why=one_of("why", reasons.CLASSES),
        fate=one_of("fate", FATES),
        older=one_of("older", tuple(value for value, _ in AGES)),
        page=min(10**6, max(1, int(number))) if number.isdecimal() and number.isascii() else 1,
    )


def asked(request: web.Request) -> Form:
    """Return the query's fields, as a form has them."""
    return {name: tuple(request.query.getall(name)) for name in request.query}


async def queue(visit: Visit) -> web.Response:
    """Answer GET /queue."""
    want = wanted(asked(visit.request))
    rows, total = await visit.read(lambda reader: _listed(reader, want))
    pages = max(1, math.ceil(total / PAGE))
    if want.page > pages:
        raise web.HTTPSeeOther(want.at(pages))
    return visit.page(
        "queue.html",
        rows=rows,
        total=total,
        pages=pages,
        most=MOST,
        most_deleted=MOST_DELETED,
        first=PAGE * (want.page - 1) + 1,
        want=want,
        domains=sorted({each for to in visit.view.settings.targets for each in to.domains}),
        classes=reasons.CLASSES,
        fates=FATES,
        ages=AGES,
    )


def _listed(reader: Reader, want: Wanted) -> tuple[list[Row], int]:
    return reader.waiting(want.filter), reader.total(want.filter)


async def message(visit: Visit) -> web.Response:
    """Answer GET /message/ID; ?body=1 shows the body as well."""
    queue_id = valid_id(visit.request.match_info["id"])
    body = visit.request.query.get("body") == "1"
    story, veil = await visit.read(lambda reader: (reader.message(queue_id), reader.veil()))
    if story is None:
        raise web.HTTPNotFound(text=f"The ledger knows no message {queue_id}.")
    content, trouble = None, ""
    names: dict[str, str] = {}
    if story.row.fate in (WAITING, HELD):
        try:
            content = await visit.view.show(story.row.id, body)
        except BackupMxError as error:
            trouble = str(error)
        else:
            names = _names(content, veil)
    events: list[Action | Attempt] = [*story.actions, *story.attempts]
    return visit.page(
        "message.html",
        story=story,
        row=story.row,
        name=lambda address: names.get(address, address),
        events=sorted(events, key=_began),
        content=content,
        trouble=trouble,
        body=body,
    )


def _names(content: Mapping[str, Any], veil: Veil) -> dict[str, str]:
    """Return the addresses of a message's envelope, by how each may stand in the ledger."""
    addresses = [content["sender"], *(each["address"] for each in content["recipients"])]
    return {form: each for each in addresses if each for form in veil.forms(each)}


def _began(event: Action | Attempt) -> float:
    return event.time if isinstance(event, Action) else event.first


def valid_id(text: str) -> str:
    """Return a queue ID. Raises HTTPNotFound for what cannot be one."""
    if not queueid.valid(text):
        raise web.HTTPNotFound(text="That is no queue ID.")
    return text


async def ledger(visit: Visit) -> web.Response:
    """Answer GET /ledger."""
    found = await visit.read(lambda reader: (reader.sums(), reader.differences(DIFFERENCES)))
    return visit.page(
        "ledger.html",
        sums=found[0],
        differences=found[1],
        snapshot=visit.view.snapshot(),
        most=DIFFERENCES,
    )


async def activity(visit: Visit) -> web.Response:
    """Answer GET /activity."""
    since = time.time() - 30 * 86_400
    changes, actions = await visit.read(
        lambda reader: (reader.states(since), reader.actions(ACTIONS))
    )
    return visit.page("activity.html", changes=list(reversed(changes))[:CHANGES], actions=actions)


async def entrance(visit: Visit) -> web.Response:
    """Answer GET /login."""
    if visit.session.trusted:
        raise web.HTTPSeeOther("/")
    return visit.page("login.html", said="")
