"""The verbs on a real relay with its agent, there and from the operator's host; its dashboard."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from dashboards import Browser
from primaries import Primary
from relays import RELEASES, Relay, booted, wait_for

pytestmark = pytest.mark.lab

HOME, ELSEWHERE = "192.0.2.80", "192.0.2.25"
PASSWORD = "correct horse"  # noqa: S105
OPTIONS = f"""
[access]
dashboard_from = ["{HOME}/32"]
dashboard_password = {{ command = ["echo", "{PASSWORD}"] }}
dashboard_actions = true
"""
ALICE = b"alice@example.org"
ODD = b"".join(
    (
        b"Return-Path: <someone@example.net>\r\nX-Long: " + b"folded\r\n " * 3000 + b"end\r\n",
        b"Subject: \xfc\xff\r\nMessage-ID: <odd@example.net>\r\n\r\n",
        b".\r\n..\r\n.a line\r\n \t \r\nFrom here\r\n\xe4\xf6\xfc \x00 \x7f\r\n",
        b"y" * 9_000 + b"\r\n\r\n\r\n",
    )
)
SENDERS = (
    *(b"", b"-x@example.net", b'"a b"@example.net', b"j\xfcrgen@example.net"),
    b'"a\x01\x0b\x1b\x7fb"@example.net',  # of a tab Postfix makes a space
)
OWN_RECEIVED = re.compile(rb"Received: from localhost .*?\r\n(?=Received:)", re.DOTALL)


@pytest.fixture(scope="module", params=RELEASES)
def relay(request: pytest.FixtureRequest) -> Iterator[Relay]:
    """A relay with its agent, whose dashboard HOME may open."""
    with booted(request.param, agent=True, options=OPTIONS) as made:
        yield made


@pytest.fixture(autouse=True)
def empty(relay: Relay) -> None:
    """Begin each test with an empty queue, in the ledger as well."""
    ids = "\n".join(each.id for each in relay.queue())
    relay.machine.run(["backup-mx", "delete", "--yes", "-"], stdin=ids.encode(), check=False)
    wait_for("the ledger to be empty", lambda: rows(relay) == [])


@pytest.fixture
def primary(relay: Relay, tmp_path: Path) -> Iterator[Primary]:
    """A primary at the drain target."""
    with Primary(relay.world, tmp_path) as server:
        yield server
    relay.shell("postfix", "reload")  # it would go on using its connections to this primary


def asked(relay: Relay, *arguments: str, code: int | None = 0) -> str:
    """Ask the relay from the operator's host; return what is printed. code None: any will do."""
    argv = [sys.executable, "-c", "from backup_mx.cli import main; main()", *arguments]
    path = os.pathsep.join(filter(None, sys.path))
    done = subprocess.run(
        [*argv, "--lab", relay.world.name],
        env={**os.environ, "PYTHONPATH": path},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert code in (None, done.returncode), done.stdout + done.stderr
    return done.stdout


def rows(relay: Relay, *filters: str) -> list[dict[str, Any]]:
    """Return the queue as JSON."""
    found: list[dict[str, Any]] = json.loads(asked(relay, "queue", *filters, "--json"))["messages"]
    return found


def flush(relay: Relay) -> None:
    """Try all mail now."""
    relay.shell("postqueue", "-f")


def test_an_exported_message_is_what_would_be_delivered(
    relay: Relay, primary: Primary, tmp_path: Path
) -> None:
    """Byte for byte; and after an import somewhere else it is what it was, from the same sender."""
    primary.pause()
    ids = [relay.kept(ALICE, ODD, sender) for sender in SENDERS]
    folder = tmp_path / "exported"
    assert asked(relay, "export", "--all", "-o", str(folder)).startswith("5 messages exported")
    kept = {each: (folder / f"{each}.eml").read_bytes() for each in ids}
    assert asked(relay, "delete", "--all", "--yes").count(": deleted\n") == 5
    assert asked(relay, "import", str(folder)) == "5 messages imported\n"
    again = json.loads(asked(relay, "import", str(folder), "--json"))["results"]
    assert {each["said"] for each in again} == {"was imported before"}
    primary.resume()

    def delivered() -> bool:
        flush(relay)
        return len(primary.messages) >= 5 and relay.queue() == []

    wait_for("all to be delivered", delivered, 60)
    assert len(primary.messages) == 5
    arrived = {OWN_RECEIVED.sub(b"", each.content, count=1) for each in primary.messages}
    assert arrived == set(kept.values())
    senders = sorted(each.sender.encode("latin-1") for each in primary.messages)
    assert senders == sorted(SENDERS)


def test_what_is_exported_is_what_the_primary_gets(
    relay: Relay, primary: Primary, tmp_path: Path
) -> None:
    """The file is compared with the delivery of the very same message."""
    primary.pause()
    queue_id = relay.submit(ALICE, ODD)
    asked(relay, "export", queue_id, "-o", str(tmp_path))
    primary.resume()

    def delivered() -> bool:
        flush(relay)
        return bool(primary.messages)

    wait_for("the message to arrive", delivered, 60)
    assert (tmp_path / f"{queue_id}.eml").read_bytes() == primary.messages[0].content
    letter = json.loads((tmp_path / f"{queue_id}.json").read_text())
    assert letter["sender"] == "a@example.net"
    assert [each["address"] for each in letter["recipients"]] == ["alice@example.org"]
    assert letter["size"] == len(primary.messages[0].content)


def test_what_was_on_hold_is_on_hold_after_an_import(
    relay: Relay, primary: Primary, tmp_path: Path
) -> None:
    """In maintenance no primary is faster than that; after it, what waited is delivered."""
    asked(relay, "maintenance", "on", "--for", "1h")
    held, free = (relay.kept(ALICE, b"Subject: %d\r\n" % number) for number in range(2))
    assert asked(relay, "hold", held) == f"{held}: put on hold\n"
    wait_for("the ledger to know", lambda: [each["id"] for each in rows(relay, "--held")] == [held])
    assert asked(relay, "export", "--all", "-o", str(tmp_path)).startswith("2 messages exported")
    asked(relay, "delete", "--all", "--yes")
    results = json.loads(asked(relay, "import", str(tmp_path), "--json"))["results"]
    said = {each["id"]: each["said"] for each in results}
    new = re.fullmatch(r"imported as (\w+), on hold", said[held])
    assert new, said
    assert re.fullmatch(r"imported as \w+", said[free])
    asked(relay, "maintenance", "off")
    wait_for("the other to arrive", lambda: len(primary.messages) == 1, 60)
    assert b"Subject: 1\r\n" in primary.messages[0].content
    wait_for("the other to be gone", lambda: [each.id for each in relay.queue()] == [new[1]])
    assert lies_in(relay, new[1], "hold")
    story = json.loads(asked(relay, "show", new[1], "--json"))["story"]
    done = [(each["verb"], each["by"], each["done"]) for each in story["actions"]]
    assert {("hold", "root", True), ("import", "root", True)} <= set(done)


def test_what_was_on_hold_may_be_delivered_and_is_never_lost(
    relay: Relay, primary: Primary, tmp_path: Path
) -> None:
    """A primary that takes mail at that moment may be faster: then the answer says so."""
    primary.pause()
    queue_id = relay.kept(ALICE)
    asked(relay, "hold", queue_id)
    asked(relay, "export", queue_id, "-o", str(tmp_path))
    asked(relay, "delete", queue_id, "--yes")
    primary.resume()
    asked(relay, "import", str(tmp_path), code=None)
    in_one_place = lambda: len(primary.messages) + len(relay.queue()) == 1  # noqa: E731
    wait_for("it to be in one place", in_one_place, 60)
    (again,) = json.loads(asked(relay, "import", str(tmp_path), "--json", code=None))["results"]
    there = "on hold" if relay.queue() else "has been delivered|no such message|was imported before"
    assert re.search(there + "|was imported before", again["said"])
    wait_for("it to be in one place still", in_one_place)


def test_mail_of_a_foreign_domain_is_not_imported(relay: Relay, tmp_path: Path) -> None:
    """This relay takes its own domains' mail only, whoever brings it."""
    queue_id = relay.submit(ALICE, b"Subject: x\r\n")
    asked(relay, "export", queue_id, "-o", str(tmp_path))
    letter = tmp_path / f"{queue_id}.json"
    letter.write_text(letter.read_text().replace("alice@example.org", "alice@elsewhere.example"))
    said = asked(relay, "import", str(letter), code=1)
    assert "Relay access denied" in said
    assert relay.queued(queue_id)


def test_many_refusals_keep_nobody_out(relay: Relay, tmp_path: Path) -> None:
    """smtpd(8) hangs up on who is refused 20 times in a row; the last message is taken."""
    exported = tmp_path / "exported"
    queue_id = relay.kept(ALICE)
    asked(relay, "export", queue_id, "-o", str(exported))
    asked(relay, "delete", queue_id, "--yes")
    body, letter = (exported / f"{queue_id}.{end}" for end in ("eml", "json"))
    foreign = letter.read_text().replace("alice@example.org", "alice@elsewhere.example")
    for number in range(25):
        name = f"1jXL{number:02}0p7MzJ0mS"  # they are taken in the order of their IDs
        (exported / f"{name}.eml").write_bytes(body.read_bytes())
        (exported / f"{name}.json").write_text(foreign.replace(queue_id, name))
    results = json.loads(asked(relay, "import", str(exported), "--json", code=1))["results"]
    refused, (taken,) = results[:-1], results[-1:]
    assert len(refused) == 25
    assert all("Relay access denied" in each["said"] for each in refused)
    assert taken["said"].startswith("imported as "), taken
    assert relay.queued()


def test_a_large_message_travels(relay: Relay, tmp_path: Path) -> None:
    """Of several megabytes, there and back."""
    body = b"Subject: large\r\n\r\n" + b"0123456789abcdef" * 4 * 80_000 + b"\r\n"
    lines = b"\r\n".join(body[each : each + 70] for each in range(0, len(body), 70))
    queue_id = relay.kept(ALICE, b"Subject: large\r\n\r\n" + lines.replace(b"\r\n.", b"\r\nx"))
    asked(relay, "export", queue_id, "-o", str(tmp_path))
    asked(relay, "delete", queue_id, "--yes")
    asked(relay, "import", str(tmp_path))
    assert relay.queued()


def test_the_agent_and_the_helper_agree(relay: Relay) -> None:
    """What is held is held in the queue, in the status and in the ledger, with who did it."""
    queue_id = relay.kept(ALICE)
    wait_for("the ledger to have it", lambda: [each["id"] for each in rows(relay)] == [queue_id])
    assert asked(relay, "hold", "mx2", queue_id) == f"{queue_id}: put on hold\n"
    wait_for("it to be held", lambda: bool(rows(relay, "--held")))
    wait_for("status to say so", lambda: "held: 1 message," in asked(relay, "status"))
    assert "hold by root" in asked(relay, "show", queue_id)
    assert asked(relay, "drain").endswith("1 message is on hold, and not tried.\n")
    relay.shell("test", "-e", "/run/backup-mx/flushed")  # by which the agent learns of it
    assert asked(relay, "release", "--held") == f"{queue_id}: released\n"
    wait_for("it to wait", lambda: rows(relay, "--held") == [])
    requeued = lambda: "requeued" in asked(relay, "requeue", queue_id, code=None)  # noqa: E731
    wait_for("it to be requeued, when it is not being tried", requeued)
    another = lambda: [row["id"] != queue_id for row in rows(relay)] == [True]  # noqa: E731
    wait_for("it to have another ID", another)
    story = json.loads(asked(relay, "show", queue_id, "--json"))
    assert story["story"]["ids"] == [queue_id, story["message"]["id"]]


def test_who_came_by_ssh_and_sudo_is_recorded(relay: Relay) -> None:
    """sudo hides where somebody came from, but not from the record."""
    queue_id = relay.kept(ALICE)
    came = "SSH_CONNECTION=198.51.100.7 50000 203.0.113.20 22"
    relay.shell("env", came, "sudo", "-n", "--", "backup-mx", "hold", queue_id)
    noted = f" {queue_id}: hold by=root from=198.51.100.7\n"
    wait_for("the log to have it", lambda: noted in relay.log())


def test_a_message_shows_its_body_on_demand(relay: Relay) -> None:
    """And nothing in it steers the terminal."""
    queue_id = relay.submit(ALICE, b"Subject: \x1b[2Jx\r\n\r\nthe \x07 body\r\n")
    assert "the \N{REPLACEMENT CHARACTER} body" in asked(relay, "show", queue_id, "--body")
    plain = asked(relay, "show", queue_id)
    assert "body" not in plain
    assert "\x1b" not in plain
    assert "[2Jx" in plain


def test_many_messages_are_shown(relay: Relay) -> None:
    """By their IDs, or as a filter finds them; a line of JSON for each."""
    ids = [relay.submit(ALICE, b"Subject: %d\r\n" % number) for number in range(2)]
    assert re.findall(r"^Subject: (\d)$", asked(relay, "show", *ids), re.MULTILINE) == ["0", "1"]
    wait_for("the ledger to have them", lambda: len(rows(relay)) == 2)
    found = [json.loads(line) for line in asked(relay, "show", "--all", "--json").splitlines()]
    assert [each["id"] for each in found] == ids
    assert [each["story"]["row"]["id"] for each in found] == ids
    assert [each["message"]["headers"].count("Subject: ") for each in found] == [1, 1]


def test_maintenance_keeps_mail_from_a_primary_that_answers(relay: Relay, primary: Primary) -> None:
    """Mail is taken, and waits for a reason of its own; when it is over, it goes."""
    asked(relay, "maintenance", "on", "--for", "1h")
    queue_id = relay.submit(ALICE, b"Subject: x\r\n")
    wait_for("it to wait", lambda: [each["class"] for each in rows(relay)] == ["maintenance"])
    assert "Maintenance keeps all mail here" in asked(relay, "drain")
    assert relay.queued().id == queue_id
    assert primary.messages == []
    assert asked(relay, "maintenance", "off") == "There is no maintenance.\n"
    wait_for("it to be delivered", lambda: len(primary.messages) == 1, 60)


def test_without_the_agent_the_verbs_still_work(relay: Relay) -> None:
    """Postfix itself is asked; only the ledger has no answer then."""
    relay.shell("systemctl", "stop", "backup-mx-agent.service")
    place = relay.machine.path("/srv/backup-mx/agent")
    hidden = place.rename(place.with_name("agent-away"))
    try:
        queue_id = relay.kept(ALICE)
        assert "agent: never heard of" in asked(relay, "status")
        assert asked(relay, "hold", "--all") == f"{queue_id}: put on hold\n"
        asked(relay, "ledger", code=1)
        assert "Subject: x" in asked(relay, "show", queue_id)
    finally:
        hidden.rename(place)
        relay.shell("systemctl", "start", "backup-mx-agent.service")


def logged_in(relay: Relay) -> Browser:
    """Open the dashboard from where that is allowed."""
    browser = Browser(relay, HOME)
    page = browser.submit(browser.get("/"), "/login", password=PASSWORD)
    assert (page.path, page.status) == ("/", 200), page.text
    return browser


def offers(browser: Browser, path: str, verb: str) -> bool:
    """Tell whether a page has a button for that."""
    return browser.get(path).offers("/act", verb)


def story(relay: Relay, queue_id: str) -> dict[str, Any]:
    """Return what the ledger has of a message."""
    found: dict[str, Any] = json.loads(asked(relay, "show", queue_id, "--json"))["story"]
    return found


def lies_in(relay: Relay, queue_id: str, queue: str) -> bool:
    """Tell whether a message lies in that queue."""
    return relay.queued(queue_id).queue == queue


def tries(relay: Relay, queue_id: str) -> int:
    """Return how often Postfix tried a message in vain."""
    return len(re.findall(rf" {queue_id}: to=.* status=deferred ", relay.log()))


def test_the_dashboard_opens_to_whom_the_config_names(relay: Relay) -> None:
    """To nobody else: neither the firewall nor the agent lets them in."""
    stranger = Browser(relay, ELSEWHERE, patience=2)
    with pytest.raises(TimeoutError):
        stranger.get("/")
    rule = ["INPUT", "-p", "tcp", "--dport", "8025", "-j", "ACCEPT"]
    relay.shell("iptables", "-I", *rule)
    try:
        refused = stranger.get("/login")
    finally:
        relay.shell("iptables", "-D", *rule)
    assert (refused.status, refused.offers("/login")) == (403, False)
    assert "not in access.dashboard_from" in refused.text


def test_the_dashboard_asks_for_the_password(relay: Relay) -> None:
    """Before it shows anything."""
    browser = Browser(relay, HOME)
    entrance = browser.get("/queue")
    assert (entrance.path, entrance.status) == ("/login", 200)
    assert browser.submit(entrance, "/login", password="x" * 9).status == 403
    assert browser.get("/queue").path == "/login"
    assert browser.submit(browser.get("/login"), "/login", password=PASSWORD).path == "/"
    assert browser.get("/queue").path == "/queue"


def test_the_dashboard_shows_a_message_and_acts_on_it(relay: Relay) -> None:
    """Sees it, tries, holds, releases and deletes it; the ledger has by whom, and from where."""
    browser = logged_in(relay)
    queue_id = relay.kept(ALICE, b"Subject: <script>alert(1)</script>\r\n\r\n<b>x\xe2\x80\xae\r\n")
    wait_for("the log to have it", lambda: tries(relay, queue_id) == 1)
    wait_for("the overview", lambda: browser.get("/").offers("/drain"))
    assert queue_id in browser.get("/queue").text
    at = f"/message/{queue_id}"
    shown = browser.get(f"{at}?body=1").text
    assert "Subject: &lt;script&gt;alert(1)&lt;/script&gt;" in shown
    assert "&lt;b&gt;x\u27e8U+202E\u27e9" in shown
    assert "<script>alert" not in shown

    assert "is being tried now" in browser.submit(browser.get("/"), "/drain").text
    wait_for("it to be tried again", lambda: tries(relay, queue_id) == 2)

    wait_for("it to wait again", partial(lies_in, relay, queue_id, "deferred"))
    for verb, done, queue in (
        ("hold", "put on hold", "hold"), ("release", "released", "deferred"),
    ):  # fmt: skip
        wait_for("the page", partial(offers, browser, at, verb))
        assert f"1 message {done}" in browser.submit(browser.get(at), "/act", verb=verb).text
        wait_for(f"it to be {queue}", partial(lies_in, relay, queue_id, queue))

    question = browser.submit(browser.get(at), "/act", verb="delete")
    assert question.offers("/act")
    assert relay.queued(queue_id)
    assert "1 message deleted" in browser.submit(question, "/act").text
    assert relay.queue() == []
    wait_for("the ledger", lambda: story(relay, queue_id)["row"]["fate"] == "deleted")
    acts = [(each["verb"], each["done"]) for each in story(relay, queue_id)["actions"]]
    assert acts == [("hold", True), ("release", True), ("delete", True)]
    by = {(each["by"], each["source"]) for each in story(relay, queue_id)["actions"]}
    assert by == {("agent:dashboard", HOME)}
