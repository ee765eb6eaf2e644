from __future__ import annotations

import json
import re
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

from backup_mx.errors import LabError
from backup_mx.lab.chart import chart
from backup_mx.lab.reconcile import Collected, Sent, reconcile
from backup_mx.lab.report import octets, ready_for, report_html, report_json, write_report
from backup_mx.lab.timeline import Event, Timeline

ALICE = "alice@example.org"
NASTY = "<script>alert('&')</script>"


def timeline() -> Timeline:
    ticks = iter([100.0, 101.5, 102.0, 103.0, 104.0, 105.0, *[110.0] * 9])
    made = Timeline(lambda: next(ticks))
    made.event("the primary's machine is powered off", mark="primary off")
    made.sample(queue=0, mailbox=None, sender_queue=4)
    made.sample(queue=None, mailbox=None, sender_queue=2)
    made.sample(queue=4, mailbox=0, sender_queue=0)
    made.event(NASTY, mark=NASTY)
    return made


def report(
    copies: int = 1, failures: tuple[str, ...] = (), excused: str = "", **more: list[dict[str, Any]]
) -> dict[str, Any]:
    message = Sent(1, "<1>", NASTY, (ALICE,), False, "aa", 1_500_000, 250, "Ok")
    found = [Collected(ALICE, "INBOX", "<1>", "aa", 10, None, (), is_dsn=False, trace="")] * copies
    result = reconcile([message], {"<1>"}, found, 0, excusable_duplicates={excused})
    return report_json(
        "outage",
        result,
        timeline(),
        started="today",
        figures={NASTY: 1.5},
        failures=failures,
        **more,
    )


class Elements(HTMLParser):
    def __init__(self, page: str) -> None:
        super().__init__()
        self.found: list[tuple[str, dict[str, str | None]]] = []
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found.append((tag, dict(attrs)))


def test_the_timeline_counts_seconds_from_its_start_and_tells_each_event() -> None:
    told: list[Event] = []
    ticks = iter([50.0, 51.0, 52.25])
    made = Timeline(lambda: next(ticks), told.append)
    made.event("one")
    made.event("two", mark="2")
    assert told == made.events == [Event(1.0, "one"), Event(2.25, "two", "2")]


def test_the_report_holds_the_promised_fields_and_survives_json() -> None:
    made = report()
    promised = "drill verdict sent accepted delivered lost duplicated altered dsn timeline".split()  # noqa: SIM905
    assert set(promised) <= made.keys()
    assert (made["verdict"], made["sent"], made["lost"], made["problems"]) == ("pass", 1, 0, {})
    assert made["samples"][1] == {"at": 3.0, "queue": None, "mailbox": None, "sender_queue": 2}
    assert report_html(json.loads(json.dumps(made))) == report_html(made)


def test_a_bad_count_comes_with_the_messages_behind_it() -> None:
    made = report(copies=0)
    assert (made["verdict"], made["lost"]) == ("fail", 1)
    assert made["problems"] == {"missing": [{"message_id": "<1>", "recipient": ALICE}]}
    page = report_html(made)
    assert "✗ Fail" in page
    assert "1 accepted but missing from a mailbox" in page
    assert "<code>&lt;1&gt;</code>" in page


def test_what_the_drill_itself_found_wrong_fails_the_verdict() -> None:
    made = report(failures=("the relay bounced",))
    assert (made["verdict"], made["reasons"]) == ("fail", ["the relay bounced"])


def test_an_excused_duplicate_passes_and_is_told() -> None:
    page = report_html(report(copies=2, excused="<1>"))
    assert "✓ Pass" in page
    assert "1 came again because a power cut ate the answer" in page


def test_a_long_list_of_reasons_is_cut_in_the_summary() -> None:
    page = report_html(report(failures=tuple(f"reason {number}" for number in range(7))))
    assert "reason 4; and 2 more reasons." in page
    assert "reason 5" not in page


