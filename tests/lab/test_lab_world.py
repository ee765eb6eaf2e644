"""What the machines of a lab do together, seen from the machines."""

from __future__ import annotations

import errno
import re
import stat
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import pytest

from backup_mx.errors import LabError
from backup_mx.lab import host, image, names, network
from backup_mx.lab.drills.base import now_and_then
from backup_mx.lab.machine import Machine
from backup_mx.lab.stations import Sender
from backup_mx.lab.world import World, attach

pytestmark = pytest.mark.lab

EVERYWHERE = pytest.mark.parametrize("name", ["internet", "edge", "primary", "mx2"])


def test_other_users_of_the_host_stay_out(world: World) -> None:
    """Neither the machines' disks nor the images can be reached without root."""
    for folder in (names.LABS, image.images()):
        assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    assert world.machine("mx2").root.is_relative_to(names.LABS)


def eventually(what: str, ready: Callable[[], bool]) -> None:
    """Wait for what the lab does by itself in its own time."""
    host.wait_for(what, ready, timeout=60)


def arrives(world: World, ready: Callable[[], bool]) -> None:
    """Wait for mail; what is put off is tried again now and then, not after minutes."""
    retry = Sender(world.machine("internet")).retry
    eventually("the mail", now_and_then(retry, ready))


def dig(machine: Machine, *words: str) -> list[str]:
    """Ask the machine's resolver and return the short answers, sorted."""
    return sorted(machine.run(["kdig", "+short", *words]).text.split("\n")[:-1])


def imap_bodies(world: World, user: str) -> str:
    """Fetch a mailbox over IMAP with a mail client on the LAN, and return everything in it."""
    script = (
        "import imaplib, sys\n"
        f"box = imaplib.IMAP4('10.0.10.10'); box.login('{user}', 'lab'); box.select()\n"
        "for number in box.search(None, 'ALL')[1][0].split():\n"
        "    sys.stdout.buffer.write(box.fetch(number, '(RFC822)')[1][0][1])\n"
    )
    return world.machine("edge").run(["python3", "-c", script]).text


def send(world: World, recipient: str, token: str, sender: str = "someone@example.net") -> None:
    """Hand a mail to the internet's MTA."""
    mail = f"From: {sender}\nTo: {recipient}\nSubject: {token}\n\nbody of {token}\n"
    argv = ["sendmail", "-f", sender, recipient]
    world.machine("internet").run(argv, stdin=mail.encode())


def test_every_machine_is_running_with_its_address(world: World) -> None:
    """A lab that is up tells of each machine that it runs, where, as which process, since when."""
    status = {row.machine: row for row in world.status()}
    assert {name: row.address for name, row in status.items()} == {
        "internet": "192.0.2.25",
        "edge": "198.51.100.10",
        "primary": "10.0.10.10",
        "mx2": "203.0.113.20",
    }
    assert all(row.state == "running" and row.pid and row.since for row in status.values())


@EVERYWHERE
def test_no_unit_fails(world: World, name: str) -> None:
    """Each machine boots without a unit that fails."""
    machine = world.machine(name)
    assert machine.run(["systemctl", "--failed", "--no-legend"]).text == ""


@EVERYWHERE
def test_names_resolve_both_ways(world: World, name: str) -> None:
    """Every machine finds the MX set, the addresses and the names of the addresses."""
    machine = world.machine(name)
    assert dig(machine, "example.org", "MX") == ["10 mail.example.org.", "20 mx2.example.org."]
    assert dig(machine, "mx2.example.org") == ["203.0.113.20"]
    assert dig(machine, "-x", "192.0.2.25") == ["mta.example.net."]
    assert dig(machine, "-x", "203.0.113.20") == [], "a free machine has no name"


def test_the_block_list_lists_one_address(world: World) -> None:
    """The DNSBL lists 192.0.2.66 and the test entry, and not the sender."""
    machine = world.machine("mx2")
    assert dig(machine, "66.2.0.192.dnsbl.example.net") == ["127.0.0.2"]
    assert dig(machine, "2.0.0.127.dnsbl.example.net") == ["127.0.0.2"]
    assert dig(machine, "25.2.0.192.dnsbl.example.net") == []


def test_a_name_outside_the_lab_does_not_exist(world: World) -> None:
    """The resolver answers NXDOMAIN for the rest of the world without asking it."""
    answer = world.machine("mx2").run(["kdig", "+time=2", "+retry=0", "www.example.com"]).text
    assert "status: NXDOMAIN" in answer


def test_cloud_init_sets_the_relay_up(world: World) -> None:
    """mx2 is what its user-data says, commands included."""
    mx2 = world.machine("mx2")
    assert (mx2.root / "root/run").read_text() == "by cloud-init"
    assert mx2.run(["cloud-init", "status"]).text.strip() == "status: done"


def test_mail_finds_the_mailbox_by_mx(world: World) -> None:
    """A mail handed to the sender's MTA is in its recipient's mailbox, over TLS by MX."""
    send(world, "alice@example.org", "direct-1")
    arrives(world, lambda: "direct-1" in imap_bodies(world, "alice@example.org"))
    fetched = imap_bodies(world, "alice@example.org")
    assert re.search(r"from mta\.example\.net \(mta\.example\.net \[192\.0\.2\.25\]\)", fetched)
    assert "using TLSv1.3" in fetched


def test_postmaster_is_read_by_alice(world: World) -> None:
    """Mail for postmaster reaches alice."""
    send(world, "postmaster@example.org", "postmaster-1")
    arrives(world, lambda: "postmaster-1" in imap_bodies(world, "alice@example.org"))


