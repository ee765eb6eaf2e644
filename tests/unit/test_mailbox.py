"""An account that sends, and one that gets: over TLS only, found wherever mail was filed."""

from __future__ import annotations

import base64
import smtpd
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from imapd import Imap

from backup_mx.errors import MachineError
from backup_mx.net import heard, mailbox
from backup_mx.net.mailbox import Account, Mailbox

MESSAGE = b"From: <a@example.net>\r\nX-Probe: 6b1f\r\n\r\nJ\xc3\xbcrgen\r\n.dot\r\n"
OFFER = "STARTTLS AUTH=PLAIN 8BITMIME"


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return smtpd.certificate(tmp_path_factory.mktemp("tls"), "localhost")


@pytest.fixture
def imap(certificate: Path) -> Imap:
    return Imap(certificate)


@pytest.fixture
def account(imap: Imap, certificate: Path) -> Iterator[Account]:
    with smtpd.serving(imap) as server:
        yield Account("localhost", server.port, "alice", "geheim-ß", certificate)


Hand = Callable[..., tuple[str, list[str]]]


@pytest.fixture
def hand(certificate: Path) -> Hand:
    """What hands MESSAGE to a server that answers so; returns its words and what it heard."""

    def handed(**answers: str) -> tuple[str, list[str]]:
        script = smtpd.secured(certificate, **{"auth": "235 in", "ehlo": OFFER, **answers})
        with smtpd.serving(script) as server:
            to = Account("localhost", server.port, "alice", "geheim-ß", certificate)
            try:
                said = mailbox.submit(to, "a@example.net", "b@example.org", MESSAGE)
            except MachineError as error:
                said = str(error)
            return said, server.heard

    return handed


def test_a_message_is_handed_over(hand: Hand) -> None:
    """Every byte of it, after STARTTLS and a login; the server's own words come back."""
    said, heard = hand(end="250 queued as 4jX")
    assert said == "queued as 4jX"
    plain = base64.b64encode("\0alice\0geheim-ß".encode()).decode()
    told = [line for line in heard if not line.lower().startswith("ehlo")]
    assert told[:4] == [
        "STARTTLS",
        f"AUTH PLAIN {plain}",
        "mail FROM:<a@example.net> BODY=8BITMIME",
        "rcpt TO:<b@example.org>",
    ]
    assert told[7:10] == ["", "JÃ¼rgen", "..dot"], "as the test's server reads bytes"


@pytest.mark.parametrize(("verb", "last"), [("mail", "mail"), ("rcpt", "rcpt"), ("end", ".")])
def test_a_message_that_is_refused_is_told_in_the_servers_words(
    hand: Hand, verb: str, last: str
) -> None:
    """And nothing further is said."""
    said, heard = hand(**{verb: "554 5.7.1 not from you"})
    assert said.endswith("localhost said: 554 5.7.1 not from you")
    assert heard[-1].split()[0] == last or heard[-1] == "QUIT"
    assert ("data" in heard) == (verb == "end")


def test_a_login_that_fails_is_told(hand: Hand) -> None:
    """Without the password."""
    said, heard = hand(auth="535 5.7.8 who are you")
    assert said == "the submission server localhost said: 535 5.7.8 who are you"
    assert not any(line.startswith("mail") for line in heard)


def test_without_tls_no_password_is_said(hand: Hand) -> None:
    """A server that does not offer it is left."""
    said, heard = hand(ehlo="AUTH=PLAIN")
    assert "STARTTLS" in said
    assert not any(line.startswith("AUTH") for line in heard)


def test_a_certificate_that_nobody_vouches_for_is_not_taken(
    imap: Imap, account: Account, certificate: Path
) -> None:
    """Neither for mail nor for a mailbox."""
    with pytest.raises(MachineError, match="self-signed certificate"):
        Mailbox(replace(account, ca=None))
    with (
        smtpd.serving(smtpd.secured(certificate)) as server,
        pytest.raises(MachineError, match="self-signed certificate"),
    ):
        mailbox.submit(Account("localhost", server.port, "a", "b"), "a@b.de", "c@d.de", MESSAGE)
    assert not imap.secure


def test_mail_is_found_in_whatever_folder_it_was_filed(imap: Imap, account: Account) -> None:
    """By a header field: in the inbox, in Junk, in one with a space; not in one of copies."""
    imap.listed = (
        r'(\Noselect) "." Lists',
        r'(\All) "." Everything',
        r'(\HasNoChildren) "." "Lists.My club"',
        r'(\HasNoChildren \Junk) "." Junk',
        r'(\HasNoChildren) "." INBOX',
        r'(\HasNoChildren) "." Gone',
    )
    for folder in ("INBOX", "Junk", "Everything", "Lists.My club"):
        imap.put(b"X-Probe: other\r\n\r\n", folder)
        imap.put(MESSAGE, folder)
    with mailbox.opened(account) as box:
        found = box.find("X-Probe", "6b1f")
        assert [each.where for each in found] == ["Junk", "INBOX", "Lists.My club"]
        assert found[0].head == MESSAGE.partition(b"\r\n\r\n")[0] + b"\r\n\r\n"
        assert str(found[0].arrived) == "2026-11-22 12:00:10+00:00"
        assert box.whole(found[2]) == MESSAGE
        assert box.find("X-Probe", "nothing") == []
    assert imap.secure


