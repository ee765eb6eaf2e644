"""`backup-mx cloud check` with Oracle's own SDK, whose HTTP session gets recorded answers."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path

import oci
import pytest
from click.testing import CliRunner, Result
from cryptography.hazmat.primitives.asymmetric import rsa
from oci._vendor.requests import exceptions as http
from recorded import ANSWERS, TENANCY, Oracle, profile

from backup_mx.cli.cloud import cloud
from backup_mx.cloud.check import check
from backup_mx.cloud.judge import GATES
from backup_mx.cloud.oracle import Account
from backup_mx.cloud.wanted import Wanted, WantedRelay
from backup_mx.errors import CloudError, SecretError, UnreachableError
from backup_mx.findings import Finding

MX2 = WantedRelay("mx2.example.org", "203.0.113.20", boot_gb=50, volume_gb=50)
WANTED = Wanted(tenancy=TENANCY, region="eu-frankfurt-1", relays=(MX2,))


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv("OCI_CONFIG_FILE", raising=False)
    return tmp_path


@pytest.fixture
def oracle(home: Path, monkeypatch: pytest.MonkeyPatch) -> Oracle:
    answering = Oracle(profile(home))
    monkeypatch.setattr("oci.base_client.OCIHTTPAdapter", answering)
    monkeypatch.setattr("time.sleep", lambda _: None)
    return answering


def found(wanted: Wanted = WANTED) -> dict[str, Finding]:
    findings = check(Account(), wanted, lambda _: None)
    return {each.gate: each for each in findings}


@pytest.mark.usefixtures("oracle")
def test_a_free_account_with_its_relay() -> None:
    """Each fact is told once, in words, with what was really there."""
    findings = found()
    assert list(findings) == list(GATES)
    assert {name: each.verdict for name, each in findings.items()} == {
        "home region": "pass",
        "subscription": "warn",
        "free machines": "pass",
        "storage": "pass",
        "address": "pass",
        "idle": "warn",
    }
    assert findings["home region"].saw == "eu-frankfurt-1"
    assert "free only (still with the first month's credit)" in findings["subscription"].saw
    assert "AD-3 gives 2, 1 in use" in findings["free machines"].saw
    assert "AD-1 gives none" in findings["free machines"].saw
    assert findings["storage"].saw == "147 of 200 free GB in use on 3 disks"
    assert findings["address"].saw == "mx2.example.org: 203.0.113.20 is reserved"


@pytest.mark.usefixtures("oracle")
def test_the_figures_are_the_measured_ones() -> None:
    """CPU is the 95th percentile, the network the busier direction's share of the card."""
    mean = (900_000 + 1_200_000 + 36_000_000) / 3
    network = mean / 300 * 8 / 0.48e9 * 100
    assert f"CPU 12.5 %, network {network:.1f} %" in found()["idle"].saw
    assert "idle and may stop it" in found()["idle"].saw


def test_a_list_on_two_pages_is_read_to_its_end(oracle: Oracle) -> None:
    """The old name of the limit is on the second page here; it counts where the new one is not."""
    oracle.answers["limits"]["body"] = []
    old = "/20190729/services/compute/limits/vm-standard-e2-1-micro-count/resourceAvailability"
    for number in (1, 2, 3):
        oracle.answers[f"used-ad-{number}"]["path"] = old
    assert "AD-3 gives 2, 1 in use" in found()["free machines"].saw
    assert {"limits", "limits-page-2"} <= set(oracle.asked)


@pytest.mark.usefixtures("oracle")
def test_without_a_config_the_home_region_is_asked() -> None:
    """The account is looked at before there is a config: only what is there is told."""
    findings = found(Wanted())
    assert findings["address"].saw == "1 of 1 reserved: 203.0.113.20"
    assert findings["free machines"].verdict == "pass"


def test_another_tenancy_than_the_config_s_is_told_at_once(oracle: Oracle) -> None:
    """Nothing is judged by the wrong account."""
    findings = found(Wanted(tenancy="ocid1.tenancy.oc1..other"))
    assert [each.verdict for each in findings.values()] == ["fail"]
    assert oracle.asked == ["regions"]


def test_every_question_has_a_time_limit(oracle: Oracle) -> None:
    """No question waits longer than seconds, whatever the service."""
    found()
    assert set(oracle.timeouts) == {(10, 30)}


def test_what_may_not_be_seen_is_unknown_and_hides_nothing_else(oracle: Oracle) -> None:
    """A user who may not see the subscription still learns the rest; unknown is no pass."""
    oracle.refusals["subscriptions"] = (404, "NotAuthorizedOrNotFound")
    findings = found()
    assert list(findings) == list(GATES)
    assert findings["subscription"].verdict == "unknown"
    assert "may not see the subscription" in findings["subscription"].saw
    assert findings["idle"].verdict == "warn"


def test_a_limit_that_oracle_does_not_count(oracle: Oracle) -> None:
    """Oracle says of some limits that there is nothing to count: that is not none in use.

    Where every relay has its machine and its address, nothing is left to be counted.
    """
    for each in ("used-ad-3", "address-count"):
        oracle.refusals[each] = (404, "NotAuthorizedOrNotFound")
    two = replace(WANTED, relays=(MX2, replace(MX2, hostname="mx3.example.org")))
    assert found(two)["free machines"].verdict == "unknown"
    findings = found()
    assert {findings[each].verdict for each in ("free machines", "address")} == {"pass"}


