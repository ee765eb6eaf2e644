"""Which disk becomes the volume: on real block devices, made of files."""

from __future__ import annotations

import contextlib
import grp
import os
import pwd
import shlex
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from backup_mx.config import load
from backup_mx.lab.host import wait_for
from backup_mx.machine.apply import steps, volume
from backup_mx.machine.apply.steps import Steps
from backup_mx.machine.apply.system import ApplyError
from backup_mx.machine.tree import tree
from backup_mx.relay.queue import spool

MIB = 1 << 20
GOLDEN = Path(__file__).parents[1] / "golden"
TRIAL = f"trial-{os.getpid()}"
Disk = Callable[[str], Path]


def run(*argv: str | Path) -> str:
    """Run a program that has to succeed; return what it said."""
    done = subprocess.run([*map(str, argv)], check=True, capture_output=True, text=True)
    return done.stdout.strip()


@pytest.fixture
def disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Disk]:
    """A maker of blank disks, which are all that the machine has."""
    seen = tmp_path / "class-block"
    seen.mkdir()
    monkeypatch.setattr(volume, "SYSFS", seen)
    monkeypatch.setattr(volume, "KNOWN", tmp_path / "volume-exists")
    made: list[Path] = []

    def make(name: str) -> Path:
        image = tmp_path / name
        with image.open("wb") as file:
            file.truncate(32 * MIB)
        try:
            made.append(Path(run("losetup", "--find", "--show", "--partscan", image)))
        except (OSError, subprocess.CalledProcessError):
            pytest.skip("this host lets nobody make loop devices")
        (seen / made[-1].name).mkdir()
        return made[-1]

    yield make
    for device in made:
        run("losetup", "--detach", device)


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Where the volume is mounted; nothing of it stays."""
    point = tmp_path / "srv"
    monkeypatch.setattr(volume, "PLACE", point)
    monkeypatch.setattr(volume, "UNIT", tmp_path / "backup-mx-volume.service")
    monkeypatch.setattr(steps, "REPORT", tmp_path / "first-boot.json")
    yield point
    if point.is_mount():
        run("umount", point)


def found() -> list[Path]:
    """Return what is found; nothing when there is a complaint."""
    devices: list[Path] = []
    complaint = volume.look(devices)
    assert bool(complaint) != bool(devices)
    return devices


def settle(*, wanted: bool = True) -> None:
    """Settle the volume without patience."""
    volume.settle(wanted, Steps("mx2", "abc", 0))


def test_the_only_blank_disk_is_taken(disk: Disk) -> None:
    """Where one has something on it, and one nothing, there is no doubt."""
    run("mkfs.ext4", "-q", disk("root"))
    blank = disk("blank")
    assert found() == [blank]


def test_several_blank_disks_are_refused(disk: Disk) -> None:
    """It cannot be told which one is meant; both are named."""
    names = [str(disk("one")), str(disk("two"))]
    with pytest.raises(ApplyError) as caught:
        found()
    assert str(caught.value) == f"{', '.join(names)} are all blank: attach only one of them"


def test_a_labelled_disk_wins(disk: Disk) -> None:
    """The volume of an earlier machine is taken, whatever blank ones are there."""
    disk("blank")
    ours = disk("ours")
    run("mkfs.ext4", "-q", "-L", "backup-mx", ours)
    assert found() == [ours]
    run("mkfs.ext4", "-q", "-L", "backup-mx", disk("twin"))
    with pytest.raises(ApplyError, match="are all labelled backup-mx: attach only one of them"):
        found()


def test_a_rebuilt_machine_waits_for_its_volume(disk: Disk, place: Path) -> None:
    """A blank disk that is there first is not taken, by this run or a later one: mail is elsewhere.

    A relay that is new takes it.
    """
    blank = disk("blank")
    assert found() == [blank]
    with pytest.raises(ApplyError, match=f"no disk is labelled backup-mx; seen: {blank}"):
        volume.settle(True, Steps("mx2", "abc", 0), known=True)
    with pytest.raises(ApplyError, match="no disk is labelled backup-mx"):
        settle()
    run("mkfs.ext4", "-q", "-L", "backup-mx", disk("late"))
    settle()
    assert place.is_mount()
    assert volume.is_blank(blank)


def test_a_relay_that_has_a_volume_takes_no_blank_one(disk: Disk, place: Path) -> None:
    """Its own is missing, and another disk is attached by mistake: there is mail on the first."""
    device = disk("volume")
    settle()
    run("umount", place)
    run("e2label", device, "elsewhere")
    blank = disk("blank")
    with pytest.raises(ApplyError, match="no disk is labelled backup-mx"):
        settle()
    assert volume.is_blank(blank)


def write_at(device: Path, offset: int, words: bytes = b"x") -> None:
    """Put something on a disk."""
    with device.open("r+b") as opened:
        opened.seek(offset)
        opened.write(words)


@pytest.mark.parametrize(
    "touch",
    [
        lambda disk: run("mkfs.ext2", "-q", disk),
        lambda disk: run("mkswap", disk),
        lambda disk: write_at(disk, 0),
        lambda disk: write_at(disk, MIB - 1),
        lambda disk: write_at(disk, 32 * MIB - 1024, b"Intel Raid ISM Cfg Sig. "),
    ],
    ids=["a file system", "swap", "first byte", "end of the first MiB", "a RAID's name at the end"],
)
def test_what_is_on_a_disk_is_never_overwritten(disk: Disk, touch: Callable[[Path], None]) -> None:
    """Any signature, and anything at all in front, makes a disk somebody's."""
    device = disk("precious")
    touch(device)
    assert found() == []


