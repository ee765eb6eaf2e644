"""mailkit runs here as in the lab: a program of its own, against real sockets."""

from __future__ import annotations

import hashlib
import importlib.util
import json
import re
import socketserver
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from ports import closed

import backup_mx.lab
from backup_mx.lab.corpus import KINDS, Mail, corpus, write

PROGRAM = Path(backup_mx.lab.__file__).parent / "inside" / "mailkit.py"
Finished = subprocess.CompletedProcess[str]
DSN = (
    b"Return-Path: <>\r\nReceived: from a (b [192.0.2.1])\r\n\tby home.example.org (Postfix) with"
    b" ESMTP id 1;\r\n now\r\nReceived: by mx2.example.org (by hand); now\r\n"
    b"From: nobody@example.org\r\nMessage-ID: <dsn>\r\n"
    b"Content-Type: multipart/report; report-type=delivery-status; boundary=x\r\n\r\nno\r\n"
)


def load() -> ModuleType:
    spec = importlib.util.spec_from_file_location("mailkit", PROGRAM)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


canonical = load().canonical


class Receiver(socketserver.ThreadingTCPServer):
    """An SMTP server that records each message's octets as they came, dots undone."""

    allow_reuse_address = True
    daemon_threads = True

    def __init__(self, refuse: bytes) -> None:
        super().__init__(("127.0.0.1", 0), SmtpSession)
        self.refuse = refuse  # the command line that is answered 550 starts with this
        self.messages: list[tuple[bytes, tuple[bytes, ...], bytes]] = []


class SmtpSession(socketserver.StreamRequestHandler):
    server: Receiver

    def handle(self) -> None:
        self.wfile.write(b"220 test\r\n")
        sender, recipients = b"", list[bytes]()
        for line in self.rfile:
            verb = line.strip()[:4].upper()
            if self.server.refuse and line.startswith(self.server.refuse):
                self.wfile.write(b"550 5.7.1 no\r\n")
            elif verb == b"EHLO":
                self.wfile.write(b"250-test\r\n250-SIZE 50000000\r\n250 8BITMIME\r\n")
            elif verb == b"QUIT":
                self.wfile.write(b"221 bye\r\n")
            elif verb == b"DATA":
                self.wfile.write(b"354 go\r\n")
                self.server.messages.append((sender, tuple(recipients), self.message()))
                self.wfile.write(b"250 2.0.0 queued as 1\r\n")
                sender = b""
            elif verb == b"MAIL" and sender:
                self.wfile.write(b"503 5.5.1 nested MAIL command\r\n")
            else:
                if verb in (b"MAIL", b"RSET"):
                    sender, recipients = line if verb == b"MAIL" else b"", []
                elif verb == b"RCPT":
                    recipients.append(re.findall(rb"<(.*)>", line)[0])
                self.wfile.write(b"250 ok\r\n")

    def message(self) -> bytes:
        lines = []
        for line in self.rfile:
            if line == b".\r\n":
                break
            lines.append(line[1:] if line.startswith(b".") else line)
        return b"".join(lines)


class Imap(socketserver.ThreadingTCPServer):
    """An IMAP server with one user's INBOX, and Junk if there is any."""

    allow_reuse_address = True
    daemon_threads = True

    def __init__(self, inbox: list[bytes], junk: list[bytes]) -> None:
        super().__init__(("127.0.0.1", 0), ImapSession)
        self.folders = {b"INBOX": inbox} | ({b"Junk": junk} if junk else {})


