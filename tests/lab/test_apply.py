"""What relay.pyz does to a machine, also when everything goes wrong: on a real one."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator
from dataclasses import dataclass, replace
from importlib import resources
from pathlib import Path

import pytest
from worlds import fresh_name

from backup_mx.config import load
from backup_mx.lab import image
from backup_mx.lab.machine import Done, Machine
from backup_mx.lab.world import World
from backup_mx.machine import tree as trees
from backup_mx.machine.apply.files import File, Service
from backup_mx.machine.bundle import pack
from backup_mx.machine.tree import Tree

pytestmark = pytest.mark.lab

UNITS = [service.unit for service in trees.SERVICES]
LOOK = """
import hashlib, json, os, stat
seen = {}
for top in ("/etc", "/srv", "/var/lib/backup-mx"):
    for folder, folders, files in os.walk(top):
        for name in folders + files:
            if name == "first-boot.json": continue  # tells of a first run, failed or not
            path = os.path.join(folder, name)
            it = os.lstat(path)
            regular = stat.S_ISREG(it.st_mode) and not path.startswith("/srv/")
            what = hashlib.sha256(open(path, "rb").read()).hexdigest() if regular else ""
            seen[path] = [it.st_mode, it.st_uid, it.st_gid, it.st_mtime_ns * regular, what]
print(json.dumps(seen))
"""
# Run the archive into a full pipe, so that it stands still in the midst of telling what it has
# written; signal it there, then listen to the rest.
STANDSTILL = """
import fcntl, os, signal, subprocess, sys, time
number, archive, then = int(sys.argv[1]), sys.argv[2], sys.argv[3:]
ours, theirs = os.pipe()
room = fcntl.fcntl(theirs, fcntl.F_SETPIPE_SZ, 4096)
os.write(theirs, b"." * (room - 300))
run = subprocess.Popen(["python3", archive], stdout=theirs, stderr=subprocess.PIPE, text=True)
os.close(theirs)
for _ in range(1200):
    if "pipe_write" in open(f"/proc/{run.pid}/wchan").read(): break
    time.sleep(0.05)
else: sys.exit("it never stood still")
if then: print(subprocess.run(then, capture_output=True, text=True).stderr, file=sys.stderr)
os.kill(run.pid, number)
with open(ours, "rb") as stream:
    print(stream.read().decode().lstrip("."), end="")
print(run.stderr.read(), end="", file=sys.stderr)
sys.exit(run.wait() % 256)
"""


@dataclass(frozen=True)
class Patient:
    """A machine to try bundles on."""

    machine: Machine
    tree: Tree

    def put(self, tree: Tree, name: str = "new") -> str:
        """Carry the bundle of ``tree`` to it; return the path there."""
        (self.machine.root / f"root/{name}.pyz").write_bytes(pack("mx2", tree))
        return f"/root/{name}.pyz"

    def apply(self, tree: Tree, *options: str) -> Done:
        """Make it ``tree``, or try to."""
        return self.run("python3", self.put(tree), *options)

    def run(self, *argv: str) -> Done:
        """Run a command that may fail."""
        return self.machine.run(list(argv), check=False, timeout=120)

    def look(self) -> dict[str, list[object]]:
        """Return what there is of every file that matters: content, mode, owner, time."""
        seen: dict[str, list[object]] = json.loads(self.run("python3", "-c", LOOK).text)
        return seen

    def services(self) -> str:
        """Return which services run, since when and as which process, and the firewall's way in."""
        shown = "Id,ActiveState,MainPID,ActiveEnterTimestamp,StateChangeTimestamp"
        states = self.run("systemctl", "show", "-p", shown, *UNITS)
        return states.text + self.run("iptables", "-S", "INPUT").text

    def running(self) -> dict[str, str]:
        """Return each unit's state."""
        return dict(
            zip(UNITS, self.run("systemctl", "is-active", *UNITS).text.split(), strict=True)
        )


