"""The standby gate, and the policy server that Postfix asks."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Mapping
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from backup_mx.relay.decide import standby
from backup_mx.relay.decide.standby import ACTION, DUNNO
from backup_mx.relay.state import STATES, UP, Primary, Walk
from backup_mx.relay.tasks import policy
from backup_mx.relay.tasks.policy import GarbageError, Policy

NOW = 10_000.0
FRESH = 180.0
REQUEST = {
    "request": "smtpd_access_policy",
    "protocol_state": "RCPT",
    "recipient": "Jo@Example.org",
    "sender": "",
}


def primary(state: str = UP, since: float = NOW - 3600, walk: float = NOW - 5) -> Primary:
    return Primary("home", state, since, 9, Walk(walk, state == UP, "rset", "", "", 0.1))


def action(found: Primary, **request: str) -> str:
    owners = standby.by_domain([(found, ("example.org",))])
    return standby.action({**REQUEST, **request}, owners, NOW, fresh=FRESH)


def test_closed_while_the_primary_is_up() -> None:
    """A sender is asked to deliver there, by a 4xx and a status code that says so."""
    assert action(primary()) == ACTION
    assert ACTION.startswith("DEFER 4.3.2 ")


@pytest.mark.parametrize("state", [state for state in STATES if state != UP])
def test_open_in_every_other_state(state: str) -> None:
    """At the first bad walk mail is taken."""
    assert action(primary(state)) == DUNNO


def test_it_closes_slowly() -> None:
    """A primary that just came up has to show for a while that it stays."""
    assert action(primary(since=NOW - standby.STABLE + 1)) == DUNNO
    assert action(primary(since=NOW - standby.STABLE)) == ACTION


def test_old_knowledge_is_no_knowledge() -> None:
    """A canary that has not come back for minutes may hide an outage."""
    assert action(primary(walk=NOW - FRESH - 1)) == DUNNO


def test_a_bad_walk_opens_it_whatever_the_state_says() -> None:
    """The walk is newer than the state."""
    bad = replace(primary(), walk=Walk(NOW, False, "connect", "unreachable", "", 0.1))
    assert action(bad) == DUNNO


@pytest.mark.parametrize(
    "recipient", ["postmaster", "postmaster@mx2.example.net", "", "jo@sub.example.org", "@"]
)
def test_who_is_in_no_domain_of_a_primary_is_always_taken(recipient: str) -> None:
    """The relay's own postmaster has no other home."""
    assert action(primary(), recipient=recipient) == DUNNO


def test_a_domains_postmaster_is_put_off_as_anybody() -> None:
    """The first MX takes it."""
    assert action(primary(), recipient="postmaster@example.org") == ACTION


@pytest.mark.parametrize("state", ["CONNECT", "MAIL", "DATA", "END-OF-MESSAGE", "VRFY", ""])
def test_only_recipients_are_put_off(state: str) -> None:
    """Whatever else Postfix asks about is not ours to judge."""
    assert action(primary(), protocol_state=state) == DUNNO


@pytest.mark.parametrize("address", ["127.0.0.1", "::1"])
def test_the_relay_itself_is_never_put_off(address: str) -> None:
    """An import hands exported mail to this machine's own port 25."""
    assert action(primary(), client_address=address) == DUNNO
    assert action(primary(), client_address="192.0.2.1") == ACTION


def test_maintenance_takes_all() -> None:
    """The operator wants mail to be kept."""
    owners = standby.by_domain([(primary(), ("example.org",))])
    found = standby.action(REQUEST, owners, NOW, fresh=FRESH, maintenance=True)
    assert found == DUNNO


@given(st.dictionaries(st.text(max_size=20), st.text(max_size=40)))
def test_any_request_gets_one_of_two_answers(request: dict[str, str]) -> None:
    """Whatever a client claims."""
    assert action(primary(), **request) in (ACTION, DUNNO)


# --- on the wire


async def asked(*chunks: bytes, size: int = 65536) -> list[bytes]:
    """Send chunks, cut into pieces of ``size``, to a server; return all it says, until it closes.

    The server always answers DUNNO; the client hangs up after its last chunk.
    """
    server = Policy(lambda _: DUNNO, port=0)
    await server.start()
    reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
    try:
        async with asyncio.timeout(10):
            stream = b"".join(chunks)
            for start in range(0, len(stream), size):
                writer.write(stream[start : start + size])
                await writer.drain()
            writer.write_eof()
            return (await reader.read()).split(b"\n\n")[:-1]
    except ConnectionError:
        return []
    finally:
        writer.close()
        await server.stop()


def text(request: Mapping[str, str]) -> bytes:
    return "".join(f"{name}={value}\n" for name, value in request.items()).encode() + b"\n"


@pytest.mark.parametrize("size", [4096, 128, 16, 1])
def test_requests_are_answered_one_by_one(size: int) -> None:
    """Postfix keeps its connection and asks again, however the bytes arrive."""
    found = asyncio.run(asked(text(REQUEST), text(REQUEST), text(REQUEST), size=size))
    assert found == 3 * [b"action=DUNNO"]


@pytest.mark.parametrize(
    "garbage",
    [
        b"\n",
        b"EHLO you\n\n",
        b"request=other\n\n",
        b"=x\n\n",
        b"request=smtpd_access_policy\nrequest=smtpd_access_policy\n\n",
        b"x" * 100_000 + b"=\n\n",
        b"".join(b"a%d=\n" % number for number in range(1000)) + b"\n",
        bytes(range(256)) + b"\n\n",
    ],
)
def test_garbage_is_hung_up_on(garbage: bytes) -> None:
    """Nothing is answered; what was asked before is."""
    assert asyncio.run(asked(text(REQUEST), garbage, text(REQUEST))) in ([b"action=DUNNO"], [])


@given(st.binary(max_size=300))
def test_any_bytes_end_in_a_request_or_in_its_refusal(octets: bytes) -> None:
    """Reading never fails in another way, and never goes on for ever."""

    async def read() -> None:
        reader = asyncio.StreamReader(limit=policy.LINE_BYTES)
        reader.feed_data(octets)
        reader.feed_eof()
        with contextlib.suppress(GarbageError, EOFError):
            assert (await policy.request(reader.readline))["request"] == "smtpd_access_policy"

    asyncio.run(read())


def test_it_stops_while_somebody_is_connected() -> None:
    """A clean stop waits for nobody."""

    async def stop() -> None:
        server = Policy(lambda _: DUNNO, port=0)
        await server.start()
        reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
        writer.write(text(REQUEST))
        assert await reader.readuntil(b"\n\n") == b"action=DUNNO\n\n"
        async with asyncio.timeout(5):
            await server.stop()
            assert await reader.read() == b""
        writer.close()

    asyncio.run(stop())


def test_a_walk_of_the_future_is_no_fresh_one() -> None:
    """A clock that was set back: nobody knows how old it is, so mail is taken."""
    assert action(primary(walk=NOW + 60)) == DUNNO
