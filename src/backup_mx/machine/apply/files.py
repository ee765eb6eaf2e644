"""The bundle's files against the machine's."""

from __future__ import annotations

import contextlib
import grp
import io
import json
import os
import pwd
import stat
import zipfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from .system import ApplyError

STATE = Path("/var/lib/backup-mx")
APPLIED = STATE / "applied.json"
KEPT = STATE / "relay.pyz"
RUN = Path("/run/backup-mx")


@dataclass(frozen=True)
class Check:
    """A program's own check of its files; ``silent`` when any word of it is a complaint."""

    name: str
    argv: Sequence[str]
    silent: bool = True


@dataclass(frozen=True)
class Service:
    """A unit, the path prefixes it reads, and what tells how it is.

    ``makes``: the files it makes once, after which it has no work; ``needs``: the path without
    which it is not wanted; ``start``: whether it is started where it does not run; ``port``: the
    TCP port on which it greets as SMTP servers do.
    """

    unit: str
    files: Sequence[str]
    makes: Sequence[str] = ()
    needs: str = ""
    start: bool = True
    port: int = 0


@dataclass(frozen=True)
class Folder:
    """A folder of the relay: its path there, its mode in octal, its owner."""

    path: Path
    mode: str = "0755"
    owner: str = "root"
    group: str = "root"

    @property
    def rights(self) -> tuple[int, int, int]:
        """Return the mode, and the numeric owner and group."""
        ids = pwd.getpwnam(self.owner).pw_uid, grp.getgrnam(self.group).gr_gid
        return int(self.mode, 8), *ids

    def make(self, target: Path) -> None:
        """Make the folder at ``target``."""
        mode, user, group = self.rights
        target.mkdir()
        os.chown(target, user, group)
        target.chmod(mode)


@dataclass(frozen=True)
class File(Folder):
    """A file of the relay; with ``once`` it is made where it is missing, and then left alone."""

    mode: str = "0644"
    content: bytes = b""
    once: bool = False

    def is_in_place(self) -> bool:
        """Whether the machine has exactly this file, or any where it is written once."""
        if self.once and self.path.is_file():
            return True
        try:
            found = self.path.lstat()
            if not stat.S_ISREG(found.st_mode) or self.path.read_bytes() != self.content:
                return False
        except OSError:
            return False
        return (stat.S_IMODE(found.st_mode), found.st_uid, found.st_gid) == self.rights

    def write(self, target: Path) -> None:
        """Write the file to ``target``, where it is not yet in use."""
        mode, user, group = self.rights
        descriptor = os.open(target, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW, 0o600)
        with os.fdopen(descriptor, "wb") as stream:
            stream.write(self.content)
            stream.flush()
            os.fchown(descriptor, user, group)
            os.fchmod(descriptor, mode)
            os.fsync(descriptor)


@dataclass(frozen=True)
class Changes:
    """What has to be made, written and removed so that the machine is the bundle."""

    make: Sequence[Folder]
    write: Sequence[File]
    remove: Sequence[Path]

    @property
    def paths(self) -> list[Path]:
        """Every path that is touched, a folder before what is in it."""
        return [place.path for place in (*self.make, *self.write)] + list(self.remove)

    def touch(self, prefixes: Sequence[str]) -> bool:
        """Whether a touched path begins with one of ``prefixes``."""
        return any(str(path).startswith(tuple(prefixes)) for path in self.paths)

    def without(self, folder: Path) -> Changes:
        """Return the changes that are not below ``folder``."""
        return Changes(
            [place for place in self.make if folder not in (place.path, *place.path.parents)],
            [place for place in self.write if folder not in place.path.parents],
            self.remove,
        )


@dataclass(frozen=True)
class Bundle:
    """What the archive holds: the manifest's members, the files and folders, and its own bytes."""

    relay: str
    version: str
    packages: Sequence[str]
    debconf: Sequence[str]
    checks: Sequence[Check]
    services: Sequence[Service]
    folders: Sequence[Folder]
    files: Sequence[File]
    archive: File
    volume: bool = False

    @classmethod
    def read(cls, archive: Path) -> Bundle:
        """Read the bundle at ``archive``."""
        content = archive.read_bytes()
        with zipfile.ZipFile(io.BytesIO(content)) as opened:
            manifest = json.loads(opened.read("manifest.json"))
        for entry in manifest["files"]:
            entry["content"] = entry["content"].encode()
        for entry in manifest["files"] + manifest["folders"]:
            entry["path"] = Path(entry["path"])
        kinds = {"checks": Check, "services": Service, "folders": Folder, "files": File}
        for name, kind in kinds.items():
            manifest[name] = [kind(**entry) for entry in manifest[name]]
        return cls(**manifest, archive=File(KEPT, "0600", content=content))

    @property
    def records(self) -> tuple[File, File]:
        """Return the files that record on the machine what it is: the archive comes last."""
        paths = [str(file.path) for file in self.files]
        applied = json.dumps({"version": self.version, "files": paths}, indent=1)
        return File(APPLIED, content=applied.encode()), self.archive

    def changes(self) -> Changes:
        """Compare the bundle with the machine."""
        files = (*self.files, *self.records)
        ours = [file.path for file in files]
        return Changes(
            list(self.missing_folders(ours)),
            [file for file in files if not file.is_in_place()],
            [path for path in applied_files() if path not in ours and is_file(path)],
        )

    def missing_folders(self, files: Sequence[Path]) -> Iterator[Folder]:
        """Yield the folders that are not there, the outer before the inner."""
        known = {folder.path: folder for folder in self.folders}
        outer = {parent for path in (*files, *known) for parent in path.parents}
        for path in sorted(outer | known.keys()):
            if not path.is_dir():
                yield known.get(path, Folder(path))


def is_file(path: Path) -> bool:
    """Whether anything but a folder is at ``path``."""
    return os.path.lexists(path) and (path.is_symlink() or not path.is_dir())


def beside(path: Path) -> Path:
    """Return where a file waits before it takes the place of ``path``."""
    return path.with_name(f".{path.name}.backup-mx")


@contextlib.contextmanager
def reading(path: Path) -> Iterator[None]:
    """Name a file that an earlier run has written when it turns out to be damaged."""
    try:
        yield
    except (ValueError, KeyError, TypeError) as error:
        raise ApplyError(f"{path} is damaged ({error}): move it away and run this again") from None


def applied_files() -> list[Path]:
    """Return the paths that the last complete run wrote. Raises ApplyError."""
    with reading(APPLIED):
        return (
            [Path(path) for path in json.loads(APPLIED.read_bytes())["files"]]
            if APPLIED.exists()
            else []
        )
