"""A stranger's look at port 25: what is answered, all of it bounded, by a program of its own."""

from __future__ import annotations

import smtpd
import time
from pathlib import Path
from smtpd import Peer, Script, dripping, long_line, more_lines
from typing import Any

import pytest

from backup_mx.net import outside

HELLO = "EHLO probe.invalid"


def asked(port: int, **more: object) -> dict[str, Any]:
    wanted = {"host": "127.0.0.1", "port": port, "name": "mx2", "ehlo": "probe.invalid"}
    return {**wanted, "source": "", **more}


def seen(script: Script, **more: object) -> dict[str, Any]:
    with smtpd.serving(script) as server:
        return outside.facts(asked(server.port, **more))


def test_each_talk_is_noted_to_its_end() -> None:
    """Every line has its answer, in order, in a session of its own; none hands a message over."""
    talks = {"one": [HELLO, "MAIL FROM:<>", "RCPT TO:<x@y>"], "two": ["NOOP"]}
    found = seen(smtpd.plain(ehlo="SIZE DSN", rcpt="554 5.7.1 no"), talks=talks)
    said = {
        name: [each["code"] for each in talk["replies"]] for name, talk in found["talks"].items()
    }
    assert said == {"one": [250, 250, 554], "two": [250]}
    assert found["tls"]["greeting"] == {"code": 220, "text": "here"}
    assert found["tls"]["offer"]["text"].split("\n")[1:] == ["SIZE", "DSN"]
    assert "sha256" not in found["tls"]


def test_tls_is_looked_at_not_trusted(tmp_path: Path) -> None:
    """A self-signed certificate is noted by its hash, which tells two of them apart."""
    hashes = set()
    for name in ("mx2", "other"):
        found = seen(smtpd.secured(smtpd.certificate(tmp_path, name)))["tls"]
        assert (found["secured"]["code"], found["version"][:3]) == (250, "TLS")
        hashes.add(found["sha256"])
    assert len(hashes) == 2


def test_tls_that_breaks_is_a_fact() -> None:
    """A server that says it goes on, and does not, is told apart from one without TLS."""

    def liar(peer: Peer) -> None:
        peer.say("220 here")
        peer.hear()
        peer.say("250 STARTTLS")
        peer.hear()
        peer.say("220 go on")
        peer.say("this is no handshake")
        peer.hear()

    found = seen(liar)["tls"]
    assert found["starttls"]["code"] == 220
    assert "secured" not in found
    assert found["error"]


def test_nobody_there_is_told_and_nothing_more_is_asked() -> None:
    """Where the server does not answer, another one is asked, and no talk is begun."""
    with smtpd.serving(smtpd.plain(greeting="220 primary")) as server:
        wanted = asked(9, talks={"one": ["NOOP"]}, control=["127.0.0.1", server.port])
        found = outside.facts(wanted)
    assert "refused" in found["tls"]["error"]
    assert found["control"] == {"code": 220, "text": "primary"}
    assert "talks" not in found
    assert "refused" in outside.facts(asked(9, control=["127.0.0.1", 9]))["control"]["error"]


def test_an_early_talker_speaks_before_it_is_greeted() -> None:
    """From its own address; caught or not, its answers stand beside its lines."""

    sources = []

    def catching(peer: Peer) -> None:
        sources.append(peer.line.getpeername()[0])
        heard = peer.hear()
        peer.say(f"220-wait\r\n250 {heard}")
        peer.hear()
        peer.say("450 4.5.1 Protocol error")

    def slow(peer: Peer) -> None:
        peer.hear()
        peer.say("220 here")
        peer.say("250 fine")
        peer.hear()
        peer.say("250 taken")

    lines = [HELLO, "RCPT TO:<x@y>"]
    codes = []
    for script in (catching, slow):
        with smtpd.serving(script) as server:
            found = outside._early(asked(server.port, early=lines, early_source="127.1.2.3"))
        codes.append([each["code"] for each in found["replies"]])
        assert "error" not in found
    assert codes == [[250, 450], [250, 250]]
    assert sources == ["127.1.2.3"]


@pytest.mark.parametrize(
    ("script", "words"),
    [
        (more_lines, "too long"),
        (long_line, "too long"),
        (dripping, "timed out"),
        (lambda peer: peer.say("HTTP/1.1 400"), "no SMTP"),
        (lambda _peer: None, "hung up"),
    ],
)
def test_every_answer_has_its_end(
    script: Script, words: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """However long, slow or strange it is, it ends soon, as a fact."""
    monkeypatch.setattr(outside, "SECONDS", 0.6)
    began = time.monotonic()
    found = seen(script, talks={"one": ["NOOP"]}, early=["NOOP"], early_source="127.0.0.1")
    assert words in found["tls"]["error"]
    assert found["early"]["error"]
    assert time.monotonic() - began < 10
