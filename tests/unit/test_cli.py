"""The verbs as a user meets them: what they print, and what they end with."""

from __future__ import annotations

import hashlib
import json
import os
import smtpd
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import click
import pytest
import roundtrips

from backup_mx import cli
from backup_mx.cli import relays, verbs
from backup_mx.cli.kits import written
from backup_mx.cli.terminal import write
from backup_mx.errors import LabError, MachineError
from backup_mx.kit.files import KitFile
from backup_mx.machine import ship
from backup_mx.machine.ship import Answer, Tell
from backup_mx.relay.operator import parcel
from backup_mx.relay.operator import verbs as relay_verbs
from backup_mx.relay.operator.parcel import Letter, To
from backup_mx.relay.text import printable

FACTS = (
    *("--hostname", "mx2.example.org", "--address", "203.0.113.20"),
    *("--primary", "mail.example.org", "--drain-to", "mail.example.org:2526"),
    *("--domain", "example.org"),
)

TWO_ON_ORACLE = """
relay.mx2 = { hostname = "mx2.example.org", address = "198.18.7.20" }
relay.mx3 = { hostname = "mx3.example.org", address = "198.18.7.21" }
primary.home.hostname = "mail.example.org"
domain."example.org" = {}
access.ssh_keys = [
    "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIFDYWOCYXsx/YEGKrwzFq1h/QsJXCohAlanozKzQ9lRc me"
]
[cloud.oci]
tenancy = "ocid1.tenancy.oc1..aaaaexample"
region = "eu-frankfurt-1"
budget_mail = "me@example.net"
"""


WITH_FILES = """\
relay.mx2 = { hostname = "mx2.example.org", address = "here" }
primary.home.hostname = "mail.example.org"
domain."example.org".recipients = { table = "recipients.txt" }
notify.urls = [{ command = ["touch", "run"] }, { env = "NOT_SET" }, { file = "ntfy" }]
tls.acme_ca = "ca.pem"
[dns.cloudflare]
zones = { "example.org" = "0123456789abcdef0123456789abcdef" }
token = { file = "open" }
"""

ELSEWHERE = """
[tls]
acme = false
acme_ca = "not-here"
[relay.mx3]
hostname = "mx3.example.org"
address = "192.0.2.3"
wireguard_address = "10.0.20.3"
wireguard_key = { file = "not-here" }
[relay.mx2]
hostname = "mx2.example.org"
address = "192.0.2.1"
wireguard_address = "10.0.20.2"
wireguard_key = { file = "not-here" }
[primary.home]
hostname = "mail.example.org"
[domain."example.org"]
recipients = { table = "recipients.txt" }
[dns.cloudflare]
zones = { "example.org" = "0123456789abcdef0123456789abcdef" }
token = { file = "not-here" }
"""


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


def test_build_writes_what_terraform_reads(verb: Verb, tmp_path: Path) -> None:
    """Of every relay, whichever is built: one that is left out would be destroyed."""
    (tmp_path / "backup-mx.toml").write_text(TWO_ON_ORACLE)
    ended = verb("build", "mx2")
    assert ended.code == 0
    inputs = tmp_path / "terraform/oci/backup-mx.auto.tfvars.json"
    assert f"{inputs.relative_to(tmp_path)}  for Terraform, in its folder" in ended.out
    told = json.loads(inputs.read_text())["relays"]
    assert {name: relay["user_data"] for name, relay in told.items()} == {
        "mx2": "../../build/mx2/user-data",
        "mx3": "../../build/mx3/user-data",
    }


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


