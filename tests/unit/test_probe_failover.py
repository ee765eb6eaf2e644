"""The gate failover: an outage gone through, left, gone on with, and what can go wrong in it."""

from __future__ import annotations

import ast
import itertools
import json
import re
import smtpd
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from imapd import Imap
from roundtrips import configured

from backup_mx.config import Config
from backup_mx.errors import MachineError, UnreachableError
from backup_mx.findings import Finding
from backup_mx.gates import failover, letters, trial
from backup_mx.gates.failover import Patience
from backup_mx.gates.gate import Site, View
from backup_mx.gates.trial import Came
from backup_mx.machine.ship import Answer, Tell
from backup_mx.net import courier, mailbox
from backup_mx.net.dns import Names
from backup_mx.probe.trip import Trip

SOON = Patience(operator=5.0, senders=5.0, drain=5.0, pace=0.01)
HASTY = Patience(operator=0.0, senders=0.0, drain=0.0, pace=0.01)


@dataclass
class World:
    """A relay, its primary and the world around them, as the gate sees them.

    state is the primary's, mx what DNS has, deaf whether the relay cannot be reached; each of acts
    is done at one of the gate's pauses, and changes something. hasty are the queue IDs of messages
    that leave as soon as they were listed; damaged is why none can be read, "" where all can. since
    is when the relay first saw the primary as it is, None: just now.
    """

    imap: Imap
    config: Config
    folder: Path
    state: str = "up"
    mx: tuple[str, ...] = ("10 mail.example.org", "20 mx2.example.org")
    deaf: bool = False
    answer: dict[str, Any] = field(default_factory=lambda: {"code": 250, "text": "taken"})
    spoil: Callable[[bytes], bytes] = lambda message: message
    seen: str = "X-Spamd-Result: default: False [0.00 / 15.00];\r\n\tBACKUP_MX_DRAIN(0.00)[]\r\n"
    acts: list[Callable[[], None]] = field(default_factory=list)
    waiting: list[bytes] = field(default_factory=list)
    told: list[str] = field(default_factory=list)
    handed: int = 0
    envelopes: list[tuple[str, bool]] = field(default_factory=list)
    submitted: int = 0
    hasty: tuple[str, ...] = ()
    damaged: str = ""
    since: float | None = None

    @property
    def site(self) -> Site:
        made = Site(
            config=self.config,
            relay=self.config.relays["mx2"],
            host=self,
            outside=View("the moon", Moon(self)),
            names=Zone(self),
            folder=self.folder / "build",
            now=lambda: datetime.now(UTC),
            tell=self.told.append,
        )
        made.__dict__["version"] = "1"  # to make a bundle takes a second
        return made

    def run(self, argv: Sequence[str], *, stdin: bytes = b"", tell: Tell | None = None) -> Answer:
        """Answer as the relay does."""
        del tell
        if self.deaf:
            raise UnreachableError("mx2 cannot be reached")
        if "status" in argv:
            return Answer(0, json.dumps(self._status()), "")
        if "show" in argv:
            assert argv[1:] == ("show", "--json", "-")
            return Answer(0, "".join(map(self._shown, stdin.decode().split())), "")
        assert argv[1:] == ("queue", "--json", "--limit", "0", "--search", "probe@example.org")
        one = {"accepted": time.time(), "recipients": [{"address": "…", "reason": "not now"}]}
        listed = [{"id": f"4F{place}", **one} for place, _ in enumerate(self.waiting)]
        return Answer(0, json.dumps({"messages": listed}), "")

    def _shown(self, queue_id: str) -> str:
        """Return a message's line, as `backup-mx show` prints it of one that lies there, or not."""
        found: dict[str, Any] = {"id": queue_id, "message": None, "error": self.damaged or None}
        if queue_id not in self.hasty and not self.damaged:
            headers = self.waiting[int(queue_id[2:])].partition(b"\r\n\r\n")[0]
            found["message"] = {"headers": headers.decode().replace("\r\n", "\n")}
        return json.dumps(found) + "\n"

    def _status(self) -> dict[str, Any]:
        primary = {"name": "home", "state": self.state, "since": self.since or time.time()}
        agent = {"alive": True, "blind": False}
        snapshot = {"time": 0.0, "started": 0.0, "relay": "mx2", "hostname": "mx2.example.org",
                    "version": "1", "primaries": [primary]}  # fmt: skip
        return {"asked": time.time(), "agent": agent, "snapshot": snapshot}

    def configure(self, more: str) -> None:
        """Let the config have more tables."""
        assert self.config.roundtrip
        port = self.config.roundtrip.imap.port
        self.config = configured(self.folder, port, self.imap.certificate, more)

    def submit(self, _account: object, sender: str, recipient: str, message: bytes) -> str:
        assert (sender, recipient) == ("prober@example.net", "probe@example.org")
        self.submitted += 1
        self.waiting.append(message)
        return "taken"

    def down(self) -> None:
        self.state = "down"

    def up(self, at: float | None = None) -> None:
        """Let the primary come back, and the relay drain; at is when by the messages' headers."""
        self.state = "up"
        now = time.strftime("%a, %d %b %Y %H:%M:%S +0000", time.gmtime(at))
        way = f"Received: by mail.example.org; {now}\r\nReceived: by mx2.example.org; {now}\r\n"
        while self.waiting:
            self.imap.put(self.spoil((self.seen + way).encode() + self.waiting.pop()))

    def judged(self, *acts: Callable[[], None], patience: Patience = SOON) -> list[Finding]:
        """Run the gate; each act is done at the next pause."""
        self.acts = list(acts)
        return list(failover.judge(self.site, patience, self.pause))

    def pause(self, _seconds: float) -> None:
        if self.acts:
            self.acts.pop(0)()


