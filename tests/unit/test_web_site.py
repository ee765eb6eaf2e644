"""The dashboard's server: when it listens, when it loads, how it ends."""

from __future__ import annotations

import asyncio
import subprocess
import sys
import urllib.request
from pathlib import Path

import pytest
import web_world

from backup_mx.errors import MachineError
from backup_mx.relay.web import site

HERE = Path(__file__).parent

LAZY = """
import asyncio, sys, urllib.request
import web_world
from backup_mx.relay.tell import metrics
from backup_mx.relay.web import site

HEAVY = ("aiohttp", "jinja2")

def loaded():
    return [name for name in HEAVY if name in sys.modules]

async def main():
    view = web_world.view(3)
    told = await metrics.serve(view.snapshot, view.settings, 0)
    shown = await site.serve(view, 0)
    await asyncio.to_thread(urllib.request.urlopen, f"http://{told.addresses[0]}/metrics")
    print(loaded())
    await asyncio.to_thread(urllib.request.urlopen, f"http://{shown.addresses[0]}/")
    print(loaded())
    await told.stop()
    await shown.stop()

asyncio.run(main())
"""


def test_who_does_not_look_does_not_pay() -> None:
    """Metrics need neither aiohttp nor Jinja2; the first visit to the dashboard loads them."""
    said = subprocess.run(
        [sys.executable, "-c", LAZY],
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
        env={"PYTHONPATH": ":".join(path for path in (str(HERE), *sys.path) if path)},
    )
    assert said.stdout.splitlines() == ["[]", "['aiohttp', 'jinja2']"], said.stderr


def fetch(address: str) -> tuple[int, str]:
    """Open a page."""
    with urllib.request.urlopen(address, timeout=10) as answer:  # noqa: S310 - our own server
        return answer.status, answer.read().decode()


def test_it_answers_at_every_address_until_it_is_stopped() -> None:
    """IPv4 and IPv6 where there is one; after the stop nobody listens, and the port is free."""

    async def visit() -> None:
        view = web_world.view(3)
        server = await site.serve(view, 0)
        for address in server.addresses:
            status, text = await asyncio.to_thread(fetch, f"http://{address}/")
            assert (status, "3 messages" in text) == (200, True)
        await server.stop()
        port = int(server.addresses[0].rpartition(":")[2])
        again = await site.serve(view, port)
        assert server.addresses[0] in again.addresses
        await again.stop()

    asyncio.run(asyncio.wait_for(visit(), 60))


def test_a_stop_before_anybody_came() -> None:
    """Nothing was loaded, nothing is left."""

    async def visit() -> None:
        server = await site.serve(web_world.view(0), 0)
        await server.stop()
        with pytest.raises(OSError):
            await asyncio.to_thread(fetch, f"http://{server.addresses[0]}/")

    asyncio.run(asyncio.wait_for(visit(), 60))


def test_a_port_that_is_taken() -> None:
    """Two agents at one port: the second one is told at once, in words."""

    async def visit() -> None:
        view = web_world.view(0)
        server = await site.serve(view, 0)
        port = int(server.addresses[0].rpartition(":")[2])
        with pytest.raises(MachineError, match=f"cannot listen at 127.0.0.1 port {port}"):
            await site.serve(view, port)
        await server.stop()

    asyncio.run(asyncio.wait_for(visit(), 60))


def test_without_a_password_it_stays_on_loopback() -> None:
    """Networks alone open nothing: they need the password."""

    async def visit() -> None:
        for password, everywhere in (("", False), (web_world.PASSWORD, True)):
            view = web_world.view(0, dashboard_from=("100.64.0.0/10",), dashboard_password=password)
            server = await site.serve(view, 0)
            assert server.addresses[0].startswith("0.0.0.0:") == everywhere
            await server.stop()

    asyncio.run(asyncio.wait_for(visit(), 60))
