"""Make this machine the relay that this archive holds.

    python3 relay.pyz            apply: packages, files, checks, services
    python3 relay.pyz --diff     show what would change, touch nothing

Should a check, a swap or a start fail, or the run be interrupted, what was is put back. Of that,
and of --diff, user-data's bundle has nothing: see care.py.

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

from .files import RUN, STATE, Bundle, Changes, beside
from .packages import install
from .services import serve
from .steps import Steps
from .system import ApplyError, catch_signals, tell
from .volume import settle

try:
    from . import care
except ImportError:
    # User-data has no room for it, and a machine at its first boot nothing that could be put back.
    care = None  # type: ignore[assignment]

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


def apply(bundle: Bundle, patience: float, *, volume_exists: bool) -> None:
    """Make the machine the bundle."""
    tell(f"relay {bundle.relay}, version {bundle.version[:12]}")
    STATE.mkdir(parents=True, exist_ok=True)
    steps = Steps(bundle.relay, bundle.version, patience)
    install(bundle.packages, bundle.debconf, steps)
    settle(bundle.volume, steps, volume_exists)
    if care:
        # Some of what it puts back is on the volume.
        care.mend()
    strand_no_mail()
    changes = bundle.changes()
    with steps.step("files and services"), taking_care(bundle, changes):
        swap(changes)
        serve(bundle.services, changes, first=steps.first)
    tell("done" if changes.paths else "done: nothing to change")


def strand_no_mail() -> None:
    """Refuse while mail waits where Debian's own Postfix has its queue: a relay never looks there.

    Raises ApplyError.
    """
    queues = [STOCK / name for name in ("maildrop", "incoming", "active", "deferred", "hold")]
    if count := sum(path.is_file() for queue in queues for path in queue.rglob("*")):
        raise ApplyError(f"{count} messages wait in {STOCK}: deliver or delete them first")


def taking_care(bundle: Bundle, changes: Changes) -> contextlib.AbstractContextManager[None]:
    """Return what lets the block happen only if the changes are good, and undoes it if it fails."""
    return care.guarded(bundle, changes) if care else contextlib.nullcontext()


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
    parser.add_argument(
        "--patience",
        type=float,
        default=60,
        metavar="SECONDS",
        help="to wait for packages and volume (default: %(default)s)",
    )
    parser.add_argument(
        "--volume-exists",
        action="store_true",
        help="take no blank disk for the volume: there is one already",
    )
    if care:
        care.more_arguments(parser)
    return parser.parse_args()


def act(options: argparse.Namespace) -> None:
    """Do what the command line asks for."""
    if os.geteuid():
        raise ApplyError("this needs root: try sudo", 3)
    bundle = Bundle.read(Path(sys.argv[0]))
    if care and care.only_looks(options, bundle):
        return
    with alone():
        apply(bundle, options.patience, volume_exists=options.volume_exists)


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
        tell(f"relay.pyz: please report this mistake in it: {error!r}", sys.stderr)
        return 1
    return 0
