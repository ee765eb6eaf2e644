"""The root helper: a few verbs about queue IDs, on a socket that systemd hands over.

The agent is not privileged; what needs root is asked of this process, as root/protocol.py has it.
It is started by the first who asks (sd_listen_fds(3)) and ends when nobody has for a minute. Only
root and the agent's user are answered (SO_PEERCRED, unix(7)). Each connection has one request at
a time; messages are changed for one of them at a time.
"""

from __future__ import annotations

import contextlib
import json
import os
import pwd
import socket
import struct
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, field, replace
from itertools import islice
from pathlib import Path
from typing import IO, Any

from backup_mx.errors import BackupMxError, MachineError
from backup_mx.relay import settings
from backup_mx.relay.decide.lifetime import RETENTION
from backup_mx.relay.queue import envelope, spool
from backup_mx.relay.queue.commands import Postfix
from backup_mx.relay.root import changes, maintenance, protocol, pulls
from backup_mx.relay.root.protocol import Request

IDLE = 60.0
"""Seconds without anybody connected after which the helper ends."""
PATIENCE = 30.0
"""Seconds that a client may take for a request, or to read an answer."""
CONNECTIONS = 16
SHOWN = 256 * 1024
"""Bytes of a header, and of a body, that are shown."""
AGENT = "agent:"
"""What the name begins with of whoever asks by way of the agent."""
_RETENTIONS = ("hold", "release", "requeue")
_ANYBODYS = ("list", "show", "flush")
_LISTED = 1000  # queue files in a line of an answer
_FIRST_PASSED = 3  # sd_listen_fds(3)

Answer = dict[str, Any]


@dataclass(frozen=True)
class Helper:
    """Answers requests. users are the user IDs that may ask, table is maintenance's.

    told is where the settings are: by root's own copy the agent may act for its dashboard, or not.
    """

    postfix: Postfix = field(default_factory=Postfix)
    users: frozenset[int] = frozenset({0})
    table: Path = maintenance.PATH
    told: Path = settings.PATH
    idle: float = IDLE
    patience: float = PATIENCE
    _changing: threading.Lock = field(default_factory=threading.Lock)

    def serve(self, listener: socket.socket) -> None:
        """Answer whoever connects, until nobody has been there for a while."""
        with contextlib.suppress(MachineError):  # each change tries it again, and says so
            pulls.recover(self.postfix)
        places = threading.BoundedSemaphore(CONNECTIONS)
        threads: list[threading.Thread] = []
        listener.settimeout(self.idle)
        while True:
            threads = [each for each in threads if each.is_alive()]
            try:
                wire, _ = listener.accept()
            except TimeoutError:
                if threads:
                    continue
                return
            places.acquire()
            thread = threading.Thread(target=self._hear_out, args=(wire, places))
            threads.append(thread)
            thread.start()

    def _hear_out(self, wire: socket.socket, places: threading.BoundedSemaphore) -> None:
        try:
            with wire, contextlib.suppress(OSError):
                self.converse(wire)
                _hang_up(wire)
        finally:
            places.release()

    def converse(self, wire: socket.socket) -> None:
        """Answer one client's requests until it hangs up, is too slow, or talks nonsense.

        Raises OSError when it is gone.
        """
        wire.settimeout(self.patience)
        user = _user(wire)
        if user not in self.users:
            _send(wire, {"error": "only root and the agent may ask"})
            return
        for line in _lines(wire, self.patience):
            if line is None:
                _send(wire, {"error": f"a request has {protocol.LINE} bytes at most"})
                return
            try:
                request = protocol.parse(line, time.time())
                if user != 0:
                    request = self._of_the_agent(request)
            except protocol.RequestError as error:
                _send(wire, {"error": str(error)})
                return
            for answer in self.answers(request):
                _send(wire, answer)
            if user == 0 and request.verb == "flush":
                with contextlib.suppress(OSError):
                    protocol.FLUSHED.touch()

    def _of_the_agent(self, request: Request) -> Request:
        """Return the agent's request with who asks as the record shall have it.

        Its own deeds are retention's, which deletes nothing; what it says of who uses its dashboard
        is what it says. Raises RequestError on what it has no business with.
        """
        own = request.who.name == RETENTION
        if request.verb in protocol.CHANGES:
            allowed = request.verb in _RETENTIONS if own else self._dashboard_acts()
        else:
            allowed = request.verb in _ANYBODYS
        if not allowed:
            raise protocol.RequestError(
                f"the agent may not have the helper do this: {request.verb}"
            )
        name = request.who.name if own else f"{AGENT}{request.who.name}"[: protocol.NAME]
        return replace(request, who=replace(request.who, name=name))

    def _dashboard_acts(self) -> bool:
        with contextlib.suppress(MachineError):
            return settings.read(self.told).dashboard_actions
        return False

    def answers(self, request: Request) -> Iterator[Answer]:
        """Do what is asked and yield the lines of the answer: errors are answers as well."""
        try:
            if request.verb == "list":
                yield from self._list()
            else:
                yield self._answer(request)
        except (BackupMxError, OSError) as error:
            yield {"error": str(error)}

    def _answer(self, request: Request) -> Answer:
        if request.verb in protocol.CHANGES:
            with self._changing:
                done = changes.change(self.postfix, request.verb, request.ids, request.who)
            return {"results": [asdict(each) for each in done]}
        return _VERBS[request.verb](self, request)

    def _list(self) -> Iterator[Answer]:
        entries, listed = spool.walk(self.postfix.spool), 0
        while part := list(islice(entries, _LISTED)):
            listed += len(part)
            yield {"entries": part}
        yield {"end": True, "listed": listed}


