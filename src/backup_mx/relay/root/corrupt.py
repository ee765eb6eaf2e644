"""Delete what qmgr(8) has put aside as damaged, which postsuper(1) does not reach."""

from __future__ import annotations

import os
from pathlib import Path

QUEUE = "corrupt"
_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC


def delete(spool: Path, queue_id: str) -> None:
    """Delete a damaged file of the queue directory. Raises OSError.

    What lies in the folder is Postfix's to name: root follows no link there, as unlink(2) does not.
    """
    folder = os.open(spool / QUEUE, _FOLDER)
    try:
        os.unlink(queue_id, dir_fd=folder)
    finally:
        os.close(folder)
