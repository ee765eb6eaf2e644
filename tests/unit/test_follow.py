"""Reading a log exactly once, whatever logrotate, a power cut or a kill do to it."""

import os
import shutil
from collections.abc import Callable, Iterator
from dataclasses import asdict, replace
from pathlib import Path
from types import ModuleType

import pytest
from logs import Log, Reader, lines

from backup_mx.relay.log import follow, logfiles
from backup_mx.relay.log.follow import Follower, Position


@pytest.fixture
def log(tmp_path: Path) -> Iterator[Log]:
    log = Log(tmp_path)
    yield log
    log.close()


@pytest.fixture
def reader(log: Log) -> Iterator[Reader]:
    reader = Reader(log)
    yield reader
    reader.follower.close()


def test_there_need_be_no_log_yet(tmp_path: Path) -> None:
    """Before Postfix's first start there is nothing to read, and that is no error."""
    assert Follower(tmp_path / "none" / "maillog").read(None, 5).position is None
    assert not Follower(tmp_path / "maillog").read(None, 5).behind


def test_lines_are_read_once(log: Log, reader: Reader) -> None:
    """What was read is not read again, by the same reader or by the next one."""
    lines(log, 10)
    reader.read()
    reader.restart()
    reader.read()
    lines(log, 5)
    reader.read()
    assert reader.lines == log.written


def test_a_torn_line_waits_for_its_end(log: Log, reader: Reader) -> None:
    """A line without its newline is not a line yet."""
    lines(log, 2)
    log.append(b"half")
    reader.read()
    assert reader.lines == log.written
    log.append(b" and half\n")
    reader.read()
    assert reader.lines == [*log.written, b"half and half"]


def test_a_torn_line_at_an_archives_end_is_a_line(log: Log, reader: Reader) -> None:
    """Its writer was killed; it is given out when there is a next file, and not before."""
    lines(log, 2)
    log.append(b"half")
    log.compress(log.rotate())
    reader.read()
    assert reader.lines == log.written
    log.reload()
    log.written.append(b"half")
    lines(log, 2)
    reader.read()
    assert reader.lines == log.written


def test_a_renamed_log_is_read_until_the_next_one_fills(log: Log, reader: Reader) -> None:
    """postlogd writes to the renamed file until the reload; lines from between are not lost."""
    lines(log, 4)
    reader.read()
    log.rotate()
    lines(log, 3)
    reader.read()
    assert reader.lines == log.written
    log.reload()
    log.age(5)
    lines(log, 3)
    reader.read()
    assert reader.lines == log.written
    assert not reader.gaps


def test_a_renamed_log_that_has_just_been_written_to_is_not_left(log: Log, reader: Reader) -> None:
    """The last writer may still be at its last line while the next one has begun."""
    lines(log, 4)
    reader.read()
    old = log.handle
    log.rotate()
    log.reload()
    lines(log, 1)
    reader.read()
    late = b"Nov 22 07:00:00 mx2 postfix/x[1]: late"
    os.write(old, late + b"\n")
    os.utime(old, (log.now, log.now))
    log.now += 5
    reader.read()
    assert reader.lines == [*log.written[:4], late, *log.written[4:]]


def test_several_rotations_are_caught_up_with(log: Log, reader: Reader) -> None:
    """A reader that was away while files were renamed and compressed finds its place."""
    lines(log, 7)
    reader.read(limit=5, batches=1)
    for _ in range(3):
        old = log.rotate()
        log.reload()
        log.age(5)
        lines(log, 7)
        log.compress(old)
    reader.restart()
    reader.read()
    assert reader.lines == log.written
    assert not reader.gaps


def test_a_fresh_reader_begins_with_the_oldest_file(log: Log, reader: Reader) -> None:
    """A ledger that is begun anew learns all that the logs still tell."""
    lines(log, 3)
    log.compress(log.rotate())
    log.reload()
    lines(log, 3)
    log.age(5)
    log.rotate()
    log.reload()
    lines(log, 3)
    reader.read()
    assert reader.lines == log.written


