"""Postfix's queue IDs: what is one, and when its file was made.

A long ID (enable_long_queue_ids, postconf(5)) is the time in seconds, then in microseconds (four
digits), both to the base 52, a "z", and the inode to the base 51 (mail_queue.h).
"""

from __future__ import annotations

import re

_DIGITS = {
    digit: value
    for value, digit in enumerate("0123456789BCDFGHJKLMNPQRSTVWXYZbcdfghjklmnpqrstvwxyz")
}
_BASE_52 = "[0-9B-DF-HJ-NP-TV-Zb-df-hj-np-tv-z]"
_BASE_51 = "[0-9B-DF-HJ-NP-TV-Zb-df-hj-np-tv-y]"
_LONG = re.compile(f"({_BASE_52}{{6,10}})({_BASE_52}{{4}})z{_BASE_51}{{1,14}}")
_SHORT = re.compile(r"[0-9A-F]{6,20}")


def valid(text: object) -> bool:
    """Tell whether ``text`` is a queue ID, long or short: nothing else may reach a program."""
    if not isinstance(text, str):
        return False
    return bool(_LONG.fullmatch(text) or _SHORT.fullmatch(text))


def created(queue_id: str) -> float | None:
    """Return when the queue file was made, in seconds since 1970: qmgr(8) judges its age by that.

    A requeue makes a new file, with a new ID; hold and release do not. None for a short ID, which
    does not tell.
    """
    found = _LONG.fullmatch(queue_id)
    return _number(found[1]) + _number(found[2]) / 1e6 if found else None


def _number(digits: str) -> int:
    value = 0
    for digit in digits:
        value = value * len(_DIGITS) + _DIGITS[digit]
    return value
