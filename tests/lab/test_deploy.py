"""The ways a machine becomes the relay: its first boot, and ssh; and what a stranger sees of it."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
from worlds import fresh_name

from backup_mx.config import Config, parse
from backup_mx.config.values import SshTarget
from backup_mx.errors import MachineError, UnreachableError
from backup_mx.lab import host, image, names, network, settings
from backup_mx.lab.image import ImageSpec
from backup_mx.lab.machine import Machine
from backup_mx.lab.world import World
from backup_mx.machine import cloudinit, ship, tree
from backup_mx.machine.agent import LIBRARY
from backup_mx.machine.apply.files import File
from backup_mx.machine.bundle import bundle, pack, version

pytestmark = pytest.mark.lab

RELAY, BARE = "203.0.113.20", "203.0.113.30"
# As Oracle's Ubuntu images have it: their own rules, loaded at boot, reject all but SSH.
IMAGE_FIREWALL = """[Unit]
Before=network-pre.target
Wants=network-pre.target
[Service]
Type=oneshot
RemainAfterExit=yes
ExecStart=/usr/sbin/iptables -A INPUT -m state --state RELATED,ESTABLISHED -j ACCEPT
ExecStart=/usr/sbin/iptables -A INPUT -i lo -j ACCEPT
ExecStart=/usr/sbin/iptables -A INPUT -p tcp --dport 22 -j ACCEPT
ExecStart=/usr/sbin/iptables -A INPUT -j REJECT
[Install]
WantedBy=multi-user.target
"""
# Ubuntu's image at Oracle, but for the volume, of which there is none here.
ORACLE = f"""
[relay.mx2]
hostname = "mx2.example.org"
address = "{RELAY}"
volume = false
[primary.home]
hostname = "mail.example.org"
drain_to = "mail.example.org:2526"
[domain."example.org"]
[cloud.oci]
tenancy = "ocid1.tenancy.oc1..aaaa"
region = "eu-frankfurt-1"
budget_mail = "me@example.net"
[access]
ssh_keys = ["{{key}}"]
"""


@dataclass(frozen=True)
class Site:
    """A lab, the operator's key and ssh settings, and the config."""

    world: World
    ssh: Path
    config: Config

    @property
    def bare(self) -> Machine:
        """The machine that was not booted from our user-data."""
        return self.world.machine("bare")

    def deploy(
        self, archive: bytes, *, user: str = "root", address: str = BARE, diff: bool = False
    ) -> list[str]:
        """Deploy from outside the machines, with the real ssh; return what was told."""
        said: list[str] = []
        self.deploy_to(archive, said.append, SshTarget(user, address, 22), diff=diff)
        return said

    def deploy_to(
        self, archive: bytes, tell: ship.Tell, target: SshTarget, *, diff: bool = False
    ) -> None:
        """Deploy, telling ``tell``."""
        with network.inside(names.scoped(self.world.name, "net")):
            ship.deploy(ship.SshHost(target, self.ssh), archive, tell, diff=diff)

    def is_open(self, port: int, source: str = "", address: str = BARE) -> bool:
        """Tell whether a TCP port of a machine answers, to the outsider or to ``internet``."""
        if not source:
            try:
                network.connect(self.world.name, address, port, 3).close()
            except OSError:
                return False
            return True
        program = "import socket, sys; socket.create_connection((sys.argv[1], int(sys.argv[2])), 3)"
        argv = ["python3", "-c", program, address, str(port)]
        return self.world.machine(source).run(argv, check=False).returncode == 0


@pytest.fixture(scope="module")
def key(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The operator's SSH key."""
    path = tmp_path_factory.mktemp("ssh") / "key"
    generate = ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(path)]
    subprocess.run(generate, check=True)
    return path


@pytest.fixture(scope="module")
def config(key: Path) -> Config:
    """The config: SSH from one address only."""
    text = f"""
[relay.mx2]
hostname = "mx2.example.org"
address = "{RELAY}"
[primary.home]
hostname = "mail.example.org"
[domain."example.org"]
[access]
ssh_from = ["{network.OUTSIDER}/32"]
ssh_keys = ["{public(key)}"]
"""
    return parse(text, "test")


def public(key: Path) -> str:
    """Return a key's public half."""
    return key.with_suffix(".pub").read_text().strip()


