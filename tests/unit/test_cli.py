"""The verbs as a user meets them: what they print, and what they end with."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

from backup_mx import cli
from backup_mx.cli import relays
from backup_mx.cli.kits import written
from backup_mx.cli.terminal import duration, printable, size, write
from backup_mx.errors import LabError
from backup_mx.kit.files import KitFile
from backup_mx.machine.ship import Answer

FACTS = (
    *("--hostname", "mx2.example.org", "--address", "203.0.113.20"),
    *("--primary", "mail.example.org", "--drain-to", "mail.example.org:2526"),
    *("--domain", "example.org"),
)


@dataclass(frozen=True)
class Ended:
    code: int
    out: str
    err: str


Verb = Callable[..., Ended]


@pytest.fixture
def verb(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> Verb:
    """A maker of finished runs of the command line, in a folder of their own."""
    monkeypatch.chdir(tmp_path)

    def run(*arguments: str) -> Ended:
        monkeypatch.setattr(sys, "argv", ["backup-mx", *arguments])
        with pytest.raises(SystemExit) as ended:
            cli.main()
        out, err = capsys.readouterr()
        return Ended(int(ended.value.code or 0), out, err)

    return run


def test_five_facts_make_a_relay(verb: Verb, tmp_path: Path) -> None:
    """init, check and build need nothing but five answers."""
    assert verb("init", *FACTS).code == 0
    assert "mail for example.org is drained to mail.example.org:2526" in verb("check").out
    built = verb("build")
    assert built.code == 0
    assert (tmp_path / "build/mx2/relay.pyz").read_bytes().startswith(b"#!/usr/bin/env python3\n")
    assert (tmp_path / "build/mx2/user-data").stat().st_mode & 0o777 == 0o600


def test_init_never_overwrites(verb: Verb, tmp_path: Path) -> None:
    """A file that is there stays as it is."""
    (tmp_path / "backup-mx.toml").write_text("mine")
    ended = verb("init", *FACTS)
    assert ended.code == 1
    assert "exists already" in ended.err
    assert (tmp_path / "backup-mx.toml").read_text() == "mine"


def test_init_without_a_terminal_names_what_is_missing(verb: Verb, tmp_path: Path) -> None:
    """Nobody is asked where nobody can answer, and nothing is written."""
    ended = verb("init", *FACTS[:4])
    assert ended.code == 2
    assert "--primary" in ended.err
    assert not (tmp_path / "backup-mx.toml").exists()


def test_init_refuses_wrong_facts(verb: Verb, tmp_path: Path) -> None:
    """A wrong answer is a mistake like one in the file, and nothing is written."""
    ended = verb("init", *FACTS[:3], "203.0.113.999", *FACTS[4:])
    assert ended.code == 2
    assert "relay.mx2.address" in ended.err
    assert not (tmp_path / "backup-mx.toml").exists()


def test_check_shows_every_mistake(verb: Verb, tmp_path: Path) -> None:
    """All mistakes come at once, on stderr, and as JSON where that is asked for."""
    verb("init", *FACTS)
    path = tmp_path / "backup-mx.toml"
    path.write_text(path.read_text().replace("203.0.113.20", "here") + 'recipents = "x"\n')
    ended = verb("check")
    assert (ended.code, ended.out) == (2, "")
    assert ended.err.count("backup-mx.toml: line ") == 2
    as_json = verb("check", "--json")
    assert as_json.code == 2
    assert {each["path"] for each in json.loads(as_json.out)["problems"]} == {
        "relay.mx2.address",
        'domain."example.org".recipents',
    }


def test_a_relay_that_is_not_there(verb: Verb) -> None:
    """A misspelt relay is named with those there are."""
    verb("init", *FACTS)
    ended = verb("build", "mx3")
    assert ended.code == 2
    assert "the config has mx2" in ended.err


def test_no_config(verb: Verb) -> None:
    """A missing file is one clear line."""
    ended = verb("build")
    assert ended.code == 2
    assert ended.err.count("\n") == 1
    assert "backup-mx.toml" in ended.err


def test_a_folder_that_cannot_be_written(verb: Verb, tmp_path: Path) -> None:
    """What cannot be written is one clear line."""
    verb("init", *FACTS)
    (tmp_path / "build").mkdir()
    (tmp_path / "build/mx2").write_text("a file")
    ended = verb("build")
    assert ended.code == 1
    assert "cannot be written" in ended.err


@pytest.mark.parametrize(
    ("error", "code", "said"),
    [
        (LabError("the lab is gone"), 1, "backup-mx: the lab is gone\n"),
        (KeyboardInterrupt(), 130, "backup-mx: interrupted\n"),
        (ZeroDivisionError("oh"), 1, "a defect in backup-mx: ZeroDivisionError('oh')"),
    ],
)
def test_every_failure_is_one_message(
    verb: Verb, monkeypatch: pytest.MonkeyPatch, error: BaseException, code: int, said: str
) -> None:
    """Whatever goes wrong, a user reads a message, not a traceback."""

    def broken(*_: object) -> None:
        raise error

    monkeypatch.setattr(relays, "load", broken)
    ended = verb("build")
    assert ended.code == code
    assert said in ended.err
    assert "Traceback" not in ended.err


class FakeHost:
    """A relay that answers every command with the same words."""

    def __init__(self, answer: Answer) -> None:
        self.answer = answer

    def run(self, *_: object, **__: object) -> Answer:
        return self.answer


def listing(**changes: object) -> str:
    entry: dict[str, object] = {
        "queue_name": "deferred",
        "queue_id": "4dDqXk0YqYz5N",
        "arrival_time": 1790000000,
        "message_size": 2048,
        "sender": "a@example.net",
        "recipients": [{"address": "alice@example.org", "delay_reason": "timed out"}],
    }
    return json.dumps(entry | changes)


@pytest.fixture
def relay_says(monkeypatch: pytest.MonkeyPatch) -> Callable[[Answer], None]:
    """A setter of what the relay answers."""
    return lambda answer: monkeypatch.setattr(relays, "host_of", lambda *_: FakeHost(answer))


def test_queue_tells_why(verb: Verb, relay_says: Callable[[Answer], None]) -> None:
    """Each message is shown with the other server's words."""
    relay_says(Answer(0, listing(), ""))
    ended = verb("queue")
    assert ended.code == 0
    assert "4dDqXk0YqYz5N" in ended.out
    assert "timed out" in ended.out
    assert "1 waiting, 2 KiB" in ended.out
    assert json.loads(verb("queue", "--json").out)["messages"][0]["id"] == "4dDqXk0YqYz5N"


