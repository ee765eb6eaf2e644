"""What mail exchangers show after STARTTLS, looked at as the gates do, and held against TLSA."""

from __future__ import annotations

import base64
import hashlib
import smtpd
import ssl
import time
from pathlib import Path
from typing import Any

import pytest

from backup_mx.config import parse
from backup_mx.dns.key import key as key_of
from backup_mx.gates import certificate, names
from backup_mx.gates.gate import Site
from backup_mx.net import shown
from backup_mx.net.dns import Names

DATA = Path(__file__).parents[1] / "data"
NAME = "mx2.example.org"
PINNED = "mail.example.org"


def looked(port: int, ca: str = "") -> dict[str, Any]:
    servers = [{"name": NAME, "host": "127.0.0.1", "port": port}]
    return dict(shown.facts({"servers": servers, "ca": ca})[NAME])


def der_of(certificate: Path) -> bytes:
    return ssl.PEM_cert_to_DER_cert(certificate.read_text().split("-----BEGIN PRIV")[0])


def test_a_certificate_that_is_trusted(tmp_path: Path) -> None:
    """By an authority of the operator's own: its names and its time are known."""
    own = smtpd.certificate(tmp_path, NAME)
    with smtpd.serving(smtpd.secured(own)) as server:
        found = looked(server.port, own.read_text().split("-----BEGIN PRIV")[0])
    assert (found["trouble"], found["own"], found["names"]) == ("", True, [NAME])
    assert found["issuer"] == NAME
    assert found["begins"] < time.time() < found["ends"] < time.time() + 3 * 86_400
    assert base64.b64decode(found["der"]) == der_of(own)