@pytest.fixture(scope="module")
def patient() -> Iterator[Patient]:
    """A plain machine that has the packages, and nothing of ours."""
    world = World(fresh_name(), members=("bare",), bare_image=image.WORLD)
    config = load(Path(str(resources.files("backup_mx.lab") / "backup-mx.toml")))
    try:
        world.up(print)
        yield Patient(world.machine("bare"), trees.tree(config, "mx2", agent=False))
    finally:
        world.down()


@pytest.fixture
def relay(patient: Patient) -> Patient:
    """The machine as the relay."""
    done = patient.apply(patient.tree)
    assert done.returncode == 0, done.stderr
    return patient


def with_files(tree: Tree, files: dict[str, str]) -> Tree:
    """Return ``tree`` with these files in it, in the place of those of the same name."""
    given = [File(Path(path), content=content.encode()) for path, content in files.items()]
    kept = [file for file in tree.files if str(file.path) not in files]
    return replace(tree, files=[*kept, *given])


def with_broken_start(tree: Tree) -> Tree:
    """Return ``tree`` with a service that is started last and fails, and a changed main.cf."""
    unit = "[Service]\nType=oneshot\nExecStart=/bin/sh -c 'echo I am broken; exit 1'\n"
    broken = Service("backup-mx-broken.service", ())
    files = {"/etc/systemd/system/backup-mx-broken.service": unit}
    return replace(with_files(changed(tree), files), services=[*tree.services, broken])


def changed(tree: Tree) -> Tree:
    """Return ``tree`` with another, valid main.cf, a new file in a new folder, and a file less."""
    [main] = [file.content.decode() for file in tree.files if file.path.name == "main.cf"]
    more = {"/etc/postfix/main.cf": main + "\n# changed\n", "/etc/backup-mx/new/file": "new\n"}
    other = with_files(tree, more)
    return replace(other, files=[it for it in other.files if it.path.parent.name != "apt.conf.d"])


def complaint(done: Done) -> str:
    """Return what a run that failed said of it: one line, without a traceback."""
    [line] = done.stderr.decode().strip().splitlines()
    assert line.startswith("relay.pyz: ")
    return line.removeprefix("relay.pyz: ")


def etc(seen: dict[str, list[object]]) -> dict[str, list[object]]:
    """Return the part below /etc."""
    return {path: what for path, what in seen.items() if path.startswith("/etc/")}


# On the plain machine


def test_a_refused_bundle_leaves_a_plain_machine_plain(patient: Patient) -> None:
    """Postfix refuses the new main.cf before it is swapped in: one message, nothing changed."""
    before, services = patient.look(), patient.services()
    broken = with_files(patient.tree, {"/etc/postfix/main.cf": "myhostname mx2.example.org\n"})
    done = patient.apply(broken)
    assert done.returncode == 1
    assert "refuses the new files: " in done.stderr.decode()
    assert "missing '=' after attribute name" in done.stderr.decode()
    assert "Traceback" not in done.stderr.decode()
    assert (patient.look(), patient.services()) == (before, services)
    assert not (patient.machine.root / "run/backup-mx/stage").exists()


def test_a_failed_start_leaves_a_plain_machine_plain(patient: Patient) -> None:
    """A service that does not start takes every file, folder and service back with it."""
    before, running = patient.look(), patient.running()
    done = patient.apply(with_broken_start(patient.tree))
    assert done.returncode == 1
    assert "backup-mx-broken.service does not start: " in complaint_of_many(done)
    assert "I am broken" in complaint_of_many(done)
    assert "restored: everything is as it was" in done.text
    after = patient.look()
    assert etc(after) == etc(before)
    assert set(after) - set(before) <= spool(after)
    assert patient.running() == running
    assert "BACKUP-MX" not in patient.run("iptables", "-S", "INPUT").text


def spool(seen: dict[str, list[object]]) -> set[str]:
    """Return the paths of the spool, which no run ever removes."""
    return {path for path in seen if path.startswith("/srv/backup-mx")}


def complaint_of_many(done: Done) -> str:
    """Return what a run that failed said of it, with the program's own lines."""
    said = done.stderr.decode()
    assert said.startswith("relay.pyz: ")
    assert "Traceback" not in said
    return said