@pytest.fixture(scope="module")
def site(key: Path, config: Config) -> Iterator[Site]:
    """Debian 13 as providers hand it out: one booted from our user-data, one without."""
    ssh = key.with_name("config")
    ssh.write_text(
        f"IdentityFile {key}\nUserKnownHostsFile {key.parent}/known\n"
        "StrictHostKeyChecking accept-new\n"
    )
    world = World(
        fresh_name(),
        members=("internet", "mx2", "bare"),
        user_data=cloudinit.user_data(config, "mx2"),
        relay_image=image.PLAIN_TRIXIE,
        authorized_keys=(public(key),),
    )
    try:
        world.up(print)
        yield Site(world, ssh, config)
    finally:
        world.down()


def applied(machine: Machine) -> str:
    """Return the config version that a machine says it has."""
    found: dict[str, str] = json.loads(machine.run(["cat", "/var/lib/backup-mx/applied.json"]).text)
    return found["version"]


def assert_is_the_relay(machine: Machine, world: World, archive: bytes) -> None:
    """It booted well, greets, is the version it should be, and another run changes nothing."""
    assert machine.run(["cloud-init", "status"]).text.strip() == "status: done"
    with network.connect(world.name, machine.role.addresses[0], 25) as connection:
        assert connection.recv(64).startswith(b"220-mx2.example.org ")
    assert applied(machine) == version(archive)
    again = machine.run(["python3", "/var/lib/backup-mx/relay.pyz"]).text
    assert again.splitlines()[1:] == ["done: nothing to change"]


def test_a_plain_debian_13_boots_into_the_relay(site: Site) -> None:
    """Real user-data, packages from a mirror: after the first boot it is the relay."""
    mx2 = site.world.machine("mx2")
    assert_is_the_relay(mx2, site.world, bundle(site.config, "mx2", agent=False))
    assert (
        public(site.ssh.with_name("key"))
        in mx2.run(["sh", "-c", "cat /home/*/.ssh/authorized_keys"]).text
    )
    # The image lets nobody in as root, as its vendor has it; the config's own `ssh` comes in.
    assert "\ndisable_root: true\n" in mx2.run(["cat", "/etc/cloud/cloud.cfg"]).text
    assert logged_in(site, site.config) == "0"


def logged_in(site: Site, config: Config, user: str = "") -> str:
    """Log in on mx2 as the config says, or as ``user``; return the number of the user one is."""
    target = config.relays["mx2"].ssh
    host = ship.SshHost(replace(target, user=user or target.user), site.ssh)
    with network.inside(names.scoped(site.world.name, "net")):
        return ship.must(host, ["id", "-u"]).strip()


def test_a_plain_debian_12_boots_into_the_relay(
    config: Config, make_world: Callable[[World], World]
) -> None:
    """The same on the older release; its Postfix is started again when it has died."""
    spec: ImageSpec = image.PLAIN_BOOKWORM
    data = cloudinit.user_data(config, "mx2")
    world = make_world(World(user_data=data, relay_image=spec, members=("internet", "mx2")))
    world.up(print)
    mx2 = world.machine("mx2")
    assert_is_the_relay(mx2, world, bundle(config, "mx2", agent=False))
    mx2.run(["sh", "-c", "kill -9 $(cat /srv/backup-mx/spool/pid/master.pid)"])
    told = mx2.run(["python3", "/var/lib/backup-mx/relay.pyz"]).text
    assert "restart: postfix.service" in told.splitlines()


def test_an_unreachable_machine(site: Site) -> None:
    """Nobody there: ssh's own words, exit code 4."""
    with pytest.raises(UnreachableError, match=r"root@203\.0\.113\.99:22 cannot .*ssh: ") as caught:
        site.deploy(b"", address="203.0.113.99")
    assert caught.value.exit_code == 4


def test_an_unknown_machine(site: Site) -> None:
    """A host key that nobody has accepted is not accepted by us."""
    strict = site.ssh.with_name("strict")
    strict.write_text(
        f"IdentityFile {site.ssh.with_name('key')}\nUserKnownHostsFile /dev/null\n"
        "StrictHostKeyChecking ask\n"
    )
    with pytest.raises(UnreachableError, match="log in once by hand to accept its key"):
        replace(site, ssh=strict).deploy(b"")