class ImapSession(socketserver.StreamRequestHandler):
    server: Imap

    def handle(self) -> None:
        self.wfile.write(b"* OK test\r\n")
        for line in self.rfile:
            tag, verb, *rest = line.split()
            if verb == b"LOGIN" and b"secret" not in rest[1]:
                self.wfile.write(tag + b" NO wrong password\r\n")
                continue
            if verb == b"CAPABILITY":
                self.wfile.write(b"* CAPABILITY IMAP4rev1\r\n")
            if verb == b"EXAMINE":
                if rest[0] not in self.server.folders:
                    self.wfile.write(tag + b" NO no such mailbox\r\n")
                    continue
                self.folder = self.server.folders[rest[0]]
                self.wfile.write(b"* %d EXISTS\r\n" % len(self.folder))
            if verb == b"FETCH":
                self.fetch(*map(int, rest[0].split(b":")))
            self.wfile.write(tag + b" OK done\r\n")

    def fetch(self, first: int, last: int) -> None:
        for number in range(first, last + 1):
            raw = self.folder[number - 1]
            self.wfile.write(b"* %d FETCH (BODY[] {%d}\r\n%b)\r\n" % (number, len(raw), raw))


@contextmanager
def serving(server: socketserver.TCPServer) -> Iterator[int]:
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield server.socket.getsockname()[1]
    finally:
        server.shutdown()
        thread.join(timeout=10)
        server.server_close()


def mailkit(*args: object, modules: Path | None = None) -> Finished:
    environment = {"PYTHONPATH": str(modules)} if modules else {}
    command = [sys.executable, str(PROGRAM), *map(str, args)]
    return subprocess.run(
        command, capture_output=True, text=True, timeout=60, check=False, env=environment
    )


def records(done: Finished) -> list[dict[str, Any]]:
    assert (done.returncode, done.stderr) == (0, "")
    return [json.loads(line) for line in done.stdout.splitlines()]


@pytest.fixture
def modules(tmp_path: Path) -> Path:
    """A stand-in for python3-dkim, whose signature is "good" while the body says so."""
    (tmp_path / "modules").mkdir()
    (tmp_path / "modules" / "dkim.py").write_text(
        "class DKIMException(Exception): pass\n"
        "class DnsTimeoutError(DKIMException): pass\n"
        "def sign(data, selector, domain, key, canonicalize):\n"
        "    return b'DKIM-Signature: v=1;\\r\\n\\ts=' + selector + b'; d=' + domain + b'\\r\\n'\n"
        "class DKIM:\n"
        "    def __init__(self, raw): self.raw = raw\n"
        "    def verify(self):\n"
        "        if b'timeout' in self.raw: raise DnsTimeoutError('no resolver')\n"
        "        if b'broken' in self.raw: raise DKIMException('broken')\n"
        "        return b'good' in self.raw\n"
    )
    return tmp_path / "modules"


@pytest.fixture(scope="module")
def mails() -> list[Mail]:
    return corpus(len(KINDS), seed=5)


@pytest.fixture
def folder(mails: list[Mail], tmp_path: Path) -> Path:
    write(mails, tmp_path / "mail")
    (tmp_path / "mail" / "key").write_text("key")
    return tmp_path / "mail"


def test_every_kind_goes_over_the_wire_octet_by_octet(
    mails: list[Mail], folder: Path, modules: Path
) -> None:
    server = Receiver(refuse=b"")
    with serving(server) as port:
        key = folder / "key"
        options = ("--folder", folder, "--port", port, "--dkim-key", key)
        lines = records(mailkit("send", *options, modules=modules))
    signature = b"DKIM-Signature: v=1;\r\n\ts=lab; d=example.net\r\n"
    expected = {m.message_id: signature + m.data if m.sign else m.data for m in mails}
    received = {
        re.findall(rb"\r\nMessage-ID: (\S+)", message[2])[0].decode(): message
        for message in server.messages
    }
    assert len(server.messages) == len(mails)
    assert {name: message[2] for name, message in received.items()} == expected
    for line in lines:
        data = expected[line["message_id"]]
        assert line["sha256"] == hashlib.sha256(data).hexdigest()
        assert (line["size"], line["code"], line["reply"]) == (len(data), 250, "2.0.0 queued as 1")
    for mail in mails:
        sender, recipients, _ = received[mail.message_id]
        assert sender.upper().startswith(
            f"MAIL FROM:<{mail.sender}> BODY=8BITMIME".upper().encode()
        )
        assert recipients == tuple(user.encode() for user in mail.recipients)


