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
import sys
from collections.abc import Iterator
from pathlib import Path

from .checks import RUN, check_staged, try_staged
from .files import APPLIED, STATE, Bundle, Changes, beside, diff_of
from .packages import install, missing_packages
from .services import serve
from .system import ApplyError, catch_signals, ignore_signals, tell
from .undo import Undo

STOCK = Path("/var/spool/postfix")


def swap(changes: Changes) -> None:
    """Make folders, write files, remove files."""
    for folder in changes.make:
        folder.make(folder.path)
    # All of the writing comes first: a full disk shows before anything is replaced.
    for file in changes.write:
        file.write(beside(file.path))
    for file in changes.write:
        beside(file.path).replace(file.path)
        tell(f"written: {file.path}")
    for path in changes.remove:
        path.unlink()
        tell(f"removed: {path}")


def apply(bundle: Bundle, patience: float) -> None:
    """Make the machine the bundle."""
    tell(f"relay {bundle.relay}, version {bundle.version[:12]}")
    STATE.mkdir(parents=True, exist_ok=True)
    if left := Undo.left_behind():
        tell("an earlier run was killed midway")
        left.restore()
        catch_signals()
    install(bundle.packages, bundle.debconf, patience)
    strand_no_mail()
    changes = bundle.changes()
    if changes.paths:
        try_staged(bundle, changes)
    bring_about(bundle, changes)
    tell("done" if changes.paths else "done: nothing to change")


def strand_no_mail() -> None:
    """Refuse while mail waits where Debian's own Postfix has its queue: a relay never looks there.

    Raises ApplyError.
    """
    queues = [STOCK / name for name in ("maildrop", "incoming", "active", "deferred", "hold")]
    if count := sum(path.is_file() for queue in queues for path in queue.rglob("*")):
        raise ApplyError(f"{count} messages wait in {STOCK}: deliver or delete them first")


def bring_about(bundle: Bundle, changes: Changes) -> None:
    """Swap the files and bring the services up; put all back if that fails."""
    first = not APPLIED.exists()
    undo = Undo.prepare(changes, bundle.services)
    try:
        swap(changes)
        serve(bundle.services, changes, first=first)
    except BaseException:
        undo.restore()
        raise
    ignore_signals()
    undo.forget()


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


@contextlib.contextmanager
def alone() -> Iterator[None]:
    """Hold the lock that one run at a time has."""
    RUN.mkdir(mode=0o700, exist_ok=True)
    with (RUN / "lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise ApplyError("another run is at work on this machine") from None
        yield


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


def act(options: argparse.Namespace) -> None:
    """Do what the command line asks for."""
    if os.geteuid():
        raise ApplyError("this needs root: try sudo", 3)
    bundle = Bundle.read(Path(sys.argv[0]))
    if options.check_staged:
        check_staged(bundle)
    elif options.diff:
        show_diff(bundle)
    else:
        with alone():
            apply(bundle, options.patience)


def main() -> int:
    """Run; return the exit code."""
    options = arguments()
    os.umask(0o022)
    catch_signals()
    try:
        act(options)
    except ApplyError as error:
        tell(f"relay.pyz: {error}", sys.stderr)
        return error.code
    except OSError as error:
        tell(f"relay.pyz: {error.filename or 'this machine'}: {error.strerror}", sys.stderr)
        return 1
    except Exception as error:
        # No user is helped by a traceback; what it says is for whoever mends this.
        tell(f"relay.pyz: this is a mistake in it, please report it: {error!r}", sys.stderr)
        return 1
    return 0