def test_rows_and_stages_are_shown_and_escaped() -> None:
    row = {
        "name": NASTY,
        "path": NASTY,
        "answers": [NASTY, "250 Ok"],
        "ended": NASTY,
        "score": -0.3,
        **dict.fromkeys(("spf", "dkim", "dmarc", "client", "source"), NASTY),
        "parity": False,
        "differences": [NASTY, "and more"],
    }
    stage = {"stage": NASTY, "waiting": 1, "delivered": 0, "notices": 2, "reasons": {NASTY: 3}}
    made = report(rows=[row, row | {"score": None, "parity": True}], stages=[stage])
    page = report_html(json.loads(json.dumps(made)))
    assert NASTY not in page
    assert page.count("and more") == 1
    assert "-0.30" in page
    assert "&lt;script&gt;alert(&#39;&amp;&#39;)&lt;/script&gt;</span>" in page


def test_the_page_is_self_contained_and_everything_in_it_is_escaped() -> None:
    page = report_html(report())
    assert NASTY not in page
    assert "&lt;script&gt;" in page
    tags = {tag for tag, _ in Elements(page).found}
    assert not tags & {"script", "link", "img", "iframe"}
    assert not re.search(r"(src|href)=|url\(|@import|https?://", page)


def test_the_page_is_drawn_for_a_drill_that_ended_before_anything_happened() -> None:
    nothing = reconcile([], (), [], 0)
    made = report_json("outage", nothing, Timeline(lambda: 0.0), started="now", figures={})
    assert "nothing was sent" in report_html(made)


def test_a_curve_has_a_gap_where_the_machine_could_not_be_asked() -> None:
    made = report()
    drawn = {curve.key: curve for curve in chart(made["samples"], made["timeline"]).curves}
    assert len(drawn["queue"].lines) == 2
    assert len(drawn["sender_queue"].lines) == 1
    assert drawn["queue"].peak == 4
    assert drawn["sender_queue"].lines[0].startswith("M40.00 20.00 L60.00 60.00")


def test_marks_stand_at_their_time_and_never_cover_one_another() -> None:
    events = [{"at": at, "mark": str(at), "text": ""} for at in (0.0, 50.0, 51.0, 52.0, 100.0)]
    marks = chart([], [*events, {"at": 20.0, "mark": "", "text": "not on the curve"}]).marks
    assert [(mark.number, mark.at, mark.row) for mark in marks] == [
        (1, 0.0, 0),
        (2, 50.0, 0),
        (3, 51.0, 1),
        (4, 52.0, 2),
        (5, 100.0, 0),
    ]


@pytest.mark.parametrize(
    ("highest", "labels"),
    [
        (0, ["0", "1", "2", "3", "4", "5"]),
        (480, ["0", "100", "200", "300", "400", "500"]),
        (5100, ["0", "2,000", "4,000", "6,000", "8,000", "10,000"]),
    ],
)
def test_the_grid_is_round_and_covers_the_highest_value(highest: int, labels: list[str]) -> None:
    sample = {"at": 0.0, "queue": highest, "mailbox": None, "sender_queue": None}
    assert [tick.label for tick in chart([sample], []).up] == labels


@pytest.mark.parametrize(
    ("count", "text"), [(0, "0 B"), (999, "999 B"), (1500, "1.5 kB"), (15_000_559, "15.0 MB")]
)
def test_sizes_are_written_as_people_read_them(count: int, text: str) -> None:
    assert octets(count) == text


def test_both_files_are_written_and_replace_what_was(tmp_path: Path) -> None:
    write_report(report(), ready_for(tmp_path / "new"))
    paths = write_report(report(copies=0), tmp_path / "new")
    assert [path.name for path in paths] == ["report.json", "report.html"]
    assert json.loads(paths[0].read_text())["verdict"] == "fail"
    assert "✗ Fail" in paths[1].read_text()
    assert sorted((tmp_path / "new").iterdir()) == sorted(paths)


def test_a_write_that_fails_leaves_the_old_report_and_no_debris(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    old, _ = write_report(report(), tmp_path)

    def refuse(*_args: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "replace", refuse)
    with pytest.raises(LabError, match=r"cannot write the report to .*: No space left"):
        write_report(report(copies=0), tmp_path)
    assert json.loads(old.read_text())["verdict"] == "pass"
    assert len(list(tmp_path.iterdir())) == 2
