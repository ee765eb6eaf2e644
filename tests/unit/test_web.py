"""What the dashboard shows and does for an operator who is let in."""

from __future__ import annotations

from dataclasses import replace

import pytest
from web_client import Answer, Browser, browse
from web_world import NO_USER, PretendView, queue_id, view

from backup_mx.relay.ledger.rows import Action, Difference
from backup_mx.relay.ledger.veil import Veil
from backup_mx.relay.state import Count, Disk, Primary, Shown, Snapshot, Walk
from backup_mx.relay.web import forms, pages
from backup_mx.relay.web.overview import verdict

PAGES = ("/", "/queue", f"/message/{queue_id(1)}", "/ledger", "/activity")


def up(seen: PretendView) -> Primary:
    """Return a primary that is well."""
    now = seen.ledger.now
    walk = Walk(now - 3, True, "rset", "", "250 2.0.0 Ok", 0.2)
    return Primary("home", "up", now - 600, 9, walk, now - 3)


@pytest.mark.parametrize("messages", [0, 1, 137])
def test_every_page_opens(messages: int) -> None:
    """Each page is there with no mail, with one message, and with many."""

    async def visit(browser: Browser) -> None:
        for path in PAGES:
            answer = await browser.get(path)
            known = messages or not path.startswith("/message")
            assert answer.status == (200 if known else 404), path
            assert answer.text.count("<h1") == 1

    browse(view(messages), visit)


def test_overview_says_what_is_the_matter() -> None:
    """The first lines name the primary's state, what waits, and since when."""

    async def visit(browser: Browser) -> None:
        text = (await browser.get("/")).text
        assert "<h1>home is down" in text
        assert "137 messages" in text
        assert "They go out by themselves as soon as the primary is back." in text
        assert 'href="/queue?fate=waiting&amp;why=refused"' in text
        assert "It adds up" in text

    browse(view(), visit)


def test_overview_is_calm_when_all_is_well() -> None:
    """Nothing waits, the primary is up: no alarm, no button."""
    calm = view(0)
    calm.changes = {"primaries": (up(calm),)}

    async def visit(browser: Browser) -> None:
        text = (await browser.get("/")).text
        assert "<h1>home is up</h1>" in text
        assert 'class="verdict well"' in text
        assert "What needs you" not in text
        assert "/drain" not in text

    browse(calm, visit)


def test_overview_names_what_needs_the_operator() -> None:
    """A ledger that differs, a full disk and an old snapshot are told in words."""
    bad = view(3)
    bad.ledger.found_differences = [Difference(queue_id(9), "not in the spool", 1.0, 1.0, "", ())]
    bad.changes = {
        "primaries": (up(bad),),
        "disk": Disk(10, 10**9, 10**8),
        "time": bad.ledger.now - 300,
    }

    async def visit(browser: Browser) -> None:
        text = (await browser.get("/")).text
        assert "the ledger does not add up" in text
        assert "left on the mail&#39;s disk" in text
        assert "These numbers are 5 min" in text

    browse(bad, visit)


def test_overview_has_each_certificate() -> None:
    """The relay's own, and those of the MTA-STS policies that it serves."""
    seen = view(0)
    now = seen.ledger.now
    policies = (Shown("mta-sts.example.org", now - 86_400), Shown("mta-sts.example.com", None))
    seen.changes = {"policies": policies}

    async def visit(browser: Browser) -> None:
        text = (await browser.get("/")).text
        assert "<dt>Certificate</dt><dd>for another " in text
        assert "<dt>Certificate of mta-sts.example.org</dt><dd>expired <time " in text
        assert "<dt>Certificate of mta-sts.example.com</dt><dd>not known" in text

    browse(seen, visit)


@pytest.mark.parametrize(
    ("states", "words"),
    [
        (("up", "down"), "At the present pace they are handed over in 15 s."),
        (("down", "down"), "They go out by themselves as soon as the primary is back."),
    ],
)
def test_verdict_on_what_goes(states: tuple[str, str], words: str) -> None:
    """Mail for a primary that is down is handed over at no pace."""
    primaries = tuple(Primary(f"{at}", each, 1.0, waiting=30) for at, each in enumerate(states))
    counts = (Count("waiting", "new", 60, 10, 1.0),)
    now = Snapshot(1.0, 1.0, "mx2", "mx2.example.org", "", primaries, counts, per_second=2.0)
    assert verdict(now, []).words.endswith(words)


def test_verdict_before_anything_is_known() -> None:
    """An agent that has just started says so."""
    assert verdict(Snapshot(1.0, 1.0, "mx2", "mx2.example.org", ""), []).title == (
        "the agent is starting"
    )


