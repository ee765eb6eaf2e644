"""Real machines for tests: one lab for the whole session, gone when it ends, however it ends."""

from __future__ import annotations

import atexit
import secrets
from collections.abc import Callable, Iterator
from dataclasses import replace

import pytest
from relays import IMAGES, Relay, booted

from backup_mx.lab import sweep
from backup_mx.lab.world import World

USER_DATA = b"""#cloud-config
write_files:
- path: /root/written
  content: by cloud-init
runcmd:
- [cp, /root/written, /root/run]
"""


def _random_name() -> str:
    """Return a lab's name that no other lab is likely to have."""
    return f"t{secrets.token_hex(3)[:5]}"


@pytest.fixture(scope="session")
def world() -> Iterator[World]:
    """A running lab without kits: internet, edge, primary, and mx2, set up by USER_DATA."""
    made = World(_random_name(), user_data=USER_DATA)
    atexit.register(_forget, made.name)
    try:
        made.up(print)
        yield made
    finally:
        made.down()


@pytest.fixture
def make_world() -> Iterator[Callable[[World], World]]:
    """A maker of labs with names of their own, not up yet; all go after the test."""
    made: list[World] = []

    def make(wanted: World) -> World:
        made.append(replace(wanted, name=_random_name()))
        return made[-1]

    yield make
    for world in made:
        world.down()


@pytest.fixture(scope="session", params=IMAGES)
def relay(request: pytest.FixtureRequest) -> Iterator[Relay]:
    """A relay booted from real user-data, with each Postfix in turn."""
    with booted(request.param) as made:
        yield made


def _forget(name: str) -> None:
    """Clear a lab away that the fixture could not."""
    if sweep.leftovers(name):
        sweep.sweep(name)