def test_check_looks_at_the_files_that_are_named(verb: Verb, tmp_path: Path) -> None:
    """With every other mistake at once, each where its name stands; no secret's command is run."""
    (tmp_path / "backup-mx.toml").write_text(WITH_FILES)
    (tmp_path / "recipients.txt").write_text("alice\nbob@example.net\n")
    (tmp_path / "ca.pem").write_text("none")
    (tmp_path / "open").write_text("token")
    (tmp_path / "open").chmod(0o644)
    ended = verb("check")
    assert (ended.code, ended.out) == (2, "")
    assert [line.partition("backup-mx.toml: ")[2] for line in ended.err.splitlines()] == [
        'line 1: relay.mx2.address = "here": expected a public IPv4 or IPv6 address',
        'line 3: domain."example.org".recipients.table = "recipients.txt":'
        ' recipients.txt, line 2: "bob@example.net" is not in example.org',
        'line 4: notify.urls[2].file = "ntfy": ntfy cannot be read: No such file or directory',
        'line 5: tls.acme_ca = "ca.pem": ca.pem cannot be used: is no PEM certificate',
        'line 8: dns.cloudflare.token.file = "open": everybody may read open: chmod 600 open',
    ]
    assert not (tmp_path / "run").exists()
    told = json.loads(verb("check", "--json").out)["problems"]
    assert (told[2]["path"], told[2]["line"], told[2]["value"]) == (
        "notify.urls[2].file",
        4,
        '"ntfy"',
    )


def test_check_reads_nothing_that_gives_once(verb: Verb, tmp_path: Path) -> None:
    """A secret in a pipe is for whoever needs it."""
    verb("init", *FACTS)
    path = tmp_path / "backup-mx.toml"
    path.write_text(path.read_text() + '[notify]\nurls = [{ file = "pipe" }]\n')
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "pipe").chmod(0o644)  # who opens it refuses it, and does not wait for its end
    pipe = os.open(tmp_path / "pipe", os.O_RDWR | os.O_NONBLOCK)
    try:
        os.write(pipe, b"ntfys://example.net/secret")
        assert verb("check").code == 0
        assert os.read(pipe, 99) == b"ntfys://example.net/secret"
    finally:
        os.close(pipe)


def test_check_takes_what_a_round_trip_trusts(verb: Verb, tmp_path: Path) -> None:
    """It reads the file as OpenSSL does: the rest of it is anybody's."""
    known = smtpd.certificate(tmp_path, "localhost")
    known.write_text(f"# Küche\n{known.read_text()}")
    roundtrips.configured(tmp_path, 993, known)
    ended = verb("check")
    assert (ended.code, ended.err) == (0, "")
    known.write_text("none")
    ended = verb("check")
    assert (ended.code, f"{known} cannot be used: is no PEM" in ended.err) == (2, True)


def test_build_needs_no_file_but_those_of_its_relay(verb: Verb, tmp_path: Path) -> None:
    """In an outage, another relay's key or a token for DNS may be where nobody can reach it."""
    (tmp_path / "backup-mx.toml").write_text(ELSEWHERE)
    ended = verb("build", "mx2")
    assert (ended.code, "recipients.txt cannot be read" in ended.err) == (1, True)
    (tmp_path / "recipients.txt").write_text("alice\n")
    ended = verb("build", "mx2")
    assert (ended.code, ended.err) == (0, "")


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
        (ZeroDivisionError("oh"), 1, "a defect in backup-mx: ZeroDivisionError at test_cli.py:"),
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
    """A relay that answers every command with the same words, and notes what it was asked."""

    def __init__(self, *answers: Answer) -> None:
        self.answers = list(answers)
        self.asked: list[list[str]] = []
        self.given: list[bytes] = []

    def run(self, argv: Sequence[str], *, stdin: bytes = b"", tell: Tell | None = None) -> Answer:
        self.asked.append(list(argv))
        self.given.append(stdin)
        answer = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
        for line in answer.stdout.splitlines():
            if tell:
                tell(line)
        return answer


@pytest.fixture
def relay_says(monkeypatch: pytest.MonkeyPatch) -> Callable[..., FakeHost]:
    """A setter of what the relay answers."""

    def says(*answers: Answer) -> FakeHost:
        made = FakeHost(*answers)
        monkeypatch.setattr(verbs, "host_of", lambda *_: made)
        return made

    return says


