"""Which relay keeps a message that has not come: its queue, asked over SSH."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from email.parser import HeaderParser
from typing import Any

from backup_mx.config import Config
from backup_mx.errors import BackupMxError, MachineError
from backup_mx.machine.ship import Host, SshHost, must
from backup_mx.relay.operator.verbs import PROGRAM

_EARLIER = 60.0
"""Seconds by which a relay's clock may be behind ours."""


@dataclass(frozen=True)
class Answer:
    """What the relays say: which one keeps it, and why it waits there, each "" where none does.

    silent says which one could not be asked, and why, "" where all answered.
    """

    relay: str = ""
    why: str = ""
    silent: str = ""


def waiting(host: Host, recipient: str, since: float, field: str) -> dict[str, str]:
    """Return why each message waits that a relay took for ``recipient`` since then, by its mark.

    since is in seconds since 1970. The mark is what the message's header has in ``field``: by it
    one is told from other mail for him, as its Message-ID may be the account's own. Raises
    MachineError, UnreachableError, HostError.
    """
    reasons = _listed(host, recipient, since)
    marks = _marks(host, reasons, field) if reasons else {}
    return {mark: reasons[queue_id] for queue_id, mark in marks.items()}


def _listed(host: Host, recipient: str, since: float) -> dict[str, str]:
    """Return why each of those messages waits, by its queue ID."""
    said = must(host, (PROGRAM, "queue", "--json", "--limit", "0", "--search", recipient))
    try:
        listed = json.loads(said)["messages"]
        ours = [each for each in listed if float(each["accepted"]) >= since - _EARLIER]
        return {
            str(each["id"]): "; ".join(str(to["reason"]) for to in each["recipients"][:1])
            for each in ours
        }
    except (ValueError, KeyError, TypeError, RecursionError):
        raise MachineError(f"the relay lists no queue: {said[:200]!r}") from None


def _marks(host: Host, ids: Iterable[str], field: str) -> dict[str, str]:
    """Return the mark of each of those messages that still lies there and has one, by its ID."""
    said = must(host, (PROGRAM, "show", "--json", "-"), stdin="\n".join(ids).encode())
    try:
        shown = [json.loads(line) for line in said.splitlines()]
        found = {str(each["id"]): _mark(each, field) for each in shown}
    except (ValueError, KeyError, TypeError, RecursionError):
        raise MachineError(f"the relay shows no messages: {said[:200]!r}") from None
    return {queue_id: mark for queue_id, mark in found.items() if mark}


def _mark(shown: Mapping[str, Any], field: str) -> str:
    """Return what a message has in a field, "" for none. Raises MachineError: it cannot be read."""
    if shown["error"]:
        raise MachineError(f"{shown['id']} cannot be read: {shown['error']}")
    message = shown["message"]  # None: handed over since it was listed
    return str(HeaderParser().parsestr(message["headers"]).get(field, "")) if message else ""


def asked(config: Config, recipient: str, since: float, field: str, mark: str) -> Answer:
    """Ask every relay whether it keeps the message with that mark; see `waiting`."""
    silent = ""
    for relay in config.relays.values():
        try:
            found = waiting(SshHost(relay.ssh), recipient, since, field)
            if mark in found:
                return Answer(relay.name, found[mark])
        except BackupMxError as error:
            silent = silent or f"{relay.name} cannot be asked: {error}"
    return Answer(silent=silent)
