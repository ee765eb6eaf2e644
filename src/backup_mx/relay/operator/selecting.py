"""Which messages are meant: by their IDs, or by what they have in common."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from backup_mx.errors import BackupMxError, MachineError
from backup_mx.relay import state, text
from backup_mx.relay.ledger.rows import Filter
from backup_mx.relay.operator import look, verbs
from backup_mx.relay.queue import queueid

LIMIT = 100
NOBODY = "No message is meant."
_NAMED = 5


class UsageError(BackupMxError):
    """What was asked cannot be meant."""

    exit_code = 2


def wanted(options: Mapping[str, Any]) -> Filter:
    """Return the filter that the options make. Raises UsageError."""
    if options.get("held") and options.get("waiting"):
        raise UsageError("--held and --waiting exclude each other")
    fate = state.HELD if options.get("held") else state.WAITING if options.get("waiting") else ""
    limit = options.get("limit")
    return Filter(
        domain=options.get("domain") or "",
        why=options.get("class") or "",
        older=options.get("older") or 0,
        fate=fate,
        search=options.get("search") or "",
        limit=LIMIT if limit is None else limit,
    )


def meant(
    given: Sequence[str],
    options: Mapping[str, Any],
    stdin: Iterable[str],
    listed: Callable[[], Iterable[str]] | None = None,
) -> list[str]:
    """Return the queue IDs that are meant, each once; "-" stands for those on ``stdin``.

    listed tells the IDs of all that the options mean, where another host has to be asked. Raises
    UsageError where it is not clear, MachineError where nobody tells what waits.
    """
    if not by_filter(given, options):
        ids = [each for part in given for each in (stdin if part == "-" else (part,))]
        return checked(filter(None, map(str.strip, ids)))
    return _told(listed()) if listed else found(options)


def found(options: Mapping[str, Any]) -> list[str]:
    """Return the queue IDs of all that the options mean, each once. Raises MachineError."""
    return _told(look.ids(wanted(options)))


def _told(listed: Iterable[str]) -> list[str]:
    ids = list(dict.fromkeys(listed))
    if wrong := _wrong(ids):  # what the log says comes from strangers, and reaches root's commands
        raise MachineError(f"what waits is listed with {wrong}")
    return ids


def by_filter(given: Sequence[str], options: Mapping[str, Any]) -> bool:
    """Tell whether messages are meant by what they have in common. Raises UsageError if unclear."""
    filters = any(options.get(each.key) for each in (*verbs.FILTERS, verbs.ALL))
    if bool(given) == filters:
        raise UsageError("say which messages: either queue IDs, or --all or a filter")
    return filters


def checked(ids: Iterable[str]) -> list[str]:
    """Return the IDs, each once. Raises UsageError where one of them is none."""
    named = list(dict.fromkeys(ids))
    if wrong := _wrong(named):
        raise UsageError(wrong)
    return named


def _wrong(ids: Iterable[str]) -> str:
    """Name what is no queue ID, "" where all are."""
    wrong = [each for each in ids if not queueid.valid(each)]
    if not wrong:
        return ""
    shown = ", ".join(text.printable(each[:40]) for each in wrong[:_NAMED])
    return f"no queue ID: {shown}" + (" …" if len(wrong) > _NAMED else "")
