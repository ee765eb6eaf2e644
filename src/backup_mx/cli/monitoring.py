"""The verbs about alarms: monitoring render, explain."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

import click

from backup_mx.cli.relays import load
from backup_mx.cli.terminal import CONFIG, JSON, say, say_json, write

if TYPE_CHECKING:
    from backup_mx.monitoring.runbook import Page


@click.group()
def monitoring() -> None:
    """Have a Prometheus of yours watch the relays."""


@monitoring.command("render")
@CONFIG
@click.option(
    "--output",
    "-o",
    type=click.Path(path_type=Path, file_okay=False),
    default=Path("build/monitoring"),
    show_default=True,
    help="The folder to write to.",
)
@JSON
def render_monitoring(path: Path, output: Path, as_json: bool) -> None:
    """Write scrape configs, blackbox modules, alert rules, a dashboard, an Alertmanager example."""
    from backup_mx.monitoring import render

    files = render.render(load(path))
    # Whoever runs Prometheus has to read them, and there is no secret in them.
    paths = [str(write(output / file.path, file.content, 0o644)) for file in files]
    if as_json:
        say_json({"folder": str(output), "files": paths})
        return
    for written in paths:
        say(written)
    say(f"{output / 'README.md'} says what goes where.")


@click.command()
@click.argument("alarm", required=False)
@JSON
def explain(alarm: str | None, as_json: bool) -> None:
    """Say what an ALARM means and what to do about it; without one, list them all.

    ALARM is a name such as BackupMxMailHeld, or what a relay's own notice is about, such as held.
    """
    from backup_mx.monitoring import runbook

    known = runbook.pages()
    try:
        found = runbook.find(known, alarm) if alarm else list(known.values())
    except LookupError as error:
        raise click.UsageError(str(error)) from None
    if as_json:
        say_json([asdict(each) for each in found])
        return
    for page in found:
        show(page, whole=alarm is not None)


def show(page: Page, *, whole: bool) -> None:
    """Print a page, or what it is about in one line."""
    if not whole:
        say(f"{page.alarm:30}{page.about}")
        return
    say(page.alarm)
    say()
    for line in page.text.splitlines():
        say(line)
    say()
