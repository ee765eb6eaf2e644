"""What the report of a first boot tells the operator."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from backup_mx.machine.apply import steps
from backup_mx.machine.apply.steps import Steps
from backup_mx.machine.apply.system import ApplyError
from backup_mx.relay.operator import firstboot, status
from backup_mx.relay.operator.firstboot import FirstBoot, Step

BEGAN = 1_795_358_400.0  # 2026-11-22 14:40 UTC


@pytest.mark.parametrize(
    ("steps", "line"),
    [
        (
            [Step("packages", 80.0, 3, "ok"), Step("files and services", 20.0, 1, "ok")],
            "first boot: 2026-11-22 14:40 UTC, in 1 min 40 s, packages at try 3",
        ),
        (
            [Step("packages", 80.0, 1, "ok"), Step("volume", 600.0, 9, "volume: given up")],
            "first boot: 2026-11-22 14:40 UTC, FAILED: volume: volume: given up",
        ),
        (
            [Step("packages", 0.0, 1, "running")],
            "first boot: 2026-11-22 14:40 UTC, NOT COMPLETE: packages did not end",
        ),
    ],
)
def test_it_is_one_line(steps: list[Step], line: str) -> None:
    """How long it took and what had to be tried again, or over what it came to grief."""
    assert FirstBoot(BEGAN, tuple(steps)).line == line


def test_what_a_first_boot_writes_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The same file, by both, and `status` shows it."""
    assert steps.REPORT == firstboot.REPORT
    report = tmp_path / "first-boot.json"
    monkeypatch.setattr(steps, "REPORT", report)
    monkeypatch.setattr(steps, "APPLIED", tmp_path / "none")
    made = Steps("mx2", "abc", 0)
    with made.step("packages"):
        pass
    with pytest.raises(ApplyError), made.step("volume"):
        raise ApplyError("no disk is blank")
    found = firstboot.read(report)
    assert found is not None
    assert [(each.step, each.outcome) for each in found.steps] == [
        ("packages", "ok"),
        ("volume", "no disk is blank"),
    ]
    shown = status.Status(0.0, None, False, False, (), None, 0.0, 0, found)
    assert shown.lines[-1].endswith("FAILED: volume: no disk is blank")
    assert shown.data["first_boot"]["steps"][1]["outcome"] == "no disk is blank"


@pytest.mark.parametrize(
    "words", [None, "", "{", "[]", "null", '{"steps": []}', '{"steps": [1]}', '{"steps": null}',
              '{"steps": [{"began": 5}]}', '{"steps": [{"began": "then"}]}',
              '{"steps": [{"began": "2026-11-22T14:40:00Z", "step": "x", "seconds": []}]}'],
)  # fmt: skip
def test_what_cannot_be_read_is_not_shown(tmp_path: Path, words: str | None) -> None:
    """A machine that broke off in the middle of writing, or none that noted anything."""
    report = tmp_path / "first-boot.json"
    if words is not None:
        report.write_text(words)
    assert firstboot.read(report) is None
    shown = status.Status(0.0, None, False, False, (), None, 0.0, 0)
    assert shown.data["first_boot"] is None
    assert json.dumps(shown.data)
