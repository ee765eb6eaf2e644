"""Who answers which verb.

Each is imported when it is asked: to import all takes an eighth of a core two thirds of a second.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from importlib import import_module

from backup_mx.relay.operator.asking import Asked, Said
from backup_mx.relay.root import protocol

ANSWERS = {
    "status": ("status", "answer"),
    "queue": ("listing", "queue"),
    "show": ("stories", "show"),
    **dict.fromkeys(protocol.CHANGES, ("changing", "change")),
    "export": ("moving", "export"),
    "import": ("moving", "take_in"),
    "drain": ("changing", "drain"),
    "maintenance": ("changing", "maintain"),
    "ledger": ("stories", "ledger"),
    "guard": ("changing", "do_guard"),
}
"""For every verb that answers its module and function; other verbs run while they are wanted."""


def of(verb: str) -> Callable[[Asked], Said | Iterator[Said]]:
    """Return what answers a verb of ANSWERS: a value for programs, and lines for people.

    What may be more than memory holds is answered part by part.
    """
    module, function = ANSWERS[verb]
    found: Callable[[Asked], Said | Iterator[Said]]
    found = getattr(import_module(f"{__package__}.{module}"), function)
    return found
