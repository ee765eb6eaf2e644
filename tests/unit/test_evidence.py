"""Evidence: what the gates found, as DNS and Terraform read it."""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from backup_mx import evidence
from backup_mx.config import parse
from backup_mx.errors import BackupMxError
from backup_mx.evidence import (
    NEVER,
    Evidence,
    Proof,
    Record,
    Terms,
    config_hash,
    lacking,
    summed,
)
from backup_mx.findings import Finding, Verdict

NOW = datetime(2026, 11, 22, 15, 0, tzinfo=UTC)
DAY = timedelta(days=1)
FIVE_LINES = (Path(__file__).parents[1] / "data/config/five-lines.toml").read_text()


def proof(
    name: str,
    verdict: Verdict = "pass",
    waits: tuple[Record, ...] = ("MX",),
    until: datetime = NOW + DAY,
) -> Proof:
    return Proof(Finding(name, verdict, f"{name} was seen", "do this"), NOW, "afar", waits, until)


def known(*proofs: Proof) -> Evidence:
    return summed("v1", "c1", "t1", {each.finding.gate: each for each in proofs}, NOW)


SIZE = proof("size", waits=("A", "MX"))


TERMS = Terms("v1", "c1", "t1", {"size": ("A", "MX"), "inbound": ("MX",), "aside": ()})


def why(
    found: Evidence | None, kind: Record = "MX", now: datetime = NOW, terms: Terms = TERMS
) -> str:
    return lacking(found, terms, kind, now)


def test_what_every_gate_passed_is_allowed() -> None:
    """A warning is no reason to wait."""
    found = known(SIZE, proof("inbound", "warn"))
    assert found.allows == ("A", "MX")
    assert (why(found, "A"), why(found, "MX")) == ("", "")


def test_a_record_waits_for_its_own_gates_only() -> None:
    """The address comes before the certificate, which cannot be there without it."""
    found = known(SIZE, proof("inbound", "fail"), proof("aside", "fail", waits=()))
    assert found.allows == ("A",)
    assert why(found, "A") == ""
    assert why(found, "MX") == "inbound: inbound was seen"


@pytest.mark.parametrize("verdict", ["fail", "unknown"])
def test_unknown_is_never_a_pass(verdict: Verdict) -> None:
    """What could not be looked at holds a record back as what failed does."""
    assert "inbound" in why(known(SIZE, proof("inbound", verdict)))


def test_a_gate_that_has_not_run_is_named() -> None:
    """It is not enough that all that ran passed."""
    never = replace(proof("inbound", "unknown"), at=NEVER)
    assert why(known(SIZE, never)) == "inbound: not run yet"


def test_a_gate_that_the_file_lacks_is_missed() -> None:
    """What there has to be says the tool, whatever the file sums up: one may have come since."""
    found = known(SIZE)
    assert found.allows == ("A", "MX")
    assert (why(found, "A"), why(found)) == ("", "inbound: not run yet")
    assert why(known(), "A") == "size: not run yet"
    assert why(known()) == "size: not run yet; inbound: not run yet"


def test_what_a_proof_says_of_itself_frees_no_record() -> None:
    """Which records wait for a gate is no matter of the file's."""
    assert why(known(SIZE, proof("inbound", "fail", waits=()))) == "inbound: inbound was seen"


def test_without_any_gate_nothing_is_allowed() -> None:
    """No proof is none."""
    assert known().allows == ()
    assert known(proof("aside", waits=())).allows == ()
    assert "no gate has been run" in why(None)


def test_evidence_grows_stale() -> None:
    """The first proof that does makes all that waits for it wait again, and is named."""
    found = known(SIZE, proof("inbound", until=NOW + timedelta(hours=1)))
    assert found.until == NOW + timedelta(hours=1)
    assert why(found, now=NOW + timedelta(minutes=59)) == ""
    assert why(found, now=NOW + timedelta(hours=1)) == "inbound: stale since 2026-11-22 16:00 UTC"


def test_a_proof_that_is_stale_already_allows_nothing() -> None:
    """A drill of long ago does not count though all else was run now."""
    assert known(SIZE, proof("failover", until=NOW)).allows == ("A",)


def test_until_is_about_what_is_allowed() -> None:
    """A stale proof that only the MX waits for does not make the address wait."""
    assert known(SIZE, proof("failover", until=NOW - DAY)).until == NOW + DAY


@pytest.mark.parametrize(("ahead", "holds"), [(4, True), (6, False), (525_600, False)])
def test_a_proof_of_the_future_proves_nothing(ahead: int, *, holds: bool) -> None:
    """The clock was wrong: such a proof would never be stale. A few minutes are no matter."""
    later = NOW + timedelta(minutes=ahead)
    early = replace(proof("inbound", until=later + DAY), at=later)
    size = replace(SIZE, until=later + DAY)
    found = replace(known(size, early), allows=("MX",), until=later + DAY)
    assert early.holds(NOW) == holds
    assert (why(found) == "") == holds
    assert holds or "inbound: it is of the future" in why(found)
    assert why(found, now=later) == ""


