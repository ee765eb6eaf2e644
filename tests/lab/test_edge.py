"""The edge kits nftables and haproxy, on the lab's router, by the words of their README.md."""

from __future__ import annotations

import re
import socket
from collections.abc import Iterator

import pytest
from worlds import fresh_name

from backup_mx.kit.edge import render
from backup_mx.lab import host, layout, names, network
from backup_mx.lab.machine import Machine
from backup_mx.lab.world import World, standard

pytestmark = pytest.mark.lab

RELAY = "203.0.113.20"
DRAIN = 2526
_PATIENCE = 15.0  # seconds: postscreen lets a new client wait for two


@pytest.fixture(scope="module")
def world() -> Iterator[World]:
    """The standard world; what the primary does with the mail is no matter here."""
    made = standard(fresh_name(), kit=False)
    try:
        made.up(print)
        yield made
    finally:
        made.down()


@pytest.fixture
def edge(world: World) -> Machine:
    """The router, with the kits rendered to /root/KIND as the operator would have copied them."""
    machine = world.machine("edge")
    for kind in ("nftables", "haproxy"):
        for file in render(world.made_from, kind):
            place = machine.path(f"/root/{kind}/{file.path}")
            place.parent.mkdir(parents=True, exist_ok=True)
            place.write_bytes(file.content)
    return machine


def follow(edge: Machine, kind: str, heading: str) -> None:
    """Do what a section of a kit's README.md says, command by command."""
    readme = edge.path(f"/root/{kind}/README.md").read_text()
    found = re.search(rf"## {heading}\n.*?```\n(.*?)```", readme, re.DOTALL)
    assert found
    edge.run(["env", f"--chdir=/root/{kind}", "sh", "-e", "-x"], stdin=found[1].encode())


def ruleset(edge: Machine) -> str:
    return edge.run(["nft", "list", "ruleset"]).text


def greeting(world: World, machine: str, address: str = layout.EDGE) -> bytes:
    """Return what the drain's port says first to a machine of the lab."""
    with network.inside(names.scoped(world.name, machine)):
        wire = socket.create_connection((address, DRAIN), 3.0)
    with wire:
        wire.settimeout(_PATIENCE)
        return wire.recv(512)


def reached(world: World) -> bool:
    """Whether the relay reaches the primary at the drain's port."""
    try:
        return greeting(world, "mx2").startswith(b"220")
    except OSError:
        return False


@pytest.mark.usefixtures("edge")
def test_the_relay_gets_through(world: World) -> None:
    """At the drain's port the primary greets the relay, and knows it by its own address."""
    log = world.machine("primary").path(world.machine("primary").role.mail_log)
    seen = log.stat().st_size
    assert greeting(world, "mx2").startswith(b"220")
    host.wait_for(
        "the primary's log to name the relay",
        lambda: f"CONNECT from [{RELAY}]" in log.read_text()[seen:],
        timeout=60,
    )


def test_another_address_does_not_get_through(world: World, edge: Machine) -> None:
    """To a stranger the port is closed; where the router lets him in, the proxy hangs up."""
    with pytest.raises(OSError, match="timed out"):
        greeting(world, "internet")
    edge.run(["nft", "insert", "rule", "inet", "filter", "input", "tcp", "dport", "2526", "accept"])
    try:
        assert greeting(world, "internet") == b""
    except ConnectionResetError:
        pass
    finally:
        edge.run(["systemctl", "reload", "nftables"])
    assert reached(world)


def test_the_programs_have_nothing_to_say_against_the_files(edge: Machine) -> None:
    """Both files pass their programs' own checks, haproxy's without a warning."""
    edge.run(["nft", "-c", "-f", "/etc/nftables.d/backup-mx.nft"])
    files = ["-f", "/etc/haproxy/haproxy.cfg", "-f", "/etc/haproxy/backup-mx.cfg"]
    checked = edge.run(["haproxy", "-c", *files])
    assert b"WARNING" not in checked.stdout + checked.stderr


@pytest.mark.parametrize("kind", ["nftables", "haproxy"])
def test_loading_twice_is_loading_once(world: World, edge: Machine, kind: str) -> None:
    """A kit that is loaded already can be loaded again: nothing differs."""
    before = ruleset(edge)
    follow(edge, kind, "Load")
    follow(edge, kind, "Load")
    assert ruleset(edge) == before
    host.wait_for("the relay to get through", lambda: reached(world), timeout=60)


def test_a_reload_of_the_router_s_own_rules_keeps_ours(world: World, edge: Machine) -> None:
    """The operator's file begins by flushing all; the kit's drop-in loads ours after it."""
    before = ruleset(edge)
    edge.run(["systemctl", "reload", "nftables"])
    assert ruleset(edge) == before
    assert reached(world)


@pytest.mark.parametrize("kind", ["nftables", "haproxy"])
def test_an_undone_kit_leaves_the_router_as_it_was(world: World, edge: Machine, kind: str) -> None:
    """Without the kit the relay is shut out, and the operator's own configuration is untouched."""
    before, files = ruleset(edge), configuration(edge)
    follow(edge, kind, "Undo")
    assert not reached(world)
    with network.connect(world.name, layout.EDGE, 25) as wire:  # the operator's own way in
        wire.settimeout(_PATIENCE)
        assert wire.recv(3) == b"220"
    without, left = ruleset(edge), configuration(edge)
    edge.run(["systemctl", "restart", "nftables"])
    assert ruleset(edge) == without
    assert ("backup_mx" in without) == (kind == "haproxy")
    ours = {path for path in files if path not in left}
    assert ours == {
        path.removeprefix("files")
        for path in (file.path for file in render(world.made_from, kind))
        if path.startswith("files/")
    }
    assert all(files[path] == content for path, content in left.items())
    follow(edge, kind, "Load")
    assert (ruleset(edge), configuration(edge)) == (before, files)
    host.wait_for("the relay to get through", lambda: reached(world), timeout=60)


def configuration(edge: Machine) -> dict[str, str]:
    """Return the files below /etc that the kits have to do with, with a hash of each."""
    folders = ["/etc/haproxy", "/etc/nftables.conf", "/etc/systemd/system"]
    there = [*folders, *(["/etc/nftables.d"] if edge.path("/etc/nftables.d").exists() else [])]
    listed = edge.run(["find", *there, "-type", "f", "-exec", "sha256sum", "{}", "+"]).text
    return {path: digest for digest, path in (line.split("  ") for line in listed.splitlines())}
