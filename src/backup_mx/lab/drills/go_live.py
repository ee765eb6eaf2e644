"""The drill ``go-live``: from a bare Debian to a relay that is proven, published and used.

It walks docs/deploy.md, its plain VPS and its last chapter, and drain.md, by the commands there and
no others, run as the operator would; at the primary and at the router by what the kits' README.md
say. What the operator does by hand, switch things off and on, the drill does when it is asked to.
"""

from __future__ import annotations

import json
import re
import shutil
import time
from collections.abc import Callable, Mapping
from concurrent.futures import Executor
from dataclasses import dataclass
from importlib import resources
from typing import Any

from backup_mx.errors import LabError
from backup_mx.lab import authority, settings
from backup_mx.lab.authority import Authority
from backup_mx.lab.drills.base import PRIMARY, RELAY, RELAY_ADDRESS, Drill
from backup_mx.lab.host import wait_for
from backup_mx.lab.machine import Done, Machine
from backup_mx.lab.operator import Operator
from backup_mx.lab.prepare import KIT
from backup_mx.lab.reconcile import Sent
from backup_mx.lab.zone import KNOT, NAME, SECONDARY, Zone

FACTS = {
    "hostname": RELAY,
    "address": RELAY_ADDRESS,
    "primary": PRIMARY,
    "drain-to": f"{PRIMARY}:2526",
    "domain": NAME,
}
"""What `backup-mx init` asks for."""
CONFIG = "backup-mx.toml"
SECRETS = ("tsig.key", "prober.password", "lab.pem")
OPTIONS = """
[primary.home]
tls = "verify"
kit = "postfix-rspamd"
smtputf8 = true

[queue]
# A minute by default: the drill would only wait longer for the same.
canary_idle = "15s"

[edge.nftables]
interface = "eth0"
forward_to = "10.0.10.1:2526"

[edge.haproxy]
forward_to = "10.0.10.10:25"
check_port = 10025
"""
"""What this operator's home has, and `init` does not ask for."""
YOU = "alice@example.org"
EDGES = ("nftables", "haproxy")
LIVE_SECONDS = 900.0
UP_SECONDS = 300.0
_FENCED = re.compile(r"^## Load$.*?^```\n(.*?)^```$", re.MULTILINE | re.DOTALL)


