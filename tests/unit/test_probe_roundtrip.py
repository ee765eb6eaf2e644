"""A message that goes the whole way: found, late, lost, or nobody can tell; once, and for ever."""

from __future__ import annotations

import json
import smtpd
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from email import message_from_bytes
from pathlib import Path

import pytest
from click.testing import CliRunner
from imapd import Imap
from prometheus_client.parser import text_string_to_metric_families
from roundtrips import configured

from backup_mx.cli.probe import probe
from backup_mx.config import Config
from backup_mx.config.values import HostPort
from backup_mx.errors import MachineError
from backup_mx.findings import Finding
from backup_mx.machine.ship import SshHost
from backup_mx.net import mailbox
from backup_mx.net.mailbox import Account
from backup_mx.probe import exporter, keeper, rota, roundtrip, table
from backup_mx.probe.probe import Probe, Scene, Seen, Target
from backup_mx.probe.rota import Board
from backup_mx.probe.trip import Trip

PATIENCE = 20.0  # seconds that a test waits for what has to come
DIRECT = b"Received: from a by mail.example.org; %b\r\n"
HURRIED = 'patience = "1s"\nevery = "1s"\n'
BY_RELAY = DIRECT + b"Received: from b by mx2.example.org; %b\r\n"


@dataclass
class Internet:
    """What takes the messages that are handed over, and brings them to the mailbox, or not.

    way is the Received lines that they get, b"" for none to arrive; kept are those that did not.
    relay is why it keeps those, "" where it does not; what is no text is raised instead. Somebody
    else's waits there all the time. brings is what happens while it is asked.
    """

    imap: Imap
    config: Config
    way: bytes = DIRECT
    kept: list[bytes] = field(default_factory=list)
    relay: str | MachineError = ""
    brings: Callable[[], None] = lambda: None

    def submit(self, account: Account, sender: str, recipient: str, message: bytes) -> str:
        assert (account.host, account.password) == ("smtp.example.net", "sesame")
        assert (sender, recipient) == ("prober@example.net", "probe@example.org")
        self.kept.append(message)
        if self.way:
            self.deliver(self.way)
        return "taken"

    def waiting(self, host: SshHost, recipient: str, since: float, field: str) -> dict[str, str]:
        assert (str(host.target), recipient) == ("root@203.0.113.20:22", "probe@example.org")
        assert time.time() - since < PATIENCE
        if isinstance(self.relay, MachineError):
            raise self.relay
        found = [str(message_from_bytes(each)[field]) for each in self.kept if self.relay]
        self.brings()
        return {"6b1f": "somebody else's", **dict.fromkeys(found, str(self.relay))}

    def deliver(self, way: bytes, late: float = 0.0) -> None:
        now = time.strftime("%a, %d %b %Y %H:%M:%S +0000", time.gmtime(time.time() + late))
        while self.kept:
            self.imap.put(way.replace(b"%b", now.encode()) + self.kept.pop())


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return smtpd.certificate(tmp_path_factory.mktemp("tls"), "localhost")


@pytest.fixture
def internet(
    certificate: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Internet]:
    imap = Imap(certificate)
    with smtpd.serving(imap) as server:
        made = Internet(imap, configured(tmp_path, server.port, certificate, HURRIED))
        monkeypatch.setattr(mailbox, "submit", made.submit)
        monkeypatch.setattr(keeper, "waiting", made.waiting)
        monkeypatch.setattr(roundtrip, "PAUSE", 0.05)
        yield made


def quiet(_line: str) -> None:
    """Tell nobody."""


def test_a_message_that_came_straight_is_direct(internet: Internet) -> None:
    """And is gone from the mailbox afterwards."""
    ended = roundtrip.once(internet.config, quiet)
    assert ended.trip
    assert ended.trip.way == "direct"
    assert roundtrip.judged(ended, 1.0).verdict == "pass"
    assert internet.imap.folders["INBOX"] == {}


