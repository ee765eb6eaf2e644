"""Exported messages: what is in their files, and how they travel."""

from __future__ import annotations

import contextlib
import hashlib
import io
import json
import time
import tracemalloc
from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import IO, ClassVar

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from ledgers import Desk, tried

from backup_mx.relay.ledger import RETENTION
from backup_mx.relay.ledger.query import reading
from backup_mx.relay.operator import export, look, parcel
from backup_mx.relay.operator.parcel import Inbox, Letter, ParcelError, To
from backup_mx.relay.queue import envelope
from backup_mx.relay.queue.commands import Postfix
from backup_mx.relay.root.protocol import Result
from backup_mx.relay.state import Snapshot

DATA = Path(__file__).parents[1] / "data" / "postcat"
ID = "4jXLpZ33n3zJ0G7"
BODY = b"Subject: x\r\n\r\n.\r\n..dots\r\n\x00\xff\r\n" + b"long" * 5000 + b"\r\n"
LETTER = Letter(
    format=1,
    relay="mx2.example.org",
    ids=("4jXLpS4Kc0zHyqn", ID),
    sender="",
    recipients=(To("-x@example.org"), To('a "b\\c@example.org'), To("j\udcfcrgen@example.org")),
    accepted=1_700_000_000,
    held=True,
    size=len(BODY),
    sha256=hashlib.sha256(BODY).hexdigest(),
    smtputf8=False,
    eightbit=True,
    attributes={"message_id": "<026b.0003.0000@mx2>"},
)


def test_an_envelope_is_read_from_postcat() -> None:
    """Sender, recipients and what Postfix knows of them, times and sizes."""
    found = envelope.parse((DATA / "requeued-3.10.txt").read_bytes())
    assert (found.sender, found.content, found.smtputf8) == ("a@example.net", 2417, False)
    (alice,) = found.recipients
    assert alice == envelope.Recipient(
        "alice@example.org", "alice@example.org", "rfc822;alice@example.org"
    )
    assert found.attributes["log_ident"] == "4jXLpS4Kc0zHyqn"
    assert found.attributes["message_id"] == "<026b.0003.0000@mx2>"


def test_who_has_the_message_does_not_get_it_again() -> None:
    """A recipient who is done is known as such, and is not exported."""
    found = envelope.parse((DATA / "half-done-3.10.txt").read_bytes())
    assert [each.done for each in found.recipients] == [True, False]
    known = export.Known({"bob@example.org": "refused"})
    made = export.letter("mx2", ID, found, known.why, 5, "0" * 64, held=True)
    (bob,) = made.recipients
    assert (bob.address, bob.reason) == ("bob@example.org", "refused")
    assert made.ids == ("4jXLpS4Kc0zHyqn", ID)
    assert made.held


@pytest.mark.parametrize("hides", [False, True])
def test_reasons_go_along_however_addresses_stand_in_the_ledger(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, hides: bool
) -> None:
    """Each recipient's own, also where the ledger knows him by a hash, or did when he was new."""
    desk = Desk(tmp_path, hash_addresses=hides)
    desk.accept(ID, recipients=2)
    desk.say(*(tried(ID, f"{who}@example.org", "deferred", f"{who} waits") for who in "ab"))
    for hashes in (hides, not hides):
        desk.hash_addresses = hashes
        desk.reopen()
        with reading(desk.path) as reader:
            alive = (reader, Snapshot(time.time(), 0.0, "mx2", "mx2.example.org", ""))
            monkeypatch.setattr(look, "agent", partial(contextlib.nullcontext, alive))
            known = export.about([ID])[ID]
        assert {each: known.why(f"{each}@example.org") for each in "abc"} == {
            "a": "a waits", "b": "b waits", "c": ""
        }  # fmt: skip
    desk.ledger.close()


class Stored(Postfix):
    """A Postfix that has one message under any name; some have other senders."""

    senders: ClassVar[dict[str, bytes]] = {}

    def envelope(self, queue_id: str) -> bytes:
        printed = (DATA / "half-done-3.10.txt").read_bytes()
        sender = self.senders.get(queue_id, b"a@example.net")
        return printed.replace(b"sender: a@example.net", b"sender: " + sender)

    @contextlib.contextmanager
    def message(self, queue_id: str) -> Iterator[IO[bytes]]:  # noqa: ARG002
        yield io.BytesIO(b"Subject: x\n")


