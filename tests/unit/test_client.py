"""client.py runs here as in the lab: a program of its own, against real sockets."""

from __future__ import annotations

import json
import socketserver
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import backup_mx.lab

PROGRAM = Path(backup_mx.lab.__file__).parent / "inside" / "client.py"
MAIL = "From: ö@utf8.example\r\n\r\n.dot\r\nGrüße\r\n".encode()


class Server(socketserver.ThreadingTCPServer):
    """An SMTP server whose answers to MAIL are a script, one for each session."""

    allow_reuse_address = True
    daemon_threads = True

    def __init__(self, *script: bytes, greeting: bytes = b"220 test") -> None:
        super().__init__(("127.0.0.1", 0), Session)
        self.script = list(script)
        self.greeting = greeting
        self.heard: list[bytes] = []
        self.clients: list[str] = []

    @property
    def place(self) -> str:
        return f"127.0.0.1:{self.socket.getsockname()[1]}"


class Session(socketserver.StreamRequestHandler):
    server: Server

    def handle(self) -> None:
        self.server.clients.append(self.client_address[0])
        self.wfile.write(self.server.greeting + b"\r\n")
        if not self.server.greeting.startswith(b"220"):
            return
        for line in self.rfile:
            self.server.heard.append(line)
            verb = line[:4].upper()
            if verb == b"MAIL" and self.server.script:
                self.wfile.write(self.server.script.pop(0) + b"\r\n")
            elif verb == b"DATA":
                self.wfile.write(b"354 go\r\n")
                while self.server.heard[-1] != b".\r\n":
                    self.server.heard.append(self.rfile.readline())
                self.wfile.write(b"250 2.0.0 queued\r\n")
            else:
                self.wfile.write(b"250 ok\r\n")


@contextmanager
def serving(server: Server) -> Iterator[Server]:
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield server
    finally:
        server.shutdown()
        thread.join(timeout=10)
        server.server_close()


def run(tmp_path: Path, *servers: str) -> dict[str, Any]:
    (tmp_path / "1.eml").write_bytes(MAIL)
    letter = {
        "name": "one",
        "address": "127.0.0.2",
        "helo": "mta.utf8.example",
        "sender": "ö@utf8.example",
        "recipients": ["alice@example.org", "bob@example.org"],
        "extensions": ["BODY=8BITMIME", "SMTPUTF8"],
        "tls": True,
        "size": len(MAIL),
        "file": str(tmp_path / "1.eml"),
    }
    (tmp_path / "letters.json").write_text(json.dumps([letter]))
    argv = [sys.executable, str(PROGRAM), "--letters", str(tmp_path / "letters.json")]
    argv += [word for server in servers for word in ("--server", server)]
    argv += ["--pause", "0.01", "--patience", "0.5"]
    done = subprocess.run(argv, capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    answer: dict[str, Any] = json.loads(done.stdout)
    return answer


def test_a_letter_goes_as_its_sender_is(tmp_path: Path) -> None:
    """Address, HELO, envelope and octets are the letter's own, and 8-bit is not touched."""
    with serving(Server()) as server:
        answer = run(tmp_path, server.place)
    assert (answer["code"], answer["answers"]) == (250, ["250 2.0.0 queued"])
    assert server.clients == ["127.0.0.2"]
    assert server.heard[:4] == [
        b"ehlo mta.utf8.example\r\n",
        f"MAIL FROM:<ö@utf8.example> SIZE={len(MAIL)} BODY=8BITMIME SMTPUTF8\r\n".encode(),
        b"rcpt TO:<alice@example.org>\r\n",
        b"rcpt TO:<bob@example.org>\r\n",
    ]
    assert b"".join(server.heard[5:-1]) == MAIL.replace(b"\r\n.", b"\r\n..")


def test_who_is_asked_to_come_back_comes_back(tmp_path: Path) -> None:
    """4xx is tried again, and every answer is kept."""
    with serving(Server(b"451 4.7.1 later", b"450 4.7.1 later")) as server:
        answer = run(tmp_path, server.place)
    assert answer["answers"] == ["451 4.7.1 later", "450 4.7.1 later", "250 2.0.0 queued"]


def test_a_refusal_is_final_and_patience_ends(tmp_path: Path) -> None:
    """5xx ends it at once; 4xx without end does too, after a while."""
    with serving(Server(b"550 5.7.1 no")) as server:
        assert run(tmp_path, server.place)["answers"] == ["550 5.7.1 no"]
    with serving(Server(*[b"450 4.7.1 never"] * 1000)) as server:
        answer = run(tmp_path, server.place)
    assert answer["code"] == 450
    assert set(answer["answers"]) == {"450 4.7.1 never"}


def test_the_next_server_is_tried_when_one_does_not_talk(tmp_path: Path) -> None:
    """A host that is off is passed over, as a sender does with an MX host that is off."""
    with serving(Server()) as server:
        place = server.place
        answer = run(tmp_path, "127.0.0.1:1", place)
    assert (answer["code"], answer["server"]) == (250, place)


def test_nobody_to_talk_to_is_told(tmp_path: Path) -> None:
    """When no server answers, the last reason is kept, and no server named."""
    answer = run(tmp_path, "127.0.0.1:1")
    assert (answer["code"], answer["server"]) == (421, "")
    assert "refused" in answer["answers"][-1]


def test_a_greeting_that_refuses_is_an_answer(tmp_path: Path) -> None:
    """A server that says 554 instead of 220 has refused."""
    with serving(Server(greeting=b"554 5.7.1 go away")) as server:
        assert run(tmp_path, server.place)["answers"] == ["554 5.7.1 go away"]
