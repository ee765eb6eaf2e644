"""How findings are shown on a terminal."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from backup_mx.cli.terminal import say, screen
from backup_mx.relay.text import printable

if TYPE_CHECKING:
    from backup_mx.findings import Finding

_STYLES = {"pass": "green", "warn": "yellow", "fail": "bold red", "unknown": "magenta"}
_VERDICT = 8  # columns


def show_findings(findings: Sequence[Finding]) -> None:
    """Print each finding on a line, what to do below it, and the sum."""
    for each in findings:
        show_finding(each, f"{each.gate:21}", each.saw)
    failed = [each.gate for each in findings if each.verdict in ("fail", "unknown")]
    say(f"Not in order: {', '.join(failed)}." if failed else "All in order.")


def show_finding(finding: Finding, name: str, saw: str) -> None:
    """Print a verdict, the ``name`` as a column, what was seen, and what to do below that."""
    from rich.text import Text

    line = Text(f"{finding.verdict:{_VERDICT}}", _STYLES[finding.verdict])
    line.append(f"{name}{printable(saw)}", "")
    screen().print(line)
    if finding.do and finding.verdict != "pass":
        screen().print(Text(f"{'':{_VERDICT}}{'':{len(name)}}→ {printable(finding.do)}"))