@pytest.mark.parametrize(
    ("query", "first", "said"),
    [
        ("", 1, "1 to 50 of 137 messages"),
        ("?page=3", 101, "101 to 137 of 137 messages"),
        ("?page=0", 1, "1 to 50 of 137 messages"),
        ("?page=x", 1, "1 to 50 of 137 messages"),
        ("?page=%C2%B2", 1, "1 to 50 of 137 messages"),
        ("?why=refused", 1, "1 to 28 of 28 messages"),
        ("?why=nonsense", 1, "1 to 50 of 137 messages"),
        ("?fate=held", 6, "1 to 26 of 26 messages"),
        ("?search=someone77%40", 77, "1 to 1 of 1 message"),
        ("?older=3600", 75, "1 to 50 of 63 messages"),
        ("?domain=EXAMPLE.org", 1, "1 to 50 of 137 messages"),
    ],
)
def test_queue_filters_and_pages(query: str, first: int, said: str) -> None:
    """The address says which messages; what it says amiss is as if it were not there."""

    async def visit(browser: Browser) -> None:
        text = (await browser.get(f"/queue{query}")).text
        assert said in " ".join(text.split())
        assert text.index(queue_id(first)) == min(
            text.index(queue_id(n)) for n in range(1, 138) if queue_id(n) in text
        )

    browse(view(), visit)


def test_a_page_past_the_end_is_the_last() -> None:
    """Mail that went meanwhile leaves nobody on an empty page."""

    async def visit(browser: Browser) -> None:
        answer = await browser.get("/queue?page=9&fate=waiting")
        assert answer.status == 303
        assert answer.headers["Location"] == "/queue?fate=waiting&page=3"

    browse(view(), visit)


def test_nothing_found_and_nothing_there_differ() -> None:
    """An empty list says whether it is the filter's doing."""

    async def filtered(browser: Browser) -> None:
        assert "No message matches." in (await browser.get("/queue?search=nobody")).text

    async def empty(browser: Browser) -> None:
        assert "No message is on the relay" in (await browser.get("/queue")).text

    browse(view(), filtered)
    browse(view(0), empty)


def test_a_message_shows_its_headers_and_its_body_on_demand() -> None:
    """The body is read only when it is asked for, and is never more than text."""

    async def visit(browser: Browser) -> None:
        plain = (await browser.get(f"/message/{queue_id(1)}")).text
        assert "Subject: The minutes of Thursday" in plain
        assert "Dear all" not in plain
        assert "Dear all" in (await browser.get(f"/message/{queue_id(1)}?body=1")).text

    browse(view(3), visit)


def test_a_message_tells_its_history() -> None:
    """Attempts, acts and the other IDs it had stand on its page, and the old ID leads there."""
    seen = view(3)
    row = seen.ledger.rows[queue_id(1)]
    seen.ledger.family["4bXyTd9999z1bG"] = row.id
    seen.ledger.done.append(Action(row.accepted + 9, "requeue", row.id, "root", "192.0.2.7", True))

    async def visit(browser: Browser) -> None:
        text = (await browser.get("/message/4bXyTd9999z1bG")).text
        assert row.id in text
        assert "requeued as" in text
        assert "by root" in text
        assert "from 192.0.2.7" in text
        assert "User unknown in virtual mailbox table" in text
        assert "User unknown" in NO_USER

    browse(seen, visit)


def test_a_message_without_the_helper_is_still_described() -> None:
    """Envelope and history come from the ledger, whatever became of the helper."""
    seen = view(3)
    seen.helper = False

    async def visit(browser: Browser) -> None:
        answer = await browser.get(f"/message/{queue_id(1)}")
        assert answer.status == 200
        assert "the helper cannot be asked: Connection refused" in answer.text
        assert "Envelope" in answer.text

    browse(seen, visit)


def test_differences_are_named() -> None:
    """The ledger's page lists each message of which log and spool differ."""
    seen = view(3)
    seen.ledger.found_differences = [
        Difference(queue_id(9), "in the log, not in the spool", 1e9, 1e9, "a@b.example", ("c@d",))
    ]

    async def visit(browser: Browser) -> None:
        text = (await browser.get("/ledger")).text
        assert "It does not add up: 1 difference." in text
        assert "in the log, not in the spool" in text
        assert "a@b.example" in text

    browse(seen, visit)


