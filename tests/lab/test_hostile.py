"""The primary as it is before its kit: each way in which it breaks the drain.

The layers stand behind one another. To look at one, those in front of it are taken out by hand.
"""

from __future__ import annotations

import contextlib
import secrets
import smtplib
import socket
import struct
from collections.abc import Callable, Iterator
from email import message_from_bytes
from email.message import Message
from pathlib import Path

import pytest
from worlds import fresh_name

from backup_mx.lab import host, layout, names, network
from backup_mx.lab.machine import Machine
from backup_mx.lab.world import World, standard
from backup_mx.relay.queue import postfix

pytestmark = pytest.mark.lab

RELAY = "203.0.113.20"
INNER = "10.0.20.2"
"""A relay's address in a tunnel, as the lab's config has it."""
ORIGIN = "192.0.2.25"
STRICT = "someone@example.net"
"""Its domain's SPF says -all, and means ORIGIN only."""
PLAIN = "someone@test.invalid"
MAIN_CF = "/etc/postfix/main.cf"
ALICE = "alice@example.org"
GOOD = "X-Lab-Weight: -8"
"""A header field that makes up for what the relay scores: see the primary's lab_weight.lua."""
_PATIENCE = 20.0

OUT_OF_THE_WAY = {
    "client-restrictions": {"smtpd_client_restrictions": "permit_mynetworks"},
    "policyd-spf": {"smtpd_recipient_restrictions": "reject_unauth_destination"},
    "anvil": {"smtpd_client_message_rate_limit": "0", "smtpd_client_connection_rate_limit": "0"},
}
"""The layers of main.cf that hide others, and what it says without them."""


@pytest.fixture(scope="module")
def world() -> Iterator[World]:
    """The standard world with the primary's kit left out."""
    made = standard(fresh_name(), kit=False)
    try:
        made.up(print)
        yield made
    finally:
        made.down()


@pytest.fixture(autouse=True)
def primary(world: World) -> Machine:
    """The primary, which remembers no client: neither rspamd nor anvil does."""
    machine = world.machine("primary")
    machine.run(["redis-cli", "flushall"])
    machine.run(["postfix", "reload"])
    return machine


Connect = Callable[[], smtplib.SMTP]


@pytest.fixture
def drain(world: World) -> Iterator[Connect]:
    """A maker of connections from the relay to the drain's port, past the greeting and EHLO."""
    with contextlib.ExitStack() as open_ones:

        def connect() -> smtplib.SMTP:
            with network.inside(names.scoped(world.name, "mx2")):
                made = smtplib.SMTP("198.51.100.10", 2526, "mx2.example.org", _PATIENCE)
            open_ones.callback(made.close)
            made.ehlo()
            return made

        yield connect


@contextlib.contextmanager
def without(primary: Machine, *layers: str) -> Iterator[None]:
    """Take some of main.cf's layers out of the way."""
    kept = primary.path(MAIN_CF).read_bytes()
    changes = [f"{key}={value}" for each in layers for key, value in OUT_OF_THE_WAY[each].items()]
    primary.run(["postconf", "-e", *changes])
    reload(primary)
    try:
        yield
    finally:
        primary.run(["tee", MAIN_CF], stdin=kept)
        reload(primary)


def reload(primary: Machine) -> None:
    """Let Postfix read its files anew, at once: it trusts none that is younger than two seconds."""
    primary.run(["touch", "--date=1 minute ago", MAIN_CF])
    primary.run(["postfix", "reload"])


def letter(token: str, *fields: str) -> bytes:
    """Return a message as a relay hands it on: the sender's client in the topmost Received."""
    lines = (
        f"Received: from mta.example.net (mta.example.net [{ORIGIN}])",
        "\tby mx2.example.org (Postfix) with ESMTP id 4ZzZzZ0001;",
        "\tSun, 22 Nov 2026 04:00:00 +0000 (UTC)",
        f"From: Someone <{PLAIN}>",
        f"To: Alice <{ALICE}>",
        f"Subject: about {token}",
        "Date: Sun, 22 Nov 2026 04:00:00 +0000",
        f"Message-ID: <{token}@test.invalid>",
        *fields,
        "",
        f"This is what {token} has to say.",
    )
    return "\r\n".join(lines).encode() + b"\r\n"


