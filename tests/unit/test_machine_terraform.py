"""Config to Terraform's input, and what of a cloud is wrong only together."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from backup_mx import config, evidence
from backup_mx.errors import ConfigError
from backup_mx.evidence import Record, Terms
from backup_mx.machine import terraform
from backup_mx.machine.tool import tool

DATA = Path(__file__).parents[1] / "data" / "terraform"
BUILT = hashlib.sha256(b"a bundle").hexdigest()
VERSIONS = {"mx2": BUILT, "mx3": BUILT}
GATES: Mapping[str, tuple[Record, ...]] = {"version": ("A", "MX"), "inbound": ("MX",), "ptr": ()}
RELAY = """
[relay.mx2]
hostname = "mx2.example.org"
address = "198.18.7.20"
[primary.home]
hostname = "mail.example.org"
[domain."example.org"]
[access]
ssh_keys = ["ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIFDYWOCYXsx/YEGKrwzFq1h/QsJXCohAlanozKzQ9lRc me"]
"""
OCI = """
[cloud.oci]
tenancy = "ocid1.tenancy.oc1..aaaaexample"
region = "eu-frankfurt-1"
budget_mail = "me@example.net"
"""


def inputs(read: config.Config, versions: Mapping[str, str] = VERSIONS) -> dict[Path, str]:
    """Return Terraform's input, with what was built beside the config."""
    return dict(terraform.inputs(read, DATA / "built", versions, GATES))


def machines(text: str) -> dict[str, Any]:
    """Return what Terraform is told of each relay at Oracle."""
    read = config.parse(text, "test")
    assert read.cloud.oci
    here = Path("terraform/oci")
    told = terraform.oci_variables(read, read.cloud.oci, here, Path("build"))
    relays: dict[str, Any] = told["relays"]
    return relays


def mistakes(text: str) -> str:
    """Return what is wrong with a config, "" if nothing is."""
    try:
        config.parse(text, "test")
    except ConfigError as error:
        return str(error)
    return ""


def test_terraform_is_told_what_the_config_says(monkeypatch: pytest.MonkeyPatch) -> None:
    """The files are those that tests/terraform gives to the real Terraform; nothing else is."""
    known = hashlib.sha256(b"one").hexdigest()
    monkeypatch.setattr(evidence, "config_hash", lambda _: known)
    monkeypatch.setattr(terraform, "tool", lambda: "1.0")
    told = inputs(config.load(DATA / "backup-mx.toml"))
    assert told == {
        DATA / kind / terraform.VARIABLES: (DATA / kind / terraform.VARIABLES).read_text()
        for kind in ("oci", "cloudflare")
    }


def test_evidence_has_to_be_about_this_config() -> None:
    """Terraform is told the hash, and the tool, that the gates file their evidence under."""
    read = config.load(DATA / "backup-mx.toml")
    told = json.loads(inputs(read)[DATA / "cloudflare" / terraform.VARIABLES])
    assert (told["config"], told["tool"]) == (evidence.config_hash(read), tool())


def test_evidence_is_what_the_gates_write() -> None:
    """What tests/terraform takes for evidence is read, allows all, and is written as it was."""
    path = DATA / "cloudflare" / "built" / terraform.EVIDENCE
    known = evidence.read(path)
    assert {name: evidence.evidence_data(each) for name, each in known.items()} == json.loads(
        path.read_text()
    )
    for each in known.values():
        terms = Terms(BUILT, each.config, "1.0", GATES)
        for kind in evidence.RECORDS:
            assert not evidence.lacking(each, terms, kind, datetime.now(UTC))


def test_without_a_cloud_there_is_nothing_to_tell() -> None:
    """A plain VPS, with DNS by hand, has nothing to do with Terraform."""
    assert inputs(config.parse(RELAY, "test")) == {}


def test_an_example_address_is_not_known_yet() -> None:
    """Until Oracle has reserved an address, no machine is asked for that would have another."""
    text = RELAY.replace("198.18.7.20", "203.0.113.20")
    told = machines(text + OCI)["mx2"]
    assert (told["address"], told["user_data"], told["volume_gb"]) == (None, None, 50)
    zones = '[dns.cloudflare]\nzones = { "example.org" = "023e105f4ecef8ad9ca31a8372d0c353" }\n'
    read = config.parse(text + zones, "test")
    assert json.loads(next(iter(inputs(read).values())))["relays"] == {}


def test_port_443_is_opened_for_a_policy_only() -> None:
    """And only where a relay of Oracle's serves it."""
    ours = '[mta_sts]\nhosted_by = "mx2"'
    for options, opened in (("", False), ("[mta_sts]", False), (ours, True)):
        read = config.parse(f"{RELAY}{OCI}{options}\n", "test")
        assert json.loads(next(iter(inputs(read).values())))["mta_sts"] is opened


def test_port_80_is_opened_for_acme_only() -> None:
    """Terraform is told whether an authority is to come in."""
    for acme in (True, False):
        read = config.parse(f"{RELAY}{OCI}[tls]\nacme = {str(acme).lower()}\n", "test")
        assert json.loads(next(iter(inputs(read).values())))["acme"] is acme


def test_a_path_counts_from_where_terraform_runs() -> None:
    """User-data is found from the module's folder, whatever folder the build wrote to."""
    assert machines(RELAY + OCI)["mx2"]["user_data"] == "../../build/mx2/user-data"