def test_mail_in_the_stock_queue_is_not_stranded(patient: Patient) -> None:
    """Mail that waits in Debian's own Postfix queue would never be looked at again: refused."""
    before = patient.look()
    letter = patient.machine.root / "var/spool/postfix/deferred/4/4ABC"
    letter.parent.mkdir(parents=True)
    letter.write_text("mail")
    done = patient.apply(patient.tree)
    letter.unlink()
    assert done.returncode == 1
    assert complaint(done).startswith("1 messages wait in /var/spool/postfix")
    assert etc(patient.look()) == etc(before)


def test_without_root_nothing_is_tried(patient: Patient) -> None:
    """Somebody who is not root is told so."""
    patient.run("cp", patient.put(patient.tree), "/tmp/new.pyz")
    nobody = ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups"]
    done = patient.run(*nobody, "python3", "/tmp/new.pyz")
    assert (done.returncode, complaint(done)) == (3, "this needs root: try sudo")


def test_diff_touches_nothing(patient: Patient) -> None:
    """What would change is shown, and nothing is."""
    before = patient.look()
    done = patient.apply(patient.tree, "--diff")
    assert "+++ /etc/postfix/main.cf\n" in done.text
    assert "to make: /srv/backup-mx/spool\n" in done.text or spool(before)
    assert patient.look() == before


# On the relay


def test_the_second_run_changes_nothing_and_restarts_nothing(relay: Patient) -> None:
    """Same bundle, same machine: same files with the same times, same processes."""
    before, services = relay.look(), relay.services()
    done = relay.apply(relay.tree)
    assert done.text.splitlines()[1:] == ["done: nothing to change"]
    assert (relay.look(), relay.services()) == (before, services)
    assert "ActiveState=active" in services
    assert relay.apply(relay.tree, "--diff").text == "nothing to change\n"


def test_what_was_edited_by_hand_is_put_right(relay: Patient) -> None:
    """Another content, another mode, a link, a missing folder: each is mended, no link followed."""
    before = etc(relay.look())
    root = relay.machine.root
    (root / "root/precious").write_text("precious\n")
    (root / "root/precious").chmod(0o600)
    for edit in (
        "echo '# by hand' >> /etc/postfix/main.cf",
        "chmod 600 /etc/postfix/master.cf",
        "ln -sf /root/precious /etc/postfix/transport",
        "rm -r /etc/backup-mx/firewall",
    ):
        relay.run("sh", "-c", edit)
    diff = relay.apply(relay.tree, "--diff").text
    assert "-# by hand\n" in diff
    assert "precious" not in diff
    assert "to write: /etc/postfix/master.cf (its content is not shown)\n" in diff
    assert "to make: /etc/backup-mx/firewall\n" in diff
    assert relay.apply(relay.tree).returncode == 0
    assert without_times(etc(relay.look())) == without_times(before)
    assert (root / "root/precious").read_text() == "precious\n"


def without_times(seen: dict[str, list[object]]) -> dict[str, list[object]]:
    """Return what was seen but for the times."""
    return {path: what[:3] + what[4:] for path, what in seen.items()}


def test_a_damaged_message_stands_in_nobodys_way(relay: Patient) -> None:
    """qmgr(8) has put it aside, and postfix check complains of it: that is no new file's fault."""
    name = "corrupt/4dKz1x0Yf2z9WQ"
    path = f"/srv/backup-mx/spool/{name}"
    relay.run("install", "-o", "postfix", "-m", "600", "/dev/null", path)
    said = relay.run("script", "-qec", "postfix check", "/dev/null").text
    assert said.split() == f"postfix/postfix-script: warning: damaged message: {name}".split()
    done = relay.apply(changed(relay.tree))
    assert done.returncode == 0, done.stderr
    relay.run("rm", path)


def test_a_postfix_that_died_is_started(relay: Patient) -> None:
    """A service that does not run is started, though no file changed."""
    relay.run("sh", "-c", "kill -9 $(cat /srv/backup-mx/spool/pid/master.pid)")
    done = relay.apply(relay.tree)
    assert done.text.splitlines()[1:] == ["restart: postfix.service", "done: nothing to change"]


