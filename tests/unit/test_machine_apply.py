"""The parts of relay.pyz that need no machine of their own."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from backup_mx.machine.apply import files, packages, system, undo
from backup_mx.machine.apply.files import Changes, File, Folder, diff_of
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
    assert system.run_on_terminal(argv) == (3, "complaint")


def test_the_complaint_that_matters_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    """apt says much; its first error is the reason."""
    said = "Get:1 ...\nE: Failed to fetch http://mirror/\nE: Some index files failed\n"
    answers = iter([(0, ""), (100, said)])
    monkeypatch.setattr(packages, "run", lambda *_, **__: next(answers))
    assert packages.install_once(["postfix"]) == "E: Failed to fetch http://mirror/"