def test_evidence_of_another_tool_is_not_enough() -> None:
    """It may have judged by less."""
    found = replace(known(SIZE, proof("inbound")), tool="t0")
    assert why(found) == "another backup-mx judged, t0, maybe by less: backup-mx gate run"


def test_evidence_is_about_one_version_and_one_config() -> None:
    """A change of either makes it void, and says what to do."""
    found = known(SIZE)
    assert "another version" in why(found, "A", terms=replace(TERMS, version="v2"))
    assert "config has changed" in why(found, "A", terms=replace(TERMS, config="c2"))


def test_any_option_changes_the_hash() -> None:
    """Also one that the relay itself never hears of, and one that is only written out."""
    plain = config_hash(parse(FIVE_LINES, "test"))
    assert plain == config_hash(parse(FIVE_LINES + '[gates]\nfresh = "24h"\n', "test"))
    assert plain != config_hash(parse(FIVE_LINES + '[gates]\nfresh = "2h"\n', "test"))
    assert plain != config_hash(parse(FIVE_LINES + '[queue]\nretention = "20d"\n', "test"))


def test_what_the_evidence_allows_does_not_void_it() -> None:
    """To let Terraform make the MX records comes after the proof; its other options do count."""

    def digest(more: str) -> str:
        zones = '[dns.cloudflare]\nzones = { "example.org" = "023e105f4ecef8ad9ca31a8372d0c353" }\n'
        return config_hash(parse(f"{FIVE_LINES}{zones}{more}\n", "test"))

    assert digest('publish = "mx"') == digest("") != digest("record_limit = 100")


def test_the_hash_follows_no_secret(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It says where one is kept, and is the same whatever is kept there, or nothing."""
    monkeypatch.chdir(tmp_path)
    config = parse(FIVE_LINES + '[notify]\nurls = [{ file = "url" }]\n', "test")
    before = config_hash(config)
    (tmp_path / "url").write_text("ntfys://secret")
    assert config_hash(config) == before != config_hash(parse(FIVE_LINES, "test"))


def test_what_was_written_is_read(tmp_path: Path) -> None:
    """Nothing is lost on the way, and nothing is there at first."""
    path = tmp_path / "build/evidence.json"
    assert evidence.read(path) == {}
    before = {"x": proof("x", "fail")}
    relays = {
        "mx2": replace(known(SIZE, replace(proof("x"), at=NEVER)), earlier=before),
        "mx3": known(),
    }
    evidence.write(path, relays)
    assert evidence.read(path) == relays


def test_terraform_finds_what_it_reads(tmp_path: Path) -> None:
    """terraform/cloudflare/evidence.tf goes by version, until and allows."""
    path = tmp_path / "evidence.json"
    evidence.write(path, {"mx2": known(SIZE)})
    told = json.loads(path.read_text())["mx2"]
    assert told["version"] == "v1"
    assert told["until"] == "2026-11-23T15:00:00Z"
    assert told["allows"] == ["A", "MX"]
    assert told["gates"]["size"]["from"] == "afar"


def test_a_file_of_before_is_read(tmp_path: Path) -> None:
    """Older versions kept nothing that did not count."""
    path = tmp_path / "evidence.json"
    evidence.write(path, {"mx2": known(SIZE)})
    told = json.loads(path.read_text())
    del told["mx2"]["earlier"]
    path.write_text(json.dumps(told))
    assert evidence.read(path) == {"mx2": known(SIZE)}


def test_no_record_goes_by_what_is_void() -> None:
    """What was found before is for telling what has changed, and for nothing else."""
    found = replace(known(SIZE), earlier={"inbound": proof("inbound")})
    assert why(found) == "inbound: not run yet"
    assert found.latest == {"size": SIZE, "inbound": proof("inbound")}


@pytest.mark.parametrize(
    "text",
    [
        "",
        "[]",
        '{"mx2": {}}',
        '{"mx2": 1}',
        '{"mx2": {"version": "", "until": "soon", "allows": [], "config": "", "tool": "",'
        ' "gates": {}}}',
        '{"mx2": {"version": "", "until": "2026-11-23T15:00:00Z", "allows": ["NS"], "config": "",'
        ' "tool": "", "gates": {}}}',
    ],
)
def test_a_broken_file_is_told(tmp_path: Path, text: str) -> None:
    """It is no evidence, and never taken for some."""
    path = tmp_path / "evidence.json"
    path.write_text(text)
    with pytest.raises(BackupMxError, match="is not what the gates wrote"):
        evidence.read(path)


def test_a_place_that_cannot_be_written_is_told(tmp_path: Path) -> None:
    """In words, with the path."""
    (tmp_path / "build").write_text("a file")
    with pytest.raises(BackupMxError, match="cannot be written"):
        evidence.write(tmp_path / "build/evidence.json", {})
