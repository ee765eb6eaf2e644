"""What each line of the log means for the message it speaks of. Works on a Book, no SQL here.

A message is accepted when Postfix's queue manager has it, or a listing of the spool has shown it,
complete. A probe of verify(8) looks like one with a null sender that came from nowhere, until its
outcome: such ones are not counted before somebody tried to deliver them.
"""

from __future__ import annotations

import json
import re
import sqlite3
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable
from functools import lru_cache

from backup_mx.relay.decide.drain import Tally
from backup_mx.relay.ledger.book import Book, Leaf, Message, Recipient
from backup_mx.relay.ledger.deeds import Deeds
from backup_mx.relay.ledger.rows import RETENTION
from backup_mx.relay.ledger.schema import (
    ACCEPTED,
    ARRIVING,
    DELETED,
    DELIVERED,
    HELD,
    WAITING,
)
from backup_mx.relay.ledger.veil import Veil, domain
from backup_mx.relay.log import events
from backup_mx.relay.queue import reasons

THROWN_AWAY = "it bounced, and Postfix made no notice of it"
MISSING = "it waits for all that the log tells, but it is not in the spool"
CORRUPT = "Postfix has put it aside as corrupt"

NOBODY = "postfix"
"""``held_by`` of the notices that Postfix itself puts on hold."""

_WORDS = 1000  # characters of a server's words that are kept
# From the beginning of a run only: a stranger chooses how long it is.
_SHAPE = re.compile(r"(?<![0-9A-Fa-f])[A-Fa-f]*[0-9][0-9A-Fa-f]*")
_PROBERS = ("", "double-bounce")

class_of = lru_cache(maxsize=512)(reasons.class_of)


_OF_TWO = (events.Submitted, events.Noticed, events.Imported)
_OF_NONE = (events.Counted, events.Rejected, events.Swept)


def ids(told: Iterable[events.Event]) -> set[str]:
    """Return the queue IDs that events speak of."""
    found: set[str] = set()
    for event in told:
        if isinstance(event, _OF_NONE):
            continue
        found.add(event.id)
        if isinstance(event, _OF_TWO):
            found.add(_other(event))
    return found


def _other(event: events.Submitted | events.Noticed | events.Imported) -> str:
    if isinstance(event, events.Submitted):
        return event.original
    if isinstance(event, events.Noticed):
        return event.notice
    return event.origin.rpartition("/")[2]


