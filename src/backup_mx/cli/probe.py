"""The verb that goes on looking: probe run, roundtrip, serve, list."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from backup_mx.cli.findings import show_findings
from backup_mx.cli.meant import meant
from backup_mx.cli.relays import BUILT, load
from backup_mx.cli.terminal import CONFIG, JSON, progress, say, say_json, seconds

if TYPE_CHECKING:
    from backup_mx.config import Config
    from backup_mx.probe.probe import Reading, Scene


@click.group()
def probe() -> None:
    """Look at what is published, as a stranger sees it: once, or again and again."""


@probe.command("list")
@CONFIG
@JSON
def list_probes(path: Path, as_json: bool) -> None:
    """List the probes, and what each of them looks at with this config."""
    from backup_mx.probe.table import PROBES

    config = load(path)
    rows = [
        {
            "probe": each.name,
            "summary": each.summary,
            "targets": [target.name for target in each.targets(config)],
            "left_out": list(each.left_out(config)),
        }
        for each in PROBES.values()
    ]
    if as_json:
        say_json(rows)
        return
    for row in rows:
        say(f"{row['probe']:12}  {row['summary']}: {', '.join(row['targets']) or 'nothing'}")
        for why in row["left_out"]:
            say(f"{'':12}  left out: {why}")


@probe.command("run")
@click.argument("names", metavar="[NAME]...", nargs=-1)
@CONFIG
@JSON
def run_probes(names: Sequence[str], path: Path, as_json: bool) -> None:
    """Look once, and say what was seen. Fails when something is not in order, or not known.

    Without names it looks at everything but the round trip, which takes minutes.
    """
    from backup_mx.findings import passed
    from backup_mx.probe import table

    wanted = [meant("probe", name, table.PROBES, "there are") for name in names]
    readings = list(table.run(_scene(load(path)), wanted))
    if as_json:
        say_json([_as_json(each) for each in readings])
    else:
        show_findings([each.finding for each in readings])
    sys.exit(0 if passed(each.finding for each in readings) else 1)


def _scene(config: Config) -> Scene:
    """Return what there is to look at, from where [gates] outside says."""
    from backup_mx.gates.views import Command
    from backup_mx.probe.probe import Scene

    words = config.gates.outside
    return Scene(config, outside=Command(words) if words else None)


def _as_json(reading: Reading) -> dict[str, Any]:
    return {
        "probe": reading.probe,
        "target": reading.target.name,
        "relay": reading.target.relay,
        "began": reading.began,
        "seconds": round(reading.seconds, 2),
        "certificate_expires": reading.seen.expires or None,
        **{key: value for key, value in asdict(reading.finding).items() if key != "gate"},
    }


@probe.command("roundtrip")
@CONFIG
@click.option(
    "--patience",
    callback=seconds,
    metavar="TIME",
    help="How long to look for the message (10min).  [default: the config's]",
)
@JSON
def roundtrip(path: Path, patience: int | None, as_json: bool) -> None:
    """Send a message the whole way: it came direct, by the relay and how late, or is lost.

    It goes through the account of [roundtrip] and is looked for in its mailbox, where it is deleted
    again. One that is not there in time is looked for on the relays, over SSH. Fails when it is
    lost, or when nobody can tell.
    """
    from backup_mx.findings import passed
    from backup_mx.probe import roundtrip as trips
    from backup_mx.probe.keeper import Answer

    config = load(path)
    if config.roundtrip is None:
        raise click.UsageError(trips.MISSING)
    ended = trips.once(config, progress, patience)
    waited = config.roundtrip.patience if patience is None else patience
    finding = trips.judged(ended, waited)
    if as_json:
        say_json(
            {
                "way": ended.way,
                "relay": (ended.trip or ended.relays or Answer()).relay,
                "seconds": round(ended.trip.seconds, 1) if ended.trip else None,
                "waited_on_relay": round(ended.trip.waited, 1) if ended.trip else None,
                "message_id": ended.sent.message_id,
                "sent": ended.sent.at,
                "verdict": finding.verdict,
                "saw": finding.saw,
                "do": finding.do,
            }
        )
    else:
        show_findings([finding])
    sys.exit(0 if passed([finding]) else 1)


@probe.command("serve")
@CONFIG
def serve(path: Path) -> None:
    """Look again and again, and tell Prometheus, at [monitoring] probe_at, until interrupted.

    What the gates found last, in build/evidence.json, is told as well.
    """
    from backup_mx.machine.terraform import EVIDENCE
    from backup_mx.probe import exporter, rota

    config = load(path)
    with rota.looking(_scene(config)) as board:
        place = config.monitoring.probe_at
        with exporter.server(place, board, BUILT / EVIDENCE) as server:
            say(f"http://{place}/metrics")
            with contextlib.suppress(KeyboardInterrupt):  # that is how it ends
                server.serve_forever()
