"""What a terminal shows during a drill."""

from __future__ import annotations

import io

from rich.console import Console

from backup_mx.lab.screen import Screen, line
from backup_mx.lab.timeline import Event, Timeline


def shown(what: object) -> str:
    console = Console(file=io.StringIO(), width=100)
    console.print(what)
    text = console.file
    assert isinstance(text, io.StringIO)
    return text.getvalue()


def test_bars_show_the_latest_sample() -> None:
    """Each place's count is shown, and a question mark where nothing is known yet."""
    timeline = Timeline(lambda: 0.0)
    assert shown(Screen(timeline, 100)).count("?") == 3
    timeline.sample(queue=41, mailbox=7, sender_queue=0)
    counts = [row.split()[-1] for row in shown(Screen(timeline, 100)).splitlines()[1:]]
    assert counts == ["0", "41", "7"]


def test_events_are_text() -> None:
    """An event is shown with its time, and never read as markup."""
    assert shown(line(Event(1.25, "[red]cut[/red]"))) == "     1.2 s  [red]cut[/red]\n"
