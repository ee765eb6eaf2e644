"""The way back, on disk before the first file is touched: a killed run is undone by the next."""

from __future__ import annotations

import json
import os
import shutil
import signal
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .files import STATE
from .services import is_active
from .system import run, tell

UNDO = STATE / "undo"


@dataclass(frozen=True)
class Undo:
    """What every touched path was, and which of our services ran."""

    entries: list[dict[str, Any]]
    running: list[str]
    stopped: list[str]

    @classmethod
    def prepare(cls, paths: Sequence[Path], units: Sequence[str]) -> Undo:
        """Save what is at ``paths`` and which of ``units`` run."""
        new = UNDO.with_name("undo.new")
        shutil.rmtree(new, ignore_errors=True)
        new.mkdir(mode=0o700)
        entries = [save(path, new / str(number)) for number, path in enumerate(paths)]
        running = [unit for unit in units if is_active(unit)]
        undo = cls(entries, running, [unit for unit in units if unit not in running])
        (new / "index.json").write_text(json.dumps(vars(undo)))
        os.sync()
        new.rename(UNDO)
        return undo

    @classmethod
    def left_behind(cls) -> Undo | None:
        """Return the way back of a run that was killed, if there is one."""
        if not UNDO.exists():
            return None
        return cls(**json.loads((UNDO / "index.json").read_text()))

    def restore(self) -> None:
        """Put everything back as it was; no signal may stop it midway."""
        for name in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            signal.signal(name, signal.SIG_IGN)
        if self.stopped:
            run(["systemctl", "stop", *reversed(self.stopped)])
        for entry in self.entries:
            put_back(entry)
        run(["systemctl", "daemon-reload"])
        if self.running:
            run(["systemctl", "restart", *self.running])
        self.forget()
        tell("restored: everything is as it was")

    @staticmethod
    def forget() -> None:
        """Drop the way back: the run is complete."""
        done = UNDO.with_name("undo.done")
        shutil.rmtree(done, ignore_errors=True)
        os.sync()
        UNDO.rename(done)
        shutil.rmtree(done)


def save(path: Path, copy: Path) -> dict[str, Any]:
    """Copy what is at ``path``; say how to put it back."""
    if not os.path.lexists(path):
        return {"path": str(path), "copy": None}
    shutil.copy2(path, copy, follow_symlinks=False)
    found = path.lstat()
    return {"path": str(path), "copy": copy.name, "uid": found.st_uid, "gid": found.st_gid}


def put_back(entry: dict[str, Any]) -> None:
    """Make one path what it was."""
    path = Path(entry["path"])
    if entry["copy"] is None:
        path.unlink(missing_ok=True)
        return
    new = path.with_name(f".{path.name}.backup-mx")
    shutil.copy2(UNDO / entry["copy"], new, follow_symlinks=False)
    os.chown(new, entry["uid"], entry["gid"], follow_symlinks=False)
    new.replace(path)
