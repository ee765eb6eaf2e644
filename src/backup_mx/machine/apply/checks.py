"""The programs judge the new files before any is swapped in.

The files are laid over the old ones in a mount namespace of their own, so that each program finds
them where it always looks, and nobody else sees them.
"""

from __future__ import annotations

import os
import shutil
import stat
import sys
from pathlib import Path

from .files import Bundle, Changes
from .system import ApplyError, run, run_on_terminal, tell

STAGE = Path("/run/backup-mx/stage")


def stage(changes: Changes) -> None:
    """Lay the new files out under STAGE as they will be under /."""
    shutil.rmtree(STAGE, ignore_errors=True)
    for file in changes.write:
        stage_folder(file.path.parent)
        file.write(STAGE / file.path.relative_to("/"))
    for path in changes.remove:
        stage_folder(path.parent)
        os.mknod(STAGE / path.relative_to("/"), stat.S_IFCHR, os.makedev(0, 0))


def stage_folder(folder: Path) -> None:
    """Make ``folder`` under STAGE, as it is under /: an overlay shows the upper one's mode."""
    for path in [*reversed(folder.parents), folder]:
        staged = STAGE / path.relative_to("/")
        staged.mkdir(parents=True, exist_ok=True)
        if path.exists():
            shutil.copystat(path, staged)


def try_staged(archive: Path, bundle: Bundle) -> None:
    """Run every check in a mount namespace that shows the staged files in place."""
    argv = ["unshare", "--mount", "--", sys.executable, str(archive), "--check-staged"]
    code, said = run(argv)
    if code:
        raise ApplyError(said or f"the checks ended with {code}", code if code == 3 else 1)
    tell(f"checks: {', '.join(check['name'] for check in bundle.manifest['checks'])}: ok")


def check_staged(bundle: Bundle) -> None:
    """Inside that namespace: show the staged files in place, and ask every program."""
    for top in sorted(STAGE.iterdir()):
        place = f"/{top.name}"
        layers = f"lowerdir={top}:{place}"
        code, said = run(["mount", "-t", "overlay", "overlay", "-o", layers, place])
        if code:
            raise ApplyError(f"the new files cannot be tried before they are swapped in: {said}", 3)
    for check in bundle.manifest["checks"]:
        code, said = run_on_terminal(check["argv"])
        if code or (said and check["silent"]):
            raise ApplyError(
                f"{check['name']} refuses the new files: {said or f'exit code {code}'}"
            )