@pytest.mark.parametrize("verb", ["hold", "release", "requeue"])
def test_chosen_messages_are_changed(verb: str) -> None:
    """Those chosen and no others, in the name of the dashboard and of who asks."""
    chosen = [queue_id(1), queue_id(3)]

    async def visit(browser: Browser) -> None:
        answer = await browser.submit("/queue", "/act", verb=verb, id=chosen, why="refused")
        assert answer.status == 200
        assert "2 messages" in answer.text
        assert 'href="/queue?why=refused&amp;page=1"' in answer.text
        assert browser.view.asked == [(verb, tuple(chosen), "dashboard", "127.0.0.1")]

    browse(view(), visit)


def test_all_that_match_are_changed() -> None:
    """With that box, the filter decides, over all its pages."""

    async def visit(browser: Browser) -> None:
        await browser.submit("/queue", "/act", verb="hold", all="yes", fate="waiting", page="2")
        _, ids, _, _ = browser.view.asked[0]
        assert len(ids) == len(set(ids)) == 111

    browse(view(), visit)


def test_a_message_that_cannot_be_changed_is_named() -> None:
    """What the helper says of one message is shown; the others are done."""

    async def visit(browser: Browser) -> None:
        gone = queue_id(500)
        answer = await browser.submit("/queue", "/act", verb="hold", id=[queue_id(1), gone])
        assert "<h1>1 message put on hold</h1>" in answer.text
        assert "no such message" in answer.text
        assert gone in answer.text

    browse(view(3), visit)


def test_delete_asks_first_and_deletes_what_it_named() -> None:
    """The first form shows, the second one deletes the very messages that were shown."""

    async def visit(browser: Browser) -> None:
        asks = await browser.submit("/queue", "/act", verb="delete", id=[queue_id(2)])
        assert "Delete 1 message?" in asks.text
        assert "someone2@sender.example" in asks.text
        assert browser.view.asked == []
        fields = {"token": asks.token, "verb": "delete", "sure": "yes", "id": queue_id(2)}
        done = await browser.post("/act", fields)
        assert "<h1>1 message deleted</h1>" in done.text
        assert browser.view.asked == [("delete", (queue_id(2),), "dashboard", "127.0.0.1")]

    browse(view(), visit)


def test_deleting_all_that_match_names_each_in_the_form(monkeypatch: pytest.MonkeyPatch) -> None:
    """What arrives between the question and the answer is not deleted; nor more than said."""
    monkeypatch.setattr(forms, "MOST_DELETED", 30)

    async def visit(browser: Browser) -> None:
        asks = await browser.submit("/queue", "/act", verb="delete", all="yes", fate="waiting")
        assert "Delete 30 messages?" in asks.text
        assert asks.text.count('name="id"') == 30
        assert "and 10 more" in asks.text
        assert 'name="all"' not in asks.text

    browse(view(), visit)