@dataclass(frozen=True)
class Zone(Names):
    """What DNS has of the world's domain."""

    world: World | None = None

    def __init__(self, world: World) -> None:
        object.__setattr__(self, "world", world)

    def lookup(self, name: str, kind: str) -> tuple[str, ...]:
        assert (name, kind) == ("example.org", "MX")
        assert self.world
        return self.world.mx


@dataclass(frozen=True)
class Moon:
    """Where a courier is sent to; what it is given is in the relay's queue at once."""

    world: World

    def run(self, argv: Sequence[str], *, stdin: bytes = b"", tell: Tell | None = None) -> Answer:
        del tell
        assert tuple(argv) == ("python3", "-I", "-")
        found = re.search(r"json\.loads\(('.*')\)\)\)\)\n$", stdin.decode())
        assert found
        task = json.loads(ast.literal_eval(found[1]))
        assert (task["host"], task["port"]) == ("203.0.113.20", 25)
        for each in task["messages"]:
            if self.world.answer.get("code") == 250:
                self.world.handed += 1
                self.world.envelopes.append((each["sender"], each["utf8"]))
                self.world.waiting.append((each["head"] + each["body"] * each["times"]).encode())
        return Answer(0, json.dumps({"answers": [self.world.answer for _ in task["messages"]]}), "")


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return smtpd.certificate(tmp_path_factory.mktemp("tls"), "localhost")


