"""What an account's facts mean for a relay; tests/cloud has those with Oracle's SDK."""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path

import pytest
from click.testing import CliRunner

from backup_mx.cli.cloud import cloud
from backup_mx.cloud import judge
from backup_mx.cloud.facts import Count, Disk, Machine, Plan, Quota, Region, Reserved, Week
from backup_mx.cloud.idle import percentile, use_of
from backup_mx.cloud.oracle import Account
from backup_mx.cloud.wanted import Wanted, WantedRelay, wanted_by
from backup_mx.config import parse
from backup_mx.errors import ConfigError, HostError

FIVE_LINES = (Path(__file__).parents[1] / "data/config/five-lines.toml").read_text()
FREE, PAYING = Plan("FREE_TIER", ""), Plan("PAYG", "UPGRADED")
MICRO = Machine("mx2.example.org", "ocid1", "ocid1", "VM.Standard.E2.1.Micro", "RUNNING", 0.48)
BOTH = [MICRO, replace(MICRO, name="mx3.example.org")]
ARM = replace(MICRO, shape="VM.Standard.A1.Flex", bandwidth=1.0)
STEPS = 7 * 24 * 12
# A tenth of a per cent of what the card can do, in bytes in five minutes.
QUIET = (0.48e9 / 8 * 300 / 1000,) * STEPS
MX2 = WantedRelay("mx2.example.org", "198.51.100.7", boot_gb=50, volume_gb=50)
MX3 = WantedRelay("mx3.example.org", "192.0.2.7", boot_gb=50, volume_gb=50)
TWO = Wanted(relays=(MX2, MX3))


def week(busy: int, cpu: float = 20.0, memory: float = 50.0) -> Week:
    """Return a quiet week in which ``busy`` of the 2,016 points were at ``cpu`` per cent."""
    return Week((cpu,) * busy + (1.0,) * (STEPS - busy), (memory,) * STEPS, QUIET, QUIET)


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ((), None),
        ((3.0,), 3.0),
        (tuple(map(float, range(100, 0, -1))), 95.0),
        ((1.0,) * 19 + (50.0,), 1.0),
        ((1.0,) * 18 + (50.0,) * 2, 50.0),
    ],
)
def test_the_95th_percentile(values: tuple[float, ...], expected: float | None) -> None:
    """95 % of the values are at or below it: one peak in twenty does not count, two do."""
    assert percentile(values, 95) == expected


@pytest.mark.parametrize(
    ("machine", "week", "idle"),
    [
        (MICRO, week(busy=100), True),
        (MICRO, week(busy=101), False),
        (MICRO, week(busy=101, cpu=19.9), True),
        (MICRO, replace(week(busy=0), sent=tuple(200 * each for each in QUIET)), False),
        (MICRO, replace(week(busy=0), received=tuple(199 * each for each in QUIET)), True),
        (MICRO, week(busy=0, memory=90.0), True),
        (ARM, week(busy=0, memory=20.0), False),
        (ARM, week(busy=0, memory=19.9), True),
        (MICRO, Week(), None),
        (MICRO, replace(week(busy=0), received=(), sent=()), None),
        (replace(MICRO, bandwidth=None), week(busy=0), None),
        (replace(MICRO, bandwidth=None), week(busy=200), False),
    ],
)
def test_oracle_s_rule_on_idle_machines(machine: Machine, week: Week, idle: bool | None) -> None:
    """All below 20 %: CPU for 95 % of the time, the network, and the memory of A1 shapes only.

    One figure that is not below says no, a missing one with all others below says nothing.
    """
    assert use_of(machine, week).idle is idle


