"""A machine's volume: a disk of its own, which stays when the machine is destroyed.

It is a file that the host shows as a loop device; the machine finds it among its devices. There is
no file system on it until the machine makes one. What is on it the host sees at ``view``.
"""

from __future__ import annotations

import contextlib
import errno
import os
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from backup_mx.errors import LabError
from backup_mx.lab import host, mounts

SIZE = 2 << 30
"""The bytes of a new volume; only what is written takes room on the host."""

FREE_SECONDS = 60.0
"""How long a machine that boots waits for its volume."""


@dataclass(frozen=True)
class Volume:
    """The volume of the machine whose folder on the host is ``folder``, if it has one."""

    folder: Path

    @property
    def file(self) -> Path:
        """The file that holds all of it."""
        return self.folder / "volume.img"

    @property
    def exists(self) -> bool:
        """Whether the machine has a volume."""
        return self.file.exists()

    def create(self, size: int = SIZE) -> None:
        """Make a blank one of ``size`` bytes."""
        self.folder.mkdir(parents=True, exist_ok=True)
        with self.file.open("xb") as file:
            file.truncate(size)

    def grow(self, size: int) -> None:
        """Make it larger, as a provider does; a machine uses it from its next boot on."""
        with self.file.open("r+b") as file:
            file.truncate(size)
        for device in devices(self.file):
            host.call(["losetup", "--set-capacity", str(device)])

    def attach(self) -> Path:
        """Return the device by which it is seen, made if there is none yet."""
        if found := devices(self.file):
            return found[0]
        return Path(host.call(["losetup", "--find", "--show", str(self.file)]).strip())

    @property
    def view(self) -> Path:
        """Where the host sees what is on it, the machine on or off; mounted when first asked for.

        The folder is empty while there is no file system on the volume.
        """
        place = self._place
        if not place.is_mount():
            mounts.share(place.parent)
            place.mkdir(exist_ok=True)
            with contextlib.suppress(LabError):
                host.call(["mount", "-o", "noatime", str(self.attach()), str(place)])
        return place

    @property
    def _place(self) -> Path:
        """Where it is mounted: below a shared mount, so that it can be hidden from all at once."""
        return self.folder / "volume" / "disk"

    def hide(self) -> None:
        """Let the host not see it any more."""
        if self._place.is_mount():
            mounts.unmount(self._place)

    def free(self, timeout: float = FREE_SECONDS) -> None:
        """Hide it and wait until nobody uses it: a machine that boots checks it and grows it.

        A mount outlives its end by a moment where a machine was killed. Raises LabError after
        ``timeout`` seconds.
        """
        for device in devices(self.file):
            host.wait_for(
                f"nobody to use {device}", partial(self._is_free, device), timeout=timeout
            )

    def _is_free(self, device: Path) -> bool:
        """Hide it, since somebody may have looked again meanwhile, and ask the kernel."""
        self.hide()
        return is_free(device)

    def remove(self) -> None:
        """Destroy it with all that is on it; none at all is fine."""
        self.hide()
        mounts.unshare(self._place.parent)
        detach(self.file)
        self.file.unlink(missing_ok=True)


def devices(file: Path) -> list[Path]:
    """Return the loop devices that show ``file``."""
    said = host.call(["losetup", "--noheadings", "--output", "NAME", "--associated", str(file)])
    return [Path(line.strip()) for line in said.splitlines()]


def is_free(device: Path) -> bool:
    """Tell whether nobody uses a device; the kernel lets it be opened alone only then (open(2))."""
    try:
        os.close(os.open(device, os.O_RDONLY | os.O_EXCL))
    except OSError as error:
        if error.errno == errno.EBUSY:
            return False
        raise
    return True


def detach(file: Path) -> None:
    """Free the loop devices that show ``file``; one in use goes as soon as it no longer is."""
    for device in devices(file):
        host.call(["losetup", "--detach", str(device)])
