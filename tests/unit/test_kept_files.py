"""Small files that outlive a run: whole, on disk before they have their name, and private."""

from __future__ import annotations

import stat
from collections.abc import Callable
from pathlib import Path

import pytest
import syncs

from backup_mx.cli import terminal
from backup_mx.gates import trial
from backup_mx.gates.trial import Trial
from backup_mx.relay import files
from backup_mx.relay.tasks.memory import Memory
from backup_mx.relay.tell.notify import FILE, Notifier

TRIAL = Trial("token", "version", "config", 1.0, by_mx=True)
KEEPERS: dict[str, Callable[[Path], object]] = {
    "moments.json": lambda path: Memory(path).keep("flushed", 5.0),
    FILE: lambda path: Notifier.open("mx2", (), folder=path.parent, runtime=path.parent),
    "trial.json": lambda path: trial.keep(path, TRIAL),
    "user-data": lambda path: terminal.write(path, b"\xff"),
}


@pytest.mark.parametrize("name", KEEPERS)
def test_it_is_on_disk_before_it_has_its_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    """A power cut leaves the old one or the new one; and nobody else reads either."""
    done = syncs.noted(monkeypatch)
    KEEPERS[name](tmp_path / name)
    assert done == [f"sync .{name}.new", f"rename .{name}.new"]
    assert [each.name for each in tmp_path.iterdir()] == [name]
    assert stat.S_IMODE((tmp_path / name).stat().st_mode) == 0o600


def test_what_cannot_be_written_leaves_what_was_there(tmp_path: Path) -> None:
    """Neither half a file, nor one that is no UTF-8, nor a leftover."""
    path = tmp_path / "it"
    files.replace(path, "old")
    with pytest.raises(UnicodeEncodeError):
        files.replace(path, "\ud800")
    assert {each.name: each.read_text() for each in tmp_path.iterdir()} == {"it": "old"}