@pytest.mark.parametrize(("verb", "fate"), [("hold", ""), ("release", ""), ("hold", "waiting")])
def test_what_one_form_does_not_get_to_is_the_first_of_the_next(
    monkeypatch: pytest.MonkeyPatch, verb: str, fate: str
) -> None:
    """How many that are is said, until there are none."""
    monkeypatch.setattr(forms, "MOST", 20)
    seen = view(137)
    meant = {each.id for each in seen.ledger.here() if (each.fate == "held") == (verb == "release")}
    turns = -(-len(meant) // 20)

    async def visit(browser: Browser) -> None:
        for turn in range(1, turns + 1):
            answer = await browser.submit("/queue", "/act", verb=verb, all="yes", fate=fate)
            left = len(meant) - 20 * turn
            assert (f"{left} messages more match" in answer.text) == (left > 0)
            assert ("do it again" in answer.text) == (left > 0)
        assert {each for _, ids, _, _ in browser.view.asked for each in ids} == meant

    browse(seen, visit)


def test_requeued_messages_match_again(monkeypatch: pytest.MonkeyPatch) -> None:
    """So doing it again would be no help, and the command line is named instead."""
    monkeypatch.setattr(forms, "MOST", 20)

    async def visit(browser: Browser) -> None:
        answer = await browser.submit("/queue", "/act", verb="requeue", all="yes")
        assert "117 messages more match, and are as they were" in answer.text
        assert "<code>backup-mx requeue</code>" in answer.text
        assert "again" not in answer.text

    browse(view(137), visit)


def test_deleting_tells_before_and_after_how_many_stay(monkeypatch: pytest.MonkeyPatch) -> None:
    """The number goes with the form, which names only what it deletes."""
    monkeypatch.setattr(forms, "MOST_DELETED", 130)

    async def visit(browser: Browser) -> None:
        asks = await browser.submit("/queue", "/act", verb="delete", all="yes")
        words = "7 messages more match, and stay: 130 messages at most are deleted at a time."
        assert words in asks.text
        fields = {"token": asks.token, "verb": "delete", "sure": "yes", "left": "7"}
        assert 'name="left" value="7"' in asks.text
        done = await browser.post("/act", {**fields, "id": queue_id(2)})
        assert "7 messages more match, and are as they were" in done.text
        for odd in ("-1", "x", "9" * 30, "²"):
            done = await browser.post("/act", {**fields, "left": odd, "id": queue_id(3)})
            assert "more match" not in done.text

    browse(view(137), visit)


@pytest.mark.parametrize(
    ("most", "deleted", "words"),
    [
        (10_000, 1000, "all 137 that match, not only those chosen here"),
        (1000, 100, "all 137 that match (deleted: 100 at a time), not only"),
        (120, 100, "the first 120 of 137 that match (deleted: 100 at a time)"),
    ],
)
def test_the_box_says_how_many_it_means(
    monkeypatch: pytest.MonkeyPatch, most: int, deleted: int, words: str
) -> None:
    """And not more than one form changes."""
    monkeypatch.setattr(pages, "MOST", most)
    monkeypatch.setattr(pages, "MOST_DELETED", deleted)

    async def visit(browser: Browser) -> None:
        assert words in " ".join((await browser.get("/queue")).text.split())

    browse(view(137), visit)


def test_what_waits_is_shown_with_its_addresses_however_the_ledger_keeps_them() -> None:
    """They are read from the queue itself; of what is gone there are hashes only."""
    seen = view(20)
    seen.ledger.hides = Veil(b"key", hides=True)
    gone = seen.ledger.rows[queue_id(3)]
    seen.ledger.rows[gone.id] = replace(gone, fate="delivered", ended=gone.accepted + 5)

    async def visit(browser: Browser) -> None:
        shown = (await browser.get(f"/message/{queue_id(5)}")).text
        for address in ("someone5@sender.example", "user5@example.org", "second@example.net"):
            assert f"<bdi>{address}</bdi>" in shown
        assert "<bdi>#" not in shown
        assert "someone3@" not in (await browser.get(f"/message/{gone.id}")).text
        bounce = (await browser.get(f"/message/{queue_id(9)}")).text
        assert "&lt;&gt; (a bounce)" in bounce

    browse(seen, visit)


def test_nothing_chosen_is_said() -> None:
    """A button without a choice changes nothing."""

    async def visit(browser: Browser) -> None:
        for verb in ("hold", "delete"):
            answer = await browser.submit("/queue", "/act", verb=verb)
            assert "No message was chosen" in answer.text
        assert browser.view.asked == []

    browse(view(), visit)


def test_drain_is_asked_of_the_agent() -> None:
    """The button on the overview has all waiting mail tried."""

    async def visit(browser: Browser) -> None:
        answer = await browser.submit("/", "/drain")
        assert "All waiting mail is being tried now" in answer.text
        assert browser.view.drained == [("dashboard", "127.0.0.1")]

    browse(view(), visit)


def test_a_dead_helper_is_told_as_it_is() -> None:
    """An act that cannot be done ends with the reason, not with a stack trace."""
    seen = view(3)
    seen.helper = False

    async def visit(browser: Browser) -> None:
        answer = await browser.submit("/queue", "/act", verb="hold", id=[queue_id(1)])
        assert answer.status == 503
        assert "the helper cannot be asked: Connection refused" in answer.text

    browse(seen, visit)


def buttons(answer: Answer) -> bool:
    """Say whether a page offers to change anything."""
    return any(word in answer.text for word in ('action="/act"', 'action="/drain"'))


def test_a_dashboard_that_only_looks() -> None:
    """Unless the config says so, nothing offers to act and nothing can."""

    async def visit(browser: Browser) -> None:
        pages = [await browser.get(path) for path in PAGES]
        assert not any("<button name" in page.text or "/drain" in page.text for page in pages)
        token = pages[1].token
        for path, verb in (("/act", "hold"), ("/drain", "")):
            fields = {"token": token, "verb": verb, "id": queue_id(1)}
            assert (await browser.post(path, fields)).status == 403
        assert browser.view.asked == []
        assert browser.view.drained == []

    browse(view(dashboard_actions=False), visit)


def test_a_delivered_message_can_not_be_acted_on() -> None:
    """What is not on the relay any more has no buttons, and the helper is not asked for it."""
    seen = view(3)
    row = seen.ledger.rows[queue_id(1)]
    seen.ledger.rows[row.id] = replace(row, fate="delivered", ended=row.accepted + 5)

    async def visit(browser: Browser) -> None:
        answer = await browser.get(f"/message/{row.id}")
        assert "delivered" in answer.text
        assert not buttons(answer)
        assert "Headers" not in answer.text

    browse(seen, visit)