def test_a_disk_in_use_is_not_blank(disk: Disk) -> None:
    """Somebody holds it as a mount does."""
    device = disk("held")
    with contextlib.closing(os.fdopen(os.open(device, os.O_RDONLY | os.O_EXCL), "rb")):
        assert found() == []
    assert found() == [device]


def test_an_empty_drive_is_not_blank(disk: Disk, tmp_path: Path) -> None:
    """There is nothing to read in it, which is not the same as zeros."""
    device = disk("drive")
    (tmp_path / "drive").open("wb").close()
    run("losetup", "--set-capacity", device)
    assert found() == []


def test_a_blank_disk_is_formatted_once(disk: Disk, place: Path) -> None:
    """It gets the label; another machine finds its content there, and more room if it has grown."""
    device = disk("volume")
    settle()
    assert place.is_mount()
    (place / "mail").write_text("kept")
    before = os.statvfs(place).f_blocks
    run("umount", place)
    os.truncate(place.parent / "volume", 64 * MIB)
    run("losetup", "--set-capacity", device)
    settle()
    assert (place / "mail").read_text() == "kept"
    assert os.statvfs(place).f_blocks > 1.5 * before
    settle()


@pytest.fixture
def unit(place: Path) -> str:
    """The script that mounts the volume at boot, for a label that no other disk here has."""
    full = load(GOLDEN / "full.toml")
    files = {file.path.name: file.content for file in tree(full, "backup", agent=False).files}
    text = files[volume.UNIT.name].decode()
    [line] = [line for line in text.splitlines() if line.startswith("ExecStart=")]
    shell, option, script = shlex.split(line.removeprefix("ExecStart="))
    assert (shell, option) == ("/bin/sh", "-c")
    script = script.replace("=backup-mx", f"={TRIAL}").replace("/srv/backup-mx", str(place))
    return script.replace("$$", "$")


def mounted(place: Path) -> str:
    """Return the type and the options with which something is mounted."""
    return run("findmnt", "--noheadings", "--output", "FSTYPE,OPTIONS", "--mountpoint", place)


