"""The three places where a drill's mail can be: the sender, the relay, the mailboxes.

Counts are taken from the machines' own files, seen from the host: that works while a machine is
off, and costs it nothing.
"""

from __future__ import annotations

import os
import re
import smtplib
import stat
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from importlib import resources
from pathlib import Path

from backup_mx.lab import corpus, layout, names, network
from backup_mx.lab.machine import Machine
from backup_mx.lab.reconcile import Collected, Sent, collected_from_json, sent_from_json
from backup_mx.machine.ship import Answer, Tell
from backup_mx.relay.queue import postfix
from backup_mx.relay.queue.spool import SPOOL

USERS = ("alice", "bob", "carol", "dave", *(f"team{number:02d}" for number in range(5, 21)))
DOMAIN = "example.org"
KIT = "/srv/lab/mailkit.py"
PASSWORD = "/srv/lab/password"  # noqa: S105  the file's path
QUEUES = ("incoming", "active", "deferred", "hold")
FOLDERS = ("new", "cur", ".Junk/new", ".Junk/cur")
"""Where Maildir++ keeps the messages of INBOX and Junk."""
SEND_SECONDS = 300.0
COMMAND_SECONDS = 600.0

_MESSAGE_ID = re.compile(r" postfix/cleanup\[\d+\]: (\w+): message-id=(<[^>]+>)")
_STATUS = re.compile(r" postfix/smtp\[\d+\]: (\w+): to=<[^>]*>, .*?relay=([^,]*), .*?status=(.*)")
_NEXT_HOP = re.compile(r" relay:\[([^\]]+)\]:(\d+)$", re.MULTILINE)
# Postfix's words when no answer came after the message's end: it may have been taken (smtp(8)).
_UNANSWERED = re.compile(r"^deferred \(.*end of data")


@dataclass(frozen=True)
class LabHost:
    """A lab's machine as a Host: what is asked of a relay by SSH, asked without."""

    machine: Machine

    def run(self, argv: Sequence[str], *, stdin: bytes = b"", tell: Tell | None = None) -> Answer:
        """Run ``argv`` as root on the machine. Raises LabError when it is off."""
        done = self.machine.run(list(argv), stdin=stdin, check=False, timeout=COMMAND_SECONDS)
        if tell:
            for line in done.text.splitlines():
                tell(line)
        return Answer(done.returncode, done.text, done.stderr.decode(errors="replace"))


@dataclass(frozen=True)
class Answers:
    """What the sending MTA's log says of the relay: Message-IDs it took, and might have taken."""

    accepted: frozenset[str]
    unanswered: frozenset[str]


@dataclass(frozen=True)
class Sender:
    """The Internet's MTA, which finds its way by MX records."""

    machine: Machine

    def submit(
        self, mails: Iterable[corpus.Mail], name: str, host: str = "127.0.0.1"
    ) -> list[Sent]:
        """Hand mails to the MTA, or to another ``host``; return what was submitted, all of it."""
        folder = f"/srv/lab/{name}"
        corpus.write(mails, self.machine.path(folder))
        place_kit(self.machine)
        key = ["--dkim-key", layout.DKIM_KEY, "--dkim-domain", layout.SENDER_DOMAIN]
        argv = ["python3", KIT, "send", "--folder", folder, "--host", host, *key]
        answer = self.machine.run(argv, timeout=SEND_SECONDS)
        return sent_from_json(answer.text.splitlines())

    def retry(self) -> None:
        """Let it try what it has deferred, as it would by itself some time later."""
        self.machine.run(list(postfix.FLUSH))

    @property
    def waiting(self) -> int:
        """How many messages are in its queue."""
        return queued(self.machine.path("/var/spool/postfix"))

    @property
    def why(self) -> str:
        """What it was told last about mail that waits with it; "" while none does."""
        listing = self.machine.run(list(postfix.LIST)).text.splitlines()
        reasons = [each.reason for mail in postfix.messages(listing) for each in mail.recipients]
        return max(reasons, default="")

    @property
    def bounces(self) -> int:
        """How many messages, which can only be bounces, came back to the senders' domain."""
        return files_below(self.machine.path("/srv/mail"), ("example.net",))

    def answers(self, relay: str) -> Answers:
        """Read from its log what the MTA of the host ``relay`` answered to."""
        log = self.machine.path(self.machine.role.mail_log)
        with log.open(errors="replace") as lines:
            return read_answers(lines, relay)


def read_answers(lines: Iterable[str], relay: str) -> Answers:
    """Read a sending Postfix's log, in order, since it uses a queue ID again."""
    ids: dict[str, str] = {}
    accepted, unanswered = set(), set()
    for line in lines:
        if found := _MESSAGE_ID.search(line):
            ids[found[1]] = found[2]
        elif (found := _STATUS.search(line)) and found[2].startswith(relay) and found[1] in ids:
            if found[3].startswith("sent (250"):
                accepted.add(ids[found[1]])
            elif _UNANSWERED.match(found[3]):
                unanswered.add(ids[found[1]])
    return Answers(frozenset(accepted), frozenset(unanswered))