def test_only_the_numbers_asked_for_are_sent(folder: Path) -> None:
    server = Receiver(refuse=b"")
    with serving(server) as port:
        options = ("--folder", folder, "--port", port, "--first", 2, "--last", 4)
        lines = records(mailkit("send", *options))
    assert sorted(line["number"] for line in lines) == [2, 3, 4]
    assert len(server.messages) == 3


@pytest.mark.parametrize("command", ["mail FROM", "rcpt TO:<carol", "data"])
def test_a_refusal_is_recorded_and_the_next_mail_is_sent(command: str, folder: Path) -> None:
    server = Receiver(refuse=command.encode())
    with serving(server) as port:
        options = ("--folder", folder, "--port", port, "--last", 4, "--connections", 1)
        lines = records(mailkit("send", *options))
    codes = {line["number"]: line["code"] for line in lines}
    carol = {1: 250, 2: 550, 3: 250, 4: 250}
    assert codes == (carol if "carol" in command else dict.fromkeys(carol, 550))
    assert {line["reply"] for line in lines if line["code"] == 550} == {"5.7.1 no"}


def test_errors_are_one_line_and_status_one(folder: Path, tmp_path: Path) -> None:
    with (
        closed() as port,
        serving(Receiver(refuse=b"")) as open_port,
        serving(Imap([], [])) as imap_port,
    ):
        (tmp_path / "pw").write_text("wrong\n")
        reading = ("--users", "a", "--password-file", tmp_path / "pw")
        cases = {
            "refused": mailkit("send", "--folder", folder, "--port", port),
            "No such file": mailkit("send", "--folder", folder / "none", "--port", open_port),
            "give --dkim-key": mailkit("send", "--folder", folder, "--port", open_port),
            "wrong password": mailkit("collect", "--port", imap_port, *reading),
            "Connection refused": mailkit("collect", "--port", port, *reading),
        }
    for text, done in cases.items():
        assert done.returncode == 1, text
        assert text in done.stderr
        assert done.stderr.startswith("mailkit: ")
        assert done.stderr.count("\n") == 1


def collect(
    inbox: list[bytes],
    tmp_path: Path,
    modules: Path | None = None,
    junk: tuple[bytes, ...] = (),
    trace: bool = False,
) -> Finished:
    (tmp_path / "pw").write_text("secret\n")
    with serving(Imap(inbox, list(junk))) as port:
        more = ["--trace"] if trace else []
        options = (*more, "--port", port, "--users", "alice@example.org", "--password-file")
        return mailkit("collect", *options, tmp_path / "pw", modules=modules)


def test_collected_mail_hashes_as_it_was_sent(mails: list[Mail], tmp_path: Path) -> None:
    trace = b"Return-Path: <a@example.net>\r\nDelivered-To: x\r\nReceived: by home;\r\n\tnow\r\n"
    inbox = [trace + mail.data for mail in mails] * 3
    lines = records(collect(inbox, tmp_path))
    assert [(line["message_id"], line["sha256"]) for line in lines] == [
        (mail.message_id, hashlib.sha256(mail.data).hexdigest()) for mail in mails
    ] * 3
    assert {line["user"] for line in lines} == {"alice@example.org"}
    assert not any(line["is_dsn"] or line["dkim"] is not None for line in lines)


def test_mail_in_junk_is_collected_too_and_its_trace_is_shown_when_asked_for(
    tmp_path: Path,
) -> None:
    trace = (
        b"X-Spamd-Result: default: False [7.50 / 11.00];\r\n\tLAB(7.50)[];\r\nX-Spam: Yes\r\n"
        b"X-Rspamd-Client: 192.0.2.112\r\nAuthentication-Results: mail.example.org;\r\n"
        b"\tspf=pass\r\nReceived-SPF: Pass\r\nReceived: by home; now\r\n"
    )
    mail = b"From: a@example.net\r\nMessage-ID: <1>\r\nX-Spam: no\r\n\r\nhello\r\n"
    lines = records(collect([mail], tmp_path, junk=(trace + mail,), trace=True))
    assert [line["folder"] for line in lines] == ["INBOX", "Junk"]
    assert [line["trace"] for line in lines] == ["", trace.decode()]
    assert {line["sha256"] for line in lines} == {hashlib.sha256(mail).hexdigest()}


