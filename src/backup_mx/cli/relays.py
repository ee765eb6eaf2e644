"""The verbs that make relays: build, deploy; and which relay is meant."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from backup_mx.cli.meant import meant
from backup_mx.cli.terminal import CONFIG, JSON, RELAY, SSH_CONFIG, progress, say, say_json, write

if TYPE_CHECKING:
    from backup_mx.config import Config
    from backup_mx.evidence import Record
    from backup_mx.machine.ship import Host


BUILT = Path("build")
"""Where `build` writes, and what is kept of a relay: what the gates found, what it was before."""


def load(path: Path) -> Config:
    """Read the config file."""
    from backup_mx import config

    return config.load(path)


def relay_named(config: Config, name: str | None) -> str:
    """Return the relay that is meant: the named one, or the only one."""
    return meant("relay", name, config.relays)


@click.command()
@click.argument("relays", metavar="[RELAY]...", nargs=-1)
@CONFIG
@click.option(
    "--output",
    "-o",
    type=click.Path(path_type=Path, file_okay=False),
    default=BUILT,
    show_default=True,
    help="The folder to write to.",
)
@JSON
def build(relays: Sequence[str], path: Path, output: Path, as_json: bool) -> None:
    """Write relay.pyz and user-data of each relay (default: of all), and what Terraform reads."""
    from backup_mx.machine import cloudinit

    config = load(path)
    wanted = [relay_named(config, relay) for relay in relays] or list(config.relays)
    built = [written(config, name, output) for name in wanted]
    terraform = terraform_inputs(config, output, built)
    if as_json:
        say_json({"relays": built, "terraform": terraform})
        return
    for each in built:
        say(f"{each['relay']}: version {str(each['version'])[:12]}")
        say(f"  {each['bundle']}  for a machine that runs: backup-mx deploy, or python3 relay.pyz")
        say(
            f"  {each['user_data']}  for a new machine: {each['user_data_base64_bytes']:,} bytes"
            f" as base64, at most {cloudinit.LIMIT:,}"
        )
    for file in terraform:
        say(f"{file}  for Terraform, in its folder")


def written(config: Config, name: str, output: Path, *, again: bool = False) -> dict[str, Any]:
    """Write a relay's relay.pyz and user-data below ``output``; return where, and their size.

    ``again``: the user-data is for a machine whose volume is there already.
    """
    from backup_mx.machine import bundle, cloudinit

    archive = bundle.bundle(config, name)
    data = cloudinit.user_data(config, name, again=again)
    return {
        "relay": name,
        "version": bundle.version(archive),
        "bundle": str(write(output / name / "relay.pyz", archive)),
        "user_data": str(write(output / name / "user-data", data)),
        "user_data_base64_bytes": cloudinit.size(data),
    }


def terraform_inputs(config: Config, output: Path, built: Sequence[Mapping[str, Any]]) -> list[str]:
    """Write what Terraform reads, where the config has it make something; return the files.

    It names every relay of the config, whichever were built: one left out would be destroyed.
    """
    if not (config.cloud.oci or config.dns.cloudflare):
        return []
    from backup_mx.machine import bundle, terraform

    known = {each["relay"]: each["version"] for each in built}
    versions = {
        name: known.get(name) or bundle.version(bundle.bundle(config, name))
        for name in config.relays
    }
    files = terraform.inputs(config, output, versions, _required() if config.dns.cloudflare else {})
    return [str(write(path, text.encode())) for path, text in files]


def _required() -> Mapping[str, tuple[Record, ...]]:
    """Return the gates by which a record waits: to import them all takes as long as a build."""
    from backup_mx.gates.all import REQUIRED

    return REQUIRED


@click.command()
@RELAY
@CONFIG
@SSH_CONFIG
@click.option("--diff", is_flag=True, help="Show what would change; change nothing.")
@JSON
def deploy(
    relay: str | None, path: Path, ssh_config: Path | None, diff: bool, as_json: bool
) -> None:
    """Make a running Debian or Ubuntu machine the relay, over SSH. What fails is undone."""
    from backup_mx.machine import bundle, ship, tailnet

    config = load(path)
    name = relay_named(config, relay)
    archive = bundle.bundle(config, name)
    lines: list[str] = []
    host = ship.SshHost(config.relays[name].ssh, ssh_config)

    def heard(line: str) -> None:
        lines.append(line)
        progress(line)

    tell = heard if as_json else say
    ship.deploy(host, archive, tell, diff=diff)
    if not diff:
        tailnet.join(host, config, name, tell)
    if as_json:
        say_json({"relay": name, "version": bundle.version(archive), "said": lines})


def host_of(relay: str | None, path: Path, ssh_config: Path | None, lab: str | None) -> Host:
    """Return the machine that runs a relay: by SSH, or in a lab."""
    from backup_mx.machine.ship import SshHost

    if lab is None:
        config = load(path)
        return SshHost(config.relays[relay_named(config, relay)].ssh, ssh_config)
    from backup_mx.lab.stations import LabHost
    from backup_mx.lab.world import attach

    return LabHost(attach(lab).machine(relay or "mx2"))
