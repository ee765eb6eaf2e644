"""Where the report's curve puts its points: the geometry only, in parts of the plot. Pure.

The plot's two axes run from 0 to 100, x in seconds of the drill, y in messages with 0 at the
bottom; the template stretches that square to whatever width the page has.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Any

CURVES = {"sender_queue": "sender's queue", "queue": "relay's queue", "mailbox": "in mailboxes"}
UP = 5  # steps of the grid
ACROSS = 7
NEAR = 7.0  # per cent of the width; marks closer than that would cover one another


@dataclass(frozen=True)
class Tick:
    """A line of the grid: its place in per cent and its label."""

    at: float
    label: str


@dataclass(frozen=True)
class Curve:
    """One line: its SVG paths, a new one after each gap in which nobody could be asked."""

    key: str
    label: str
    peak: int
    lines: tuple[str, ...]
    areas: tuple[str, ...]


@dataclass(frozen=True)
class Mark:
    """A vertical line for an event: number from 1, place in per cent, row 0 or above."""

    number: int
    at: float
    row: int
    label: str
    seconds: float


@dataclass(frozen=True)
class Chart:
    """All that the template draws."""

    curves: tuple[Curve, ...]
    marks: tuple[Mark, ...]
    across: tuple[Tick, ...]
    up: tuple[Tick, ...]


def chart(samples: Sequence[Mapping[str, Any]], events: Sequence[Mapping[str, Any]]) -> Chart:
    """Lay out a report's samples and those of its events that carry a mark."""
    span = max([1.0, *(float(each["at"]) for each in (*samples, *events))])
    values = [each[key] for each in samples for key in CURVES if each[key] is not None]
    top = _nice_step(max([1, *values]) / UP) * UP
    return Chart(
        curves=tuple(_curve(key, samples, span, top) for key in CURVES),
        marks=_marks([each for each in events if each["mark"]], span),
        across=_ticks(span, _nice_step(span / ACROSS), _seconds),
        up=_ticks(top, top / UP, lambda value: f"{value:,.0f}"),
    )


def _curve(key: str, samples: Sequence[Mapping[str, Any]], span: float, top: float) -> Curve:
    runs = [
        [(100 * each["at"] / span, 100 - 100 * each[key] / top) for each in run]
        for known, run in groupby(samples, key=lambda each: each[key] is not None)
        if known
    ]
    lines = ["M" + " L".join(f"{x:.2f} {y:.2f}" for x, y in run) for run in runs]
    ends = [f" L{run[-1][0]:.2f} 100 L{run[0][0]:.2f} 100 Z" for run in runs]
    areas = [line + end for line, end in zip(lines, ends, strict=True)]
    peak = max((each[key] for each in samples if each[key] is not None), default=0)
    return Curve(key, CURVES[key], peak, tuple(lines), tuple(areas))


def _marks(events: Sequence[Mapping[str, Any]], span: float) -> tuple[Mark, ...]:
    """Give marks numbers and rows; one that would touch its neighbour goes a row up."""
    marks: list[Mark] = []
    ends: list[float] = []  # of each row: where its last mark stands
    for number, event in enumerate(events, start=1):
        at = 100 * event["at"] / span
        row = next((row for row, end in enumerate(ends) if at - end >= NEAR), len(ends))
        ends[row : row + 1] = [at]
        marks.append(Mark(number, round(at, 2), row, event["mark"], event["at"]))
    return tuple(marks)


def _ticks(span: float, step: float, label: Callable[[float], str]) -> tuple[Tick, ...]:
    count = math.floor(span / step + 1e-9)
    return tuple(Tick(round(100 * i * step / span, 2), label(i * step)) for i in range(count + 1))


def _nice_step(rough: float) -> float:
    """Return 1, 2 or 5 times a power of ten that is at least ``rough`` and 1."""
    rough = max(1.0, rough)
    power = 10 ** math.floor(math.log10(rough))
    return float(next(power * unit for unit in (1, 2, 5, 10) if power * unit >= rough))


def _seconds(value: float) -> str:
    minutes, seconds = divmod(round(value), 60)
    return f"{minutes}:{seconds:02d}" if minutes else f"{seconds} s"
