"""Why a message waits, told by Postfix's own words."""

from __future__ import annotations

import pytest

from backup_mx.relay.queue import postfix, reasons

HOST = "host mail.example.org[198.51.100.10]"


@pytest.mark.parametrize(
    ("reason", "expected"),
    [
        (f"{HOST} said: 550 5.1.1 <a@b>: no (in reply to RCPT TO command)", "refused"),
        (f"{HOST}:2526 said: 554 5.7.1 spam (in reply to end of DATA command)", "refused"),
        (f"{HOST} refused to talk to me: 521 5.7.1 go", "refused"),
        (f"{HOST} said: 451 4.7.1 greylisted: 550 is worse (in reply to end of DATA)", "4xx"),
        (f"{HOST} refused to talk to me: 421 4.7.0 too many connections", "4xx"),
        ("TLS is required, but was not offered by host mail.example.org[198.51.100.10]", "tls"),
        ("TLS is required, but host mail.example.org[1.2.3.4] refused to start TLS: 454 no", "tls"),
        ("Cannot start TLS: handshake failure", "tls"),
        ("Server certificate not trusted", "tls"),
        ("Server certificate not verified", "tls"),
        ("SMTPUTF8 is required, but was not offered by host mail[198.51.100.10]", "capability"),
        ("message size 52428800 exceeds size limit 10240000 of server mail[1.2]", "capability"),
        ("connect to mail.example.org[198.51.100.10]:2526: Connection timed out", "unreachable"),
        ("connect to 10.0.20.1[10.0.20.1]:2526: No route to host", "unreachable"),
        ("lost connection with mail[1.2.3.4] while receiving the initial greeting", "unreachable"),
        ("conversation with mail[1.2.3.4] timed out while sending RCPT TO", "unreachable"),
        ("Host or domain name not found. Name service error for name=mail type=A", "unreachable"),
        (f"delivery temporarily suspended: {HOST} said: 550 5.1.1 no", "refused"),
        ("delivery temporarily suspended: connect to m[1.2.3.4]:25: timed out", "unreachable"),
        ("no drain target is configured for this domain", "local"),
        ("mail transport unavailable", "local"),
        ("x said: 550 as the host itself would", "local"),
        ("maintenance until 2026-11-22T09:33:20Z", "maintenance"),
        ("", "new"),
    ],
)
def test_each_reason_has_its_class(reason: str, expected: str) -> None:
    """What Postfix says decides, not what a server wrote into its answer."""
    assert reasons.class_of(reason) == expected


def message(queue: str, *words: str) -> postfix.Message:
    recipients = tuple(postfix.Recipient("a@example.org", reason) for reason in words)
    return postfix.Message(queue, "4dDqXk0YqYz5N", 0, 1, "", recipients)


def test_a_message_has_the_worst_class_of_its_recipients() -> None:
    """One refused recipient makes a refused message; on hold it is held whatever the reason."""
    refused, away = f"{HOST} said: 550 no", "connect to m[1.2.3.4]:25: refused"
    assert message("deferred", away, refused, "").why == "refused"
    assert message("deferred", "", away).why == "unreachable"
    assert message("active", "").why == message("incoming").why == "new"
    assert message("hold", refused).why == "held"
