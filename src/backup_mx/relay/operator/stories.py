"""Messages' stories, and the whole ledger's: what ``show`` and ``ledger`` answer."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import asdict, replace
from typing import Any

from backup_mx.errors import MachineError
from backup_mx.relay import state, text
from backup_mx.relay.ledger import query
from backup_mx.relay.ledger.rows import Action, Difference, Story
from backup_mx.relay.operator import look, selecting
from backup_mx.relay.operator.asking import Asked, Said
from backup_mx.relay.operator.status import sum_line
from backup_mx.relay.root import client

_ACTS = 20
_MISSED = 1000
_DULL = ("log_", "reverse_", "client_", "server_", "rewrite_", "helo_name", "protocol_name")
"""Beginnings of attributes that tell nothing which is not said in other words."""


def show(asked: Asked) -> Iterator[Said]:
    """Answer ``show``, message by message: its story, and, while it lies here, the message."""
    ids = selecting.meant(asked.given, asked.options, asked.stdin)
    if not ids:
        yield Said(None, [selecting.NOBODY])
    with look.agent() as (reader, snapshot):
        there, stale = reader is not None, look.stale(snapshot)
    told = ""
    for number, each in enumerate(ids):
        story, trouble = _story(each) if there else (None, "")
        remark = trouble or (stale if story else "")
        lines = [""] if number else []
        if remark not in ("", told):
            told = remark
            lines.append(remark)
        said = _shown(each, story, body=bool(asked.options.get("body")))
        yield replace(said, lines=[*lines, *said.lines])


def _story(queue_id: str) -> tuple[Story | None, str]:
    """Return what the ledger tells of a message, or why it cannot be read.

    It is opened for each message: a reader sees it as of one moment.
    """
    try:
        with query.reading() as ledger:
            return ledger.message(queue_id), ""
    except MachineError as error:
        return None, str(error)


def _shown(queue_id: str, story: Story | None, *, body: bool) -> Said:
    """Tell of one message; with 1 where neither the ledger nor the queue knows it."""
    message, error = _lying(story.row.id if story else queue_id, body=body)
    if story and story.row.fate not in {state.WAITING, state.HELD}:
        error = None  # it is not to lie here any more
    data = {
        "id": queue_id,
        "story": asdict(story) if story else None,
        "message": message,
        "error": error,
    }
    lines = [*(_story_lines(story) if story else ()), *(_message_lines(message) if message else ())]
    if error:
        why = error if error.startswith(queue_id) else f"{queue_id}: {error}"
        lines.append(text.printable(f"the message cannot be read: {error}" if story else why))
    return Said(data, lines, code=0 if story or message else 1)


def _lying(queue_id: str, *, body: bool) -> tuple[dict[str, Any] | None, str | None]:
    """Return a message as it lies in the queue, or why it cannot be read."""
    try:
        return client.show(queue_id, body=body), None
    except MachineError as error:
        return None, str(error)


def _story_lines(story: Story) -> list[str]:
    row = story.row
    lines = [
        f"{row.id}: {row.fate}" + (f", {row.why}" if row.fate == state.WAITING else ""),
        f"from:     {row.sender or '<>'}",
        f"accepted: {text.moment(row.accepted)} ({text.span(time.time() - row.accepted)} ago)"
        + (f", from {story.client}" if story.client else ""),
        f"size:     {text.size(row.size)}",
    ]
    if len(story.ids) > 1:
        lines.append(f"IDs:      {', '.join(story.ids)}")
    if row.trouble:
        lines.append(f"TROUBLE:  {row.trouble}")
    for person in story.recipients:
        last = person.last
        words = (
            f": {last.status}, {last.words} ({text.counted(last.times, 'time')})" if last else ""
        )
        lines.append(f"to:       {person.address}{' (done)' if person.done else ''}{words}")
    lines += [_action_line(each) for each in story.actions]
    return [text.printable(line) for line in lines]


def _action_line(action: Action) -> str:
    source = f" from {action.source}" if action.source else ""
    undone = "" if action.done else " (without effect)"
    return f"{text.moment(action.time)}: {action.id}: {action.verb} by {action.by}{source}{undone}"


def _message_lines(message: dict[str, Any]) -> list[str]:
    people = [each for each in message["recipients"] if not each["done"]]
    lines = [
        "",
        f"{message['id']} lies in {message['queue']}, {text.size(message['size'])}",
        f"MAIL FROM:<{message['sender']}>",
        *(f"RCPT TO:<{each['address']}>" for each in people),
        *(
            f"{key}: {value}"
            for key, value in message["attributes"].items()
            if not key.startswith(_DULL)
        ),
    ]
    parts = [message["headers"], *([message["body"]] if "body" in message else [])]
    shown = [text.printable(line) for line in lines]
    shown += ["", *text.lines("".join(parts)).rstrip("\n").split("\n")]
    return [*shown, "… (there is more of it)"] if message["cut"] else shown


def ledger(_asked: Asked) -> Said:
    """Answer ``ledger``: with 1 where it does not add up."""
    with look.agent() as (reader, snapshot):
        if reader is None:
            raise MachineError("there is no ledger: the agent has not run yet")
        sums, differences = reader.sums(), reader.differences(_MISSED)
        actions = reader.actions(_ACTS)
    data = {
        **asdict(sums),
        "even": sums.even,
        "missed": [asdict(each) for each in differences],
        "actions": [asdict(each) for each in actions],
        "agent": look.fresh(snapshot),
    }
    lines = [sum_line(sums)]
    if words := look.stale(snapshot):
        lines.append(words)
    lines += [text.printable(_difference_line(each)) for each in differences]
    if differences:
        lines.append("backup-mx show ID tells more; backup-mx delete ID writes one off.")
    lines += [text.printable(_action_line(each)) for each in actions]
    return Said(data, lines, code=0 if sums.even else 1)


def _difference_line(each: Difference) -> str:
    people = ", ".join(each.recipients)
    return (
        f"{each.id}: {each.trouble} since {text.moment(each.since)}; accepted"
        f" {text.moment(each.accepted)} from {each.sender or '<>'} to {people}"
    )
