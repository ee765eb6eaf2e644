"""What a terminal shows while a drill runs: where the mail is, as bars that move."""

from __future__ import annotations

from dataclasses import dataclass

from rich.console import Group, RenderableType
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from backup_mx.lab.timeline import Event, Timeline

PLACES = (("sender_queue", "at the sender"), ("queue", "on the relay"), ("mailbox", "in mailboxes"))
BAR_WIDTH = 40


@dataclass(frozen=True)
class Screen:
    """The live part of a drill's display; ``messages`` is the length of a full bar."""

    timeline: Timeline
    messages: int

    def __rich__(self) -> RenderableType:
        """Render the latest sample."""
        bars = Table.grid(padding=(0, 1))
        for name, title in PLACES:
            count = getattr(self.timeline.samples[-1], name) if self.timeline.samples else None
            shown = "?" if count is None else str(count)
            bar = ProgressBar(self.messages, min(count or 0, self.messages), width=BAR_WIDTH)
            bars.add_row(f"  {title}", bar, Text(shown, justify="right"))
        return Group(Text(f"{self.timeline.elapsed():8.1f} s", style="dim"), bars)


def line(event: Event) -> Text:
    """Return an event as one line of the timeline."""
    return Text.assemble(
        (f"{event.at:8.1f} s  ", "dim"), (event.text, "bold" if event.mark else "")
    )
