"""Changes made and seen at every server, keys and policies, and the verbs."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import click
import dns.flags
import dns.message
import dns.rcode
import pytest
from click.testing import CliRunner, Result
from nameservers import CONFIG, NameServer, add, names, standing

from backup_mx import config, evidence
from backup_mx.cli import dns as verbs
from backup_mx.dns import facts, providers, publish
from backup_mx.dns.plan import Change, plan, questions
from backup_mx.dns.provider import Room
from backup_mx.dns.providers import Providers
from backup_mx.dns.publish import Publisher, with_room
from backup_mx.dns.records import Record
from backup_mx.dns.seen import look
from backup_mx.dns.wanted import Facts, Stage, wanted
from backup_mx.errors import DnsError
from backup_mx.evidence import Evidence, Proof
from backup_mx.findings import Finding, Verdict
from backup_mx.gates.all import REQUIRED
from backup_mx.machine import bundle
from backup_mx.machine.tool import tool
from backup_mx.net import dns as net


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[NameServer]:
    monkeypatch.setattr(publish, "PAUSE", 0.05)
    with standing(monkeypatch) as running:
        yield running


@dataclass
class Provider:
    """Changes the zone of a server, unless it refuses; applied tells what came, in order."""

    server: NameServer
    refusal: str = ""
    lost: bool = False
    count: int = 4
    applied: list[list[Record | None]] = field(default_factory=list)
    words = "by a provider"

    def room(self, _zone: str) -> Room:
        return Room(self.count, 200)

    def apply(self, _zone: str, changes: Sequence[Change]) -> None:
        self.applied.append([each.put for each in changes])
        if self.refusal:
            raise DnsError(self.refusal)
        for change in changes:
            for old in change.gone:
                if not self.lost:
                    self.server.zones[0].delete_rdataset(f"{old.name}.", old.kind)
            if change.put and not self.lost:
                add(self.server, change.put)


def read(more: str = "") -> config.Config:
    return config.parse(CONFIG + more, "test")


def changes_of(read: config.Config) -> tuple[Change, ...]:
    records = wanted(read, Facts())
    world = look(names(), questions(read, records))
    return plan(read, records, world, lambda *_: "")


def publisher(provider: Provider, patience: float = 0.2) -> Publisher:
    by_zone = {"example.org": provider}
    return Publisher(names(), Providers(read(), by_zone), patience, lambda _: None)


def test_stage_by_stage_and_seen(server: NameServer) -> None:
    """The address is at the server before the MX is sent; then both are seen."""
    provider = Provider(server)
    found = publisher(provider).make(changes_of(read()))
    assert [[each.kind for each in step if each] for step in provider.applied] == [["A"], ["MX"]]
    assert [(each.gate, each.verdict) for each in found] == [("address", "pass"), ("MX", "pass")]
    assert changes_of(read()) == ()


def test_what_is_not_seen_stops_what_comes_next(server: NameServer) -> None:
    """A provider that says yes and does nothing gets no second stage."""
    provider = Provider(server, lost=True)
    found = publisher(provider).make(changes_of(read()))
    assert len(provider.applied) == 1
    assert [(each.gate, each.verdict) for each in found] == [("address", "fail"), ("MX", "unknown")]


def test_a_refusal_is_what_came_of_it(server: NameServer) -> None:
    """In the provider's words; nothing is waited for, and nothing comes after it."""
    provider = Provider(server, refusal="no")
    found = publisher(provider, patience=60).make(changes_of(read()))
    assert found[0].saw == "no"
    assert len(provider.applied) == 1


def test_a_refused_withdrawal_is_made_by_hand(server: NameServer) -> None:
    """A provider that refuses it, or does not answer, is no reason to keep drawing mail."""
    old = Record("example.org", "MX", "20 mx2.example.org")
    add(server, old)
    told: list[str] = []
    refusing = Providers(read(), {"example.org": Provider(server, refusal="no")})
    change = Change("example.org", "MX", Stage.EXCHANGERS, None, (old,), 300, "mx2")

    def by_hand(line: str) -> None:
        told.append(line)
        if line == "  - example.org. 300 IN MX 20 mx2.example.org.":
            server.zones[0].delete_rdataset("example.org.", "MX")

    found = Publisher(names(), refusing, 5, by_hand).make([change])
    assert [each.verdict for each in found] == ["pass"]
    assert told[1:3] == ["no", "example.org: you are to make these changes now:"]


def test_a_change_that_waits_is_not_made(server: NameServer) -> None:
    """Whoever calls this has no say in it."""
    records = wanted(read(), Facts())
    world = look(names(), questions(read(), records))
    waiting = plan(read(), records, world, lambda *_: "no gate has been run yet")
    provider = Provider(server)
    assert publisher(provider).make(waiting) == []
    assert provider.applied == []


