"""What the relay answers on the wire: whom it takes mail from, for whom, and what it refuses."""

from __future__ import annotations

import re
import ssl
from collections import Counter
from collections.abc import Iterator

import pytest
from odd_clients import CLIENTS, EHLO, ENVELOPE, MAIL
from relays import SPOOL, Relay, Reply, Session, wait_for

pytestmark = pytest.mark.lab

SIZE = 52_428_800
KEYWORDS = {"PIPELINING", f"SIZE {SIZE}", "ENHANCEDSTATUSCODES", "8BITMIME", "CHUNKING"}

# The three refusals that the design allows. The host's own names are the only table of recipients.
REFUSALS = (
    r"554 5\.7\.1 <.*>: Relay access denied",
    r"552 5\.3\.4 (Message size exceeds|Error: message file too big|Chunk exceeds).*",
    r"550 5\.1\.1 <.*>: Recipient address rejected: "
    r"(User unknown in virtual alias table|no mailboxes live here)",
)
# What is no SMTP, or no command of it that we offered: RFC 5321 section 4.2.4, closed.
PROTOCOL = (
    r"500 5\.5\.2 Error: (command not recognized|bad syntax)",
    r"501 Syntax: (EHLO|HELO) hostname",
    r"501 5\.5\.4 (Syntax: .*|Bad message size syntax)",
    r"501 5\.1\.7 Bad sender address syntax",
    r"501 5\.1\.3 Bad recipient address syntax",
    r"501 5\.7\.1 DSN support is disabled",
    r"502 5\.5\.1 VRFY command is disabled",
    r"503 5\.5\.1 Error: (need MAIL|need RCPT|nested MAIL) command",
    r"503 5\.5\.1 Error: authentication not enabled",
    r"521 5\.5\.4 Syntax: BDAT count \[LAST\]",
    r"550 5\.7\.0 Error: insufficient authorization",
    r"554 5\.5\.1 Error: (no valid recipients|TLS already active)",
    r"555 5\.5\.4 Unsupported option: .*",
)

OURS = (
    b"alice@example.org",
    b"alice@EXAMPLE.ORG",
    b"alice@example.org.",
    b"never-heard-of@example.org",
    b"-f@example.org",
    b".a..b.@example.org",
    b'"a b"@example.org',
    b"|id@example.org",
    b"/etc/passwd@example.org",
    b"j\xc3\xbcrgen@example.org",
    b"j\xfcrgen@example.org",
    b"x" * 600 + b"@example.org",
    b"@one.example,@two.example:alice@example.org",
)
OPERATORS = (
    b"postmaster",
    b"PostMaster",
    b"postmaster@mx2.example.org",
    b"postmaster@[203.0.113.20]",
    b"abuse@mx2.example.org",
    b"root@mx2.example.org",
)
ELSEWHERE = (
    b"someone@example.com",
    b"someone@sub.example.org",
    b"someone@notexample.org",
    b"someone@localhost",
    b"someone@mx2",
    b"someone@[192.0.2.25]",
    b"someone%example.com",
    b"example.com!someone",
    b"someone%example.com@example.org",
    b"example.com!someone@example.org",
    b"someone@example.com@example.org",
    b'"someone@example.com"@example.org',
    b'"someone@example.com"@mx2.example.org',
    b"someone%example.com@mx2.example.org",
    b"someone%example.com@[203.0.113.20]",
    b"@example.org:someone@example.com",
    b"@mx2.example.org,@example.org:someone@example.com",
    b"postmaster@example.com",
    b"postmaster%example.com",
    b"postmaster@example.com@mx2.example.org",
)


@pytest.fixture
def client(relay: Relay) -> Iterator[Session]:
    """A client without a blemish that has said EHLO; what it leaves in the queue goes."""
    with relay.client() as session:
        yield session.greeted()
    relay.empty()


def is_allowed(reply: Reply) -> bool:
    """Tell whether the relay may say that."""
    return reply.code < 500 or any(re.fullmatch(each, str(reply)) for each in REFUSALS + PROTOCOL)


