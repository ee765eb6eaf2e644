"""Which backup-mx this is, to the byte: what one has judged, another may judge by more."""

from __future__ import annotations

from functools import cache
from importlib import resources
from importlib.resources.abc import Traversable

from backup_mx import __version__
from backup_mx.machine.agent import below
from backup_mx.machine.bundle import digest

# A lab judges no relay, and is a third of it all; the runbook is in a wheel only.
_APART = ("lab", "operate.md")


@cache
def tool() -> str:
    """Return the version, with a hash of the sources that run: 0.1.0+0123456789ab.

    From a checkout and from the wheel made of it, it is the same.
    """
    return f"{__version__}+{digest(sources(resources.files('backup_mx')))[:12]}"


def sources(package: Traversable) -> dict[str, bytes]:
    """Return what a package judges by, its code and its templates: path to content."""
    return {
        path: file.read_bytes()
        for entry in package.iterdir()
        if entry.name not in _APART
        for path, file in below(entry, entry.name)
    }
