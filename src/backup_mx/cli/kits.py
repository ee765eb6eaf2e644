"""The verbs about what stands at the operator's: primary render and check, edge render."""

from __future__ import annotations

import contextlib
import shutil
import sys
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

import click

from backup_mx.cli.findings import show_findings
from backup_mx.cli.meant import meant
from backup_mx.cli.relays import host_of, load, relay_named
from backup_mx.cli.terminal import (
    CONFIG,
    IN_LAB,
    JSON,
    SSH_CONFIG,
    progress,
    say,
    say_json,
    write,
)

if TYPE_CHECKING:
    from backup_mx.config import Config
    from backup_mx.kit.files import KitFile


@click.group()
def primary() -> None:
    """Let a primary take the relays' mail: render its kit, check that it took effect."""


@click.group()
def edge() -> None:
    """Let the relays' mail through a router or proxy: render its kit."""


def primary_named(config: Config, name: str | None) -> str:
    """Return the primary that is meant: the named one, or the only one."""
    return meant("primary", name, config.primaries)


PRIMARY = click.argument("name", metavar="[PRIMARY]", required=False)
OUTPUT = click.option(
    "--output",
    "-o",
    type=click.Path(path_type=Path, file_okay=False),
    help="The folder to write to.  [default: build/primary/NAME or build/edge/KIND]",
)


@primary.command("render")
@PRIMARY
@CONFIG
@OUTPUT
@JSON
def render_primary(name: str | None, path: Path, output: Path | None, as_json: bool) -> None:
    """Write the files that let a primary take the relays' mail, with what goes where and why."""
    from backup_mx.kit import primary as kit

    config = load(path)
    chosen = primary_named(config, name)
    written(kit.render(config, chosen), output or Path("build/primary") / chosen, as_json)


@edge.command("render")
@click.argument("kind")
@CONFIG
@OUTPUT
@JSON
def render_edge(kind: str, path: Path, output: Path | None, as_json: bool) -> None:
    """Write what lets the relays' mail through: KIND is pfsense, haproxy or nftables."""
    from backup_mx.kit import edge as kit

    config = load(path)
    written(
        kit.render(config, meant("edge", kind, config.edges)),
        output or Path("build/edge") / kind,
        as_json,
    )


def written(files: Sequence[KitFile], folder: Path, as_json: bool) -> None:
    """Write a kit's files, in place of an earlier rendering's, and tell of it."""
    readme = next(file for file in files if file.path == "README.md")
    title = readme.content.splitlines()[0]
    with contextlib.suppress(OSError):
        if (folder / "README.md").read_bytes().splitlines()[:1] == [title]:
            for stale in destinations(files):
                shutil.rmtree(folder / stale, ignore_errors=True)
    paths = [str(write(folder / file.path, file.content, int(file.mode, 8))) for file in files]
    if as_json:
        say_json({"folder": str(folder), "files": paths})
        return
    for path in paths:
        say(path)
    say(f"{folder / 'README.md'} says what goes where, why, and how to undo it.")


def destinations(files: Sequence[KitFile]) -> set[Path]:
    """Return the folders called ``files`` in a kit: only there do the paths follow the config.

    They are the kit's alone; what else stands beside them, as in ``config``, may be the operator's.
    """
    folders = {parent for file in files for parent in Path(file.path).parents}
    return {each for each in folders if each.name == "files"}


@primary.command("check")
@PRIMARY
@CONFIG
@SSH_CONFIG
@IN_LAB
@click.option("--relay", help="The relay to ask from.  [default: the only one]")
@JSON
def check_primary(
    name: str | None,
    path: Path,
    ssh_config: Path | None,
    lab: str | None,
    relay: str | None,
    as_json: bool,
) -> None:
    """Ask from a relay, over the real drain path, whether each layer of the kit took effect.

    At most one message is delivered, to the operator: where the kit's rule for rspamd is not
    loaded, or some filter lets large mail past it. Fails when a layer did not take effect, or
    could not be asked.
    """
    from backup_mx.findings import passed
    from backup_mx.kit import check

    config = settings_of(path, lab)
    asked = config.relays[relay_named(config, relay)]
    meant = config.primaries[primary_named(config, name)]
    progress(f"asking {meant.drain_to} from {asked.hostname}; this takes about half a minute")
    host = host_of(asked.name, path, ssh_config, lab)
    findings = check.check(host, config, asked, meant)
    if as_json:
        say_json({"primary": meant.name, "findings": [asdict(each) for each in findings]})
    else:
        show_findings(findings)
    sys.exit(0 if passed(findings) else 1)


def settings_of(path: Path, lab: str | None) -> Config:
    """Return the config: the file's, or the one that a lab runs."""
    if lab is None:
        return load(path)
    from backup_mx.lab.world import attach

    return attach(lab).made_from
