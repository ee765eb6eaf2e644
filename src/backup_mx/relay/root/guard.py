"""What must not depend on the agent: nothing expires, and maintenance ends. Run by a root timer.

The agent requeues earlier than this does (lifetime.py), so while it lives there is nothing to do.

It also runs before Postfix starts: with a clock that is far ahead after a boot, qmgr would give up
all that waits before the timer comes round.
"""

from __future__ import annotations

import contextlib
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

from backup_mx.errors import BackupMxError, MachineError
from backup_mx.relay.queue import expiry, queueid, spool
from backup_mx.relay.queue.commands import Postfix
from backup_mx.relay.root import changes, maintenance, postlog, protocol, pulls
from backup_mx.relay.root.protocol import Result, Who

NOW = "now"
"""With this argument it looks through the queue whatever the time, and at nothing that can wait."""
PERIOD = 60
"""Seconds from one run of the timer to the next."""
KEPT = Path("/var/lib/backup-mx/relay.pyz")
"""The archive of the last deploy, which can tell."""
NO_DRIFT = "nothing to change"
_RAREST = 3600
_DRIFTED = 600  # seconds between looks while something differs
_SECONDS = 300.0
_NAMED = 10  # sentences of an error
_TRIED = ("incoming", "active", "deferred")
"""The queues whose mail grows old; what is on hold does not expire (postsuper(1))."""
_FINE = (protocol.GONE, protocol.DELIVERED, protocol.DELIVERED_NOW, protocol.RECEIVED_NOW)
"""Why a message may have been left as it is."""


def due(ids: Iterable[str], limit: float, now: float) -> list[str]:
    """Return those that Postfix would soon give up; limit is its lifetime in seconds."""
    return [each for each in ids if queueid.valid(each) and expiry.near(each, limit, now)]


def time_to_look(limit: float, now: float) -> bool:
    """Tell whether this run of the timer looks through the queue, which costs something.

    Several do before a message comes from the guard's mark to Postfix's limit; one an hour does
    in any case.
    """
    step = max(min(int(limit * (1 - expiry.SHARE) / 4), _RAREST), PERIOD)
    return int(now) // step != (int(now) - PERIOD) // step


def look_for_drift(tell: Callable[[str], None]) -> None:
    """Note in protocol.DRIFT, now and then, what the archive of the last deploy would change here.

    That it cannot be run counts as a difference: it is one of the files.
    """
    try:
        seen, applied = protocol.DRIFT.stat(), KEPT.stat()
        pause = _DRIFTED if seen.st_size else _RAREST
        now = time.time()  # a look that is later than that: the clock was set back
        if max(applied.st_mtime, now - pause) < seen.st_mtime <= now:
            return
    except FileNotFoundError:
        if not KEPT.exists():
            return
    found = _drift()
    if found:
        tell(f"not as it was applied: {found.splitlines()[0]}; backup-mx deploy --diff tells all")
    protocol.DRIFT.write_text(found)


def _drift() -> str:
    """Return what it would change, "" for nothing."""
    argv = (sys.executable, "-I", str(KEPT), "--diff")
    try:
        done = subprocess.run(argv, capture_output=True, text=True, errors="replace",
                              timeout=_SECONDS, check=False)  # fmt: skip
    except subprocess.TimeoutExpired:
        return f"{KEPT} did not end within {_SECONDS:.0f} s"
    except OSError as error:
        return f"{KEPT} cannot be run: {error.strerror}"
    said = done.stdout.strip()
    if done.returncode:
        return done.stderr.strip() or f"{KEPT} ended with {done.returncode}"
    return "" if said == NO_DRIFT else said


def run(
    postfix: Postfix, tell: Callable[[str], None], *, always: bool = True, early: bool = False
) -> list[Result]:
    """Do what is due; tell each step in a line, return what became of the messages.

    Without ``always`` the queue is looked through when it is time to. Where it is ``early``,
    maintenance, whose end a running Postfix is told, is left to the next run. Raises MachineError
    when something could not be done; the rest was.
    """
    trouble: list[str] = []
    for what, step in _STEPS[:1] if early else _STEPS:
        try:
            step(postfix, tell)
        except MachineError as error:
            trouble.append(f"{what}: {error}")
    limit, now = postfix.lifetime(), time.time()
    results: list[Result] = []
    if always or time_to_look(limit, now):
        ids = due((name for _, name in spool.names(_TRIED, postfix.spool)), limit, now)
        for start in range(0, len(ids), protocol.BATCH):
            try:
                results += _requeue(postfix, ids[start : start + protocol.BATCH], tell)
            except MachineError as error:
                trouble.append(f"messages could not be requeued: {error}")
    failed = [each for each in results if not (each.done or _fine(each))]
    trouble += [f"{each.id} was not requeued: {each.said}" for each in failed]
    if trouble:
        raise MachineError(_short(trouble))
    return results


def _fine(left: Result) -> bool:
    """Tell whether a message that was not requeued is safe all the same."""
    return left.said in _FINE or protocol.held_instead(left)


def _put_back(postfix: Postfix, _tell: Callable[[str], None]) -> None:
    pulls.recover(postfix)


def _end_maintenance(postfix: Postfix, tell: Callable[[str], None]) -> None:
    if maintenance.end_in_time(postfix):
        tell("maintenance is over: mail is handed over again")


def _keep_up_maintenance(postfix: Postfix, tell: Callable[[str], None]) -> None:
    if maintenance.keep_up(postfix):
        tell("maintenance is for the domains of now, which are not those it began with")


_STEPS = (
    ("what is on hold for a change could not be released", _put_back),
    ("maintenance could not be ended", _end_maintenance),
    ("maintenance may not be for all domains", _keep_up_maintenance),
)


def _requeue(postfix: Postfix, ids: Sequence[str], tell: Callable[[str], None]) -> list[Result]:
    results = changes.change(postfix, "requeue", ids, Who("guard"))
    for each in results:
        tell(f"{each.id}: {each.said}")
    return results


def _short(trouble: Sequence[str]) -> str:
    more = len(trouble) - _NAMED
    return "; ".join([*trouble[:_NAMED], *([f"and {more} more"] if more > 0 else [])])


def _say(line: str) -> None:
    sys.stdout.write(f"{line}\n")


def main() -> None:
    """Do it for this relay. Raises MachineError."""
    postfix, now = Postfix(), sys.argv[1:] == [NOW]
    if (postfix.spool / "public").is_dir():  # or Postfix never ran here, or its volume is missing
        with postlog.kept(postfix.spool):
            run(postfix, _say, always=now, early=now)
    if not now:
        with contextlib.suppress(OSError):  # as /run is full: what matters is done
            look_for_drift(_say)


if __name__ == "__main__":
    try:
        main()
    except BackupMxError as failure:
        sys.stderr.write(f"{failure}\n")
        raise SystemExit(failure.exit_code) from None
