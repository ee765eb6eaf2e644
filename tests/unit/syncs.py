"""In which order files are brought to the disk and get their names."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest


def noted(monkeypatch: pytest.MonkeyPatch, deaf: Path | None = None) -> list[str]:
    """Return a list that gets each fsync and each rename from now on: "sync NAME", "rename NAME".

    What is on a folder that is ``deaf`` knows of no fsync of folders: it answers EINVAL.
    """
    done: list[str] = []
    rename, sync = Path.replace, os.fsync

    def renamed(self: Path, target: Path) -> Path:
        done.append(f"rename {self.name}")
        return rename(self, target)

    def synced(handle: int) -> None:
        place = Path(f"/proc/self/fd/{handle}").readlink()
        done.append(f"sync {place.name}")
        sync(handle)
        if place == deaf:
            raise OSError(errno.EINVAL, "Invalid argument")

    monkeypatch.setattr(Path, "replace", renamed)
    monkeypatch.setattr(os, "fsync", synced)
    return done