@pytest.mark.parametrize(
    ("machine", "told", "week", "verdict", "words"),
    [
        (MICRO, FREE, week(busy=0), "warn", "CPU 1.0 %, network 0.1 % over 7.0 days; all below"),
        (MICRO, FREE, week(busy=300), "pass", "not idle by Oracle's rule"),
        (MICRO, PAYING, week(busy=0), "pass", "with pay-as-you-go it does not matter"),
        (MICRO, None, week(busy=0), "warn", "may stop it"),
        (MICRO, FREE, Week(), "unknown", "CPU not measured"),
        (ARM, FREE, week(busy=0, memory=12.0), "warn", "memory 12.0 %"),
        (replace(MICRO, state="STOPPED"), PAYING, Week(), "fail", "is stopped"),
        (replace(MICRO, state="STARTING"), FREE, Week(), "unknown", "is starting"),
    ],
)
def test_whether_a_machine_may_be_stopped(
    machine: Machine, told: Plan | None, week: Week, verdict: str, words: str
) -> None:
    """An idle machine of a free account is a warning, with the figures; a stopped one a failure."""
    finding = judge.idle(machine, week, told)
    assert (finding.verdict, words in finding.saw) == (verdict, True), finding


@pytest.mark.parametrize(
    ("told", "verdict", "words"),
    [
        (PAYING, "pass", "pay-as-you-go"),
        (FREE, "warn", "free only: Oracle may stop"),
        (Plan("FREE_TIER", "PROMO"), "warn", "first month's credit"),
        (Plan("FREE_TIER", "ERROR"), "warn", "the upgrade to pay-as-you-go failed"),
        (Plan("FREE_TIER", "SUBMITTED"), "warn", "being worked on"),
        (Plan("UNKNOWN_ENUM_VALUE", ""), "unknown", "not known here"),
        (None, "unknown", "none"),
    ],
)
def test_what_the_account_pays_by(told: Plan | None, verdict: str, words: str) -> None:
    """Pay-as-you-go passes, free only warns of stopped machines, anything else is unknown."""
    finding = judge.plan(told)
    assert (finding.verdict, words in finding.saw) == (verdict, True), finding


@pytest.mark.parametrize(
    ("quotas", "there", "verdict", "words"),
    [
        ([Quota("AD-1", 0, 0, False), Quota("AD-3", 2, 0, True)], [], "pass", "AD-3 gives 2, 0 in"),
        ([Quota("AD-3", 2, 1, True)], [], "fail", "2 are still to be made"),
        ([Quota("AD-3", 2, 1, True)], [MICRO], "pass", "AD-3 gives 2, 1 in use"),
        ([Quota("AD-3", 2, 0, False)], [], "fail", "this region has no VM.Standard.E2.1.Micro"),
        ([Quota("AD-1", 0, 0, True)], [], "fail", "AD-1 gives none"),
        ([], [], "fail", "no limit"),
        ([Quota("AD-3", 2, None, True)], [], "unknown", "an unknown number in use"),
        ([Quota("AD-3", 2, None, True)], [MICRO], "unknown", "an unknown number in use"),
        ([Quota("AD-3", 2, None, True)], BOTH, "pass", "an unknown number in use"),
        ([Quota("AD-3", 2, 2, False)], BOTH, "pass", "AD-3 gives 2, 2 in use"),
        ([], BOTH, "pass", "no limit"),
    ],
)
def test_whether_the_free_machines_can_be_made(
    quotas: list[Quota], there: list[Machine], verdict: str, words: str
) -> None:
    """What an availability domain has left must do for the relays that have no machine yet.

    Where all have one, it does not matter what is left, nor whether Oracle counts it.
    """
    finding = judge.machines(quotas, there, TWO)
    assert (finding.verdict, words in finding.saw) == (verdict, True), finding


def test_before_there_is_a_config_a_limit_that_is_not_counted_is_unknown() -> None:
    """Whether a machine could be made is what is asked then."""
    finding = judge.machines([Quota("AD-3", 2, None, True)], [], Wanted())
    assert finding.verdict == "unknown"


@pytest.mark.parametrize(
    ("disks", "verdict", "words"),
    [
        ([], "pass", "0 of 200 free GB in use on 0 disks, 200 GB are still to be made"),
        ([Disk("else", 47)], "fail", "47 of 200 free GB in use on 1 disks, 200 GB"),
        (
            [Disk("mx2.example.org (Boot Volume)", 50), Disk("mx2.example.org queue", 50)],
            "pass",
            "100 of 200 free GB in use on 2 disks, 100 GB",
        ),
        ([Disk("mx2.example.org queue", 60)], "fail", "60 of 200 free GB in use on 1 disks, 150"),
        ([Disk("else", 201)], "fail", "201 of 200"),
    ],
)
def test_whether_the_disks_stay_free(disks: list[Disk], verdict: str, words: str) -> None:
    """All disks count, and those that the config still wants: a volume outlives its machine."""
    finding = judge.storage(disks, TWO)
    assert (finding.verdict, words in finding.saw) == (verdict, True), finding
    allowed = judge.storage(disks, replace(TWO, may_cost=True))
    assert allowed.verdict == ("warn" if verdict == "fail" else verdict)


