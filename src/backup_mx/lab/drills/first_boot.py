"""The drill ``first-boot``: what goes wrong when a new machine boots, all of it, one after another.

For each release that a relay may run, its machine is destroyed and a plain one boots from its
user-data. What it asks for comes late, and wrong at first; it has to become the relay unaided.

The machines of a lab share their host's clock, so none of them can be slow: what stands for it is a
mirror whose Release file is of tomorrow. It is what apt makes of a slow clock (``not valid yet``)
that is tried, not the machine's own time service.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import re
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

from backup_mx.errors import LabError
from backup_mx.lab import host, image, names, network
from backup_mx.lab.drills.base import Drill
from backup_mx.lab.host import wait_for
from backup_mx.lab.image import ImageSpec
from backup_mx.lab.reconcile import Sent

RELEASES = {
    "Debian 12": image.PLAIN_BOOKWORM,
    "Debian 13": image.PLAIN_TRIXIE,
    "Ubuntu 24.04": image.PLAIN_NOBLE,
}
REPORT = "/var/lib/backup-mx/first-boot.json"
OUTPUT = "/var/log/cloud-init-output.log"
READY_SECONDS = 300.0
TRIES_SECONDS = 120.0
MIRROR_UNIT = "lab-mirror.service"
LOCK_UNIT = "apt-daily-of-the-lab.service"
# As unattended-upgrades does at a machine's first boot (dpkg(1), fcntl's lock).
LOCK = (
    "import fcntl, time; file = open('/var/lib/dpkg/lock-frontend', 'w');"
    " fcntl.lockf(file, fcntl.LOCK_EX); time.sleep(600)"
)
# A mirror in its bad hour: it is busy once, and then breaks off in the middle of whatever is asked.
BAD_MIRROR = """
from http.server import BaseHTTPRequestHandler, HTTPServer
class Bad(BaseHTTPRequestHandler):
    busy = 1
    def do_GET(self):
        if Bad.busy:
            Bad.busy -= 1
            return self.send_error(503)
        self.send_response(200)
        self.send_header("Content-Length", "1000")
        self.end_headers()
        self.wfile.write(b"Date: ")
