"""The tailnet: a relay joins it once, with a key that is on the machine only until it is used.

The key is no file of the bundle, which stays on the machine: it goes into /run, which is memory,
when a machine is not in the tailnet yet, and both the shell that put it there and the unit that
uses it take it away.
"""

from __future__ import annotations

import json
import shlex
import time
from collections.abc import Callable
from typing import Any

from backup_mx.config import Config
from backup_mx.config.options import Tailnet
from backup_mx.errors import MachineError
from backup_mx.machine.apply.files import Service
from backup_mx.machine.ship import Host, Tell

UNIT = "backup-mx-tailnet.service"
FOLDER = "/run/backup-mx-tailnet"
KEY = f"{FOLDER}/key"
_NOT_FOUND = 127
_UNITS = "/etc/systemd/system/"
# BackendState of `tailscale status --json`. The last two it has after a start, until it knows.
IN, STARTING = "Running", ("NoState", "Starting")
_SETTLED_S = 30


def services(config: Config, relay: str) -> tuple[Service, ...]:
    """Return what the bundle has to bring up: with a volume, the place of tailscaled's state."""
    if config.tailnet is None or not config.relays[relay].volume:
        return ()
    mount, daemon = "var-lib-tailscale.mount", "tailscaled.service"
    return (
        Service(mount, (f"{_UNITS}{mount}",)),
        # It has opened its state already, in the place that is hidden by now.
        Service(daemon, (f"{_UNITS}{daemon}.d/",), needs="/usr/sbin/tailscaled"),
    )


def join(
    host: Host,
    config: Config,
    relay: str,
    tell: Tell,
    sleep: Callable[[float], None] = time.sleep,
) -> None:
    """Have the relay called ``relay`` in the tailnet that the config names, if it names one.

    Raises MachineError where that fails: the relay works all the same; SecretError.
    """
    wanted = config.tailnet
    if wanted is None:
        return
    state = _settled(host, wanted, relay, sleep)
    if state.get("BackendState") != IN:
        tell(f"joining the tailnet of {wanted.server}")
        _enrol(host, wanted.auth_key.read(config.folder))
        state = _settled(host, wanted, relay, sleep)
    _told(state, wanted, relay, tell)


def _settled(
    host: Host, wanted: Tailnet, relay: str, sleep: Callable[[float], None]
) -> dict[str, Any]:
    """Ask until its tailscale knows whether it is in: the deploy may just have started it.

    It goes on starting as long as it has a membership, and cannot reach the tailnet's server: what
    it lacks then is no key. Raises MachineError after _SETTLED_S seconds of that.
    """
    for _ in range(_SETTLED_S):
        state = _status(host, relay)
        if state.get("BackendState") not in STARTING:
            return state
        sleep(1)
    raise MachineError(
        f"{relay} works, but its tailscale is still starting after {_SETTLED_S} s: the server that"
        f" it joined does not answer. Is that {wanted.server}? If it was another: `tailscale"
        f" logout` on the relay, then backup-mx deploy {relay}"
    )


def _status(host: Host, relay: str) -> dict[str, Any]:
    """Ask the machine's tailscale. Raises MachineError where there is none, or it does not say."""
    answer = host.run(["env", "tailscale", "status", "--json"])
    if answer.code == _NOT_FOUND:
        raise MachineError(
            f"{relay} works, but is not in the tailnet: it has no tailscale. Install that there by"
            f" Tailscale's own instructions, then: backup-mx deploy {relay}"
        )
    try:
        return dict(json.loads(answer.stdout))
    except (RecursionError, TypeError, ValueError):
        said = answer.stderr.strip() or "nothing"
        raise MachineError(f"{relay} works, but its tailscale says: {said}") from None


def _enrol(host: Host, key: str) -> None:
    """Leave the key where the unit looks for it, and start the unit. Raises MachineError."""
    answer = host.run(enrolment(), stdin=key.encode())
    if answer.code:
        journal = host.run(["journalctl", "-q", "-n", "3", "-o", "cat", "-u", UNIT])
        said = journal.stdout.strip() or answer.stderr.strip()
        raise MachineError(f"the relay works, but did not join the tailnet: {said}")


def enrolment(folder: str = FOLDER) -> list[str]:
    """Return the command that enrols a machine with the key that is its standard input.

    It is one command, which ends on the machine by itself: if the way there breaks, nobody could
    take the key away any more.
    """
    place = shlex.quote(folder)
    return [
        "sh",
        "-c",
        f"""set -e
umask 077
trap {shlex.quote(f"rm -rf {place}")} EXIT
trap 'exit 1' HUP INT TERM
mkdir -p {place}
cat > {place}/key
systemctl start {shlex.quote(UNIT)}""",
    ]


def _told(state: dict[str, Any], wanted: Tailnet, relay: str, tell: Tell) -> None:
    """Tell the relay's address in the tailnet. Raises MachineError where it is not as wanted."""
    own = state.get("Self") or {}
    if state.get("BackendState") != IN:
        raise MachineError(f"{relay} works, but its tailscale is {state.get('BackendState')}")
    tags = own.get("Tags") or []
    if wanted.tag not in tags:
        raise MachineError(
            f"{relay} is in the tailnet without {wanted.tag} ({', '.join(tags) or 'no tag'}): does"
            " the tailnet's policy have it in tagOwners, and the key bear it?"
        )
    if expires := own.get("KeyExpiry"):
        tell(f"its key in the tailnet expires {expires}: switch key expiry off for this machine")
    tell(f"in the tailnet as {', '.join(own.get('TailscaleIPs') or [])}")