def test_a_boot_mounts_the_volume_as_the_first_run_did(disk: Disk, place: Path, unit: str) -> None:
    """Both know one kind of file system, and nothing on it is a program or a device."""
    device = disk("volume")
    settle()
    first = mounted(place)
    assert first.split()[0] == "ext4"
    assert {"noatime", "nodev", "nosuid", "noexec"} <= set(first.split()[1].split(","))
    run("umount", place)
    run("e2label", device, TRIAL)
    run("sh", "-c", unit)
    assert mounted(place) == first
    run("sh", "-c", unit)


def test_a_boot_takes_neither_of_two_volumes(disk: Disk, place: Path, unit: str) -> None:
    """Which one has today's mail cannot be told: none is mounted, so that Postfix stays off."""
    place.mkdir()
    devices = sorted(str(disk(name)) for name in ("one", "two"))
    for device in devices:
        run("mkfs.ext4", "-q", "-L", TRIAL, device)
    done = subprocess.run(["sh", "-c", unit], capture_output=True, text=True, check=False)
    assert done.returncode == 1
    named, _, rest = done.stderr.partition(" are all")
    assert (sorted(named.split()), rest) == (
        devices,
        " labelled backup-mx: attach only one of them\n",
    )
    assert not place.is_mount()


def test_a_boot_does_not_mount_a_damaged_volume(disk: Disk, place: Path, unit: str) -> None:
    """It would be mounted all the same, and new mail written over old."""
    place.mkdir()
    device = disk("ours")
    run("mkfs.ext4", "-q", "-L", TRIAL, device)
    run("debugfs", "-w", "-R", "clri <2>", device)
    done = subprocess.run(["sh", "-c", unit], capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert not place.is_mount()


def test_a_volume_that_finds_itself_damaged_is_written_no_more(disk: Disk, place: Path) -> None:
    """New mail would be laid over old; the relay's own look at its disk sees it at once.

    A deploy does not make it writable again.
    """
    device = disk("ours")
    settle()
    assert not spool.disk(folder=place).damaged
    Path("/sys/fs/ext4", device.name, "trigger_fs_error").write_text("1")
    settle()
    with pytest.raises(OSError, match="Read-only file system"):
        (place / "mail").write_text("new")
    assert spool.disk(folder=place).damaged


def test_a_volume_that_was_mounted_to_go_on_is_told_to_stop(disk: Disk, place: Path) -> None:
    """A relay that runs does not wait for its next boot; its other options stay."""
    disk("ours")
    settle()
    before = mounted(place)
    run("mount", "-o", "remount,errors=continue", place)
    assert "errors=remount-ro" not in mounted(place)
    settle()
    assert mounted(place) == before


def test_errors_are_seen_where_ext4_goes_on(disk: Disk, place: Path) -> None:
    """As on a boot disk whose image does not say what else to do; e2fsck forgets what it mended."""
    device = disk("boot")
    place.mkdir()
    run("mkfs.ext4", "-q", device)
    run("mount", "-o", "errors=continue", device, place)
    assert not spool.disk(folder=place).damaged
    Path("/sys/fs/ext4", device.name, "trigger_fs_error").write_text("1")
    wait_for("ext4 to count it", lambda: spool.disk(folder=place).damaged, timeout=10.0)
    run("umount", place)
    run("e2fsck", "-fp", device)
    run("mount", device, place)
    assert not spool.disk(folder=place).damaged


def test_without_a_volume_it_is_said_what_is_there(disk: Disk, place: Path) -> None:
    """After its patience, the run names the disks it has seen; nothing is mounted."""
    device = disk("root")
    run("mkswap", device)
    with pytest.raises(ApplyError) as caught:
        settle()
    assert str(caught.value) == (
        f"volume: given up after 0 s: no disk is blank, or labelled backup-mx; seen: {device}"
    )
    assert not place.exists()


def test_mail_stays_where_it_is(disk: Disk, place: Path) -> None:
    """A relay that keeps mail on its boot disk gets no volume over it, nor loses the one it has."""
    (place / "spool").mkdir(parents=True)
    disk("volume")
    with pytest.raises(ApplyError, match="only a new machine gets a volume"):
        settle()
    (place / "spool").rmdir()
    settle(wanted=False)
    assert not place.is_mount()
    settle()
    settle(wanted=False)  # somebody else's mount
    volume.UNIT.touch()
    with pytest.raises(ApplyError, match="volume = false would leave it"):
        settle(wanted=False)
    run("umount", place)  # it is missing: its mail is on it all the same
    with pytest.raises(ApplyError, match="volume = false would leave it"):
        settle(wanted=False)


def test_a_volume_that_cannot_be_read_again_is_not_formatted(
    disk: Disk, place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It had the label a moment ago, and a disk that is just attached fails once: mail is on it."""
    device = disk("ours")
    run("mkfs.ext4", "-q", "-L", "backup-mx", device)
    labels = iter(["backup-mx", ""])
    monkeypatch.setattr(volume, "label", lambda _: next(labels))
    with pytest.raises(ApplyError, match="cannot be read now: try again"):
        settle()
    assert run("blkid", "-p", "-s", "LABEL", "-o", "value", device) == "backup-mx"
    assert not place.is_mount()


def test_a_damaged_volume_is_not_mounted(disk: Disk, place: Path) -> None:
    """What e2fsck does not dare to mend, new mail would make worse."""
    device = disk("ours")
    run("mkfs.ext4", "-q", "-L", "backup-mx", device)
    run("debugfs", "-w", "-R", "clri <2>", device)
    with pytest.raises(ApplyError, match=f"{device} is damaged, and not mounted: "):
        settle()
    assert not place.is_mount()


def test_what_was_cut_off_is_made_up_for(
    disk: Disk, place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A run that ended while it gave the spool away left the volume mounted."""
    disk("volume")
    settle()
    given: list[Path] = []
    monkeypatch.setattr(volume, "own", given.append)
    settle()
    assert given == [place / "spool"]


def test_a_spool_of_another_machine_becomes_postfixs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """All that was Postfix's there is its own here, what is root's stays root's."""
    if os.geteuid():
        pytest.skip("only root can give files away")
    asked: list[list[str]] = []
    monkeypatch.setattr(volume, "must", lambda argv, **_: asked.append([*argv]))
    monkeypatch.setattr(pwd, "getpwnam", lambda _: pwd.getpwuid(1))
    monkeypatch.setattr(grp, "getgrnam", lambda _: grp.getgrgid(1))
    for name, owner in {"incoming": 977, "maildrop": 977, "pid": 0}.items():
        (tmp_path / name).mkdir()
        os.chown(tmp_path / name, owner, 0)
    volume.own(tmp_path)
    assert asked == [
        ["chown", "-R", "postfix", f"{tmp_path}/maildrop"],
        ["chown", "-R", "postfix", f"{tmp_path}/incoming"],
    ]
    os.chown(tmp_path / "incoming", 1, 0)
    volume.own(tmp_path)
    assert len(asked) == 2


def test_what_postdrop_writes_to_is_its_groups(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another image may have Postfix's number and another of postdrop: postfix check would refuse.

    What is not there yet, Postfix makes.
    """
    if os.geteuid():
        pytest.skip("only root can give files away")
    monkeypatch.setattr(pwd, "getpwnam", lambda _: pwd.getpwuid(0))
    monkeypatch.setattr(grp, "getgrnam", lambda _: grp.getgrgid(1))
    for name in ("incoming", "maildrop", "public", "pid"):
        (tmp_path / name).mkdir()
    volume.own(tmp_path)
    groups = {path.name: path.stat().st_gid for path in tmp_path.iterdir()}
    assert groups == {"incoming": 0, "maildrop": 1, "public": 1, "pid": 0}
    (tmp_path / "public").rmdir()
    volume.own(tmp_path)