@dataclass(frozen=True)
class RelayQueue:
    """The relay's queue and log, on the disk that outlives its machine."""

    machine: Machine

    @property
    def waiting(self) -> int:
        """How many messages are in it."""
        return queued(self.machine.path(SPOOL))

    @property
    def held(self) -> int:
        """How many messages, notices among them, are on hold."""
        return queued(self.machine.path(SPOOL), ("hold",))

    @property
    def notices(self) -> int:
        """How many delivery status notifications its Postfix has ever made (bounce(8))."""
        log = self.machine.path(self.machine.role.mail_log)
        if not log.exists():
            return 0  # no relay yet
        with log.open(errors="replace") as lines:
            return sum("delivery status notification" in line or "non-delivery notification" in line
                       for line in lines)  # fmt: skip

    def said(self, words: str) -> int:
        """Count the lines of its log that hold ``words``."""
        log = self.machine.path(self.machine.role.mail_log)
        with log.open(errors="replace") as lines:
            return sum(words in line for line in lines)

    def messages(self) -> list[postfix.Message]:
        """Return what waits, and why, as its Postfix tells."""
        listing = self.machine.run(list(postfix.LIST)).text.splitlines()
        return postfix.messages(listing)

    def answers(self, primary: str) -> Answers:
        """Read from its log what the host ``primary`` answered to."""
        log = self.machine.path(self.machine.role.mail_log)
        with log.open(errors="replace") as lines:
            return read_answers(lines, primary)

    def greeted(self) -> bool:
        """Whether the primary greets it where it drains to: its own Postfix would be greeted."""
        return self._asked(lambda _: True)

    def welcome(self) -> bool:
        """Whether the primary would take mail of it now, asked up to RCPT."""
        return self._asked(_takes_mail)

    def _asked(self, question: Callable[[smtplib.SMTP], bool]) -> bool:
        """Ask every drain target ``question`` from its own place in the network."""
        transport = self.machine.path("/etc/postfix/transport").read_text()
        targets = _NEXT_HOP.findall(transport)
        return bool(targets) and all(self._ask(host, int(port), question) for host, port in targets)

    def _ask(self, host: str, port: int, question: Callable[[smtplib.SMTP], bool]) -> bool:
        session = smtplib.SMTP(local_hostname="mx2.example.org", timeout=1.0)
        try:
            with network.inside(names.scoped(self.machine.lab, self.machine.name)):
                code, _ = session.connect(layout.ADDRESSES.get(host, host), port)
            return code == 220 and question(session)
        except (OSError, smtplib.SMTPException):
            return False
        finally:
            session.close()

    def flush(self) -> None:
        """Let it try all mail now: what the operator does with ``backup-mx drain``."""
        self.machine.run(list(postfix.FLUSH))


@dataclass(frozen=True)
class Mailboxes:
    """The operator's mailboxes on the primary."""

    machine: Machine
    _root: str = field(default=f"/srv/mail/{DOMAIN}", repr=False)

    @property
    def count(self) -> int:
        """How many messages lie in them."""
        root = self.machine.path(self._root)
        return sum(files_below(root / user / "Maildir", FOLDERS) for user in USERS)

    @property
    def on_the_way(self) -> int:
        """How many messages the primary's own Postfix has taken and not yet put into them."""
        return queued(self.machine.path("/var/spool/postfix"))

    def empty(self) -> None:
        """Throw everything away that lies in them."""
        self.machine.run(["doveadm", "expunge", "-A", "mailbox", "*", "ALL"])

    def collect(self, *, trace: bool = False) -> list[Collected]:
        """Fetch everything over IMAP, as a mail client would; what is on top of it with trace."""
        place_kit(self.machine)
        password = self.machine.path(PASSWORD)
        password.write_text("lab")
        users = ",".join(f"{user}@{DOMAIN}" for user in USERS)
        argv = ["python3", KIT, "collect", "--users", users, "--password-file", PASSWORD]
        argv += ["--trace"] if trace else []
        answer = self.machine.run(argv, timeout=SEND_SECONDS)
        return collected_from_json(answer.text.splitlines())


def _takes_mail(session: smtplib.SMTP) -> bool:
    session.timeout = 5.0
    session.ehlo()
    answers = session.mail(""), session.rcpt(f"{USERS[0]}@{DOMAIN}"), session.rset()
    return all(code == 250 for code, _ in answers)


def place_kit(machine: Machine) -> None:
    """Put the program that submits and collects mail on a machine."""
    program = resources.files("backup_mx.lab") / "inside" / "mailkit.py"
    place = machine.path(KIT)
    place.parent.mkdir(parents=True, exist_ok=True)
    place.write_bytes(program.read_bytes())


def queued(spool: Path, queues: Iterable[str] = QUEUES) -> int:
    """Count a Postfix's queued messages.

    A file that its owner may not "execute" is one that cleanup(8) has not finished: nobody got a
    250 for it. A power cut leaves such files behind, and Postfix removes them in its own time.
    """
    modes = (_mode(path) for queue in queues for path in _files(spool / queue))
    return sum(bool(mode & stat.S_IXUSR) for mode in modes)


def files_below(root: Path, folders: Iterable[str]) -> int:
    """Count the files below the given folders of ``root``."""
    return sum(1 for folder in folders for _ in _files(root / folder))


def _files(folder: Path) -> Iterator[str]:
    for place, _, files in os.walk(folder):
        yield from (f"{place}/{name}" for name in files)


def _mode(path: str) -> int:
    try:
        return os.stat(path).st_mode  # noqa: PTH116  hot: a hundred thousand files
    except FileNotFoundError:
        return 0  # moved on while we counted