class Clerk:
    """Enters events into a book; actions and sweeps go into their own tables."""

    def __init__(self, database: sqlite3.Connection, veil: Veil) -> None:
        self._database = database
        self._veil = veil
        self._book = Book(database)
        self._deeds = Deeds(database)
        self._deleted: tuple[int, int] = (0, 0)
        self._answers: Counter[tuple[str, str]] = Counter()
        self._handlers: dict[type, Callable[..., None]] = {
            events.Counted: self._counted,
            events.Rejected: self._rejected,
            events.Arrived: self._arrived,
            events.Submitted: self._submitted,
            events.Named: self._named,
            events.Parked: self._parked,
            events.Cancelled: self._cancelled,
            events.Queued: self._queued,
            events.Tried: self._tried,
            events.Expired: self._expired,
            events.Noticed: self._noticed,
            events.Removed: self._removed,
            events.Changed: self._changed,
            events.Swept: self._swept,
            events.Announced: self._announced,
            events.Imported: self._imported,
        }

    def enter(self, told: Iterable[events.Event]) -> dict[str, int]:
        """Enter a batch of events; return what was counted. Commits nothing."""
        batch = list(told)
        self._answers.clear()
        self._book = Book(self._database)
        self._book.fetch(ids(batch))
        found = self._database.execute("SELECT value FROM meta WHERE key = 'postsuper'").fetchone()
        self._deleted = tuple(json.loads(found[0])) if found else (0, 0)
        for event in batch:
            self._handlers[type(event)](event)
        self._book.write()
        kept = json.dumps(self._deleted)
        self._database.execute("INSERT OR REPLACE INTO meta VALUES ('postsuper', ?)", (kept,))
        return dict(self._book.counts)

    @property
    def answers(self) -> dict[str, Tally]:
        """What the last batch told of each domain's primary, in recipients."""
        told: defaultdict[str, dict[str, int]] = defaultdict(dict)
        for (where, kind), count in self._answers.items():
            told[where][kind] = count
        return {where: Tally(**counts) for where, counts in told.items()}

    def _counted(self, event: events.Counted) -> None:
        self._book.counts[event.name] += 1

    def _rejected(self, event: events.Rejected) -> None:
        self._book.counts[f"refusals:{event.kind}"] += 1

    # --- How a message comes

    def _known(self, queue_id: str) -> Leaf | None:
        """Return a message that the log speaks of, and so lives: what was doubted is settled."""
        leaf = self._book.find(queue_id)
        if leaf and leaf.message.doubt:
            leaf.message.doubt, leaf.message.doubted = "", None
        if leaf and leaf.message.trouble == MISSING:
            leaf.message.trouble = ""
        return leaf

    def _here(self, queue_id: str, time: float) -> Leaf:
        """Return a message that must have been accepted, even if the log did not say so."""
        leaf = self._known(queue_id) or self._book.begin(queue_id, time)
        self._accept(leaf, time)
        return leaf

    def _accept(self, leaf: Leaf, time: float) -> None:
        if leaf.message.fate == ARRIVING:
            leaf.message.fate = WAITING
            leaf.message.accepted = leaf.message.queued = time
            self._book.counts["accepted"] += 1
            self._book.counts[ACCEPTED] += 1

    def _arrived(self, event: events.Arrived) -> None:
        leaf = self._known(event.id)
        if leaf is None or leaf.message.ended or leaf.message.queue_id != event.id:
            leaf = self._book.begin(event.id, event.time)
        leaf.message.client, leaf.message.origin = event.client, "smtpd"

    def _submitted(self, event: events.Submitted) -> None:
        if not event.original:
            leaf = self._known(event.id)
            if leaf is None or leaf.message.ended:
                leaf = self._book.begin(event.id, event.time)
            leaf.message.sender, leaf.message.origin = self._veil.sender(event.sender), "pickup"
            return
        leaf = self._here(event.original, event.time)
        other = self._book.find(event.id)
        if other and other is not leaf:
            self._book.merge(leaf, other)
        self._book.name(event.id, leaf)
        message = leaf.message
        self._book.counts["requeued"] += 1
        if event.original == message.notice:
            message.notice, message.parked = event.id, 0
            return
        message.queue_id, message.queued, message.released = event.id, event.time, event.time
        self._wait(leaf)

    def _named(self, event: events.Named) -> None:
        leaf = self._known(event.id) or self._book.begin(event.id, event.time)
        if not leaf.message.message_id:
            leaf.message.message_id = self._veil.sender(event.message_id[:_WORDS])

    def _parked(self, event: events.Parked) -> None:
        leaf = self._known(event.id) or self._book.begin(event.id, event.time)
        leaf.message.parked = 1

    def _cancelled(self, event: events.Cancelled) -> None:
        leaf = self._known(event.id)
        if leaf and leaf.message.fate == ARRIVING:
            self._book.forget(leaf)

    def _queued(self, event: events.Queued) -> None:
        leaf = self._known(event.id) or self._book.begin(event.id, event.time)
        message = leaf.message
        if event.id == message.queue_id:
            message.size = event.size
            message.sender = message.sender or self._veil.sender(event.sender)
            message.recipients = max(message.recipients, event.recipients)
        if message.fate == ARRIVING:
            if message.origin or event.sender.partition("@")[0] not in _PROBERS:
                self._accept(leaf, event.time)
        elif message.fate != WAITING and event.id == message.queue_id:
            self._wait(leaf)

    def _wait(self, leaf: Leaf) -> None:
        """Note that a message is in delivery again, whatever was thought of it."""
        message = leaf.message
        if message.fate == HELD:
            self._book.counts["released"] += 1
        elif message.ended:
            self._book.counts["reopened"] += 1
        message.fate, message.ended, message.ended_by = WAITING, None, ""
        message.held, message.held_by = None, ""

    # --- How it fares

    def _tried(self, event: events.Tried) -> None:
        if event.status == events.PROBED:
            self._probed(event)
            return
        leaf = self._here(event.id, event.time)
        recipient = self._recipient(leaf, event.recipient)
        self._run(leaf, recipient, event)
        counts = self._book.counts
        if event.status == events.SENT:
            recipient.done = 1
            counts["deliveries"] += 1
            self._answers[recipient.domain, "delivered"] += 1
        elif event.status == events.BOUNCED:
            recipient.done = 2
            counts["bounced"] += 1
        else:
            refused, recipient.done = event.status == events.REFUSED, 0
            counts[f"attempts:{recipient.why}"] += 1
            counts["softened"] += refused
            self._answers[recipient.domain, "refused" if refused else "put_off"] += 1

    def _recipient(self, leaf: Leaf, address: str) -> Recipient:
        shown = self._veil.recipient(address)
        known = leaf.to.get(shown) or leaf.to.get(self._veil.twin(address))
        if known is None:
            known = leaf.to[shown] = Recipient(shown, domain(address))
        return known

    def _run(self, leaf: Leaf, recipient: Recipient, event: events.Tried) -> None:
        """Count an attempt to the run it is like, or begin another run with it."""
        words = self._veil.words(event.words[:_WORDS])
        same = recipient.status == event.status and (
            recipient.words == words or _shape(recipient.words) == _shape(words)
        )
        if not same:
            if recipient.times:
                self._book.keep_run(leaf, recipient)
            recipient.status, recipient.words, recipient.first = event.status, words, event.time
            recipient.why = class_of(event.words)
            recipient.times = 0
        recipient.dsn, recipient.relay, recipient.last = event.dsn, event.relay, event.time
        recipient.times += 1
        recipient.total += 1

    def _probed(self, event: events.Tried) -> None:
        """Strike what was no message; it may have been taken for one."""
        leaf = self._known(event.id)
        if leaf is None or leaf.message.ended:
            return
        if leaf.message.fate != ARRIVING:
            self._book.counts[ACCEPTED] -= 1
        self._book.forget(leaf)

    # --- How it ends

    def _expired(self, event: events.Expired) -> None:
        self._here(event.id, event.time).message.expired = 1
        self._book.counts["expired"] += 1

    def _noticed(self, event: events.Noticed) -> None:
        self._book.counts["dsn"] += 1
        leaf = self._here(event.id, event.time)
        other = self._book.find(event.notice)
        if other and other is not leaf:
            leaf.message.parked = other.message.parked or int(other.message.fate == HELD)
            self._book.merge(leaf, other)
        self._book.name(event.notice, leaf)
        leaf.message.notice = event.notice
        if leaf.message.trouble == THROWN_AWAY:
            self._live_on(leaf, event.time)

    def _live_on(self, leaf: Leaf, time: float) -> None:
        """Let the notice be the message: its body is in it, whole."""
        message = leaf.message
        message.queue_id, message.notice, message.expired, message.trouble = (
            message.notice,
            "",
            0,
            "",
        )
        if message.parked:
            message.fate, message.held, message.held_by = HELD, time, NOBODY
            self._book.counts["held"] += 1
        for recipient in leaf.to.values():
            recipient.done = recipient.done or 2
        message.parked = 0

    def _removed(self, event: events.Removed) -> None:
        leaf = self._known(event.id)
        if leaf is None or leaf.message.ended or event.id != leaf.message.queue_id:
            return
        if leaf.message.fate == ARRIVING:
            if not leaf.message.origin:
                self._book.forget(leaf)
                return
            self._accept(leaf, event.time)
        if not leaf.bounced:
            self._end(leaf, DELIVERED, event.time, "")
        elif leaf.message.notice:
            self._live_on(leaf, event.time)
        else:
            leaf.message.trouble = THROWN_AWAY

    def _end(self, leaf: Leaf, fate: int, time: float, by: str) -> None:
        message = leaf.message
        message.fate, message.ended, message.ended_by = fate, time, by
        message.trouble = message.notice = message.asked = ""
        message.held, message.held_by = None, ""
        for recipient in leaf.to.values():
            recipient.done = recipient.done or int(fate == DELIVERED)
        self._book.counts["delivered" if fate == DELIVERED else "deleted"] += 1

    # --- What people do to it

    def _changed(self, event: events.Changed) -> None:
        if event.verb == "delete":
            self._deleted_by_postsuper(event)
            return
        leaf = self._here(event.id, event.time)
        message, by = leaf.message, self._deeds.settle(leaf.message, event)
        if event.id == message.notice:
            message.parked = int(event.verb == "hold")
        elif event.verb == "hold":
            self._book.counts["held"] += message.fate != HELD
            message.fate, message.held, message.held_by = HELD, event.time, by
            message.ended = None
        else:
            self._wait(leaf)
            message.released = event.time
            message.queued = event.time if event.verb == "requeue" else message.queued

    def _deleted_by_postsuper(self, event: events.Changed) -> None:
        process, deleted = self._deleted
        self._deleted = (event.process, deleted + 1 if process == event.process else 1)
        leaf = self._known(event.id)
        if leaf is None or leaf.message.ended:
            return
        if event.id == leaf.message.queue_id:
            self._accept(leaf, event.time)  # who deletes it has seen it in the queue
            self._end(leaf, DELETED, event.time, self._deeds.settle(leaf.message, event))
        elif event.id == leaf.message.notice:
            leaf.message.notice = ""

    def _announced(self, event: events.Announced) -> None:
        leaf = self._book.find(event.id)
        message = leaf.message if leaf else None
        lost = bool(message and message.trouble and event.verb == "delete")
        taken = bool(message and _takes_over(message, event))
        number = self._deeds.note_announced(message, event, done=lost or taken)
        if leaf and lost:
            self._end(leaf, DELETED, event.time, event.by)
        elif message:
            message.asked = json.dumps([number, event.verb, event.by, event.time])
            message.held_by = event.by if taken else message.held_by

    def _swept(self, event: events.Swept) -> None:
        """Note how many messages postsuper deleted without naming them (``-d ALL``)."""
        process, deleted = self._deleted
        unnamed = event.messages - (deleted if process == event.process else 0)
        self._deleted = (0, 0)
        if unnamed > 0:
            self._deeds.sweep(event.time, unnamed)

    def _imported(self, event: events.Imported) -> None:
        leaf = self._here(event.id, event.time)
        old = self._book.find(event.origin.rpartition("/")[2])
        self._book.counts["imported"] += 1
        self._deeds.add(
            leaf.message.id, event.time, "import", event.id, event.by, event.origin, done=True
        )
        leaf.message.accepted, leaf.message.origin = event.accepted, event.origin
        if old and old is not leaf and old.message.fate == DELETED:
            self._book.merge(leaf, old)  # exported, deleted and put back here: one message


def _takes_over(message: Message, event: events.Announced) -> bool:
    """Tell whether somebody but retention holds what is held already: it is his from now on."""
    held = message.fate == HELD and event.id == message.queue_id
    return held and event.verb == "hold" and event.by != RETENTION


def _shape(words: str) -> str:
    """Return words without their numbers: servers count, and name their own queue IDs."""
    return _SHAPE.sub("#", words)