@pytest.mark.parametrize(
    ("told", "count", "verdicts"),
    [
        ([Reserved("198.51.100.7", assigned=True)], Count(limit=2, used=1), ["pass", "pass"]),
        ([Reserved("198.51.100.7", assigned=True)], Count(limit=1, used=1), ["pass", "fail"]),
        ([], Count(limit=1, used=0), ["fail", "fail"]),
        ([], Count(limit=2, used=0), ["pass", "pass"]),
        ([], None, ["pass", "pass"]),
    ],
)
def test_an_example_s_address_is_one_to_be_reserved(
    told: list[Reserved], count: Count | None, verdicts: list[str]
) -> None:
    """A relay with one of the documentation's addresses gets its own, if there may be one more."""
    assert [each.verdict for each in judge.addresses(told, count, TWO)] == verdicts


def test_a_real_address_must_be_reserved() -> None:
    """An address that Oracle lends for a machine's life would not survive a rebuild."""
    own = Wanted(relays=(replace(MX2, address="141.144.1.2"),))
    (finding,) = judge.addresses([], Count(limit=1, used=0), own)
    assert finding.verdict == "fail"
    assert "141.144.1.2 is not reserved here" in finding.saw
    (finding,) = judge.addresses([Reserved("141.144.1.2", assigned=False)], None, own)
    assert (finding.verdict, "no machine has it" in finding.saw) == ("pass", True)


def test_another_region_than_home() -> None:
    """Nothing is free outside the home region."""
    home = Region("eu-frankfurt-1", home=True)
    away = Wanted(region="eu-amsterdam-1")
    assert judge.region(home, away).verdict == "fail"
    assert judge.region(home, replace(away, may_cost=True)).verdict == "warn"
    assert judge.region(home, Wanted(region="eu-frankfurt-1")).verdict == "pass"


def oci_config(**options: str) -> str:
    lines = {
        "tenancy": '"ocid1.tenancy.oc1..aaaaexample"',
        "region": '"eu-frankfurt-1"',
        "budget_mail": '"me@example.net"',
        **options,
    }
    text = "".join(f"{name} = {value}\n" for name, value in lines.items())
    key = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIJN3ZrUGWfRPIzB3LqxaFSNwlNdNWNYTXFW5a8YkfmQb me"
    return f'{FIVE_LINES}\n[access]\nssh_keys = ["{key}"]\n[cloud.oci]\n{text}'


def test_what_a_config_wants() -> None:
    """The config's relays at Oracle, by the names that Terraform gives their machines."""
    wanted = wanted_by(parse(oci_config(profile='"mail"'), "test"))
    assert (wanted.profile, wanted.region) == ("mail", "eu-frankfurt-1")
    assert [(each.hostname, each.address, each.boot_gb) for each in wanted.relays] == [
        ("mx2.example.org", "203.0.113.20", 50)
    ]
    assert wanted_by(parse(FIVE_LINES, "test")) == Wanted()


def hidden(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "oci", None)


def test_without_the_sdk(monkeypatch: pytest.MonkeyPatch) -> None:
    """The SDK is optional: without it one message says how to install it, with exit code 3."""
    hidden(monkeypatch)
    with pytest.raises(HostError, match=r"pip install '\.\[oci\]'") as caught:
        Account()
    assert caught.value.exit_code == 3


@pytest.mark.parametrize("named", [True, False])
def test_a_config_that_is_not_there(
    named: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The verb does without a config, but not without the one that was named."""
    hidden(monkeypatch)
    monkeypatch.chdir(tmp_path)
    arguments = ["check", *(["--config", "backup-mx.toml"] if named else [])]
    expected: type[Exception] = ConfigError if named else HostError
    result = CliRunner().invoke(cloud, arguments)
    assert isinstance(result.exception, expected), result.output
