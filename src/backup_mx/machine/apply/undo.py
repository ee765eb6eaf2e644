"""The way back, on disk before the first file is touched: a killed run is undone by the next."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from .files import STATE, Changes, Service, beside, reading
from .services import is_up
from .system import ApplyError, ignore_signals, run, tell

UNDO = STATE / "undo"


@dataclass(frozen=True)
class Undo:
    """Every touched path (its copy is named by its place in the list), and what ran or did not."""

    paths: list[str]
    running: list[str]
    stopped: list[str]

    @classmethod
    def prepare(cls, changes: Changes, services: Sequence[Service]) -> Undo:
        """Save what the changes touch, and which services run."""
        made = [path for service in services for path in service.makes]
        up = {service.unit: is_up(service) for service in services}
        undo = cls(
            [*map(str, changes.paths), *made],
            [it.unit for it in services if up[it.unit] and changes.touch(it.files)],
            [unit for unit, ran in up.items() if not ran],
        )
        new = UNDO.with_name("undo.new")
        shutil.rmtree(new, ignore_errors=True)
        new.mkdir(mode=0o700)
        for number, path in enumerate(undo.paths):
            if os.path.lexists(path):
                clone(Path(path), new / str(number))
        (new / "index.json").write_text(json.dumps(vars(undo)))
        os.sync()
        new.rename(UNDO)
        return undo

    @classmethod
    def left_behind(cls) -> Undo | None:
        """Return the way back of a run that was killed, if there is one."""
        with reading(UNDO / "index.json"):
            return cls(**json.loads((UNDO / "index.json").read_bytes())) if UNDO.exists() else None

    def restore(self) -> None:
        """Put everything back as it was; no signal may stop it midway."""
        ignore_signals()
        if self.stopped:
            run(["systemctl", "stop", *reversed(self.stopped)])
        for number, path in reversed([*enumerate(self.paths)]):
            put_back(Path(path), UNDO / str(number))
        run(["systemctl", "daemon-reload"])
        if self.stopped:
            run(["systemctl", "reset-failed", *self.stopped])
        code, said = run(["systemctl", "restart", *self.running]) if self.running else (0, "")
        self.forget()
        if code:
            raise ApplyError(f"the old files are back, but a service does not start: {said}")
        tell("restored: everything is as it was")

    @staticmethod
    def forget() -> None:
        """Drop the way back: the run is complete."""
        done = UNDO.with_name("undo.done")
        shutil.rmtree(done, ignore_errors=True)
        os.sync()
        UNDO.rename(done)
        shutil.rmtree(done)


def clone(source: Path, target: Path) -> None:
    """Copy a file or a link with its owner, mode and times; meanwhile only root may read it.

    Raises FileExistsError where anything is at ``target``.
    """
    found = source.lstat()
    if source.is_symlink():
        target.symlink_to(source.readlink())
    else:
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW
        with source.open("rb") as old, os.fdopen(os.open(target, flags, 0o600), "wb") as new:
            shutil.copyfileobj(old, new)
    os.chown(target, found.st_uid, found.st_gid, follow_symlinks=False)
    shutil.copystat(source, target, follow_symlinks=False)


def look(path: Path) -> tuple[int, ...] | None:
    """Return what tells a file from another one, None where there is none."""
    with contextlib.suppress(FileNotFoundError):
        found = path.lstat()
        return found.st_mode, found.st_uid, found.st_gid, found.st_size, found.st_mtime_ns
    return None


def put_back(path: Path, copy: Path) -> None:
    """Make one path what it was: its copy, or nothing where there is no copy."""
    beside(path).unlink(missing_ok=True)
    if os.path.lexists(copy):
        if look(path) == look(copy):
            return  # a full disk has no room for another copy
        clone(copy, beside(path))
        beside(path).replace(path)
    elif path.is_dir():
        # It is not empty when Postfix has made its queue in it, and stays.
        with contextlib.suppress(OSError):
            path.rmdir()
    else:
        path.unlink(missing_ok=True)