def token() -> str:
    """Return a word that no other message has."""
    return secrets.token_hex(8)


def offered(session: smtplib.SMTP, sender: str, message: bytes) -> tuple[int, str]:
    """Offer a message for alice; return the first answer that is no success, or the last."""
    code, words = session.mail(sender)
    if code == 250:
        code, words = session.rcpt(ALICE)
    if code == 250:
        code, words = session.data(message)
    session.rset()
    return code, words.decode()


@contextlib.contextmanager
def greeted(wire: socket.socket) -> Iterator[smtplib.SMTP]:
    """Hold a session over a connection, past the greeting and EHLO."""
    with contextlib.closing(smtplib.SMTP(timeout=_PATIENCE)) as session:
        session.sock = wire
        assert session.getreply()[0] == 220
        session.ehlo("client.example.net")
        yield session


def delivered(primary: Machine, subject: str) -> Message:
    """Wait until alice has a message about ``subject``; return it."""
    boxes = primary.path("/srv/mail/example.org/alice/Maildir")
    found: list[Path] = []

    def there() -> bool:
        found[:] = [path for path in boxes.rglob("new/*") if subject.encode() in path.read_bytes()]
        return bool(found)

    host.wait_for(f"{subject} to be delivered", there, timeout=_PATIENCE)
    return message_from_bytes(found[0].read_bytes())


def test_client_restrictions_defer_a_relay_without_a_name(world: World) -> None:
    """What the relay drains is put off for ever: its address has no name (FCrDNS)."""
    with greeted(network.connect(world.name, RELAY, 25, _PATIENCE)) as intake:
        assert offered(intake, STRICT, letter(token()))[0] == 250
    relay = world.machine("mx2")

    def reasons() -> str:
        messages = postfix.messages(relay.run(list(postfix.LIST)).text.splitlines())
        return " ".join(each.reason for message in messages for each in message.recipients)

    host.wait_for("the relay to be put off", lambda: "450 4.7.25" in reasons(), timeout=_PATIENCE)
    assert f"cannot find your hostname, [{RELAY}]" in reasons()
    relay.run(["postsuper", "-d", "ALL"])


def test_sender_restrictions_refuse_our_own_people(primary: Machine, drain: Connect) -> None:
    """Mail from the operator's own domain, come in from outside, is taken for forged: 553."""
    with without(primary, "client-restrictions", "policyd-spf"):
        code, words = offered(drain(), "bob@example.org", letter(token()))
    assert (code, words[:5]) == (553, "5.7.1")
    assert "not logged in" in words


def test_anvil_ends_the_eleventh_connection_of_a_minute(drain: Connect) -> None:
    """A relay that comes too often is sent away at the greeting."""
    for _ in range(10):
        drain().quit()
    with pytest.raises(smtplib.SMTPConnectError) as caught:
        drain()
    assert caught.value.smtp_code == 421
    assert b"too many connections" in caught.value.args[1]


def test_anvil_defers_the_thirty_first_message_of_a_minute(drain: Connect) -> None:
    """A relay that brings much is put off in the middle of it."""
    session = drain()
    for _ in range(30):
        assert session.mail(PLAIN)[0] == 250
        session.rset()
    code, words = session.mail(PLAIN)
    assert (code, words) == (450, b"4.7.1 Error: too much mail from %b" % RELAY.encode())


def test_postscreen_makes_an_unknown_relay_wait(
    world: World, primary: Machine, drain: Connect
) -> None:
    """A relay that was never seen gets a teaser, and no answer before the pregreet test's end."""
    primary.run(["rm", "-f", "/var/lib/postfix/postscreen_cache.lmdb"])
    primary.run(["postfix", "reload"])  # postscreen begins anew, with an empty cache
    logged = primary.path(primary.role.mail_log)
    before = len(logged.read_text())
    drain()
    passed = f"PASS NEW [{RELAY}]"
    host.wait_for(passed, lambda: passed in logged.read_text()[before:], timeout=_PATIENCE)
    with network.inside(names.scoped(world.name, "internet")):
        wire = socket.create_connection((layout.EDGE, 25), _PATIENCE, ("192.0.2.80", 0))
    wire.sendall(b"EHLO client.example.net\r\n")
    with contextlib.closing(smtplib.SMTP(timeout=_PATIENCE)) as hasty:
        hasty.sock = wire
        assert hasty.getreply()[0] == 250  # the teaser has no end: the answer to EHLO follows it
        assert offered(hasty, PLAIN, letter(token())) == (550, "5.5.1 Protocol error")


