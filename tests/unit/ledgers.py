"""A ledger with a log that a test writes, line by line, and a clock that it sets."""

from __future__ import annotations

import time
from pathlib import Path

from backup_mx.relay.ledger import Entry
from backup_mx.relay.ledger.writer import Ledger
from backup_mx.relay.state import Sums

A, B, C = "4jXLxq4KF0zC6Fl", "4jXLxq4KF0zC6Fm", "4jXLxq4KF0zC6Fn"
"""Queue IDs."""


class Desk:
    """The ledger of a relay whose Postfix is the test."""

    def __init__(self, folder: Path, *, hash_addresses: bool = False) -> None:
        self.log = folder / "maillog"
        self.path = folder / "ledger.sqlite"
        self.now = float(int(time.time()))
        self.hash_addresses = hash_addresses
        self.ledger = self.open()

    def open(self) -> Ledger:
        return Ledger.open(
            self.path, self.log, hash_addresses=self.hash_addresses, clock=lambda: self.now
        )

    def reopen(self) -> None:
        self.ledger.close()
        self.ledger = self.open()

    def write(self, *said: str) -> None:
        """Write lines, without reading them."""
        stamp = time.strftime("%b %e %H:%M:%S", time.localtime(self.now))
        with self.log.open("a") as log:
            log.writelines(f"{stamp} mx2 {line}\n" for line in said)

    def read(self) -> None:
        """Read the log to its end."""
        while self.ledger.catch_up().behind:
            pass

    def say(self, *said: str) -> None:
        """Write lines and read them."""
        self.write(*said)
        self.read()

    def accept(self, queue_id: str, *, sender: str = "a@example.net", recipients: int = 1) -> None:
        """Let a message be accepted."""
        self.say(
            f"postfix/smtpd[1]: {queue_id}: client=mail.example.net[192.0.2.7]",
            f"postfix/cleanup[2]: {queue_id}: message-id=<{queue_id}@example.net>",
            active(queue_id, sender, recipients),
        )

    def listed(self, *files: str) -> int:
        """Reconcile twice, as the agent does, with a listing of ``queue ID`` pairs."""
        pairs = [each.split() for each in files]
        entries = [Entry(queue, queue_id, 100, self.now) for queue, queue_id in pairs]
        for _ in range(2):
            self.now += 30
            self.read()
            differ = self.ledger.reconcile(entries, self.now)
        return differ

    @property
    def sums(self) -> Sums:
        return self.ledger.sums()

    @property
    def parts(self) -> tuple[int, int, int, int, int, int]:
        """Accepted, delivered, waiting, held, deleted, differences."""
        sums = self.sums
        return (
            sums.accepted,
            sums.delivered,
            sums.waiting,
            sums.held,
            sums.deleted,
            sums.differences,
        )


def active(queue_id: str, sender: str = "a@example.net", recipients: int = 1) -> str:
    """Return the queue manager's line."""
    return (
        f"postfix/qmgr[3]: {queue_id}: from=<{sender}>, size=100, nrcpt={recipients} (queue active)"
    )


def tried(queue_id: str, to: str = "u@example.org", status: str = "sent", words: str = "ok") -> str:
    """Return the line of an attempt."""
    return (
        f"postfix/smtp[4]: {queue_id}: to=<{to}>, relay=m[192.0.2.1]:25, delay=1, delays=0/0/0/1,"
        f" dsn=2.0.0, status={status} ({words})"
    )


def removed(queue_id: str) -> str:
    """Return the line that says that it is gone."""
    return f"postfix/qmgr[3]: {queue_id}: removed"


def super_(queue_id: str, did: str, process: int = 9) -> str:
    """Return a line of postsuper."""
    return f"postfix/postsuper[{process}]: {queue_id}: {did}"


def asked(queue_id: str, verb: str, by: str = "root from=198.51.100.7") -> str:
    """Return a line of our helper."""
    return f"backup-mx/helper[8]: {queue_id}: {verb} by={by}"
