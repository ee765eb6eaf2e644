"""Copies of queued messages: nothing in the queue changes."""

from __future__ import annotations

import hashlib
import os
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from backup_mx.errors import BackupMxError, MachineError
from backup_mx.relay.ledger.query import Reader
from backup_mx.relay.ledger.rows import RETENTION, Filter
from backup_mx.relay.ledger.veil import Veil
from backup_mx.relay.operator import look, parcel
from backup_mx.relay.operator.parcel import Letter, To
from backup_mx.relay.queue import envelope, spool
from backup_mx.relay.queue.commands import Postfix, setting
from backup_mx.relay.queue.envelope import Envelope
from backup_mx.relay.root.protocol import GONE, RECEIVED_NOW, Result

CARRIED = 48 << 20
"""Bytes of messages after which one answer to another machine ends: it asks for the rest."""


@dataclass(frozen=True)
class Known:
    """What is known of a message beside its file: why it waits, for each recipient; who held it.

    veil says how a recipient stands in reasons.
    """

    reasons: dict[str, str]
    holder: str = ""
    veil: Veil = field(default_factory=Veil)

    def why(self, address: str) -> str:
        """Return why it waits for a recipient, "" where nobody knows."""
        found = (self.reasons.get(form, "") for form in self.veil.forms(address))
        return next(filter(None, found), "")


@dataclass
class _Measure:
    """Passes bytes on, and knows their number and hash."""

    size: int = 0

    def __post_init__(self) -> None:
        self.hash = hashlib.sha256()

    def passed(self, chunks: Iterable[bytes]) -> Iterator[bytes]:
        for chunk in chunks:
            self.size += len(chunk)
            self.hash.update(chunk)
            yield chunk


def export(postfix: Postfix, ids: Sequence[str], folder: Path) -> list[Result]:
    """Copy messages to ID.eml and ID.json in ``folder``, readable by their owner only.

    All of it would outlast a power cut. Raises MachineError when nothing can be written; a message
    that is gone, not yet whole, or that no import would take, is no reason to stop.
    """
    box = parcel.Inbox(folder)
    try:
        box.begin()
        results = list(_each(ids, lambda lines: [box.take(line) for line in lines], postfix))
        box.end()
    except OSError as error:
        raise MachineError(f"{folder} cannot be written: {error.strerror}") from None
    return results


def carry(postfix: Postfix, ids: Sequence[str], tell: Callable[[str], None]) -> list[Result]:
    """Tell messages line by line, for another machine's parcel.Inbox; stop when it is enough."""
    told = 0
    results = []

    def give(lines: Iterator[str]) -> None:
        nonlocal told
        for line in lines:
            told += len(line)
            tell(line)

    for result in _each(ids, give, postfix):
        results.append(result)
        if told >= CARRIED:
            break
    return results


def _each(
    ids: Sequence[str], give: Callable[[Iterator[str]], object], postfix: Postfix
) -> Iterator[Result]:
    host, known = setting("myhostname"), about(ids)
    for each in ids:
        try:
            give(_lines(postfix, host, each, known.get(each, Known({}))))
        except BackupMxError as error:
            yield Result(each, False, str(error))
        else:
            yield Result(each, True, "exported")


def _lines(postfix: Postfix, host: str, queue_id: str, known: Known) -> Iterator[str]:
    """Yield the lines in which a message travels. Raises MachineError, ParcelError."""
    place = spool.find([queue_id], postfix.spool).get(queue_id)
    if place is None:
        raise MachineError(GONE)
    try:
        whole = spool.complete(place.path.stat())
    except FileNotFoundError:
        whole = True  # it has just been moved, and so is complete
    if not whole or place.queue == "maildrop":
        raise MachineError(RECEIVED_NOW)
    found = envelope.parse(postfix.envelope(queue_id))
    measure = _Measure()
    with postfix.message(queue_id) as stream:
        yield from parcel.carried(queue_id, measure.passed(parcel.wire(stream)))
    if not any(not each.done for each in found.recipients):
        raise MachineError("everybody it was for has it")
    # What the agent holds for its age it would hold again, and release when it is time to.
    held = place.queue == "hold" and known.holder != RETENTION
    digest = measure.hash.hexdigest()
    made = letter(host, queue_id, found, known.why, measure.size, digest, held=held)
    parcel.read(made.text)  # what could not be read there must not go
    yield parcel.sealed(made)


def letter(
    host: str,
    queue_id: str,
    found: Envelope,
    why: Callable[[str], str],
    size: int,
    sha256: str,
    *,
    held: bool,
) -> Letter:
    """Return what ID.json says of a message; why tells a recipient's reason."""
    first = found.attributes.get("log_ident", queue_id)
    return Letter(
        format=parcel.FORMAT,
        relay=host,
        ids=tuple(dict.fromkeys((first, queue_id))),
        sender=found.sender,
        recipients=tuple(
            To(each.address, each.original, each.orcpt, each.notify, why(each.address))
            for each in found.recipients
            if not each.done
        ),
        # The clock may have been ahead, and nobody believes in a message from the future.
        accepted=min(envelope.seconds(found.arrival), int(time.time())),
        held=held,
        size=size,
        sha256=sha256,
        smtputf8=found.smtputf8,
        eightbit=found.eightbit,
        attributes=found.attributes,
    )


def about(ids: Sequence[str]) -> dict[str, Known]:
    """Return what is known of each message: from the ledger, or from Postfix."""
    with look.agent() as (reader, snapshot):
        if reader is not None and look.fresh(snapshot):
            return {each: _of_story(reader, each) for each in ids}
    wanted = set(ids)
    items = look.listing(Filter(limit=0)).items
    return {each.id: Known(dict(each.recipients)) for each in items if each.id in wanted}


def _of_story(reader: Reader, queue_id: str) -> Known:
    story = reader.message(queue_id)
    if story is None:
        return Known({})
    reasons = {each.address: each.last.words for each in story.recipients if each.last}
    return Known(reasons, story.row.asked_by, reader.veil())


def results_folder(given: object) -> Path:
    """Return the folder that was asked for, or the one we are in."""
    return Path(str(given) if given else os.curdir).absolute()