def test_a_mirror_that_does_not_answer(site: Site) -> None:
    """Packages that do not come are given up in time, with one message, and nothing is changed."""
    internet, bare = site.world.machine("internet"), site.bare
    (bare.root / "root/relay.pyz").write_bytes(bundle(site.config, "mx2", agent=False))
    rule = ["INPUT", "-p", "tcp", "--dport", "80", "-j", "DROP"]
    internet.run(["iptables", "-I", *rule])
    done = bare.run(["python3", "/root/relay.pyz", "--patience", "1"], check=False, timeout=60)
    internet.run(["iptables", "-D", *rule])
    [line] = done.stderr.decode().splitlines()
    assert line.startswith("relay.pyz: packages: given up after 1 s: ")
    assert "Could not connect to mirror.example.net:80" in line
    assert not (bare.root / "etc/backup-mx").exists()


def test_a_user_without_sudo(site: Site) -> None:
    """The words of sudo say what is missing."""
    site.bare.run(["useradd", "-m", "-s", "/bin/bash", "admin"])
    site.bare.run(["cp", "-r", "/root/.ssh", "/home/admin/"])
    site.bare.run(["chown", "-R", "admin:", "/home/admin/.ssh"])
    key = public(site.ssh.with_name("key"))
    (site.bare.root / "home/admin/.ssh/authorized_keys").write_text(key + "\n")
    with pytest.raises(MachineError, match="sudo: a password is required"):
        site.deploy(b"", user="admin")


def mail_layer(site: Site) -> bytes:
    """Return a bundle that has no agent in it, and is for a machine that runs."""
    return pack("mx2", tree.tree(site.config, "mx2", agent=False))


def test_deploy_makes_a_running_machine_the_relay(site: Site) -> None:
    """A user with sudo deploys to a plain Debian with a firewall of its own; then once more."""
    bare, archive = site.bare, mail_layer(site)
    (bare.root / "etc/sudoers.d/admin").write_text("admin ALL=(ALL) NOPASSWD: ALL\n")
    bare.run(["sh", "-c", "apt-get -qq update && apt-get -qq -y install iptables"])
    (bare.root / "etc/systemd/system/image-firewall.service").write_text(IMAGE_FIREWALL)
    bare.run(["systemctl", "enable", "--now", "image-firewall.service"])
    shown = site.deploy(archive, user="admin", diff=True)
    assert "packages to install: logrotate, postfix, postfix-lmdb, unattended-upgrades" in shown
    assert not (bare.root / "etc/backup-mx").exists()
    assert site.deploy(archive, user="admin")[-1] == "done"
    assert site.deploy(archive)[1:] == ["done: nothing to change"]
    assert site.deploy(archive, diff=True) == ["nothing to change"]
    assert_is_the_relay(bare, site.world, archive)
    assert bare.run(["sh", "-c", "ls /tmp/*/relay.pyz"], check=False).returncode


def test_the_firewall_lets_in_what_it_should(site: Site) -> None:
    """Mail from all, SSH from where the config says, no more: in front of the image's rules."""
    assert_firewall(site)
    before = site.bare.run(["iptables", "-S"]).text
    site.bare.run(["systemctl", "reload", "backup-mx-firewall.service"])
    assert site.bare.run(["iptables", "-S"]).text == before
    site.bare.run(["iptables", "-D", "OUTPUT", "-j", "BACKUP-MX-OUT"])
    site.bare.run(["systemctl", "reload", "backup-mx-firewall.service"])
    assert site.bare.run(["iptables", "-S"]).text == before


def test_the_firewall_closes_the_metadata_service(site: Site) -> None:
    """Root may ask for user-data, nobody else may, by no IP; DNS is there for all."""
    assert metadata_asked(site, "169.254.169.254", 0, 65534) == [True, False, True]
    assert metadata_asked(site, "fd00:c1::a9fe:a9fe", 0, 65534) == [True, False, True]


def metadata_asked(site: Site, address: str, *users: int) -> list[bool]:
    """Tell which users reach a metadata service at ``address``, and the last one DNS there."""
    bare = site.bare
    place = [address, "dev", "lo", *["nodad"] * (":" in address)]
    bare.run(["ip", "address", "add", *place])
    listen = ["python3", "-m", "http.server", "--bind", address]
    for port in ("80", "53"):
        bare.run(["systemd-run", "--quiet", f"--unit=metadata-{port}", *listen, port])
    ask = "import socket, sys; socket.create_connection((sys.argv[1], int(sys.argv[2])), 3)"

    def asked(port: int, user: int) -> bool:
        argv = ["setpriv", f"--reuid={user}", "--clear-groups", "python3", "-c", ask, address]
        return bare.run([*argv, str(port)], check=False).returncode == 0

    host.wait_for("both", lambda: asked(80, 0) and asked(53, 0), timeout=60)
    found = [*(asked(80, user) for user in users), asked(53, users[-1])]
    bare.run(["systemctl", "stop", "metadata-80", "metadata-53"])
    bare.run(["ip", "address", "delete", *place[:3]])
    return found


