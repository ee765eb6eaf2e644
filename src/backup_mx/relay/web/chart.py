"""The queue's curve and the primary's states, as the numbers of an SVG. Pure.

The template draws; here is decided where. Coordinates are the SVG's own: x 0 to WIDTH for the
span of time, y HEIGHT to 0 for 0 to top messages.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from backup_mx.relay.web.shown import count, short_moment

WIDTH, HEIGHT = 600.0, 120.0
BUCKETS = 200


@dataclass(frozen=True)
class Tick:
    """A line of the grid: where it is (x or y), and what stands at it."""

    at: float
    label: str


@dataclass(frozen=True)
class Band:
    """A stretch of time in which a primary was in one state."""

    x: float
    width: float
    state: str
    words: str


@dataclass(frozen=True)
class Curve:
    """A drawn curve; lines and areas are SVG paths, one for each stretch without a gap."""

    lines: tuple[str, ...]
    areas: tuple[str, ...]
    across: tuple[Tick, ...]
    down: tuple[Tick, ...]
    most: int
    """The most messages at any moment drawn."""


def curve(samples: Iterable[tuple[float, int]], start: float, end: float) -> Curve:
    """Draw samples (when, how many messages) between two moments.

    A bucket shows the most that was seen in it, so that a short peak is not lost; two buckets
    without a sample are a gap: the agent was not there, and a line would be a guess.
    """
    buckets = _buckets(samples, start, end)
    most = max((each for each in buckets if each is not None), default=0)
    top = nice(most)
    stretches = list(_stretches(buckets))
    lines = tuple(_line(stretch, top) for stretch in stretches)
    areas = tuple(
        f"{line}L{_x(stretch[-1][0]):.1f},{HEIGHT:g}L{_x(stretch[0][0]):.1f},{HEIGHT:g}Z"
        for line, stretch in zip(lines, stretches, strict=True)
    )
    down = tuple(Tick(HEIGHT * (1 - part), count(round(top * part))) for part in (0, 0.5, 1))
    return Curve(lines, areas, _across(start, end), down, most)


def nice(most: int) -> int:
    """Return the least of 2, 4, 10, 20, 40, 100, … that is not less: the curve's upper end."""
    power = int(10 ** math.floor(math.log10(max(1, most))))
    return next(each for each in (2 * power, 4 * power, 10 * power, 20 * power) if each >= most)


def bands(states: Sequence[tuple[float, str]], start: float, end: float) -> tuple[Band, ...]:
    """Draw a primary's states (since when, which) in the order of time; the last one goes on."""
    found = []
    ends = [*(since for since, _ in states[1:]), end][: len(states)]
    for (since, state), until in zip(states, ends, strict=True):
        left, right = max(since, start), min(until, end)
        if right > left:
            x = WIDTH * (left - start) / (end - start)
            width = WIDTH * (right - left) / (end - start)
            words = f"{state}: {short_moment(left)} to {short_moment(right)} UTC"
            found.append(Band(round(x, 1), round(max(width, 1.0), 1), state, words))
    return tuple(found)


def _buckets(samples: Iterable[tuple[float, int]], start: float, end: float) -> list[int | None]:
    buckets: list[int | None] = [None] * BUCKETS
    for when, messages in samples:
        if start <= when <= end:
            at = min(BUCKETS - 1, int(BUCKETS * (when - start) / (end - start)))
            buckets[at] = max(messages, buckets[at] or 0)
    return buckets


def _stretches(buckets: Sequence[int | None]) -> Iterable[list[tuple[int, int]]]:
    stretch: list[tuple[int, int]] = []
    for at, messages in enumerate(buckets):
        if messages is None:
            continue
        if stretch and at - stretch[-1][0] > 2:
            yield stretch
            stretch = []
        stretch.append((at, messages))
    if stretch:
        yield stretch


def _x(bucket: int) -> float:
    return WIDTH * bucket / (BUCKETS - 1)


def _line(stretch: Sequence[tuple[int, int]], top: int) -> str:
    points = [f"{_x(at):.1f},{HEIGHT * (1 - messages / top):.1f}" for at, messages in stretch]
    return "M" + "L".join(points if len(points) > 1 else points * 2)


def _across(start: float, end: float) -> tuple[Tick, ...]:
    days = (end - start) / 86_400
    step = 6 * 3600 if days <= 2 else 7 * 86_400
    first = math.ceil(start / step) * step
    times = range(first, int(end) + 1, step)
    return tuple(Tick(WIDTH * (time - start) / (end - start), _when(time, days)) for time in times)


def _when(time: float, days: float) -> str:
    day, clock = short_moment(time).rsplit(" ", 1)
    return clock if days <= 2 else day
