"""The dashboard as people use it: by eye, by thumb and by keyboard, in real Chromium."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from playwright.sync_api import Page, expect
from screens import Screen, Show, picture
from web_world import PASSWORD, PretendView, queue_id, view

from backup_mx.relay.ledger.rows import Action, Difference
from backup_mx.relay.state import Disk, Primary, Shown, Walk
from backup_mx.relay.web import forms, pages

pytest_plugins = ["browsers"]

CHECKS = (Path(__file__).parent / "checks.js").read_text(encoding="utf-8")
PAGES = {
    "overview": "/",
    "queue": "/queue",
    "message": f"/message/{queue_id(2)}?body=1",
    "ledger": "/ledger",
    "activity": "/activity",
    "nothing": "/queue?search=nobody",
}
EVIL = """() => {
    const evil = document.createElement("script");
    evil.textContent = "window.got = 1";
    document.body.append(evil);
}"""
FOCUSED = """() => {
    const e = document.activeElement, style = getComputedStyle(e);
    const outlined = style.outlineStyle !== "none" && parseFloat(style.outlineWidth) >= 2;
    const name = e.getAttribute("aria-label") || e.textContent.trim() || e.name || "";
    return [name, e === document.body || outlined];
}"""
HOSTILE = "<script>alert(1)</script>\u202e\x1b" + "x" * 300


def calm() -> PretendView:
    """Return an agent with nothing to do."""
    seen = view(0)
    now = seen.ledger.now
    walk = Walk(now - 3, True, "rset", "", "250 2.0.0 Ok", 0.21)
    seen.changes = {"primaries": (Primary("home", "up", now - 86_400 * 9, 9, walk, now - 3),)}
    return seen


def troubled() -> PretendView:
    """Return an agent with everything to tell, to an operator who can only look."""
    seen = view(dashboard_actions=False)
    now = seen.ledger.now
    seen.ledger.found_differences = [
        Difference(queue_id(4), "in the spool, but not in the log", now - 900, now - 4000,
                   "a@sender.example", ("user4@example.org", "second@example.net"))
    ]  # fmt: skip
    seen.ledger.done = [
        Action(now - 500, "hold", queue_id(7), "retention", "", True),
        Action(now - 9000, "delete", queue_id(8), "root", "198.51.100.7", False),
    ]
    seen.changes = calm().changes | {
        "disk": Disk(3 * 2**30, 48 * 2**30, 2 * 2**30),
        "certificate": now + 5 * 86_400,
        "policies": (Shown("mta-sts.example.org", now - 86_400), Shown("mta-sts.a.example", None)),
        "maintenance": now + 7000,
        "time": now - 300,
    }
    return seen


def strange() -> PretendView:
    """Return an agent to whom strangers said the worst."""
    seen = view(3)
    seen.headers = seen.body = seen.ledger.words = HOSTILE
    return seen


AGENTS: dict[str, tuple[Callable[[], PretendView], tuple[str, ...]]] = {
    "down": (view, tuple(PAGES)),
    "calm": (calm, ("overview", "queue")),
    "troubled": (troubled, ("overview", "queue", "message", "ledger", "activity")),
    "strange": (strange, ("overview", "message", "activity")),
}


def check(page: Page) -> None:
    """Fail for what WCAG 2.2 AA asks of any page and a program can see; see checks.js."""
    assert page.evaluate(CHECKS) == []


@pytest.mark.parametrize("phone", [True, False], ids=["phone", "desk"])
@pytest.mark.parametrize("dark", [True, False], ids=["dark", "light"])
@pytest.mark.parametrize("agent", AGENTS)
def test_every_page_is_readable(show: Show, agent: str, dark: bool, phone: bool) -> None:
    """Nothing is cut off, too pale, too small to hit, or without a name; the policy holds."""
    made, pages = AGENTS[agent]
    screen = show(made(), dark=dark, phone=phone)
    for name in pages:
        page = screen.open(PAGES[name])
        expect(page.locator("h1")).to_be_visible()
        check(page)
        picture(
            page, f"{agent}-{name}-{'phone' if phone else 'desk'}-{'dark' if dark else 'light'}"
        )


def test_the_policy_bites(show: Show) -> None:
    """A script that got into a page would not run, and these tests would see it try."""
    screen = show(view(3))
    page = screen.open("/")
    page.evaluate(EVIL)
    assert page.evaluate("() => window.got") is None
    assert any("policy: script-src-elem inline" in each for each in screen.complaints)
    screen.complaints.clear()


def press_until(page: Page, name: str, limit: int = 80) -> None:
    """Go on with the Tab key until what is focused is called so; its focus must be seen."""
    for _ in range(limit):
        page.keyboard.press("Tab")
        focused = page.evaluate(FOCUSED)
        assert focused[1], f"the focus on {focused[0]!r} cannot be seen"
        if focused[0].startswith(name):
            return
    raise AssertionError(f"{limit} Tabs did not lead to {name!r}")


def by_keyboard(screen: Screen) -> None:
    """Search, open, hold, release and delete a message without touching a mouse."""
    page, seen = screen.open("/queue"), queue_id(77)
    page.keyboard.press("Tab")
    expect(page.locator(".skip")).to_be_in_viewport()
    page.keyboard.press("Enter")
    page.keyboard.press("Tab")
    page.keyboard.type("someone77@")
    page.keyboard.press("Enter")
    expect(page.locator(".range")).to_have_text("1 to 1 of 1 message")
    press_until(page, "someone77@sender.example")
    page.keyboard.press("Enter")
    expect(page.locator("h1")).to_contain_text("user77@example.org")
    press_until(page, "Hold")
    page.keyboard.press("Enter")
    expect(page.locator("h1")).to_have_text("1 message put on hold")
    press_until(page, "Go back")
    page.keyboard.press("Enter")
    expect(page.locator(".tag").first).to_have_text("on hold")
    press_until(page, "Release")
    page.keyboard.press("Enter")
    expect(page.locator("h1")).to_have_text("1 message released")
    press_until(page, "Go back")
    page.keyboard.press("Enter")
    expect(page.locator("h1")).to_contain_text("user77@example.org")
    press_until(page, "Delete")
    page.keyboard.press("Enter")
    expect(page.locator("h1")).to_have_text("Delete 1 message?")
    check(page)
    press_until(page, "Delete 1 message")
    page.keyboard.press("Enter")
    expect(page.locator("h1")).to_have_text("1 message deleted")
    press_until(page, "Go back")
    page.keyboard.press("Enter")
    expect(page.locator(".tag").first).to_have_text("deleted")
    expect(page.locator("h1")).to_contain_text("user77@example.org")
    assert seen in page.url


@pytest.mark.parametrize("phone", [True, False], ids=["phone", "desk"])
def test_by_keyboard_alone(show: Show, phone: bool) -> None:
    """Everything an operator does can be done without a mouse, and its focus is seen."""
    by_keyboard(show(view(), phone=phone))


def test_without_script(show: Show) -> None:
    """Nothing needs JavaScript: choose on the queue, hold, drain, page through."""
    screen = show(view(), script=False)
    page = screen.open("/queue")
    page.get_by_label(f"Choose {queue_id(1)}").check()
    page.get_by_label(f"Choose {queue_id(3)}").check()
    page.get_by_role("button", name="Hold").click()
    expect(page.locator("h1")).to_have_text("2 messages put on hold")
    page.get_by_role("link", name="Go back").click()
    page.get_by_role("link", name="Next page").click()
    expect(page.locator(".range")).to_have_text("51 to 100 of 137 messages")
    page.get_by_label("Reason").select_option("refused")
    page.get_by_role("button", name="Show").click()
    expect(page.locator(".range")).to_contain_text("27 messages")
    page.get_by_role("link", name="Overview").click()
    page.get_by_role("button", name="Try all waiting mail now").click()
    expect(page.locator("h1")).to_have_text("All waiting mail is being tried now")


def test_one_box_chooses_the_page(show: Show) -> None:
    """With JavaScript, the box above the list chooses all of it."""
    screen = show(view())
    page = screen.open("/queue")
    page.get_by_label("Choose all on this page").check()
    page.get_by_role("button", name="Release").click()
    expect(page.locator("h1")).to_have_text("50 messages released")


def test_the_overview_renews_itself_until_it_is_stopped(show: Show) -> None:
    """What changes is on the page within ten seconds; a button ends that."""
    seen = view(3)
    screen = show(seen)
    screen.page.clock.install()
    page = screen.open("/")
    expect(page.locator(".verdict")).to_contain_text("3 messages")
    seen.ledger.rows.pop(queue_id(2))
    page.clock.fast_forward(10_500)
    expect(page.locator(".verdict")).to_contain_text("2 messages")
    page.get_by_role("button", name="Stop renewing this page").click()
    seen.ledger.rows.pop(queue_id(3))
    asked = len(screen.requests)
    page.clock.fast_forward(60_000)
    page.wait_for_load_state("networkidle")
    assert len(screen.requests) == asked


def test_log_in_and_out(show: Show) -> None:
    """A wrong password is told at the field; the right one opens; leaving closes."""
    screen = show(view(3, dashboard_password=PASSWORD), phone=True)
    page = screen.open("/queue")
    expect(page.get_by_label("Password of the dashboard")).to_be_focused()
    check(page)
    picture(page, "login")
    page.keyboard.type("wrong")
    page.keyboard.press("Enter")
    expect(page.get_by_role("alert")).to_have_text("That is not the password.")
    check(page)
    picture(page, "login-wrong")
    page.get_by_label("Password of the dashboard").fill(PASSWORD)
    page.keyboard.press("Enter")
    expect(page.locator("h1")).to_contain_text("home is down")
    page.get_by_role("button", name="Log out").click()
    expect(page.locator("h1")).to_have_text("Log in")
    screen.open("/ledger")
    expect(page.locator("h1")).to_have_text("Log in")


@pytest.mark.parametrize("phone", [True, False], ids=["phone", "desk"])
def test_questions_and_outcomes_are_readable(show: Show, phone: bool) -> None:
    """The page that asks, the one that tells, and the one of a failure."""
    screen = show(view(), phone=phone)
    page = screen.open("/queue")
    for number in (1, 3, 5):
        page.get_by_label(f"Choose {queue_id(number)}").check()
    page.get_by_role("button", name="Delete…").click()
    expect(page.locator("h1")).to_have_text("Delete 3 messages?")
    check(page)
    picture(page, f"delete-{'phone' if phone else 'desk'}")
    page.get_by_role("button", name="Delete 3 messages").click()
    expect(page.locator("h1")).to_have_text("3 messages deleted")
    check(page)
    picture(page, f"deleted-{'phone' if phone else 'desk'}")
    screen.open("/message/nonsense")
    expect(page.locator("h1")).to_have_text("That did not work")
    check(page)
    picture(page, f"problem-{'phone' if phone else 'desk'}")


@pytest.mark.parametrize("phone", [True, False], ids=["phone", "desk"])
def test_what_one_form_cannot_change_is_said(
    show: Show, monkeypatch: pytest.MonkeyPatch, phone: bool
) -> None:
    """On the box, on the page that asks, and on the one that tells."""
    for module in (pages, forms):
        monkeypatch.setattr(module, "MOST", 100)
        monkeypatch.setattr(module, "MOST_DELETED", 30)
    size = "phone" if phone else "desk"
    screen = show(view(), phone=phone)
    page = screen.open("/queue")
    page.get_by_label("the first 100 of 137 that match (deleted: 30 at a time)").check()
    check(page)
    picture(page, f"all-{size}")
    page.get_by_role("button", name="Delete…").click()
    expect(page.locator(".notice")).to_contain_text("107 messages more match, and stay")
    check(page)
    picture(page, f"delete-some-{size}")
    page.get_by_role("button", name="Delete 30 messages").click()
    expect(page.locator(".notice")).to_contain_text("107 messages more match, and are as they")
    check(page)
    picture(page, f"deleted-some-{size}")