@pytest.fixture
def world(certificate: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[World]:
    imap = Imap(certificate)
    with smtpd.serving(imap) as server:
        made = World(imap, configured(tmp_path, server.port, certificate), tmp_path)
        monkeypatch.setattr(mailbox, "submit", made.submit)
        monkeypatch.setattr(letters, "_LARGE", 50)
        yield made


def verdicts(findings: list[Finding]) -> dict[str, str]:
    return {each.gate: each.verdict for each in findings}


def test_an_outage_that_goes_well_passes(world: World) -> None:
    """Four sorts of mail wait on the relay and come home; nothing of the trial stays."""
    findings = world.judged(world.down, world.up)
    assert verdicts(findings) == {
        "kept": "pass", "drained": "pass", "arrived": "pass", "filtered": "pass",
    }  # fmt: skip
    assert findings[0].saw == "4 messages came by its MX record: plain, 8-bit, attachment, large"
    assert findings[2].saw.startswith("all in the mailbox, by the relay mx2, 0 minutes late")
    assert world.submitted == 4
    assert world.imap.folders["INBOX"] == {}
    assert not list((world.folder / "build").glob("failover*"))
    assert [line for line in world.told if line.startswith("Switch")] == [
        line for line in world.told if "mail.example.org off" in line or "on again" in line
    ]


@pytest.mark.parametrize(
    "mx",
    [
        ("10 mail.example.org",),
        ("10 mail.example.org", "20 mx2.example.org", "20 mx3.x.org"),
        ("10 mail.example.org", "20 mx2.example.org", "15 other.example.net"),
    ],
)
def test_where_no_sender_would_find_it_messages_go_straight_to_the_relay(
    world: World, mx: tuple[str, ...]
) -> None:
    """It is not published yet, or another exchanger may be taken instead.

    There are two messages more then: those which an account may not take.
    """
    more = '[relay.mx3]\nhostname = "mx3.x.org"\naddress = "203.0.113.21"\n'
    world.configure(more)
    home = world.config.primaries["home"].model_copy(update={"smtputf8": True})
    world.config = world.config.model_copy(update={"primaries": {"home": home}})
    world.mx = mx
    findings = world.judged(world.down, world.up)
    assert set(verdicts(findings).values()) == {"pass"}
    assert "from the moon" in findings[0].saw
    assert "null sender, SMTPUTF8" in findings[0].saw
    assert (world.handed, world.submitted) == (6, 0)
    assert [sender for sender, utf8 in world.envelopes if not utf8][-1] == ""
    assert [sender for sender, utf8 in world.envelopes if utf8] == ["prober@example.net"]


def test_a_trial_that_was_left_goes_on_where_it_was(world: World) -> None:
    """Nothing is sent twice, whenever the operator went away."""

    def leave() -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        world.judged(leave)
    with pytest.raises(KeyboardInterrupt):
        world.judged(world.down, leave)
    assert world.submitted == 4
    world.told.clear()
    findings = world.judged(world.up)
    assert set(verdicts(findings).values()) == {"pass"}
    assert world.submitted == 4
    assert world.told[0] == "going on with the trial that was left"
    assert not any("off now" in line for line in world.told)


def test_a_trial_that_was_left_amid_its_messages_sends_the_rest(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And none of them again."""

    def leave_at_the_third(*given: object) -> str:
        if world.submitted == 2:
            raise KeyboardInterrupt
        return World.submit(world, *given)  # type: ignore[arg-type]

    world.down()
    monkeypatch.setattr(mailbox, "submit", leave_at_the_third)
    with pytest.raises(KeyboardInterrupt):
        world.judged()
    monkeypatch.setattr(mailbox, "submit", world.submit)
    assert set(verdicts(world.judged(world.up)).values()) == {"pass"}
    assert world.submitted == 4


def test_a_mailbox_that_breaks_off_amid_the_deleting_does_not_undo_the_verdict(
    world: World,
) -> None:
    """What was judged is judged; the trial is over, and what stays is told."""
    world.imap.curt = True
    findings = world.judged(world.down, world.up)
    assert not world.imap.curt
    assert set(verdicts(findings).values()) == {"pass"}
    assert verdicts(findings)["arrived"] == "pass"
    assert world.told[-1].startswith("some of these messages stay in the mailbox: ")
    assert len(world.imap.folders["INBOX"]) == 3
    assert not list((world.folder / "build").glob("failover*"))


def test_a_trial_that_was_left_amid_the_deleting_is_not_gone_on_with(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It would look for what it has deleted itself, and call it lost."""

    def leave(box: mailbox.Mailbox, found: mailbox.Found) -> None:
        delete(box, found)
        raise KeyboardInterrupt

    delete = mailbox.Mailbox.delete
    monkeypatch.setattr(mailbox.Mailbox, "delete", leave)
    with pytest.raises(KeyboardInterrupt):
        world.judged(world.down, world.up)
    monkeypatch.setattr(mailbox.Mailbox, "delete", delete)
    findings = world.judged(world.down, world.up, patience=replace(SOON, drain=1.0))
    assert set(verdicts(findings).values()) == {"pass"}
    assert world.submitted == 8


def test_a_trial_is_held_once_at_a_time(world: World) -> None:
    """Two would count each other's messages."""
    other: list[Finding] = []

    def again() -> None:
        with pytest.raises(MachineError, match="another trial of mx2 is going on"):
            other.extend(failover.judge(world.site, SOON, world.pause))

    findings = world.judged(world.down, again, world.up)
    assert set(verdicts(findings).values()) == {"pass"}
    assert (other, world.submitted) == ([], 4)


def test_a_primary_that_was_not_away_is_named(world: World) -> None:
    """Only the one behind the mailbox was: the others' mail was not tried."""
    more = (
        '[primary.office]\nhostname = "mail.example.com"\n'
        '[primary.spare]\nhostname = "spare.example.com"\n'
        '[domain."example.com"]\nprimary = "office"\n[domain."example.net"]\nprimary = "office"\n'
    )
    world.configure(more)
    findings = world.judged(world.down, world.up)
    assert verdicts(findings)["untried"] == "warn"
    (found,) = [each for each in findings if each.gate == "untried"]
    assert found.saw == "mail.example.com was not away: not tried for example.com, example.net"


def test_an_operator_who_does_nothing_has_proven_nothing(world: World) -> None:
    """Neither off nor on again: unknown, and it can be gone on with."""
    (finding,) = world.judged(patience=HASTY)
    assert (finding.gate, finding.verdict) == ("failover", "unknown")
    assert "was not switched off" in finding.saw
    world.down()
    findings = world.judged(patience=HASTY)
    assert verdicts(findings) == {"kept": "pass", "failover": "unknown"}
    assert "not switched on again" in findings[-1].saw
    assert set(verdicts(world.judged(world.up)).values()) == {"pass"}


def test_a_relay_that_is_out_of_reach_is_waited_for(world: World) -> None:
    """The operator's own line may be the one that was pulled."""
    world.deaf = True

    def found() -> None:
        world.deaf, world.state = False, "down"

    assert set(verdicts(world.judged(found, world.up)).values()) == {"pass"}
    assert "still trying: mx2 cannot be reached" in world.told


def test_mail_that_does_not_come_to_the_relay_fails(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It says how much did: the primary was not away for everybody."""
    world.down()

    def lose_one(account: object, sender: str, recipient: str, message: bytes) -> str:
        World.submit(world, account, sender, recipient, message)
        return str(world.waiting.pop() if len(world.waiting) == 4 else "")

    monkeypatch.setattr(mailbox, "submit", lose_one)
    (finding,) = world.judged(patience=HASTY)
    assert (finding.gate, finding.verdict) == ("kept", "fail")
    assert finding.saw.startswith("3 of 4 messages")
    assert not list((world.folder / "build").glob("failover*")), "what is astray stays so"


@pytest.mark.parametrize(
    "field", ["X-Backup-MX-Roundtrip: 6b1f", "X-Backup-MX-Failover: 6b1f.large"]
)
def test_other_mail_for_the_mailbox_is_not_the_trials(
    field: str, world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By `probe serve`, or of an earlier trial: it makes no lost message good, nor a drain late."""
    foreign = f"{field}\r\nSubject: x\r\n\r\n".encode()
    world.down()

    def swap_one(account: object, sender: str, recipient: str, message: bytes) -> str:
        World.submit(world, account, sender, recipient, message)
        if len(world.waiting) == 4:
            world.waiting[3] = foreign
        return "taken"

    monkeypatch.setattr(mailbox, "submit", swap_one)
    (finding,) = world.judged(patience=HASTY)
    assert (finding.gate, finding.verdict) == ("kept", "fail")
    assert finding.saw.startswith("3 of 4 messages")
    world.waiting.clear()
    monkeypatch.setattr(mailbox, "submit", world.submit)

    def up_and_probed() -> None:
        world.up()
        world.waiting.append(foreign)

    assert set(verdicts(world.judged(up_and_probed)).values()) == {"pass"}


def test_a_message_that_leaves_while_it_is_listed_is_gone(world: World) -> None:
    """The relay hands it over between the two questions."""
    world.down()

    def leave() -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        world.judged(leave)
    world.hasty = ("4F0", "4F1", "4F2", "4F3")
    world.state = "up"
    kept, drained = itertools.islice(failover.judge(world.site, SOON, world.pause), 2)
    assert (kept.verdict, drained.gate, drained.verdict) == ("pass", "drained", "pass")


def test_a_message_that_cannot_be_read_is_not_taken_for_gone(world: World) -> None:
    """Nobody knows whose it is: that is asked again, and at the end unknown."""
    world.damaged = "the helper does not answer"
    world.down()
    with pytest.raises(MachineError, match="4F0 cannot be read: the helper does not answer"):
        world.judged(patience=HASTY)
    assert "still trying: 4F0 cannot be read: the helper does not answer" in world.told


def test_a_relay_that_does_not_take_a_message_fails(world: World) -> None:
    """With its words."""
    world.mx, world.answer = (), {"code": 554, "text": "5.7.1 Relay access denied"}
    world.down()
    (finding,) = world.judged()
    assert finding.verdict == "fail"
    assert "did not take the message (plain): 554 5.7.1 Relay access denied" in finding.saw


def test_mail_that_stays_on_the_relay_fails(world: World) -> None:
    """With the reason for which it waits."""

    def half() -> None:
        world.state = "up"

    findings = world.judged(world.down, half, patience=replace(SOON, drain=0.0))
    assert verdicts(findings) == {"kept": "pass", "drained": "fail"}
    assert "4 messages still on the relay" in findings[-1].saw
    assert findings[-1].saw.endswith("not now")


def test_a_drain_that_failed_is_not_gone_on_with(world: World) -> None:
    """Run again, the gate asks for another outage: the messages of this one came too late."""
    world.down()
    findings = world.judged(
        lambda: setattr(world, "state", "up"), patience=replace(SOON, drain=0.0)
    )
    assert verdicts(findings)["drained"] == "fail"
    assert not list((world.folder / "build").glob("failover*"))
    world.up()
    (finding,) = world.judged(patience=HASTY)
    assert (finding.gate, finding.verdict) == ("failover", "unknown")
    assert "was not switched off" in finding.saw


def test_mail_that_came_home_late_fails_whenever_it_is_looked_for(world: World) -> None:
    """Its own header says when it came; who left meanwhile and goes on does not make it punctual.

    Nor is what came in time late where nobody has looked for a day.
    """

    def leave() -> None:
        raise KeyboardInterrupt

    for arrived, verdict in ((0.0, {"pass"}), (SOON.drain + 60.0, {"pass", "fail"})):
        world.down()
        with pytest.raises(KeyboardInterrupt):
            world.judged(lambda: setattr(world, "state", "up"), leave)
        (path,) = (world.folder / "build").glob("failover*.json")
        kept = json.loads(path.read_text())
        sent = {sort: at - 80_000 for sort, at in kept["sent"].items()}
        back = kept["back"] - 80_000
        path.write_text(json.dumps({**kept, "sent": sent, "back": back}))
        world.up(back + arrived)
        findings = world.judged()
        assert set(verdicts(findings).values()) == verdict
    late = next(each for each in findings if each.gate == "late")
    assert late.saw == (
        "home more than 5 s after the primary was back: plain, 8-bit, attachment, large"
    )


def test_the_primarys_return_counts_from_when_the_relay_saw_it(world: World) -> None:
    """Not from when the gate, which the operator had left at "Switch on again", is run again."""

    def leave() -> None:
        raise KeyboardInterrupt

    world.down()
    with pytest.raises(KeyboardInterrupt):
        world.judged(leave)
    world.since = time.time() - 7200
    world.up()
    findings = {each.gate: each for each in world.judged()}
    assert findings["late"].verdict == "fail"
    assert findings["drained"].saw == "all handed over within 2 h of its return"


def test_mail_that_was_changed_is_seen(world: World) -> None:
    """One letter is enough; what an account's own server did is not the relay's doing."""
    world.spoil = lambda message: message.replace("żółć".encode(), b"zolc")
    assert verdicts(world.judged(world.down, world.up))["changed"] == "warn"
    world.mx = ()
    findings = world.judged(world.down, world.up)
    assert verdicts(findings)["changed"] == "fail"
    assert "not as it was sent: 8-bit" in [each.saw for each in findings]


@pytest.mark.parametrize(
    ("seen", "verdict"),
    [
        ("X-Spamd-Result: default: False [0.00 / 15.00]; R_SPF_ALLOW(-0.20)[]\r\n", "fail"),
        ("", "warn"),
    ],
)
def test_a_filter_that_takes_it_for_anybodys_mail(world: World, seen: str, verdict: str) -> None:
    """What is delivered says whether rspamd looked, and by the kit's rule."""
    world.seen = seen
    assert verdicts(world.judged(world.down, world.up))["filtered"] == verdict


def test_mail_that_never_came_home_fails(world: World) -> None:
    """It says which."""
    world.spoil = lambda message: b"Subject: x\r\n\r\n" if b".large" in message else message
    findings = world.judged(world.down, world.up, patience=replace(SOON, drain=0.0))
    assert verdicts(findings)["arrived"] == "fail"
    assert "not in the mailbox: large" in [each.saw for each in findings]


def test_without_an_account_the_gate_says_what_it_needs(world: World) -> None:
    """And sends nothing."""
    bare = world.config.model_copy(update={"roundtrip": None})
    with pytest.raises(MachineError, match=r"no \[roundtrip\]"):
        list(failover.judge(replace(world.site, config=bare)))


def test_a_mailbox_in_nobodys_domain_is_said(world: World) -> None:
    """Before anybody is asked to switch anything off."""
    options = world.config.roundtrip
    assert options
    elsewhere = options.model_copy(update={"recipient": "me@example.com"})
    world.config = world.config.model_copy(update={"roundtrip": elsewhere})
    with pytest.raises(MachineError, match=r"me@example\.com is in none of your domains"):
        world.judged()
    assert not world.told


LETTERS = letters.letters("token", "a@example.net", "b@example.org", 0.0, null=True, utf8=True)
HOME = Trip("relay", 60.0, "mx2")


def came(letter: letters.Letter, trip: Trip = HOME) -> Came:
    return Came(letter.token, letters.essence(letter.whole), trip, symbols=None, after=0.0)


def test_mail_that_came_twice_is_told() -> None:
    """A warning: nothing is lost."""
    whole = [came(each) for each in LETTERS]
    found = list(trial.judged(LETTERS, [*whole, whole[0]], 1.0, by_mx=True))
    assert [(each.gate, each.verdict) for each in found] == [("arrived", "pass"), ("twice", "warn")]


def test_mail_that_bears_no_line_of_the_relay_did_not_take_it() -> None:
    """Whatever was seen in its queue."""
    past = [came(each, Trip("direct", 2)) for each in LETTERS]
    found = list(trial.judged(LETTERS, past, 1.0, by_mx=True))
    assert [(each.gate, each.verdict) for each in found] == [("arrived", "fail")]


def test_the_messages_are_of_the_sorts_that_get_harmed() -> None:
    """Eight bits, dots alone on a line, an attachment, more than ten megabytes; CRLF everywhere."""
    by_sort = {each.sort: each.whole for each in LETTERS}
    assert len(by_sort["large"]) > 10_000_000
    assert b"\r\n.\r\n.." in by_sort["plain"]
    assert any(byte > 127 for byte in by_sort["8-bit"])
    for whole in by_sort.values():
        assert whole.count(b"\n") == whole.count(b"\r\n")
        assert max(map(len, whole.split(b"\r\n"))) <= 998
        head = whole.partition(b"\r\n\r\n")[0]
        assert head.isascii() == (b".SMTPUTF8" not in head)
        assert letters.token_of(head + b"\r\n\r\n").startswith("token.")


def test_another_encoding_is_no_change() -> None:
    """A server may write eight bits in seven (RFC 6152)."""
    plain = b"Content-Type: text/plain; charset=utf-8\r\n"
    eight = plain + b"Content-Transfer-Encoding: 8bit\r\n\r\nGr\xc3\xbc\xc3\x9fe\r\n"
    seven = plain + b"Content-Transfer-Encoding: quoted-printable\r\n\r\nGr=C3=BC=C3=9Fe\r\n\r\n"
    assert letters.essence(eight) == letters.essence(seven)
    assert letters.essence(eight) != letters.essence(eight.replace(b"Gr", b"gr"))


def test_a_header_with_other_letters_is_compared() -> None:
    """Written in RFC 2047's words it says the same; with question marks it does not."""
    utf8, words, broken = (
        f"Comments: {said}\r\n\r\nSMTPUTF8.\r\n".encode()
        for said in ("Grüße", "=?utf-8?b?R3LDvMOfZQ==?=", "Gr??e")
    )
    assert letters.essence(utf8) == letters.essence(words) != letters.essence(broken)


def test_a_trial_of_another_relay_or_of_long_ago_is_not_gone_on_with(tmp_path: Path) -> None:
    """One of another version or another config; nor one whose file is broken."""
    path = tmp_path / "build" / "failover-mx2.json"
    kept = trial.Trial("token", "1", "c", 1000.0, by_mx=True, sent={"plain": 1001.0})
    trial.keep(path, kept)
    assert trial.left(path, "1", "c", 1002.0) == kept
    assert trial.left(path, "2", "c", 1002.0) is None
    assert trial.left(path, "1", "other", 1002.0) is None
    assert trial.left(path, "1", "c", 1000.0 + trial.OLD) is None
    path.write_text('{"token": 1}')
    assert trial.left(path, "1", "c", 1002.0) is None


def test_the_courier_hands_over_every_message(certificate: Path) -> None:
    """After STARTTLS, in one session, with what was answered to each."""
    script = smtpd.secured(certificate, end="250 queued", ehlo="STARTTLS 8BITMIME SMTPUTF8")
    message = {"head": "Subject: ü\r\n\r\n", "body": "x\r\n", "times": 3,
               "sender": "a@example.net", "utf8": False}  # fmt: skip
    with smtpd.serving(script) as server:
        task = {"host": "localhost", "port": server.port, "ehlo": "probe.invalid",
                "recipient": "b@example.org",
                "messages": [message, {**message, "sender": "", "utf8": True}]}  # fmt: skip
        said = courier.facts(task)["answers"]
        heard = server.heard
    assert said == [{"code": 250, "text": "queued"}] * 2
    assert heard.count("x") == 6
    assert heard.count("STARTTLS") == 1
    assert "mail FROM:<a@example.net> BODY=8BITMIME" in heard
    assert "mail FROM:<> BODY=8BITMIME SMTPUTF8" in heard


@pytest.mark.parametrize(("pause", "words"), [(0.0, "too long"), (0.05, "timed out")])
def test_the_courier_leaves_a_server_that_never_ends(
    monkeypatch: pytest.MonkeyPatch, pause: float, words: str
) -> None:
    """However fast it speaks, or however slowly."""
    monkeypatch.setattr(courier, "SECONDS", 0.5 if pause else 20.0)
    task = {"host": "localhost", "ehlo": "probe.invalid", "messages": []}
    with smtpd.serving(smtpd.endless(pause=pause)) as server:
        (said,) = courier.facts({**task, "port": server.port})["answers"]
    assert words in said["error"]


@pytest.mark.parametrize("verb", ["mail", "rcpt", "end"])
def test_the_courier_tells_what_was_refused(verb: str) -> None:
    """And that nobody answers."""
    message = {"sender": "a@b.de", "utf8": False, "head": "\r\n", "body": "", "times": 1}
    task = {"host": "localhost", "ehlo": "probe.invalid", "recipient": "c@d.de",
            "messages": [message]}  # fmt: skip
    with smtpd.serving(smtpd.plain(**{verb: "450 later"})) as server:
        said = courier.facts({**task, "port": server.port})
        assert ("rset" in server.heard) == (verb != "end"), "for the next message"
    assert said == {"answers": [{"code": 450, "text": "later"}]}
    assert courier.facts({**task, "port": 1}) == {"answers": [{"error": "Connection refused"}]}
