"""The ledger in the thread that owns it: every call waits its turn there, never in the event loop.

The agent lives without it: what cannot be opened is tried again, and mail is drained meanwhile.
"""

from __future__ import annotations

import json
import tempfile
import time
from collections.abc import Awaitable, Callable, Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import IO, Any, TypeVar

from backup_mx.errors import MachineError
from backup_mx.relay.ledger import Due, Progress
from backup_mx.relay.ledger.query import Reader, reading
from backup_mx.relay.ledger.sums import together
from backup_mx.relay.ledger.writer import Ledger
from backup_mx.relay.queue.envelope import seconds
from backup_mx.relay.queue.postfix import Message, Recipient
from backup_mx.relay.queue.spool import Entry
from backup_mx.relay.root import client
from backup_mx.relay.state import Count, Primary, Snapshot, Sums
from backup_mx.relay.tasks.threads import Worker, aside

T = TypeVar("T")
LINES = 1000  # of the log at once: some 30 ms, and 2 MiB
DESCRIBED = 100  # messages a turn that only the spool knows


@dataclass(frozen=True)
class Figures:
    """What the ledger says at a moment; shares of its counts, and delivered, are by domain.

    counters is empty until it knows of all that the log held when it was opened. While a ledger
    that was begun anew is read, bounces of last month would count one by one, as if they were made
    now. Series that are absent for so long say that nobody knows yet, and Prometheus compares what
    is there afterwards with what was before; to repeat an older value would be to claim it, and
    who began with an empty folder has none.
    """

    shares: dict[str, tuple[Count, ...]] = field(default_factory=dict)
    delivered: dict[str, int] = field(default_factory=dict)
    sums: Sums = field(default_factory=Sums)
    counters: dict[str, int] = field(default_factory=dict)

    @cached_property
    def counts(self) -> tuple[Count, ...]:
        """How many messages wait or are held, by reason."""
        return together(self.shares)