def test_policyd_spf_refuses_strict_senders(primary: Machine, drain: Connect) -> None:
    """The relay is not the address that a domain with -all means: 550, whoever sent it."""
    with without(primary, "client-restrictions"):
        code, words = offered(drain(), STRICT, letter(token()))
    assert (code, words[:6]) == (550, "5.7.23")
    assert f"ip={RELAY}" in words


def test_greylist_puts_off_what_looks_a_little_like_spam(primary: Machine, drain: Connect) -> None:
    """From a score of 4, rspamd wants to be asked again; that the relay has no name is 4.5."""
    with without(primary, "client-restrictions", "policyd-spf"):
        answer = offered(drain(), PLAIN, letter(token()))
    assert answer == (451, "4.7.1 Try again later")


def test_ratelimit_puts_off_what_comes_in_bulk(primary: Machine, drain: Connect) -> None:
    """rspamd counts the relay's address for the sender of all that it drains."""
    with without(primary, "client-restrictions", "policyd-spf", "anvil"):
        session = drain()
        answers = [offered(session, PLAIN, letter(token(), GOOD)) for _ in range(25)]
    assert answers[0][0] == 250
    assert answers[-1] == (451, '4.7.1 Ratelimit "client" exceeded')


def test_external_relay_is_missed(primary: Machine, drain: Connect) -> None:
    """Who is judged is the relay, not the sender's client: a good SPF fails."""
    subject = token()
    with without(primary, "client-restrictions", "policyd-spf"):
        assert offered(drain(), STRICT, letter(subject, GOOD))[0] == 250
        message = delivered(primary, subject)
    assert message["X-Rspamd-Client"] == RELAY
    assert "spf=fail" in message["Authentication-Results"]


def test_local_addrs_swallow_the_tunnel(primary: Machine, world: World) -> None:
    """What comes from a tunnel's address is not judged: it bears no verdict at all."""
    subject = token()
    with without(primary, "client-restrictions", "policyd-spf"):
        wire = network.connect(world.name, layout.PRIMARY, 25, _PATIENCE)
        wire.sendall(proxy_header(INNER))
        with greeted(wire) as session:
            assert offered(session, STRICT, letter(subject))[0] == 250
        message = delivered(primary, subject)
    verdicts = ("X-Spamd-Result", "X-Rspamd-Client", "Authentication-Results")
    assert [message[name] for name in verdicts] == [None, None, None]


def proxy_header(client: str) -> bytes:
    """Return the first bytes of a connection that a proxy hands on (PROXY protocol 2.2)."""
    signature = b"\r\n\r\n\0\r\nQUIT\n"
    ends = socket.inet_aton(client) + socket.inet_aton(layout.TUNNEL)
    return signature + b"\x21\x11" + struct.pack("!H", 12) + ends + struct.pack("!HH", 40000, 2526)


def test_the_ceiling_is_missed(primary: Machine, drain: Connect) -> None:
    """What scores high is refused with a 5xx, and would lie on the relay until it is held."""
    with without(primary, "client-restrictions", "policyd-spf"):
        code, words = offered(drain(), PLAIN, letter(token(), "X-Lab-Weight: 20"))
    assert (code, words) == (554, "5.7.1 Spam message rejected")


def test_a_health_check_on_the_proxy_port_is_an_error(world: World, primary: Machine) -> None:
    """A check that sends no PROXY header gets no greeting, and a warning into the log each time."""
    logged = primary.path(primary.role.mail_log)
    before = len(logged.read_text())
    with network.connect(world.name, layout.PRIMARY, 25) as wire:
        wire.sendall(b"EHLO edge.example.org\r\n")
        assert not wire.recv(64).startswith(b"220")
    host.wait_for(
        "the warning",
        lambda: "warning: haproxy " in logged.read_text()[before:],
        timeout=_PATIENCE,
    )
