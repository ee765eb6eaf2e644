"""The files of a relay, whole, as they would be on it: a change to them shows in a review."""

from __future__ import annotations

import difflib

import pytest
from regenerate import CONFIGS, rendered, stored

STALE = "the golden files do not follow the code: look at the change, then run `make generated`"


@pytest.mark.parametrize("name", CONFIGS)
def test_a_relay_has_the_files_that_were_reviewed(name: str) -> None:
    """A config renders to exactly the files that are stored for it."""
    expected, actual = stored(name), rendered(name)
    assert sorted(actual) == sorted(expected), STALE
    differences = [
        line
        for path in sorted(expected)
        for line in difflib.unified_diff(
            expected[path].decode().splitlines(),
            actual[path].decode().splitlines(),
            f"stored/{path}",
            f"rendered/{path}",
            lineterm="",
        )
    ]
    assert differences == [], "\n".join([STALE, *differences])
    assert actual == expected, STALE  # what a comparison of lines does not see


def test_smtputf8_is_offered_when_every_primary_takes_it() -> None:
    """The relay offers SMTPUTF8 when all its primaries have it, and not otherwise."""
    offers = {
        name: b"\nsmtputf8_enable = yes\n" in rendered(name)["etc/postfix/main.cf"]
        for name in CONFIGS
    }
    assert offers == {"five-lines": False, "full": True, "tunnel": False}
