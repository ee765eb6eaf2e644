"""Exported messages on their way back into a queue: once, on hold as before, never lost."""

from __future__ import annotations

import contextlib
import gzip
import io
import json
import socket
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import pytest
from test_parcel import BODY, ID, LETTER, lines_of

from backup_mx.errors import MachineError
from backup_mx.relay.operator import imports, traces
from backup_mx.relay.operator.imports import Importer
from backup_mx.relay.operator.parcel import Inbox, Letter
from backup_mx.relay.queue.commands import Postfix
from backup_mx.relay.root.protocol import Result, Who


@dataclass
class Server:
    """An SMTP server that takes a message at a time; what it hears is kept."""

    heard: list[bytes] = field(default_factory=list)
    messages: list[bytes] = field(default_factory=list)
    refuse: bytes = b""
    vanish: bool = False
    patience: int = 0
    """Refusals in a row after which it hangs up, as smtpd(8) does; 0: none are too many."""
    offers: str = "250-8BITMIME\r\n250 SIZE"
    log: Path = Path()
    message_id: str = "<026b.0003.0000@mx2>"
    answers: list[Result | MachineError] = field(default_factory=list)
    """What the helper says to the next holds; then each is done."""
    holds: list[str] = field(default_factory=list)

    def hold(self, queue_id: str, who: Who) -> Result:
        assert who == Who("root")
        self.holds.append(queue_id)
        answer = self.answers.pop(0) if self.answers else Result(queue_id, True, "put on hold")
        if isinstance(answer, MachineError):
            raise answer
        return answer

    def serve(self, listener: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while True:
                wire, _ = listener.accept()
                with wire, wire.makefile("rwb") as stream:
                    self._talk(stream)

    def _talk(self, stream: io.BufferedRWPair) -> None:
        self._say(stream, "220 mx2 ESMTP")
        refused = 0
        for line in stream:
            self.heard.append(line.rstrip(b"\r\n"))
            verb = line[:4].upper()
            if verb == b"EHLO":
                self._say(stream, f"250-mx2\r\n{self.offers}")
            elif self.refuse and line.startswith(self.refuse):
                self._say(stream, "554 5.7.1 Relay access denied")
                refused += 1
                if refused == self.patience:
                    return  # what it says then may be lost with the connection
            elif verb == b"DATA":
                self._say(stream, "354 go on")
                self.messages.append(b"".join(iter(stream.readline, b".\r\n")))
                name = f"4jXMWk{len(self.messages)}42mzKyJC"
                self._log(name)
                if self.vanish:
                    return
                self._say(stream, f"250 2.0.0 Ok: queued as {name}")
            elif verb == b"QUIT":
                self._say(stream, "221 bye")
                return
            else:
                self._say(stream, "250 2.0.0 Ok")

    def _log(self, name: str) -> None:
        lines = (
            f"smtpd[9]: {name}: client=localhost[127.0.0.1]",
            f"cleanup[9]: {name}: message-id={self.message_id}",
            f"qmgr[9]: {name}: from=<>, size=1, nrcpt=1 (queue active)",
        )
        with self.log.open("a") as log:
            log.writelines(f"Nov 22 08:00:00 mx2 postfix/{line}\n" for line in lines)

    def _say(self, stream: io.BufferedRWPair, text: str) -> None:
        stream.write(text.encode() + b"\r\n")
        stream.flush()


class Noted(Postfix):
    """A Postfix that only remembers what is written into its log."""

    lines: list[str]

    def note(self, lines: Sequence[str]) -> None:
        self.lines.extend(lines)


@pytest.fixture
def server(tmp_path: Path) -> Server:
    """A server that takes everything."""
    log = tmp_path / "maillog"
    log.write_text("an older line\n")
    return Server(log=log)


@pytest.fixture
def importer(server: Server, tmp_path: Path) -> Iterator[Callable[[], list[Result]]]:
    """What imports the folder "out", each time anew."""
    listener = socket.create_server(("127.0.0.1", 0))
    thread = threading.Thread(target=server.serve, args=(listener,), daemon=True)
    thread.start()
    postfix = Noted()
    object.__setattr__(postfix, "lines", [])
    made = Importer(
        Who("root"),
        postfix,
        server.hold,
        port=listener.getsockname()[1],
        done=tmp_path / "done",
        log=server.log,
    )

    def run() -> list[Result]:
        return list(made.take(imports.letters([str(tmp_path / "out")])))

    run.noted = postfix.lines  # type: ignore[attr-defined]
    yield run
    listener.shutdown(socket.SHUT_RDWR)
    listener.close()
    thread.join(5.0)


FREE, HELD = replace(LETTER, held=False), LETTER


def put(tmp_path: Path, letter: Letter = FREE) -> None:
    box = Inbox(tmp_path / "out")
    box.begin()
    for line in lines_of(letter):
        box.take(line)


def test_an_import_hands_over_every_byte(
    importer: Callable[[], list[Result]], server: Server, tmp_path: Path
) -> None:
    """The message, its null sender, odd addresses, and that it is 8BITMIME."""
    put(tmp_path)
    (result,) = importer()
    assert result == Result(ID, True, "imported as 4jXMWk142mzKyJC")
    assert server.heard[1:5] == [
        b"MAIL FROM:<> BODY=8BITMIME",
        b"RCPT TO:<-x@example.org>",
        b'RCPT TO:<"a \\"b\\\\c"@example.org>',
        b"RCPT TO:<j\xfcrgen@example.org>",
    ]
    dots = server.messages[0].split(b"\r\n")
    assert b"\r\n".join(line.removeprefix(b".") for line in dots) == BODY
    said = "import from=mx2.example.org/4jXLpZ33n3zJ0G7 accepted=1700000000 by=root"
    assert importer.noted == [f"4jXMWk142mzKyJC: {said}"]  # type: ignore[attr-defined]


def test_a_message_is_imported_once(
    importer: Callable[[], list[Result]], server: Server, tmp_path: Path
) -> None:
    """However often it is tried."""
    put(tmp_path)
    assert [importer()[0].said for _ in range(3)][1:] == [imports.AGAIN] * 2
    assert len(server.messages) == 1


def renamed(log: Path) -> None:
    log.rename(f"{log}-20261122")
    log.write_text("")


def compressed(log: Path) -> None:
    """A rotation that compresses at once, and one more after it."""
    with gzip.open(f"{log}-20261122.gz", "wb") as packed:
        packed.write(log.read_bytes())
    log.unlink()
    Path(f"{log}-20261123").write_text("a later line\n")
    log.write_text("")


@pytest.mark.parametrize("rotate", [lambda _: None, renamed, compressed])
def test_an_import_that_was_cut_off_is_made_good(
    importer: Callable[[], list[Result]],
    server: Server,
    tmp_path: Path,
    rotate: Callable[[Path], None],
) -> None:
    """If the answer to the message got lost, the log tells that Postfix has it, whole or packed."""
    put(tmp_path)
    server.vanish = True
    with pytest.raises(MachineError, match="cut off"):
        importer()
    server.vanish = False
    rotate(server.log)
    assert importer()[0] == Result(ID, True, "imported as 4jXMWk142mzKyJC")
    assert importer()[0] == Result(ID, True, imports.AGAIN)
    assert len(server.messages) == 1
    assert len(importer.noted) == 1  # type: ignore[attr-defined]


TAKEN = """\
{0} mx2 postfix/smtpd[9]: {1}: client=localhost[127.0.0.1]
{0} mx2 postfix/cleanup[9]: {1}: message-id=<a@b>
{0} mx2 postfix/qmgr[9]: {1}: from=<>, size=1, nrcpt=1 (queue active)
"""


EARLIER, LATER = "4jXMWk142mzKyJC", "4jXMWk242mzKyJC"


def taken(at: float, name: str) -> str:
    return TAKEN.format(time.strftime("%b %e %H:%M:%S", time.localtime(at)), name)


@pytest.mark.parametrize("known", [True, False])
def test_only_what_came_after_the_import_began_is_it(tmp_path: Path, known: bool) -> None:
    """An earlier message of that Message-ID is another; by its time, if the file is not found."""
    log, now = tmp_path / "maillog", time.time()
    log.write_text(taken(now - 60, EARLIER))
    since = traces.Since.now(log) if known else traces.Since(time=now)
    assert traces.taken_since(log, since, "<a@b>") == ""
    compressed(log)
    assert traces.taken_since(log, since, "<a@b>") == ""
    log.write_text(taken(now + 1, LATER))
    assert traces.taken_since(log, since, "<a@b>") == LATER


def test_an_import_that_was_cut_off_is_none_that_is_known(
    importer: Callable[[], list[Result]], server: Server, tmp_path: Path
) -> None:
    """A list's mail to two people has one Message-ID: the other one's copy is not this one."""
    put(tmp_path)
    server.vanish = True
    with pytest.raises(MachineError):
        importer()
    server.vanish = False
    other = {"state": "done", "id": "4jXMWk142mzKyJC"}
    (tmp_path / "done" / "mx2.example.org-4jXLpZ33n9zJ0G7").write_text(json.dumps(other))
    assert importer()[0].said == "imported as 4jXMWk242mzKyJC"


@pytest.mark.parametrize("name", ["", "<>"])
def test_a_message_without_a_name_is_imported_twice_rather_than_lost(
    importer: Callable[[], list[Result]], server: Server, tmp_path: Path, name: str
) -> None:
    """Nothing in the log would tell it from another one that has no Message-ID."""
    put(tmp_path, replace(FREE, attributes={"message_id": name}))
    server.message_id, server.vanish = "<>", True
    with pytest.raises(MachineError):
        importer()
    server.vanish = False
    assert importer()[0].said == "imported as 4jXMWk242mzKyJC"


HOSTILE = """\
{0} mx2 postfix/smtpd[9]: {1}: client=evil.example[198.51.100.7]
{0} mx2 postfix/cleanup[9]: {1}: message-id={2}
{0} mx2 postfix/smtpd[9]: NOQUEUE: reject: RCPT from evil.example[198.51.100.7]: 554 5.7.1 <{3}>: x
{0} mx2 postfix/smtp[9]: {1}: to=<a@example.org>, relay=x, dsn=4.0.0, status=deferred ({3})
{0} mx2 postfix/qmgr[9]: {1}: from=<>, size=1, nrcpt=1 (queue active)
"""


@pytest.mark.parametrize("name", ["<a@b>", "<a@b>x", "x<a@b>"])
def test_a_stranger_cannot_pass_for_an_import(tmp_path: Path, name: str) -> None:
    """What a client or a server says in the log is no line of Postfix's own."""
    log, now = tmp_path / "maillog", time.time()
    log.write_text("an older line\n")
    since = traces.Since.now(log)
    stamp = time.strftime("%b %e %H:%M:%S", time.localtime(now))
    forged = f"postfix/smtpd[1]: {LATER}: client=localhost[127.0.0.1]"
    named = f"postfix/cleanup[1]: {LATER}: message-id=<a@b>"
    for words in (forged, named):
        with log.open("a") as stream:
            stream.write(HOSTILE.format(stamp, LATER, name, words))
    assert traces.taken_since(log, since, "<a@b>") == ""


def test_what_came_with_a_longer_name_is_another(tmp_path: Path) -> None:
    """A Message-ID that begins or ends as ours does is not ours."""
    log = tmp_path / "maillog"
    log.write_text("an older line\n")
    since = traces.Since.now(log)
    with log.open("a") as stream:
        stream.write(taken(time.time(), LATER).replace("<a@b>", "<a@b> or <c@d>"))
    assert traces.taken_since(log, since, "<a@b>") == ""
    assert traces.taken_since(log, since, "<a@b> or <c@d>") == LATER


def test_what_was_on_hold_is_on_hold_again(
    importer: Callable[[], list[Result]], server: Server, tmp_path: Path
) -> None:
    """Once, and whoever did not hold it finds it as it was."""
    put(tmp_path, HELD)
    assert importer()[0] == Result(ID, True, "imported as 4jXMWk142mzKyJC, on hold")
    assert importer()[0] == Result(ID, True, imports.AGAIN)
    assert server.holds == ["4jXMWk142mzKyJC"]
    assert "import from=" in importer.noted[0]  # type: ignore[attr-defined]


NOW = "is being delivered right now"


@pytest.mark.parametrize(
    "trouble", [Result("x", False, NOW), MachineError("the helper hung up")], ids=str
)
def test_a_hold_that_fails_is_told_and_tried_again(
    importer: Callable[[], list[Result]],
    server: Server,
    tmp_path: Path,
    trouble: Result | MachineError,
) -> None:
    """The message is in the queue, once; the next run only puts it on hold."""
    put(tmp_path, HELD)
    server.answers = [trouble]
    (result,) = importer()
    assert not result.done
    assert result.said.startswith("imported as 4jXMWk142mzKyJC, but it could not be put on hold: ")
    assert importer()[0] == Result(ID, True, "imported as 4jXMWk142mzKyJC, on hold")
    assert importer()[0] == Result(ID, True, imports.AGAIN)
    assert (len(server.messages), len(server.holds)) == (1, 2)


def test_what_was_delivered_before_it_could_be_held_is_over(
    importer: Callable[[], list[Result]], server: Server, tmp_path: Path
) -> None:
    """That is said, once: there is nothing left to be put on hold."""
    put(tmp_path, HELD)
    server.answers = [Result("x", False, "has been delivered")]
    assert "could not be put on hold: has been delivered" in importer()[0].said
    assert importer()[0] == Result(ID, True, imports.AGAIN)


def test_an_import_that_was_cut_off_is_put_on_hold(
    importer: Callable[[], list[Result]], server: Server, tmp_path: Path
) -> None:
    """What Postfix has, as the log tells, is held like any other."""
    put(tmp_path, HELD)
    server.vanish = True
    with pytest.raises(MachineError):
        importer()
    server.vanish = False
    assert importer()[0].said == "imported as 4jXMWk142mzKyJC, on hold"
    assert (len(server.messages), server.holds) == (1, ["4jXMWk142mzKyJC"])


def test_an_import_that_never_got_through_is_tried_again(
    importer: Callable[[], list[Result]], server: Server, tmp_path: Path
) -> None:
    """Where the log does not have the message, it is handed over."""
    put(tmp_path)
    server.vanish = True
    with pytest.raises(MachineError):
        importer()
    server.vanish = False
    server.log.write_text("an older line\n")
    assert importer()[0].said.startswith("imported as")


def test_a_foreign_domain_is_refused(
    importer: Callable[[], list[Result]], server: Server, tmp_path: Path
) -> None:
    """With Postfix's words, for all its recipients; later it may be tried again."""
    put(tmp_path)
    server.refuse = b"RCPT TO:<j"
    assert importer()[0] == Result(ID, False, "554 5.7.1 Relay access denied")
    assert server.messages == []
    assert list((tmp_path / "done").iterdir()) == []
    server.refuse = b""
    assert importer()[0].done


@pytest.mark.parametrize("patience", [1, 20])
def test_refusals_keep_nobody_else_out(
    importer: Callable[[], list[Result]], server: Server, tmp_path: Path, patience: int
) -> None:
    """However many come in a row, and however soon Postfix loses its patience."""
    names = [f"4jXLpZ33n{number}zJ0G7" for number in range(10, 35)]
    for name in names:
        put(tmp_path, replace(FREE, ids=(name,), sender="refused@example.net"))
    put(tmp_path)  # the last by name
    server.refuse, server.patience = b"MAIL FROM:<refused", patience
    results = {each.id: each.said for each in importer()}
    assert list(results) == [*names, ID]
    assert {results[each] for each in names} == {"554 5.7.1 Relay access denied"}
    assert results[ID].startswith("imported as ")


def test_what_is_taken_shares_a_connection(
    importer: Callable[[], list[Result]], server: Server, tmp_path: Path
) -> None:
    """Only after a refusal there is another one."""
    for number in range(3):
        put(tmp_path, replace(FREE, ids=(f"4jXLpZ33n{number}zJ0G7",)))
    assert all(each.done for each in importer())
    assert server.heard.count(b"ehlo localhost") == 1
    assert server.heard[-1].lower() == b"quit"


def test_what_needs_smtputf8_goes_nowhere_else(
    importer: Callable[[], list[Result]], server: Server, tmp_path: Path
) -> None:
    """A relay that does not offer it does not get the message; one that does gets the wish."""
    put(tmp_path, replace(FREE, smtputf8=True))
    assert "SMTPUTF8" in importer()[0].said
    server.offers = "250 SMTPUTF8"
    assert importer()[0].done
    assert b"MAIL FROM:<> SMTPUTF8" in server.heard


def test_a_message_that_was_altered_is_not_imported(
    importer: Callable[[], list[Result]], server: Server, tmp_path: Path
) -> None:
    """Neither its bytes nor its letter may differ from what was exported."""
    put(tmp_path)
    (tmp_path / "out" / f"{ID}.eml").write_bytes(BODY + b"more\r\n")
    assert "SHA-256 differs" in importer()[0].said
    (tmp_path / "out" / f"{ID}.eml").unlink()
    assert "is missing" in importer()[0].said
    assert server.messages == []


def test_nothing_to_import(tmp_path: Path) -> None:
    """An empty folder, or a file without its letter, is one clear message."""
    with pytest.raises(MachineError, match="no exported message"):
        imports.letters([str(tmp_path)])
    with pytest.raises(MachineError, match="is missing"):
        imports.letters([str(tmp_path / "x.eml")])
