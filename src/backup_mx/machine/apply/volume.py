"""The volume that outlives the machine: found, formatted if it is blank, grown and mounted."""

from __future__ import annotations

import contextlib
import os
import pwd
import shutil
from collections.abc import Iterator
from pathlib import Path

from .files import STATE
from .steps import Steps
from .system import ApplyError, must, run, tell

PLACE = Path("/srv/backup-mx")
UNIT = Path("/etc/systemd/system/backup-mx-volume.service")
LABEL = "backup-mx"
# Says that there is a volume, however late it comes: no blank disk is taken for it any more.
KNOWN = STATE / "volume-exists"
SYSFS = Path("/sys/class/block")
# Memory, and drives that come and go.
NEVER_BLANK = ("ram", "zram", "sr", "fd", "nbd")
LOOKED_AT = 1 << 20
# e2fsck(8), EXIT CODE: errors are left uncorrected.
LEFT = 4


def settle(wanted: bool, steps: Steps, known: bool = False) -> None:
    """Have the volume at PLACE if it is wanted; what is there already stays where it is.

    Once it was ``known`` that there is one, only that one will do. Raises ApplyError where there is
    none, or where it cannot be told which one.
    """
    if not wanted:
        # Be it that the volume is missing now: there is mail on it.
        if UNIT.exists():
            raise ApplyError("mail is kept on a volume here: volume = false would leave it there")
        return
    if known:
        KNOWN.touch()
    if not PLACE.is_mount():
        if (PLACE / "spool").exists():
            raise ApplyError("mail is kept on the boot disk here: only a new machine gets a volume")
        found: list[Path] = []
        steps.until("volume", lambda: look(found))
        with steps.step("mount"):
            mount(found[0])
    else:
        # One that was mounted without that; where it is somebody else's mount, it may not be had.
        run(["mount", "-o", "remount,errors=remount-ro", str(PLACE)])
    KNOWN.touch()
    own(PLACE / "spool")


def look(found: list[Path]) -> str:
    """Look for the volume once; return why there is none yet, or nothing when ``found`` has it.

    Raises ApplyError where there are several.
    """
    devices = list(block_devices())
    ours = [device for device in devices if label(device) == LABEL]
    known = KNOWN.exists()
    found += ours or [device for device in devices if not known and is_blank(device)]
    if len(found) > 1:
        what = f"labelled {LABEL}" if ours else "blank"
        raise ApplyError(f"{', '.join(map(str, found))} are all {what}: attach only one of them")
    seen = ", ".join(map(str, devices)) or "nothing"
    what = "" if known else "blank, or "
    return "" if found else f"no disk is {what}labelled {LABEL}; seen: {seen}"


def block_devices() -> Iterator[Path]:
    """Yield the disks and partitions that this machine has."""
    for entry in sorted(SYSFS.iterdir()):
        device = Path("/dev", entry.name.replace("!", "/"))
        if device.is_block_device():
            yield device


def label(device: Path) -> str:
    """Return the label of the file system on a device; nothing where there is none."""
    return run(["blkid", "-p", "-s", "LABEL", "-o", "value", str(device)])[1]


def is_blank(device: Path) -> bool:
    """Whether nobody uses a disk, and nothing is on it: no signature anywhere, zeros in front.

    A disk that cannot be read is not blank.
    """
    entry = SYSFS / device.name
    if device.name.startswith(NEVER_BLANK) or (entry / "partition").exists():
        return False
    try:
        # The kernel refuses this for what is mounted, or has a part that is.
        descriptor = os.open(device, os.O_RDONLY | os.O_EXCL)
    except OSError:
        return False
    with os.fdopen(descriptor, "rb") as disk, contextlib.suppress(OSError):
        if disk.read(LOOKED_AT) == bytes(LOOKED_AT):
            return run(["wipefs", "--no-act", str(device)]) == (0, "")
    return False


def mount(device: Path) -> None:
    """Mount the volume on ``device``; a blank one is formatted first, one that has grown, grown.

    Raises ApplyError where it is damaged: mounted all the same, new mail would destroy old.
    """
    if is_blank(device):
        # 1 %: Postfix itself refuses mail before a disk is full.
        must(["mkfs.ext4", "-q", "-L", LABEL, "-m", "1", str(device)])
        tell(f"volume: {device} was blank, and is formatted")
    elif label(device) != LABEL:
        raise ApplyError(f"{device} was labelled {LABEL}, and cannot be read now: try again")
    code, said = run(["e2fsck", "-fp", str(device)], timeout=900)
    if code & LEFT:
        raise ApplyError(f"{device} is damaged, and not mounted: {said}")
    run(["resize2fs", str(device)], timeout=900)
    PLACE.mkdir(parents=True, exist_ok=True)
    # As backup-mx-volume.service does at the next boot.
    options = "noatime,nodev,nosuid,noexec,errors=remount-ro"
    must(["mount", "-t", "ext4", "-o", options, str(device), str(PLACE)])
    tell(f"volume: {device} is mounted at {PLACE}")


def own(spool: Path) -> None:
    """Give a spool that comes from another machine to Postfix, whose numbers may be others here.

    The folder by which its user's is seen comes last: a run that is cut off is repeated.
    """
    for name in ("maildrop", "public"):
        if (spool / name).exists():
            shutil.chown(spool / name, group="postdrop")
    seen = spool / "incoming"
    if not seen.exists() or seen.stat().st_uid == pwd.getpwnam("postfix").pw_uid:
        return
    folders = [str(path) for path in spool.iterdir() if path.stat().st_uid and path != seen]
    must(["chown", "-R", "postfix", *folders], timeout=900)
    must(["chown", "-R", "postfix", str(seen)], timeout=900)
    tell(f"volume: {spool} comes from another machine, and is Postfix's here")
