"""A browser without a screen, somewhere in the lab, at a relay's own dashboard: plain HTTP."""

from __future__ import annotations

import http.client
from collections.abc import Mapping
from dataclasses import dataclass, field
from html.parser import HTMLParser
from http.cookies import SimpleCookie
from urllib.parse import urlencode

from relays import ADDRESS, Relay

from backup_mx.lab import names, network

PORT = 8025
ORIGIN = f"http://{ADDRESS}:{PORT}"
_REDIRECTS = 5


@dataclass
class Form:
    """A form of a page: where it goes, what its hidden fields hold, what its buttons say."""

    action: str
    fields: dict[str, str] = field(default_factory=dict)
    buttons: list[str] = field(default_factory=list)


class _Forms(HTMLParser):
    """Collects a page's forms."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[Form] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = {name: value or "" for name, value in attrs}
        if tag == "form":
            self.found.append(Form(given["action"]))
        elif tag == "input" and given.get("type") == "hidden":
            self.found[-1].fields[given["name"]] = given["value"]
        elif tag == "button" and self.found:
            self.found[-1].buttons.append(given.get("value", ""))


@dataclass(frozen=True)
class Page:
    """What came back; path is where from."""

    path: str
    status: int
    headers: Mapping[str, str]
    text: str

    def form(self, action: str) -> Form:
        """Return its form that goes there. Raises StopIteration where there is none."""
        forms = _Forms()
        forms.feed(self.text)
        return next(each for each in forms.found if each.action == action)

    def offers(self, action: str, button: str = "") -> bool:
        """Tell whether one may do that here."""
        forms = _Forms()
        forms.feed(self.text)
        return any(each.action == action and button in each.buttons for each in forms.found)


@dataclass
class Browser:
    """One browser, at an address of ``internet``; patience is in seconds."""

    relay: Relay
    source: str
    patience: float = 20.0  # the first who looks waits for the web libraries
    cookies: dict[str, str] = field(default_factory=dict)

    def get(self, path: str) -> Page:
        """Open a page. Raises OSError where nobody answers."""
        return self._followed(self.ask("GET", path))

    def submit(self, page: Page, action: str, **chosen: str) -> Page:
        """Send a form of a page, with what is chosen or typed on it."""
        fields = urlencode(page.form(action).fields | chosen)
        usual = {"Content-Type": "application/x-www-form-urlencoded", "Origin": ORIGIN}
        usual |= {"Referer": f"{ORIGIN}{page.path}", "Sec-Fetch-Site": "same-origin"}
        return self._followed(self.ask("POST", action, fields, usual))

    def ask(
        self, method: str, path: str, body: str = "", headers: Mapping[str, str] | None = None
    ) -> Page:
        """Ask once, and keep the cookies that come."""
        client = http.client.HTTPConnection(
            ADDRESS, PORT, timeout=self.patience, source_address=(self.source, 0)
        )
        with network.inside(names.scoped(self.relay.world.name, "internet")):
            client.connect()
        try:
            kept = "; ".join(f"{name}={value}" for name, value in self.cookies.items())
            own = {"Cookie": kept} if kept else {}
            client.request(method, path, body or None, {**own, **(headers or {})})
            answer = client.getresponse()
            for line in answer.headers.get_all("Set-Cookie", ()):
                self.cookies |= {name: each.value for name, each in SimpleCookie(line).items()}
            return Page(path, answer.status, dict(answer.headers), answer.read().decode())
        finally:
            client.close()

    def _followed(self, page: Page) -> Page:
        for _ in range(_REDIRECTS):
            if page.status != http.client.SEE_OTHER:
                return page
            page = self.ask("GET", page.headers["Location"])
        raise AssertionError(f"redirected without end: {page.path}")
