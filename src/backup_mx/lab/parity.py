"""Whether mail that came by the relay was treated as it is straight: a row for each way. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from backup_mx.lab.matrix import Letter
from backup_mx.lab.verdict import DRAINED, Verdict, differences

STRAIGHT = "straight"
RELAYED = "by the relay"
EXTENSION = "smtputf8"
"""In a letter's ``by``: a primary that lacks the extension turns it away."""


@dataclass(frozen=True)
class Passage:
    """One letter's way to the mailboxes.

    answers are the replies that its client heard, in order, code the last one's; folders those of
    the copies that were found, waiting the relay's reason for one that is not there yet.
    """

    letter: Letter
    path: str
    code: int
    answers: tuple[str, ...]
    folders: tuple[str, ...] = ()
    waiting: str = ""
    verdict: Verdict | None = None

    @property
    def outcome(self) -> str:
        """What the client was told in the end, in the words of the matrix."""
        return {2: "take", 5: "refuse"}.get(self.code // 100, "defer")

    @property
    def ended(self) -> str:
        """Where it is now: a folder, or the reason why it is in none."""
        if self.folders:
            return " and ".join(sorted(set(self.folders)))
        if self.waiting:
            return f"waiting on the relay: {self.waiting}"
        said = {"take": "lost", "refuse": "refused at intake", "defer": "deferred at intake"}
        return said[self.outcome]


def straight_row(passage: Passage) -> dict[str, Any]:
    """Return the row of a letter that went straight; it is held to what the matrix expects."""
    letter, verdict = passage.letter, passage.verdict
    wrong = []
    if passage.outcome != letter.straight:
        wrong.append(f"the primary was to {letter.straight} it: {passage.ended}")
    elif passage.outcome == "take" and passage.ended != letter.folder:
        wrong.append(f"{passage.ended}, not {letter.folder}")
    if len(passage.answers) < letter.tries:
        wrong.append("the primary did not ask to come back later")
    if letter.judged and verdict is None:
        wrong.append("no verdict of rspamd's")
    if letter.judged and verdict and (verdict.source == "scan") != bool(letter.by):
        wrong.append(f"turned away by {letter.by or 'rspamd'} it was to be, and was not")
    if verdict:
        wrong += [
            f"{name} {getattr(verdict, name)}, not {getattr(letter, name)}"
            for name in ("spf", "dkim", "dmarc")
            if getattr(letter, name) not in ("", getattr(verdict, name))
        ]
    return _row(passage, wrong)


def relayed_row(passage: Passage, straight: Passage) -> dict[str, Any]:
    """Return the row of a letter that came by the relay; it is held to the straight one.

    Delivered, to Junk where the straight one was refused or filed there; judged as it was. What
    the primary cannot take at all, for want of an extension, the relay must not take either.
    """
    if passage.letter.by == EXTENSION and straight.outcome != "take":
        wrong = ["taken, though the primary cannot take it"] if passage.outcome == "take" else []
        return _row(passage, wrong)
    if passage.outcome != "take":
        return _row(passage, ["not taken by the relay"])
    wrong = [*_not_delivered(passage), *_misfiled(passage, straight)]
    if passage.folders and passage.letter.judged:
        wrong += _judged_otherwise(passage.verdict, straight.verdict)
    return _row(passage, wrong)


def _not_delivered(passage: Passage) -> list[str]:
    found, wanted = len(passage.folders), len(passage.letter.recipients)
    return [] if found == wanted else [f"{found} of {wanted} copies: {passage.ended}"]


def _misfiled(passage: Passage, straight: Passage) -> list[str]:
    wanted = _folder(straight)
    strays = sorted(set(passage.folders) - {wanted})
    return [f"in {', '.join(strays)}, not in {wanted}"] if strays else []


def _folder(straight: Passage) -> str:
    """Return where mail belongs that fared as ``straight``."""
    if straight.folders:
        return straight.ended
    # Deferred for ever is no verdict: the filter's own decides.
    is_junk = straight.outcome == "refuse" or (straight.verdict and straight.verdict.is_junk)
    return "Junk" if is_junk else "INBOX"


def _judged_otherwise(relayed: Verdict | None, straight: Verdict | None) -> list[str]:
    if relayed is None or straight is None:
        return ["no verdict of rspamd's to compare"]
    unmarked = [] if DRAINED in relayed.symbols else [f"{DRAINED} is missing"]
    return [*unmarked, *differences(straight, relayed)]


def _row(passage: Passage, wrong: Sequence[str]) -> dict[str, Any]:
    verdict = passage.verdict
    return {
        "name": passage.letter.name,
        "path": passage.path,
        "answers": list(passage.answers),
        "ended": passage.ended,
        "score": verdict and round(verdict.score, 2),
        "spf": verdict.spf if verdict else "",
        "dkim": verdict.dkim if verdict else "",
        "dmarc": verdict.dmarc if verdict else "",
        "client": verdict.client if verdict else "",
        "source": verdict.source if verdict else "",
        "parity": not wrong,
        "differences": list(wrong),
    }