def refusals(client: Session, recipients: tuple[bytes, ...]) -> dict[bytes, str]:
    """Return what was said of each recipient that was not taken."""
    replies: dict[bytes, str] = {}
    for recipient in recipients:
        reply = client.envelope(b"a@example.net", recipient)[-1]
        client.say(b"RSET")
        if reply.code != 250:
            replies[recipient] = str(reply)
    return replies


def test_every_mailbox_of_our_domain_is_taken(client: Session) -> None:
    """Mail for our domain is taken for anybody, known or not, however odd the name."""
    assert refusals(client, OURS) == {}


def test_mail_for_other_domains_is_refused(relay: Relay) -> None:
    """Another domain, a subdomain of ours, and every way to hide one behind our name is a 554."""
    refused: dict[bytes, str] = {}
    for recipient in ELSEWHERE:  # a connection each: Postfix slows a client down that errs often
        with relay.client() as client:
            refused |= refusals(client.greeted(), (recipient,))
    assert set(refused) == set(ELSEWHERE)
    assert [words for words in refused.values() if not re.fullmatch(REFUSALS[0], words)] == []


def test_nothing_that_was_taken_goes_elsewhere(relay: Relay, client: Session) -> None:
    """Whatever recipients are taken, the queue knows them in our domain only."""
    assert {reply.code for reply in client.envelope(b"", *OURS, *OPERATORS)} == {250}
    assert client.content(b"Subject: odd recipients\r\n").code == 250
    recipients = [each.address for each in relay.queued().recipients]
    assert recipients
    assert [each for each in recipients if not each.lower().endswith("@example.org")] == []


@pytest.mark.parametrize("recipient", OPERATORS, ids=bytes.decode)
def test_the_host_has_a_postmaster(relay: Relay, client: Session, recipient: bytes) -> None:
    """Postmaster without a domain, and the host's own people, are the operator at the primary."""
    assert client.envelope(b"a@example.net", recipient)[-1].code == 250
    assert client.content(b"Subject: hello\r\n").code == 250
    assert [each.address for each in relay.queued().recipients] == ["postmaster@example.org"]


def test_the_host_has_nobody_else(client: Session) -> None:
    """The host's own name and address have no other mailboxes: 550."""
    refused = refusals(client, (b"x", b"x@mx2.example.org", b"x@[203.0.113.20]", b"x@[127.0.0.1]"))
    assert len(refused) == 4
    assert [words for words in refused.values() if not re.fullmatch(REFUSALS[2], words)] == []


def test_a_client_that_talks_too_early_is_deferred(relay: Relay) -> None:
    """A pregreet offender gets 450 for its recipients, and nothing that it says gets a 5xx."""
    with relay.client("192.0.2.80") as offender:
        offender.wire.sendall(EHLO + b"\r\n")
        assert offender.hear().code == 250
        replies = [offender.say(words) for words in (b"VRFY x", b"FOO", *ENVELOPE, b"DATA")]
    assert [reply.code for reply in replies] == [402, 402, 250, 250, 450, 454]


def test_a_client_on_a_block_list_is_deferred(relay: Relay) -> None:
    """A listed client gets 450 for its recipients, ours or not: its reputation is no verdict."""
    with relay.client("192.0.2.66") as listed:
        listed.greeted()
        replies = listed.envelope(b"a@example.net", b"alice@example.org", b"someone@example.com")
    assert [reply.code for reply in replies] == [250, 450, 450]
    assert "blocked using dnsbl.example.net" in str(replies[1])


def test_our_own_bounce_address_is_no_sender(client: Session) -> None:
    """The one sender whose mail bounce(8) would throw away is deferred, however it is written."""
    for sender in (
        b"double-bounce@mx2.example.org",
        b"Double-Bounce",
        b'"double-bounce"@MX2.example.org',
    ):
        assert client.envelope(sender, b"alice@example.org")[-1].code == 450
        client.say(b"RSET")


