"""How notices reach their places, with a program in the place of Apprise."""

from __future__ import annotations

import asyncio
import json
import logging
import stat
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from test_alarms import DOWN, NOON, WELL, mail

from backup_mx.relay.tell.alarms import Notice
from backup_mx.relay.tell.notify import FILE, Apprise, Notifier

SECRET = "hunter2token"  # noqa: S105  no real one
URLS = (f"ntfys://{SECRET}@ntfy.example.net/topic", f"json://user:{SECRET}@192.0.2.9/x")
NOTICE = Notice("disk", "warning", "-little left", "on the disk\nWhat to do: this", NOON)
DARK = mail(replace(WELL, primaries=DOWN), 12)


class Sent(list[tuple[str, Notice]]):
    """What was sent; a URL among ``ill`` fails, one among ``slow`` never ends."""

    def __init__(self) -> None:
        self.ill: set[str] = set()
        self.slow: set[str] = set()

    async def send(self, url: str, notice: Notice) -> str:
        """Stand in for Apprise."""
        if url in self.slow:
            await asyncio.Event().wait()
        if url in self.ill:
            return "it does not answer"
        self.append((url, notice))
        return ""


def notifier(folder: Path, sent: Sent) -> Notifier:
    """Open a Notifier whose messages go to ``sent``."""
    made = Notifier.open("mx2", URLS, folder=folder, runtime=folder)
    made.send = sent.send
    return made


async def until(made: Notifier, done: Callable[[], bool]) -> None:
    """Run a Notifier until ``done`` says so, for half a minute at most."""
    task = asyncio.create_task(made.run())
    try:
        async with asyncio.timeout(30):
            while not done():
                await asyncio.sleep(0.01)
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


def test_every_place_is_told(tmp_path: Path) -> None:
    """What a snapshot shows reaches both places, once."""
    sent = Sent()
    made = notifier(tmp_path, sent)
    made.look(DARK)
    made.look(replace(DARK, time=NOON + 130))
    made.look(replace(DARK, time=NOON + 135))
    asyncio.run(until(made, lambda: made.waiting == 0))
    assert sorted(url for url, _ in sent) == sorted(URLS)
    assert {notice.title for _, notice in sent} == {"[mx2] home is down; kept for it: 12 messages"}
    assert made.counters == {"notify:new": 1, "notify:sent": 2, "notify:failed": 0}


@pytest.mark.parametrize("trouble", ["ill", "slow"])
def test_a_place_that_fails_or_hangs_does_not_stop_the_other(tmp_path: Path, trouble: str) -> None:
    """The other place is told at once; what waits for the first outlives the agent."""
    sent = Sent()
    getattr(sent, trouble).add(URLS[0])
    made = notifier(tmp_path, sent)
    made.tell([NOTICE])
    asyncio.run(until(made, lambda: len(sent) == 1))
    assert sent == [(URLS[1], NOTICE)]
    made.close()
    well = Sent()
    again = notifier(tmp_path, well)
    assert again.waiting == 1
    later = again.places["1 (ntfys)"].due
    again.clock = lambda: later
    asyncio.run(until(again, lambda: again.waiting == 0))
    assert well == [(URLS[0], NOTICE)]


def test_a_mistake_of_ours_is_told_by_its_own_words(tmp_path: Path) -> None:
    """It ends the other places, too; status and the alarm show what is raised."""
    made = notifier(tmp_path, Sent())

    async def send(url: str, _notice: Notice) -> str:
        if url == URLS[0]:
            raise KeyError("places")
        await asyncio.Event().wait()
        return ""

    made.send = send
    made.tell([NOTICE])
    with pytest.raises(KeyError, match="places"):
        asyncio.run(asyncio.wait_for(made.run(), 30))


def test_it_stops_when_nobody_is_being_told_any_more(tmp_path: Path) -> None:
    """A program that is at it is ended first, though another place has nothing to be told."""
    made = notifier(tmp_path, Sent())
    hangs, body = apprise(tmp_path, "exec sleep 60"), tmp_path / "body"

    async def send(url: str, notice: Notice) -> str:
        return await hangs.send(url, notice) if url == URLS[0] else ""

    async def stopped() -> list[Path]:
        await until(made, lambda: bool(made.counters["notify:sent"]) and body.exists())
        return list(hangs.runtime.iterdir())

    made.send = send
    made.tell([NOTICE])
    assert asyncio.run(stopped()) == [], "its URL's file goes with it"


def test_what_was_told_is_remembered_over_restarts(tmp_path: Path) -> None:
    """An agent that starts again in the middle of an outage does not tell it again."""
    made = notifier(tmp_path, Sent())
    made.look(DARK)
    made.look(replace(DARK, time=NOON + 130))
    made.close()
    again = notifier(tmp_path, Sent())
    again.look(replace(DARK, time=NOON + 140))
    assert again.counters["notify:new"] == 0
    again.look(replace(WELL, time=NOON + 150))
    assert again.counters["notify:new"] == 1