def turn(log: Log) -> None:
    """What a night does: lines before the rename, between it and the reload, and after."""
    lines(log, 2)
    log.rotate()
    lines(log, 2)
    log.age(5)
    log.reload()
    lines(log, 2)


@pytest.mark.parametrize(
    ("module", "name", "late"),
    [
        (logfiles, "_rank", False),  # rotated while the names are looked at
        (logfiles, "_look", True),  # the log's name is the next file's by now
        (follow, "family", True),  # rotated when the files are known, before one is opened
        (follow, "_lines", False),  # between the look at the file and the reading
        (follow, "_lines", True),  # and after it
    ],
)
def test_a_rotation_amid_a_reading_loses_nothing(
    log: Log,
    reader: Reader,
    monkeypatch: pytest.MonkeyPatch,
    module: ModuleType,
    name: str,
    late: bool,
) -> None:
    """A name stands for one file when it is listed and for the next when it is opened."""
    lines(log, 3)
    reader.read()
    lines(log, 1)
    real = getattr(module, name)

    def rotating(*arguments: object) -> object:
        monkeypatch.setattr(module, name, real)
        found = real(*arguments) if late else None
        turn(log)
        return found if late else real(*arguments)

    monkeypatch.setattr(module, name, rotating)
    reader.read()
    reader.restart()
    reader.read()
    assert reader.lines == log.written
    assert not reader.gaps


