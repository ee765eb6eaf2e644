"""Which relay keeps a message that has not come: its queue, asked over SSH."""

from __future__ import annotations

import json
from dataclasses import dataclass

from backup_mx.config import Config
from backup_mx.errors import BackupMxError, MachineError
from backup_mx.machine.ship import Host, SshHost, must
from backup_mx.relay.operator.verbs import PROGRAM

_EARLIER = 60.0
"""Seconds by which a relay's clock may be behind ours."""


@dataclass(frozen=True)
class Answer:
    """What the relays say: which one keeps it, and why it waits there, each "" where none does.

    silent says which one could not be asked, and why, "" where all answered.
    """

    relay: str = ""
    why: str = ""
    silent: str = ""


def waiting(host: Host, recipient: str, since: float) -> list[str]:
    """Return why each message waits that a relay took for ``recipient`` since then.

    By recipient and time (seconds since 1970): its Message-ID may be the account's own. Raises
    MachineError, UnreachableError, HostError.
    """
    said = must(host, (PROGRAM, "queue", "--json", "--limit", "0", "--search", recipient))
    try:
        listed = json.loads(said)["messages"]
        ours = [each for each in listed if float(each["accepted"]) >= since - _EARLIER]
        return ["; ".join(str(to["reason"]) for to in each["recipients"][:1]) for each in ours]
    except (ValueError, KeyError, TypeError, RecursionError):
        raise MachineError(f"the relay lists no queue: {said[:200]!r}") from None


def asked(config: Config, recipient: str, since: float) -> Answer:
    """Ask every relay whether it keeps a message for ``recipient``, taken since then."""
    silent = ""
    for relay in config.relays.values():
        try:
            if found := waiting(SshHost(relay.ssh), recipient, since):
                return Answer(relay.name, found[-1])
        except BackupMxError as error:
            silent = silent or f"{relay.name} cannot be asked: {error}"
    return Answer(silent=silent)
