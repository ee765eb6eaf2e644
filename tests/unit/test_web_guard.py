"""What the dashboard does to those who are not let in, and to what they send."""

from __future__ import annotations

import asyncio
import ipaddress
import time
from collections.abc import Awaitable, Callable
from dataclasses import replace
from html.parser import HTMLParser

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from web_client import Answer, Browser, browse
from web_world import PASSWORD, PretendView, queue_id, view

from backup_mx.relay.ledger.rows import Action, Attempt, Difference, Recipient
from backup_mx.relay.state import Primary, TableState, Walk
from backup_mx.relay.web import forms
from backup_mx.relay.web.guard import Guard
from backup_mx.relay.web.serving import may_ask
from backup_mx.relay.web.session import GUESSES, LIFETIME, WINDOW, Guesses, Sessions

XSS = (
    '"><script>alert(1)</script>',
    "'><img src=x onerror=alert(1)>",
    "</textarea></title><svg/onload=alert(1)>",
    "javascript:alert(1)",
    "{{ 7 * 7 }}{% raw %}",
    "&lt;b&gt;",
    "\u202egnp.exe\u2066\u200b\ufeff",
    "one\r\nSet-Cookie: two=3\x00\x1b[31m\x7f\x85\u2028",
    "a" * 5000,
    "\ud800",
)
PAGES = ("/", "/queue", "/ledger", "/activity", f"/message/{queue_id(1)}?body=1")


