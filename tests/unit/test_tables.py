"""Tables of recipients: what a line may be, and that root believes no bad one."""

from __future__ import annotations

import contextlib
import os
import time
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from backup_mx.errors import MachineError
from backup_mx.relay import files
from backup_mx.relay.root.takeover import take_over
from backup_mx.relay.tables import addresses, texthash

DOMAIN = "example.org"
GOOD = {
    "alice": ["alice@example.org"],
    "Alice@Example.ORG  # the first": ["alice@example.org"],
    "@example.org": ["@example.org"],
    "a#b@example.org": ["a#b@example.org"],
    "# a comment\n\n \t\nbob\nbob\n": ["bob@example.org"],
    "\ufeffbob\r\ncarol\r\n": ["bob@example.org", "carol@example.org"],
    "jürgen": ["jürgen@example.org"],
    "a..b.": ["a..b.@example.org"],
}
BAD = {
    "alice\nalice@example.com": 'line 2: "alice@example.com" is not in example.org',
    "alice example": 'line 1: "alice example" is no address',
    "alice@@example.org": "is no address",
    '"a b"@example.org': "is no address",
    "<html>": "is no address",
    "alice OK": "is no address",
    "a\x00b": 'line 1: "a?b" is no address',
    "": "names no recipient of example.org",
    "# nobody\n": "names no recipient of example.org",
}


@pytest.mark.parametrize(("text", "found"), GOOD.items())
def test_what_a_table_lists(text: str, found: list[str]) -> None:
    """Addresses and parts of them, in any case, with comments, in a file of any system."""
    assert list(addresses(text, DOMAIN, "t")) == found


@pytest.mark.parametrize(("text", "complaint"), BAD.items())
def test_what_is_no_table(text: str, complaint: str) -> None:
    """One line that is none, or not a single one: the file and the line are named."""
    with pytest.raises(MachineError) as caught:
        addresses(text, DOMAIN, "t")
    assert str(caught.value).startswith("t")
    assert complaint in str(caught.value)


@given(st.text())
def test_whatever_a_file_holds_it_lists_keys_of_its_domain_or_is_refused(text: str) -> None:
    """Nothing that a stranger writes becomes another line of Postfix's table."""
    try:
        found = addresses(text, DOMAIN, "t")
    except MachineError:
        return
    lines = texthash(found, "exists").split("\n")[:-1]
    assert len(lines) == len(found) > 0
    for line in lines:
        key, value = line.split(" ")
        assert (key.endswith("@example.org"), value) == (True, "exists")
        assert key.split() == [key]
        assert not key.startswith("#")


class Place:
    """Two folders, and how often Postfix was told."""

    def __init__(self, folder: Path) -> None:
        self.source, self.target = folder / "agent", folder / "postfix"
        self.source.mkdir()
        self.target.mkdir()
        self.reloads = 0
        self.said: list[str] = []

    def run(self, *domains: str) -> None:
        """Take over the tables of ``domains``."""
        take_over(domains, 20, self.reload, self.said.append, self.source, self.target)

    def reload(self) -> None:
        """Count."""
        self.reloads += 1

    def there(self, domain: str) -> str:
        """Return Postfix's table."""
        return (self.target / domain).read_text()


@pytest.fixture
def place(tmp_path: Path) -> Place:
    """Folders with a good table of two domains, taken over."""
    made = Place(tmp_path)
    (made.source / "one.example").write_text("alice@one.example\n")
    (made.source / "two.example").write_text("bob@two.example\n")
    made.run("one.example", "two.example")
    return made


def test_a_table_is_taken_over_once(place: Place) -> None:
    """Postfix is told once for all that is new, and not at all for what is not."""
    assert place.there("one.example") == "alice@one.example exists\n"
    assert place.reloads == 1
    place.run("one.example", "two.example", "three.example")
    assert place.reloads == 1
    assert sorted(path.name for path in place.target.iterdir()) == ["one.example", "two.example"]