def test_what_the_bundle_no_longer_has_goes(relay: Patient) -> None:
    """A file of the last bundle that is not in this one is removed; a foreign one stays."""
    (relay.machine.root / "etc/postfix/foreign").write_text("foreign\n")
    assert relay.apply(changed(relay.tree)).returncode == 0
    assert not (relay.machine.root / "etc/apt/apt.conf.d/52backup-mx-upgrades").exists()
    done = relay.apply(relay.tree)
    assert "removed: /etc/backup-mx/new/file" in done.text.splitlines()
    assert not (relay.machine.root / "etc/backup-mx/new/file").exists()
    assert (relay.machine.root / "etc/postfix/foreign").exists()


def test_a_failed_start_restores_the_relay(relay: Patient) -> None:
    """The old relay is back byte for byte, with its services."""
    before, running = relay.look(), relay.running()
    done = relay.apply(with_broken_start(relay.tree))
    assert done.returncode == 1
    assert "restored: everything is as it was" in done.text
    assert (relay.look(), relay.running()) == (before, running)
    assert relay.apply(relay.tree).text.splitlines()[1:] == ["done: nothing to change"]


@pytest.mark.parametrize("number", [1, 2, 15])
def test_a_signal_midway_restores(relay: Patient, number: int) -> None:
    """SIGHUP, SIGINT or SIGTERM in the midst of the swap: all is put back, and it says so."""
    before = relay.look()
    done = standstill(relay, number)
    assert (done.returncode, complaint(done)) == (130, "interrupted")
    assert "restored: everything is as it was" in done.text
    assert relay.look() == before


def standstill(relay: Patient, number: int, *then: str) -> Done:
    """Hold a run that changes the relay in its swap; run ``then``, and send the signal."""
    path = relay.put(changed(relay.tree), "changed")
    return relay.run("python3", "-c", STANDSTILL, str(number), path, *then)


def test_a_killed_run_is_undone_by_the_next(relay: Patient) -> None:
    """After SIGKILL in the midst of the swap, the next run restores first, then goes on."""
    before = relay.look()
    assert standstill(relay, 9).returncode == 256 - 9
    assert relay.look() != before
    done = relay.apply(relay.tree)
    assert done.text.splitlines()[1:] == [
        "an earlier run was killed midway",
        "restored: everything is as it was",
        "done: nothing to change",
    ]
    assert relay.look() == before


@pytest.mark.parametrize("tenths", [2, 5, 8, 11])
def test_a_run_killed_at_any_time_is_made_good(relay: Patient, tenths: int) -> None:
    """Wherever a run is killed, the next one makes the machine what it should be."""
    relay.run("rm", "-rf", "/etc/backup-mx/new")
    wanted = without_times(etc(relay.look()))
    path = relay.put(changed(relay.tree), "changed")
    relay.run("timeout", "-s", "KILL", str(tenths / 10), "python3", path)
    assert relay.apply(relay.tree).returncode == 0
    seen = without_times(etc(relay.look()))
    seen.pop("/etc/backup-mx/new", None)  # a complete run leaves the empty folder
    assert seen == wanted


def test_of_two_runs_the_second_gives_way(relay: Patient) -> None:
    """While one run is at work, another one says so and does nothing."""
    path = relay.put(relay.tree, "second")
    done = standstill(relay, 15, "python3", path)
    assert "relay.pyz: another run is at work on this machine\n" in done.stderr.decode()


def test_nobody_listens(relay: Patient) -> None:
    """A run whose listener goes away, as ssh does with its line, ends its work all the same."""
    path = relay.put(changed(relay.tree), "changed")
    done = relay.run("bash", "-c", f"python3 {path} 2>&1 | true; exit ${{PIPESTATUS[0]}}")
    assert done.returncode == 0
    assert relay.apply(changed(relay.tree)).text.splitlines()[1:] == ["done: nothing to change"]


