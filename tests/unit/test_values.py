"""Values: what they become, and that the file that knows them knows nothing of the options."""

from __future__ import annotations

import pytest

from backup_mx.config.values import HostPort, SshTarget


@pytest.mark.parametrize(
    ("host", "next_hop"),
    [("mail.example.org", "[mail.example.org]:25"), ("2001:db8::1", "[2001:db8::1]:25")],
)
def test_next_hop(host: str, next_hop: str) -> None:
    """Postfix's next hop is in brackets, so that no MX record is looked up."""
    assert HostPort(host, 25).next_hop == next_hop


@pytest.mark.parametrize(
    ("value", "written"),
    [
        (HostPort("mail.example.org", 25), "mail.example.org:25"),
        (HostPort("2001:db8::1", 25), "[2001:db8::1]:25"),
        (SshTarget("me", "203.0.113.20", 2222), "me@203.0.113.20:2222"),
        (SshTarget("root", "2001:db8::20", 22), "root@[2001:db8::20]:22"),
    ],
)
def test_written_as_in_the_file(value: HostPort | SshTarget, written: str) -> None:
    """A host with a port is written as the config file has it."""
    assert str(value) == written
