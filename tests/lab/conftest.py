"""Real machines for tests: one lab for the whole session, gone when it ends, however it ends.

worlds.fresh_name() sees to that, for every lab that has its name from there.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from dataclasses import replace

import pytest
from relays import RELEASES, Relay, booted
from worlds import fresh_name, standing

from backup_mx.lab.world import World

USER_DATA = b"""#cloud-config
write_files:
- path: /root/written
  content: by cloud-init
runcmd:
- [cp, /root/written, /root/run]
"""


@pytest.fixture(scope="session")
def world() -> Iterator[World]:
    """A running lab without kits: internet, edge, primary, and mx2, set up by USER_DATA."""
    with standing(World(fresh_name(), user_data=USER_DATA)) as made:
        yield made


@pytest.fixture
def make_world() -> Iterator[Callable[[World], World]]:
    """A maker of labs with names of their own, not up yet; all go after the test."""
    with contextlib.ExitStack() as made:  # one that does not go keeps no other from going

        def make(wanted: World) -> World:
            world = replace(wanted, name=fresh_name())
            made.callback(world.down)
            return world

        yield make


@pytest.fixture(scope="session", params=RELEASES)
def relay(request: pytest.FixtureRequest) -> Iterator[Relay]:
    """A relay booted from real user-data, with each Postfix in turn."""
    with booted(request.param) as made:
        yield made
