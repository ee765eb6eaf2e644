"""What waits, in a table: what ``queue`` answers."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterator
from typing import Any

from backup_mx.relay import state, text
from backup_mx.relay.operator import look, selecting
from backup_mx.relay.operator.asking import Asked, Said
from backup_mx.relay.operator.look import Item, Listing
from backup_mx.relay.queue import reasons
from backup_mx.relay.text import Column


def queue(asked: Asked) -> Said:
    """Answer ``queue``."""
    filters = selecting.wanted(asked.options)
    if asked.options.get("ids"):
        ids = selecting.found(asked.options)
        return Said({"ids": ids}, ids)
    found = look.listing(filters)
    data = {
        "messages": [_item(each) for each in found.items],
        "total": found.total,
        "source": "agent" if found.agent else "postfix",
    }
    return Said(data, _queue_lines(found, asked.room))


def _item(item: Item) -> dict[str, Any]:
    people = [{"address": address, "reason": reason} for address, reason in item.recipients]
    found = {**vars(item), "recipients": people, "class": item.why}
    del found["why"]
    return found


# At their least they have room on 80 columns, beside the widest of the others.
_COLUMNS = (
    Column("ID"),
    Column("class"),
    Column("waits", right=True),
    Column("size", right=True),
    Column("from", least=6, share=1),
    Column("to", least=6, share=1),
    Column("why", least=11, share=2),
)


def _queue_lines(found: Listing, room: int | None) -> Iterator[str]:
    """Yield lines; programs do not ask for them, and a table of thousands takes its time."""
    notes = () if found.agent else ("The agent does not tell what waits; Postfix itself does.",)
    if not found.items:
        yield from notes
        yield "Nothing waits." if found.counts is not None else "Nothing of that kind waits."
        return
    now = time.time()
    yield from text.table(_COLUMNS, (_row(each, now) for each in found.items), room)
    yield from notes
    if found.total > len(found.items):
        yield f"The {len(found.items):,} oldest of {found.total:,}; --limit shows more."
    yield from _sums(found, now)


def _row(item: Item, now: float) -> tuple[str, ...]:
    named = [address for address, _ in item.recipients]
    more = f" +{item.to - len(named)}" if item.to > len(named) else ""
    return (
        item.id,
        item.why,
        text.span(now - item.accepted),
        text.size(item.size),
        item.sender or "<>",
        ", ".join(named) + more,
        item.words or item.trouble,
    )


def _sums(found: Listing, now: float) -> list[str]:
    if found.counts is None:
        return [f"{text.counted(found.total)} of that kind"]
    octets = sum(each.octets for each in found.counts)
    oldest = state.oldest(found.counts) or now
    tally = Counter({each.why: each.messages for each in found.counts})
    classes = ", ".join(f"{tally[each]:,} {each}" for each in reasons.CLASSES if tally[each])
    age = text.span(now - oldest)
    first = f"{found.total:,} waiting, {text.size(octets)}, the oldest for {age}"
    return [first, classes] if classes else [first]
