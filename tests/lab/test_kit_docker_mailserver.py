"""The kit for docker-mailserver, on the lab's primary, put in place as that image does it.

At each start the image lays its operator's postfix-main.cf over its own main.cf, writes the outcome
anew, runs user-patches.sh with bash, and starts the daemons; the folder that all this comes from is
mounted at /tmp/docker-mailserver.
"""

from __future__ import annotations

from collections.abc import Iterator

import kits
import pytest
from kits import Letter, drain, filed
from worlds import fresh_name

from backup_mx import config
from backup_mx.kit import primary
from backup_mx.kit.files import KitFile
from backup_mx.lab.machine import Machine
from backup_mx.lab.world import World, standard

MOUNTED = "/tmp/docker-mailserver"
MAIN = "/etc/postfix/main.cf"
DAEMONS = ("postfix.service", "rspamd.service")
OVERRIDE = b"""
if [ -f /tmp/docker-mailserver/postfix-main.cf ]; then
  cat /tmp/docker-mailserver/postfix-main.cf >>/etc/postfix/main.cf
  postconf -n >/tmp/postfix-main-new.cf 2>/dev/null
  mv /tmp/postfix-main-new.cf /etc/postfix/main.cf
fi
"""


@pytest.fixture(scope="module")
def files() -> tuple[KitFile, ...]:
    """The kit for a relay in a tunnel."""
    text = kits.CONFIG.replace("drain_to", 'kit = "docker-mailserver"\ndrain_to')
    return primary.render(config.parse(text, "the test's"), "home")


@pytest.fixture(scope="module")
def world() -> Iterator[World]:
    """A hostile primary without a kit."""
    made = standard(fresh_name(), kit=False)
    try:
        made.up(print)
        yield made
    finally:
        made.down()


def mount(machine: Machine, files: tuple[KitFile, ...], own: bytes = b"") -> None:
    """Put the operator's folder there: the kit's part and an own postfix-main.cf."""
    given = {file.path: file.content for file in files if file.path.startswith("config/")}
    for path, content in {**given, "config/postfix-main.cf": own}.items():
        # Its /tmp is a file system of its own, which the host does not see.
        target = f"{MOUNTED}/{path.removeprefix('config/')}"
        machine.run(["mkdir", "-p", target.rpartition("/")[0]])
        machine.run(["tee", target], stdin=content)


def start(machine: Machine) -> str:
    """Start the container, for the first time or again; return what user-patches.sh said."""
    machine.run(["systemctl", "stop", *DAEMONS])
    machine.run(["sh"], stdin=OVERRIDE)
    patches = f"ENABLE_RSPAMD=1 exec /bin/bash {MOUNTED}/user-patches.sh"
    done = machine.run(["sh", "-c", patches])
    machine.run(["systemctl", "start", *DAEMONS])
    machine.ready()
    return done.text + done.stderr.decode()


@pytest.mark.long
def test_it_holds_over_restarts(world: World, files: tuple[KitFile, ...]) -> None:
    """Started, restarted, and started under overrides of the operator's, it lets mail through."""
    machine = world.machine("primary")
    mount(machine, files)
    assert "changed /etc/postfix/main.cf" in start(machine)
    first = machine.path(MAIN).read_text()
    assert "not applied" not in start(machine)
    # The image sorts it.
    assert sorted(machine.path(MAIN).read_text().splitlines()) == sorted(first.splitlines())
    own = b"smtpd_client_restrictions = reject_unknown_client_hostname\nmail_name = Own\n"
    mount(machine, files, own)
    assert "changed /etc/postfix/main.cf" in start(machine)
    text = machine.path(MAIN).read_text()
    assert "relays.cidr, reject_unknown_client_hostname\n" in text
    assert text.count("backup-mx/relays.cidr") == 2
    again = start(machine)
    assert "not applied" not in again
    assert machine.path(MAIN).read_text() == text

    spam = Letter(header="X-Lab-Weight: 14\n")
    assert {drain(world, letter) for letter in (Letter(), spam)} == {"250"}
    assert filed(world, spam).folder == "Junk"


@pytest.mark.long
def test_a_config_map_is_as_good_as_a_folder(world: World, files: tuple[KitFile, ...]) -> None:
    """A mounted ConfigMap is read-only and made of symbolic links: the kit applies from it."""
    machine = world.machine("primary")
    mount(machine, files)
    machine.run(["sh", "-c", f"cd {MOUNTED} && rm -rf map && mkdir map && mv backup-mx map/..data"])
    links = "mkdir backup-mx && for f in map/..data/*; do ln -s ../$f backup-mx/; done"
    machine.run(["sh", "-c", f"cd {MOUNTED} && {links} && ln -s ../map/..data backup-mx/..data"])
    kit = f"{MOUNTED}/backup-mx/backup-mx-kit"
    machine.run(["sh", kit, "undo"])
    machine.run(["chmod", "-R", "a-w", f"{MOUNTED}/map"])
    assert "not applied" not in start(machine)
    assert "missing" not in machine.run(["sh", kit, "status"]).text
    assert drain(world, Letter()) == "250"
