"""Why a message waits: Postfix's words for it, sorted into what an operator can act on.

The words are those of smtp(8) and error(8), Postfix 3.7 to 3.10 (smtp_connect.c, smtp_proto.c,
smtp_trouble.c). What a server said stands behind Postfix's own words: only those decide.
"""

from __future__ import annotations

import re
from collections.abc import Iterable

HELD, REFUSED, CAPABILITY, TLS, PUT_OFF, UNREACHABLE, LOCAL, MAINTENANCE, NEW = CLASSES = (
    "held",  # somebody, or the end of its lifetime, took it out of delivery
    "refused",  # the primary answered 5xx
    "capability",  # it needs what the primary does not have: SMTPUTF8, more SIZE
    "tls",  # there is no TLS as the config wants it: none, no handshake, another certificate
    "4xx",  # the primary asks to come back later
    "unreachable",  # no connection, or one that broke off
    "local",  # the relay itself cannot deliver it: no drain target, a program that fails
    "maintenance",  # the operator wants it kept for a while (root/maintenance.py)
    "new",  # it has not been tried yet
)
"""The classes, the one that needs the operator most first."""

_SUSPENDED = "delivery temporarily suspended: "
_SERVER = r"host \S{1,300}"
_PATTERNS = [
    (re.compile(pattern), name)
    for pattern, name in (
        (rf"{_SERVER} (?:said|refused to talk to me): 5", REFUSED),
        (rf"{_SERVER} (?:said|refused to talk to me): ", PUT_OFF),
        (r"TLS is required|Cannot start TLS|Server certificate not ", TLS),
        (r"(?:SMTPUTF8|REQUIRETLS) is required|message (?:size \d+ exceeds|requires)", CAPABILITY),
        (
            r"connect to |lost connection with |conversation with |Host or domain name not found"
            r"|Host not found|Name service error|network address ",
            UNREACHABLE,
        ),
        (r"maintenance until ", MAINTENANCE),
    )
]


def class_of(reason: str) -> str:
    """Return the class of a recipient's ``delay_reason`` (postqueue(1), -j)."""
    own = reason.removeprefix(_SUSPENDED)
    return next((name for pattern, name in _PATTERNS if pattern.match(own)), LOCAL if own else NEW)


def worst(classes: Iterable[str]) -> str:
    """Return the class that needs the operator most; "new" where there is none."""
    return min(classes, key=CLASSES.index, default=NEW)