def test_a_zone_without_room_lets_what_is_new_wait(server: NameServer) -> None:
    """Before anything is sent, with the numbers."""
    provider = Provider(server, count=199)
    among = Providers(read(), {"example.org": provider})
    changes, found = with_room(among, changes_of(read()))
    assert found[0].verdict == "fail"
    assert {each.waits for each in changes} == {"example.org would have 201 of 200 records"}
    assert with_room(Providers(read(), {}), changes_of(read()))[1] == []


def test_an_exchanger_waits_for_an_address_without_room(server: NameServer) -> None:
    """Where its own zone has room, too: senders would find a name that leads nowhere."""
    changes = [
        replace(each, zone="example.net") if each.what == "MX" else each
        for each in changes_of(read())
    ]
    full, roomy = Provider(server, count=200), Provider(server)
    among = Providers(read(), {"example.org": full, "example.net": roomy})
    held, _ = with_room(among, changes)
    why = "example.org would have 201 of 200 records"
    assert [(each.what, each.waits) for each in held] == [
        ("address", why),
        ("MX", f"its address waits: {why}"),
    ]


@pytest.mark.parametrize(
    ("rcode", "authoritative", "words"),
    [
        (dns.rcode.REFUSED, True, "ns1.example.org (127.0.0.1) answers REFUSED"),
        (dns.rcode.NOERROR, False, "ns1.example.org (127.0.0.1) does not answer for example.org"),
    ],
)
def test_a_server_that_says_no_is_told(
    server: NameServer, rcode: dns.rcode.Rcode, authoritative: bool, words: str
) -> None:
    """Asked to say what it knows itself, a server may refuse, or not be one for the zone."""

    def unhelpful(answer: dns.message.Message) -> dns.message.Message:
        if not answer.flags & dns.flags.RD:
            answer.set_rcode(rcode)
            answer.flags &= ~dns.flags.AA if not authoritative else answer.flags
        return answer

    server.spoil = unhelpful
    seen = look(names(), [("example.org", "MX")])["example.org", "MX"]
    assert (seen.answers, seen.troubles) == ((), (words,))


# ── The verbs ─────────────────────────────────────────────────────────────────────────────────────


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An operator's folder, whose zone is changed by hand."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "backup-mx.toml").write_text(CONFIG)
    return tmp_path


def prove(folder: Path, verdict: Verdict = "pass", without: str = "") -> None:
    """Write evidence of every gate but one; that of ``inbound`` has that verdict."""
    own = config.load(folder / "backup-mx.toml")
    now = datetime.now(UTC)
    looked = Proof(Finding("", "pass", "fine"), now, until=now + timedelta(hours=1))
    proofs = {name: replace(looked, waits=waits) for name, waits in REQUIRED.items()}
    finding = Finding("inbound", verdict, "port 25 was looked at")
    proofs["inbound"] = replace(proofs["inbound"], finding=finding)
    proofs.pop(without, None)
    version = bundle.version(bundle.bundle(own, "mx2"))
    known = evidence.config_hash(own)
    made: Evidence = evidence.summed(version, known, tool(), proofs, now)
    evidence.write(folder / "build" / "evidence.json", {"mx2": made})


def ran(*words: str) -> Result:
    return CliRunner().invoke(verbs.dns, words)


@pytest.mark.usefixtures("folder")
def test_plan_is_a_zone_s_text(server: NameServer) -> None:
    """What stands and what changes, what that waits for, and why SPF is left alone."""
    add(server, Record("mx2.example.org", "A", "203.0.113.20"))
    said = ran("plan")
    assert said.exit_code == 0
    assert said.stdout.startswith(
        "; example.org, by hand\n"
        "  mx2.example.org. 300 IN A 203.0.113.20\n"
        "+ example.org. 300 IN MX 20 mx2.example.org.\n"
        ";   waits: no gate has been run yet: backup-mx gate run\n"
    )
    assert "; PTR: 203.0.113.20 is nameless, not mx2.example.org. Ask the provider" in said.stdout
    assert "; SPF and DMARC are left alone: " in said.stdout


@pytest.mark.usefixtures("server")
def test_publish_asks_first(folder: Path) -> None:
    """Where nobody is there to ask, nothing is done."""
    prove(folder)
    said = ran("publish")
    assert said.exit_code == 2
    assert "nobody is there to ask; --yes answers it" in said.stderr


@pytest.mark.usefixtures("folder", "server")
@pytest.mark.parametrize("how", [(), ("--json",)])
def test_nobody_is_asked_where_nothing_can_be_done(how: tuple[str, ...]) -> None:
    """What waits for the gates is told, and that is all."""
    said = ran("publish", *how)
    assert said.exit_code == 1, said.stderr
    assert "no gate has been run yet" in said.stdout


