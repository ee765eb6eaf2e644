"""The walk that a relay's root takes: no primary can keep it."""

from __future__ import annotations

import contextlib
import smtpd
import time
from smtpd import Peer, Script, dripping, long_line, more_lines
from typing import Any

import pytest

from backup_mx.net import session, smtp


def walked(script: Script) -> tuple[dict[str, Any], float]:
    """Return what opening a session with such a primary tells, and the seconds it took."""
    with smtpd.serving(script) as server:
        began = time.monotonic()
        wanted = {"host": "127.0.0.1", "port": server.port, "tls": "none", "ehlo": "mx2"}
        return smtp._opened(wanted), time.monotonic() - began


def dripping_lines(peer: Peer) -> None:
    while True:
        peer.say("220-more")
        time.sleep(0.05)


def endless_offer(peer: Peer) -> None:
    peer.say("220 here")
    peer.hear()
    more_lines(peer)


@pytest.mark.parametrize("script", [more_lines, long_line, endless_offer])
def test_an_answer_has_an_end(script: Script) -> None:
    """So many lines and bytes, and no more, whatever may still come."""
    found, seconds = walked(script)
    assert "too long" in found["error"]
    assert seconds < 10


@pytest.mark.parametrize("script", [dripping_lines, dripping])
def test_an_answer_has_its_time(script: Script, monkeypatch: pytest.MonkeyPatch) -> None:
    """All of it, however slowly it drips."""
    monkeypatch.setattr(smtp, "SECONDS", 0.6)
    found, seconds = walked(script)
    assert "timed out" in found["error"]
    assert seconds < 5


def test_an_answer_of_some_lines_is_whole() -> None:
    """It is read as smtplib does, also where it comes in pieces, or several at once."""

    def pieces(peer: Peer) -> None:
        for octets in (b"22", b"0-one\r", b"\n220", b" two\r\n"):
            peer.line.sendall(octets)
            time.sleep(0.02)
        peer.hear()
        peer.line.sendall(b"250-mx\r\n250-SIZE 5\r\n250 XFORWARD NAME\r\n250 mx\r\n221 bye\r\n")
        with contextlib.suppress(EOFError):
            while True:
                peer.hear()

    found, _ = walked(pieces)
    assert found["greeting"] == {"code": 220, "text": "one\ntwo"}
    assert found["offer"] == {"code": 250, "text": "mx"}


def test_no_answer_at_all_is_told() -> None:
    """A primary that hangs up, or that speaks no SMTP."""
    assert "hung up" in walked(lambda _peer: None)[0]["error"]
    assert walked(lambda peer: peer.say("HTTP/1.1 400"))[0]["greeting"]["code"] == -1


def sent(message: dict[str, Any], script: Script) -> tuple[dict[str, Any], list[str]]:
    """Return what handing a message over tells, and the lines that the primary heard."""
    with smtpd.serving(script) as server:
        wanted = {"host": "127.0.0.1", "port": server.port, "tls": "none", "ehlo": "mx2"}
        told = smtp._message({**wanted, "recipient": "a@example.org"}, message)
    return told, server.heard


def test_a_message_is_announced_as_what_it_is() -> None:
    """8-bit octets and letters of other scripts go as they are, with the parameters of MAIL."""
    message = {
        "sender": "탐침@mx2.example.org",
        "options": ["BODY=8BITMIME", "SMTPUTF8"],
        "data": "Subject: x\r\n\r\n이\r\n",
    }
    told, heard = sent(message, smtpd.plain(ehlo="8BITMIME SMTPUTF8"))
    assert told == {"code": 250, "text": "taken", "step": "DATA"}
    lines = [line.encode("latin-1").decode() for line in heard]
    assert "mail FROM:<탐침@mx2.example.org> BODY=8BITMIME SMTPUTF8" in lines
    assert "이" in lines


def test_what_the_primary_lacks_is_not_tried() -> None:
    """A sender that needs an extension which is not offered is a failure in words."""
    message = {"sender": "탐침@mx2.example.org", "options": ["SMTPUTF8"], "data": "x\r\n"}
    with smtpd.serving(smtpd.plain()) as server:
        wanted = {"host": "127.0.0.1", "port": server.port, "tls": "none", "ehlo": "mx2"}
        told = smtp._messages({**wanted, "recipient": "", "messages": {"utf8": message}})
    assert "SMTPUTF8" in told["utf8"]["error"]


def test_a_large_message_is_made_on_the_spot(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its octets are not carried to the relay; it goes out in pieces, and may be thought about."""
    monkeypatch.setattr(smtp, "SECONDS", 0.5)
    monkeypatch.setattr(session, "_PIECE", 1000)

    def slow(peer: Peer) -> None:
        peer.say("220 here")
        for answer in ("250 here", "250 fine", "250 fine", "354 go on"):
            peer.hear()
            peer.say(answer)
        while peer.hear() != ".":
            pass
        time.sleep(0.8)
        peer.say("250 taken")
        peer.hear()
        peer.say("221 bye")

    told, heard = sent({"sender": "", "data": "Subject: x\r\n\r\n", "fill": 10_000}, slow)
    assert told["code"] == 250
    assert sum(len(line) + 2 for line in heard if set(line) == {"A"}) == 10_000 // 78 * 78
