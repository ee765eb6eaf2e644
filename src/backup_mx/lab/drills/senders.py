"""The drill ``senders``: all kinds of senders, straight and by the relay, judged alike."""

from __future__ import annotations

import http.client
import json
import secrets
import string
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from importlib import resources
from typing import Any

from backup_mx.errors import LabError
from backup_mx.lab import layout, names, network, verdict
from backup_mx.lab.drills.base import Drill
from backup_mx.lab.machine import Machine
from backup_mx.lab.matrix import Posted, letters, post
from backup_mx.lab.parity import RELAYED, STRAIGHT, Passage, relayed_row, straight_row
from backup_mx.lab.reconcile import Collected, Sent
from backup_mx.lab.stations import RelayQueue
from backup_mx.lab.verdict import Verdict

PRIMARY_SERVER = f"{layout.EDGE}:25"
RELAY_SERVER = f"{layout.ROLES['mx2'].addresses[0]}:25"
CLIENT = "/srv/lab/client.py"
POST_SECONDS = 180.0
DRAIN_SECONDS = 45.0
SCAN_SECONDS = 120.0

Sending = tuple[Posted, Mapping[str, Any]]
"""A letter as it was sent, and what its client says of it (inside/client.py)."""


@dataclass
class Senders(Drill):
    """The drill ``senders``: each letter of the matrix goes straight, then by the relay.

    ``messages`` is not asked: the matrix says what is sent.
    """

    name = "senders"
    summary = "all kinds of senders, straight and by the relay: each judged as it is straight"
    default_messages = len(letters())

    _taken: list[Sending] = field(default_factory=list, repr=False)

    def rehearse(self, pool: Executor) -> tuple[list[Sent], list[str]]:
        """Send everything twice, and compare."""
        del pool
        straight = self.go_straight()
        self.cut_the_primary()
        sendings, failures = self.go_by_the_relay()
        found = self.passages(RELAYED, sendings, judged={})
        pairs = list(zip(straight, found, strict=True))
        self.rows = [row for pair in pairs for row in rows_of(*pair)]
        wrong = [f"{row['name']}, {row['path']}: {'; '.join(row['differences'])}"
                 for row in self.rows if not row["parity"]]  # fmt: skip
        self._taken = [each for each in sendings if each[1]["code"] == 250]
        return [sent(number, *each) for number, each in enumerate(self._taken, 1)], [
            *failures,
            *wrong,
        ]

    @property
    def accepted(self) -> frozenset[str]:
        """The Message-IDs that the relay has answered 250 to."""
        return frozenset(posted.message_id for posted, _ in self._taken)

    def go_straight(self) -> list[Passage]:
        """Send everything to the primary, and have rspamd's verdict on each."""
        self.mailboxes.empty()
        sendings = self.post_all("straight", [PRIMARY_SERVER])
        self.filed()
        judged = verdict.from_history(self.history())
        for posted, answer in sendings:
            missing = posted.letter.judged and posted.message_id not in judged
            if missing and answer["code"] != 250:
                judged[posted.message_id] = self.scan(posted)
        self.timeline.event(f"{len(sendings)} senders went straight to the primary")
        return self.passages(STRAIGHT, sendings, judged)

    def go_by_the_relay(self) -> tuple[list[Sending], list[str]]:
        """Send everything while the primary is off, switch it on, and drain."""
        try:
            sendings = self.post_all("relayed", [PRIMARY_SERVER, RELAY_SERVER])
            self.figures["messages waiting on the relay"] = self.relay.waiting
            self.timeline.event(f"{self.relay.waiting} messages wait on the relay")
        finally:
            self.restore_the_primary()
        try:
            self.drain(DRAIN_SECONDS)
        except LabError as error:
            self.timeline.event(f"given up: {error}")
            return sendings, [str(error)]
        return sendings, []

    def post_all(self, name: str, servers: Sequence[str]) -> list[Sending]:
        """Let every sender deliver its letter to the first of ``servers`` that answers."""
        internet = self.sender.machine
        folder = f"/srv/lab/senders-{name}"
        mails = [signed(internet, post(each, token(), datetime.now(UTC)))
                 for each in letters()]  # fmt: skip
        place(internet, folder, mails)
        argv = ["python3", CLIENT, "--letters", f"{folder}/letters.json"]
        argv += [word for server in servers for word in ("--server", server)]
        lines = internet.run(argv, timeout=POST_SECONDS).text.splitlines()
        return list(zip(mails, map(json.loads, lines), strict=True))

    def passages(
        self, path: str, sendings: Iterable[Sending], judged: Mapping[str, Verdict]
    ) -> list[Passage]:
        """Say of each letter where it is, and what rspamd said: in its header, or in ``judged``."""
        copies = self.mailboxes.collect(trace=True)
        waiting = waiting_on(self.relay)
        return [passage(path, each, copies, waiting, judged) for each in sendings]

    def history(self) -> str:
        """Return rspamd's history, as its controller tells it on the primary itself."""
        try:
            with network.inside(names.scoped(self.world.name, self.primary.name)):
                connection = http.client.HTTPConnection("127.0.0.1", 11334, timeout=30)
                connection.connect()
            connection.request("GET", "/history")
            return connection.getresponse().read().decode(errors="replace")
        except (OSError, http.client.HTTPException) as error:
            raise LabError(f"rspamd's controller does not tell its history: {error}") from error

    def scan(self, posted: Posted) -> Verdict:
        """Ask rspamd what it would have said, had the letter come to it straight."""
        letter = posted.letter
        known = has_name(letter.address, self.sender.machine)
        argv = ["rspamc", "--json", "--connect", "127.0.0.1:11333"]
        argv += ["--ip", letter.address, "--helo", letter.helo, "--from", posted.sender]
        argv += ["--hostname", letter.helo] if known else []
        argv += [word for each in letter.recipients for word in ("--rcpt", each)]
        answer = self.primary.run(argv, stdin=posted.data, timeout=SCAN_SECONDS)
        return verdict.from_scan(answer.text, letter.address)