@dataclass
class GoLive(Drill):
    """The drill ``go-live``; it needs a lab whose mx2 is bare (`lab up --bare`)."""

    name = "go-live"
    summary = "a bare Debian becomes a relay, is proven, published and used, by the manual alone"
    default_messages = 60

    def __post_init__(self) -> None:
        """Name the operator, who has a folder of his own for this, and what is in reach."""
        super().__post_init__()
        self.operator = Operator(self.world.name)
        self.home = self.operator.own / "home"
        self.authority = Authority(self.world)
        self.zone = Zone(self.world)
        self.edge = self.world.machine("edge")

    def rehearse(self, pool: Executor) -> tuple[list[Sent], list[str]]:
        """Go the whole way, then have mail take it in an outage."""
        del pool
        self.refuse_a_relay()
        began, sent = time.monotonic(), list[Sent]()
        try:
            self.set_up()
            self.describe()
            self.deploy()
            self.let_through()
            self.tried()
            self.refused("before any gate was run")
            self.name_published()
            self.certified()
            self.proven()
            self.broken()
            self.published()
            self.figures["from the bare machine to the MX record, s"] = since(began)
            sent = self.used()
        except LabError as error:
            self.timeline.event(f"given up: {error}")
            return sent, [str(error)]
        finally:
            self.authority.stop()
            self.switched_on(self.edge)
            self.restore_the_primary()
        return sent, []

    def refuse_a_relay(self) -> None:
        """Raise LabError where somebody has been before."""
        if self.known_to(KNOT) or self.relay.machine.path("/etc/backup-mx").exists():
            raise LabError(
                f"mx2 is no bare machine in this lab: backup-mx lab down --name {self.world.name},"
                " then up --bare, makes one where it is"
            )

    def set_up(self) -> None:
        """Give the operator an empty folder, secrets, and an authority that certifies."""
        self.home.mkdir()
        self.authority.start()
        root = self.authority.root()
        self.operator.trust(root)
        for name in SECRETS:
            shutil.copy(self.operator.folder / name, self.home / name)
        known = (self.operator.folder / "acme.pem").read_text()
        (self.home / "acme.pem").write_text(known + root)

    # ── What the manual says ──────────────────────────────────────────────────────────────────────

    def do(
        self,
        *words: str,
        code: int | None = 0,
        timeout: float = 300.0,
        hear: Callable[[str], None] = lambda _line: None,
    ) -> Done:
        """Run a backup-mx command. Raises LabError with its words where it does not end so."""
        began = time.monotonic()
        command = ["backup-mx", *words]
        done = self.operator.run(command, folder=self.home, timeout=timeout, hear=hear)
        self.timeline.event(f"$ backup-mx {' '.join(words)}  ({since(began):.0f} s)")
        if code is not None and done.returncode != code:
            said = (done.text + done.stderr.decode(errors="replace")).strip()
            raise LabError(f"backup-mx {' '.join(words)} ended with {done.returncode}: {said}")
        return done

    def describe(self) -> None:
        """Write the config: what `init` asks for, then what else there is at this home."""
        facts = [part for key, value in FACTS.items() for part in (f"--{key}", value)]
        self.do("init", *facts)
        operators = resources.files("backup_mx.lab") / "backup-mx-operator.toml"
        text = (self.home / CONFIG).read_text()
        for more in (OPTIONS, operators.read_text(), authority.OPTIONS):
            text = settings.with_options(text, more)
        (self.home / CONFIG).write_text(text)
        self.do("check")

    def deploy(self) -> None:
        """Make the bare machine a relay."""
        began = time.monotonic()
        said = self.do("deploy", "mx2").text.splitlines()
        if said[-1] != "done":
            raise LabError(f"deploy ended with: {said[-1]}")
        self.figures["deploy to a bare machine, s"] = since(began)
        self.timeline.event("the machine is a relay; no DNS knows of it", "relay")

    def let_through(self) -> None:
        """Bring the kits to the primary and to the router, and see what the relay sees of it."""
        self.do("primary", "render")
        self.bring("primary/home", self.primary, KIT)
        self.primary.run(["env", f"--chdir={KIT}", "sh", "backup-mx-kit", "apply"])
        for kind in EDGES:
            self.do("edge", "render", kind)
            place = f"/root/{kind}"
            self.bring(f"edge/{kind}", self.edge, place)
            for command in loading((self.home / "build/edge" / kind / "README.md").read_text()):
                self.edge.run(["env", f"--chdir={place}", "sh", "-c", command])
        self.until_status_says("primary home: up")
        self.do("primary", "check")

    def tried(self) -> None:
        """Try it before anything is published: mail waits while the primary's Postfix is stopped.

        Raises LabError when the queue does not show it, or it is not handed over afterwards.
        """
        before = self.mailboxes.count
        self.primary.run(["systemctl", "stop", "postfix"])
        try:
            internet = self.world.machine("internet")
            internet.run(["swaks", "--server", RELAY_ADDRESS, "--to", YOU])
            said = self.do("queue").text
        finally:
            self.primary.run(["systemctl", "start", "postfix"])
        if YOU not in said:
            raise LabError(f"backup-mx queue does not show the message to {YOU}: {said}")
        self.do("drain")
        wait_for("the message to be handed over", lambda: self.mailboxes.count > before,
                 timeout=UP_SECONDS)  # fmt: skip
        self.timeline.event("a message has waited on the relay, and is in its mailbox", "tried")

    def bring(self, built: str, machine: Machine, place: str) -> None:
        """Copy a rendered folder to a machine."""
        shutil.copytree(self.home / "build" / built, machine.path(place), dirs_exist_ok=True)

    def until_status_says(self, words: str) -> None:
        """Ask `status` until it says so. Raises LabError when it does not."""
        ask = ["backup-mx", "status", "mx2"]
        wait_for(
            f"backup-mx status to say: {words}",
            lambda: words in self.operator.run(ask, folder=self.home).text,
            timeout=UP_SECONDS,
        )
        self.timeline.event(f"$ backup-mx status mx2: {words}")

    def refused(self, why: str) -> str:
        """See that nothing is published; return what `dns publish` says."""
        before = self.zone.records()
        said = self.do("dns", "publish", "--yes", code=1).text
        if before != self.zone.records():
            raise LabError(f"{why}, dns publish has changed the zone: {said}")
        self.timeline.event(f"{why}, dns publish refuses")
        return said

    def name_published(self) -> None:
        """Have the gates run, which allow the relay's name, and publish that."""
        allowed, why = self.gates()
        if allowed != ["A"]:
            raise LabError(f"the gates allow {allowed or 'nothing'}: {why}")
        self.do("dns", "publish", "--yes", code=1)
        for server in (KNOT, SECONDARY):
            if not self.known_to(server) or self.exchanger_at(server):
                raise LabError(f"{server}: the relay's name, and that alone, should be published")
        self.timeline.event("the relay's name is in DNS, at both servers; no MX record is", "name")

    def certified(self) -> None:
        """Have the relay ask for its certificate at once."""
        began = time.monotonic()
        ask = ["ssh", f"root@{RELAY_ADDRESS}", "systemctl", "start", "backup-mx-acme@now"]
        self.operator.run(ask, folder=self.home)
        self.until_status_says("certificate: issued by")
        self.figures["certificate, after its name was published, s"] = since(began)

    def proven(self) -> None:
        """Run the gates that need the operator, then all others again."""
        self.do("gate", "run", "reboot", timeout=LIVE_SECONDS, hear=self.at_the_router)
        self.switched_on(self.edge)
        self.do("gate", "run", "failover", timeout=LIVE_SECONDS, hear=self.at_the_primary)
        self.restore_the_primary()
        allowed, why = self.gates()
        if "MX" not in allowed:
            raise LabError(f"the gates do not allow the MX record: {why}")
        self.timeline.event("all gates have passed", "proven")

    def gates(self, *only: str) -> tuple[list[str], Mapping[str, str]]:
        """Run the gates; return the kinds of record they allow, and why not the others."""
        done = self.do("gate", "run", *only, "--json", code=None)
        told = answered(done)["mx2"]
        for name, gate in told["gates"].items():
            if gate["verdict"] != "pass":
                self.timeline.event(f"{gate['verdict']}: {name}: {gate['saw']}")
        lacking: dict[str, str] = told["lacking"]
        return [kind for kind, why in lacking.items() if not why], lacking

    def at_the_router(self, asked: str) -> None:
        """Switch the router off when the gate says so, and on when it has seen that."""
        self.timeline.event(asked)
        if "Restart the router" in asked:
            self.edge.poweroff()
        elif "It is away" in asked:
            self.switched_on(self.edge)

    def at_the_primary(self, asked: str) -> None:
        """Do the same to the primary; it loses its power."""
        self.timeline.event(asked)
        if f"Switch {PRIMARY} off" in asked:
            self.primary.kill()
        elif f"Switch {PRIMARY} on" in asked:
            self.switched_on(self.primary)

    def switched_on(self, machine: Machine) -> None:
        """Switch a machine on, if it is off, and wait until it answers."""
        if not machine.running:
            machine.boot()
            machine.ready(UP_SECONDS)

    def broken(self) -> None:
        """Break the way to the primary, see it found and the MX record refused; mend it."""
        self.edge.run(["systemctl", "stop", "haproxy"])
        try:
            self.until_status_says("primary home: down")
            allowed, why = self.gates("canary")
            said = self.refused("with the way to the primary broken")
        finally:
            self.edge.run(["systemctl", "start", "haproxy"])
        if "MX" in allowed or "canary" not in why["MX"] or "canary" not in said:
            raise LabError(f"the way to the primary is broken, and dns publish says: {said}")
        self.until_status_says("primary home: up")
        allowed, why = self.gates("canary")
        if "MX" not in allowed:
            raise LabError(f"all is mended, and the gates do not allow the MX record: {why}")

    def published(self) -> None:
        """Publish the MX record, and see it at both servers."""
        self.do("dns", "publish", "--yes")
        if missing := [server for server in (KNOT, SECONDARY) if not self.exchanger_at(server)]:
            raise LabError(f"dns publish ended well, and there is no MX record: {missing}")
        self.timeline.event("the MX record is in DNS, at both servers", "published")
        self.do("dns", "drift")
        self.do("probe", "roundtrip")

    # ── What it is good for ───────────────────────────────────────────────────────────────────────

    def used(self) -> list[Sent]:
        """Switch the primary off; senders, who know DNS alone, send; it comes back."""
        self.cut_the_primary()
        sent = self.submit(self.name)
        self.fill_the_relay(self.messages)
        self.timeline.event(f"{self.relay.waiting} messages wait on the relay")
        self.restore_the_primary()
        self.drain()
        self.do("status", "mx2")
        return sent

    def known_to(self, server: str) -> bool:
        """Whether a name server has an address for the relay."""
        return any(line.startswith(f"{RELAY}. ") for line in self.zone.records(server))

    def exchanger_at(self, server: str) -> bool:
        """Whether a name server has an MX record that names the relay."""
        return any(line.endswith(f" {RELAY}.") for line in self.zone.records(server))


def loading(readme: str) -> list[str]:
    """Return the commands that a kit's README.md says to load it with."""
    found = _FENCED.search(readme)
    if not found:
        raise LabError("the kit's README.md says nowhere how to load it")
    return found[1].splitlines()


def answered(done: Done) -> dict[str, Any]:
    """Return what a command printed as JSON. Raises LabError where it is none."""
    try:
        return dict(json.loads(done.stdout))
    except ValueError:
        raise LabError(f"{' '.join(done.argv)}: {done.stderr.decode(errors='replace')}") from None


def since(began: float) -> float:
    """Return how many seconds ago that was, on the monotonic clock."""
    return round(time.monotonic() - began, 1)
