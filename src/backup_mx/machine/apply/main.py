"""Make this machine the relay that this archive holds.

    python3 relay.pyz            apply: packages, files, checks, services
    python3 relay.pyz --diff     show what would change, touch nothing

Should a check, a swap or a start fail, or the run be interrupted, what was is put back.

Exit codes: 0 done; 1 it failed, and what was is restored; 3 this machine lacks something;
130 interrupted, and what was is restored.
"""

from __future__ import annotations

import argparse
import contextlib
import fcntl
import os
import shutil
import signal
import sys
from collections.abc import Iterator
from pathlib import Path
from types import FrameType

from .checks import check_staged, stage, try_staged
from .files import APPLIED, STATE, Bundle, Changes, diff_of, remember
from .packages import install, missing_packages
from .services import serve
from .system import ApplyError, InterruptedRunError, tell
from .undo import Undo

LOCK = Path("/run/backup-mx/apply.lock")


def make_directories(bundle: Bundle) -> None:
    """Make the folders that the relay's programs expect."""
    for path, entry in bundle.manifest["directories"].items():
        folder = Path(path)
        if not folder.is_dir():
            folder.mkdir(parents=True)
            shutil.chown(folder, entry["owner"], entry["group"])
            folder.chmod(int(entry["mode"], 8))


def swap(changes: Changes) -> None:
    """Write and remove the files."""
    for file in changes.write:
        file.path.parent.mkdir(parents=True, exist_ok=True)
        file.write(file.path)
        tell(f"written: {file.path}")
    for path in changes.remove:
        path.unlink()
        tell(f"removed: {path}")


def apply(archive: Path, bundle: Bundle, patience: float) -> None:
    """Make the machine the bundle."""
    tell(f"relay {bundle.manifest['relay']}, version {bundle.manifest['version'][:12]}")
    STATE.mkdir(parents=True, exist_ok=True)
    if left := Undo.left_behind():
        tell("an earlier run was killed midway")
        left.restore()
        catch_signals()
    install(bundle.manifest["packages"], bundle.manifest["debconf"], patience)
    changes = bundle.changes()
    make_directories(bundle)
    if changes.paths:
        stage(changes)
        try_staged(archive, bundle)
    units = [service["unit"] for service in bundle.manifest["services"]]
    undo = Undo.prepare(changes.paths, units)
    try:
        swap(changes)
        serve(bundle, changes, first=not APPLIED.exists())
    except BaseException:
        undo.restore()
        raise
    remember(bundle, archive)
    undo.forget()
    count = len(changes.paths)
    tell(f"done: {count} file{'s' * (count != 1)} changed" if count else "done: nothing to change")


def show_diff(bundle: Bundle) -> None:
    """Print what would change; never the content of a file that others may not read."""
    if missing := missing_packages(bundle.manifest["packages"]):
        tell(f"packages to install: {', '.join(missing)}")
    changes = bundle.changes()
    for file in changes.write:
        for line in diff_of(file):
            tell(line)
    for path in changes.remove:
        tell(f"to remove: {path}")
    if not missing and not changes.paths:
        tell("nothing to change")


@contextlib.contextmanager
def alone() -> Iterator[None]:
    """Hold the lock that one run at a time has."""
    LOCK.parent.mkdir(parents=True, exist_ok=True)
    with LOCK.open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise ApplyError("another run is at work on this machine") from None
        yield


def catch_signals() -> None:
    """Let a signal end the run as a failure does: with everything put back."""

    def interrupt(_number: int, _frame: FrameType | None) -> None:
        raise InterruptedRunError

    for name in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(name, interrupt)


def arguments() -> argparse.Namespace:
    """Parse the command line."""
    parser = argparse.ArgumentParser(
        prog="relay.pyz", description="Make this machine a backup-mx relay."
    )
    parser.add_argument("--diff", action="store_true", help="show what would change, touch nothing")
    parser.add_argument(
        "--patience",
        type=float,
        default=60,
        metavar="SECONDS",
        help="how long to go on trying to install packages (default: %(default)s)",
    )
    parser.add_argument("--check-staged", action="store_true", help=argparse.SUPPRESS)
    return parser.parse_args()


def main() -> int:
    """Run; return the exit code."""
    options = arguments()
    try:
        if os.geteuid():
            raise ApplyError("this needs root: try sudo", 3)  # noqa: TRY301
        archive = Path(sys.argv[0]).resolve()
        bundle = Bundle.read(archive)
        if options.check_staged:
            check_staged(bundle)
        elif options.diff:
            show_diff(bundle)
        else:
            catch_signals()
            with alone():
                apply(archive, bundle, options.patience)
    except (ApplyError, OSError) as error:
        print(f"relay.pyz: {error}", file=sys.stderr)
        return error.code if isinstance(error, ApplyError) else 1
    return 0