def token() -> str:
    """Return a word that no filter has ever seen, of letters only: digits have a smell of spam."""
    return "".join(secrets.choice(string.ascii_lowercase) for _ in range(12))


def rows_of(straight: Passage, relayed: Passage) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return the two rows of one letter."""
    return straight_row(straight), relayed_row(relayed, straight)


def passage(
    path: str,
    sending: Sending,
    copies: Iterable[Collected],
    waiting: Mapping[str, str],
    judged: Mapping[str, Verdict],
) -> Passage:
    """Say what became of one letter: of its copies, or of its place in the relay's queue."""
    posted, answer = sending
    ours = [each for each in copies if each.message_id == posted.message_id]
    shown = verdict.from_trace(ours[0].trace) if ours else judged.get(posted.message_id)
    return Passage(
        letter=posted.letter,
        path=path,
        code=answer["code"],
        answers=tuple(answer["answers"]),
        folders=tuple(each.folder for each in ours),
        waiting="" if ours else waiting.get(posted.sender, ""),
        verdict=shown,
    )


def sent(number: int, posted: Posted, answer: Mapping[str, Any]) -> Sent:
    """Return a taken letter as the reconciliation knows mail."""
    letter = posted.letter
    return Sent(
        number=number,
        message_id=posted.message_id,
        kind=letter.name,
        recipients=letter.recipients,
        signed=bool(letter.sign),
        sha256=posted.sha256,
        size=len(posted.data),
        code=answer["code"],
        reply=answer["answers"][-1],
    )


def signed(internet: Machine, posted: Posted) -> Posted:
    """Return a letter with the DKIM signature that it has to carry, if any."""
    domain = posted.letter.sign
    if not domain:
        return posted
    argv = ["dkimsign", layout.DKIM_SELECTOR, domain, layout.DKIM_KEY]
    return replace(posted, data=internet.run(argv, stdin=posted.data).stdout)


def place(internet: Machine, folder: str, mails: Iterable[Posted]) -> None:
    """Put the letters, and the program that delivers them, on the machine."""
    root = internet.path(folder)
    root.mkdir(parents=True, exist_ok=True)
    listed = []
    for number, posted in enumerate(mails, start=1):
        (root / f"{number}.eml").write_bytes(posted.data)
        letter = posted.letter
        listed.append({
            "name": letter.name, "address": letter.address, "helo": letter.helo,
            "sender": posted.sender, "recipients": letter.recipients,
            "extensions": letter.extensions, "tls": not letter.direct, "size": len(posted.data),
            "file": f"{folder}/{number}.eml",
        })  # fmt: skip
    (root / "letters.json").write_text(json.dumps(listed), encoding="utf-8")
    program = resources.files("backup_mx.lab") / "inside" / "client.py"
    internet.path(CLIENT).write_bytes(program.read_bytes())


def waiting_on(relay: RelayQueue) -> dict[str, str]:
    """Return the reason for which the mail of each sender waits on the relay."""
    return {
        message.sender: message.recipients[0].reason or "not tried yet"
        for message in relay.messages()
    }


def has_name(address: str, internet: Machine) -> bool:
    """Tell whether reverse DNS knows an address."""
    return bool(internet.run(["getent", "hosts", address], check=False).stdout)