def test_odd_clients_get_no_refusal_that_is_not_listed(relay: Relay) -> None:
    """Whatever a client does, it is answered as the table says, and every 5xx is a listed one."""
    differences, forbidden = [], []
    for odd in CLIENTS:
        with relay.client() as client:
            client.hear()
            replies = [client.say(words) for words in odd.says]
        forbidden += [(odd.does, str(reply)) for reply in replies if not is_allowed(reply)]
        if tuple(reply.code for reply in replies) != odd.hears:
            differences.append((odd.does, [str(reply) for reply in replies]))
    relay.empty()
    assert (differences, forbidden) == ([], [])


def test_a_message_above_the_limit_is_refused(relay: Relay, client: Session) -> None:
    """A size that is announced or found to be above the limit is a 552, at its end."""
    line = b"x" * 78 + b"\r\n"
    with relay.altered(message_size_limit="1048576"), relay.client() as sender:
        announced = sender.greeted().say(MAIL + b" SIZE=1048577")
        sender.say(b"RSET")  # without it, Postfix goes on to count the refused size
        sender.envelope(b"a@example.net", b"alice@example.org")
        found = sender.content(line * (1_100_000 // len(line)))
        assert sender.say(MAIL).code == 250
    assert [announced.code, found.code] == [552, 552]
    assert relay.queue() == []
    assert client.say(MAIL + b" SIZE=%d" % SIZE).code == 250


def test_more_recipients_than_postfix_takes_at_once_are_deferred(client: Session) -> None:
    """Recipients beyond the thousandth are told to come back."""
    client.envelope(b"a@example.net")
    names = (b"RCPT TO:<u%d@example.org>\r\n" % number for number in range(1010))
    client.wire.sendall(b"".join(names))
    assert Counter(client.hear().code for _ in range(1010)) == {250: 1000, 452: 10}


def test_a_client_that_does_not_wait_for_answers_is_served(relay: Relay) -> None:
    """A client that sends all of a session at once, offered or not, has its mail taken."""
    with relay.client() as client:
        client.hear()
        client.wire.sendall(b"\r\n".join((*ENVELOPE, b"DATA", b"Subject: x", b".", b"QUIT", b"")))
        assert [client.hear().code for _ in range(6)] == [250, 250, 250, 354, 250, 221]
    relay.empty()


def test_no_extension_is_offered_that_the_primary_may_lack(relay: Relay) -> None:
    """EHLO offers exactly what we stand for: no DSN, ETRN, VRFY, AUTH, XCLIENT nor SMTPUTF8."""
    with relay.client() as client:
        client.hear()
        name, *keywords = client.say(EHLO).lines
    assert name == "mx2.example.org"
    assert set(keywords) == KEYWORDS | {"STARTTLS"}


@pytest.mark.parametrize("version", ["TLSv1_2", "TLSv1_3"])
def test_the_intake_speaks_tls(client: Session, version: str) -> None:
    """STARTTLS gives TLS 1.2 and 1.3, and within it the same is offered, but no second TLS."""
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    context.minimum_version = context.maximum_version = ssl.TLSVersion[version]
    assert client.say(b"STARTTLS").code == 220
    with Session(context.wrap_socket(client.wire)) as protected:
        assert set(protected.say(EHLO).lines[1:]) == KEYWORDS
        assert str(protected.say(b"STARTTLS")) == "554 5.5.1 Error: TLS already active"
        assert protected.say(MAIL).code == 250


@pytest.mark.parametrize(
    "end",
    [
        b"\n.\n",
        b"\n.\r\n",
        b"\r\n.\n",
        b"\r.\r",
        b"\r.\r\n",
        b"\r\n.\r",
        b"\r\n\x00.\r\n",
        b"\n.\r",
    ],
    ids=repr,
)
def test_no_message_is_smuggled(relay: Relay, client: Session, end: bytes) -> None:
    """Nothing but CR LF . CR LF ends a message: what follows another end is no second one."""
    client.envelope(b"a@example.net", b"alice@example.org")
    assert client.say(b"DATA").code == 354
    smuggled = (
        b"MAIL FROM:<b@example.net>\r\nRCPT TO:<bob@example.org>\r\nDATA\r\nSubject: 2\r\n\r\n2"
    )
    client.wire.sendall(b"Subject: 1\r\n\r\n1" + end + smuggled + b"\r\n.\r\nNOOP\r\n")
    replies = [client.hear()]
    while str(replies[-1]) != "250 2.0.0 Ok":
        replies.append(client.hear())
    assert [each.address for each in relay.queued().recipients] == ["alice@example.org"]


@pytest.mark.parametrize(
    "command", ["postfix check", "postconf", "postconf -n", "postconf -M", "postconf -P"]
)
def test_postfix_has_nothing_to_complain_about(relay: Relay, command: str) -> None:
    """Postfix's own checks know every parameter and service, and warn of nothing."""
    assert relay.machine.run(command.split()).stderr == b""


def test_postfix_is_the_release_that_was_asked_for(
    relay: Relay, request: pytest.FixtureRequest
) -> None:
    """The tests run against the releases that they name."""
    release = request.node.callspec.params["relay"]
    assert relay.setting("mail_version")[0].startswith(f"{release}.")


def test_answers_are_softened_in_three_places_only(relay: Relay) -> None:
    """soft_bounce is on for postscreen, the drain, and what is said of mail that was taken."""
    overrides = relay.shell("postconf", "-P").splitlines()
    softened = [line for line in overrides if "soft_bounce" in line]
    places = ("smtp/inet", "relay/unix", "error/unix")
    assert softened == [f"{each}/soft_bounce = yes" for each in places]
    assert relay.setting("soft_bounce") == ["no"]
    rows = [line.split() for line in relay.shell("postconf", "-M").splitlines()]
    services = {row[0]: row[7] for row in rows}
    assert (services["smtp"], services["relay"]) == ("postscreen", "smtp")


def test_nothing_listens_but_mail_and_ssh(relay: Relay) -> None:
    """The world finds ports 25 and 22, and no other, on TCP or UDP."""
    rows = [line.split() for line in relay.shell("ss", "-H", "-lntu").splitlines()]
    local = [(row[0], *row[4].rsplit(":", 1)) for row in rows]
    outside = {(kind, port) for kind, host, port in local if host not in ("127.0.0.1", "[::1]")}
    assert outside == {("tcp", "25"), ("tcp", "22")}


@pytest.fixture
def small_disk(relay: Relay) -> Iterator[str]:
    """The spool on a disk of 120 MB that nothing else writes to; the path of a file to fill it."""
    relay.stop()
    relay.shell("mount", "-t", "tmpfs", "-o", "size=120m,mode=0755", "tmpfs", SPOOL)
    relay.start()
    yield f"{SPOOL}/fill"
    relay.stop()
    # A delivery that was going on ends after its master.
    unmount = ["umount", SPOOL]
    wait_for(
        "the disk to be let go", lambda: relay.machine.run(unmount, check=False).returncode == 0
    )
    relay.start()


def test_a_full_disk_defers(relay: Relay, small_disk: str) -> None:
    """Without room for the largest message it takes none, and none whose bytes it cannot keep."""
    message = b"Subject: big\r\n\r\n" + (b"x" * 78 + b"\r\n") * 12_500
    relay.shell("fallocate", "-l", "60M", small_disk)
    with relay.client() as client:
        assert str(client.greeted().say(MAIL)) == "452 4.3.1 Insufficient system storage"
        relay.shell("rm", small_disk)
        client.envelope(b"a@example.net", b"alice@example.org")
        relay.machine.run(["dd", "if=/dev/zero", f"of={small_disk}", "bs=64k"], check=False)
        assert client.content(message).code in (451, 452)
        assert relay.queue() == []
        relay.shell("rm", small_disk)
        assert {reply.code for reply in client.envelope(b"", b"alice@example.org")} == {250}
        assert client.content(message).code == 250
    assert relay.queued().size > len(message)
