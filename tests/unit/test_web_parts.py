"""How values are shown, and where the curve is drawn."""

from __future__ import annotations

import math
import re
import sys

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from backup_mx.relay.web import shown
from backup_mx.relay.web.chart import BUCKETS, HEIGHT, WIDTH, bands, curve, nice

START, END = 1_795_000_000.0, 1_795_086_400.0


@pytest.mark.parametrize(
    ("text", "seen"),
    [
        ("plain", "plain"),
        ("Grüße, 世界 🙂", "Grüße, 世界 🙂"),
        ("a\u00a0b", "a\u00a0b"),
        ("\u0645\u06cc\u200c\u062e", "\u0645\u06cc\u200c\u062e"),
        ("\u202egpj.exe", "⟨U+202E⟩gpj.exe"),
        ("a\u200bb\ufeff", "a⟨U+200B⟩b⟨U+FEFF⟩"),
        ("a\x00\x1b[2J\x7f\x85", "a⟨U+0000⟩⟨U+001B⟩[2J⟨U+007F⟩⟨U+0085⟩"),
        ("a\r\nb\tc", "a⟨U+000D⟩⟨U+000A⟩b⟨U+0009⟩c"),
        ("a\u2028b\U000e0041", "a⟨U+2028⟩b⟨U+E0041⟩"),
        ("\ud800", "⟨U+D800⟩"),
    ],
)
def test_what_cannot_be_seen_is_named(text: str, seen: str) -> None:
    """People's letters stay; what only a machine sees gets its number."""
    assert shown.visible(text) == seen


def test_lines_stay_lines() -> None:
    """Headers keep their lines and tabs; a lone carriage return is no line."""
    assert shown.visible_lines("a: b\r\n\tc\nd\re\x0b") == "a: b\n\tc\nd⟨U+000D⟩e⟨U+000B⟩"


@settings(deadline=None)
@given(st.text())
def test_nothing_invisible_is_left(text: str) -> None:
    """But spaces, and the joiners of some scripts; and it can be written as UTF-8."""
    seen = shown.visible(text)
    assert all(each.isprintable() or each in "\u200c\u200d" or each.isspace() for each in seen)
    assert not set(seen) & set("\r\n\t\x00\x1b\u202e\u2066\u2028")
    seen.encode()


@pytest.mark.parametrize("time", [-1e12, 0.0, START, 1e300])
def test_any_time_can_be_shown(time: float) -> None:
    """A clock that is wrong, or a number that is none, does not end the page."""
    assert shown.moment(time).endswith(" UTC")
    assert shown.machine_moment(time).endswith("Z")


@pytest.mark.parametrize(
    ("most", "top"), [(0, 2), (1, 2), (3, 4), (5, 10), (11, 20), (100, 200), (100_000, 200_000)]
)
def test_the_upper_end_is_a_round_number(most: int, top: int) -> None:
    """Half of it is a whole number, too: it stands at the middle line."""
    assert nice(most) == top


def test_a_short_peak_is_not_lost() -> None:
    """A bucket shows the most of its samples."""
    samples = [(START + 60 * minute, 1) for minute in range(1440)]
    samples[700] = (samples[700][0], 5000)
    assert curve(samples, START, END).most == 5000
    assert ",60.0" in curve(samples, START, END).lines[0]


def test_a_gap_is_a_gap() -> None:
    """Where the agent was not there, no line is drawn."""
    samples = [(START + 60 * minute, 1) for minute in range(1440) if not 500 < minute < 600]
    drawn = curve(samples, START, END)
    assert len(drawn.lines) == len(drawn.areas) == 2


def test_nothing_to_draw_is_drawn() -> None:
    """No sample, no line; the grid is there."""
    drawn = curve([], START, END)
    assert (drawn.lines, drawn.areas, drawn.most) == ((), (), 0)
    assert [tick.label for tick in drawn.down] == ["0", "1", "2"]
    assert len(drawn.across) == 4


SAMPLES = st.lists(
    st.tuples(st.floats(START - 9e4, END + 9e4), st.integers(0, 10**9)), max_size=300
)


@settings(deadline=None)
@given(SAMPLES)
def test_the_curve_stays_in_its_picture(samples: list[tuple[float, int]]) -> None:
    """Whatever was sampled, every point is a number, within the width and the height."""
    drawn = curve(samples, START, END)
    for path in (*drawn.lines, *drawn.areas):
        points = [tuple(map(float, each.split(","))) for each in re.split("[MLZ]", path) if each]
        assert len(points) >= 2
        assert all(0 <= x <= WIDTH and 0 <= y <= HEIGHT for x, y in points)
    assert sum(path.count(",") for path in drawn.lines) <= 2 * BUCKETS


def test_bands_fill_the_time_they_know() -> None:
    """A state lasts until the next one; what was before the picture is cut off."""
    found = bands([(START - 900, "up"), (START + 43_200, "down"), (END - 1, "up")], START, END)
    assert [(each.x, each.state) for each in found] == [(0, "up"), (300, "down"), (600, "up")]
    assert [each.width for each in found] == [300, 300, 1]
    assert bands([], START, END) == ()


@settings(deadline=None)
@given(st.integers(0, sys.maxsize))
def test_counts_read_back(number: int) -> None:
    """Commas are all that is added."""
    assert int(shown.count(number).replace(",", "")) == number
    assert nice(min(number, 10**15)) >= min(number, 10**15)
    assert math.isfinite(nice(min(number, 10**15)))
