"""A browser without a screen: speaks HTTP to the dashboard, keeps cookies, fills in forms."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlencode

import aiohttp
from aiohttp.test_utils import TestClient, TestServer
from web_world import PretendView
from yarl import URL

from backup_mx.relay.web.application import application
from backup_mx.relay.web.guard import Guard


@dataclass(frozen=True)
class Answer:
    """What came back."""

    status: int
    headers: Mapping[str, str]
    text: str

    @property
    def token(self) -> str:
        """The token that the page's forms carry."""
        found = re.search(r'name="token" value="([0-9a-f]{64})"', self.text)
        assert found, self.text
        return found[1]


@dataclass
class Browser:
    """One browser at one dashboard."""

    client: TestClient[Any, Any]
    view: PretendView

    @property
    def origin(self) -> str:
        """How the browser names where it is."""
        return f"http://127.0.0.1:{self.client.port}"

    async def get(self, path: str, **headers: str) -> Answer:
        """Ask for a page; the path goes out as it stands."""
        return await self.ask("GET", path, headers=headers)

    async def ask(
        self, method: str, path: str, body: str = "", headers: Mapping[str, str] | None = None
    ) -> Answer:
        """Ask for anything at all."""
        url = URL(f"{self.origin}{path}", encoded=True)
        async with self.client.session.request(
            method, url, data=body or None, headers=headers, allow_redirects=False
        ) as answer:
            return Answer(answer.status, answer.headers, await answer.text())

    async def post(
        self, path: str, fields: Mapping[str, str | list[str]], **headers: str
    ) -> Answer:
        """Send a form as a browser does."""
        usual = {"Origin": self.origin, "Content-Type": "application/x-www-form-urlencoded"}
        body = urlencode(fields, doseq=True)
        return await self.ask("POST", path, body, usual | headers)

    async def submit(self, page: str, path: str, /, **fields: str | list[str]) -> Answer:
        """Open a page and send a form of it."""
        token = (await self.get(page)).token
        return await self.post(path, {"token": token, **fields})


def browse(
    view: PretendView, visit: Callable[[Browser], Awaitable[None]], guard: Guard | None = None
) -> None:
    """Start a dashboard, visit it, and stop it again."""

    async def run() -> None:
        server = TestServer(application(guard or Guard(view)), host="127.0.0.1")
        jar = aiohttp.CookieJar(unsafe=True)  # cookies of an IP address, too
        async with TestClient(server, cookie_jar=jar) as client:
            await visit(Browser(client, view))

    asyncio.run(asyncio.wait_for(run(), 60))
