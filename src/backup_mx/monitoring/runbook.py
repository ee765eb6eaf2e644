"""The runbook: docs/operate.md, one page an alarm.

A page is what stands below a heading of the third level that is an alarm's name. The line "Notice:"
in it names what the relay itself tells of the same trouble, by the key in its journal.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from importlib import resources
from importlib.resources.abc import Traversable
from pathlib import Path

from backup_mx.errors import did_you_mean

PREFIX = "BackupMx"
_HEADING = re.compile(rf"^### ({PREFIX}\w+)\n\n(.*?)(?=^#|\Z)", re.MULTILINE | re.DOTALL)
_NOTICE = re.compile(r"^Notice: (.*)$", re.MULTILINE)
_STOP = re.compile(r"[.:](?: |$)")
_CODE = re.compile(r"`([^`]+)`")


@dataclass(frozen=True)
class Page:
    """What there is to know of an alarm; notices are the keys by which a relay itself tells it."""

    alarm: str
    text: str
    notices: tuple[str, ...] = ()

    @property
    def about(self) -> str:
        """How it begins: what is said up to the first full stop or colon."""
        return _STOP.split(" ".join(self.text.split()))[0]


def pages() -> dict[str, Page]:
    """Return the runbook's pages by their alarm. Raises OSError when it is not installed."""
    return parsed(_source().read_text(encoding="utf-8"))


def parsed(text: str) -> dict[str, Page]:
    """Return the pages that a runbook has. Pure."""
    return {
        alarm: Page(alarm, body.strip(), _notices(body)) for alarm, body in _HEADING.findall(text)
    }


def find(known: dict[str, Page], asked: str) -> list[Page]:
    """Return the pages meant by an alarm's name, in any case, or by a notice's key.

    Raises LookupError, in words, when there is none.
    """
    word = asked.casefold().removeprefix(PREFIX.casefold())
    named = [each for each in known.values() if _short(each.alarm) == word]
    told = [each for each in known.values() if asked.partition(":")[0] in each.notices]
    if found := named or told:
        return found
    every = "backup-mx explain without a name lists them all"
    raise LookupError(f'there is no alarm "{asked}": {_hint(known, word) or every}')


def _hint(known: dict[str, Page], word: str) -> str:
    """Say which alarm or notice is near, if any: by what is not the same in all names."""
    notices = {notice: notice for each in known.values() for notice in each.notices}
    words = notices | {_short(alarm): alarm for alarm in known}
    near = did_you_mean(word, words)
    return next((near.replace(f'"{short}"', f'"{name}"') for short, name in words.items()
                 if f'"{short}"' in near), "")  # fmt: skip


def _notices(body: str) -> tuple[str, ...]:
    line = _NOTICE.search(body)
    return tuple(_CODE.findall(line[1])) if line else ()


def _short(alarm: str) -> str:
    return alarm.removeprefix(PREFIX).casefold()


def _source() -> Traversable:
    """Return the file: the wheel's copy, or the one of the checkout that this runs from."""
    packed = resources.files("backup_mx") / "operate.md"
    return packed if packed.is_file() else Path(__file__).parents[3] / "docs" / "operate.md"
