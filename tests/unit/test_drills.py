"""What drills there are, and their help."""

from __future__ import annotations

import pytest

from backup_mx.errors import LabError
from backup_mx.lab.drills import DRILLS, drill


def test_the_drills() -> None:
    """Each is called by its name, and has a line of help and a number of messages."""
    assert list(DRILLS) == ["outage", "senders", "refusal", "edge-reboot", "flood"]
    for name, found in DRILLS.items():
        assert drill(name) is found
        assert found.summary
        assert len(found.summary) < 90
    assert drill("flood").default_messages == 5000


def test_an_unknown_drill_is_named_with_those_there_are() -> None:
    """A typing error is answered with what was meant."""
    with pytest.raises(LabError, match=r'no drill "flod": there is outage.* did you mean "flood"'):
        drill("flod")