HTTPServer(("192.0.2.80", 80), Bad).serve_forever()
"""
# Each apt has words of its own for that ("Undetermined Error"), of which these are none.
BROKEN_OFF = "Release +(?!503|Could not connect)"
BAD_MIRROR_UNIT = "lab-mirror-bad.service"
# debconf's answers, of which it locks the file while it is at work (flock(2)).
ANSWERS = "var/cache/debconf/config.dat"
# debconf would ask everything, on a terminal that is not there.
DEBCONF = "debconf debconf/frontend select Dialog\ndebconf debconf/priority select low\n"
# The rules that Oracle's Ubuntu images load at boot.
IMAGE_RULES = (
    ("-m", "state", "--state", "RELATED,ESTABLISHED", "-j", "ACCEPT"),
    ("-i", "lo", "-j", "ACCEPT"),
    ("-p", "tcp", "--dport", "22", "-j", "ACCEPT"),
    ("-j", "REJECT"),
)
_COMPLAINT = re.compile(r"^packages: not yet \((.*)\); trying again$", re.MULTILINE)


def at_hand() -> list[str]:
    """Return the releases that can be had on this host: Ubuntu's needs Ubuntu's signing keys."""
    return [
        name
        for name, spec in RELEASES.items()
        if spec is not image.PLAIN_NOBLE or image.UBUNTU_KEYS.exists()
    ]


@dataclass
class FirstBoot(Drill):
    """The drill ``first-boot``.

    offline is how many seconds the network is late by, releases which plain machines boot. Mail
    that came while the primary is off then has to be delivered by each of them.
    """

    name = "first-boot"
    summary = "plain machines boot without network, mirror, the right time: each becomes the relay"
    default_messages = 20
    offline: float = 90.0
    releases: Sequence[str] = field(default_factory=at_hand)

    def rehearse(self, pool: Executor) -> tuple[list[Sent], list[str]]:
        """Boot one machine after the other, and have each keep mail; the last one stays."""
        self.mailboxes.empty()
        had_agent = self.agent.installed
        sent: list[Sent] = []
        failures: list[str] = []
        for release in self.releases:
            try:
                self.boot_anew(release, RELEASES[release])
                self.check_the_report(release)
                sent += self.keep_mail(pool, release)
            except LabError as error:
                self.timeline.event(f"given up: {error}")
                failures.append(f"{release}: {error}")
                break
        if had_agent and not failures:
            self.world.deploy(self.tell)
        return sent, failures

    def boot_anew(self, release: str, spec: ImageSpec) -> None:
        """Boot a plain machine among all that can go wrong. Raises LabError."""
        replace(self.world, relay_image=spec).renew(lambda _: None)
        machine = self.relay.machine
        root = str(machine.root)
        host.call(["chroot", root, "debconf-set-selections"], stdin=DEBCONF)
        internet = self.sender.machine
        internet.run(["systemctl", "stop", MIRROR_UNIT])
        began = time.monotonic()
        with locked(machine.root / ANSWERS):
            machine.boot()
            network.unplug(self.world.name, machine.name)
            self.reject_all_but_ssh()
            self.timeline.event(f"a plain {release} boots; debconf is locked, no network", "boot")
            self.until_missed("config.dat is locked", 1)
        self.timeline.event("debconf is free")
        self.be_late(internet.root / "srv/mirror" / spec.release / "Release", began)
        machine.ready(READY_SECONDS)
        machine.listening(25)
        seconds = round(time.monotonic() - began, 1)
        self.figures[f"{release}: from power on to the relay, s"] = seconds
        self.timeline.event(f"{release} is the relay, {seconds} s after power on", "relay")

    def be_late(self, release_file: Path, began: float) -> None:
        """Bring network, mirror, time and lock about, one after another, each seen to be missed."""
        internet, machine = self.sender.machine, self.relay.machine
        self.until_missed("(?i)resolv", 1)
        late = began + self.offline
        wait_for("the network's time", lambda: time.monotonic() > late, timeout=self.offline + 1)
        network.unplug(self.world.name, machine.name, plugged=True)
        self.timeline.event(f"the network is there; {len(self.missed(''))} tries had none")
        self.until_missed("Could not connect|refused|Failed to fetch", 2)
        self.answer_badly()
        right = release_file.read_text()
        release_file.write_text(f"Date: {tomorrow()}\n{right}")
        internet.run(["systemctl", "start", MIRROR_UNIT])
        self.timeline.event("the mirror is there, and of tomorrow: the machine's clock is slow")
        self.until_missed("not valid yet", 1)
        lock = ["systemd-run", "--quiet", f"--unit={LOCK_UNIT}", "python3", "-c", LOCK]
        machine.run(lock)
        release_file.write_text(right)
        self.timeline.event("the time is right; somebody else installs packages")
        self.until_missed("lock", 1)
        machine.run(["systemctl", "stop", LOCK_UNIT])
        self.timeline.event("nobody else does any more")

    def answer_badly(self) -> None:
        """Have the mirror be busy, then break off; both are seen to be missed."""
        internet = self.sender.machine
        unit = f"--unit={BAD_MIRROR_UNIT}"
        internet.run(["systemd-run", "--quiet", unit, "python3", "-c", BAD_MIRROR])
        self.timeline.event("the mirror is busy, and then breaks off")
        self.until_missed("503", 1)
        self.until_missed(BROKEN_OFF, 1)
        self.timeline.event(f"apt says of what breaks off: {self.missed(BROKEN_OFF)[-1]}")
        internet.run(["systemctl", "stop", BAD_MIRROR_UNIT])

    def tell(self, step: str) -> None:
        """Put a step of a deploy's on the timeline."""
        self.timeline.event(step)

    def reject_all_but_ssh(self) -> None:
        """Load an image's own firewall, with the lab's iptables: a plain Debian brings none."""
        scoped = names.scoped(self.world.name, self.relay.machine.name)
        inside = ["ip", "netns", "exec", scoped, "chroot", str(self.sender.machine.root)]
        for rule in IMAGE_RULES:
            host.call([*inside, "iptables", "-A", "INPUT", *rule])

    def missed(self, words: str) -> list[str]:
        """Return the complaints about packages that the machine has told, those with ``words``."""
        output = self.relay.machine.path(OUTPUT)
        told = output.read_text(errors="replace") if output.exists() else ""
        return [complaint for complaint in _COMPLAINT.findall(told) if re.search(words, complaint)]

    def until_missed(self, words: str, times: int) -> None:
        """Wait until the machine has complained of something so many times more."""
        before = len(self.missed(words))
        wait_for(
            f"the machine to miss something ({words})",
            lambda: len(self.missed(words)) >= before + times,
            timeout=TRIES_SECONDS,
            dead=lambda: "" if self.relay.machine.running else "it is off",
        )

    def check_the_report(self, release: str) -> None:
        """Read the machine's report of its first boot. Raises LabError when it tells otherwise."""
        steps = {
            step["step"]: step
            for step in json.loads(self.relay.machine.path(REPORT).read_text())["steps"]
        }
        self.figures[f"{release}: tries to install packages"] = steps["packages"]["tries"]
        bad = [name for name, step in steps.items() if step["outcome"] != "ok"]
        if bad or steps["packages"]["tries"] <= len(self.missed("")):
            raise LabError(f"the first boot's report does not tell what happened: {steps}")

    def keep_mail(self, pool: Executor, release: str) -> list[Sent]:
        """Have it keep mail through a short outage. Raises LabError when that fails."""
        self.cut_the_primary(empty=False)
        sending = pool.submit(self.submit, f"{self.name}-{release.split()[-1]}")
        try:
            self.fill_the_relay(self.messages)
            self.timeline.event(f"{self.relay.waiting} messages wait on {release}")
        finally:
            self.restore_the_primary()
            sent = sending.result()
        self.drain()
        return sent


@contextlib.contextmanager
def locked(path: Path) -> Iterator[None]:
    """Hold a lock on a file as debconf does, whoever else may want it."""
    with path.open("r+") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def tomorrow() -> str:
    """Return this time of tomorrow as a Release file writes it."""
    return f"{datetime.now(UTC) + timedelta(days=1):%a, %d %b %Y %H:%M:%S} UTC"
