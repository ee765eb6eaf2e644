"""``backup-mx gate`` as an operator meets it: what it prints, ends with, and refuses."""

from __future__ import annotations

import base64
import json
import re
import secrets
import sys
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

import click
import pytest

from backup_mx import evidence
from backup_mx.cli import gate as cli_gate
from backup_mx.cli.gate import gate, site_of
from backup_mx.cloud import check as cloud_check
from backup_mx.cloud import oracle
from backup_mx.config import Config, load, parse
from backup_mx.errors import BackupMxError
from backup_mx.evidence import Proof, summed
from backup_mx.findings import Finding
from backup_mx.gates import account, size
from backup_mx.gates.all import GATES
from backup_mx.machine import bundle, cloudinit
from backup_mx.machine.tool import tool

DATA = Path(__file__).parents[1] / "data/config"
FIVE_LINES = (DATA / "five-lines.toml").read_text()
NOW = datetime.now(UTC).replace(microsecond=0)


@dataclass
class Place:
    """A folder with a config; run runs the verb there and returns its exit code and its output."""

    folder: Path
    run: Callable[..., tuple[int, str]]

    def config(self) -> Config:
        return load(self.folder / "backup-mx.toml")

    def keep(self, *proofs: Proof, without: str = "", by: str = "") -> None:
        """Write evidence about this very config: every gate passed but for ``proofs``."""
        config = self.config()
        version = bundle.version(bundle.bundle(config, "mx2"))
        named = {name: proof(name) for name in GATES} | {each.finding.gate: each for each in proofs}
        named.pop(without, None)
        known = summed(version, evidence.config_hash(config), by or tool(), named, NOW)
        evidence.write(self.folder / "build/evidence.json", {"mx2": known})


@pytest.fixture
def place(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> Place:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "backup-mx.toml").write_text(FIVE_LINES)

    def run(*arguments: str) -> tuple[int, str]:
        with pytest.raises(SystemExit) as ended:
            sys.exit(gate.main(list(arguments), standalone_mode=False))
        return int(ended.value.code or 0), capfd.readouterr().out

    return Place(tmp_path, run)


def proof(name: str, age: timedelta = timedelta(), fresh: timedelta = timedelta(days=1)) -> Proof:
    found = Finding(name, "pass", f"{name} was seen")
    return Proof(found, NOW - age, "the relay mx3", ("A", "MX"), NOW - age + fresh)


def test_the_list_has_every_gate(place: Place) -> None:
    """In order, each with the records that wait for it; those that need the operator say so."""
    code, out = place.run("list")
    assert code == 0
    assert [line.split()[0] for line in out.splitlines()] == list(GATES)
    told = json.loads(place.run("list", "--json")[1])
    assert told["size"]["waits"] == ["A", "MX"]
    live = {line.split()[0] for line in out.splitlines() if "needs you" in line}
    assert live == {name for name, each in told.items() if each["live"]} != set()


def test_every_gate_that_the_design_wants_is_there() -> None:
    """None of them is left out by accident, and each keeps some record waiting."""
    assert set(GATES) >= {
        "size", "account", "version", "inbound", "intake", "parity", "drain", "refusal",
        "failover", "reboot", "names", "certificate", "monitoring", "rebuild", "access",
        "retention", "ledger", "canary",
    }  # fmt: skip
    assert all("MX" in each.waits for each in GATES.values())
    # Nothing that is to be there for the certificate may wait for it.
    assert {name for name, each in GATES.items() if "A" in each.waits}.isdisjoint(
        {"certificate", "names"}
    )


@pytest.mark.usefixtures("place")
def test_a_gate_that_is_not_there() -> None:
    """It says what may have been meant, before anybody is asked anything."""
    with pytest.raises(click.UsageError, match='did you mean "retention"'):
        gate.main(["run", "retension"], standalone_mode=False)


def test_status_without_evidence(place: Place) -> None:
    """Nothing may be published."""
    assert place.run("status") == (1, "mx2: no gate has been run yet\n")
    told = json.loads(place.run("status", "--json")[1])["mx2"]
    assert set(told) == {"lacking"}
    assert set(told["lacking"]) == {"A", "MX"}