def test_an_empty_queue(verb: Verb, relay_says: Callable[[Answer], None]) -> None:
    """Nothing is said to wait when nothing waits."""
    relay_says(Answer(0, "", ""))
    assert verb("queue").out == "Nothing waits.\n"
    assert verb("drain").out == "Nothing waits.\n"


def test_what_servers_say_steers_no_terminal(
    verb: Verb, relay_says: Callable[[Answer], None]
) -> None:
    """Escape sequences, markup and line breaks in SMTP text are shown, not obeyed."""
    hostile = [{"address": "[red]x[/red]@example.org", "delay_reason": "\x1b[2Jgone\r\n\x9b1m"}]
    relay_says(Answer(0, listing(recipients=hostile), ""))
    shown = verb("queue").out
    assert "\x1b" not in shown
    assert "\x9b" not in shown
    assert "[red]x[/red]" in shown


def test_a_relay_that_fails(verb: Verb, relay_says: Callable[[Answer], None]) -> None:
    """The machine's own words are passed on."""
    relay_says(Answer(69, "", "postqueue: fatal: mail system is down"))
    ended = verb("queue")
    assert ended.code == 1
    assert "mail system is down" in ended.err


def test_a_relay_that_talks_nonsense(verb: Verb, relay_says: Callable[[Answer], None]) -> None:
    """What is not a listing is refused in one line."""
    relay_says(Answer(0, "what?", ""))
    ended = verb("queue")
    assert ended.code == 1
    assert "not a line of postqueue -j" in ended.err


@pytest.mark.parametrize(
    ("seconds", "text"), [(0, "0 s"), (59, "59 s"), (90, "2 min"), (7200, "2 h"), (864000, "10 d")]
)
def test_durations(seconds: int, text: str) -> None:
    """Durations are written as people do."""
    assert duration(seconds) == text