class Tags(HTMLParser):
    """Every element, attribute and text of a page."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.names: set[str] = set()
        self.attributes: set[str] = set()
        self.links: set[str] = set()
        self.texts = ""
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.names.add(tag)
        self.attributes |= {name for name, _ in attrs}
        self.links |= {value or "" for name, value in attrs if name in ("href", "src", "action")}
        self.texts += "".join(value or "" for _, value in attrs)

    def handle_data(self, data: str) -> None:
        self.texts += data


def hostile(text: str) -> PretendView:
    """Return an agent that met nobody honest: every text there is, is ``text``."""
    bad = view(3)
    now, each = bad.ledger.now, bad.ledger.rows[queue_id(1)]
    attempt = Attempt(text, text, text, text, text, text, now - 5, now - 1, 2)
    to = (Recipient(text, text, False, attempt),) * 2
    row = replace(
        each, why=text, words=text, sender=text, message_id=text, domain=text, to=2,
        recipients=to, asked_by=text, trouble=text, attempts=1,
    )  # fmt: skip
    bad.ledger.rows[row.id] = row
    bad.ledger.rows[queue_id(2)] = replace(row, id=queue_id(2), fate="held")
    bad.ledger.done.append(Action(now, text, row.id, text, text, False))
    bad.ledger.found_differences = [Difference(row.id, text, now, now, text, (text, text))]
    bad.ledger.words = bad.headers = bad.body = text
    walk = Walk(now, False, text, text, text, 1.0, (text,))
    bad.changes = {
        "primaries": (Primary(text, "down", now - 9, walk=walk, paused=text),),
        "tables": (TableState(text, 1, now, text),),
        "version": text,
    }
    return bad


@pytest.mark.parametrize("text", XSS)
def test_text_from_strangers_stays_text(text: str) -> None:
    """Whatever stands in mail, log or answers: the same elements and links as without it."""
    found: dict[str, list[Tags]] = {path: [] for path in PAGES}

    async def visit(browser: Browser) -> None:
        for path in PAGES:
            answer = await browser.get(path)
            assert answer.status == 200
            found[path].append(Tags(answer.text))

    browse(hostile("plain"), visit)
    browse(hostile(text), visit)
    for path, (plain, bad) in found.items():
        assert bad.names == plain.names, path
        assert bad.attributes == plain.attributes, path
        assert all(link.startswith(("/", "#")) for link in bad.links), path
        invisible = {c for c in bad.texts if not (c.isprintable() or c in "\n\t")}
        assert not invisible, path


def test_what_is_invisible_is_shown() -> None:
    """A control character, and one that turns the text round, are there to be seen."""

    async def visit(browser: Browser) -> None:
        text = (await browser.get(f"/message/{queue_id(1)}")).text
        assert "\u27e8U+202E\u27e9evil\u27e8U+001B\u27e9" in text

    browse(hostile("\u202eevil\x1b"), visit)


@pytest.mark.parametrize("text", XSS[:4])
def test_what_comes_back_from_the_address_is_text(text: str) -> None:
    """A search is shown in its field, and nowhere as markup."""

    async def visit(browser: Browser) -> None:
        from urllib.parse import quote  # the address itself is hostile here

        for name in ("search", "domain", "why", "fate", "older", "page"):
            answer = await browser.get(f"/queue?{name}={quote(text)}")
            assert answer.status == 200
            assert "<script>alert" not in answer.text
            assert "<img" not in answer.text

    browse(view(3), visit)


def test_every_answer_has_the_headers() -> None:
    """Pages, files, redirections and failures alike: no script, no frame, no cache, no sniffing."""

    async def visit(browser: Browser) -> None:
        for path in (*PAGES, "/static/style.css", "/static/page.js", "/nope", "/message/x", "/act"):
            headers = (await browser.get(path)).headers
            policy = headers["Content-Security-Policy"]
            assert policy.startswith("default-src 'none'; ")
            assert "unsafe" not in policy
            assert "frame-ancestors 'none'" in policy
            assert headers["X-Content-Type-Options"] == "nosniff"
            assert headers["Cache-Control"] == "no-store"
            assert headers["Referrer-Policy"] == "same-origin"
            assert headers["Cross-Origin-Opener-Policy"] == "same-origin"

    browse(view(3), visit)


def test_pages_have_no_inline_script_or_style() -> None:
    """The policy would stop it; there is none to be stopped."""

    async def visit(browser: Browser) -> None:
        for path in PAGES:
            text = (await browser.get(path)).text
            assert " style=" not in text
            assert "<style" not in text
            assert text.count("<script") == 1
            assert " on" not in {name[:3] for name in Tags(text).attributes}

    browse(view(3), visit)


@pytest.mark.parametrize(
    ("host", "status"),
    [
        ("203.0.113.20:8025", 200),
        ("localhost:8025", 200),
        ("LOCALHOST", 200),
        ("127.0.0.1:9999", 200),
        ("[::1]:8025", 200),
        ("mx2.example.org:8025", 200),
        ("mx2.example.org.", 200),
        ("mx2", 200),
        ("evil.example", 421),
        ("localhost.evil.example", 421),
        ("mx2.example.org.evil.example", 421),
        ("192.0.2.1", 421),
        ("[::1", 421),
        ("", 421),
        ("localhost@evil.example", 421),
        ("0x7f.1", 421),
    ],
)
def test_only_names_that_are_ours(host: str, status: int) -> None:
    """A name that somebody else can point at this machine (DNS rebinding) leads nowhere."""

    async def visit(browser: Browser) -> None:
        answer = await browser.get("/", Host=host)
        assert answer.status == status
        assert ("137 messages" in answer.text) == (status == 200)

    browse(view(), visit)


@pytest.mark.parametrize(
    ("address", "networks", "let_in"),
    [
        ("127.0.0.1", (), True),
        ("::1", (), True),
        ("100.64.0.7", (), False),
        ("100.64.0.7", ("100.64.0.0/10",), True),
        ("100.128.0.7", ("100.64.0.0/10",), False),
        ("fd7a::7", ("100.64.0.0/10", "fd7a::/48"), True),
    ],
)
def test_peers(address: str, networks: tuple[str, ...], let_in: bool) -> None:
    """Loopback is always let in, others by the networks of the config only."""
    assert may_ask(ipaddress.ip_address(address), networks) == let_in


def test_a_peer_that_is_gone_is_not_let_in() -> None:
    """No address is no permission."""
    assert not may_ask(None, ("0.0.0.0/0", "::/0"))


Forgery = Callable[[Browser, str], Awaitable[Answer]]
HOLD = {"verb": "hold", "id": queue_id(1)}


async def _no_token(browser: Browser, _: str) -> Answer:
    return await browser.post("/act", HOLD)


async def _wrong_token(browser: Browser, token: str) -> Answer:
    return await browser.post("/act", HOLD | {"token": token[::-1]})


async def _strange_token(browser: Browser, _: str) -> Answer:
    return await browser.post("/act", HOLD | {"token": "\ud800é"[1:]})


async def _other_origin(browser: Browser, token: str) -> Answer:
    return await browser.post("/act", HOLD | {"token": token}, Origin="http://evil.example")


async def _null_origin(browser: Browser, token: str) -> Answer:
    return await browser.post("/act", HOLD | {"token": token}, Origin="null")


async def _other_port(browser: Browser, token: str) -> Answer:
    return await browser.post("/act", HOLD | {"token": token}, Origin="http://127.0.0.1:1")


async def _no_origin(browser: Browser, token: str) -> Answer:
    return await browser.post("/act", HOLD | {"token": token}, Origin="")


async def _cross_site(browser: Browser, token: str) -> Answer:
    fields = HOLD | {"token": token}
    return await browser.post("/act", fields, **{"Sec-Fetch-Site": "cross-site"})


async def _json(browser: Browser, token: str) -> Answer:
    fields = HOLD | {"token": token}
    return await browser.post("/act", fields, **{"Content-Type": "text/plain"})


async def _other_session(browser: Browser, token: str) -> Answer:
    browser.client.session.cookie_jar.clear()
    return await browser.post("/act", HOLD | {"token": token})


async def _forged_cookie(browser: Browser, token: str) -> Answer:
    browser.client.session.cookie_jar.clear()
    cookie = f"backup-mx-mx2=x.in.9999999999.{'0' * 64}"
    return await browser.post("/act", HOLD | {"token": token}, Cookie=cookie)


async def _get_acts(browser: Browser, token: str) -> Answer:
    return await browser.get(f"/act?verb=hold&id={queue_id(1)}&token={token}")


FORGERIES = (_no_token, _wrong_token, _strange_token, _other_origin, _null_origin, _other_port,
             _no_origin, _cross_site, _json, _other_session, _forged_cookie, _get_acts)  # fmt: skip


@pytest.mark.parametrize("forgery", FORGERIES, ids=lambda each: each.__name__.strip("_"))
def test_forged_requests_change_nothing(forgery: Forgery) -> None:
    """A form counts only from a page of ours, in the session it was made for."""

    async def visit(browser: Browser) -> None:
        token = (await browser.get("/queue")).token
        answer = await forgery(browser, token)
        assert answer.status in (403, 405, 415)
        assert browser.view.asked == []

    browse(view(3), visit)


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", "/message/../../etc/passwd", 404),
        ("GET", "/message/%2e%2e%2f%2e%2e%2fetc%2fpasswd", 404),
        ("GET", "/static/../guard.py", 404),
        ("GET", "/static/%2e%2e/guard.py", 404),
        ("GET", "/static/..%2fguard.py", 404),
        ("GET", "/static/", 404),
        ("GET", "/templates/base.html", 404),
        ("GET", "//evil.example/", 404),
        ("GET", "/message/", 404),
        ("GET", "/message/ALL", 404),
        ("GET", "/message/-d", 404),
        ("GET", "/message/4bXyTd0001z1bG%00", 404),
        ("GET", f"/message/{'A' * 4000}", 404),
        ("GET", "/message/4bXyTd9999z1bG", 404),
        ("GET", f"/queue?search={'a' * 5000}", 200),
        ("GET", f"/queue?{'a=b&' * 1500}", 200),
        ("GET", f"/queue?page={'9' * 5000}", 303),
        ("GET", "/queue?older=-1e999&page=-5", 200),
        ("GET", f"/queue?search={'a' * 20_000}", 400),
        ("PUT", "/queue", 405),
        ("DELETE", "/", 405),
        ("PATCH", "/act", 405),
        ("OPTIONS", "/", 405),
        ("TRACE", "/", 405),
        ("POST", "/", 405),
        ("POST", "/queue", 405),
        ("HEAD", "/", 200),
        ("GET", "/drain", 405),
        ("GET", "/logout", 405),
    ],
)
def test_odd_requests_are_answered_plainly(method: str, path: str, status: int) -> None:
    """No path leaves the pages, no length hurts, no other method does anything."""

    async def visit(browser: Browser) -> None:
        answer = await browser.ask(method, path)
        assert answer.status == status
        assert "Traceback" not in answer.text

    browse(view(3), visit)


@pytest.mark.parametrize(
    "fields",
    [
        {"verb": "flush"},
        {"verb": ""},
        {"verb": "hold", "id": "ALL"},
        {"verb": "delete", "id": ["-", queue_id(1)]},
        {"verb": "delete", "id": queue_id(1) + "\n", "sure": "yes"},
        {"verb": "hold", "id": "../../etc"},
    ],
)
def test_forms_take_known_verbs_and_queue_ids_only(fields: dict[str, str | list[str]]) -> None:
    """Nothing else reaches the helper, not even beside what is right."""

    async def visit(browser: Browser) -> None:
        answer = await browser.submit("/queue", "/act", **fields)
        assert answer.status == 400
        assert browser.view.asked == []

    browse(view(3), visit)


def test_a_form_too_large_is_not_read() -> None:
    """Megabytes are refused before they cost memory."""

    async def visit(browser: Browser) -> None:
        answer = await browser.submit("/queue", "/act", verb="hold", id="A" * 200_000)
        assert answer.status == 413
        assert browser.view.asked == []

    browse(view(3), visit)


def test_no_form_leads_elsewhere() -> None:
    """The way back is made of the filter, not of an address that the form names."""

    async def visit(browser: Browser) -> None:
        answer = await browser.submit(
            "/queue",
            "/act",
            verb="hold",
            id=queue_id(1),
            of="//evil.example",
            back="//evil.example",
        )
        assert "evil" not in answer.text

    browse(view(3), visit)


def locked() -> PretendView:
    """Return an agent whose dashboard has a password."""
    return view(3, dashboard_password=PASSWORD)


@pytest.fixture
def at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """A wrong password costs no time."""
    monkeypatch.setattr(forms, "_SLOW", 0.0)


def test_without_the_password_there_is_the_door_only() -> None:
    """Every page leads to the log-in page, which shows nothing; the right password opens."""

    async def visit(browser: Browser) -> None:
        for path in PAGES:
            answer = await browser.get(path)
            assert (answer.status, answer.headers["Location"]) == (303, "/login")
            assert "sender.example" not in answer.text
        entered = await browser.submit("/login", "/login", password=PASSWORD)
        assert (entered.status, entered.headers["Location"]) == (303, "/")
        cookie = entered.headers["Set-Cookie"]
        assert "HttpOnly" in cookie
        assert "SameSite=Strict" in cookie
        assert "3 messages" in (await browser.get("/")).text
        assert (await browser.get("/login")).headers["Location"] == "/"

    browse(locked(), visit)


def test_logging_out_ends_the_session_itself() -> None:
    """A cookie that somebody kept is worth nothing after the log-out."""

    async def visit(browser: Browser) -> None:
        entered = await browser.submit("/login", "/login", password=PASSWORD)
        kept = entered.headers["Set-Cookie"].partition(";")[0]
        assert (await browser.submit("/", "/logout")).headers["Location"] == "/login"
        browser.client.session.cookie_jar.clear()
        assert (await browser.get("/", Cookie=kept)).status == 303

    browse(locked(), visit)


def test_a_session_from_before_the_log_in_is_not_the_one_after() -> None:
    """Nobody can choose the session that somebody else logs in with (fixation)."""

    async def visit(browser: Browser) -> None:
        before = (await browser.get("/login")).headers["Set-Cookie"].partition(";")[0]
        await browser.submit("/login", "/login", password=PASSWORD)
        browser.client.session.cookie_jar.clear()
        assert (await browser.get("/", Cookie=before)).status == 303

    browse(locked(), visit)


@pytest.mark.usefixtures("at_once")
@pytest.mark.parametrize("wrong", ["", "x", PASSWORD + " ", PASSWORD.upper(), "é\U0001f511"])
def test_a_wrong_password_is_wrong(wrong: str) -> None:
    """Not nearly right either; and the page says so."""

    async def visit(browser: Browser) -> None:
        answer = await browser.submit("/login", "/login", password=wrong)
        assert answer.status == 403
        assert "That is not the password." in answer.text
        assert (await browser.get("/")).status == 303

    browse(locked(), visit)


@pytest.mark.usefixtures("at_once")
def test_guessing_is_stopped() -> None:
    """After some wrong passwords even the right one has to wait."""

    async def visit(browser: Browser) -> None:
        for _ in range(GUESSES):
            assert (await browser.submit("/login", "/login", password="x")).status == 403  # noqa: S106
        answer = await browser.submit("/login", "/login", password=PASSWORD)
        assert answer.status == 429
        assert 0 < int(answer.headers["Retry-After"]) <= WINDOW + 1
        assert (await browser.get("/")).status == 303

    browse(locked(), visit)


def test_without_a_password_there_is_no_way_to_log_in() -> None:
    """An empty password in the config is none: it opens nothing to nobody."""

    async def visit(browser: Browser) -> None:
        guard_view = replace(browser.view.settings, dashboard_password="")
        assert not guard_view.dashboard_password
        assert (await browser.get("/")).status == 200

    browse(view(3), visit)


def test_guesses_from_one_place_do_not_stop_another() -> None:
    """An IPv6 place is its /64; many places together are stopped all the same."""
    guesses, now = Guesses(), 1000.0
    one, near, far = (ipaddress.ip_address(each) for each in ("fd00::1", "fd00::2", "fd01::1"))
    for _ in range(GUESSES):
        guesses.note(one, now)
    assert guesses.wait(one, now) == guesses.wait(near, now) == WINDOW
    assert guesses.wait(far, now) == 0
    assert guesses.wait(one, now + WINDOW) == 0
    for number in range(100):
        guesses.note(ipaddress.ip_address(number << 32), now)
    assert guesses.wait(far, now) > 0


def test_cookies_end() -> None:
    """A session is over after its time, and with the agent that began it."""
    sessions, other = Sessions(), Sessions()
    session = sessions.start(trusted=True, now=1000.0)
    cookie = sessions.cookie(session)
    assert sessions.read(cookie, 1000.0 + LIFETIME - 1) == session
    assert sessions.read(cookie, 1000.0 + LIFETIME) is None
    assert other.read(cookie, 1001.0) is None
    assert other.token(session) != sessions.token(session)


@settings(deadline=None)
@given(st.text())
def test_no_text_is_a_cookie(text: str) -> None:
    """Whatever a browser sends as its cookie, nothing but our own is one."""
    assert Sessions().read(text, 0.0) is None


def test_a_cookie_cannot_be_promoted() -> None:
    """Who has not logged in cannot say so himself."""
    sessions = Sessions()
    cookie = sessions.cookie(sessions.start(trusted=False, now=time.time()))
    assert sessions.read(cookie.replace(".out.", ".in."), time.time()) is None


def test_a_slow_ledger_does_not_stop_the_agent() -> None:
    """Pages read in a thread of their own: the event loop goes on meanwhile."""
    seen = view(3)
    loops: list[bool] = []
    plain = seen.reader

    def slow() -> object:
        try:
            asyncio.get_running_loop()
            loops.append(True)
        except RuntimeError:
            loops.append(False)
        return plain()

    seen.reader = slow  # type: ignore[assignment, method-assign]

    async def visit(browser: Browser) -> None:
        for path in PAGES:
            assert (await browser.get(path)).status == 200

    browse(seen, visit, Guard(seen))
    assert loops == [False] * len(PAGES)


@pytest.mark.parametrize("charset", ["nope", "base64", "utf-16", "ascii", "idna", '"; x='])
def test_a_form_in_no_known_writing_is_refused(
    charset: str, caplog: pytest.LogCaptureFixture
) -> None:
    """Whatever it says of itself: it is told so, and the log has no traceback."""

    async def visit(browser: Browser) -> None:
        kind = f"application/x-www-form-urlencoded; charset={charset}"
        headers = {"Origin": browser.origin, "Content-Type": kind}
        answer = await browser.ask("POST", "/act", "verb=\u00e9xx", headers)
        assert answer.status in (400, 403)
        assert answer.status == 400 or charset in ("utf-16", '"; x=')

    browse(view(3), visit)
    assert "Traceback" not in caplog.text


def test_a_path_in_the_log_steers_no_terminal(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """A page that fails is logged on one line, printable."""
    bad = view(3)

    def broken(*_: object) -> None:
        raise RuntimeError

    monkeypatch.setattr(Guard, "_session", broken)

    async def visit(browser: Browser) -> None:
        assert (await browser.get("/message/x%0A%1B%5B2Jforged")).status == 500

    browse(bad, visit)
    (record,) = [each for each in caplog.records if "dashboard failed" in each.getMessage()]
    assert record.getMessage().isprintable()
