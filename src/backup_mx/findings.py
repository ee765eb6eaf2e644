"""Findings: what a check saw of the live world, what that means, and what to do about it."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

Verdict = Literal["pass", "warn", "fail", "unknown"]


@dataclass(frozen=True)
class Finding:
    """One thing that was looked at.

    gate names it, saw tells what was there in words, do what helps ("" when nothing needs doing).
    unknown is what could not be looked at: it is never a pass.
    """

    gate: str
    verdict: Verdict
    saw: str
    do: str = ""


_WORST: tuple[Verdict, ...] = ("pass", "warn", "unknown", "fail")


def worst(findings: Iterable[Finding]) -> Verdict:
    """Return the worst verdict of them: a failure is worse than what is not known."""
    return max((each.verdict for each in findings), key=_WORST.index, default="unknown")


def passed(findings: Iterable[Finding]) -> bool:
    """Tell whether nothing failed and nothing is unknown."""
    return all(finding.verdict in ("pass", "warn") for finding in findings)