@pytest.mark.parametrize(("holder", "held"), [("root", True), ("", True), (RETENTION, False)])
def test_what_retention_holds_is_not_exported_as_held(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, holder: str, held: bool
) -> None:
    """Held by an operator's import it would never be released by itself any more."""
    monkeypatch.setattr(export, "setting", lambda _: "mx2.example.org")
    monkeypatch.setattr(export, "about", lambda _: {ID: export.Known({}, holder)})
    queue = tmp_path / "hold"
    queue.mkdir()
    (queue / ID).touch(0o700)
    (result,) = export.export(Stored(tmp_path), [ID], tmp_path / "out")
    assert result == Result(ID, True, "exported")
    assert parcel.read((tmp_path / "out" / f"{ID}.json").read_bytes()).held is held


ODD = b"a\tb\x1b@example.net"


@pytest.mark.parametrize("carries", [False, True])
def test_what_nobody_could_import_stops_no_other(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, carries: bool
) -> None:
    """Its letter is not sent, and why is told of it alone; an address is only odd mostly."""
    bad, ids = "4jXLpS4Kc0zHyqn", ["4jXLkx0p7MzJ0mS", "4jXLpS4Kc0zHyqn", ID]
    monkeypatch.setattr(export, "setting", lambda _: "mx2.example.org")
    monkeypatch.setattr(export, "about", lambda _: {})
    monkeypatch.setattr(Stored, "senders", {ids[0]: ODD, bad: b"a@b..c"})
    (tmp_path / "deferred").mkdir()
    for each in ids:
        (tmp_path / "deferred" / each).touch(0o700)
    lines: list[str] = []
    if carries:
        results = export.carry(Stored(tmp_path), ids, lines.append)
        assert [json.loads(each)["id"] for each in lines if '"letter"' in each] == [ids[0], ID]
    else:
        results = export.export(Stored(tmp_path), ids, tmp_path / "out")
        names = {f"{each}.{end}" for each in (ids[0], ID) for end in ("eml", "json")}
        assert {each.name for each in (tmp_path / "out").iterdir()} == names
        letter = parcel.read((tmp_path / "out" / f"{ids[0]}.json").read_bytes())
        assert letter.sender.encode() == ODD
    assert [each.done for each in results] == [True, False, True]
    assert results[1].said.endswith(": an address")


def test_a_message_from_the_future_was_accepted_by_now() -> None:
    """The clock was ahead when it came: it is exported all the same."""
    printed = (DATA / "half-done-3.10.txt").read_bytes()
    found = replace(envelope.parse(printed), arrival=time.ctime(time.time() + 10 * 86_400))
    made = export.letter("mx2", ID, found, lambda _: "", 5, "0" * 64, held=True)
    assert 0 <= time.time() - parcel.read(made.text).accepted < 60


def test_only_what_everybody_has_is_delivered() -> None:
    """Of several envelopes printed one after the other; one without recipients is damaged."""
    half = (DATA / "half-done-3.10.txt").read_bytes()
    whole = half.replace(ID.encode(), b"4jXLpZ33n4zJ0G8").replace(
        b"\nrecipient:", b"\ndone_recipient:"
    )
    nobody = b"*** ENVELOPE RECORDS hold/4jXLpZ33n5zJ0G9 ***\nsender: a@example.net\n"
    printed = (half + whole + nobody).splitlines(keepends=True)
    assert envelope.delivered(printed) == {"4jXLpZ33n4zJ0G8"}


def test_a_thousand_recipients_of_each_message_take_no_room() -> None:
    """A stranger chooses how many there are: of 500 messages with 1,000 each nothing is kept."""
    people = [b"done_recipient: %0240d@example.org\n" % each for each in range(1000)]

    def printed() -> Iterator[bytes]:
        for number in range(500):
            yield b"*** ENVELOPE RECORDS deferred/A/A%d ***\n" % number
            yield from people
            if number % 2:
                yield b"recipient: last@example.org\n"

    tracemalloc.start()
    try:
        found = envelope.delivered(printed())
        assert tracemalloc.get_traced_memory()[1] < 2**20
    finally:
        tracemalloc.stop()
    assert found == {f"A{number}" for number in range(0, 500, 2)}


@given(st.binary())
def test_any_bytes_are_an_envelope(printed: bytes) -> None:
    """A damaged envelope never raises."""
    envelope.parse(printed)
    lines = printed.splitlines(keepends=True)
    assert envelope.delivered(lines) == frozenset()
    assert envelope.delivered([b"*** ENVELOPE RECORDS x ***\n", *lines]) <= {"x"}


