"""The programs judge the new files before any is swapped in.

The files are laid over the old ones in a mount namespace of their own, so that each program finds
them where it always looks, and nobody else sees them.
"""

from __future__ import annotations

import os
import re
import shutil
import stat
import sys
from pathlib import Path

from .files import RUN, STATE, Bundle, Changes
from .system import ApplyError, run, tell
from .terminal import run_on_terminal

STAGE = RUN / "stage/upper"
# What postfix check says of the spool, and not of the files: a message that qmgr(8) could not read,
# and copies for services in a chroot, of which a relay has none. Debian 13's Postfix makes and
# renews them; an older one that is given such a volume only complains of them.
OF_THE_SPOOL = re.compile(
    r"postfix/postfix-script: warning: (\S+ and \S+ differ|damaged message: corrupt/\S+)$"
)


def stage(changes: Changes) -> None:
    """Lay the new files out under STAGE as they will be under /."""
    for folder in changes.make:
        stage_folder(folder.path.parent)
        folder.make(staged(folder.path))
    for file in changes.write:
        stage_folder(file.path.parent)
        file.write(staged(file.path))
    for path in changes.remove:
        stage_folder(path.parent)
        # This is how an overlay hides what is below it.
        os.mknod(staged(path), stat.S_IFCHR, os.makedev(0, 0))


def stage_folder(folder: Path) -> None:
    """Show ``folder`` under STAGE with the mode and owner it has: an overlay takes the upper's."""
    for path in [*reversed(folder.parents), folder]:
        if not staged(path).exists():
            staged(path).mkdir()
            found = path.stat()
            os.chown(staged(path), found.st_uid, found.st_gid)
            staged(path).chmod(stat.S_IMODE(found.st_mode))


def staged(path: Path) -> Path:
    """Return where ``path`` is staged."""
    return STAGE / path.relative_to("/")


def try_staged(bundle: Bundle, changes: Changes) -> None:
    """Run every check in a mount namespace that shows the new files in place."""
    shutil.rmtree(STAGE.parent, ignore_errors=True)
    STAGE.mkdir(parents=True)
    stage(changes.without(STATE))
    # Not the archive we came from: whoever brought it may have taken it away again.
    archive = STAGE.with_name("relay.pyz")
    bundle.archive.write(archive)
    code, said = run(["unshare", "--mount", "--", sys.executable, str(archive), "--check-staged"])
    shutil.rmtree(STAGE.parent)
    said = said.removeprefix("relay.pyz: ")
    if said.startswith(("unshare:", "mount:")):
        raise ApplyError(f"this machine cannot try the new files before they are used: {said}", 3)
    if code:
        raise ApplyError(said or f"the checks ended with {code}")
    tell(f"checks: {', '.join(check.name for check in bundle.checks)}: ok")


def check_staged(bundle: Bundle) -> None:
    """Inside that namespace: show the staged files in place, and ask every program."""
    for upper in sorted(STAGE.iterdir()):
        work = STAGE.with_name("work") / upper.name
        work.mkdir(parents=True)
        layers = f"lowerdir=/{upper.name},upperdir={upper},workdir={work}"
        code, said = run(["mount", "-t", "overlay", "overlay", "-o", layers, f"/{upper.name}"])
        if code:
            raise ApplyError(said)
    # sshd's own, which Ubuntu makes at the first connection only, and sshd -t wants.
    Path("/run/sshd").mkdir(exist_ok=True)
    for check in bundle.checks:
        code, said = run_on_terminal(check.argv)
        said = that_matters(said)
        if code or (said and check.silent):
            raise ApplyError(f"{check.name} refuses the new files: {said or f'exit code {code}'}")


def that_matters(said: str) -> str:
    """Return what a program said without what is no complaint about the files."""
    return "\n".join(line for line in said.splitlines() if not OF_THE_SPOOL.match(line))