def test_a_message_by_the_relay_is_a_warning(internet: Internet) -> None:
    """It says which, and how late."""
    internet.way = b""
    threading.Timer(0.2, internet.deliver, (BY_RELAY, 600.0)).start()
    finding = roundtrip.judged(roundtrip.once(internet.config, quiet, PATIENCE), PATIENCE)
    assert (finding.verdict, finding.saw) == ("warn", "by the relay mx2, 10 minutes late")
    assert finding.do


def test_a_message_that_is_nowhere_is_lost(internet: Internet) -> None:
    """Not before the patience is over, and a relay that could not be asked may keep it."""
    internet.way = b""
    began = time.monotonic()
    ended = roundtrip.once(internet.config, quiet, 0.5)
    assert time.monotonic() - began >= 0.5
    finding = roundtrip.judged(ended, 600.0)
    assert finding.verdict == "fail"
    saw = f"{ended.sent.message_id} is in no folder after 10 min"
    assert (ended.way, finding.saw) == ("lost", f"lost: {saw}, and on no relay")
    internet.relay = MachineError("no route to host")
    ended = roundtrip.once(internet.config, quiet, 0.2)
    finding = roundtrip.judged(ended, 600.0)
    assert (ended.way, finding.verdict) == ("missing", "unknown")
    assert finding.saw.endswith("10 min, and mx2 cannot be asked: no route to host")


def test_a_message_that_a_relay_keeps_is_not_lost(internet: Internet) -> None:
    """The primary's mailboxes can be read, and its server takes no mail."""
    internet.way, internet.relay = b"", "Connection refused"
    ended = roundtrip.once(internet.config, quiet, 0.2)
    finding = roundtrip.judged(ended, 600.0)
    assert (ended.way, finding.verdict) == ("missing", "warn")
    assert finding.saw.endswith("10 min; the relay mx2 keeps it: Connection refused")
    assert finding.do


def test_a_message_that_comes_home_while_the_relays_are_asked_is_not_lost(
    internet: Internet,
) -> None:
    """Neither in the mailbox when that was looked into last, nor on the relay afterwards."""
    internet.way, internet.brings = b"", lambda: internet.deliver(BY_RELAY, 600.0)
    ended = roundtrip.once(internet.config, quiet, 0.2)
    assert (ended.way, ended.missing) == ("relay", False)
    assert roundtrip.judged(ended, 0.2).saw == "by the relay mx2, 10 minutes late"
    assert internet.imap.folders["INBOX"] == {}


def test_a_mailbox_that_breaks_off_at_the_last_look_has_not_lost_it(internet: Internet) -> None:
    """Nobody can tell."""
    internet.way = b""
    internet.brings = lambda: setattr(internet.imap, "tired", True)
    ended = roundtrip.once(internet.config, quiet, 0.2)
    assert (ended.way, roundtrip.judged(ended, 0.2).verdict) == (None, "unknown")


def test_a_mailbox_that_cannot_be_reached_does_not_make_a_message_lost(
    internet: Internet,
) -> None:
    """The home is dark: nobody can tell."""
    internet.imap.login = "NO not now"
    ended = roundtrip.once(internet.config, quiet, 0.2)
    finding = roundtrip.judged(ended, 0.2)
    assert finding.verdict == "unknown"
    assert "not now" in finding.saw


def test_a_mailbox_that_comes_back_is_logged_in_to_anew(internet: Internet) -> None:
    """What went wrong before does not count."""
    internet.imap.login = "NO not now"
    threading.Timer(0.3, setattr, (internet.imap, "login", "OK in")).start()
    ended = roundtrip.once(internet.config, quiet, PATIENCE)
    assert ended.trip
    assert not ended.trouble


def test_a_mailbox_that_hangs_up_is_logged_in_to_anew(internet: Internet) -> None:
    """A connection that was cut is of no more use."""
    internet.imap.tired = True
    ended = roundtrip.once(internet.config, quiet, PATIENCE)
    assert not internet.imap.tired
    assert ended.trip


def test_a_mailbox_that_hangs_up_after_deleting_has_shown_the_message(
    internet: Internet, messenger: tuple[rota.Messenger, Board]
) -> None:
    """It will not be there again: what was seen of it counts, and the next is found as ever."""
    internet.imap.curt = True
    sender, board = messenger
    sender.go()
    assert not internet.imap.curt
    assert internet.imap.folders["INBOX"] == {}
    sender.go()
    assert dict(board.counts) == {"direct": 2}
    assert [each.finding.verdict for each in board.readings.values()] == ["pass"]


