"""What a relay looks up on itself."""

from __future__ import annotations

import hashlib
import smtpd
import ssl
import time
from pathlib import Path

import pytest

from backup_mx.machine import probe


def test_the_certificate_that_senders_see(tmp_path: Path) -> None:
    """Which one it is, whose, and until when."""
    own = smtpd.certificate(tmp_path, "mx2.example.org")
    with smtpd.serving(smtpd.secured(own)) as server:
        found = probe.certificate(server.port)
    der = ssl.PEM_cert_to_DER_cert(own.read_text().partition("-----BEGIN PRIV")[0])
    assert found["sha256"] == hashlib.sha256(der).hexdigest()
    assert (found["issuer"], found["own"]) == ("CN=mx2.example.org", True)
    assert time.time() < found["until"] < time.time() + 3 * 86_400


def test_without_a_certificate_there_is_none_to_tell(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nor of a server that never comes to its end, however fast or slowly it speaks."""
    monkeypatch.setattr(probe, "_SECONDS", 2.0)
    for script in (smtpd.plain(), smtpd.endless(), smtpd.endless(pause=0.05)):
        with smtpd.serving(script) as server:
            assert probe.certificate(server.port) == {}
