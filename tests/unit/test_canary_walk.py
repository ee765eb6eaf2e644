"""The canary's walk, against servers that behave and servers that do not."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from smtpd import PATIENCE, Peer, certificate, plain, secured, serving

import pytest
from ports import closed

from backup_mx.net import canary
from backup_mx.net.canary import Limits, Outcome
from backup_mx.net.canary import Path as Way
from backup_mx.relay.queue import reasons

NAME = "mail.example.org"
SHORT = Limits(connect=0.5, step=0.5, total=1.0)


def way(port: int, **parts: object) -> Way:
    wanted = Way("127.0.0.1", port, "none", NAME, "mx2.example.org", "postmaster@example.org")
    return replace(wanted, **parts)  # type: ignore[arg-type]


@pytest.fixture(scope="session")
def pem(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A certificate for NAME that is its own authority."""
    return certificate(tmp_path_factory.mktemp("tls"), NAME)


def test_the_whole_way() -> None:
    """A good walk asks for the postmaster by the null sender, takes it back, and says goodbye."""
    with serving(plain(ehlo="SIZE CHUNKING")) as server:
        found = canary.walk(way(server.port))
    assert (found.step, found.why, found.offer) == ("rset", "", ("SIZE", "CHUNKING"))
    assert server.heard == [
        "EHLO mx2.example.org",
        "MAIL FROM:<>",
        "RCPT TO:<postmaster@example.org>",
        "RSET",
        "QUIT",
    ]


def test_a_message_goes_all_the_way() -> None:
    """The daily message is handed over with its dots doubled, and the answer to it counts."""
    with serving(plain()) as server:
        found = canary.walk(way(server.port, message=b"Subject: x\r\n\r\n.dot\r\n"))
    assert (found.step, found.why, found.words) == ("data", "", "250 taken")
    assert server.heard[4:8] == ["Subject: x", "", "..dot", "."]


@pytest.mark.parametrize(
    ("answers", "step", "why"),
    [
        ({"greeting": "421 not now"}, "greeting", "4xx"),
        ({"greeting": "554 never"}, "greeting", "refused"),
        ({"greeting": "250 strange"}, "greeting", "4xx"),
        ({"greeting": "hello there"}, "greeting", "unreachable"),
        ({"mail": "451 later"}, "mail", "4xx"),
        ({"rcpt": "550 5.1.1 unknown"}, "rcpt", "refused"),
        ({"rcpt": "450 4.2.0 greylisted"}, "rcpt", "4xx"),
        ({"rset": "421 bye"}, "rset", "4xx"),
    ],
)
def test_each_answer_has_its_class(answers: dict[str, str], step: str, why: str) -> None:
    """Where a walk ends, and why, is told in the words of the queue's reasons."""
    with serving(plain(**answers)) as server:
        found = canary.walk(way(server.port))
    assert (found.step, found.why) == (step, why)
    assert found.words
    assert why in reasons.CLASSES


def test_a_refused_message_is_told() -> None:
    """An answer to the message itself is the end of the step "data"."""
    with serving(plain(end="550 spam")) as server:
        found = canary.walk(way(server.port, message=b"x\r\n"))
    assert (found.step, found.why, found.words) == ("data", "refused", "550 spam")


def test_an_old_server_is_greeted_in_its_own_way() -> None:
    """A server that does not know EHLO is asked by HELO, as Postfix asks it."""
    with serving(plain(ehlo="")) as server:
        assert canary.walk(way(server.port)).why == ""
    assert "HELO mx2.example.org" in server.heard


def test_nobody_listens() -> None:
    """A refused connection is the end of the first step, at once."""
    with closed() as port:
        found = canary.walk(way(port))
    assert (found.step, found.why) == ("connect", "unreachable")
    assert "refused" in found.words


def test_a_name_without_an_address() -> None:
    """A name that nobody knows is no crash but a reason."""
    found = canary.walk(way(25, host="nobody.invalid"))
    assert (found.step, found.why) == ("connect", "unreachable")


