"""The dashboard in a real browser; whatever its policy stops, or its console says, fails the test.

Where PICTURES names a folder, every page opened leaves a picture there, to be looked at.
"""

from __future__ import annotations

import asyncio
import os
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from playwright.sync_api import (
    ConsoleMessage,
    Page,
    Request,
)

sys.path.insert(0, str(Path(__file__).parents[1] / "unit"))  # the agent made up for tests is there

from web_world import PretendView

from backup_mx.relay.web.site import serve


@contextmanager
def running(view: PretendView) -> Iterator[str]:
    """Run a dashboard in a thread; yield its address."""
    loop, started = asyncio.new_event_loop(), threading.Event()
    thread = threading.Thread(target=loop.run_forever, daemon=True)
    thread.start()
    loop.call_soon_threadsafe(started.set)
    assert started.wait(10), "the thread of the dashboard did not start"
    server = asyncio.run_coroutine_threadsafe(serve(view, port=0), loop).result(10)
    try:
        yield f"http://{server.addresses[0]}"
    finally:
        asyncio.run_coroutine_threadsafe(server.stop(), loop).result(20)
        loop.call_soon_threadsafe(loop.stop)
        thread.join(10)
        loop.close()


@dataclass
class Screen:
    """One browser window at one dashboard, and what it complained of."""

    page: Page
    address: str
    complaints: list[str] = field(default_factory=list)
    requests: list[str] = field(default_factory=list)

    def open(self, path: str) -> Page:
        """Go to a page of the dashboard."""
        self.page.goto(f"{self.address}{path}")
        return self.page

    def watch(self) -> None:
        """Begin to listen for complaints, and for requests that go elsewhere."""
        self.page.on("pageerror", lambda error: self.complaints.append(str(error)))
        self.page.on("dialog", lambda dialog: self.complaints.append(dialog.message))
        self.page.on("console", self._said)
        self.page.on("request", self._asked)

    def _said(self, message: ConsoleMessage) -> None:
        refused = message.text.startswith("Failed to load resource: the server responded with")
        if refused and "/static/" not in message.location["url"]:
            return  # a page that says no is what some tests are about
        if message.type in ("error", "warning"):
            self.complaints.append(message.text)

    def _asked(self, request: Request) -> None:
        self.requests.append(request.url)
        if not request.url.startswith(self.address):
            self.complaints.append(f"request to {request.url}")


Show = Callable[..., Screen]


def picture(page: Page, name: str, *, whole: bool = True) -> None:
    """Leave a picture, where somebody wants to look at it."""
    folder = os.environ.get("PICTURES")
    if folder:
        page.screenshot(path=Path(folder) / f"{name}.png", full_page=whole)
