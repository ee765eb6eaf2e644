"""What protects a machine that runs: a look before anything is done, checks, and the way back."""

from __future__ import annotations

import argparse
import contextlib
from collections.abc import Iterator
from pathlib import Path

from .checks import check_staged, try_staged
from .diff import show_diff
from .files import Bundle, Changes
from .system import catch_signals, ignore_signals, run, tell
from .undo import Undo

UNITS = Path("/etc/systemd/system")


def more_arguments(parser: argparse.ArgumentParser) -> None:
    """Add what can be asked for."""
    parser.add_argument("--diff", action="store_true", help="show what would change, touch nothing")
    parser.add_argument("--check-staged", action="store_true", help=argparse.SUPPRESS)


def only_looks(options: argparse.Namespace, bundle: Bundle) -> bool:
    """Do what touches nothing, if that is asked for; return whether it is."""
    if options.check_staged:
        check_staged(bundle)
    elif options.diff:
        show_diff(bundle)
    return bool(options.check_staged or options.diff)


def mend() -> None:
    """Put back what a run that was killed has left."""
    if left := Undo.left_behind():
        tell("an earlier run was killed midway")
        left.restore()
        catch_signals()


@contextlib.contextmanager
def guarded(bundle: Bundle, changes: Changes) -> Iterator[None]:
    """Ask the programs what they think of the changes; put all back if the block fails.

    When it is complete, what the changes have taken away is stopped.
    """
    if changes.paths:
        try_staged(bundle, changes)
    undo = Undo.prepare(changes, bundle.services)
    try:
        yield
    except BaseException:
        undo.restore()
        raise
    ignore_signals()
    undo.forget()
    stop_removed(changes)


def stop_removed(changes: Changes) -> None:
    """Stop the units whose files are no more, with every instance of a template.

    Without its file a unit goes on until the next boot, and systemctl still stops it. What is not
    loaded makes it complain, which means nothing here.
    """
    removed = [path.name for path in changes.remove if path.parent == UNITS]
    if units := [name.replace("@.", "@*.") for name in removed]:
        run(["systemctl", "stop", *units])
        # A timer has failed by then: the service that it starts is no more.
        run(["systemctl", "reset-failed", *units])
        tell(f"stop: {', '.join(units)}")