def assert_firewall(site: Site) -> None:
    """The rules are as they should be, and do what they say."""
    lines = site.bare.run(["iptables", "-S", "INPUT"]).text.splitlines()
    assert lines[1:] == [
        "-A INPUT -j BACKUP-MX",
        "-A INPUT -m state --state RELATED,ESTABLISHED -j ACCEPT",
        "-A INPUT -i lo -j ACCEPT",
        "-A INPUT -p tcp -m tcp --dport 22 -j ACCEPT",
        "-A INPUT -j REJECT --reject-with icmp-port-unreachable",
    ]
    listen = "import socket; s = socket.create_server(('', 8080)); s.accept()"
    site.bare.run(["systemd-run", "--quiet", "--unit=listener", "python3", "-c", listen])
    site.bare.listening(8080)
    assert site.is_open(25)
    assert site.is_open(25, "internet")
    assert site.is_open(22)
    assert not site.is_open(22, "internet")
    assert not site.is_open(8080)
    site.bare.run(["systemctl", "stop", "listener"])


def test_the_firewall_is_there_again_after_a_power_cut(site: Site) -> None:
    """What the kernel forgets, the boot brings back, and Postfix with it."""
    site.bare.kill()
    site.bare.boot()
    site.bare.listening(22, 25)
    assert_firewall(site)


def test_an_interrupted_deploy_ends_by_itself(site: Site) -> None:
    """When the operator's side goes away in the midst of it, the machine completes the run."""
    relay = tree.tree(site.config, "mx2", agent=False)
    more = File(Path("/etc/backup-mx/more"), content=b"more\n")
    archive = pack("mx2", replace(relay, files=[*relay.files, more]))

    def leave(line: str) -> None:
        if line.startswith("checks: "):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        site.deploy_to(archive, leave, SshTarget("root", BARE, 22))
    host.wait_for(
        "the run on the machine", lambda: applied(site.bare) == version(archive), timeout=30
    )
    host.wait_for(
        "its end", lambda: not (site.bare.root / "var/lib/backup-mx/undo").exists(), timeout=30
    )
    assert site.deploy(archive)[1:] == ["done: nothing to change"]
    assert "removed: /etc/backup-mx/more" in site.deploy(mail_layer(site))


def agent_is_up(machine: Machine) -> bool:
    """Tell whether a machine's agent runs."""
    active = ["systemctl", "is-active", "--quiet", "backup-mx-agent.service"]
    return machine.run(active, check=False).returncode == 0


def test_an_agent_that_does_not_start_leaves_the_relay_as_it_was(site: Site) -> None:
    """Its words are told; Postfix and all of its files are what user-data made of them."""
    mx2, whole = site.world.machine("mx2"), tree.tree(site.config, "mx2")
    place = Path(LIBRARY) / "backup_mx/relay/agent.py"
    code = b"def main(): raise SystemExit('no agent today')\nif __name__ == '__main__': main()\n"
    others = [file for file in whole.files if file.path != place]
    broken = replace(whole, files=[*others, File(place, content=code)])
    with pytest.raises(MachineError, match=r"(?s)agent\.service does not start: .*no agent today"):
        site.deploy(pack("mx2", broken), user="debian", address=RELAY)
    assert not agent_is_up(mx2)
    assert not mx2.path(str(place)).exists()
    assert_is_the_relay(mx2, site.world, bundle(site.config, "mx2", agent=False))


def test_deploy_adds_the_agent(site: Site) -> None:
    """A deploy brings the agent to a machine that user-data made the relay; another one nothing."""
    mx2, archive = site.world.machine("mx2"), bundle(site.config, "mx2")
    assert not agent_is_up(mx2)
    said = site.deploy(archive, user="debian", address=RELAY)
    assert said[-1] == "done"
    assert agent_is_up(mx2)
    assert applied(mx2) == version(archive)
    assert site.deploy(archive, user="debian", address=RELAY)[1:] == ["done: nothing to change"]


