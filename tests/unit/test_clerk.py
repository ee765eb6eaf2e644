"""How a server's words are compared: strangers write some of them."""

from __future__ import annotations

import re
import time

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from backup_mx.relay.ledger import clerk


@pytest.mark.parametrize(
    ("words", "shape"),
    [
        ("450 4.2.1 try again in 299 s", "# #.#.# try again in # s"),
        ("queued as 4dDqXk0YqYz5N", "queued as #qXk#YqYz#N"),
        ("(id A1B2C3) deadbeef face0ff", "(id #) deadbeef #"),
        ("f00f00f, cafe, 7", "#, cafe, #"),
    ],
)
def test_words_are_alike_but_for_their_numbers(words: str, shape: str) -> None:
    """A run of hexadecimal digits counts as one if a decimal one is among them."""
    assert clerk._shape(words) == shape


@given(st.text("aF09gx. ", max_size=40))
@example("a" * 20 + "9" + "F" * 20)
def test_each_run_of_digits_is_replaced_as_a_whole(words: str) -> None:
    """However long: what is left has no decimal digit, and no letter of a run that had one."""
    runs = re.split(r"([0-9A-Fa-f]+)", words)
    assert clerk._shape(words) == "".join(
        "#" if re.search("[0-9]", each) else each for each in runs
    )


def test_what_a_stranger_writes_costs_no_time() -> None:
    """Long rows of letters are read once, not once for each letter."""
    began = time.process_time()
    assert clerk._shape("a" * 20_000) == "a" * 20_000
    assert time.process_time() - began < 2