def test_a_relay_on_the_cloud_has_a_volume() -> None:
    """Its queue outlives it, unless the file says that it need not."""
    without = RELAY.replace("[primary", "volume = false\n[primary")
    assert machines(RELAY + OCI)["mx2"]["volume_gb"] == 50
    assert machines(without + OCI)["mx2"]["volume_gb"] is None
    assert not config.parse(RELAY, "test").relays["mx2"].volume


def test_only_the_named_relays_are_there() -> None:
    """A relay elsewhere is not made at Oracle, and has no volume by itself."""
    other = '[relay.vps]\nhostname = "vps.example.org"\naddress = "198.18.7.9"\n'
    assert list(machines(RELAY + other + OCI)) == ["mx2", "vps"]
    text = RELAY + other + OCI + 'relays = ["mx2"]\n'
    assert list(machines(text)) == ["mx2"]
    assert not config.parse(text, "test").relays["vps"].volume


@pytest.mark.parametrize(
    ("line", "told"),
    [
        ('relays = ["mx3"]', 'oci.relays[0] = "mx3": expected the name of a [relay.NAME]: mx2'),
        ('shape = "VM.Standard2.1"', "expected VM.Standard.E2.1.Micro, which is free (may_cost"),
        (
            'volume_size = "151 GB"',
            "expected 200 GB at most in all, which are free; this makes 201",
        ),
        ('volume_size = "49 GB"', "Oracle makes none below 50 GB"),
        ("volume_size = 50", 'a number needs its unit: "50 GB"'),
        ('shape = "VM.Standard.A1.Flex"', "cores and memory would have to be told"),
        ('network = "10.0.0.0/8"', "expected a private IPv4 network from /16 to /30"),
        ('network = "8.8.8.0/24"', "expected a private IPv4 network from /16 to /30"),
        ('availability_domain = "AD-1"', "the tenancy's own letters before the colon"),
        ('compartment = "home"', "expected a compartment's OCID"),
        ('console_key = "ssh-ed25519 AAAA"', 'begins with "ssh-rsa"'),
        ('relays = "mx2"', "expected a list in square brackets"),
        ('sahpe = "x"', 'did you mean "shape"?'),
    ],
)
def test_a_slip_is_told(line: str, told: str) -> None:
    """What is wrong with the cloud's options is told where it stands, with a way out."""
    assert told in mistakes(f"{RELAY}{OCI}{line}\n")


def test_what_costs_may_be_meant() -> None:
    """Whoever pays gets more than what is free."""
    text = f'{RELAY}{OCI}volume_size = "1000 GB"\nshape = "VM.Standard2.1"\n'
    assert mistakes(f"{text}may_cost = true\n") == ""


def test_more_than_two_machines_are_not_free() -> None:
    """Oracle's third small machine has a price."""
    more = "".join(
        f'[relay.m{n}]\nhostname = "m{n}.example.org"\naddress = "198.18.7.{n}"\n' for n in (1, 2)
    )
    assert "expected 2 relays at most, which are free; these are 3" in mistakes(RELAY + more + OCI)


@pytest.mark.parametrize(
    ("right", "wrong", "told"),
    [
        ('"198.18.7.20"', '"2a00::1"', "relay.mx2.address"),
        ('ssh_keys = ["', 'ssh_from = ["2a00::/16"]\nssh_keys = ["', "access.ssh_from"),
        ('ssh_keys = ["', '#ssh_keys = ["', "access.ssh_keys: missing: nobody could log in"),
        ("[primary", 'wireguard_address = "172.30.255.3"\n[primary', "relay.mx2.wireguard_address"),
    ],
)
def test_what_oracle_cannot_do_is_told(right: str, wrong: str, told: str) -> None:
    """What is right on a plain VPS may be wrong on Oracle's cloud."""
    text = RELAY.replace(right, wrong)
    assert mistakes(text) == ""
    assert told in mistakes(text + OCI)


@pytest.mark.parametrize(
    ("zones", "told"),
    [
        ('"example.org"', "a table of names and IDs"),
        ('{ "example.org" = "example.org" }', "expected a table of zones and their IDs"),
        (
            '{ "example.net" = "023e105f4ecef8ad9ca31a8372d0c353" }',
            "expected the zone of a relay's hostname or of a domain",
        ),
    ],
)
def test_a_zone_that_is_none_is_told(zones: str, told: str) -> None:
    """A zone has an ID, and something of ours is in it."""
    assert told in mistakes(f"{RELAY}[dns.cloudflare]\nzones = {zones}\n")


def test_names_are_published_in_the_nearest_zone() -> None:
    """Of two zones that fit, a name is in the longer; what fits none is left to others."""
    ids = {"example.org": "0" * 32, "mx2.example.org": "1" * 32}
    zones = ", ".join(f'"{name}" = "{number}"' for name, number in ids.items())
    text = f'{RELAY}[domain."example.net"]\n[dns.cloudflare]\nzones = {{ {zones} }}\n'
    for publish, domains in (("address", {}), ("mx", {"example.org": "example.org"})):
        read = config.parse(f'{text}publish = "{publish}"\n', "test")
        told = json.loads(next(iter(inputs(read).values())))["relays"]["mx2"]
        assert (told["zone"], told["domains"]) == ("mx2.example.org", domains)
