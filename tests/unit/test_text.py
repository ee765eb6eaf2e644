"""How a relay writes its answers."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from backup_mx.relay import text
from backup_mx.relay.text import Column

COLUMNS = (
    Column("ID"),
    Column("size", right=True),
    Column("to", least=6, share=1),
    Column("why", least=8, share=2),
)


@pytest.mark.parametrize(
    ("given", "expected"),
    [("0s", 0), ("90s", 90), ("20min", 1200), ("20m", 1200), ("4h", 14_400), ("30 D", 2_592_000)],
)
def test_durations_are_read(given: str, expected: int) -> None:
    """As people write them."""
    assert text.seconds(given) == expected


@pytest.mark.parametrize("given", ["", "h", "4", "90 ", "4 years", "-1h", "1.5h", "٤h", "9" * 30])
def test_what_is_no_duration(given: str) -> None:
    """Anything else is refused in words."""
    with pytest.raises(ValueError, match="is no duration"):
        text.seconds(given)


@pytest.mark.parametrize(
    ("seconds", "expected"),
    [(0, "0 s"), (59.6, "1 min"), (61, "1 min 1 s"), (90, "1 min 30 s"), (3599, "59 min 59 s"),
     (3600, "1 h"), (3601, "1 h"), (5400, "1 h 30 min"), (36 * 3600, "1 d 12 h"),
     (47 * 3600, "1 d 23 h"), (86_460, "1 d"), (864_000, "10 d"),
     (-5, "0 s"), (float("inf"), "11574074 d 1 h"), (float("nan"), "0 s")],
)  # fmt: skip
def test_durations_are_written(seconds: float, expected: str) -> None:
    """By their two largest units, neither of them zero: what is left out is a 24th at most."""
    assert text.span(seconds) == expected


@pytest.mark.parametrize(
    ("octets", "expected"), [(0, "0 B"), (1023, "1023 B"), (2048, "2 KiB"), (3 * 2**30, "3.0 GiB")]
)
def test_sizes_are_written(octets: int, expected: str) -> None:
    """In the largest unit that fits."""
    assert text.size(octets) == expected


@pytest.mark.parametrize(
    ("time", "expected"),
    [
        (0, "1970-01-01 00:00 UTC"),
        (1_700_000_000.5, "2023-11-14 22:13 UTC"),
        *((odd, "at a time that no calendar has")
          for odd in (1e12, -1e12, 1e300, float("inf"), float("nan"), 10**400)),
    ],
)  # fmt: skip
def test_moments_are_written(time: float, expected: str) -> None:
    """Any number is one, also where it is no year of ours."""
    assert text.moment(time) == expected


def test_what_steers_a_terminal_is_replaced() -> None:
    """In words of one line, and in those of several, of which the line breaks stay."""
    assert text.printable("a\x1b[2J\nb\x9b") == "a�[2J�b�"
    assert text.lines("für\t例え\r\n\x1b]0;x\x07") == "für     例え�\n�]0;x�"


def test_wide_characters_count_twice() -> None:
    """A cut text fits, whatever script it is in."""
    assert text.width("例え") == 4
    assert text.cut("例えばなし", 6) == "例え…"
    assert text.cut("short", 5) == "short"
    assert [text.cut("short", room) for room in (4, 1, 0)] == ["sho…", "…", ""]


@given(
    st.lists(st.tuples(*[st.text(max_size=60)] * 4), max_size=5),
    st.none() | st.integers(40, 200),
)
def test_no_line_is_wider_than_the_screen(rows: list[tuple[str, ...]], room: int | None) -> None:
    """Whatever is shown, it is printable, each row is a line, and it fits."""
    short = [(row[0][:8], row[1][:6], *row[2:]) for row in rows]
    shown = text.table(COLUMNS, short, room)
    assert len(shown) == len(rows) + 1
    assert all(line.isprintable() for line in shown)
    if room is not None:
        assert max(map(text.width, shown)) <= room


def test_room_is_used() -> None:
    """Where there is enough, nothing is cut; a narrow screen cuts what can be cut."""
    row = (
        "4jXLkx0p7MzJ0mR",
        "2 KiB",
        "alice@example.org",
        "connect to mail.example.org: timed out",
    )
    assert text.table(COLUMNS, [row], None)[1] == "  ".join(row)
    assert text.table(COLUMNS, [row], 90)[1] == "  ".join(row)
    narrow = text.table(COLUMNS, [row], 60)[1]
    assert narrow.startswith("4jXLkx0p7MzJ0mR  2 KiB  alice@")
    assert narrow.count("…") == 2
