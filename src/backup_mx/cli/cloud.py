"""The verb about the account that the machines stand in: cloud check."""

from __future__ import annotations

import sys
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

import click

from backup_mx.cli.findings import show_findings
from backup_mx.cli.relays import load
from backup_mx.cli.terminal import CONFIG, JSON, progress, say_json

if TYPE_CHECKING:
    from backup_mx.config import Config


@click.group()
def cloud() -> None:
    """Look at the cloud account that the relays stand in."""


@cloud.command("check")
@CONFIG
@click.option(
    "--profile", help="The section of ~/.oci/config.  [default: the config's, or DEFAULT]"
)
@JSON
def check_cloud(path: Path, profile: str | None, as_json: bool) -> None:
    """Ask Oracle what the account gives, and whether it may stop a machine for being idle.

    Nothing is changed. Works before there is a config, too: it tells what to write into one. Fails
    when something is not in order, or could not be asked.
    """
    from backup_mx.cloud.check import check
    from backup_mx.cloud.oracle import Account
    from backup_mx.cloud.wanted import Wanted, wanted_by
    from backup_mx.findings import passed

    config = config_if_any(path)
    wanted = wanted_by(config) if config else Wanted()
    account = Account(profile or wanted.profile)
    findings = check(account, wanted, progress)
    if as_json:
        found = [asdict(each) for each in findings]
        say_json({"tenancy": account.tenancy, "findings": found})
    else:
        show_findings(findings)
    sys.exit(0 if passed(findings) else 1)


def config_if_any(path: Path) -> Config | None:
    """Return the config; None if none was named and none is there."""
    source = click.get_current_context().get_parameter_source("path")
    unnamed = source is click.core.ParameterSource.DEFAULT
    return None if unnamed and not path.exists() else load(path)
