"""Exported messages, back into a relay's queue: as many at a time as memory is for."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Collection, Iterable, Iterator
from pathlib import Path

from backup_mx.errors import MachineError
from backup_mx.machine.ship import Answer, Host, Tell
from backup_mx.relay.operator import imports, parcel
from backup_mx.relay.operator.parcel import Letter
from backup_mx.relay.operator.verbs import PROGRAM

_SENT = 32 << 20  # characters in one run of import


def whole(folder: Path | None) -> dict[str, tuple[Path, Letter]]:
    """Return the messages that lie whole in a folder which export wrote, by queue ID.

    Raises MachineError where there is none in it.
    """
    found = {}
    for file in imports.letters([str(folder)]) if folder else []:
        with contextlib.suppress(parcel.ParcelError, OSError):
            body, letter = read(file)
            found[letter.id] = (body, letter)
    return found


def read(file: Path) -> tuple[Path, Letter]:
    """Return an exported message, given its ID.json: its ID.eml, whole, and what belongs to it.

    Raises ParcelError where it is not what was exported, OSError where it cannot be read.
    """
    letter, body = parcel.read_file(file), file.with_suffix(".eml")
    parcel.check(body, letter)
    return body, letter


def put_back(host: Host, folder: Path, ids: Collection[str], tell: Tell) -> list[str]:
    """Import those of a folder's messages that are meant; return the queue IDs of those taken.

    A message that the relay has already is not taken twice; why one was not taken is told. Raises
    MachineError.
    """
    meant = [found for queue_id, found in whole(folder).items() if queue_id in ids]
    taken: list[str] = []
    for batch in batches(meant):
        answer = host.run((PROGRAM, "import", "--carry"), stdin="\n".join(batch).encode())
        for queue_id, done, said in _results(answer):
            if done:
                taken.append(queue_id)
            else:
                tell(f"{queue_id} was not put back: {said}")
    return taken


def _results(answer: Answer) -> list[tuple[str, bool, str]]:
    try:
        results = json.loads(answer.stdout)["results"]
        return [(str(each["id"]), each["done"] is True, str(each["said"])) for each in results]
    except (KeyError, RecursionError, TypeError, ValueError):
        said = answer.stderr.strip().removeprefix("backup-mx: ")
        raise MachineError(f"importing failed: {said or 'no answer'}") from None


def batches(meant: Iterable[tuple[Path, Letter]]) -> Iterator[list[str]]:
    """Yield the lines that carry some of the messages at a time (parcel.carried)."""
    batch: list[str] = []
    for body, letter in meant:
        with body.open("rb") as stream:
            batch += [*parcel.carried(letter.id, stream), parcel.sealed(letter)]
        if sum(map(len, batch)) > _SENT:
            yield batch
            batch = []
    if batch:
        yield batch
