"""A relay's unit, for a while as a test wants it."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

from relays import Relay


@contextlib.contextmanager
def altered(relay: Relay, unit: str, *settings: str) -> Iterator[None]:
    """Run a unit with other lines of its section [Service], and then as it was."""
    folder = f"/run/systemd/system/{unit}.d"
    content = "\n".join(("[Service]", *settings, ""))
    relay.shell("mkdir", "-p", folder)
    relay.machine.run(["tee", f"{folder}/test.conf"], stdin=content.encode())
    try:
        _restart(relay, unit)
        yield
    finally:
        relay.shell("rm", f"{folder}/test.conf")
        _restart(relay, unit)


def _restart(relay: Relay, unit: str) -> None:
    relay.shell("systemctl", "daemon-reload")
    relay.shell("systemctl", "restart", unit)