def test_what_a_deploy_takes_away_is_stopped(site: Site) -> None:
    """A relay that is to ask no authority any more has no timer for it left; then it has again."""
    mx2, tls = site.world.machine("mx2"), site.config.tls.model_copy(update={"acme": False})
    without = site.config.model_copy(update={"tls": tls})
    active = ["systemctl", "is-active", "backup-mx-acme.timer"]
    assert mx2.run(active, check=False).text == "active\n"
    said = site.deploy(bundle(without, "mx2"), user="debian", address=RELAY)
    assert "stop: backup-mx-acme.timer, backup-mx-acme@*.service" in said
    assert mx2.run(active, check=False).text == "inactive\n"
    site.deploy(bundle(site.config, "mx2"), user="debian", address=RELAY)
    assert mx2.run(active, check=False).text == "active\n"


def test_ssh_leads_to_the_dashboard_and_nowhere_else(site: Site) -> None:
    """The operator's ssh forwards to the two ports of the agent, by any name of the loopback."""
    mx2 = site.world.machine("mx2")
    listen = ["python3", "-m", "http.server", "--bind", "127.0.0.1", "8025"]
    if not agent_is_up(mx2):
        mx2.run(["systemd-run", "--quiet", "--unit=stand-in", *listen])
    mx2.listening(8025)
    for target in ("localhost:8025", "127.0.0.1:8025"):
        assert b"HTTP/1." in forwarded(site, target), target
    for target in ("localhost:25", "127.0.0.1:22", f"{BARE}:8025", "192.0.2.80:80"):
        assert forwarded(site, target) == b"", target


def forwarded(site: Site, target: str) -> bytes:
    """Return what answers to a request by HTTP through the relay's ssh; nothing where none does."""
    argv = ["ssh", "-F", str(site.ssh), "-o", "BatchMode=yes", "-W", target, f"debian@{RELAY}"]
    with network.inside(names.scoped(site.world.name, "net")):
        done = subprocess.run(
            argv, input=b"GET / HTTP/1.0\r\n\r\n", capture_output=True, timeout=30, check=False
        )
    return done.stdout


def test_user_data_run_again_keeps_what_was_deployed(site: Site) -> None:
    """A machine that cloud-init takes for a new one applies its last bundle, agent included."""
    mx2, archive = site.world.machine("mx2"), bundle(site.config, "mx2")
    mx2.run(["cloud-init", "clean"])
    mx2.poweroff()
    mx2.boot()
    mx2.ready(300)
    assert applied(mx2) == version(archive)
    assert "done: nothing to change" in mx2.run(["cat", "/var/log/cloud-init-output.log"]).text
    host.wait_for("the agent", lambda: agent_is_up(mx2), timeout=60)


def test_an_operator_with_a_new_machine_at_oracle_gets_in(site: Site) -> None:
    """Ubuntu's image lets in ubuntu, who is the default there, and tells root's key to ask for him.

    It is Debian's image here, with the name that Ubuntu's has. Where the config names another port
    than sshd's, the way in that there is stays open.
    """
    text = ORACLE.format(key=public(site.ssh.with_name("key")))
    oracle = settings.write(site.world.name, text)
    site.world.renew(print)
    mx2 = site.world.machine("mx2")
    named = "system_info: { default_user: { name: ubuntu } }\n"
    (mx2.root / "etc/cloud/cloud.cfg.d/91_ubuntu.cfg").write_text(named)
    mx2.boot()
    mx2.ready(300)
    site.ssh.with_name("known").unlink(missing_ok=True)
    assert logged_in(site, oracle) == "0"
    with pytest.raises(MachineError, match=r"nobody in as root.* \"ubuntu@203\.0\.113\.20:22\""):
        logged_in(site, oracle, "root")
    said = site.deploy(bundle(oracle, "mx2"), user="ubuntu", address=RELAY)
    assert said[-1] == "done"
    relay = oracle.relays["mx2"]
    moved = relay.model_copy(update={"ssh": replace(relay.ssh, port=2222)})
    elsewhere = oracle.model_copy(update={"relays": {"mx2": moved}})
    site.deploy(bundle(elsewhere, "mx2"), user="ubuntu", address=RELAY)
    assert "--dport 2222 " in mx2.run(["iptables", "-S", "BACKUP-MX"]).text
    assert site.is_open(22, address=RELAY)
    assert logged_in(site, oracle) == "0"
