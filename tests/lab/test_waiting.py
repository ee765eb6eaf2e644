"""What happens to mail that the relay has taken: it waits, whatever the primary says."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from primaries import Primary
from relays import Relay, wait_for

pytestmark = pytest.mark.lab

TWENTY_MINUTES = 1200
ALICE = b"alice@example.org"
SECONDS = {"s": 1, "m": 60, "h": 3600, "d": 86_400}


@pytest.fixture(autouse=True)
def empty(relay: Relay) -> Iterator[None]:
    """Begin and end each test with an empty queue."""
    relay.empty()
    yield
    relay.empty()


@pytest.fixture
def primary(relay: Relay, tmp_path: Path) -> Iterator[Primary]:
    """A primary at the drain target, with TLS as the relay demands it."""
    with Primary(relay.world, tmp_path) as server:
        yield server


def flush(relay: Relay) -> None:
    """Try all mail now."""
    relay.shell("postqueue", "-f")


def log_of(relay: Relay, queue_id: str, program: str) -> list[str]:
    """Return the log's lines of a message that a program of Postfix wrote."""
    found = re.compile(rf"postfix/{program}\[\d+\]: {queue_id}: ")
    return [line for line in relay.log().splitlines() if found.search(line)]


def deferred(relay: Relay, queue_id: str) -> str:
    """Wait until a delivery of the message has failed; return the reason in the queue."""
    wait_for(f"{queue_id} to be deferred", lambda: bool(reason(relay, queue_id)))
    return reason(relay, queue_id)


def reason(relay: Relay, queue_id: str) -> str:
    """Return why a message waits, if it was tried."""
    message = relay.queued(queue_id)
    return message.recipients[0].reason if message.queue == "deferred" else ""


def seconds(interval: str) -> int:
    """Return the length of a time as Postfix writes it (postconf(5), TIME)."""
    return int(interval[:-1]) * SECONDS[interval[-1]]


def test_mail_is_back_within_twenty_minutes(relay: Relay) -> None:
    """The longest pause between two attempts, with all that adds to it, is 20 minutes."""
    names = ("minimal_backoff_time", "maximal_backoff_time", "queue_run_delay")
    assert sum(map(seconds, relay.setting(*names))) <= TWENTY_MINUTES


def test_the_lifetime_is_the_longest_there_is(relay: Relay) -> None:
    """Postfix by itself lets nothing expire before 100 days, its maximum (qmgr(8))."""
    assert relay.setting("maximal_queue_lifetime", "bounce_queue_lifetime") == ["100d", "100d"]


def test_queue_ids_are_never_used_twice(relay: Relay) -> None:
    """Queue IDs are the long ones, which hold the time (enable_long_queue_ids)."""
    assert re.fullmatch(r"[0-9A-Za-z]{12,20}", relay.submit(ALICE, b"Subject: x\r\n"))
    assert relay.setting("enable_long_queue_ids") == ["yes"]


SENDERS = (b"a@example.net", b"", b"bob@example.org", b"nobody")


def test_mail_that_expires_is_on_hold_as_a_whole(relay: Relay) -> None:
    """Mail that Postfix gives up ends in hold, all of it, whoever sent it; no notice leaves.

    Not even a message that is larger than what is taken by now is cut.
    """
    lines = (b"%06d %b \xfc\r\n" % (number, b"x" * 60) for number in range(10_000))
    body = b"Subject: x\r\n\r\n" + b"".join(lines)
    ids = [relay.submit(ALICE, body, sender) for sender in SENDERS]
    for queue_id in ids:
        deferred(relay, queue_id)
    short = {"maximal_queue_lifetime": "1s", "bounce_queue_lifetime": "1s"}
    with relay.altered(message_size_limit="600000", **short):
        flush(relay)
        everyone = ["hold"] * len(SENDERS)
        wait_for("all to expire", lambda: [each.queue for each in relay.queue()] == everyone)
    for message in relay.queue():
        kept = relay.machine.run(["postcat", "-qbh", message.id]).stdout
        assert body.replace(b"\r\n", b"\n") in kept
        assert log_of(relay, message.id, "smtp") == []


TEXT = b"Subject: x\r\nMessage-ID: <%b>\r\n\r\n%b\r\n"
LARGE = b"".join(b"%06d %b\r\n" % (number, b"x" * 60) for number in range(10_000))


