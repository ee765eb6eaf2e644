"""What a run would change, told and not done; user-data has no room for it."""

from __future__ import annotations

import difflib
import os
import stat
from collections.abc import Iterator

from .files import STATE, Bundle, File
from .packages import missing_packages
from .system import tell


def show_diff(bundle: Bundle) -> None:
    """Print what would change; never the content of a file that others may not read."""
    missing = missing_packages(bundle.packages)
    changes = bundle.changes().without(STATE)
    if missing:
        tell(f"packages to install: {', '.join(missing)}")
    for folder in changes.make:
        tell(f"to make: {folder.path}")
    for file in changes.write:
        for line in diff_of(file):
            tell(line)
    for path in changes.remove:
        tell(f"to remove: {path}")
    if not missing and not changes.paths:
        tell("nothing to change")


def diff_of(file: File) -> Iterator[str]:
    """Yield the unified diff to ``file``; never a content that others may not read."""
    path = file.path
    if os.path.lexists(path) and (path.is_symlink() or not path.is_file()):
        yield f"to replace: {path}, which is not a plain file"
        return
    old = path.read_bytes() if path.exists() else None
    there = stat.S_IROTH if old is None else path.stat().st_mode
    if not there & int(file.mode, 8) & stat.S_IROTH:
        yield f"to write: {path} (its content is not shown)"
        return
    if old == file.content:
        yield f"to change: {path} (mode {file.mode}, owner {file.owner}:{file.group})"
    yield from difflib.unified_diff(
        (old or b"").decode(errors="replace").splitlines(),
        file.content.decode(errors="replace").splitlines(),
        "/dev/null" if old is None else str(path),
        str(path),
        lineterm="",
    )
