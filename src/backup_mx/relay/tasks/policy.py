"""Postfix's policy delegation, the server's side (SMTPD_POLICY_README): standby's voice.

A request is lines of ``name=value`` and an empty line; the answer is ``action=…`` and another. A
peer that says anything else is hung up on: Postfix then answers as main.cf's default_action says,
which is DUNNO.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field

LINE_BYTES = 16_384  # Postfix's own line_length_limit is 2048
LINES = 100
IDLE_SECONDS = 330.0  # Postfix hangs up after 300 (smtpd_policy_service_max_idle)
CONNECTIONS = 200  # two for each of Postfix's processes
PORT = 9726

Answer = Callable[[Mapping[str, str]], str]


class GarbageError(Exception):
    """A peer said something that is no request."""


@dataclass
class Policy:
    """A policy server on 127.0.0.1: ``answer`` takes a request's attributes, returns the action."""

    answer: Answer
    port: int = PORT
    peers: set[asyncio.Task[None]] = field(default_factory=set)
    _server: asyncio.Server | None = None

    async def start(self) -> None:
        """Listen. Raises OSError."""
        self._server = await asyncio.start_server(
            self._serve, "127.0.0.1", self.port, limit=LINE_BYTES
        )
        self.port = self._server.sockets[0].getsockname()[1]

    async def stop(self) -> None:
        """Stop listening and hang up."""
        if self._server:
            self._server.close()
        for each in self.peers:
            each.cancel()
        await asyncio.gather(*self.peers, return_exceptions=True)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        if task is None or len(self.peers) >= CONNECTIONS:
            writer.close()
            return
        self.peers.add(task)
        try:
            await self._talk(reader, writer)
        except asyncio.CancelledError:
            pass  # stop() hangs up; asyncio.streams would log it as a mistake
        finally:
            self.peers.discard(task)
            writer.close()

    async def _talk(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(OSError, TimeoutError, EOFError, GarbageError):
            while True:
                async with asyncio.timeout(IDLE_SECONDS):
                    found = await request(reader.readline)
                    writer.write(f"action={self.answer(found)}\n\n".encode())
                    await writer.drain()


async def request(readline: Callable[[], Awaitable[bytes]]) -> dict[str, str]:
    """Read one request. Raises EOFError at its end, GarbageError for anything else."""
    found: dict[str, str] = {}
    for _ in range(LINES):
        try:
            line = await readline()
        except ValueError:  # longer than the reader's limit
            raise GarbageError from None
        if not line.endswith(b"\n"):
            raise EOFError
        text = line.decode("utf-8", "replace").rstrip("\r\n")
        if not text:
            return _whole(found)
        name, separator, value = text.partition("=")
        if not separator or not name or name in found:
            raise GarbageError
        found[name] = value
    raise GarbageError


def _whole(found: dict[str, str]) -> dict[str, str]:
    if found.get("request") != "smtpd_access_policy":
        raise GarbageError
    return found