def test_a_bounce_is_told_from_mail_and_hops_are_read_from_the_top(tmp_path: Path) -> None:
    daemon = b"Return-Path: <>\r\nFrom: MAILER-DAEMON@mx2\r\n\r\n"
    author = b"Return-Path: <a@b>\r\nFrom: MAILER-DAEMON@mx2\r\n\r\n"
    lines = records(collect([DSN, daemon, author, b"From: a@b\r\n\r\n"], tmp_path))
    assert [line["is_dsn"] for line in lines] == [True, True, False, False]
    assert lines[0]["relayed_by"] == ["home.example.org", "mx2.example.org"]


def test_a_signature_is_verified_and_a_silent_resolver_is_an_error(
    tmp_path: Path, modules: Path
) -> None:
    inbox = [b"DKIM-Signature: x\r\n\r\n" + body for body in (b"good", b"bad", b"broken")]
    lines = records(collect(inbox, tmp_path, modules))
    assert [line["dkim"] for line in lines] == [True, False, False]
    done = collect([b"DKIM-Signature: x\r\n\r\ntimeout"], tmp_path, modules)
    assert (done.returncode, done.stderr) == (
        1,
        "mailkit: cannot look a DKIM key up: no resolver\n",
    )


trace_names = st.sampled_from(
    [
        *("Received", "Return-Path", "delivered-to", "X-Original-To", "Received-SPF"),
        *(
            "Authentication-Results",
            "X-Comment",
            "X-Spamd-Result",
            "X-Spam",
            "x-rspamd-server",
            "X-Backup-MX",
        ),
    ]
)
values = st.text(st.characters(min_codepoint=32, max_codepoint=126), max_size=40)
folds = st.lists(st.tuples(st.sampled_from(["\r\n\t", "\r\n "]), values).map("".join), max_size=3)
trace_fields = st.builds(
    lambda name, value, more: f"{name}:{value}{''.join(more)}\r\n".encode(),
    trace_names,
    values,
    folds,
)
messages = st.binary(max_size=300).map(lambda rest: b"From: a@example.net\r\n" + rest)


@given(st.lists(trace_fields, max_size=6), messages)
def test_trace_fields_on_top_never_change_the_canonical_octets(
    trace: list[bytes], message: bytes
) -> None:
    assert canonical(b"".join(trace) + message) == message


@given(st.lists(trace_fields, max_size=3), messages, st.data())
def test_any_octet_changed_added_or_cut_changes_the_canonical_octets(
    trace: list[bytes], message: bytes, data: st.DataObject
) -> None:
    place = data.draw(st.integers(0, len(message) - 1))
    octet = data.draw(st.integers(0, 255).filter(lambda value: value != message[place]))
    changed = message[:place] + bytes([octet]) + message[place + 1 :]
    added = message[: place + 1] + bytes([octet]) + message[place + 1 :]
    top = b"".join(trace)
    for other in (changed, added, message[:place] + message[place + 1 :], message[:-1]):
        assert canonical(top + other) != canonical(top + message)


def test_a_tag_at_the_end_of_the_header_is_the_filters() -> None:
    message = b"From: a@example.net\r\nSubject: x\r\n\r\nX-Spam: Yes\r\n\r\n"
    tagged = message.replace(b"x\r\n\r\n", b"x\r\nX-Spam: Yes\r\n\r\n", 1)
    assert canonical(tagged) == message


def test_a_trace_field_below_another_field_counts_as_the_mails_own() -> None:
    message = b"Subject: x\r\nReceived: by evil; now\r\n\r\nReceived: body\r\n"
    assert canonical(b"Received: by home\r\n" + message) == message