def test_a_bad_table_leaves_the_one_before_and_the_others_are_taken(place: Place) -> None:
    """The trouble of one domain is told, and is not the other's."""
    (place.source / "one.example").write_text("")
    (place.source / "two.example").write_text("carol@two.example\n")
    with pytest.raises(MachineError, match=r"the table of one\.example stays as it was: .* no rec"):
        place.run("one.example", "two.example")
    assert place.there("one.example") == "alice@one.example exists\n"
    assert place.there("two.example") == "carol@two.example exists\n"
    assert place.reloads == 2


def test_postfix_is_told_of_a_table_that_an_earlier_run_could_not_tell_of(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing differs any more when the next run comes: it tells all the same, and once."""

    def refuses() -> None:
        raise MachineError("postfix: not now")

    (place.source / "one.example").write_text("carol@one.example\n")
    with monkeypatch.context() as patch:
        patch.setattr(place, "reload", refuses)
        with pytest.raises(MachineError, match="not now"):
            place.run("one.example", "two.example")
    assert place.there("one.example") == "carol@one.example exists\n"
    for _ in range(2):
        place.run("one.example", "two.example")
        assert place.reloads == 2
    assert sorted(path.name for path in place.target.iterdir()) == ["one.example", "two.example"]


def test_a_run_that_dies_before_it_has_told_postfix(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The mark is there before the table is."""
    (place.source / "one.example").write_text("carol@one.example\n")

    def dies(path: Path, text: str) -> None:
        written(path, text)
        if path.name == "one.example":
            raise KeyboardInterrupt

    written = files.replace
    with monkeypatch.context() as patch:
        patch.setattr(files, "replace", dies)
        with pytest.raises(KeyboardInterrupt):
            place.run("one.example", "two.example")
    place.run("one.example", "two.example")
    assert place.reloads == 2


@pytest.mark.parametrize("kind", ["link", "pipe", "folder", "noise"])
def test_what_is_no_file_is_no_table(place: Place, kind: str, tmp_path: Path) -> None:
    """A link to a good table, a pipe, a folder, bytes: none is believed, none is waited for."""
    path = place.source / "one.example"
    path.unlink()
    (tmp_path / "other").write_text("zoe@one.example\n")
    match kind:
        case "link":
            path.symlink_to(tmp_path / "other")
        case "pipe":
            os.mkfifo(path)
        case "folder":
            path.mkdir()
        case "noise":
            path.write_bytes(b"\xff\xfe\n")
    with pytest.raises(MachineError, match="stays as it was"):
        place.run("one.example")
    assert place.there("one.example") == "alice@one.example exists\n"


TEN = [f"user{number}@one.example\n" for number in range(10)]


@pytest.mark.parametrize(("left", "taken"), [(10, True), (8, True), (7, False), (1, False)])
def test_root_lets_a_table_shrink_a_little_only(place: Place, left: int, taken: bool) -> None:
    """By a fifth here, whatever the agent believes; measured by what Postfix has."""
    (place.source / "one.example").write_text("".join(TEN))
    place.run("one.example", "two.example")
    (place.source / "one.example").write_text("".join(TEN[:left]))
    with contextlib.nullcontext() if taken else pytest.raises(MachineError, match="it shrank from"):
        place.run("one.example", "two.example")
    assert place.there("one.example").count(" exists\n") == (left if taken else 10)


def test_the_first_table_may_be_of_any_length(place: Place) -> None:
    """What a deploy puts there, everybody and a comment, is no table that one is measured by."""
    began = "# Everybody, until a table is fetched.\n@one.example exists\n"
    (place.target / "one.example").write_text(began)
    (place.source / "one.example").write_text("zoe@one.example\n")
    place.run("one.example", "two.example")
    assert place.there("one.example") == "zoe@one.example exists\n"


def test_a_table_may_grow_to_everybody_and_not_shrink_by_way_of_it(place: Place) -> None:
    """One line that takes everybody refuses nobody; it is not what the next one is measured by."""
    (place.source / "one.example").write_text("".join(TEN))
    place.run("one.example")
    (place.source / "one.example").write_text("@one.example\n")
    place.run("one.example")
    assert place.there("one.example").splitlines() == [
        f"{each} exists" for each in sorted(["@one.example", *"".join(TEN).split()])
    ]
    (place.source / "one.example").write_text("nobody@one.example\n")
    with pytest.raises(MachineError, match="it shrank from 11 to 1 rec"):
        place.run("one.example")
    (place.source / "one.example").write_text("".join(TEN[:9]))
    place.run("one.example")
    assert "\n@one.example" not in f"\n{place.there('one.example')}"


def test_a_table_does_not_shrink_by_and_by(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    """A fifth a day, however often the agent writes; what is measured by outlasts its own rest."""
    clock = time.time()
    monkeypatch.setattr("time.time", lambda: clock)

    def left(number: int) -> int:
        (place.source / "one.example").write_text("".join(TEN[:number]))
        with contextlib.suppress(MachineError):
            place.run("one.example")
        lines = place.there("one.example").splitlines()
        return sum(not each.startswith("#") for each in lines)

    assert [left(10), left(8), left(7), left(9), left(8), left(7)] == [10, 8, 8, 9, 8, 8]
    clock += 23 * 3600
    assert left(7) == 8
    clock += 2 * 3600
    assert [left(7), left(6)] == [7, 7]
    assert place.there("one.example").startswith(f"# 8 recipients until {int(clock)}\n")


def test_a_huge_table_is_not_read(place: Place) -> None:
    """A file of a terabyte, full of nothing, is refused by its size."""
    os.truncate(place.source / "one.example", 2**40)
    with pytest.raises(MachineError, match=r"is no file of a table's size"):
        place.run("one.example")
    assert place.there("one.example") == "alice@one.example exists\n"


def test_no_table_is_read_where_a_link_leads(place: Place, tmp_path: Path) -> None:
    """The agent may put a link where its folder was: what lies behind it is not taken over."""
    (place.source / "one.example").write_text("zoe@one.example\n")
    place.source.rename(tmp_path / "elsewhere")
    place.source.symlink_to(tmp_path / "elsewhere")
    with pytest.raises(MachineError, match=r"the table of one\.example stays as it was"):
        place.run("one.example")
    assert place.there("one.example") == "alice@one.example exists\n"


def test_a_table_that_is_not_wanted_any_more_goes(place: Place) -> None:
    """Both copies, and when it was fetched; so a domain that has one again begins with none."""
    (place.source / ".one.example.new").write_text("half of it")
    stamps = place.source.with_name("agent-fetched")
    stamps.mkdir()
    (stamps / "one.example").touch()
    (stamps / "two.example").touch()
    place.run("one.example")
    assert place.said[-3:] == [
        f"'two.example' in {folder} is dropped: the settings name no such table"
        for folder in (place.source, stamps, place.target)
    ]
    assert [path.name for path in stamps.iterdir()] == ["one.example"]
    assert sorted(path.name for path in place.source.iterdir()) == [
        ".one.example.new",
        "one.example",
    ]
    assert [path.name for path in place.target.iterdir()] == ["one.example"]
    assert place.reloads == 1
    (place.source / "two.example").write_text("dora@two.example\n")
    place.run("one.example", "two.example")
    assert place.there("two.example") == "dora@two.example exists\n"


def test_nothing_is_dropped_where_a_link_leads(place: Place, tmp_path: Path) -> None:
    """The agent may put a link where its folder was: root follows none, and the others go on."""
    place.source.rename(tmp_path / "elsewhere")
    place.source.symlink_to(tmp_path / "elsewhere")
    with pytest.raises(MachineError, match=r"agent cannot be read: "):
        place.run()
    assert len([*(tmp_path / "elsewhere").iterdir()]) == 2
    assert [*place.target.iterdir()] == []


def test_what_cannot_be_dropped_is_told(place: Place) -> None:
    """A folder is no table: it stays, and the tables are taken over."""
    (place.source / "three.example").mkdir()
    (place.source / "one.example").write_text("zoe@one.example\n")
    with pytest.raises(MachineError, match=r"'three\.example' in .* cannot be dropped"):
        place.run("one.example", "two.example")
    assert place.there("one.example") == "zoe@one.example exists\n"


def test_folders_that_are_not_there_are_no_trouble(tmp_path: Path) -> None:
    """Where nothing was ever fetched there is nothing to do."""
    take_over([], 20, pytest.fail, pytest.fail, tmp_path / "a", tmp_path / "b")
