"""An SMTP session that ends, whatever a server does."""

from __future__ import annotations

import smtpd
import smtplib
import time
from pathlib import Path
from smtpd import Peer

import pytest

from backup_mx.net import session
from backup_mx.net.session import Session
from backup_mx.net.tls import anybody


def late(peer: Peer) -> None:
    """Answer everything, each time after a while."""
    peer.say("220 here")
    while peer.hear():
        time.sleep(0.2)
        peer.say("250 fine")


def test_a_session_is_over_at_its_end() -> None:
    """However many answers came in time; nothing further is said then."""
    with smtpd.serving(late) as server:
        line = Session("127.0.0.1", server.port, timeout=20.0)
        line.ends = time.monotonic() + 0.5
        assert line.noop() == (250, b"fine")
        with pytest.raises(smtplib.SMTPServerDisconnected, match="timed out"):
            [line.noop() for _ in range(100)]
        assert line.sock is None


def test_the_time_for_an_answer_may_be_changed() -> None:
    """For the next one; a message may be thought about."""
    with smtpd.serving(late) as server:
        line = Session("127.0.0.1", server.port, timeout=20.0)
        assert line.noop() == (250, b"fine")
        line.timeout = 0.05
        with pytest.raises(smtplib.SMTPServerDisconnected, match="timed out"):
            line.noop()


def test_what_came_before_tls_is_not_heard_after(tmp_path: Path) -> None:
    """Whoever stands on the way could have said it."""
    own = smtpd.certificate(tmp_path, "mx2.example.org")

    def script(peer: Peer) -> None:
        peer.say("220 here")
        peer.hear()
        peer.say("250-here")
        peer.say("250 STARTTLS")
        peer.hear()
        peer.line.sendall(b"220 go on\r\n250 injected\r\n")
        peer.secure(own)
        peer.hear()
        peer.say("250 honest")

    with smtpd.serving(script) as server:
        line = Session("127.0.0.1", server.port, timeout=20.0)
        line.ehlo("probe.invalid")
        line.secure(anybody(), "mx2.example.org")
        assert line.ehlo("probe.invalid") == (250, b"honest")
        line.close()


def test_a_message_goes_out_in_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each has its own time; all of them arrive, in order."""
    monkeypatch.setattr(session, "_PIECE", 7)
    with smtpd.serving(smtpd.plain()) as server:
        line = Session("127.0.0.1", server.port, timeout=20.0)
        assert line.data(b"one two three\r\nfour five six\r\n") == (250, b"taken")
        assert server.heard[-3:] == ["one two three", "four five six", "."]
        line.close()
