"""The names of all that belongs to a lab. They alone find it again: no lab keeps a state file."""

from __future__ import annotations

import re
from pathlib import Path

from backup_mx.errors import LabError

LABS = Path("/var/lib/backup-mx/lab")
"""Every lab's folder. On a disk: the machines' queues and mailboxes are written below it."""

_NAME = re.compile(r"[a-z0-9]{1,8}")


def checked(lab: str) -> str:
    """Return ``lab`` if it can be a lab's name. Raises LabError."""
    if not _NAME.fullmatch(lab):
        raise LabError(f'"{lab}" cannot be a lab\'s name: one to eight of a-z and 0-9')
    return lab


def prefix(lab: str) -> str:
    """Return what every name of this lab, and of no other lab, begins with."""
    return f"bmx-{checked(lab)}-"


def scoped(lab: str, part: str) -> str:
    """Return the host-wide name of a lab's part: its namespace, control group, nspawn machine."""
    return prefix(lab) + part


def folder(lab: str) -> Path:
    """Return the folder that holds a lab's machines."""
    return LABS / checked(lab)