RelaySays = Callable[..., FakeHost]
ID = "4jXLkx0p7MzJ0mR"


def test_a_relay_answers_for_itself(verb: Verb, relay_says: RelaySays) -> None:
    """What it prints is shown, what it ends with is passed on, and so are the options."""
    host = relay_says(Answer(1, "two lines\nof it\n", "backup-mx: and a complaint\n"))
    ended = verb("queue", "mx2", "--class", "refused", "--older", "4h", "--limit", "7", "--held")
    assert ended == Ended(1, "two lines\nof it\n", "backup-mx: and a complaint\n")
    options = ["--class=refused", "--older=14400s", "--held", "--limit=7"]
    assert host.asked == [["env", "/usr/local/bin/backup-mx", "queue", *options]]


def test_nothing_a_machine_says_steers_a_terminal(verb: Verb, relay_says: RelaySays) -> None:
    """Neither its answer nor a complaint reaches the terminal as it came."""
    relay_says(Answer(1, "a\x1b]0;pwn\x07\n", "b\x9b2J"))
    ended = verb("status")
    assert "\x1b" not in ended.out
    assert "\x07" not in ended.out
    assert "\x9b" not in ended.err


def test_a_relay_without_an_agent(verb: Verb, relay_says: RelaySays) -> None:
    """One clear message that says what brings it."""
    relay_says(Answer(127, "", "env: '/usr/local/bin/backup-mx': No such file or directory"))
    ended = verb("queue", "mx2")
    assert ended.code == 1
    assert ended.err == (
        "backup-mx: mx2 does not have the agent yet: backup-mx deploy mx2 brings it\n"
    )


@pytest.mark.parametrize(
    "arguments",
    [
        ("hold",),
        ("hold", "mx2"),
        ("hold", ID, "--all"),
        ("hold", ID, "mx2"),
        ("delete", ID),  # nobody is there to say yes
        ("queue", "mx2", "mx3"),
        ("maintenance", "mx2"),
        ("maintenance", "on", "off"),
        ("show", "mx2"),
        ("queue", "--older", "soon"),
        ("queue", "--class", "odd"),
    ],
)
def test_wrong_usage_asks_no_relay(
    verb: Verb, relay_says: RelaySays, arguments: tuple[str, ...]
) -> None:
    """What cannot be meant is told here."""
    host = relay_says(Answer(0, "", ""))
    assert verb(*arguments).code == 2
    assert host.asked == []


@pytest.mark.parametrize(
    ("typed", "code", "said"),
    [("n", 1, "you said no: nothing is changed"), ("\x04", 130, "interrupted")],
)
def test_who_says_no_is_taken_at_their_word(
    verb: Verb,
    relay_says: RelaySays,
    monkeypatch: pytest.MonkeyPatch,
    typed: str,
    code: int,
    said: str,
) -> None:
    """A no is an answer, and what was asked for is not done; the end of input is none."""

    def answer(_prompt: str) -> str:
        if typed == "\x04":
            raise EOFError
        return typed

    host = relay_says(Answer(0, "", ""))
    monkeypatch.setattr(sys.stdin, "isatty", lambda: True)
    monkeypatch.setattr(click.termui, "visible_prompt_func", answer)
    ended = verb("delete", ID)
    assert ended.code == code
    assert ended.err.splitlines()[-1] == f"backup-mx: {said}"
    assert host.asked == []


@pytest.mark.parametrize("arguments", [(), ("--json",)])
def test_what_a_machine_says_is_seen_as_it_comes(
    verb: Verb, monkeypatch: pytest.MonkeyPatch, arguments: Sequence[str]
) -> None:
    """With --json as well, on stderr: where it fails there is no result to read it in."""

    def broken(_host: object, _archive: bytes, tell: Tell, *, diff: bool) -> None:
        tell("packages: none is missing")
        raise MachineError(f"nginx -t says no; diff {diff}")

    verb("init", *FACTS)
    monkeypatch.setattr(ship, "deploy", broken)
    ended = verb("deploy", *arguments)
    assert ended.code == 1
    assert "packages: none is missing" in (ended.err if arguments else ended.out).splitlines()