@dataclass
class Books:
    """The ledger at ``path``, fed by the log at ``log``.

    entries lists the spool and show describes a message of it: the helper's work.
    """

    path: Path
    log: Path
    hash_addresses: bool = False
    entries: Callable[[], Iterator[Entry]] = client.listing
    show: Callable[[str], dict[str, Any]] = client.show
    spool: dict[str, tuple[int, int]] = field(default_factory=dict)
    reconciled: float | None = None
    _ledger: Ledger | None = None
    _worker: Worker = field(default_factory=lambda: Worker("ledger"))

    async def open(self) -> None:
        """Open the ledger; one of an earlier version is migrated. Raises MachineError."""
        await self._worker.do(self._opened)

    async def catch_up(self) -> Progress:
        """Read on in the log; open the ledger first if need be. Raises MachineError."""
        return await self._worker.do(lambda: self._opened().catch_up(LINES))

    async def figures(self) -> Figures:
        """Return what the ledger says now. Raises MachineError."""

        def read() -> Figures:
            ledger = self._opened()
            counters = ledger.counters() if ledger.known else {}
            return Figures(ledger.shares(), ledger.delivered(), ledger.sums(), counters)

        return await self._worker.do(read)

    async def due(
        self,
        accepted_before: float,
        queued_before: float,
        up: Mapping[str, float] | None = None,
        *,
        limit: int,
        but: Collection[str] = (),
    ) -> Due:
        """Return what the lifetime decider has to judge, as Ledger.due. Raises MachineError."""
        return await self._worker.do(
            lambda: self._opened().due(accepted_before, queued_before, limit, up=up, but=but)
        )

    async def note_holds(self, holds: Mapping[str, float]) -> None:
        """Keep that retention has put messages on hold (Ledger.note_holds). Raises MachineError."""
        await self._worker.do(lambda: self._opened().note_holds(holds))

    async def keep(
        self, snapshot: Snapshot, states: Iterable[Primary], *, sample: bool = False
    ) -> None:
        """Keep a snapshot, the primaries' changes of state, a point of the curve if ``sample``."""

        def work() -> None:
            ledger = self._opened()
            for each in states:
                ledger.keep_state(each)
            ledger.keep_snapshot(snapshot)
            if sample:
                ledger.sample(snapshot)

        await self._worker.do(work)

    async def prune(self, before: float) -> int:
        """Forget what ended before then; return how many messages that were."""
        return await self._worker.do(lambda: self._opened().prune(before))

    async def ask(self, question: Callable[[Reader], T]) -> T:
        """Ask a reader of the ledger. Raises MachineError where there is none."""

        def work() -> T:
            with reading(self.path) as reader:
                return question(reader)

        return await self._worker.do(work)

    async def reconcile(self, read_on: Callable[[], Awaitable[Progress]]) -> int:
        """Compare with the spool; return how many messages differ. Raises MachineError.

        read_on reads a piece of the log, up to its end as it was when the listing ended: what
        happened meanwhile must be known before it is judged. Others have their turns in between,
        and mail that comes as fast as its log is read is no reason to read for ever.
        The listing waits in a file: 100,000 entries would be more than the agent's memory.
        """
        listed = time.time()
        with tempfile.TemporaryFile("w+", dir=self.path.parent, encoding="utf-8") as pile:
            spool = await aside(lambda: _pile(self.entries(), pile))
            ended = time.time()
            while (progress := await read_on()).behind and progress.reached < ended:
                pass
            found = await self._worker.do(lambda: self._compared(pile, listed))
        self.spool, self.reconciled = spool, listed
        return found

    async def describe(self) -> int:
        """Fill in messages that only the spool knew; return how many are left."""
        ids = await self._worker.do(lambda: self._opened().unknown(DESCRIBED + 1))
        shown = await aside(lambda: list(self._shown(ids[:DESCRIBED])))
        await self._worker.do(lambda: self._opened().describe(shown))
        return max(0, len(ids) - len(shown)) if shown else 0

    async def close(self) -> None:
        """Close the ledger."""
        if self._ledger:
            await self._worker.do(self._ledger.close)

    def _opened(self) -> Ledger:
        ledger = self._ledger
        if ledger is None or ledger.lost:
            self._ledger = ledger = Ledger.open(
                self.path,
                self.log,
                hash_addresses=self.hash_addresses,
                lost=ledger.lost if ledger else "",
            )
        return ledger

    def _compared(self, pile: IO[str], listed: float) -> int:
        pile.seek(0)
        return self._opened().reconcile((Entry(*json.loads(line)) for line in pile), listed)

    def _shown(self, ids: list[str]) -> Iterator[Message]:
        for each in ids:
            try:
                yield message_of(self.show(each))
            except (MachineError, KeyError, TypeError, ValueError):
                continue  # it is gone, or being written: the next listing tells


def _pile(entries: Iterator[Entry], pile: IO[str]) -> dict[str, tuple[int, int]]:
    """Write entries down; return how many there are in each queue, and their bytes."""
    found: dict[str, tuple[int, int]] = {}
    for each in entries:
        pile.write(json.dumps(each) + "\n")
        count, octets = found.get(each.queue, (0, 0))
        found[each.queue] = (count + 1, octets + each.size)
    return found


def message_of(shown: dict[str, Any]) -> Message:
    """Return a message as the helper shows it. Raises KeyError, TypeError, ValueError."""
    arrival = seconds(str(shown["arrival"]))
    if not arrival:  # taken for 1970, it would be on hold at once
        raise ValueError(f"no time of arrival: {shown['arrival']!r}")
    return Message(
        queue=str(shown["queue"]),
        id=str(shown["id"]),
        arrival=arrival,
        size=int(shown["size"]),
        sender=str(shown["sender"]),
        recipients=tuple(
            Recipient(str(each["address"]), "") for each in shown["recipients"] if not each["done"]
        ),
    )