@pytest.mark.parametrize(
    ("hello", "message"),
    [
        (b"client.example.net", TEXT % (b"1@example.net", LARGE)),
        (b"client.example.net", TEXT % (b"x" * 3000 + b"@example.net", b"kept")),
        (b"a" * 4000, TEXT % (b"1@example.net", b"kept")),
    ],
    ids=["larger than what is taken by now", "a long Message-ID", "a long HELO"],
)
def test_what_is_requeued_is_kept_as_it_is(relay: Relay, hello: bytes, message: bytes) -> None:
    """Nothing of it is thrown away for a limit, be it of today or one of pickup(8)'s own.

    Postfix's own pickup(8) has no more patience with a record than line_length_limit, and
    deletes what has a longer one; its cleanup(8) returns the header alone of what is too large.
    """
    with relay.client() as client:
        client.hear()
        replies = [client.say(b"EHLO " + hello), *client.envelope(b"a@example.net", ALICE)]
        assert {each.code for each in replies} == {250}
        queue_id = client.content(message).lines[-1].rpartition(" ")[2]
    deferred(relay, queue_id)
    with relay.altered(message_size_limit="600000"):
        relay.shell("postsuper", "-r", queue_id)
        relay.shell("postkick", "public", "pickup", "W")  # which looks by itself once a minute
        wait_for("it to be requeued", lambda: relay.queued().id != queue_id)
    kept = relay.queued()
    assert kept.queue in ("incoming", "active", "deferred")
    assert [each.address for each in kept.recipients] == ["alice@example.org"]
    content = relay.machine.run(["postcat", "-qbh", kept.id]).stdout
    assert content.endswith(message.replace(b"\r\n", b"\n"))


def test_mail_of_a_domain_that_left_the_config_waits(relay: Relay) -> None:
    """Mail that was taken for a domain stays in the queue when the domain is configured away."""
    queue_id = relay.submit(ALICE, b"Subject: x\r\n")
    deferred(relay, queue_id)
    with relay.altered(relay_domains="example.com", transport_maps=""):
        flush(relay)
        wait_for("the message to be tried", lambda: "primary only" in reason(relay, queue_id))
    assert relay.queued().id == queue_id


def test_mail_whose_address_is_none_by_now_waits(relay: Relay) -> None:
    """What error(8) has to say of an address that was taken is no reason to give the mail up."""
    queue_id = relay.submit(ALICE, b"Subject: x\r\n")
    deferred(relay, queue_id)
    today = {"relay_domains": "example.com", "virtual_alias_domains": "example.org"}
    with relay.altered(transport_maps="", **today):
        flush(relay)
        wait_for("it to be tried", lambda: "User unknown" in reason(relay, queue_id))
    assert relay.queued().id == queue_id
    assert log_of(relay, queue_id, "bounce") == []


@pytest.mark.parametrize(
    ("name", "words"),
    [
        (b"refused-at-rcpt", "550 5.1.1 no such user"),
        (b"refused-after-data", "554 5.7.1 looks like spam"),
        (b"cut-off", "lost connection"),
    ],
    ids=repr,
)
def test_what_the_primary_refuses_waits(
    relay: Relay, primary: Primary, name: bytes, words: str
) -> None:
    """A primary that answers 5xx leaves the message deferred, with its words, and no notice."""
    queue_id = relay.submit(name + b"@example.org", b"Subject: x\r\n\r\nkept\r\n")
    assert words in deferred(relay, queue_id)
    assert relay.queued().id == queue_id
    assert primary.messages == []
    assert log_of(relay, queue_id, "bounce") == []


def test_one_recipient_that_is_refused_is_no_harm_to_others(relay: Relay, primary: Primary) -> None:
    """Of two recipients the refused one waits, the other has the mail, once."""
    with relay.client() as client:
        client.greeted().envelope(b"a@example.net", ALICE, b"refused-at-rcpt@example.org")
        queue_id = client.content(b"Subject: x\r\n").lines[-1].rpartition(" ")[2]
    assert "no such user" in deferred(relay, queue_id)
    waiting = [each.address for each in relay.queued(queue_id).recipients]
    assert waiting == ["refused-at-rcpt@example.org"]
    assert [message.recipients for message in primary.messages] == [("alice@example.org",)]