@pytest.mark.parametrize(
    ("octets", "text"), [(0, "0 B"), (1023, "1023 B"), (2048, "2 KiB"), (3 * 2**30, "3.0 GiB")]
)
def test_sizes(octets: int, text: str) -> None:
    """Sizes are written as people do."""
    assert size(octets) == text


def test_printable_keeps_words() -> None:
    """Text in any script stays; only what steers is replaced."""
    assert printable("für 例え") == "für 例え"
    assert printable("a\nb") == "a�b"


def test_held_mail_is_not_tried(verb: Verb, relay_says: Callable[[Answer], None]) -> None:
    """A flush leaves what is on hold; drain says so."""
    relay_says(Answer(0, listing() + "\n" + listing(queue_id="4dHeld", queue_name="hold"), ""))
    assert verb("drain").out == "1 message is tried now.\n1 message is on hold, and not tried.\n"
    assert json.loads(verb("drain", "--json").out) == {"tried": 1, "held": 1}


def test_nothing_a_machine_says_steers_a_terminal(
    verb: Verb, relay_says: Callable[[Answer], None]
) -> None:
    """Neither an ID nor a complaint reaches the terminal as it came."""
    relay_says(Answer(0, listing(queue_id="4d\x1b]0;pwn", queue_name="[/foo]"), ""))
    shown = verb("queue")
    assert shown.code == 0
    assert "\x1b" not in shown.out
    relay_says(Answer(1, "", "postqueue: \x1b]0;pwn\x07"))
    assert "\x1b" not in verb("queue").err


@pytest.mark.parametrize(
    "arguments",
    [
        ("lab", "up"),
        ("lab", "down"),
        ("lab", "status"),
        ("lab", "run", "mx2", "--", "true"),
        ("lab", "logs", "mx2"),
        ("lab", "drill", "outage"),
        ("queue", "--lab", "lab"),
    ],
)
def test_the_lab_needs_root(
    verb: Verb, monkeypatch: pytest.MonkeyPatch, arguments: tuple[str, ...]
) -> None:
    """Whoever is not root is told so, in one line, by every verb that touches a lab."""
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    ended = verb(*arguments)
    assert ended.code == 3
    assert ended.err == (
        "backup-mx: the lab boots machines and needs root: run it again with sudo\n"
    )


def test_a_full_disk_leaves_no_half_config(verb: Verb, tmp_path: Path) -> None:
    """What cannot be written whole is not there at all."""
    full = Path("/dev/full")
    (tmp_path / ".backup-mx.toml.new").symlink_to(full)
    ended = verb("init", *FACTS)
    assert ended.code == 1
    assert "No space left on device" in ended.err
    assert not list(tmp_path.iterdir())


def test_a_secret_never_gets_into_a_leftover(tmp_path: Path) -> None:
    """Who has open what a killed run left behind does not read the next secret."""
    leftover = tmp_path / ".key.new"
    leftover.touch(0o644)
    with leftover.open("rb") as reader:
        write(tmp_path / "key", b"secret")
        assert reader.read() == b""
    assert (tmp_path / "key").stat().st_mode & 0o777 == 0o600


OLD = ("README.md", "config/backup-mx/files/etc/old", "files/etc/old")
MINE = ("mine", "config/accounts.cf", "config/backup-mx/mine", "kubernetes/mine.yaml")


@pytest.mark.parametrize("own", ["files", "config/backup-mx/files"])
@pytest.mark.parametrize("title", ["# backup-mx: a kit", "# Something else"])
def test_a_kit_takes_the_place_of_its_earlier_rendering_only(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], own: str, title: str
) -> None:
    """What it no longer has goes where the README.md is its own; what is not its own stays."""
    for name in (*OLD, *MINE):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(f"{title}\n\nold")
    readme = KitFile("README.md", b"# backup-mx: a kit\n\nnew")
    kit = (readme, KitFile(f"{own}/etc/new", b"new"), KitFile("kubernetes/new.yaml", b"new"))
    written(kit, tmp_path, as_json=True)
    left = {str(file.relative_to(tmp_path)) for file in tmp_path.rglob("*") if file.is_file()}
    gone = {f"{own}/etc/old"} if title == "# backup-mx: a kit" else set()
    assert left == {*OLD, *MINE, *(file.path for file in kit)} - gone
    assert len(json.loads(capsys.readouterr().out)["files"]) == len(kit)