def test_the_second_address_is_tried(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where one address does not answer, the next one is walked to."""
    with serving(plain()) as server:
        addresses = [
            (socket.AF_INET, socket.SOCK_STREAM, 6, "", (host, server.port))
            for host in ("127.0.0.99", "127.0.0.1")
        ]
        monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: addresses)
        assert canary.walk(way(server.port, host="two.example")).why == ""


@pytest.mark.parametrize("level", ["may", "encrypt", "verify"])
def test_tls_as_the_policy_has_it(pem: Path, level: str) -> None:
    """Every level takes a certificate that it may take, and asks again what is offered."""
    with serving(secured(pem)) as server:
        found = canary.walk(way(server.port, tls=level, ca_file=str(pem)))
    assert (found.step, found.why) == ("rset", "")
    assert [line for line in server.heard if line.startswith("EHLO")] == 2 * [
        "EHLO mx2.example.org"
    ]


@pytest.mark.parametrize(
    ("parts", "words"),
    [
        ({"name": "other.example.org"}, "ostname mismatch"),
        ({"ca_file": None}, "self-signed certificate"),
    ],
)
def test_verify_wants_the_name_from_an_authority(
    pem: Path, parts: dict[str, object], words: str
) -> None:
    """Another name, or an authority nobody knows, ends a walk that must verify."""
    with serving(secured(pem)) as server:
        wanted = {"tls": "verify", "ca_file": str(pem), **parts}
        found = canary.walk(way(server.port, **wanted))
    assert (found.step, found.why) == ("tls", "tls")
    assert words in found.words


def test_encrypt_takes_any_certificate(pem: Path) -> None:
    """Encryption alone asks for no name and no authority."""
    with serving(secured(pem)) as server:
        found = canary.walk(way(server.port, tls="encrypt", name="other.example.org"))
    assert found.why == ""


@pytest.mark.parametrize("level", ["encrypt", "verify"])
def test_no_tls_where_it_must_be(level: str) -> None:
    """A server without STARTTLS ends a walk that must have it; no envelope is said in clear."""
    with serving(plain()) as server:
        found = canary.walk(way(server.port, tls=level))
    assert (found.step, found.why) == ("tls", "tls")
    assert not [line for line in server.heard if line.startswith("MAIL")]


@pytest.mark.parametrize("answer", ["454 no TLS now", "220 but no handshake"])
def test_may_falls_back_to_plain_text(answer: str) -> None:
    """Where TLS may be, its failure is no reason: smtp(8) goes on, or comes again, without."""
    with serving(plain(ehlo="STARTTLS", starttls=answer)) as server:
        assert canary.walk(way(server.port, tls="may"), Limits(1, 1, 5)).why == ""


def test_nothing_is_taken_from_before_the_handshake(pem: Path) -> None:
    """What a server, or who sits before it, sends together with its go-ahead ends the walk."""

    def script(peer: Peer) -> None:
        peer.say("220 here")
        peer.hear()
        peer.say("250-here\r\n250 STARTTLS")
        peer.hear()
        peer.say("220 go on\r\n250 injected")
        peer.secure(pem)
        while peer.hear():
            peer.say("250 fine")

    with serving(script) as server:
        found = canary.walk(way(server.port, tls="encrypt"))
    assert (found.step, found.why) == ("tls", "tls")


def _drip(peer: Peer) -> None:
    while True:
        peer.line.sendall(b"2")
        time.sleep(0.05)


def _fast_drip(peer: Peer) -> None:
    while True:
        peer.line.sendall(b"2")
        time.sleep(0.0005)


def _endless_line(peer: Peer) -> None:
    while True:
        peer.line.sendall(b"220-" + 65536 * b"x")


def _endless_lines(peer: Peer) -> None:
    while True:
        peer.line.sendall(1000 * b"220-more\r\n")


def _slow_lines(peer: Peer) -> None:
    while True:
        peer.say("220-more")
        time.sleep(0.05)


def _silence(peer: Peer) -> None:
    peer.hear()


def _garbage(peer: Peer) -> None:
    peer.line.sendall(bytes(range(256)) * 10 + b"\n")
    peer.hear()


def _hang_up(peer: Peer) -> None:
    peer.line.close()


def _no_handshake(peer: Peer) -> None:
    peer.say("220 here")
    peer.hear()
    peer.say("250-here\r\n250 STARTTLS")
    peer.hear()
    peer.say("220 go on")
    while True:
        peer.line.sendall(b"\x16")
        time.sleep(0.05)


@pytest.mark.parametrize(
    "script",
    [_drip, _fast_drip, _endless_line, _endless_lines, _slow_lines, _silence, _garbage, _hang_up],
)
def test_a_hostile_server_holds_nobody_up(script: Callable[[Peer], None]) -> None:
    """Whatever a server sends, or does not, the walk ends within its bound, with a reason."""
    found = _bounded(script)
    assert (found.step, found.why) == ("greeting", "unreachable")


@pytest.mark.parametrize("script", [_endless_line, _endless_lines])
def test_an_endless_reply_is_cut_by_its_size(script: Callable[[Peer], None]) -> None:
    """Long before its time is up, so that no memory fills."""
    assert "without an end" in _bounded(script).words


def test_a_handshake_that_never_ends() -> None:
    """The bound holds within TLS, too."""
    assert _bounded(_no_handshake, tls="encrypt").why == "tls"


def test_the_resolver_holds_nobody_up(monkeypatch: pytest.MonkeyPatch) -> None:
    """A resolver that does not answer is waited for no longer than a step."""
    answers = threading.Event()

    def slow(*_: object, **__: object) -> list[object]:
        answers.wait(60)
        return []

    monkeypatch.setattr(socket, "getaddrinfo", slow)
    found = canary.walk(way(25, host="slow.example"), SHORT)
    answers.set()
    assert found.seconds < 30
    assert "DNS" in found.words


def _bounded(script: Callable[[Peer], None], **parts: object) -> Outcome:
    with serving(script) as server:
        found = canary.walk(way(server.port, **parts), SHORT)
    assert found.seconds < PATIENCE / 2, "after that time the server hangs up by itself"
    return found


def test_control_characters_do_not_reach_the_log() -> None:
    """A server's words are printable, and no longer than a line of a log."""
    with serving(plain(rcpt="550 \x1b[31mred\x00" + 1000 * "x")) as server:
        words = canary.walk(way(server.port)).words
    assert words.isprintable()
    assert len(words) <= 300
