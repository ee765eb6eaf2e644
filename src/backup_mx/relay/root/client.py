"""The caller's side of the root helper: blocking, standard library only."""

from __future__ import annotations

import io
import json
import socket
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from backup_mx.errors import MachineError
from backup_mx.relay.queue.spool import Entry
from backup_mx.relay.root.protocol import BATCH, SOCKET, Result

__all__ = ["SOCKET", "Entry", "Result", "ask", "change", "listing", "show"]

_SECONDS = 150.0  # longer than the helper gives each of Postfix's programs

Wire = io.BufferedRWPair


class _SlowError(MachineError):
    """The helper has not answered in time."""


def ask(
    verb: str, *, path: Path = SOCKET, timeout: float = _SECONDS, **fields: object
) -> dict[str, Any]:
    """Ask the helper once; return its answer. ``from_`` goes as ``from``.

    Raises MachineError when there is no helper, it says that it cannot, or ``timeout`` seconds
    were not enough for one of its steps.
    """
    with _connected(path, timeout) as stream:
        _say(stream, verb, fields)
        return _hear(stream)


def change(
    verb: str, ids: Iterable[str], *, by: str, address: str = "", path: Path = SOCKET
) -> list[Result]:
    """Hold, release, requeue or delete messages; return what became of each, in their order.

    Raises MachineError when a batch of them failed as a whole; the others were tried all the same,
    but for those after one that took too long: the helper is still at it, and nobody is before it.
    """
    wanted = list(dict.fromkeys(ids))
    results: list[Result] = []
    trouble: MachineError | None = None
    for start in range(0, len(wanted), BATCH):
        fields: dict[str, object] = {
            "ids": wanted[start : start + BATCH],
            "by": by,
            "from": address,
        }
        try:
            with _connected(path, _SECONDS) as stream:
                _say(stream, verb, fields)
                results += [Result(**each) for each in _hear(stream)["results"]]
        except _SlowError:
            raise
        except MachineError as error:
            trouble = trouble or error
    if trouble:
        raise trouble
    return results


def listing(*, path: Path = SOCKET, timeout: float = _SECONDS) -> Iterator[Entry]:
    """Yield every queue file that the helper sees, as it comes. Raises MachineError."""
    with _connected(path, timeout) as stream:
        _say(stream, "list", {})
        while not (answer := _hear(stream)).get("end"):
            yield from (Entry(*each) for each in answer["entries"])


def show(queue_id: str, *, body: bool = False, path: Path = SOCKET) -> dict[str, Any]:
    """Return a message's envelope, header and, if asked for, body. Raises MachineError."""
    return ask("show", path=path, id=queue_id, body=body)


@contextmanager
def _connected(path: Path, timeout: float) -> Iterator[Wire]:
    with socket.socket(socket.AF_UNIX) as wire:
        wire.settimeout(timeout)
        try:
            wire.connect(str(path))
            with wire.makefile("rwb") as stream:
                yield stream
        except TimeoutError:
            raise _SlowError("the helper does not answer") from None
        except OSError as error:
            raise MachineError(f"the helper cannot be asked: {error.strerror or error}") from None
        except (KeyError, TypeError, ValueError):
            raise MachineError("the helper did not answer as it should") from None


def _say(stream: Wire, verb: str, fields: dict[str, object]) -> None:
    named = {key.rstrip("_"): value for key, value in fields.items()}
    stream.write(json.dumps({"verb": verb, **named}).encode() + b"\n")
    stream.flush()


def _hear(stream: Wire) -> dict[str, Any]:
    line = stream.readline()
    if not line:
        raise MachineError("the helper hung up")
    answer: dict[str, Any] = json.loads(line)
    if "error" in answer:
        raise MachineError(str(answer["error"]))
    return answer
