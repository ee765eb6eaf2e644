"""TLS on the way to the primary: what each level takes, and what waits with its reason."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path

import pytest
from primaries import Primary
from relays import CONFIG, Relay, wait_for

from backup_mx import config
from backup_mx.machine.tree import tree

pytestmark = pytest.mark.lab

ALICE = b"alice@example.org"
POLICY = "/etc/postfix/tls_policy"
AUTHORITY = "/etc/postfix/authority.pem"


@pytest.fixture(autouse=True)
def empty(relay: Relay) -> Iterator[None]:
    """Begin and end each test with an empty queue."""
    relay.empty()
    yield
    relay.empty()


@contextlib.contextmanager
def draining(relay: Relay, level: str, *, trusting: Primary | None = None) -> Iterator[None]:
    """Drain for a while with ``tls`` set to ``level``, and ``trusting`` the only authority."""
    text = CONFIG.read_text().replace("[domain", f'tls = "{level}"\n\n[domain', 1)
    files = tree(config.parse(text, "the test's config"), "mx2", agent=False).files
    (policy,) = (file.content for file in files if str(file.path) == POLICY)
    relay.machine.path(f"{POLICY}_test").write_bytes(policy)
    changed = {"smtp_tls_policy_maps": f"texthash:{POLICY}_test"}
    if trusting:
        relay.machine.path(AUTHORITY).write_bytes(trusting.certificate.read_bytes())
        changed["smtp_tls_CAfile"] = AUTHORITY
    with relay.altered(**changed):
        yield


def outcome(relay: Relay, primary: Primary) -> str:
    """Send a message; return how it arrived, or the class and reason of what waits."""
    queue_id = relay.submit(ALICE, b"Subject: x\r\n")

    def waiting() -> str:
        told = [f"{each.why}: {each.recipients[0].reason}" for each in relay.queue()]
        return next((each for each in told if not each.startswith("new")), "")

    wait_for(f"{queue_id} to be tried", lambda: bool(primary.messages or waiting()))
    if primary.messages:
        return "encrypted" if primary.messages[0].tls else "clear"
    return waiting()


@pytest.mark.parametrize(
    ("level", "offers_tls", "trusted", "name", "expected"),
    [
        ("verify", True, True, "mail.example.org", "encrypted"),
        ("verify", True, False, "mail.example.org", "tls: Server certificate not "),
        ("verify", True, True, "mail.example.com", "tls: Server certificate not verified"),
        ("verify", False, True, "mail.example.org", "tls: TLS is required, but was not offered"),
        ("encrypt", True, False, "mail.example.com", "encrypted"),
        ("encrypt", False, True, "mail.example.org", "tls: TLS is required, but was not offered"),
        ("may", True, False, "mail.example.com", "encrypted"),
        ("may", False, False, "mail.example.org", "clear"),
        ("none", True, True, "mail.example.org", "clear"),
    ],
)
def test_each_level_takes_what_it_says(
    relay: Relay,
    tmp_path: Path,
    level: str,
    offers_tls: bool,
    trusted: bool,
    name: str,
    expected: str,
) -> None:
    """Mail goes only as the level allows; what cannot go waits, and the queue says why."""
    with Primary(relay.world, tmp_path, name) as primary:
        primary.offers_tls = offers_tls
        with draining(relay, level, trusting=primary if trusted else None):
            assert outcome(relay, primary).startswith(expected)


def test_mail_that_waited_for_tls_goes_when_it_is_mended(relay: Relay, tmp_path: Path) -> None:
    """A certificate that expired, or bore another name, costs time and no mail."""
    with (
        Primary(relay.world, tmp_path, "mail.example.com") as primary,
        draining(relay, "verify", trusting=primary),
    ):
        assert outcome(relay, primary).startswith("tls:")
    with (
        Primary(relay.world, tmp_path) as primary,
        draining(relay, "verify", trusting=primary),
    ):
        relay.shell("postqueue", "-f")
        wait_for("the message to arrive", lambda: bool(primary.messages))
        assert primary.messages[0].tls