def test_crashes_are_told_when_they_repeat(tmp_path: Path) -> None:
    """The third start after a crash within an hour is news; clean stops count for none."""
    for _ in range(5):
        notifier(tmp_path, Sent()).close()
    told = [notifier(tmp_path, Sent()).counters["notify:new"] for _ in range(5)]
    assert told == [0, 0, 0, 1, 0]


def test_a_damaged_file_is_no_obstacle(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """What is not a Notifier's file is left behind with a word."""
    for text in ("", "[]", "{}", '{"places": 1}', "\0", '{"places": {"x": {}}}'):
        (tmp_path / FILE).write_text(text)
        assert notifier(tmp_path, Sent()).waiting == 0
    assert "is damaged" in caplog.text


def test_a_place_that_left_the_config_is_forgotten(tmp_path: Path) -> None:
    """Nothing waits for a place that is not there any more."""
    made = notifier(tmp_path, Sent())
    made.tell([NOTICE])
    made.close()
    assert Notifier.open("mx2", URLS[:1], folder=tmp_path, runtime=tmp_path).waiting == 1
    assert Notifier.open("mx2", (), folder=tmp_path, runtime=tmp_path).waiting == 0


def test_no_secret_is_written_or_said(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Neither the file that is kept nor the log holds a URL, and only the owner reads the file."""
    caplog.set_level(logging.DEBUG)
    sent = Sent()
    sent.ill.update(URLS)
    made = notifier(tmp_path, sent)
    made.tell([NOTICE])
    asyncio.run(until(made, lambda: made.counters["notify:failed"] == 2))
    kept = (tmp_path / FILE).read_text()
    assert SECRET not in kept + caplog.text
    assert "example.net" not in kept + caplog.text
    assert "place 1 (ntfys) was not told: it does not answer; again in 30 s" in caplog.text
    assert stat.S_IMODE((tmp_path / FILE).stat().st_mode) == 0o600


def test_a_full_disk_does_not_stop_it(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Where nothing can be written the notice is told all the same."""
    sent = Sent()
    made = notifier(tmp_path, sent)
    made.path = tmp_path / "no" / "such" / "folder"
    made.tell([NOTICE])
    asyncio.run(until(made, lambda: len(sent) == 2))
    assert "cannot be written" in caplog.text


STANDIN = """#!/bin/sh
printf '%s\\n' "$@" >{folder}/argv
env >{folder}/env
for word; do case $word in --config=*) cp -p "${{word#--config=}}" {folder}/config;; esac; done
cat >{folder}/body
{end}
"""


def apprise(folder: Path, end: str, limit: float = 20.0) -> Apprise:
    """Return an Apprise whose program notes how it was called and then does ``end``."""
    program = folder / "apprise"
    program.write_text(STANDIN.format(folder=folder, end=end))
    program.chmod(0o755)
    runtime = folder / "run"
    runtime.mkdir(exist_ok=True)
    return Apprise(runtime, limit, str(program))


def test_apprise_gets_the_url_by_a_private_file_and_the_body_by_stdin(tmp_path: Path) -> None:
    """Neither stands in its arguments or its environment, and the file is gone afterwards."""
    made = apprise(tmp_path, "exit 0")
    assert asyncio.run(made.send(URLS[0], NOTICE)) == ""
    argv = (tmp_path / "argv").read_text()
    assert "--title=-little left\n" in argv
    assert "--notification-type=warning\n" in argv
    assert SECRET not in argv + (tmp_path / "env").read_text()
    assert (tmp_path / "config").read_text() == URLS[0] + "\n"
    assert stat.S_IMODE((tmp_path / "config").stat().st_mode) == 0o600
    assert (tmp_path / "body").read_text() == NOTICE.body
    assert list(made.runtime.iterdir()) == []


@pytest.mark.parametrize(
    ("end", "said"), [("exit 1", "cannot be reached"), ("exec sleep 60", "did not end within 1 s")]
)
def test_an_apprise_that_fails_or_hangs(tmp_path: Path, end: str, said: str) -> None:
    """It is told why, in words of ours; what hangs is ended, and no file stays."""
    made = apprise(tmp_path, end, limit=1.0)
    assert said in asyncio.run(made.send(URLS[0], NOTICE))
    assert list(made.runtime.iterdir()) == []


def test_without_apprise_it_is_said(tmp_path: Path) -> None:
    """A relay that lacks the program says so, and goes on."""
    made = Apprise(tmp_path, program=str(tmp_path / "none"))
    said = asyncio.run(made.send(URLS[0], NOTICE))
    assert said == "apprise cannot be run: No such file or directory"


def test_the_file_that_is_kept_is_bounded(tmp_path: Path) -> None:
    """Hundreds of notices that nobody takes are no more than some kilobytes."""
    made = notifier(tmp_path, Sent())
    for number in range(200):
        made.tell([replace(NOTICE, key=str(number), body="x" * 500)])
    assert (tmp_path / FILE).stat().st_size < 200_000
    assert json.loads((tmp_path / FILE).read_text())["places"]["1 (ntfys)"]["dropped"] == 150