@pytest.mark.parametrize("verb", ["publish", "withdraw"])
def test_nobody_is_asked_about_what_is_not_shown(
    folder: Path, server: NameServer, monkeypatch: pytest.MonkeyPatch, verb: str
) -> None:
    """With --json a terminal shows nothing that one could agree to."""
    prove(folder)
    if verb == "withdraw":
        add(server, Record("example.org", "MX", "20 mx2.example.org"))
    with pytest.raises(click.UsageError, match="--json shows nobody what they would agree to"):
        answered(monkeypatch, lambda: pytest.fail("it asks"), verb, "--json")


def test_a_plan_goes_by_one_state_of_the_evidence(
    folder: Path, server: NameServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The gates may write it meanwhile; the address would go by the old one, the MX by the new."""
    assert server
    prove(folder, "fail")
    lacking = evidence.lacking

    def and_then(*asked: Any) -> str:  # noqa: ANN401  whatever the verb asks
        why = lacking(*asked)
        prove(folder)
        return why

    monkeypatch.setattr(evidence, "lacking", and_then)
    told = json.loads(ran("plan", "--json").stdout)["changes"]
    assert [each["waits"] for each in told] == ["inbound: port 25 was looked at"] * 2


def answered(
    monkeypatch: pytest.MonkeyPatch, meanwhile: Callable[[], object], *words: str
) -> object:
    """Run a verb, and answer yes to what it asks, after what happens meanwhile."""
    monkeypatch.setattr(sys.stdin, "isatty", lambda: True)
    monkeypatch.setattr(click, "confirm", lambda *_, **__: meanwhile() or True)
    return verbs.dns.main([*words, "--wait", "1s"], standalone_mode=False)


def test_publish_goes_by_the_evidence_of_the_answer(
    folder: Path, server: NameServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A gate that fails while the question stands is in the way, though nobody is asked anew."""
    prove(folder)

    def meanwhile() -> None:
        server.asked.clear()
        prove(folder, "fail")

    with pytest.raises(DnsError) as caught:
        answered(monkeypatch, meanwhile, "publish")
    assert str(caught.value) == (
        "mx2.example.org A was allowed when you were asked, and is not now:"
        " inbound: port 25 was looked at"
    )
    assert server.asked == []


def test_publish_goes_on_where_the_evidence_still_holds(
    folder: Path, server: NameServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It says what to change and looks for it."""
    prove(folder)
    with pytest.raises(SystemExit):
        answered(monkeypatch, server.asked.clear, "publish")
    assert "mx2.example.org. A" in server.asked


@pytest.mark.usefixtures("folder")
def test_withdraw_is_asked_about_and_never_judged(
    server: NameServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No evidence is needed, nor a look at what it would be about."""
    add(server, Record("example.org", "MX", "20 mx2.example.org"))
    monkeypatch.delattr(facts, "gather")
    with pytest.raises(SystemExit) as ended:
        answered(
            monkeypatch, lambda: server.zones[0].delete_rdataset("example.org.", "MX"), "withdraw"
        )
    assert ended.value.code == 0


@pytest.mark.usefixtures("server")
def test_publish_without_proof_is_refused(folder: Path) -> None:
    """And says which gate is in the way."""
    prove(folder, "fail")
    said = ran("publish", "--yes")
    assert said.exit_code == 1
    assert ";   waits: inbound: port 25 was looked at\n" in said.stdout
    assert said.stdout.endswith("Not published: mx2.example.org A, example.org MX.\n")


def test_a_gate_that_the_evidence_lacks_is_in_the_way(folder: Path, server: NameServer) -> None:
    """What is not in the file has not been proven, though all that is in it passed."""
    prove(folder, without="failover")
    add(server, Record("mx2.example.org", "A", "203.0.113.20"))
    said = ran("publish", "--yes")
    assert said.exit_code == 1
    assert ";   waits: failover: not run yet\n" in said.stdout
    assert said.stdout.endswith("Not published: example.org MX.\n")


def test_publish_by_hand_waits_to_see_it(folder: Path, server: NameServer) -> None:
    """It ends well once the server has what was told."""
    prove(folder)
    said = ran("publish", "--yes", "--wait", "1s")
    assert said.exit_code == 1
    assert (
        "you are to make these changes now:\n  + mx2.example.org. 300 IN A 203.0.113.20\n"
        in said.stderr
    )
    for record in (
        Record("mx2.example.org", "A", "203.0.113.20"),
        Record("example.org", "MX", "20 mx2.example.org"),
    ):
        add(server, record)
    assert ran("publish", "--yes").exit_code == 0
    found = json.loads(ran("drift", "--json").stdout)["findings"]
    assert [each["verdict"] for each in found] == ["pass", "pass", "warn"]


def test_a_silent_server_is_never_settled(
    folder: Path, server: NameServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """However often it is run: no exchanger before its name is seen everywhere, and no success."""
    prove(folder)
    monkeypatch.setattr(net, "SECONDS", 0.6)
    add(server, Record("example.org", "NS", "ns2.example.org"))
    add(server, Record("ns2.example.org", "A", "127.0.0.2"))
    add(server, Record("mx2.example.org", "A", "203.0.113.20"))
    said = ran("publish", "--yes", "--wait", "1s", "--json")
    found = json.loads(said.stdout)["outcome"]
    assert said.exit_code == 1
    assert [each["verdict"] for each in found if each["gate"] == "address"] == ["unknown", "pass"]
    assert [each["saw"] for each in found if each["gate"] == "MX"] == [
        "example.org MX: not begun: an earlier one is not everywhere yet"
    ]
    add(server, Record("example.org", "MX", "20 mx2.example.org"))
    assert ran("publish", "--yes", "--wait", "1s").exit_code == 1


def test_a_key_that_is_not_seen_is_no_success(
    folder: Path, server: NameServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its TLSA record may be wrong, though nothing is left to publish."""
    prove(folder)
    add(server, Record("mx2.example.org", "A", "203.0.113.20"))
    add(server, Record("example.org", "MX", "20 mx2.example.org"))
    assert ran("publish", "--yes").exit_code == 0
    monkeypatch.setattr(facts, "gather", lambda *_: Facts(unseen={"mx2": "no way there"}))
    assert ran("publish", "--yes").exit_code == 1


def test_withdraw_needs_no_secret(folder: Path, server: NameServer) -> None:
    """Where the provider's token is gone, it says what to change by hand."""
    more = '[dns.rfc2136]\nserver = "ns1.example.org:53"\nzones = ["example.org"]\n'
    more += 'key_name = "backup-mx"\nkey = { file = "gone" }\n'
    (folder / "backup-mx.toml").write_text(CONFIG + more)
    add(server, Record("example.org", "MX", "20 mx2.example.org"))
    said = ran("withdraw", "--yes", "--wait", "1s")
    assert said.exit_code == 1
    assert said.stdout.startswith("; example.org, by hand: ")
    assert "you are to make these changes now:\n  - example.org. 300 IN MX 20" in said.stderr


def test_withdraw_where_nobody_answers(
    folder: Path, server: NameServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What the config has published is taken away unseen, its name is not; and it is no success."""
    assert folder
    monkeypatch.setattr(net, "SECONDS", 0.2)
    server.spoil = lambda answer: answer if answer.flags & dns.flags.RD else None
    said = ran("withdraw", "--address", "--yes", "--wait", "1s", "--json")
    assert said.exit_code == 1
    told = json.loads(said.stdout)
    assert [each["gone"] for each in told["changes"]] == [
        ["example.org. 300 IN MX 20 mx2.example.org."]
    ]
    assert {each["verdict"] for each in told["outcome"]} == {"unknown"}


def test_a_name_is_withdrawn_in_a_later_run(
    folder: Path, server: NameServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Senders that still have the MX record would look up a name that is gone."""
    assert folder
    add(server, Record("mx2.example.org", "A", "203.0.113.20"))
    add(server, Record("example.org", "MX", "20 mx2.example.org"))
    among = Providers(config.load(folder / "backup-mx.toml"), {"example.org": Provider(server)})
    monkeypatch.setattr(providers, "providers", lambda _: among)
    said = ran("withdraw", "--address", "--yes", "--wait", "1s")
    assert ";   waits: an MX record leads there yet: when it is gone, wait" in said.stdout
    assert "example.org MX 20 mx2.example.org: gone from 1 server\n" in said.stdout
    assert said.stdout.endswith("Not taken away: mx2.example.org A.\n")
    assert said.exit_code == 1
    said = ran("withdraw", "--address", "--yes", "--wait", "1s")
    assert "mx2.example.org A 203.0.113.20: gone from 1 server\n" in said.stdout
    assert said.exit_code == 0


def test_withdraw_needs_no_proof(folder: Path, server: NameServer) -> None:
    """Nor a fresh look at the relay."""
    assert folder
    add(server, Record("example.org", "MX", "20 mx2.example.org"))
    said = ran("withdraw", "--yes", "--wait", "1s", "--json")
    assert said.exit_code == 1
    assert json.loads(said.stdout)["changes"][0]["gone"] == [
        "example.org. 300 IN MX 20 mx2.example.org."
    ]
    server.zones[0].delete_rdataset("example.org.", "MX")
    assert ran("withdraw", "--yes").exit_code == 0


@pytest.mark.usefixtures("server", "folder")
def test_a_duration_is_read_as_people_write_it() -> None:
    """And a wrong one is told."""
    assert ran("withdraw", "--yes", "--wait", "2 weeks").exit_code == 2
