"""A drill's report: one JSON document, and one HTML page made from nothing but it."""

from __future__ import annotations

import importlib.resources
import json
import os
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import jinja2

from backup_mx import __version__
from backup_mx.errors import LabError
from backup_mx.lab.chart import chart
from backup_mx.lab.reconcile import Copy, Reconciliation
from backup_mx.lab.timeline import Timeline

# What the page says of each count: field of the report, words, and whether it must be zero.
COUNTS = (
    ("sent", "sent", False),
    ("accepted", "accepted", False),
    ("delivered", "delivered", False),
    ("lost", "lost", True),
    ("duplicated", "duplicated", True),
    ("altered", "altered", True),
    ("dkim_failed", "DKIM failed", True),
    ("dsn", "bounces", True),
)
# How many reasons the summary of a failed drill names.
REASONS = 5
# What the page says of each list of Message-IDs under "problems".
PROBLEMS = {
    "unaccepted": "never accepted by any MTA",
    "missing": "accepted, but missing from a mailbox",
    "extra": "delivered once too often",
    "excused": "delivered again after a power cut ate the answer, as SMTP demands",
    "changed": "altered on the way",
    "unverified": "signed, but the signature does not verify",
    "bounces": "bounced: a DSN lies in a mailbox",
    "unexpected": "in a mailbox, though nobody sent it there",
}


def report_json(
    drill: str,
    result: Reconciliation,
    timeline: Timeline,
    *,
    started: str,
    figures: Mapping[str, float],
    failures: Sequence[str] = (),
    rows: Sequence[Mapping[str, Any]] = (),
    stages: Sequence[Mapping[str, Any]] = (),
) -> dict[str, Any]:
    """Return the report of one drill, ready for ``json.dumps``.

    ``started`` is a date and time as people read it, ``figures`` whatever else was measured (each
    name with its unit, "relay booted, s"), ``failures`` what the drill itself found wrong: any
    fails the verdict, beside the reasons of the reconciliation. ``rows`` are those of the drill
    "senders" (parity.straight_row), ``stages`` those of "refusal".
    """
    reasons = [*result.reasons, *failures]
    counts = {name: getattr(result, name) for name, _, _ in COUNTS}
    return {
        "drill": drill,
        "verdict": "fail" if reasons else "pass",
        "reasons": reasons,
        **counts,
        "problems": {
            name: [_named(each) for each in getattr(result, name)]
            for name in PROBLEMS
            if getattr(result, name)
        },
        "kinds": [asdict(kind) for kind in result.kinds],
        **timeline.to_json(),
        "figures": dict(figures),
        "rows": [dict(row) for row in rows],
        "stages": [dict(stage) for stage in stages],
        "started": started,
        "seconds": timeline.elapsed(),
        "version": __version__,
    }


def report_html(report: Mapping[str, Any]) -> str:
    """Return the page that shows ``report`` (of ``report_json``): self-contained, no script."""
    source = importlib.resources.files("backup_mx.lab") / "report.html.j2"
    environment = jinja2.Environment(
        autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    environment.filters["octets"] = octets
    template = environment.from_string(source.read_text(encoding="utf-8"))
    return template.render(
        report=report,
        summary=summary(report),
        counts=COUNTS,
        problems=PROBLEMS,
        chart=chart(report["samples"], report["timeline"]),
    )


def summary(report: Mapping[str, Any]) -> str:
    """Say the verdict in plain words, one sentence or two."""
    if report["verdict"] != "pass":
        told, more = report["reasons"][:REASONS], len(report["reasons"]) - REASONS
        rest = f"; and {more} more reasons" if more > 0 else ""
        return f"The promise was not kept: {'; '.join(told)}{rest}."
    again = report["duplicated"]
    twice = f"{again} came again because a power cut ate the answer" if again else "none came twice"
    return (
        f"All {report['sent']:,} messages reached every recipient, byte for byte. "
        f"None was lost, none bounced, {twice}."
    )


def octets(count: float) -> str:
    """Return a size as people read it: ``932 B``, ``1.5 MB`` (powers of ten)."""
    size = float(count)
    for unit in ("B", "kB", "MB"):
        if size < 1000:
            return f"{size:.0f} {unit}" if unit == "B" else f"{size:.1f} {unit}"
        size /= 1000
    return f"{size:.1f} GB"


def ready_for(folder: Path) -> Path:
    """Return ``folder``, made and written to once: a drill's result is not to be lost at its end.

    Raises LabError when it cannot be written.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            return folder
    except OSError as error:
        raise LabError(f"cannot write the report to {folder}: {error.strerror}") from error


def write_report(report: Mapping[str, Any], folder: Path) -> tuple[Path, Path]:
    """Write report.json and report.html into ``folder``; return their paths.

    Each file appears whole or not at all. Raises LabError when the folder (see ready_for) cannot be
    written.
    """
    texts = {"report.json": json.dumps(report, indent=2), "report.html": report_html(report)}
    try:
        written = [_replace(folder / name, text) for name, text in texts.items()]
    except OSError as error:
        raise LabError(f"cannot write the report to {folder}: {error.strerror}") from error
    return written[0], written[1]


def _replace(path: Path, text: str) -> Path:
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(handle, "w", encoding="utf-8") as file:
            file.write(text)
        Path(name).chmod(0o644)
        return Path(name).replace(path)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise


def _named(each: str | Copy) -> dict[str, str]:
    if isinstance(each, Copy):
        return {"message_id": each.message_id, "recipient": each.recipient}
    return {"message_id": each, "recipient": ""}
