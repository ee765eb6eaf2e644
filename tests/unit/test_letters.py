"""Exported files that somebody else wrote: each is refused in one clear message."""

from __future__ import annotations

import base64
import errno
import hashlib
import json
import os
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
import syncs
from test_parcel import BODY, ID, LETTER, lines_of

from backup_mx.errors import MachineError
from backup_mx.machine import letters
from backup_mx.machine.ship import Answer, Tell
from backup_mx.relay import files
from backup_mx.relay.operator import parcel
from backup_mx.relay.operator.parcel import Inbox, ParcelError, SpoiltError, To

OTHER = "4jXLpS4Kc0zHyqn"


def changed(**change: object) -> str:
    """The letter's JSON with other members."""
    return json.dumps(json.loads(LETTER.text) | change)


@pytest.mark.parametrize("body", [b"Subject: x\r\n\r\nx", b"x\n", b"x\r", b"x\r\n.\n"])
def test_a_body_that_does_not_end_its_last_line(tmp_path: Path, body: bytes) -> None:
    """The line that ends DATA would be part of the message, and nobody would ever answer."""
    file = tmp_path / f"{ID}.eml"
    file.write_bytes(body)
    letter = replace(LETTER, sha256=hashlib.sha256(body).hexdigest(), size=len(body))
    with pytest.raises(ParcelError, match="line end"):
        parcel.check(file, letter)


@pytest.mark.parametrize("body", [b"", b"\r\n", BODY])
def test_a_body_that_ends_its_last_line(tmp_path: Path, body: bytes) -> None:
    """So does one without any line."""
    file = tmp_path / f"{ID}.eml"
    file.write_bytes(body)
    parcel.check(file, replace(LETTER, sha256=hashlib.sha256(body).hexdigest(), size=len(body)))


DEEP = "[" * 100_000


@pytest.mark.parametrize(
    "text",
    [
        DEEP,
        '{"ids": ' + DEEP,
        changed(sender="a\ud800@example.org"),
        changed(recipients=[{"address": "\udc00@example.org"}]),
        changed(recipients=[{"address": "a@example.org", "reason": 5}]),
        changed(recipients=[{"address": "a@example.org", "orcpt": "\ud800"}]),
        changed(attributes={"message_id": "\ud800"}),
        changed(attributes={"message_id": ["x"]}),
        changed(format=True),
        changed(**{"\x1b[2J" + "x" * 60_000: 1}),
    ],
)
def test_what_python_stumbles_over_is_one_message(text: str) -> None:
    """Lone surrogates, nesting without end, wrong kinds: neither a traceback nor a screenful."""
    with pytest.raises(ParcelError, match="not what backup-mx export writes") as told:
        parcel.read(text)
    assert str(told.value).isprintable()
    assert len(str(told.value)) < 300


def test_a_line_that_is_nested_without_end(tmp_path: Path) -> None:
    """The same on the way between machines."""
    for line in (DEEP, json.dumps({"id": ID, "letter": DEEP})):
        with pytest.raises(ParcelError):
            Inbox(tmp_path).take(line)


@pytest.mark.parametrize(
    "accepted",
    [-1, 10**18, 10**400, int(time.time()) + 2 * 86_400],
    ids=["before 1970", "far", "endless", "tomorrow"],
)
def test_a_time_that_was_not(accepted: int) -> None:
    """A message was accepted since 1970 and before now, give or take a clock that is off."""
    with pytest.raises(ParcelError, match="accepted"):
        parcel.read(changed(accepted=accepted))


@pytest.mark.parametrize("accepted", [0, int(time.time()) + 3600], ids=["1970", "soon"])
def test_a_time_that_may_have_been(accepted: int) -> None:
    """Postfix's clock may be a little ahead of ours; 0 is what export writes for an odd date."""
    assert parcel.read(changed(accepted=accepted)).accepted == accepted


@pytest.mark.parametrize(
    "address",
    [
        "x@e.org> SIZE=1 X=<",
        "x@e.org>",
        "x@e.org BODY=7BIT",
        "x@",
        "x@a..b",
        "x@.example.org",
        'x@"e.org"',
        "x@e.org,y",
        "x@[192.0.2.1] X",
        "x@[192.0.2.1",
        "x@[]",
        "x@e.org\r\nDATA",
        "x\x00@e.org",
        "x\n@e.org",
        "x@e.org\t",
        "x@e\x7f.org",
        "x@" + "a" * 300,
    ],
)
def test_an_address_that_would_speak_smtp(address: str) -> None:
    """Its domain is one, so that nothing after it reaches the command; nothing ends that."""
    for change in ({"sender": address}, {"recipients": [{"address": address}]}):
        with pytest.raises(ParcelError, match="address"):
            parcel.read(changed(**change))


