"""The parts of relay.pyz that need no machine of their own."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from backup_mx.machine.apply import (
    care,
    checks,
    files,
    packages,
    services,
    steps,
    system,
    terminal,
    undo,
)
from backup_mx.machine.apply.diff import diff_of
from backup_mx.machine.apply.files import Changes, File, Folder, Service
from backup_mx.machine.apply.steps import Steps
from backup_mx.machine.apply.system import ApplyError


@pytest.fixture
def place(tmp_path: Path) -> File:
    """A file of this user's, in place."""
    path = tmp_path / "file"
    path.write_text("one\ntwo\n")
    path.chmod(0o644)
    owner, group = path.owner(), path.group()
    return File(path, "0644", owner, group, b"one\ntwo\n")


def test_a_file_is_in_place_only_if_all_of_it_is(place: File, tmp_path: Path) -> None:
    """Content, mode and kind all have to be right."""
    assert place.is_in_place()
    place.path.chmod(0o640)
    assert not place.is_in_place()
    place.path.unlink()
    assert not place.is_in_place()
    (tmp_path / "elsewhere").write_bytes(place.content)
    place.path.symlink_to(tmp_path / "elsewhere")
    assert not place.is_in_place()


def test_a_file_that_is_written_once_is_somebody_elses(place: File) -> None:
    """Whatever is in it is right; only where there is none it is written."""
    once = replace(place, once=True)
    place.path.write_text("rewritten by the relay\n")
    assert once.is_in_place()
    assert not place.is_in_place()
    place.path.unlink()
    assert not once.is_in_place()


def test_a_diff_shows_what_changes(place: File) -> None:
    """A file that all may read is shown as a unified diff."""
    place.path.write_text("one\n2\n")
    assert list(diff_of(place))[2:] == ["@@ -1,2 +1,2 @@", " one", "-2", "+two"]
    place.path.unlink()
    assert next(iter(diff_of(place))).startswith("--- /dev/null")


def test_a_diff_never_shows_what_others_may_not_read(place: File, tmp_path: Path) -> None:
    """Neither a new secret, nor an old one, nor what a link points to."""
    secret = File(place.path, "0600", content=b"new secret")
    assert list(diff_of(secret)) == [f"to write: {place.path} (its content is not shown)"]
    place.path.write_text("old secret")
    place.path.chmod(0o600)
    assert list(diff_of(place)) == [f"to write: {place.path} (its content is not shown)"]
    place.path.unlink()
    (tmp_path / "precious").write_text("old secret")
    place.path.symlink_to(tmp_path / "precious")
    assert list(diff_of(place)) == [f"to replace: {place.path}, which is not a plain file"]


def test_a_written_file_follows_no_link(place: File, tmp_path: Path) -> None:
    """A link that lies where a file is to be prepared is not written through."""
    (tmp_path / "precious").write_text("precious")
    (tmp_path / "link").symlink_to(tmp_path / "precious")
    with pytest.raises(OSError):
        place.write(tmp_path / "link")
    assert (tmp_path / "precious").read_text() == "precious"


def test_changes_know_what_they_touch(tmp_path: Path) -> None:
    """A prefix is touched by what is made, written or removed below it."""
    changes = Changes(
        [Folder(tmp_path / "a")], [File(tmp_path / "a/b")], [tmp_path / "c", tmp_path / "d"]
    )
    assert changes.touch([f"{tmp_path}/c"])
    assert not changes.touch([f"{tmp_path}/e"])
    assert changes.without(tmp_path / "a").paths == [tmp_path / "c", tmp_path / "d"]


def test_what_was_is_put_back(tmp_path: Path) -> None:
    """A file comes back with mode and times, a link as a link, and what was not there goes."""
    path, copy = tmp_path / "file", tmp_path / "copy"
    path.write_text("old")
    path.chmod(0o640)
    os.utime(path, ns=(1, 2))
    undo.clone(path, copy)
    path.write_text("new")
    files.beside(path).write_text("half")
    undo.put_back(path, copy)
    assert (path.read_text(), path.stat().st_mode & 0o777) == ("old", 0o640)
    assert path.stat().st_mtime_ns == 2
    assert not files.beside(path).exists()
    undo.put_back(path, tmp_path / "nothing")
    assert not path.exists()