@pytest.mark.parametrize("name", ["applied.json", "undo/index.json"])
def test_a_damaged_record_is_named(relay: Patient, name: str) -> None:
    """Garbage in what an earlier run left is one message that names the file."""
    record = relay.machine.root / "var/lib/backup-mx" / name
    kept = record.read_bytes() if record.exists() else None
    record.parent.mkdir(exist_ok=True)
    for content in ("{", "[]", '{"files": 1}', "\x00"):
        record.write_text(content)
        done = relay.apply(relay.tree)
        assert done.returncode == 1
        assert complaint(done).startswith(f"/var/lib/backup-mx/{name} is damaged")
    if kept is None:
        record.unlink()
        record.parent.rmdir()
    else:
        record.write_bytes(kept)


@pytest.mark.parametrize("place", ["/etc/backup-mx/firewall", "/var/lib/backup-mx"])
def test_a_full_disk_changes_nothing(relay: Patient, place: str) -> None:
    """No room for the new files, or for the way back: one line, and all is as it was."""
    big = {"/etc/backup-mx/firewall/big": "x" * 200_000}
    path = relay.put(with_files(changed(relay.tree), big))
    before = relay.look()
    with small_disk(relay, place):
        done = relay.run("python3", path)
        assert done.returncode == 1
        assert complaint(done).endswith("No space left on device")
        assert without_times(etc(relay.look())) == without_times(etc(before))
    assert relay.apply(relay.tree).text.splitlines()[1:] == ["done: nothing to change"]


@contextlib.contextmanager
def small_disk(relay: Patient, place: str) -> Iterator[None]:
    """Let ``place`` be a disk that has hardly room for what is on it."""
    relay.run("cp", "-a", place, "/run/kept")
    relay.run("mount", "-t", "tmpfs", "-o", "size=60k,mode=755", "tmpfs", place)
    relay.run("cp", "-a", "/run/kept/.", place)
    try:
        yield
    finally:
        relay.run("umount", place)
        relay.run("rm", "-r", "/run/kept")


def test_without_the_right_to_mount_nothing_is_changed(relay: Patient) -> None:
    """Root without CAP_SYS_ADMIN, as in many a container: one message, exit code 3."""
    before = relay.look()
    path = relay.put(changed(relay.tree))
    done = relay.run("setpriv", "--bounding-set=-sys_admin", "python3", path)
    assert done.returncode == 3
    assert "cannot try the new files before they are used: unshare" in complaint(done)
    assert relay.look() == before


def test_without_overlay_nothing_is_changed(relay: Patient) -> None:
    """A kernel without overlayfs, as mount tells it: one message, exit code 3."""
    before = relay.look()
    path = relay.put(changed(relay.tree))
    mount = relay.machine.root / "root/mount"
    mount.write_text("#!/bin/sh\necho \"mount: $6: unknown filesystem type 'overlay'.\"\nexit 32\n")
    mount.chmod(0o755)
    relay.run("mount", "--bind", "/root/mount", "/usr/bin/mount")
    done = relay.run("python3", path)
    relay.run("umount", "/usr/bin/mount")
    assert done.returncode == 3
    assert "unknown filesystem type 'overlay'" in complaint(done)
    assert relay.look() == before


def test_sshd_takes_keys_only(relay: Patient) -> None:
    """The image's own settings do not let a password in."""
    folder = relay.machine.root / "etc/ssh/sshd_config.d"
    (folder / "50-cloud-init.conf").write_text("PasswordAuthentication yes\n")
    settings = relay.run("sshd", "-T").text.splitlines()
    assert {"passwordauthentication no", "permitrootlogin without-password"} <= {*settings}


def test_a_strange_umask_makes_no_difference(relay: Patient) -> None:
    """Folders that are made are readable whoever makes them."""
    path = relay.put(changed(relay.tree), "changed")
    relay.run("rm", "-rf", "/etc/backup-mx/new")
    relay.run("sh", "-c", f"umask 077; python3 {path}")
    assert (relay.machine.root / "etc/backup-mx/new").stat().st_mode & 0o777 == 0o755
