"""What changes the queue: what ``hold``, ``drain``, ``maintenance`` and their like answer."""

from __future__ import annotations

import contextlib
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict

from backup_mx.errors import MachineError
from backup_mx.relay import state, text
from backup_mx.relay.ledger.query import Reader
from backup_mx.relay.ledger.rows import Filter
from backup_mx.relay.operator import look, selecting
from backup_mx.relay.operator.asking import Asked, Said
from backup_mx.relay.operator.selecting import UsageError
from backup_mx.relay.queue.commands import Postfix
from backup_mx.relay.root import client, guard, maintenance
from backup_mx.relay.root.protocol import GONE, Result

FOR = 4 * 3600
"""Seconds that maintenance lasts if nobody says how long."""
_NAMED = 20  # messages that are named one by one


def change(asked: Asked) -> Said:
    """Answer ``hold``, ``release``, ``requeue`` and ``delete``."""
    ids = selecting.meant(asked.given, asked.options, asked.stdin)
    if asked.verb == "delete" and ids and not asked.options.get("yes"):
        named = ids[0] if len(ids) == 1 else text.counted(len(ids))
        if not asked.confirm(f"Delete {named} for ever?"):
            raise MachineError("nothing was deleted")
    results = client.change(asked.verb, ids, by=asked.who.name, address=asked.who.address)
    if asked.verb == "delete":
        results = _written_off(results)
    return told(results)


def _written_off(results: Sequence[Result]) -> list[Result]:
    """Say of what the ledger misses that it is written off by what the helper noted in the log."""
    gone = {each.id for each in results if each.said == GONE}
    missed: set[str] = set()
    # What became of each has to be told; only these words need a ledger that can be read.
    with contextlib.suppress(MachineError), look.agent() as (reader, _):
        missed = {each for each in gone if reader is not None and _differs(reader, each)}
    words = "is not in the queue; the ledger writes it off"
    return [Result(each.id, True, words) if each.id in missed else each for each in results]


def _differs(reader: Reader, queue_id: str) -> bool:
    story = reader.message(queue_id)
    return bool(story and story.row.trouble)


def told(results: Sequence[Result], **beside: str) -> Said:
    """Return what became of messages, and what programs are told beside it."""
    failed = [each for each in results if not each.done]
    data = {**beside, "results": [asdict(each) for each in results]}
    return Said(data, _lines(results, failed), code=1 if failed else 0)


def _lines(results: Sequence[Result], failed: Sequence[Result]) -> list[str]:
    if not results:
        return [selecting.NOBODY]
    if len(results) <= _NAMED:
        return [f"{each.id}: {text.printable(each.said)}" for each in results]
    tally = Counter(each.said for each in results)
    lines = [f"{number:,} {text.printable(said)}" for said, number in tally.most_common()]
    lines += [f"{each.id}: {text.printable(each.said)}" for each in failed[:_NAMED]]
    more = len(failed) - _NAMED
    return [*lines, f"… and {more:,} more that could not be changed"] if more > 0 else lines


def drain(_asked: Asked) -> Said:
    """Answer ``drain``: mail is tried, even if nobody tells how much that is."""
    client.ask("flush")
    tried: int | None = None
    held: int | None = None
    try:
        tried, held = _lying()
        lines = [f"{_are(tried)} tried now." if tried or held else "Nothing waits."]
        lines += [f"{_are(held)} on hold, and not tried."] if held else []
    except MachineError as error:
        why = text.printable(str(error))
        lines = [f"All that waits is tried now; how much, nobody tells: {why}"]
    until = maintenance.until()
    if until:
        lines.append(f"Maintenance keeps all mail here until {text.moment(until)}.")
    return Said({"tried": tried, "held": held, "maintenance": until or None}, lines)


def _lying() -> tuple[int, int]:
    """Return how many messages wait in delivery, and on hold. Raises MachineError."""
    found = look.listing(Filter(limit=1))
    held = sum(each.messages for each in found.counts or () if each.fate == state.HELD)
    return found.total - held, held


def _are(messages: int) -> str:
    return "1 message is" if messages == 1 else f"{messages:,} messages are"


def maintain(asked: Asked) -> Said:
    """Answer ``maintenance``."""
    what = asked.given[0]
    lasts = asked.options.get("for")
    if lasts is not None and what != "on":
        raise UsageError("--for belongs to maintenance on")
    if what != "status":
        until = int(time.time()) + (FOR if lasts is None else lasts) if what == "on" else 0
        client.ask("maintenance", until=until, by=asked.who.name, from_=asked.who.address)
    end = maintenance.until()
    line = (
        f"Mail is accepted and kept until {text.moment(end)}."
        if end
        else "There is no maintenance."
    )
    return Said({"until": end or None}, [line])


def do_guard(_asked: Asked) -> Said:
    """Answer ``guard``."""
    lines: list[str] = []
    results = guard.run(Postfix(), lines.append)
    return Said({"results": [asdict(each) for each in results]}, lines or ["Nothing was due."])
