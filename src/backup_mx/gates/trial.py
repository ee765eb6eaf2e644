"""How far a trial of a failover has come, kept in a file so that it can be gone on with."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path

from backup_mx.errors import MachineError
from backup_mx.findings import Finding, Verdict
from backup_mx.gates.letters import Letter, essence
from backup_mx.probe.trip import Trip
from backup_mx.relay import files
from backup_mx.relay.text import span

OLD = 2 * 86_400.0
"""Seconds after which a trial that was left is no longer gone on with."""
RESULT = "X-Spamd-Result"
"""The field in which rspamd's milter_headers names the symbols of a message."""
_DRAINED = "BACKUP_MX_DRAIN"


@dataclass(frozen=True)
class Trial:
    """How far a trial has come; times are seconds since 1970.

    token is in all its messages; version is the relay's, config the hash of what it was made from,
    when it began. by_mx tells whether the
    messages find the relay by MX records, or are handed straight to it. sent has when each was
    handed over, by its sort; kept is when all were on the relay, back when the primary was up
    again, drained when none was left.
    """

    token: str
    version: str
    config: str
    began: float
    by_mx: bool
    sent: Mapping[str, float] = field(default_factory=dict)
    kept: float | None = None
    back: float | None = None
    drained: float | None = None


def left(path: Path, version: str, config: str, now: float) -> Trial | None:
    """Return the trial that was left, None where there is none that can be gone on with.

    One of another version or config would prove that other one.
    """
    try:
        found = Trial(**json.loads(path.read_text()))
    except (OSError, ValueError, TypeError):
        return None
    is_about_this = (found.version, found.config) == (version, config)
    return found if is_about_this and 0 <= now - found.began < OLD else None


def keep(path: Path, trial: Trial) -> None:
    """Write a trial down. Raises MachineError."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        files.replace(path, json.dumps(asdict(trial)) + "\n", 0o600)
    except OSError as error:
        raise MachineError(f"{path} cannot be written: {error.strerror}") from None


@dataclass(frozen=True)
class Came:
    """A message that was found in the mailbox: its token, what it says, how it came.

    symbols are what rspamd wrote into its header of what it saw, None where it wrote nothing. after
    is how many seconds after the primary's return it came home, by its header.
    """

    token: str
    essence: str
    trip: Trip
    symbols: str | None
    after: float


def judged(
    letters: Sequence[Letter], came: Sequence[Came], patience: float, *, by_mx: bool
) -> Iterator[Finding]:
    """Judge what was found in the mailbox: all of it, unchanged, once, by the relay, in time.

    patience is how many seconds after the primary's return is in time.
    """
    found: dict[str, list[Came]] = {each.token: [] for each in letters}
    for each in came:
        found.setdefault(each.token, []).append(each)
    yield _complete(letters, found)
    if late := [
        letter.sort
        for letter in letters
        if min((each.after for each in found[letter.token]), default=0.0) > patience
    ]:
        saw = f"home more than {span(patience)} after the primary was back: {', '.join(late)}"
        yield Finding(
            "late", "fail", saw, "the logs of the relay and of the primary tell where it lay"
        )
    if twice := [each.sort for each in letters if len(found[each.token]) > 1]:
        saw = f"more than once in the mailbox: {', '.join(twice)}"
        yield Finding("twice", "warn", saw, "was a connection cut just after a message's end?")
    changed = [
        letter.sort
        for letter in letters
        if any(each.essence != essence(letter.whole) for each in found[letter.token])
    ]
    if changed:
        do = "the relay changes nothing: look at what is in front of it, and behind"
        # What an account's own server does to mail on its way out is not the relay's doing.
        verdict: Verdict = "warn" if by_mx else "fail"
        yield Finding("changed", verdict, f"not as it was sent: {', '.join(changed)}", do)


def _complete(letters: Sequence[Letter], found: Mapping[str, Sequence[Came]]) -> Finding:
    if missing := [each.sort for each in letters if not found[each.token]]:
        do = "the relay's and the primary's logs tell who took it last: backup-mx ledger"
        return Finding("arrived", "fail", f"not in the mailbox: {', '.join(missing)}", do)
    trips = [each.trip for several in found.values() for each in several]
    if past := sum(each.way != "relay" for each in trips):
        saw = f"{past} of {len(trips)} messages have no line of the relay's in their header"
        return Finding("arrived", "fail", saw, "the primary was not away for everybody")
    latest = max(trips, key=lambda each: each.seconds)
    return Finding("arrived", "pass", f"all in the mailbox, {latest.words}")


def filtered(came: Sequence[Came]) -> Finding:
    """Judge whether the primary's rspamd looked at what was delivered, by the kit's rule."""
    past = [each for each in came if each.symbols is not None and _DRAINED not in each.symbols]
    if past:
        saw = f"rspamd judged {len(past)} of {len(came)} messages as anybody's, not as the relay's"
        return Finding("filtered", "fail", saw, "backup-mx primary check says which layer it is")
    if any(each.symbols is None for each in came):
        saw = f"not every message has {RESULT} in its header: nothing there says that rspamd looked"
        do = "have it written (milter_headers, x-spamd-result), or try backup-mx gate run drain"
        return Finding("filtered", "warn", saw, do)
    return Finding("filtered", "pass", f"rspamd judged all of them by the kit's rule, {_DRAINED}")
