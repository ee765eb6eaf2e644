"""A lab's volume: a real loop device, which outlives the mounts of it."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from backup_mx.errors import LabError
from backup_mx.lab import host, mounts
from backup_mx.lab.volume import Volume

HOLD = 'mount "$1" "$2" && echo held && read -r _'
"""Mounts a device where nobody else sees it, until there is something to read, or no more."""


@pytest.fixture
def volume(tmp_path: Path) -> Iterator[Volume]:
    """A volume with a file system on it."""
    made = Volume(tmp_path / "mx2")
    made.create(32 << 20)
    try:
        host.call(["mkfs.ext4", "-q", str(made.attach())])
    except LabError:
        pytest.skip("this host lets nobody make loop devices")
    yield made
    made.remove()


def test_a_machine_waits_until_nobody_uses_its_volume(volume: Volume, tmp_path: Path) -> None:
    """A mount that lives on in somebody's namespace keeps a volume from being checked and grown."""
    place = tmp_path / "held"
    place.mkdir()
    argv = ["unshare", "--mount", "sh", "-c", HOLD, "sh", str(volume.attach()), str(place)]
    with subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as holder:
        assert holder.stdin
        assert holder.stdout
        assert holder.stdout.readline() == b"held\n"
        with pytest.raises(LabError, match=r"waited 0 s for nobody to use /dev/loop\d+, in vain"):
            volume.free(timeout=0.2)
        holder.stdin.close()
        volume.free()


def test_what_the_host_sees_does_not_hold_a_volume(volume: Volume) -> None:
    """The host's own look at it ends first."""
    assert (volume.view / "lost+found").is_dir()
    volume.free()
    assert mounts.below(volume.folder) == [volume.folder / "volume"]


def test_what_somebody_took_along_does_not_hold_a_volume(volume: Volume) -> None:
    """A machine that boots has copies of the host's mounts; the end of ours ends those, too."""
    assert (volume.view / "lost+found").is_dir()
    taking = ["unshare", "--mount", "--propagation", "slave", "sh", "-c", "echo taken && read -r _"]
    with subprocess.Popen(taking, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as taker:
        assert taker.stdin
        assert taker.stdout
        assert taker.stdout.readline() == b"taken\n"
        volume.free(timeout=0.2)
        taker.stdin.close()


def test_nothing_stays_mounted(volume: Volume) -> None:
    """A volume that is removed leaves no mount."""
    assert volume.view.is_dir()
    volume.remove()
    assert mounts.below(volume.folder) == []