def test_a_few_ids_are_arguments_and_many_are_not(verb: Verb, relay_says: RelaySays) -> None:
    """A command line has its limits, standard input has none."""
    host = relay_says(Answer(0, "", ""))
    assert verb("hold", "mx2", ID, ID).code == 0
    assert host.asked[-1][2:] == ["hold", "--", ID]
    many = [f"{number:08X}" for number in range(2000)]
    assert verb("requeue", *many, "--json").code == 0
    assert host.asked[-1][2:] == ["requeue", "--json", "--", "-"]
    assert host.given[-1].decode().split() == many


def test_what_a_filter_means_is_looked_up_first(verb: Verb, relay_says: RelaySays) -> None:
    """So that what was asked about is what is deleted, and not what has come since."""
    host = relay_says(Answer(0, f"{ID}\n", ""), Answer(0, "gone\n", ""))
    assert verb("delete", "--domain", "example.org", "--yes").out == "gone\n"
    assert [asked[2:] for asked in host.asked] == [
        ["queue", "--domain=example.org", "--ids"],
        ["delete", "--yes", "--", ID],
    ]


def test_many_messages_are_shown_at_once(verb: Verb, relay_says: RelaySays) -> None:
    """As the verbs that change them take them: by IDs, or by what they have in common."""
    host = relay_says(*[Answer(0, f"{ID}\n", "")] * 3)
    assert verb("show", "mx2", ID, f"{ID[:-1]}8", "--body", "--json").code == 0
    assert verb("show", "--held").out == f"{ID}\n"
    assert [asked[2:] for asked in host.asked] == [
        ["show", "--body", "--json", "--", ID, f"{ID[:-1]}8"],
        ["queue", "--held", "--ids"],
        ["show", "--", ID],
    ]


@pytest.mark.parametrize("said", ["--yes", "ALL", f"{ID}\n../x", "\x1b[2J", f"{ID};rm"])
def test_what_the_relay_finds_is_checked(verb: Verb, relay_says: RelaySays, said: str) -> None:
    """What is no queue ID becomes no argument of a command that root runs."""
    host = relay_says(Answer(0, said, ""))
    ended = verb("hold", "--all")
    assert ended.code == 1
    assert "no queue ID" in ended.err
    assert [asked[2] for asked in host.asked] == ["queue"]


def test_what_somebody_names_is_no_option(verb: Verb, relay_says: RelaySays) -> None:
    """Also where the relay's name came first: nothing after it is read as an option there."""
    host = relay_says(Answer(0, "", ""))
    assert verb("show", "mx2", "--", "--help").code == 2
    assert host.asked == []
    verb("show", "mx2", ID)
    verb("maintenance", "on", "--for", "4h")
    assert [asked[2:] for asked in host.asked] == [
        ["show", "--", ID],
        ["maintenance", "--for=14400s", "--", "on"],
    ]


def parcel_of(queue_id: str) -> tuple[str, bytes]:
    """What export carries for a message, and the message."""
    body = b"Subject: x\r\n\r\n" + queue_id.encode() + b"\r\n"
    letter = Letter(
        *(1, "mx2.example.org", (queue_id,), "", (To("alice@example.org"),), 0, False, len(body)),
        hashlib.sha256(body).hexdigest(),
        *(False, False, {}),
    )
    return "\n".join([*parcel.carried(queue_id, [body]), parcel.sealed(letter)]), body