def test_a_machine_that_is_no_relay_of_ours_is_not_judged(oracle: Oracle) -> None:
    """It stands in the same account, and may be stopped for good; without a config it is told."""
    machines = oracle.body("machines")
    machines.append({**machines[0], "displayName": "toy", "lifecycleState": "STOPPED"})
    assert found()["idle"].saw.startswith("mx2.example.org: ")
    assert found(Wanted())["idle"].saw == "toy is stopped"
    del machines[0]
    finding = found()["idle"]
    assert (finding.verdict, finding.saw) == ("pass", "no relay has a free machine yet")


@pytest.mark.parametrize(
    ("status", "code", "words", "tries"),
    [
        (404, "NotAuthorizedOrNotFound", "may not see the regions", 1),
        (403, "NotAuthorized", "may not see the regions", 1),
        (429, "TooManyRequests", "Oracle throttles: it was asked 3 times", 3),
        (500, "InternalServerError", "500 InternalServerError: in Oracle's own words", 3),
    ],
)
def test_a_refusal_is_one_clear_message(
    oracle: Oracle, status: int, code: str, words: str, tries: int
) -> None:
    """What passes by itself is tried three times, what does not once; then one line says it."""
    oracle.refusals["regions"] = (status, code)
    with pytest.raises(CloudError, match=words) as caught:
        found()
    assert "\n" not in str(caught.value)
    assert len(oracle.asked) == tries


def test_a_key_that_oracle_does_not_know(oracle: Oracle) -> None:
    """Signed with a key that is not the account's: Oracle's 401 becomes what to look at."""
    oracle.known = rsa.generate_private_key(public_exponent=65537, key_size=2048).public_key()
    with pytest.raises(CloudError, match="does not accept the key of profile DEFAULT"):
        found()


def test_a_network_that_is_down(oracle: Oracle, monkeypatch: pytest.MonkeyPatch) -> None:
    """No connection, three times: one message, and its own exit code."""

    def refuse(*_: object, **__: object) -> None:
        raise http.ConnectionError("no route")

    monkeypatch.setattr(oracle, "send", refuse)
    with pytest.raises(UnreachableError, match="cannot be reached, 3 times"):
        found()


def without(line: str) -> Callable[[Path], None]:
    def cut(folder: Path) -> None:
        config = folder / "config"
        kept = [each for each in config.read_text().splitlines() if not each.startswith(line)]
        config.write_text("\n".join(kept))

    return cut


def spoiled(folder: Path) -> None:
    (folder / "key.pem").write_text("no key\n")


@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        (lambda folder: (folder / "config").unlink(), "no ~/.oci/config"),
        (without("user"), "user is missing"),
        (without("[DEFAULT]"), "~/.oci/config"),
        (lambda folder: (folder / "key.pem").unlink(), "key.pem"),
        (spoiled, "not a private key"),
    ],
)
def test_a_profile_that_cannot_be_used(
    oracle: Oracle, home: Path, spoil: Callable[[Path], object], words: str
) -> None:
    """The file, the section, an entry, the key: each mistake is named, without a question asked."""
    spoil(home / ".oci")
    with pytest.raises(SecretError, match=words) as caught:
        Account()
    assert "\n" not in str(caught.value)
    assert not oracle.asked


@pytest.mark.usefixtures("oracle")
def test_a_profile_that_is_not_there() -> None:
    """A misspelt profile is named."""
    with pytest.raises(SecretError, match=r"there is no profile mial of ~/\.oci/config"):
        Account("mial")


def said(*arguments: str) -> Result:
    return CliRunner().invoke(cloud, ["check", *arguments], catch_exceptions=False)


def test_the_verb(oracle: Oracle, home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without a config it asks by the profile alone; a warning ends well, a failure does not."""
    monkeypatch.chdir(home)
    result = said()
    assert result.exit_code == 0, result.output
    assert "home region          eu-frankfurt-1" in result.stdout
    oracle.body("machines")[0]["lifecycleState"] = "STOPPED"
    result = said("--json")
    assert result.exit_code == 1
    told = json.loads(result.stdout)
    assert told["tenancy"] == TENANCY
    assert told["findings"][-1]["saw"] == "mx2.example.org is stopped"


def test_a_shape_that_the_region_never_had(oracle: Oracle) -> None:
    """Limits are left over in regions without the shape; the list of shapes is what counts."""
    oracle.body("shapes-ad-3").pop()
    oracle.body("machines").clear()
    finding = found()["free machines"]
    assert finding.verdict == "fail"
    assert "this region has no VM.Standard.E2.1.Micro at all" in finding.saw


def unknown(kind: str, body: object) -> set[str]:
    """Return the names in a body that the SDK's model of it does not have, at any depth."""
    if isinstance(body, list):
        return {name for each in body for name in unknown(kind, each)}
    if not isinstance(body, Mapping) or kind.startswith("dict("):
        return set()
    service, _, name = kind.partition(".")
    known = getattr(getattr(oci, service).models, name)()
    fields = {wire: known.swagger_types[own] for own, wire in known.attribute_map.items()}
    inner = {
        name
        for key, value in body.items()
        if key in fields and isinstance(value, (Mapping, list))
        for name in unknown(_kind(service, fields[key]), value)
    }
    return {f"{kind}.{key}" for key in body.keys() - fields.keys()} | inner


def _kind(service: str, swagger: str) -> str:
    plain = swagger.removeprefix("list[").removesuffix("]")
    return plain if plain.startswith("dict(") else f"{service}.{plain}"


@pytest.mark.parametrize("path", sorted(ANSWERS.glob("*.json")), ids=lambda path: path.stem)
def test_the_recorded_answers_have_the_sdk_s_shape(path: Path) -> None:
    """Every name in a recorded answer is one that the SDK's model of it has."""
    told = json.loads(path.read_text())
    assert not unknown(told["model"], told["body"])
