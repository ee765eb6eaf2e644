"""The dashboard over a real ledger, that real Postfix wrote the log of."""

from __future__ import annotations

import re
import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import pytest
from web_client import Browser, browse
from web_world import PretendReader, PretendView, settings

from backup_mx.relay.ledger.query import Reader, reading
from backup_mx.relay.ledger.writer import Ledger
from backup_mx.relay.state import FATES, Count, Primary, Snapshot

LOGS = Path(__file__).parents[1] / "data" / "maillog"


@dataclass
class RealView(PretendView):
    """An agent made up, but for what it knows."""

    opened: Callable[[], AbstractContextManager[Reader]] | None = None
    shown: Snapshot | None = None

    def reader(self) -> AbstractContextManager[Reader]:
        """Open the real ledger."""
        assert self.opened
        return self.opened()

    def snapshot(self) -> Snapshot:
        """Return what its numbers add up to."""
        assert self.shown
        return self.shown


@pytest.fixture(params=["3.7", "3.7-hard", "3.10", "3.10-hard"])
def view(request: pytest.FixtureRequest, tmp_path: Path) -> RealView:
    """Return a view on the ledger of one log."""
    now, path = time.time(), tmp_path / "ledger.sqlite"
    ledger = Ledger.open(path, LOGS / f"{request.param}.log")
    while ledger.catch_up().behind:
        pass
    primary = Primary("home", "down", now - 60)
    shown = Snapshot(now, now - 90, "mx2", "mx2.example.org", "", primaries=(primary,),
                     counts=ledger.counts(), sums=ledger.sums())  # fmt: skip
    ledger.keep_state(primary)
    ledger.keep_snapshot(shown)
    ledger.sample(shown)
    ledger.close()
    made = RealView(settings(), PretendReader({}, now), helper=False)
    made.opened, made.shown = partial(reading, path), shown
    return made


def test_every_page_of_a_real_ledger(view: RealView) -> None:
    """Each message of each fate, with its whole history, and the sums above them."""
    sums = view.snapshot().sums

    async def visit(browser: Browser) -> None:
        for path in ("/", "/ledger", "/activity"):
            assert (await browser.get(path)).status == 200
        for fate in FATES:
            page = (await browser.get(f"/queue?fate={fate}")).text
            ids = set(re.findall(r"/message/(\w+)", page))
            assert len(ids) == getattr(sums, fate), fate
            for each in ids:
                shown = await browser.get(f"/message/{each}")
                assert shown.status == 200
                assert each in shown.text

    browse(view, visit)


def test_search_finds_what_is_there(view: RealView) -> None:
    """By address, by queue ID; a filter of wild characters is no pattern."""

    async def visit(browser: Browser) -> None:
        everything = (await browser.get("/queue")).text
        found = re.search(r"/message/(\w+)", everything)
        assert found, "this log leaves something on the relay"
        by_id = (await browser.get(f"/queue?search={found[1]}")).text
        assert "1 to 1 of 1 message" in " ".join(by_id.split())
        for wild in ("%25%25%25", "___________________", "%27%20OR%201=1--"):
            assert "No message matches" in (await browser.get(f"/queue?search={wild}")).text

    browse(view, visit)


def test_a_month_is_a_few_points_and_keeps_its_peak(tmp_path: Path) -> None:
    """The curve of 30 days asks for 200 points, whatever lies between them."""
    ledger = Ledger.open(tmp_path / "ledger.sqlite", LOGS / "3.10.log")
    begin = time.time() // 3600 * 3600 - 86_400
    for minute in range(600):
        messages = 900 if minute == 333 else minute % 7
        counts = (Count("waiting", "new", messages, messages, begin),)
        ledger.sample(
            Snapshot(begin + 60 * minute, begin, "mx2", "mx2.example.org", "", counts=counts)
        )
    ledger.close()
    with reading(tmp_path / "ledger.sqlite") as reader:
        coarse, fine = reader.history(begin, 3600.0), reader.history(begin)
    assert (len(coarse), len(fine)) == (10, 600)
    assert [each.messages for each in coarse].count(900) == 1
    assert max(coarse, key=lambda each: each.messages).time == begin + 60 * 333
    assert [each.time for each in coarse] == sorted(each.time for each in coarse)