def show(helper: Helper, request: Request) -> Answer:
    """Return a message's envelope, header and, if asked for, body. Raises MachineError."""
    postfix, queue_id = helper.postfix, request.ids[0]
    place = spool.find([queue_id], postfix.spool).get(queue_id)
    if place is None:
        raise MachineError(f"{queue_id}: {protocol.GONE}")
    with contextlib.suppress(FileNotFoundError):
        status = place.path.stat()
        if not spool.complete(status) and place.queue == "incoming":
            raise MachineError(f"{queue_id} {protocol.RECEIVED_NOW}")
    found = envelope.parse(postfix.envelope(queue_id))
    with postfix.headers(queue_id) as stream:
        headers, cut = _start(stream)
    answer: Answer = {
        "id": queue_id,
        "queue": place.queue,
        "size": found.content,
        "arrival": found.arrival,
        "sender": _text(found.sender),
        "recipients": [
            {key: _text(value) if isinstance(value, str) else value for key, value in each.items()}
            for each in map(asdict, found.recipients)
        ],
        "attributes": {_text(key): _text(value) for key, value in found.attributes.items()},
        "headers": headers,
    }
    if request.body:
        with postfix.body(queue_id) as stream:
            answer["body"], more = _start(stream)
            cut = cut or more
    return answer | {"cut": cut}


def _start(stream: IO[bytes]) -> tuple[str, bool]:
    """Return the beginning of a text, and whether there is more."""
    read = stream.read(SHOWN + 1)
    return read[:SHOWN].decode(errors="replace"), len(read) > SHOWN


def _text(value: str) -> str:
    return value.encode("utf-8", "surrogateescape").decode(errors="replace")


def _flush(helper: Helper, _request: Request) -> Answer:
    helper.postfix.flush()
    return {"done": True}


def _maintain(helper: Helper, request: Request) -> Answer:
    maintenance.switch(helper.postfix, request.until, request.who, helper.table)
    return {"done": True, "until": request.until}


_VERBS: dict[str, Callable[[Helper, Request], Answer]] = {
    "show": show,
    "flush": _flush,
    "maintenance": _maintain,
}


def _user(wire: socket.socket) -> int:
    """Return the user ID of who connected."""
    size = struct.calcsize("3i")
    _, user, _ = struct.unpack("3i", wire.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, size))
    return int(user)


def _lines(wire: socket.socket, patience: float) -> Iterator[bytes | None]:
    """Yield each line a client sends, None for one that is too long.

    Whoever takes longer than ``patience`` seconds for a line is hung up on, however busily.
    """
    read, end = b"", time.monotonic() + patience
    while True:
        line, newline, rest = read.partition(b"\n")
        if newline:
            yield line
            read, end = rest, time.monotonic() + patience
        elif len(read) > protocol.LINE:
            yield None
        else:
            wire.settimeout(max(end - time.monotonic(), 0.001))
            more = wire.recv(65_536)
            if not more:
                return
            read += more


def _send(wire: socket.socket, answer: Answer) -> None:
    wire.settimeout(PATIENCE)
    wire.sendall(json.dumps(answer, separators=(",", ":")).encode() + b"\n")


def _hang_up(wire: socket.socket) -> None:
    """Let the client read our last answer: who closes with something unread takes it away."""
    wire.shutdown(socket.SHUT_WR)
    end = time.monotonic() + 1.0
    while (left := end - time.monotonic()) > 0:
        wire.settimeout(left)
        if not wire.recv(65_536):
            return


def passed() -> socket.socket:
    """Return the socket that systemd listens on for us. Raises MachineError when there is none."""
    mine = os.environ.get("LISTEN_PID") == str(os.getpid())
    if not mine or os.environ.get("LISTEN_FDS") != "1":
        raise MachineError("the helper is started by systemd, with backup-mx-helper.socket")
    return socket.socket(fileno=_FIRST_PASSED)


def allowed() -> frozenset[int]:
    """Return the user IDs that may ask: root's, and the agent's where there is such a user."""
    with contextlib.suppress(KeyError):
        return frozenset({0, pwd.getpwnam(protocol.USER).pw_uid})
    return frozenset({0})


def main() -> None:
    """Serve the socket that systemd passed. Raises MachineError."""
    with passed() as listener:
        Helper(users=allowed()).serve(listener)


if __name__ == "__main__":
    try:
        main()
    except BackupMxError as failure:
        sys.stderr.write(f"{failure}\n")
        raise SystemExit(failure.exit_code) from None
