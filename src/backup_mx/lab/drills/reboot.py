"""The drill ``edge-reboot``: the router restarts while mail arrives, and forgets the tunnel."""

from __future__ import annotations

import time
from concurrent.futures import Executor
from dataclasses import dataclass

from backup_mx.errors import LabError
from backup_mx.lab.drills.base import Drill
from backup_mx.lab.host import wait_for
from backup_mx.lab.reconcile import Sent

TUNNEL_UNIT = "wg-quick@wg0.service"
INTERFACE = "wg0"
TUNNEL_SECONDS = 30.0
STUCK_SECONDS = 90.0


@dataclass
class EdgeReboot(Drill):
    """The drill ``edge-reboot``.

    In a lab with a tunnel, the router comes back without its peer first, as a router does whose
    stored configuration never had it. Without a tunnel, it is the router's restart alone.
    """

    name = "edge-reboot"
    summary = "the router restarts while mail arrives; its tunnel's peer is gone, and back"
    default_messages = 200

    def __post_init__(self) -> None:
        """Name the router, too."""
        super().__post_init__()
        self.edge = self.world.machine("edge")

    def rehearse(self, pool: Executor) -> tuple[list[Sent], list[str]]:
        """Restart the router."""
        self.mailboxes.empty()
        has_tunnel = self.has_tunnel
        if not has_tunnel:
            self.timeline.event(
                "this lab has no tunnel (lab up --tunnel): the router alone restarts"
            )
        self.timeline.event("the router goes down for a restart", "router off")
        self.edge.poweroff()
        sending = pool.submit(self.submit, self.name)
        try:
            self.fill_the_relay(self.messages)
            self.timeline.event(f"{self.relay.waiting} messages wait on the relay")
        finally:
            self.boot()
            sent = sending.result()
        try:
            if has_tunnel:
                self.forget_the_peer()
            began = time.monotonic()
            self.drain()
        except LabError as error:
            self.timeline.event(f"given up: {error}")
            return sent, [str(error)]
        self.figures["drained after the router's return, s"] = round(time.monotonic() - began, 1)
        return sent, []

    @property
    def has_tunnel(self) -> bool:
        """Whether the relay drains through a tunnel in this lab."""
        return bool(self.relay.machine.run(["wg", "show", "interfaces"]).text.strip())

    def boot(self) -> None:
        """Switch the router on, and wait until it works."""
        self.edge.boot()
        self.edge.ready()
        self.timeline.event("the router is back", "router back")

    def forget_the_peer(self) -> None:
        """Take the relay's peer away, see that nothing is lost for it, and bring it back.

        Raises LabError when mail passes without the peer, or nobody tells why it waits.
        """
        wait_for(
            "the router's tunnel to come up", lambda: bool(self.peers()), timeout=TUNNEL_SECONDS
        )
        for peer in self.peers():
            self.edge.run(["wg", "set", INTERFACE, "peer", peer, "remove"])
        self.timeline.event("the tunnel's peer is gone", "peer gone")
        delivered, told = self.mailboxes.count, self.timed_out()
        self.relay.flush()
        wait_for(
            "the queue to say that the primary does not answer",
            lambda: self.timed_out() > told,
            timeout=STUCK_SECONDS,
        )
        self.timeline.event("the queue says that the primary does not answer")
        if self.mailboxes.count > delivered:
            raise LabError("mail passed although the tunnel had no peer")
        self.edge.run(["systemctl", "restart", TUNNEL_UNIT])
        self.timeline.event("the tunnel's peer is back", "peer back")

    def peers(self) -> list[str]:
        """Return the public keys that the router's end of the tunnel knows."""
        argv = ["wg", "show", INTERFACE, "peers"]
        return self.edge.run(argv, check=False).text.split()

    def timed_out(self) -> int:
        """Count the messages that wait because a connection timed out, as in a dead tunnel."""
        return sum("timed out" in message.recipients[0].reason for message in self.relay.messages())