def test_a_message_that_is_not_taken_is_no_trip(
    internet: Internet, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The account's own server says why."""

    def refuse(*_: object) -> str:
        raise MachineError("smtp.example.net said: 535 who are you")

    monkeypatch.setattr(mailbox, "submit", refuse)
    target = Target("probe@example.org")
    reading = roundtrip.ROUNDTRIP.read(Scene(internet.config), target)
    assert reading.finding.verdict == "unknown"
    assert "535 who are you" in reading.finding.saw


def waited_for(what: str, question: Callable[[], object]) -> None:
    """Wait for something to become true, PATIENCE seconds at most."""
    until = time.monotonic() + PATIENCE
    while not question():
        assert time.monotonic() < until, f"waited in vain for {what}"
        time.sleep(0.02)


@pytest.fixture
def messenger(internet: Internet) -> tuple[rota.Messenger, Board]:
    target = Target("probe@example.org")
    board = Board((("roundtrip", target),))
    return rota.Messenger(Scene(internet.config), target, board, threading.Event()), board


def test_what_was_missing_and_comes_later_is_counted_again(
    internet: Internet, messenger: tuple[rota.Messenger, Board]
) -> None:
    """As what it then is, with the way that it took. No relay is asked: it is a warning."""
    sender, board = messenger
    internet.way, internet.relay = b"", MachineError("asked")
    sender.go()
    assert dict(board.counts) == {"missing": 1}
    assert [each.finding.verdict for each in board.readings.values()] == ["warn"]
    internet.deliver(BY_RELAY, 3600.0)
    internet.way = DIRECT
    sender.go()
    assert dict(board.counts) == {"missing": 1, "relay": 1, "direct": 1}
    assert (board.way, board.lost) == ("direct", 0)
    assert internet.imap.folders["INBOX"] == {}


def test_what_is_missing_for_long_is_lost(
    internet: Internet, messenger: tuple[rota.Messenger, Board], monkeypatch: pytest.MonkeyPatch
) -> None:
    """After three times the patience, if the mailbox was seen; until it comes, or for a day."""
    sender, board = messenger
    internet.way = b""
    clock = [time.time()]
    monkeypatch.setattr(time, "time", lambda: clock[0])

    def lost_after(seconds: float) -> int:
        clock[0] += seconds
        sender.go()
        return board.lost

    assert [lost_after(0), lost_after(2)] == [0, 0]  # sent twice, neither for three seconds
    internet.imap.login = "NO not now"
    assert lost_after(2) == 0
    internet.imap.login = "OK in"
    assert [lost_after(0.5), lost_after(1)] == [1, 2]
    internet.imap.login = "NO not now"
    assert lost_after(0) == 0  # nobody can look any more
    internet.imap.login = "OK in"
    assert lost_after(0) == 2
    internet.deliver(DIRECT)
    assert lost_after(0) == 0
    assert lost_after(4) == 1
    assert lost_after(86_410) == 0


def test_what_is_lost_is_lost_while_it_is_looked_for(
    internet: Internet, messenger: tuple[rota.Messenger, Board], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A scrape in between would end the alarm, which waits for half an hour."""
    sender, board = messenger
    internet.way = b""
    clock, seen = [time.time()], list[int]()
    monkeypatch.setattr(time, "time", lambda: clock[0])
    fetch = roundtrip.Letterbox.fetch

    def fetched(box: roundtrip.Letterbox, sent: roundtrip.Sent) -> object:
        seen.append(board.lost)
        return fetch(box, sent)

    sender.go()
    clock[0] += 4
    sender.go()
    monkeypatch.setattr(roundtrip.Letterbox, "fetch", fetched)
    sender.go()
    assert set(seen) == {board.lost} == {1}


def test_while_nobody_can_look_nothing_is_lost(
    internet: Internet, messenger: tuple[rota.Messenger, Board]
) -> None:
    """A home that is dark loses no mail; what came by the relay is told when it can be seen."""
    sender, board = messenger
    internet.imap.login = "NO not now"
    internet.way = BY_RELAY
    sender.go()
    assert not board.counts
    reading = next(iter(board.readings.values()))
    assert reading.finding.verdict == "unknown"
    internet.imap.login = "OK in"
    sender.go()
    assert dict(board.counts) == {"relay": 2}


def test_a_defect_does_not_end_the_looking(
    messenger: tuple[rota.Messenger, Board], monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is told as what nobody could look at."""
    sender, board = messenger

    def fail(*_: object) -> str:
        raise IndexError("nothing there")

    def look(*_: object) -> Seen:
        raise IndexError("nothing there")

    monkeypatch.setattr(mailbox, "submit", fail)
    sender.go()
    (reading,) = board.readings.values()
    assert reading.finding.verdict == "unknown"
    assert "a defect in backup-mx: IndexError" in reading.finding.saw
    broken = Probe("mx", "", lambda _config: (), look)
    target = Target("example.org")
    assert "a defect in backup-mx: IndexError" in broken.read(sender._scene, target).finding.saw
    assert "nothing there" not in reading.finding.saw


@pytest.fixture
def looked(monkeypatch: pytest.MonkeyPatch) -> dict[str, Finding]:
    """What the only probe beside the round trip finds, of a relay."""
    finds = {"mx2": Finding("certificate", "pass", "fine")}
    target = Target("mx2.example.org", "mx2")
    made = Probe(
        "certificate", "", lambda _config: (target,), lambda *_: Seen(finds["mx2"], 1_800_000_000.0)
    )
    known = {"certificate": made, "roundtrip": roundtrip.ROUNDTRIP}
    monkeypatch.setattr(table, "PROBES", known)
    monkeypatch.setattr(rota, "places", lambda config: table.places(config, known))
    return finds


def scraped(port: int, path: str = "/metrics") -> dict[str, float]:
    """Fetch metrics as Prometheus does; return each value by its name and labels' values."""
    with urllib.request.urlopen(f"http://127.0.0.1:{port}{path}", timeout=PATIENCE) as answer:
        assert answer.headers["Content-Type"].startswith("text/plain; version=0.0.4")
        text = answer.read().decode()
    return {
        " ".join([sample.name.removeprefix("backup_mx_probe_"), *sample.labels.values()]):
        sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }  # fmt: skip


def test_prometheus_is_told_what_was_seen_last(
    internet: Internet, looked: dict[str, Finding]
) -> None:
    """Every series is there from the first scrape on; looks go on by themselves."""
    with rota.looking(Scene(internet.config), every=0.05) as board:
        server = exporter.server(HostPort("127.0.0.1", 0), board)
        port = server.server_address[1]
        threading.Thread(target=server.serve_forever, daemon=True).start()
        try:
            first = scraped(port)
            assert {"roundtrip_way missing", "roundtrips_total direct", "roundtrip_seconds",
                    "roundtrip_lost_messages"} <= set(first)  # fmt: skip
            assert "timestamp_seconds roundtrip probe@example.org " in first
            waited_for("a round trip", lambda: scraped(port)["roundtrips_total direct"])
            well = scraped(port)
            looked["mx2"] = Finding("certificate", "fail", "expired")
            waited_for("a look", lambda: not scraped(port)["ok certificate mx2.example.org mx2"])
            looked["mx2"] = Finding("certificate", "unknown", "silent")
            waited_for("a look", lambda: scraped(port)["unknown certificate mx2.example.org mx2"])
            assert scraped(port)["ok certificate mx2.example.org mx2"] == 0
            with pytest.raises(urllib.error.HTTPError, match="404"):
                scraped(port, "/")
        finally:
            server.shutdown()
            server.server_close()
    assert well["ok certificate mx2.example.org mx2"] == 1
    assert well["roundtrip_way direct"] == 1
    assert well["roundtrip_way missing"] == well["roundtrip_lost_messages"] == 0
    assert well["certificate_expiry_timestamp_seconds mx2.example.org mx2"] == 1_800_000_000
    assert abs(well["roundtrip_arrival_timestamp_seconds"] - time.time()) < 60


def test_before_the_first_look_nothing_is_wrong() -> None:
    """Else each start of the exporter would be an alarm; the time of the last look is 0."""
    board = Board((("inbound", Target("mail.example.org")),))
    text = exporter.exposition(board).decode()
    assert 'probe_ok{probe="inbound",target="mail.example.org",relay=""} 1.0' in text
    assert 'probe_timestamp_seconds{probe="inbound",target="mail.example.org",relay=""} 0.0' in text
    assert "roundtrip" not in text


def test_a_port_that_is_taken_is_one_message() -> None:
    """It names the place."""
    board = Board(())
    with (
        exporter.server(HostPort("127.0.0.1", 0), board) as first,
        pytest.raises(MachineError, match=r"nothing can be served at 127\.0\.0\.1:\d+: .*in use"),
    ):
        exporter.server(HostPort("127.0.0.1", first.server_address[1]), board)


def test_the_verb_says_which_way_it_was(internet: Internet) -> None:
    """In words, in JSON, and by its exit code."""
    file = str(internet.config.folder / "backup-mx.toml")
    found = CliRunner().invoke(probe, ["roundtrip", "--config", file, "--json"])
    said = json.loads(found.stdout)
    assert (found.exit_code, said["way"], said["verdict"]) == (0, "direct", "pass")
    internet.way = b""
    found = CliRunner().invoke(probe, ["roundtrip", "-c", file, "--json", "--patience", "1s"])
    said = json.loads(found.stdout)
    assert (found.exit_code, said["way"], said["seconds"]) == (1, "lost", None)
    found = CliRunner().invoke(probe, ["roundtrip", "-c", file, "--patience", "1s"])
    assert "lost: <" in found.stdout
    internet.relay = "Connection refused"
    found = CliRunner().invoke(probe, ["roundtrip", "-c", file, "--json", "--patience", "1s"])
    said = json.loads(found.stdout)
    assert (found.exit_code, said["way"], said["relay"]) == (0, "missing", "mx2")


def test_without_an_account_the_verb_was_used_wrongly(internet: Internet) -> None:
    """Nothing is looked at: that is no message that got lost (1), but a config (2)."""
    file = internet.config.folder / "backup-mx.toml"
    file.write_text(file.read_text().partition("[roundtrip]")[0])
    found = CliRunner().invoke(probe, ["roundtrip", "--config", str(file)])
    assert found.exit_code == 2
    assert "Error: the config has no [roundtrip]: an account that sends" in found.stderr


def test_a_probe_of_another_name_is_asked_back() -> None:
    """Did you mean?"""
    found = CliRunner().invoke(probe, ["run", "inbond"])
    assert found.exit_code == 2
    assert 'did you mean "inbound"?' in found.stderr


def test_the_list_says_what_each_looks_at(internet: Internet) -> None:
    """With this config."""
    file = str(internet.config.folder / "backup-mx.toml")
    found = CliRunner().invoke(probe, ["list", "--config", file])
    assert "mail.example.org, mx2.example.org" in found.stdout
    assert "probe@example.org" in found.stdout
    public = ('address = "203.0.113.20"', 'address = "132.145.10.10"')
    text = Path(file).read_text().replace(*public)
    Path(file).write_text(text + '[access]\nmetrics_from = ["192.0.2.0/24"]\n')
    found = CliRunner().invoke(probe, ["list", "--config", file])
    assert "way home: nothing\n" in found.stdout
    assert "metrics_from is empty" not in found.stdout
    assert "no [roundtrip]" not in found.stdout
    assert "left out: mx2.example.org: metrics_at = 132.145.10.10:9725 is in public" in found.stdout


def test_a_trip_of_hours_is_said_so() -> None:
    """The words are the finding's."""
    sent = roundtrip.Sent("6b1f", "<6b1f@example.net>", 0.0)
    found = roundtrip.judged(roundtrip.Awaited(sent, Trip("relay", 9000, "mx2")), 600)
    assert found.saw == "by the relay mx2, 2 h 30 min late"