def test_a_certificate_that_senders_trust(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What the system trusts is everybody's, whoever else vouches for it."""
    own = smtpd.certificate(tmp_path, NAME)
    monkeypatch.setenv("SSL_CERT_FILE", str(own))
    with smtpd.serving(smtpd.secured(own)) as server:
        found = looked(server.port, own.read_text().split("-----BEGIN PRIV")[0])
    assert (found["trouble"], found["own"]) == ("", False)


def test_a_certificate_that_nobody_trusts(tmp_path: Path) -> None:
    """Why is told, and which one it is all the same."""
    own = smtpd.certificate(tmp_path, NAME)
    with smtpd.serving(smtpd.secured(own)) as server:
        found = looked(server.port)
    assert found["trouble"].startswith("self")
    assert base64.b64decode(found["der"]) == der_of(own)


def test_a_server_without_tls() -> None:
    """There is nothing to judge, and that is an error, not trouble."""
    with smtpd.serving(smtpd.plain()) as server:
        assert "STARTTLS" in looked(server.port)["error"]
    assert looked(server.port)["error"] == "Connection refused"


class Zones(Names):
    """What DNS has; whatever is not there is not there."""

    def lookup(self, name: str, kind: str) -> tuple[str, ...]:
        return RECORDS.get((name.rstrip("."), kind), ())


def site() -> Site:
    """Return a relay of five lines, in a world that is these zones."""
    config = parse((DATA / "config/five-lines.toml").read_text(), "test")
    return Site(config, config.relays["mx2"], None, None, Zones(), DATA, None, print)  # type: ignore[arg-type]


RECORDS = {
    ("example.org", "MX"): ("10 mail.example.org", "20 mx2.example.org", "30 gone.example.org"),
    ("mail.example.org", "A"): ("192.0.2.1",),
    ("_25._tcp.mail.example.org", "TLSA"): ("3 1 1 00ff",),
}


def test_a_mail_exchanger_that_shows_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """It is a warning, and unknown where a TLSA record has senders insist on what it shows."""
    asked: list[str] = []
    for kind in ("SOA", "DNSKEY", "DS"):
        monkeypatch.setitem(RECORDS, ("example.org", kind), ("it has",))

    def seen(_view: object, _config: object, servers: dict[str, str]) -> dict[str, Any]:
        asked.extend(servers)
        return {each: {"error": "timed out"} for each in servers}

    monkeypatch.setattr(certificate, "seen", seen)
    monkeypatch.setattr(names, "_records", lambda *_: iter(()))
    found = {each.saw: each.verdict for each in names.judge(site()) if each.gate == "certificates"}
    assert asked == ["mail.example.org", "mx2.example.org"]
    assert found == {
        "mail.example.org, which has TLSA records, could not be looked at: timed out": "unknown",
        "mx2.example.org could not be looked at: timed out": "warn",
        "gone.example.org could not be looked at: its address is not to be found": "warn",
    }


def alone(monkeypatch: pytest.MonkeyPatch, seen: dict[str, Any], *above: str) -> None:
    """Let the gate judge TLSA alone: each host shows that, the zone has these records for it."""
    for kind in ("SOA", *above):
        monkeypatch.setitem(RECORDS, ("example.org", kind), ("it has",))
    monkeypatch.setattr(names, "_shown", lambda *_: dict.fromkeys([NAME, PINNED], seen))
    monkeypatch.setattr(names, "_certificate", lambda _: None)
    for part in ("_records", "_policy"):
        monkeypatch.setattr(names, part, lambda *_: iter(()))


def test_tlsa_records_of_a_signed_zone_are_insisted_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One that names another key is why senders wait."""
    der = der_of(smtpd.certificate(tmp_path, PINNED))
    alone(monkeypatch, {"der": base64.b64encode(der)}, "DNSKEY", "DS")
    (found,) = names.judge(site())
    assert (found.gate, found.verdict) == ("TLSA", "fail")


@pytest.mark.parametrize("seen", [{"error": "timed out"}, {"der": base64.b64encode(b"0\0")}])
@pytest.mark.parametrize("above", [("DNSKEY",), ("DS",), ()])
def test_tlsa_records_of_an_unsigned_zone_count_for_nothing(
    monkeypatch: pytest.MonkeyPatch, above: tuple[str, ...], seen: dict[str, Any]
) -> None:
    """Senders heed none that is not secure (RFC 7672, section 2.2), so none is in the way."""
    alone(monkeypatch, seen, *above)
    found = [each for each in names.judge(site()) if PINNED in each.saw]
    assert {each.verdict for each in found} == {"warn"}
    assert (
        found[0].saw
        == f"{PINNED} has TLSA records in a zone that is not signed: no sender heeds them"
    )


@pytest.mark.parametrize(("pause", "words"), [(0.0, "too long"), (0.05, "timed out")])
def test_a_server_that_never_ends_is_left(
    monkeypatch: pytest.MonkeyPatch, pause: float, words: str
) -> None:
    """However fast it speaks, or however slowly."""
    monkeypatch.setattr(shown, "SECONDS", 0.5 if pause else 20.0)
    with smtpd.serving(smtpd.endless(pause=pause)) as server:
        assert words in looked(server.port)["error"]


def test_a_session_has_its_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """All of it: a server may not take as long for every answer."""
    monkeypatch.setattr(shown, "SECONDS", 0.5)

    def late(peer: smtpd.Peer) -> None:
        for answer in ("220 here", "250-here\r\n250 STARTTLS", "454 not now"):
            time.sleep(0.3)
            peer.say(answer)
            peer.hear()

    with smtpd.serving(late) as server:
        assert looked(server.port)["error"] == "timed out"


def test_tlsa_records(tmp_path: Path) -> None:
    """One that fits is enough; where none does, senders who heed them wait."""
    own = smtpd.certificate(tmp_path, NAME)
    der = der_of(own)
    key = key_of(der).digest
    whole = hashlib.sha256(der).hexdigest()

    def verdict(*records: str) -> list[str]:
        return [each.verdict for each in names.tlsa(NAME, records, der)]

    assert verdict() == []
    assert verdict(f"3 1 1 {key}") == verdict(f"3 0 1 {whole}") == ["pass"]
    assert verdict("3 1 1 00ff", f"3 1 1 {key.upper()}") == ["pass"]
    assert verdict(f"3 1 1 {whole}") == ["fail"]
    assert verdict("2 1 1 00ff") == ["warn"]
