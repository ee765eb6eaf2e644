"""A test notice to every place that a relay tells, sent on the relay itself as its agent does.

`backup_mx.gates.notices` sends this there and runs it, in a service of its own: the URLs, which are
secrets, stay there.
"""

from __future__ import annotations

import asyncio
import os
import time
from pathlib import Path

from backup_mx.relay import settings
from backup_mx.relay.tell.alarms import Notice
from backup_mx.relay.tell.notify import Apprise


def told() -> dict[str, str]:
    """Tell every place; return why each was not told, "" where it was. Raises MachineError.

    systemd's LoadCredential= and RuntimeDirectory= say where the settings are, and a folder to use.
    """
    known = settings.read(Path(os.environ["CREDENTIALS_DIRECTORY"], settings.PATH.name))
    title = f"[{known.relay}] a test: this is how you are told"
    body = "backup-mx tries whether its notices arrive. Nothing is wrong, nothing is to be done."
    notice = Notice("test", "info", title, body, time.time())
    return asyncio.run(_all(known.notify_urls, notice))


async def _all(urls: tuple[str, ...], notice: Notice) -> dict[str, str]:
    apprise = Apprise(Path(os.environ["RUNTIME_DIRECTORY"]))
    answers = await asyncio.gather(*(apprise.send(url, notice) for url in urls))
    # Of a URL no more than its scheme is ever said.
    names = (f"{number} ({url.partition(':')[0][:16]})" for number, url in enumerate(urls, 1))
    return dict(zip(names, answers, strict=True))
