"""The modules' files as such: their form, what they say of themselves, the providers' schema."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import bindings
import pytest
from check import mistakes, parsed
from terraformers import MODULES, SOURCES, program

FILES = sorted(MODULES.rglob("*.tf"))
# A mistake of each kind: the file, what stands there, what is written instead, and what is told.
SLIPS = {
    "misspelt argument": (
        ("relay.tf", "preserve_boot_volume =", "preserve_bootvolume ="),
        "resource oci_core_instance relay: there is no argument preserve_bootvolume",
    ),
    "misspelt argument in a block": (
        ("relay.tf", "are_legacy_imds_endpoints_disabled", "legacy_imds_endpoints_disabled"),
        "resource oci_core_instance relay instance_options: there is no argument "
        "legacy_imds_endpoints_disabled",
    ),
    "misspelt argument in a dynamic block's block": (
        ("network.tf", "min = ingress", "minimum = ingress"),
        "resource oci_core_default_security_list relays ingress_security_rules tcp_options: there "
        "is no argument minimum",
    ),
    "missing argument": (
        ("volume.tf", '  attachment_type = "paravirtualized"\n', ""),
        "resource oci_core_volume_attachment queue: the argument attachment_type is missing",
    ),
    "missing argument in a block": (
        ("relay.tf", '    source_type             = "image"\n', ""),
        "resource oci_core_instance relay source_details: the argument source_type is missing",
    ),
    "unknown block": (
        ("relay.tf", "availability_config {", "availability_configuration {"),
        "resource oci_core_instance relay: there is no block availability_configuration",
    ),
    "unknown resource": (
        ("address.tf", 'resource "oci_core_public_ip"', 'resource "oci_core_public_address"'),
        "resource oci_core_public_address relay: the provider has no oci_core_public_address",
    ),
    "misspelt argument of a data source": (
        ("place.tf", "sort_order ", "sort_direction "),
        "data oci_core_images ubuntu: there is no argument sort_direction",
    ),
    "missing argument of a data source": (
        ("place.tf", '  service_name   = "compute"\n', ""),
        "data oci_limits_limit_values shape: the argument service_name is missing",
    ),
    "argument that only the provider sets": (
        ("volume.tf", "vpus_per_gb = 10", "is_hydrated = true"),
        "resource oci_core_volume queue: is_hydrated is not an argument: the provider tells it",
    ),
    "misspelt argument of the provider": (
        ("versions.tf", "config_file_profile", "config_profile"),
        "provider oci: there is no argument config_profile",
    ),
}


def all_mistakes(module: Path) -> list[str]:
    """Return what the providers' schema does not have."""
    return [
        *mistakes(module, "resource", bindings.resource),
        *mistakes(module, "data", bindings.data),
        *mistakes(module, "provider", bindings.own),
    ]


def slipped(module: Path, file: str, right: str, wrong: str) -> None:
    """Write a mistake into a copied module."""
    path = module / file
    text = path.read_text()
    assert text.count(right) == 1
    path.write_text(text.replace(right, wrong))


@pytest.mark.parametrize("module", SOURCES)
def test_every_argument_is_the_providers(module: str) -> None:
    """Each resource, data source, block and argument of a module is in its provider's schema."""
    assert all_mistakes(MODULES / module) == []


@pytest.mark.parametrize("slip", SLIPS)
def test_a_slip_is_found(slip: str, tmp_path: Path) -> None:
    """A misspelt or missing argument or block is found, and it alone."""
    place, told = SLIPS[slip]
    shutil.copytree(MODULES / "oci", tmp_path / "oci")
    slipped(tmp_path / "oci", *place)
    assert all_mistakes(tmp_path / "oci") == [told]


def test_a_slip_at_cloudflare_is_found(tmp_path: Path) -> None:
    """Cloudflare's schema is looked into as well as Oracle's."""
    shutil.copytree(MODULES / "cloudflare", tmp_path / "cloudflare")
    slipped(tmp_path / "cloudflare", "records.tf", "priority = each", "preference = each")
    assert all_mistakes(tmp_path / "cloudflare") == [
        "resource cloudflare_dns_record exchanger: there is no argument preference"
    ]


def test_the_files_are_formatted(tmp_path: Path) -> None:
    """`terraform fmt` has nothing to change, and would see it if it had."""
    argv = [program(), "fmt", "-check", "-recursive"]
    assert subprocess.run([*argv, MODULES], check=False, capture_output=True).stdout == b""
    (tmp_path / "odd.tf").write_text("locals {\n a=1\n}\n")
    odd = subprocess.run([*argv, tmp_path], check=False, capture_output=True)
    assert odd.stdout.strip().endswith(b"odd.tf")


@pytest.mark.parametrize("module", SOURCES)
def test_every_variable_says_what_it_takes(module: str) -> None:
    """Each variable has a type, a description, and a check that answers in a sentence."""
    for each in parsed((MODULES / module / "variables.tf").read_text())["variable"]:
        for name, variable in each.items():
            assert {"type", "description"} <= set(variable), name
            checks = variable.get("validation", [])
            assert checks, name
            for checked in checks:
                assert checked["error_message"].rstrip('"').endswith("."), name


# What an expression can refer to.
REFERENCE = re.compile(
    r"\b(?:(?:var|local|path|data|module|terraform)\.\w+|(?:oci|cloudflare)_\w+\.\w+)"
)


@pytest.mark.parametrize("module", SOURCES)
def test_a_check_of_a_variable_is_about_it_alone(module: str) -> None:
    """Terraform before 1.9, and OpenTofu for longer, refuse the whole module otherwise."""
    for each in parsed((MODULES / module / "variables.tf").read_text())["variable"]:
        for name, variable in each.items():
            for checked in variable["validation"]:
                text = f"{checked['condition']} {checked['error_message']}"
                assert set(REFERENCE.findall(text)) <= {f"var.{name.strip(chr(34))}"}, name


@pytest.mark.parametrize("path", FILES, ids=lambda path: f"{path.parent.name}/{path.name}")
def test_every_odd_setting_says_why(path: Path) -> None:
    """What keeps Terraform from doing as it does otherwise has a comment above it."""
    lines = path.read_text().splitlines()
    for before, line in zip(["", *lines], lines, strict=False):
        if re.match(r"\s*(prevent_destroy|ignore_changes|depends_on)\b", line):
            assert before.lstrip().startswith("#"), line
