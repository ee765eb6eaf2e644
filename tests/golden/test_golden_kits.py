"""The files of a primary's kit, whole, as the operator would get them."""

from __future__ import annotations

import pytest
from golden_kits import PRIMARIES, rendered, stored
from test_golden import STALE


@pytest.mark.parametrize("kit", PRIMARIES)
def test_a_kit_has_the_files_that_were_reviewed(kit: str) -> None:
    """A config renders to exactly the files that are stored for it."""
    expected, actual = stored(kit), rendered(kit)
    assert sorted(actual) == sorted(expected), STALE
    for path, content in expected.items():
        assert actual[path].decode() == content.decode(), f"{path}: {STALE}"