def test_a_copy_is_never_seen_by_others(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """While it is made it is its maker's alone, and nothing that lies there is written through."""
    secret, copy = tmp_path / "secret", tmp_path / "copy"
    secret.write_text("secret")
    secret.chmod(0o640)
    modes: list[int] = []
    monkeypatch.setattr(os, "chown", lambda path, *_, **__: modes.append(path.stat().st_mode))
    undo.clone(secret, copy)
    assert [mode & 0o777 for mode in modes] == [0o600]
    assert (copy.read_text(), copy.stat().st_mode & 0o777) == ("secret", 0o640)
    (tmp_path / "link").symlink_to(tmp_path / "precious")
    with pytest.raises(FileExistsError):
        undo.clone(secret, tmp_path / "link")
    assert not (tmp_path / "precious").exists()


def test_a_link_is_copied_as_a_link(tmp_path: Path) -> None:
    """Not what it leads to, be it there or not."""
    (tmp_path / "link").symlink_to("nowhere")
    undo.clone(tmp_path / "link", tmp_path / "copy")
    assert (tmp_path / "copy").readlink() == Path("nowhere")


def test_a_unit_that_is_no_more_is_stopped(monkeypatch: pytest.MonkeyPatch) -> None:
    """With all instances of a template; what only adds to another unit is none."""
    asked: list[list[str]] = []
    monkeypatch.setattr(care, "run", asked.append)
    units = Path("/etc/systemd/system")
    names = ("a.timer", "a@.service", "b.service.d/a.conf")
    care.stop_removed(Changes([], [], [*(units / name for name in names), Path("/etc/a.service")]))
    units_of_it = ["a.timer", "a@*.service"]
    assert asked == [["systemctl", verb, *units_of_it] for verb in ("stop", "reset-failed")]
    care.stop_removed(Changes([], [], [Path("/etc/a.service")]))
    assert len(asked) == 2


def test_units_are_stopped_when_the_run_is_complete(monkeypatch: pytest.MonkeyPatch) -> None:
    """Not before all services are up, and not at all when one is not: then the old units are back.

    There is nothing left to be undone by then.
    """
    order: list[str] = []
    past = SimpleNamespace(
        restore=lambda: order.append("restored"), forget=lambda: order.append("complete")
    )
    monkeypatch.setattr(care, "try_staged", lambda *_: None)
    monkeypatch.setattr(care, "ignore_signals", lambda: None)
    monkeypatch.setattr(care, "Undo", SimpleNamespace(prepare=lambda *_: past))
    monkeypatch.setattr(care, "stop_removed", lambda _: order.append("stopped"))
    bundle: Any = SimpleNamespace(services=())
    with care.guarded(bundle, Changes([], [], [])):
        order.append("up")
    assert order == ["up", "complete", "stopped"]
    order.clear()
    with pytest.raises(ApplyError), care.guarded(bundle, Changes([], [], [])):
        raise ApplyError("postfix.service does not start")
    assert order == ["restored"]


@pytest.mark.parametrize(
    ("said", "journal", "told"),
    [
        ("Unit postfix.service is masked.", "daemon started", "Unit postfix.service is masked."),
        ("Job for postfix.service failed.", "fatal: bad main.cf", "fatal: bad main.cf"),
        ("Job for postfix.service failed.", "", "Job for postfix.service failed."),
    ],
)
def test_why_a_service_does_not_start(
    monkeypatch: pytest.MonkeyPatch, said: str, journal: str, told: str
) -> None:
    """Its own last words; but what may not start at all has said nothing since it last ran."""
    answers = {"is-active": (3, ""), "restart": (1, said), "-q": (0, journal)}
    monkeypatch.setattr(services, "run", lambda argv: answers[argv[1]])
    with pytest.raises(ApplyError) as failed:
        services.bring_up(Service("postfix.service", ()), Changes([], [], []), first=False)
    assert str(failed.value) == f"postfix.service does not start: {told}"


def test_what_is_unchanged_is_not_copied_again(tmp_path: Path) -> None:
    """A full disk has no room for another copy of what is there already."""
    path, copy = tmp_path / "file", tmp_path / "copy"
    path.write_text("old")
    undo.clone(path, copy)
    number = path.stat().st_ino
    undo.put_back(path, copy)
    assert path.stat().st_ino == number


def test_a_folder_that_holds_mail_stays(tmp_path: Path) -> None:
    """A folder that was made is removed again only while it is empty."""
    (tmp_path / "spool").mkdir()
    (tmp_path / "spool/mail").touch()
    undo.put_back(tmp_path / "spool", tmp_path / "nothing")
    assert (tmp_path / "spool/mail").exists()
    (tmp_path / "spool/mail").unlink()
    undo.put_back(tmp_path / "spool", tmp_path / "nothing")
    assert not (tmp_path / "spool").exists()


def test_a_damaged_record_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody has to guess which file is meant."""
    monkeypatch.setattr(files, "APPLIED", tmp_path / "applied.json")
    assert files.applied_files() == []
    (tmp_path / "applied.json").write_text(json.dumps({"file": []}))
    with pytest.raises(ApplyError, match=r"applied\.json is damaged"):
        files.applied_files()


def test_a_program_that_is_missing_or_hangs_is_named() -> None:
    """Neither ends in a traceback."""
    with pytest.raises(ApplyError, match="no-such-program is not on this machine") as caught:
        system.run(["no-such-program"])
    assert caught.value.code == 3
    assert system.run(["sleep", "9"], timeout=0.1)[1].startswith("sleep gave no answer within")


def test_what_a_program_says_on_a_terminal_is_heard() -> None:
    """Only what goes to stderr counts, and its exit code."""
    argv = ["sh", "-c", "echo out; test -t 2 && echo complaint >&2; exit 3"]
    assert terminal.run_on_terminal(argv) == (3, "complaint")


@pytest.mark.parametrize(
    "said",
    [
        "/srv/backup-mx/spool/etc/services and /etc/services differ",
        "damaged message: corrupt/4dKz1x0Yf2z9WQ",
    ],
)
def test_what_is_in_the_spool_is_no_complaint(said: str) -> None:
    """Copies of /etc that a newer Postfix made, and a message that qmgr(8) could not read."""
    old = f"postfix/postfix-script: warning: {said}"
    wrong = "postfix/postfix-script: warning: not owned by root: /srv/backup-mx/spool/etc"
    assert checks.that_matters(f"{old}\n{wrong}") == wrong
    assert checks.that_matters(old) == ""


def test_the_complaint_that_matters_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    """apt says much; its first error is the reason."""
    said = "Get:1 ...\nE: Failed to fetch http://mirror/\nE: Some index files failed\n"
    answers = iter([(0, ""), (0, ""), (100, said)])
    monkeypatch.setattr(packages, "run", lambda *_, **__: next(answers))
    assert packages.install_once(["postfix"], ()) == "E: Failed to fetch http://mirror/"


def test_debconf_that_is_locked_is_tried_again(
    report: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """While another program configures packages, nobody can give debconf answers."""
    said = 'debconf: DbDriver "config": config.dat is locked by another process'
    given: list[str] = []

    def run(argv: Sequence[str], *, stdin: str = "", timeout: float = 0) -> tuple[int, str]:
        del timeout
        given.extend([stdin] if stdin else [])
        return (1, said) if len(given) == 1 and argv[0].startswith("debconf") else (0, "")

    monkeypatch.setattr(packages, "run", run)
    packages.install(["postfix"], ["a a a b", "c c c d"], Steps("mx2", "abc", 60))
    [step] = json.loads(report.read_text())["steps"]
    assert (step["tries"], step["outcome"]) == (2, "ok")
    assert given == ["a a a b\nc c c d"] * 2


@pytest.fixture
def report(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where the first boot's report is written, on a machine that is no relay yet."""
    monkeypatch.setattr(steps, "APPLIED", tmp_path / "applied.json")
    monkeypatch.setattr(steps, "REPORT", tmp_path / "first-boot.json")
    monkeypatch.setattr(steps, "PAUSE_S", 0.01)
    return tmp_path / "first-boot.json"


def test_the_first_boots_report_counts_tries(report: Path) -> None:
    """It tells how often a step was tried, and what each came to."""
    complaints = iter(["no network", "no mirror", ""])
    run = Steps("mx2", "abc", 60)
    run.until("packages", lambda: next(complaints))
    with pytest.raises(ApplyError), run.step("services"):
        raise ApplyError("postfix.service does not start")
    told = json.loads(report.read_text())
    assert [(each["step"], each["tries"], each["outcome"]) for each in told["steps"]] == [
        ("packages", 3, "ok"),
        ("services", 1, "postfix.service does not start"),
    ]
    assert (told["relay"], told["version"]) == ("mx2", "abc")


def test_a_step_that_runs_shows_in_the_report(report: Path) -> None:
    """Whoever looks meanwhile, or after a power cut, sees where it stands."""
    with Steps("mx2", "abc", 60).step("packages"):
        [step] = json.loads(report.read_text())["steps"]
        assert step["outcome"] == "running"


def test_patience_has_an_end(report: Path) -> None:
    """What does not come about in time is given up, with the last complaint."""
    with pytest.raises(ApplyError, match=r"^volume: given up after 0 s: none is attached$"):
        Steps("mx2", "abc", 0).until("volume", lambda: "none is attached")
    assert "none is attached" in report.read_text()


def test_only_the_first_run_has_a_report(report: Path) -> None:
    """A relay that is deployed to keeps the report of its first boot."""
    report.with_name("applied.json").touch()
    with Steps("mx2", "abc", 60).step("packages"):
        assert not report.exists()
