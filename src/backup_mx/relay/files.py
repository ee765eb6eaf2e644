"""Small files that others read, replaced whole: a reader sees the old one or the new one."""

from __future__ import annotations

import contextlib
import errno
import os
from pathlib import Path


def replace(path: Path, content: str | bytes, mode: int = 0o644) -> None:
    """Give a file another content, on disk before it has its name; mode says who may read it.

    Raises OSError; then the file is as it was.
    """
    new = path.with_name(f".{path.name}.new")
    octets = content if isinstance(content, bytes) else content.encode()
    try:
        new.unlink(missing_ok=True)  # a leftover keeps its mode, or has a reader already
        with open(new, "xb", opener=_secretly) as file:
            file.write(octets)
            file.flush()
            os.fsync(file.fileno())
        new.chmod(mode)
        new.replace(path)
    except OSError:
        with contextlib.suppress(OSError):
            new.unlink(missing_ok=True)
        raise


def on_disk(path: Path) -> None:
    """Return when a file's content, or the names in a folder, would outlast a power cut (fsync(2)).

    Raises OSError.
    """
    handle = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(handle)
    except OSError as error:
        # What is shared from another machine may not know it of a folder, and sees to it itself.
        if error.errno != errno.EINVAL or not path.is_dir():
            raise
    finally:
        os.close(handle)


def _secretly(path: str, flags: int) -> int:
    """Open a new file that nobody else reads before it is known who may."""
    return os.open(path, flags, 0o600)