def test_an_unknown_recipient_bounces_to_the_sender(world: World) -> None:
    """The primary refuses whom it does not know, and the bounce can be read at the sender."""
    send(world, "nobody@example.org", "unknown-1")
    internet = world.machine("internet")
    found = ["grep", "-rl", "550 5.1.1 <nobody@example.org>", "/srv/mail/example.net"]
    arrives(world, lambda: internet.run(found, check=False).returncode == 0)


def test_nobody_reaches_the_lan_from_outside(world: World) -> None:
    """The primary has no address on the Internet, and the drain's port is closed to strangers."""
    program = "import socket, sys; socket.create_connection((sys.argv[1], int(sys.argv[2])), 2)"
    internet = world.machine("internet")
    for address, port in (("10.0.10.10", 10025), ("10.0.10.10", 143), ("198.51.100.10", 2526)):
        tried = internet.run(["python3", "-c", program, address, str(port)], check=False)
        assert tried.returncode != 0, f"{address} port {port} answered"


def test_the_lan_goes_out_by_the_edges_address(world: World) -> None:
    """What the primary asks of the Internet comes from the operator's one public address."""
    internet, port = world.machine("internet"), 7777
    listen = (
        "import socket\n"
        f"server = socket.create_server(('192.0.2.80', {port})); server.settimeout(15)\n"
        "print(server.accept()[1][0])\n"
    )
    knock = f"import socket; socket.create_connection(('192.0.2.80', {port}), 5)"
    with ThreadPoolExecutor() as pool:
        heard = pool.submit(internet.run, ["python3", "-c", listen])
        internet.listening(port)
        world.machine("primary").run(["python3", "-c", knock])
    assert heard.result().text == "198.51.100.10\n"


def test_the_edge_hangs_up_while_the_primary_is_off(world: World) -> None:
    """A proxy with nobody behind it takes the connection and ends it without a word."""
    primary = world.machine("primary")
    primary.kill()
    with network.connect(world.name, "198.51.100.10", 25) as connection:
        assert connection.recv(4) == b""
    primary.boot()
    primary.ready()
    with network.connect(world.name, "198.51.100.10", 25) as connection:
        assert connection.recv(4) == b"220-"


def test_a_machine_without_power_is_unreachable_at_once(world: World) -> None:
    """Nobody answers for a machine that is off; switched on it has its files, as written."""
    edge = world.machine("edge")
    (edge.root / "root/kept").write_text("before the cut")
    edge.run(["sh", "-c", "echo inside > /root/kept-inside"])
    edge.kill()
    assert edge.running is None
    with pytest.raises(OSError) as caught:
        network.connect(world.name, "198.51.100.10", 25, timeout=30.0)
    assert caught.value.errno == errno.EHOSTUNREACH, "a refusal would be a sign of life"
    assert [row.state for row in world.status()] == ["running", "off", "running", "running"]
    edge.boot()
    edge.ready()
    assert edge.run(["cat", "/root/kept", "/root/kept-inside"]).text == "before the cutinside\n"


def test_firewall_rules_do_not_survive_a_power_cut(world: World) -> None:
    """What lives in the kernel, like iptables' rules, is gone after a power cut."""
    mx2 = world.machine("mx2")
    mx2.run(["iptables", "-A", "INPUT", "-p", "tcp", "--dport", "9", "-j", "ACCEPT"])
    assert "--dport 9 " in mx2.run(["iptables", "-S"]).text
    mx2.kill()
    mx2.boot()
    mx2.ready()
    assert "--dport 9 " not in mx2.run(["iptables", "-S"]).text


def test_a_machine_powers_off_in_good_order(world: World) -> None:
    """An orderly shutdown stops the services, and the machine boots again."""
    primary = world.machine("primary")
    primary.poweroff()
    assert primary.running is None
    assert "terminating on signal 15" in (primary.root / "var/log/mail.log").read_text()
    primary.boot()
    primary.ready()


def test_a_command_that_hangs_is_ended(world: World) -> None:
    """A command gets the time it was given, and then nothing of it remains."""
    mx2 = world.machine("mx2")
    with pytest.raises(LabError, match="sleep 4711 did not end within 1 s in mx2"):
        mx2.run(["sleep", "4711"], timeout=1.0)
    gone = ["pgrep", "-f", "^sleep 4711"]
    eventually("sleep to go", lambda: mx2.run(gone, check=False).returncode == 1)


def test_a_command_that_fails_says_why(world: World) -> None:
    """The error of a failed command carries its status and its words; unchecked, they return."""
    mx2 = world.machine("mx2")
    with pytest.raises(LabError, match=r"ended with 2 in mx2: ls: cannot access '/nowhere'"):
        mx2.run(["ls", "/nowhere"])
    done = mx2.run(["cat"], stdin=b"\xff\x00through", check=False)
    assert (done.returncode, done.stdout) == (0, b"\xff\x00through")


def test_a_running_lab_is_not_started_twice(world: World) -> None:
    """Bringing up a lab that runs is refused and leaves it alone."""
    before = world.status()
    with pytest.raises(LabError, match=f"lab {world.name} is already running"):
        World(world.name).up(print)
    assert world.status() == before


def test_another_process_finds_the_lab_by_name(world: World) -> None:
    """attach() sees the same machines, without anything having been written down for it."""
    assert [row.machine for row in attach(world.name).status()] == [*world.members]


def test_two_labs_run_side_by_side(world: World, make_world: Callable[[World], World]) -> None:
    """A second lab has the same addresses, and neither sees the other."""
    other = make_world(World(members=("primary",)))
    other.up(print)
    (other.machine("primary").root / "root/other").touch()
    assert not (world.machine("primary").root / "root/other").exists()
    other.machine("primary").run(["systemctl", "stop", "postfix"])
    with network.connect(world.name, "198.51.100.10", 25) as connection:
        assert connection.recv(4) == b"220-"
    other.down()
    assert all(row.state == "running" for row in world.status())
