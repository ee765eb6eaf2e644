"""When Postfix would give a message up, and when we do not let it come that far."""

from __future__ import annotations

from backup_mx.relay.queue import queueid

SHARE = 0.9
"""The part of Postfix's own limit after which a message needs a new lifetime."""


def near(queue_id: str, limit: float, now: float) -> bool:
    """Tell whether qmgr(8) would soon give the message up, if it tried it.

    limit is Postfix's lifetime of a message in seconds (commands.Postfix.lifetime). A queue ID that
    does not tell its age is taken for an old one: a requeue gives the message one that does.
    """
    made = queueid.created(queue_id)
    return made is None or now - made >= SHARE * limit
