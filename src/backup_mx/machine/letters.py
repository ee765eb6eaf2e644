"""Exported messages, back into a relay's queue: as many at a time as memory is for."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterable, Iterator
from pathlib import Path

from backup_mx.errors import MachineError
from backup_mx.machine.ship import Answer, Host, Tell
from backup_mx.relay.operator import imports, parcel
from backup_mx.relay.operator.parcel import Letter
from backup_mx.relay.operator.verbs import PROGRAM
from backup_mx.relay.root.protocol import Result

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


def put_back(host: Host, meant: Iterable[tuple[Path, Letter]], tell: Tell) -> list[str]:
    """Import messages that whole() returned; return the queue IDs of those taken.

    A message that the relay has already is not taken twice; why one was not taken is told. Raises
    MachineError, also where one is not any more what whole() saw.
    """
    taken: list[str] = []
    for batch in batches(meant):
        answer = host.run((PROGRAM, "import", "--carry"), stdin="\n".join(batch).encode())
        for each in results(answer):
            if each.done:
                taken.append(each.id)
            else:
                tell(f"{each.id} was not put back: {each.said}")
    return taken


def results(answer: Answer) -> list[Result]:
    """Return what a relay says became of each message, in the last line of its answer.

    Raises MachineError, with what it complained of, where that is not what is told.
    """
    last = answer.stdout.rstrip().rpartition("\n")[2]
    try:
        return [_result(each) for each in json.loads(last)["results"]]
    except (KeyError, RecursionError, TypeError, ValueError):
        told = answer.words or "the relay did not answer as it should"
        raise MachineError(told) from None


def _result(told: object) -> Result:
    match told:
        case {"id": str(queue_id), "done": bool(done), "said": str(said)}:
            return Result(queue_id, done, said)
    raise ValueError("no result")


def batches(meant: Iterable[tuple[Path, Letter]]) -> Iterator[list[str]]:
    """Yield the lines that carry some of the messages at a time (parcel.carried).

    Raises MachineError where one cannot be read.
    """
    batch: list[str] = []
    for body, letter in meant:
        try:
            with body.open("rb") as stream:
                batch += [*parcel.carried(letter.id, stream), parcel.sealed(letter)]
        except OSError as error:
            raise MachineError(f"{body} cannot be read: {error.strerror}") from None
        if sum(map(len, batch)) > _SENT:
            yield batch
            batch = []
    if batch:
        yield batch
