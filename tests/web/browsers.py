"""Chromium for tests: fixtures of pytest."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack

import pytest
from playwright.sync_api import Browser, BrowserContext, Playwright, expect, sync_playwright
from screens import Screen, Show, running
from web_world import PretendView

CHROMIUM = "/usr/bin/chromium"
PATIENCE = 15_000  # milliseconds for anything to appear
PHONE, DESK = (360, 740), (1280, 900)

WATCH = """
document.addEventListener("securitypolicyviolation", (event) =>
  console.error(`policy: ${event.violatedDirective} ${event.blockedURI}`));
"""


@pytest.fixture(scope="module")  # asyncio.run fails while Playwright runs
def playwright() -> Iterator[Playwright]:
    """Yield Playwright; it ends its browsers with itself."""
    expect.set_options(timeout=PATIENCE)  # which a context's default does not reach
    with sync_playwright() as started:
        yield started


@pytest.fixture(scope="module")  # asyncio.run fails while Playwright runs
def chromium(playwright: Playwright) -> Iterator[Browser]:
    """Yield the system's own Chromium. As root it has no sandbox; it sees our pages only."""
    browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
    yield browser
    browser.close()


@pytest.fixture
def show(chromium: Browser) -> Iterator[Show]:
    """Return a maker of screens; what they complained of fails the test at its end."""
    screens: list[Screen] = []
    with ExitStack() as stack:

        def made(
            view: PretendView, *, dark: bool = False, phone: bool = False, script: bool = True
        ) -> Screen:
            address = stack.enter_context(running(view))
            context = _context(chromium, dark=dark, phone=phone, script=script)
            stack.callback(context.close)
            screen = Screen(context.new_page(), address)
            screen.watch()
            screens.append(screen)
            return screen

        yield made
    assert [each for screen in screens for each in screen.complaints] == []


def _context(browser: Browser, *, dark: bool, phone: bool, script: bool) -> BrowserContext:
    width, height = PHONE if phone else DESK
    context = browser.new_context(
        viewport={"width": width, "height": height},
        color_scheme="dark" if dark else "light",
        reduced_motion="reduce",
        java_script_enabled=script,
        has_touch=phone,
        is_mobile=phone,
    )
    context.set_default_timeout(PATIENCE)
    if script:
        context.add_init_script(WATCH)
    return context