def test_a_log_cut_amid_a_reading_loses_nothing(
    log: Log, reader: Reader, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The copy is read on where the reading stopped, though the log has grown past that again."""
    lines(log, 9)
    real: Callable[..., object] = follow._lines

    def cutting(*arguments: object) -> object:
        monkeypatch.setattr(follow, "_lines", real)
        found = real(*arguments)
        log.copytruncate()
        log.age(5)
        lines(log, 9)
        return found

    monkeypatch.setattr(follow, "_lines", cutting)
    reader.read()
    assert reader.lines == log.written
    assert not reader.gaps


def test_a_copy_of_a_log_that_was_not_cut_doubles_nothing(log: Log, reader: Reader) -> None:
    """logrotate may be killed between the copying and the cutting, and do both another day."""
    lines(log, 15)
    shutil.copy2(log.path, log.path.with_name("maillog-20260100"))
    log.age(5)
    lines(log, 5)
    log.copytruncate()
    log.age(5)
    lines(log, 5)
    reader.read()
    assert reader.lines == log.written
    assert not reader.gaps


def test_a_file_of_which_nothing_was_read_is_not_mistaken(log: Log, reader: Reader) -> None:
    """Half a line is like any other's half, and mtime is up to 10 ms behind the clock."""
    lines(log, 3)
    log.rotate()
    log.reload()
    log.age(5)
    first = b"Nov 22 07:00:00 mx2 postfix/x[1]: line 3"
    log.append(first[:20])
    log.now += 0.004
    reader.read()
    log.now -= 0.004
    log.append(first[20:] + b"\n")
    log.written.append(first)
    old = log.rotate()
    log.reload()
    log.age(5)
    log.compress(old)
    lines(log, 1)
    reader.restart()
    reader.read()
    assert reader.lines == log.written
    assert not reader.gaps


def test_a_clock_that_is_set_back_doubles_nothing(log: Log, reader: Reader) -> None:
    """Files from before may be newer than the reading, by their dates."""
    lines(log, 3)
    log.rotate()
    log.reload()
    log.age(5)
    log.append(b"Nov 22")
    log.now -= 3600
    reader.read()
    log.written.append(b"Nov 22 07:00")
    log.append(b" 07:00\n")
    reader.read()
    assert reader.lines == log.written


def test_the_oldest_file_may_go_while_it_is_read(log: Log, reader: Reader) -> None:
    """Of a ledger begun anew: logrotate removes what is too old, the others are read."""
    for _ in range(3):
        lines(log, 5, log.stamp())
        log.compress(log.rotate())
        log.reload()
        log.age(86400)
    lines(log, 5, log.stamp())
    log.now += 60
    reader.read(batches=1)
    log.path.with_name("maillog-20260101.gz").unlink()
    reader.read()
    assert reader.lines == log.written[:3] + log.written[5:]
    assert len(reader.gaps) == 1


def test_copytruncate_loses_nothing(log: Log, reader: Reader) -> None:
    """A log that is copied and cut is read on in the copy."""
    lines(log, 7)
    reader.read(limit=5, batches=1)
    log.copytruncate()
    log.age(5)
    lines(log, 2)
    reader.read()
    assert reader.lines == log.written
    assert not reader.gaps


def test_a_log_that_was_emptied_is_a_gap(log: Log, reader: Reader) -> None:
    """What cannot be read any more is told; reading goes on with what is there."""
    lines(log, 7)
    reader.read(limit=5, batches=1)
    os.truncate(log.path, 0)
    log.age(5)
    lines(log, 2)
    reader.read()
    assert reader.lines == log.written[:5] + log.written[7:]
    assert len(reader.gaps) == 1


def test_logs_that_are_gone_are_a_gap(log: Log, reader: Reader) -> None:
    """So is a log that was removed together with the place one was at."""
    lines(log, 5)
    reader.read()
    lines(log, 2)
    log.path.unlink()
    log.reload()
    log.age(5)
    lines(log, 2)
    reader.read()
    assert reader.lines == log.written[:5] + log.written[7:]
    assert len(reader.gaps) == 1


def test_a_log_that_lost_its_end_is_read_on_behind_what_is_known(log: Log, reader: Reader) -> None:
    """After a power cut the log may be older than the ledger: nothing is read twice."""
    lines(log, 20)
    reader.read()
    kept = b"".join(line + b"\n" for line in log.written[:15])
    os.truncate(log.path, len(kept))
    log.append(b"Nov 22 07:00:05 mx2 postfix/x[1]: after\n" * 9)
    reader.read()
    assert reader.lines == log.written + [b"Nov 22 07:00:05 mx2 postfix/x[1]: after"] * 9
    assert len(reader.gaps) == 1


def test_a_damaged_archive_is_a_gap(log: Log, reader: Reader) -> None:
    """An archive that ends too early gives what it has, and reading goes on behind it."""
    lines(log, 2000)
    old = log.rotate()
    log.reload()
    lines(log, 2)
    log.compress(old)
    packed = old.with_name(old.name + ".gz")
    packed.write_bytes(packed.read_bytes()[:-2000])
    reader.read(limit=100)
    assert reader.lines[-2:] == log.written[-2:]
    assert reader.lines[:-2] == log.written[: len(reader.lines) - 2]
    assert len(reader.gaps) == 1


@pytest.mark.parametrize("length", [follow.LONGEST - 1, follow.LONGEST, follow.LONGEST * 5 + 7])
def test_lines_of_any_length_are_survived(log: Log, reader: Reader, length: int) -> None:
    """The beginning of a long line is kept, also when it comes in pieces, and the next follows."""
    log.line()
    for piece in (length // 2, length - length // 2):
        log.append(b"x" * piece)
        reader.read()
    log.append(b"\n")
    reader.read()
    log.append(b"next\n")
    reader.restart()
    reader.read()
    assert [line[:20] for line in reader.lines] == [log.written[0][:20], b"x" * 20, b"next"]
    assert len(reader.lines[1]) <= follow.LONGEST
    assert not reader.gaps


def test_other_files_beside_the_log_are_not_it(log: Log, reader: Reader) -> None:
    """Only names that logrotate makes are read."""
    for name in ("maillog.bak", "maillog-old", "maillog2", "maillog-20260101.tmp", "xmaillog"):
        log.path.with_name(name).write_bytes(b"no\n")
    lines(log, 2)
    reader.read()
    assert reader.lines == log.written


def test_a_position_is_plain_data() -> None:
    """It can be kept as JSON and comes back the same."""
    position = replace(Position(), offset=5, head="x", inside=True)
    assert Position(**asdict(position)) == position