@pytest.mark.parametrize(
    "address",
    [
        "alice@example.org",
        "postmaster",
        'a "b> <c\\d@example.org',
        "a@b@example.org",
        "a\tb\x01\x0b\x1b\x7f@example.org",
        "j\udcfcrgen@example.org",
        "jürgen@bücher.example",
        "a@xn--bcher-kva.example.",
        "a@_odd-.example",
        "a@[192.0.2.1]",
        "a@[IPv6:2001:db8::1]",
    ],
)
def test_an_address_that_only_looks_odd(address: str) -> None:
    """What Postfix takes comes back: a quoted local part may hold nearly anything."""
    found = parcel.read(changed(sender=address, recipients=[{"address": address}]))
    assert (found.sender, found.recipients) == (address, (To(address),))


def part(queue_id: str) -> str:
    return json.dumps({"id": queue_id, "part": base64.b64encode(b"x").decode()})


def test_only_what_was_asked_for_is_taken(tmp_path: Path) -> None:
    """Neither another message nor the same one twice: it would replace what is there."""
    box = Inbox(tmp_path, wanted={ID})
    for line in (part(OTHER), json.dumps({"id": OTHER, "letter": LETTER.text})):
        with pytest.raises(ParcelError, match="was not asked for"):
            box.take(line)
    for line in lines_of(LETTER):
        box.take(line)
    before = sorted(tmp_path.iterdir())
    for line in lines_of(LETTER):
        with pytest.raises(ParcelError, match="was not asked for"):
            box.take(line)
    assert sorted(tmp_path.iterdir()) == before


def test_a_first_part_makes_its_file(tmp_path: Path) -> None:
    """One that somebody else has put there is not written to."""
    file = tmp_path / f".{ID}.eml.new"
    file.write_bytes(b"theirs")
    with pytest.raises(FileExistsError):
        Inbox(tmp_path).take(part(ID))
    assert file.read_bytes() == b"theirs"


def test_what_is_spoilt_is_one_message_only(tmp_path: Path) -> None:
    """It is named, leaves nothing, and may come again; what is no message's own ends it all."""
    box = Inbox(tmp_path, wanted={ID})
    for text in (changed(accepted=-1), changed(ids=[OTHER]), changed(sha256="")):
        box.take(part(ID))
        with pytest.raises(SpoiltError) as told:
            box.take(json.dumps({"id": ID, "letter": text}))
        assert told.value.id == ID
        assert list(tmp_path.iterdir()) == []
    assert [box.take(line) for line in lines_of(LETTER)] == [None, LETTER]
    with pytest.raises(ParcelError) as other:
        box.take(part(OTHER))
    assert not isinstance(other.value, SpoiltError)


def test_what_has_come_outlasts_a_power_cut(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each file is on disk before it has its name; at the end the names are, and half a file goes.

    What a folder is on may not know of that: then there is nothing to do.
    """
    done = syncs.noted(monkeypatch, deaf=tmp_path)
    box = Inbox(tmp_path)
    for line in (*lines_of(LETTER), part(OTHER)):
        box.take(line)
    box.end()
    new = (f".{ID}.eml.new", f".{ID}.json.new")
    each = [f"{what} {file}" for file in new for what in ("sync", "rename")]
    assert done == [*each, f"sync {tmp_path.name}"]
    assert {file.name for file in tmp_path.iterdir()} == {f"{ID}.eml", f"{ID}.json"}


@pytest.mark.parametrize(
    ("number", "place"),
    [
        (errno.EIO, Path(__file__).parent),
        (errno.EIO, Path(__file__)),
        (errno.EINVAL, Path(__file__)),
    ],
)
def test_what_cannot_be_put_on_disk_is_an_error(
    monkeypatch: pytest.MonkeyPatch, number: int, place: Path
) -> None:
    """Whatever the reason, and the folder's if it is the disk's."""

    def broken(handle: int) -> None:
        os.fstat(handle)
        raise OSError(number, "x")

    monkeypatch.setattr(os, "fsync", broken)
    with pytest.raises(OSError, match="x"):
        files.on_disk(place)


@dataclass(frozen=True)
class Answering:
    """A relay that answers one thing to an import."""

    said: str

    def run(self, argv: Sequence[str], *, stdin: bytes = b"", tell: Tell | None = None) -> Answer:
        """Take what is sent, and say it."""
        del argv, stdin, tell
        return Answer(0, self.said, "")


@pytest.mark.parametrize("said", ["[" * 200_000, "{", '{"results": [{}]}', "[]"])
def test_a_relay_that_answers_nonsense_to_an_import(tmp_path: Path, said: str) -> None:
    """It is one message, not the end of a rebuild in a defect."""
    box = Inbox(tmp_path, wanted={ID})
    for line in lines_of(LETTER):
        box.take(line)
    with pytest.raises(MachineError, match="did not answer as it should"):
        letters.put_back(Answering(said), letters.whole(tmp_path).values(), lambda _: None)