def test_the_primary_gets_what_the_sender_sent(relay: Relay, primary: Primary) -> None:
    """Below the relay's own Received field the primary has the sender's bytes, over TLS."""
    message = b"".join(
        (
            b"Return-Path: <someone@example.net>\r\nBcc: secret@example.net\r\n",
            b"Content-Length: 7\r\nX-Long: " + b"folded into many lines\r\n " * 6_500 + b"end\r\n",
            b"from: no domain\r\nTo: x\r\nX-Eight: \xfc\xff\r\nDate: not one\r\n",
            b"MIME-Version: 1.0\r\nContent-Type: multipart/mixed; boundary=b\r\n\r\n",
            b".\r\n..\r\n.a line\r\n \t \r\n" + b"y" * 9_000 + b"\r\n",
            b"--b\r\nContent-Transfer-Encoding: 8bit\r\n\r\n\xe4\xf6\xfc \x00 \x7f\r\n",
            b"--b--\r\n\r\n\r\n",
        )
    )
    queue_id = relay.submit(ALICE, message)
    wait_for("the message to arrive", lambda: bool(primary.messages) and relay.queue() == [])
    arrived = primary.messages[0]
    added, _, rest = arrived.content.partition(b"Return-Path:")
    assert re.fullmatch(rb"Received: from client\.example\.net .*\r\n(\t.*\r\n)+", added)
    assert queue_id.encode() in added
    assert b"Return-Path:" + rest == message
    assert arrived.tls
    assert arrived.sender == "a@example.net"


def test_the_primary_is_told_who_the_client_was(relay: Relay, primary: Primary) -> None:
    """The drain speaks plain ESMTP and, where it is offered, XFORWARD for the log, not XCLIENT."""
    relay.submit(ALICE, b"Subject: x\r\n")
    wait_for("the message to arrive", lambda: bool(primary.messages))
    plain = {"EHLO", "STARTTLS", "MAIL", "RCPT", "DATA", "RSET", "QUIT"}
    assert set(primary.verbs) - plain == {"XFORWARD"}


def test_a_primary_without_tls_gets_nothing(relay: Relay, primary: Primary) -> None:
    """Mail waits rather than go to a primary that does not offer the TLS that was asked for."""
    primary.offers_tls = False
    queue_id = relay.submit(ALICE, b"Subject: x\r\n")
    assert "TLS is required, but was not offered" in deferred(relay, queue_id)


def test_odd_recipients_reach_the_primary_and_nobody_else(relay: Relay, primary: Primary) -> None:
    """Whatever the local part, the primary is asked, and the message is not given up here."""
    names = (b'"a b"', b"-f", b"|id", b".a..b.", b"j\xfcrgen", b"", b'""', b"x" * 300)
    with relay.client() as client:
        replies = client.greeted().envelope(b"", *(name + b"@example.org" for name in names))
        assert {reply.code for reply in replies} == {250}
        assert client.content(b"Subject: x\r\n").code == 250
    wait_for("the message to arrive", lambda: bool(primary.messages) and relay.queue() == [])
    asked = [each for message in primary.messages for each in message.recipients]
    assert len(asked) >= len(set(names)) - 1
    assert [each for each in asked if not each.endswith("@example.org")] == []


def test_waiting_mail_goes_when_the_primary_is_back(relay: Relay, tmp_path: Path) -> None:
    """Mail that came while nobody answered is delivered after a flush, each message once."""
    ids = [relay.submit(ALICE, b"Subject: %d\r\n" % number) for number in range(20)]
    wait_for("all to be deferred", lambda: all(reason(relay, each) for each in ids))
    with Primary(relay.world, tmp_path) as primary:
        flush(relay)
        arrived = lambda: len(primary.messages) == len(ids) and relay.queue() == []  # noqa: E731
        wait_for("each to arrive, once", arrived)


def test_one_message_can_be_tried_now(relay: Relay, primary: Primary) -> None:
    """postqueue -i works on a relay that gives no domain a flush service."""
    primary.pause()
    queue_id = relay.submit(ALICE, b"Subject: x\r\n")
    deferred(relay, queue_id)
    primary.resume()
    relay.shell("postqueue", "-i", queue_id)
    wait_for("the message to arrive", lambda: bool(primary.messages))
