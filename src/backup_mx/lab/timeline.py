"""What happened when, in seconds since a drill began. Pure: the clock is handed in."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any


@dataclass(frozen=True)
class Event:
    """Something that happened ``at`` seconds; a ``mark`` (two or three words) goes on the curve."""

    at: float
    text: str
    mark: str = ""


@dataclass(frozen=True)
class Sample:
    """Messages in three places ``at`` seconds; None where the machine could not be asked."""

    at: float
    queue: int | None
    mailbox: int | None
    sender_queue: int | None


def _ignore(_event: Event) -> None:
    """Tell nobody."""


class Timeline:
    """A drill's events and samples, timed from the moment it is made.

    ``clock`` returns seconds and never goes back (``time.monotonic``); ``on_event`` is called with
    each Event as it is recorded.
    """

    def __init__(
        self, clock: Callable[[], float], on_event: Callable[[Event], None] = _ignore
    ) -> None:
        self._clock = clock
        self._on_event = on_event
        self._start = clock()
        self.events: list[Event] = []
        self.samples: list[Sample] = []

    def elapsed(self) -> float:
        """Return the seconds since the start, to the millisecond."""
        return round(self._clock() - self._start, 3)

    def event(self, text: str, mark: str = "") -> Event:
        """Record that something happened now, tell ``on_event``, and return it."""
        event = Event(self.elapsed(), text, mark)
        self.events.append(event)
        self._on_event(event)
        return event

    def sample(
        self,
        queue: int | None = None,
        mailbox: int | None = None,
        sender_queue: int | None = None,
    ) -> Sample:
        """Record how many messages wait at the relay, lie in mailboxes, wait at the sender."""
        sample = Sample(self.elapsed(), queue, mailbox, sender_queue)
        self.samples.append(sample)
        return sample

    def to_json(self) -> dict[str, list[dict[str, Any]]]:
        """Return ``{"timeline": [{at, text, mark}], "samples": [{at, queue, …}]}``."""
        return {
            "timeline": [asdict(event) for event in self.events],
            "samples": [asdict(sample) for sample in self.samples],
        }