def test_status_of_what_is_proven(place: Place) -> None:
    """It says until when, how old each proof is, and where it was seen from."""
    place.keep(proof("size", timedelta(hours=2)))
    code, out = place.run("status")
    assert code == 0
    said = r"^pass    size         size was seen \(2 h( \d+ min)? ago, from the relay mx3\)$"
    assert re.search(said, out, re.MULTILINE)
    until = evidence.moment(NOW + timedelta(hours=22))
    assert f"May be published until {until}: its address, its MX record." in out


def test_status_of_what_is_stale(place: Place) -> None:
    """The gate that is stale is named."""
    place.keep(proof("size", timedelta(hours=30)))
    code, out = place.run("status")
    assert code == 1
    assert "stale since" in out
    assert "Not its address and its MX record: size: stale since" in out


def test_status_of_a_gate_that_the_evidence_lacks(place: Place) -> None:
    """It is in the list, and held against the records that wait for it."""
    place.keep(without="failover")
    code, out = place.run("status")
    assert code == 1
    assert "unknown failover     not run yet" in out
    assert "Not its MX record: failover: not run yet." in out
    told = json.loads(place.run("status", "--json")[1])["mx2"]
    assert told["gates"]["failover"]["verdict"] == "unknown"
    assert told["lacking"] == {"A": "", "MX": "failover: not run yet"}


def test_status_after_an_upgrade(place: Place) -> None:
    """What other sources of the same version judged is judged anew."""
    place.keep(by="0.1.0+0123456789ab")
    code, out = place.run("status")
    assert code == 1
    assert "another backup-mx judged, 0.1.0+0123456789ab, maybe by less" in out


def test_status_after_a_change_of_config(place: Place) -> None:
    """All of it is void."""
    place.keep(proof("size"))
    with (place.folder / "backup-mx.toml").open("a") as file:
        file.write('[gates]\nfresh = "2h"\n')
    code, out = place.run("status")
    assert code == 1
    assert "the config has changed since the gates were run" in out


def test_a_broken_file_is_one_message(place: Place) -> None:
    """As any failure is."""
    (place.folder / "build").mkdir()
    (place.folder / "build/evidence.json").write_text("{")
    with pytest.raises(BackupMxError, match="delete it"):
        gate.main(["status"], standalone_mode=False)


def test_gates_of_this_host_alone(place: Place) -> None:
    """`gate run size account` asks nobody, and is kept; JSON has what was found."""
    code, out = place.run("run", "size", "account")
    assert code == 0
    assert out.splitlines()[1].startswith("pass    size         user-data takes ")
    assert "Not its address" in out
    told = json.loads(place.run("run", "account", "--json")[1])["mx2"]
    assert list(told["ran"]) == ["account"]
    assert told["gates"]["size"]["verdict"] == "pass"
    assert told["changed"] == []


