"""The bundle's files against the machine's."""

from __future__ import annotations

import difflib
import grp
import json
import os
import pwd
import shutil
import stat
import zipfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

STATE = Path("/var/lib/backup-mx")
APPLIED = STATE / "manifest.json"
KEPT = STATE / "relay.pyz"


@dataclass(frozen=True)
class File:
    """A file of the relay: its path there, content, mode and owner."""

    path: Path
    content: bytes
    mode: int
    owner: str
    group: str

    @property
    def is_secret(self) -> bool:
        """Whether others may not read it, so that no diff may show it."""
        return not self.mode & stat.S_IROTH

    @property
    def ids(self) -> tuple[int, int]:
        """Return the numeric owner and group."""
        return pwd.getpwnam(self.owner).pw_uid, grp.getgrnam(self.group).gr_gid

    def is_in_place(self) -> bool:
        """Whether the machine has exactly this file."""
        try:
            found = self.path.lstat()
            same = stat.S_ISREG(found.st_mode) and self.path.read_bytes() == self.content
            return same and (stat.S_IMODE(found.st_mode), found.st_uid, found.st_gid) == (
                self.mode,
                *self.ids,
            )
        except (OSError, KeyError):
            return False

    def write(self, target: Path) -> None:
        """Put the file at ``target`` in one step: there is never half of it."""
        new = target.with_name(f".{target.name}.backup-mx")
        descriptor = os.open(new, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW, 0o600)
        with os.fdopen(descriptor, "wb") as stream:
            stream.write(self.content)
            os.fchown(stream.fileno(), *self.ids)
            os.fchmod(stream.fileno(), self.mode)
            stream.flush()
            os.fsync(stream.fileno())
        new.replace(target)


@dataclass(frozen=True)
class Bundle:
    """What the archive holds: the manifest and the files."""

    manifest: dict[str, Any]
    files: tuple[File, ...]

    @classmethod
    def read(cls, archive: Path) -> Bundle:
        """Read the bundle at ``archive``."""
        with zipfile.ZipFile(archive) as bundle:
            manifest = json.loads(bundle.read("manifest.json"))
            files = tuple(
                File(
                    Path(path),
                    bundle.read(f"files{path}"),
                    int(entry["mode"], 8),
                    entry["owner"],
                    entry["group"],
                )
                for path, entry in manifest["files"].items()
            )
        return cls(manifest, files)

    def changes(self) -> Changes:
        """Compare the bundle with the machine."""
        write = tuple(file for file in self.files if not file.is_in_place())
        ours = {str(file.path) for file in self.files}
        remove = tuple(Path(path) for path in applied_files() if path not in ours)
        return Changes(write, tuple(path for path in remove if os.path.lexists(path)))


@dataclass(frozen=True)
class Changes:
    """What has to be written and removed so that the machine is the bundle."""

    write: tuple[File, ...] = ()
    remove: tuple[Path, ...] = ()

    @property
    def paths(self) -> list[Path]:
        """Every path that is touched."""
        return [file.path for file in self.write] + list(self.remove)

    def touch(self, prefixes: Sequence[str]) -> bool:
        """Whether a touched path begins with one of ``prefixes``."""
        return any(str(path).startswith(tuple(prefixes)) for path in self.paths)


def applied_files() -> list[str]:
    """Return the paths that the last complete run wrote."""
    try:
        return list(json.loads(APPLIED.read_text())["files"])
    except FileNotFoundError:
        return []


def remember(bundle: Bundle, archive: Path) -> None:
    """Record what the machine now is, and keep the archive that made it so."""
    new = APPLIED.with_suffix(".new")
    new.write_text(json.dumps(bundle.manifest, indent=1, sort_keys=True))
    new.replace(APPLIED)
    if archive != KEPT:
        copy = KEPT.with_suffix(".new")
        shutil.copyfile(archive, copy)
        copy.chmod(0o600)
        copy.replace(KEPT)


def diff_of(file: File) -> Iterator[str]:
    """Yield the unified diff from what the machine has to ``file``."""
    if file.is_secret:
        yield f"to write: {file.path} (its content is not shown)"
        return
    there = file.path.is_file()
    old = file.path.read_text(errors="replace") if there else ""
    new = file.content.decode(errors="replace")
    if old == new:
        yield f"to change: {file.path} (mode {file.mode:04o}, owner {file.owner}:{file.group})"
    yield from difflib.unified_diff(
        old.splitlines(),
        new.splitlines(),
        str(file.path) if there else "/dev/null",
        str(file.path),
        lineterm="",
    )