def test_one_message_is_deleted_and_no_other(imap: Imap, account: Account) -> None:
    """What somebody else has marked for deletion stays.

    That the server can do it, it may announce after the login only.
    """
    assert "UIDPLUS" not in imap.offer
    imap.put(MESSAGE)
    imap.put(MESSAGE.replace(b"6b1f", b"other"))
    imap.marked.add(("INBOX", 2))
    with mailbox.opened(account) as box:
        box.delete(box.find("X-Probe", "6b1f")[0])
    assert imap.deleted == {("INBOX", 1)}


def test_without_uidplus_a_message_is_only_marked(imap: Imap, account: Account) -> None:
    """EXPUNGE alone would take others along."""
    imap.able = imap.able.replace(" UIDPLUS", "")
    imap.put(MESSAGE)
    with mailbox.opened(account) as box:
        box.delete(box.find("X-Probe", "6b1f")[0])
    assert imap.marked == {("INBOX", 1)}
    assert not imap.deleted


def test_a_mailbox_that_lets_nobody_in_says_why(imap: Imap, account: Account) -> None:
    """In the server's words."""
    imap.login = "NO [AUTHENTICATIONFAILED] wrong"
    with pytest.raises(MachineError, match=r"IMAP server localhost: .*wrong"):
        Mailbox(account)


def test_a_password_that_cannot_be_said_is_not_told(
    imap: Imap, account: Account, hand: Hand
) -> None:
    """Without PLAIN there is no way for letters beyond ASCII; that is told, without any of them."""
    imap.offer = imap.offer.replace(" AUTH=PLAIN", "")
    with pytest.raises(MachineError, match="letters beyond ASCII") as caught:
        Mailbox(account)
    said, _ = hand(ehlo="STARTTLS AUTH=LOGIN", auth="334 VXNlcm5hbWU6")
    assert "letters beyond ASCII" in said
    assert "geheim" not in f"{caught.value} {said}"


def test_nobody_there_is_one_message(account: Account) -> None:
    """Whoever does not answer."""
    with pytest.raises(MachineError, match="the IMAP server localhost: Connection refused"):
        Mailbox(replace(account, port=1))


def test_a_server_that_drips_is_left(certificate: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """However it keeps one waiting, a look ends."""
    monkeypatch.setattr(mailbox, "SECONDS", 0.3)

    def dripping(peer: smtpd.Peer) -> None:
        peer.say("* OK here")
        while True:
            peer.say("* CAPABILITY IMAP4rev1")
            peer.line.settimeout(0.05)
            try:
                peer.line.recv(100)
            except TimeoutError:
                continue

    with (
        smtpd.serving(dripping) as server,
        pytest.raises(MachineError, match="the IMAP server localhost"),
    ):
        Mailbox(Account("localhost", server.port, "alice", "geheim", certificate))


@pytest.mark.parametrize(
    "words", ["* OK here\r\n* LIST", "* OK here\r\n* 1 FETCH {99999999999}\r\n"]
)
def test_a_mailbox_that_says_too_much_is_left(
    certificate: Path, monkeypatch: pytest.MonkeyPatch, words: str
) -> None:
    """In many lines, or in one promise."""
    monkeypatch.setattr(heard, "OCTETS", 1 << 20)
    monkeypatch.setattr(heard.Imap, "left", 1 << 20)
    with (
        smtpd.serving(smtpd.endless(words)) as server,
        pytest.raises(MachineError, match="more than 1,048,576 bytes"),
    ):
        Mailbox(Account("localhost", server.port, "alice", "geheim", certificate))


def test_a_submission_server_that_says_too_much_is_left(certificate: Path) -> None:
    """Before anything was said to it."""
    with smtpd.serving(smtpd.endless()) as server:
        to = Account("localhost", server.port, "alice", "geheim", certificate)
        with pytest.raises(MachineError, match="too long"):
            mailbox.submit(to, "a@b.de", "c@d.de", MESSAGE)


def test_only_plain_words_are_searched_for(account: Account) -> None:
    """What goes into a command is no command."""
    with mailbox.opened(account) as box, pytest.raises(ValueError, match="not to be searched"):
        box.find("X-Probe", 'x" LOGOUT')