def test_a_change_is_told_to_programs_too(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    """With the verdict that was before."""
    place.run("run", "size")
    monkeypatch.setattr(cloudinit, "LIMIT", 10)
    code, out = place.run("run", "size", "--json")
    assert code == 1
    (changed,) = json.loads(out)["mx2"]["changed"]
    assert (changed["gate"], changed["before"], changed["now"]) == ("size", "pass", "fail")


@pytest.mark.usefixtures("place")
def test_a_relay_that_is_not_there() -> None:
    """It says which there are."""
    with pytest.raises(click.UsageError, match="the config has mx2"):
        gate.main(["run", "--relay", "mx9"], standalone_mode=False)


MX3 = '[relay.mx3]\nhostname = "mx3.example.org"\naddress = "203.0.113.30"\n'


@pytest.fixture
def pair(place: Place) -> Place:
    """The place, with a second relay in its config."""
    with (place.folder / "backup-mx.toml").open("a") as file:
        file.write(MX3)
    return place


def test_the_relay_that_is_looked_from_is_left_out(
    pair: Place, capfd: pytest.CaptureFixture[str]
) -> None:
    """It cannot look at itself; that is said, and the others are looked at."""
    with pytest.raises(SystemExit) as ended:
        gate.main(["run", "size", "--outside", "mx3"], standalone_mode=False)
    said = capfd.readouterr()
    assert (ended.value.code, "mx2, version" in said.out, "mx3, version" in said.out) == (
        0, True, False,
    )  # fmt: skip
    assert "mx3 is where it is looked from: its own gates are left out" in said.err
    assert list(json.loads(pair.run("run", "size", "--outside", "mx3", "--json")[1])) == ["mx2"]
    assert list(json.loads(pair.run("run", "size", "--json")[1])) == ["mx2", "mx3"]


@pytest.mark.usefixtures("pair")
@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("--relay", "mx3", "--outside", "mx3"), "mx3 cannot look at itself from outside"),
        (("--outside", "'"), "no command: No closing quotation"),
    ],
)
def test_a_place_from_which_nothing_can_be_seen(arguments: tuple[str, ...], words: str) -> None:
    """A usage error, before anybody is asked anything."""
    with pytest.raises(click.UsageError, match=words):
        gate.main(["run", "size", *arguments], standalone_mode=False)


@pytest.mark.usefixtures("place")
def test_the_only_relay_cannot_be_looked_at_from_itself() -> None:
    """There is nothing left to be looked at then."""
    with pytest.raises(click.UsageError, match="mx2 cannot look at itself from outside"):
        gate.main(["run", "size", "--outside", "mx2"], standalone_mode=False)


def test_each_relay_is_told_of_as_soon_as_it_was_looked_at(
    pair: Place, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """What was found of the first stands there, whatever becomes of the second."""
    whole = cli_gate.site_of

    def site(config: Config, name: str, *more: object) -> object:
        if name == "mx3":
            raise BackupMxError("the second one")
        return whole(config, name, *more)  # type: ignore[arg-type]

    monkeypatch.setattr(cli_gate, "site_of", site)
    with pytest.raises(BackupMxError, match="the second one"):
        gate.main(["run", "size"], standalone_mode=False)
    assert capfd.readouterr().out.startswith("mx2, version ")
    assert pair.config().relays.keys() == {"mx2", "mx3"}


# ── Gates whose facts are not the relay's ─────────────────────────────────────────────────────────


def key(octets: bytes) -> str:
    """Return a public key as OpenSSH writes it (RFC 8709, section 4)."""
    whole = b"\0\0\0\x0bssh-ed25519\0\0\0\x20" + octets
    return f"ssh-ed25519 {base64.b64encode(whole).decode()}"


def test_user_data_that_is_too_large() -> None:
    """The gate fails with the sizes of its parts, where `build` would stop."""
    keys = ", ".join(f'"{key(secrets.token_bytes(32))}"' for _ in range(900))
    config = parse(f"{FIVE_LINES}[access]\nssh_keys = [{keys}]\n", "test")
    (found,) = size.judge(site_of(config, "mx2"))
    assert found.verdict == "fail"
    assert "SSH keys" in found.saw


def test_an_account_is_asked_where_there_is_one(monkeypatch: pytest.MonkeyPatch) -> None:
    """Only about relays that stand there; what it says is what the gate finds."""
    (plain,) = account.judge(site_of(parse(FIVE_LINES, "test"), "mx2"))
    assert plain.verdict == "pass"
    monkeypatch.setattr(oracle, "Account", lambda profile: profile)
    said = [Finding("idle", "warn", "nearly idle")]
    monkeypatch.setattr(cloud_check, "check", lambda *_: said)
    oci = (
        '[cloud.oci]\ntenancy = "ocid1.tenancy.oc1..aaaa"\nregion = "eu-frankfurt-1"\n'
        f'budget_mail = "me@example.net"\n[access]\nssh_keys = ["{key(bytes(32))}"]\n'
    )
    config = parse(FIVE_LINES + oci, "test")
    assert list(account.judge(site_of(config, "mx2"))) == said