@given(st.lists(st.binary(max_size=20).map(lambda line: line.replace(b"\n", b"")), min_size=1))
def test_stored_lines_become_those_of_smtp(lines: list[bytes]) -> None:
    """Line by line the bytes are those that were stored; each line, the last too, ends in CR LF."""
    for stored in (b"\n".join(lines) + b"\n", b"\n".join(lines)):
        sent = b"".join(parcel.wire(io.BytesIO(stored)))
        assert sent == b"".join(
            line + b"\r\n" for line in stored.removesuffix(b"\n").split(b"\n")
        ) or (stored == b"" == sent)


@given(st.lists(st.binary(max_size=3_000_000), max_size=3))
@settings(max_examples=20, deadline=None)
def test_parts_hold_the_same_bytes(chunks: list[bytes]) -> None:
    """In parts of a megabyte at most."""
    some = list(parcel.parts(chunks))
    assert b"".join(some) == b"".join(chunks)
    assert all(len(each) <= 1 << 20 for each in some)


def lines_of(letter: Letter, body: bytes = BODY) -> list[str]:
    return [*parcel.carried(letter.id, [body]), parcel.sealed(letter)]


def test_a_message_travels_whole(tmp_path: Path) -> None:
    """Its bytes and its letter are the same on the other side, readable by their owner only."""
    box = Inbox(tmp_path / "new" / "folder")
    box.begin()
    assert [box.take(line) for line in lines_of(LETTER)] == [None, LETTER]
    assert (box.folder / f"{ID}.eml").read_bytes() == BODY
    assert parcel.read((box.folder / f"{ID}.json").read_text()) == LETTER
    assert {each.stat().st_mode & 0o777 for each in box.folder.iterdir()} == {0o600}
    assert len(list(box.folder.iterdir())) == 2


def test_a_message_that_was_cut_off_leaves_nothing(tmp_path: Path) -> None:
    """Without its end, or with other bytes, no file of that name is there."""
    box = Inbox(tmp_path)
    box.begin()
    with pytest.raises(ParcelError, match="SHA-256"):
        [box.take(line) for line in lines_of(LETTER, BODY[:-1])]
    box.take(lines_of(LETTER)[0])
    box.begin()
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "line",
    ["", "[]", "{}", '{"id": "../../etc/passwd", "part": ""}', '{"id": "ALL", "letter": "{}"}',
     json.dumps({"id": ID, "part": "%%%"}), json.dumps({"id": ID, "letter": "{}"}),
     json.dumps({"id": "4jXLpS4Kc0zHyqn", "letter": LETTER.text})],
)  # fmt: skip
def test_hostile_lines_write_nothing(tmp_path: Path, line: str) -> None:
    """Only queue IDs become names of files."""
    box = Inbox(tmp_path / "box")
    box.begin()
    with pytest.raises(ParcelError):
        box.take(line)
    assert list(box.folder.iterdir()) == []


@pytest.mark.parametrize(
    "change",
    [
        {"format": 2},
        {"relay": "../x"},
        {"ids": []},
        {"ids": ["ALL"]},
        {"sender": "a\r\nRCPT TO:<b@example.org>"},
        {"sender": None},
        {"recipients": []},
        {"recipients": [{"address": ""}]},
        {"recipients": [{"address": "a\n@example.org"}]},
        {"recipients": ["alice@example.org"]},
        {"accepted": "now"},
        {"attributes": []},
        {"unknown": 1},
    ],
)
def test_a_letter_that_export_never_wrote(change: dict[str, object]) -> None:
    """What would reach an MTA is checked, member by member."""
    with pytest.raises(ParcelError, match="not what backup-mx export writes"):
        parcel.read(json.dumps(json.loads(LETTER.text) | change))


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("", "no JSON: Expecting value: line 1 column 1 (char 0)"),
        ("[1]", "no object"),
        ("{}", "it has no format, relay, ids, sender, recipients, accepted, held, size, sha256,"
               " smtputf8, eightbit, attributes"),
        ({"ids": "x"}, "ids and recipients are lists"),
        ({"recipients": ["a@example.org"]}, "a recipient is an object"),
        ({"recipients": [{"to": "a"}]}, "of a recipient, it has no address"),
        ({"recipients": [{"address": "a", "to": "a"}]}, "of a recipient, it has to"),
        ({"unknown": 1}, "it has unknown"),
    ],
)  # fmt: skip
def test_a_foreign_file_is_named_with_what_it_lacks(
    tmp_path: Path, content: str | dict[str, object], said: str
) -> None:
    """Whoever gave the wrong one sees which it was, and what is expected."""
    file = tmp_path / "x.json"
    known = json.loads(LETTER.text)
    file.write_text(content if isinstance(content, str) else json.dumps(known | content))
    with pytest.raises(ParcelError) as told:
        parcel.read_file(file)
    assert str(told.value) == f"{file} is not what backup-mx export writes: {said}"
