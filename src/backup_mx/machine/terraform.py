"""Config to what Terraform reads: one JSON file for each module, in the folder where it runs.

There is nothing secret in them. What a machine boots from stays a file, whose path they name.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from backup_mx import evidence
from backup_mx.config import Config
from backup_mx.config.known import is_example, zone_of
from backup_mx.config.options import Relay
from backup_mx.config.options_cloud import Cloudflare, Oci
from backup_mx.config.values import Network
from backup_mx.evidence import Record
from backup_mx.machine.tool import tool
from backup_mx.mta_sts.policy import hosted

# Terraform reads *.auto.tfvars.json by itself, so an operator's own terraform.tfvars stays theirs.
VARIABLES = "backup-mx.auto.tfvars.json"
# What the gates found, beside what was built.
EVIDENCE = "evidence.json"


def inputs(
    config: Config,
    output: Path,
    versions: Mapping[str, str],
    gates: Mapping[str, tuple[Record, ...]],
) -> Iterator[tuple[Path, str]]:
    """Yield the files that Terraform reads: path and content; none without a cloud.

    output is the folder with each relay's user-data, versions the version of each relay's bundle;
    gates are all that there are, with the records that are not published without them.
    """
    if oci := config.cloud.oci:
        folder = config.folder / oci.folder
        yield folder / VARIABLES, written(oci_variables(config, oci, folder, output))
    if cloudflare := config.dns.cloudflare:
        folder = config.folder / cloudflare.folder
        variables = cloudflare_variables(config, cloudflare, versions)
        proven = os.path.relpath(output / EVIDENCE, folder)
        yield folder / VARIABLES, written({**variables, "evidence": proven, "gates": gates})


def written(variables: Mapping[str, Any]) -> str:
    """Return Terraform's variables as JSON: same variables, same text."""
    return json.dumps(variables, indent=2, sort_keys=True) + "\n"


def oci_variables(config: Config, oci: Oci, folder: Path, output: Path) -> dict[str, Any]:
    """Return the variables of `terraform/oci`, whose variables.tf says what each is.

    Paths count from ``folder``, where Terraform runs.
    """
    access = config.access
    return {
        "tenancy": oci.tenancy,
        "compartment": oci.compartment,
        "region": oci.region,
        "profile": oci.profile,
        "availability_domain": oci.availability_domain,
        "shape": oci.shape,
        "boot_volume_gb": oci.boot_volume_size,
        "may_cost": oci.may_cost,
        "network": str(oci.network),
        "acme": config.tls.acme,
        "mta_sts": any(hosted(config, name) for name in oci.relays),
        "ssh_from": _ipv4(access.ssh_from),
        "metrics_from": _ipv4(access.metrics_from),
        "dashboard_from": _ipv4(access.dashboard_from),
        "ssh_keys": list(access.ssh_keys),
        "console_key": oci.console_key,
        "budget_mail": oci.budget_mail,
        "relays": {
            name: _machine(config.relays[name], oci, os.path.relpath(output / name, folder))
            for name in oci.relays
        },
    }


def _machine(relay: Relay, oci: Oci, built: str) -> dict[str, Any]:
    """Return what Terraform is told of a relay.

    Oracle chooses the address when it is reserved, so a first run reserves it, and a second one,
    with the address in the config and so in the user-data, makes the machine.
    """
    known = not is_example(relay.address)
    return {
        "hostname": relay.hostname,
        "address": str(relay.address) if known else None,
        "user_data": f"{built}/user-data" if known else None,
        "volume_gb": oci.volume_size if relay.volume else None,
        "ssh_port": relay.ssh.port,
    }


def _ipv4(networks: tuple[Network, ...]) -> list[str]:
    """Return the networks that Oracle's rules can name here: the machines have IPv4 only."""
    return [str(network) for network in networks if network.version == 4]


def cloudflare_variables(
    config: Config, cloudflare: Cloudflare, versions: Mapping[str, str]
) -> dict[str, Any]:
    """Return the variables of `terraform/cloudflare`, but for those about the evidence's gates.

    Names outside its zones are left to whoever publishes them.
    """
    zones = cloudflare.zones
    domains = config.domains if cloudflare.publish == "mx" else ()
    return {
        "config": evidence.config_hash(config),
        "tool": tool(),
        "zones": {
            zone: {"id": number, "record_limit": cloudflare.record_limit}
            for zone, number in zones.items()
        },
        "relays": {
            name: {
                "hostname": relay.hostname,
                "zone": zone_of(relay.hostname, zones),
                "address": str(relay.address),
                "version": versions[name],
                "preference": relay.preference,
                "domains": {
                    domain.lower(): zone for domain in domains if (zone := zone_of(domain, zones))
                },
            }
            for name, relay in config.relays.items()
            if not is_example(relay.address)
        },
    }