def test_export_brings_the_files_here(verb: Verb, relay_says: RelaySays, tmp_path: Path) -> None:
    """As often as the relay says that there is more; what could not be exported is named."""
    first, body = parcel_of(ID)
    results = [
        json.dumps(
            {"results": [{"id": name, "done": done, "said": "exported" if done else "gone"}]}
        )
        for name, done in ((ID, True), ("1A2B3C4D", False))
    ]
    host = relay_says(Answer(0, f"{first}\n{results[0]}\n", ""), Answer(0, results[1], ""))
    ended = verb("export", ID, "1A2B3C4D", "-o", "out")
    assert ended.code == 1
    assert ended.out.startswith("1A2B3C4D: gone\n1 message exported")
    assert (tmp_path / "out" / f"{ID}.eml").read_bytes() == body
    assert (tmp_path / "out" / f"{ID}.json").stat().st_mode & 0o777 == 0o600
    assert host.given == [f"{ID}\n1A2B3C4D".encode(), b"1A2B3C4D"]


def test_a_relay_is_asked_for_some_messages_at_a_time(
    verb: Verb, relay_says: RelaySays, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It looks each up before the first one goes: all of them, each time, would never end."""
    monkeypatch.setattr(verbs, "_ASKED", 2)
    names = [f"{number:08X}" for number in range(5)]
    parcels = {each: parcel_of(each)[0] for each in names}

    def answer(*brought: str) -> Answer:
        return Answer(0, "".join(f"{parcels[each]}\n" for each in brought) + told(*brought), "")

    host = relay_says(*(answer(*each) for each in (names[:1], names[1:3], names[3:4], names[4:])))
    ended = verb("export", *names, "-o", "out")
    assert ended.out.startswith("5 messages exported")
    asked = [each.decode().split() for each in host.given]
    assert asked == [names[:2], names[1:3], names[3:], names[4:]]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("maintenance", "foo"), "takes on, off or status; a relay's name comes before it"),
        (("maintenance", "on", "mx2"), "takes on, off or status; a relay's name comes before it"),
        (("import",), "import takes files, or a folder of them\n"),
        (("import", "mx2"), "import takes files, or a folder of them\n"),
    ],
)
def test_what_is_missing_is_named(
    verb: Verb, relay_says: RelaySays, arguments: tuple[str, ...], words: str
) -> None:
    """What was meant for a verb's own argument is not blamed on a relay's name."""
    host = relay_says(Answer(0, "", ""))
    ended = verb(*arguments)
    assert (ended.code, words in ended.err) == (2, True), ended.err
    assert host.asked == []


@pytest.mark.parametrize(("asked", "other"), [("show", "queue ID"), ("import", "file")])
def test_what_is_neither_a_relay_nor_a_verb_s_own(
    verb: Verb, tmp_path: Path, asked: str, other: str
) -> None:
    """One may have meant either."""
    (tmp_path / "backup-mx.toml").write_text(TWO_ON_ORACLE)
    ended = verb(asked, "ABC")
    assert ended.code == 2
    assert 'there is no relay "ABC": the config has mx2, mx3' in ended.err
    assert f'"ABC" is no {other} either' in ended.err


def test_one_message_that_comes_spoilt_stops_no_other(
    verb: Verb, relay_says: RelaySays, tmp_path: Path
) -> None:
    """A relay of another version may send what is not read here: that is said of it alone.

    Of what ends in the midst of the bytes nothing is left.
    """
    spoilt, whole = (parcel_of(name)[0] for name in (ID, OTHER))
    third = "4jXLkx0p7NzJ0mS"
    begun = parcel_of(third)[0].splitlines()[0]
    spoilt = spoilt.replace("alice@example.org", "alice@exa mple")
    relay_says(Answer(0, f"{begun}\n{spoilt}\n{whole}\n{told(ID, OTHER, third)}", ""))
    ended = verb("export", ID, OTHER, third, "-o", "out")
    assert ended.code == 1
    said = f"{ID}: did not come: not what backup-mx export writes: an address\n"
    assert ended.out.startswith(f"{said}{third}: did not come\n1 message exported")
    assert {each.name for each in (tmp_path / "out").iterdir()} == {f"{OTHER}.eml", f"{OTHER}.json"}


def test_a_relay_that_exports_nonsense(verb: Verb, relay_says: RelaySays, tmp_path: Path) -> None:
    """Neither a name of its choice nor another answer writes anything."""
    hostile = json.dumps({"id": "../../x", "part": "eHh4"})
    for said in (f"{hostile}\n" + json.dumps({"results": []}), "what?", ""):
        relay_says(Answer(0, said, ""))
        assert verb("export", ID, "-o", "out").code == 1
    assert list((tmp_path / "out").iterdir()) == []


OTHER = "4jXLkx0p7MzJ0mS"


def told(*names: str, done: object = True) -> str:
    return json.dumps({"results": [{"id": name, "done": done, "said": "x"} for name in names]})


@pytest.mark.parametrize(
    ("said", "words"),
    [
        (told(OTHER), "stopped exporting"),  # for ever something else
        (f"{parcel_of(OTHER)[0]}\n{told(ID)}", "not asked for"),
        (f"{parcel_of(ID)[0]}\n{parcel_of(ID)[0]}\n{told(ID)}", "not asked for"),
        (told(ID), "did not come"),
        (told(ID, done="yes"), "as it should"),
        ('{"results": [5]}', "as it should"),
        ('{"results": ' + "[" * 100_000, "as it should"),
        ("x" * 900 + "\n" + "x" * 900, "more than"),
    ],
)
def test_a_hostile_relay_is_not_followed(
    verb: Verb,
    relay_says: RelaySays,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    said: str,
    words: str,
) -> None:
    """What was not asked for is not written; what did not come is no success; it ends."""
    if "more" in words:
        monkeypatch.setattr(verbs, "_BROUGHT", 1000)
    relay_says(Answer(0, said, ""))
    ended = verb("export", ID, "-o", "out")
    assert ended.code == 1
    assert words in ended.out + ended.err
    assert not (tmp_path / "out" / f"{OTHER}.eml").exists()


def test_import_sends_what_is_sound(verb: Verb, relay_says: RelaySays, tmp_path: Path) -> None:
    """A message whose bytes are not those that were exported does not leave this host."""
    box = parcel.Inbox(tmp_path / "out")
    box.begin()
    for name in (ID, "4jXLkx0p7MzJ0mS"):
        for line in parcel_of(name)[0].splitlines():
            box.take(line)
    (tmp_path / "out" / "4jXLkx0p7MzJ0mS.eml").write_bytes(b"another")
    said = json.dumps({"results": [{"id": ID, "done": True, "said": "imported as 1A2B3C4D"}]})
    host = relay_says(Answer(0, said, ""))
    ended = verb("import", "out")
    assert ended.code == 1
    assert "4jXLkx0p7MzJ0mS.eml is not what was exported" in ended.out
    assert ended.out.endswith("1 message imported\n")
    assert host.asked[0][2:] == ["import", "--carry"]
    assert ID.encode() in host.given[0]
    assert b"4jXLkx0p7MzJ0mS" not in host.given[0]


def test_the_table_is_all_there_is(verb: Verb) -> None:
    """Every verb of the relay's is one of ours, with the same options; hidden ones are not."""
    out = verb("--help").out
    for each in relay_verbs.VERBS:
        assert (f"\n  {each.name} " in out) == (not each.hidden)
        if each.hidden:
            continue
        helped = verb(each.name, "--help").out
        assert all((option.name in helped) == (not option.hidden) for option in each.options)
        assert "--lab NAME" in helped


def test_printable_keeps_words() -> None:
    """Text in any script stays; only what steers is replaced."""
    assert printable("für 例え") == "für 例え"
    assert printable("a\nb") == "a�b"


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
