"""One line of Postfix's own log (maillog_file, postlogd(8)) to what it tells. Never raises.

What strangers chose (addresses, Message-IDs, headers, what servers say) stands in these lines, and
may imitate them. Trusted is only what Postfix writes around it: the program's tag, the queue ID
behind it, and fields counted from the end that a stranger's text cannot reach. Postfix 3.7 to 3.10.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable
from datetime import datetime
from functools import lru_cache
from typing import NamedTuple

from backup_mx.relay.log.events import (
    BOUNCED,
    DEFERRED,
    GARBAGE,
    PROBED,
    REFUSED,
    SENT,
    Announced,
    Arrived,
    Cancelled,
    Changed,
    Counted,
    Event,
    Expired,
    Imported,
    Named,
    Noticed,
    Parked,
    Queued,
    Rejected,
    Removed,
    Submitted,
    Swept,
    Tried,
)

_ID = r"(?:[0-9A-F]{5,20}|[0-9B-DF-HJ-NP-TV-Zb-df-hj-np-tv-z]{10,40})"  # enable_long_queue_ids
_TAG = re.compile(
    r"(?:([A-Z][a-z]{2} [ \d]\d \d\d:\d\d:\d\d)|(\d{4}-\d\d-\d\dT[\d:.]{8,15}(?:Z|[+-]\d\d:\d\d)))"
    r" \S{1,255} (postfix|backup-mx)/(?:[\w-]{1,60}/)?([\w-]{1,60})\[(\d{1,10})"
)
_TAG_ENDS = b"]: "
_IDLE = (
    b"disconnect from ",
    b"DISCONNECT ",
    b"Anonymous TLS connection established ",
    b"statistics: ",
)
"""What Postfix says most often that tells nothing; behind the tag, where no stranger writes."""

_SPOKEN_OF = re.compile(rf"({_ID}): ")
_ADDRESS = r'(?:"(?:[^"\\]|\\.)*+"(?:@[^">]*)?|[^">]*)'  # info_log_addr_form = external, RFC 5321
_CONTROLS = dict.fromkeys([*range(32), *range(127, 160), 0x2028, 0x2029], "?")


class _Said(NamedTuple):
    """What a program said at a time, of the message with an ID if not ""."""

    time: float
    id: str
    words: str
    process: int


_CLIENT = re.compile(r"client=([^,\s]+)")
_SUBMITTED = re.compile(rf"uid=\d+ from=<(.*)>(?: orig_id=({_ID}))?", re.DOTALL)
_QUEUED = re.compile(r"from=<(.*)>, size=(\d{1,18}), nrcpt=(\d{1,9}) \(queue \w+\)", re.DOTALL)
_EXPIRED = re.compile(r"from=<.*>, status=(?:force-)?expired, returned to sender", re.DOTALL)
_TRIED = re.compile(
    rf"to=<({_ADDRESS})>, (?:orig_to=<{_ADDRESS}>, )?relay=([^,\s]+), (?:[a-z_]+=[^,\s]*, )*"
    r"dsn=(\d\.\d+\.\d+), status=(\w+)(?: \((.*))?",
    re.DOTALL,
)
_NOTICED = re.compile(rf"(?:sender|postmaster) non-delivery notification: ({_ID})")
_ASKED = re.compile(r"(hold|release|requeue|delete) by=([!-~]{1,64})(?: from=([!-~]{1,64}))?")
_IMPORTED = re.compile(r"import from=([!-~]{1,200}) accepted=(\d{1,12})(?:\.\d+)? by=([!-~]{1,64})")
_REJECTED = re.compile(r"reject: \w+ from \S+: ([45])\d\d (\d\.\d+\.\d+) (.*)", re.DOTALL)
_SWEPT = re.compile(r"Deleted: (\d{1,12}) messages?")

_STATUS = {
    "sent": SENT,
    "deferred": DEFERRED,
    "SOFTBOUNCE": REFUSED,
    "bounced": BOUNCED,
    "deliverable": PROBED,
    "undeliverable": PROBED,
}
_VERBS = {
    "placed on hold": "hold",
    "released from hold": "release",
    "requeued": "requeue",
    "removed": "delete",
}
_SEVERE = re.compile("(warning|error|fatal|panic): ")
_SEVERITIES = {
    "warning": Counted("warnings"),
    "error": Counted("warnings"),
    "fatal": Counted("fatals"),
    "panic": Counted("fatals"),
}
_SCREENED = {
    "CONNECT": Counted("postscreen:connect"),
    "PASS": Counted("postscreen:pass"),
    "PREGREET": Counted("postscreen:pregreet"),
    "DNSBL": Counted("postscreen:dnsbl"),
    "HANGUP": Counted("postscreen:hangup"),
}
_REASONS = (  # code, enhanced code ("" for any), words that Postfix or our own config says
    ("5", "5.7.1", "Relay access denied; from=<", "relay_denied"),
    ("5", "5.3.4", "Message size exceeds", "size"),
    ("5", "5.1.1", "Recipient address rejected: ", "recipient"),
    ("4", "", "Service unavailable; client [", "dnsbl"),
    ("4", "4.5.1", "Protocol error; from=<", "pregreet"),
    ("4", "", "Recipient address rejected: standby", "standby"),
    ("4", "4.3.1", "Insufficient system storage", "disk"),
    ("4", "4.1.1", "Recipient address rejected: ", "unverified"),
)
_TOO_BIG = ": queue file size limit exceeded"


def parse(line: bytes, written: float) -> Event | None:
    """Return what a line tells, None where that is nothing of ours.

    written is when its file was last written to, in seconds since 1970: the year, which the stamp
    lacks, is the last one that makes it no later than that.
    """
    tag, ends, said = line.partition(_TAG_ENDS)
    told = _tag(tag, int(written) // 86400) if ends else None
    if told is None:
        return GARBAGE if _printable(line).strip() else None
    if said.startswith(_IDLE):
        return None
    stamp, family, program, process = told
    text = _printable(said)
    spoken_of = _SPOKEN_OF.match(text)
    queue_id, words = (spoken_of[1], text[spoken_of.end() :]) if spoken_of else ("", text)
    if family == "postfix":
        reader = _MESSAGE if queue_id else _SERVICE
        return reader.get(program, _complaint)(_Said(stamp, queue_id, words, process))
    return _helper(_Said(stamp, queue_id, words, 0)) if program == "helper" and queue_id else None


def when(line: bytes, written: float) -> float | None:
    """Return a line's time, None where it has none; see parse."""
    tag, ends, _ = line[:400].partition(_TAG_ENDS)
    told = _tag(tag, int(written) // 86400) if ends else None
    return told[0] if told else None


def _printable(said: bytes) -> str:
    """Return text in which nothing moves a cursor or ends a line."""
    text = said.decode("utf-8", "replace")
    return text if text.isprintable() else text.translate(_CONTROLS)


@lru_cache(maxsize=256)
def _tag(tag: bytes, day: int) -> tuple[float, str, str, int] | None:
    """Read what Postfix writes before the words: time, family, program, process; day: see _short.

    A busy process writes many lines a second, which differ only behind this.
    """
    found = _TAG.fullmatch(_printable(tag))
    if found is None:
        return None
    short, long, family, program, process = found.groups()
    stamp = _short(short, day) if short else _long(long)
    return None if stamp is None else (stamp, family, program, int(process))


@lru_cache(maxsize=256)
def _short(stamp: str, day: int) -> float | None:
    """Read ``Nov 22 07:00:00``, local time as Postfix writes it; day: the file's last, since 1970.

    Two days of grace, for a clock that was set back.
    """
    latest = (day + 2) * 86400
    this = time.gmtime(latest).tm_year
    for year in range(this, this - 9, -1):  # a 29th of February may be eight years back
        try:
            found = time.mktime(time.strptime(f"{year} {stamp}", "%Y %b %d %H:%M:%S"))
        except (ValueError, OverflowError):
            continue
        if found <= latest:
            return found
    return None


@lru_cache(maxsize=256)
def _long(stamp: str) -> float | None:
    """Read ``2026-11-22T07:00:00.123+00:00`` (RFC 3339 section 5.6)."""
    try:
        return datetime.fromisoformat(stamp).timestamp()
    except (ValueError, OverflowError):
        return None


def _smtpd(line: _Said) -> Event | None:
    if line.words.startswith("connect from "):
        return Counted("connections")
    if line.words.startswith("NOQUEUE: "):
        return _rejected(line.words[9:])
    too_big = line.words.startswith("warning: ") and line.words.endswith(_TOO_BIG)
    return Rejected("size") if too_big else _complaint(line)


def _postscreen(line: _Said) -> Event | None:
    if line.words.startswith("NOQUEUE: "):
        return _rejected(line.words[9:])
    return _SCREENED.get(line.words.partition(" ")[0]) or _complaint(line)


def _arrived(line: _Said) -> Event | None:
    client = _CLIENT.match(line.words)
    return Arrived(line.time, line.id, client[1]) if client else _rejected(line.words)


def _rejected(words: str) -> Event | None:
    found = _REJECTED.match(words)
    if found is None:
        return None
    code, enhanced, reason = found.groups()
    for of, exactly, phrase, kind in _REASONS:
        if code == of and exactly in ("", enhanced) and phrase in reason:
            return Rejected(kind)
    return Rejected(f"other{code}xx")


def _cleanup(line: _Said) -> Event | None:
    if line.words.startswith("message-id="):
        return Named(line.time, line.id, line.words[11:])
    if line.words.startswith("hold: "):
        return Parked(line.time, line.id)
    return Cancelled(line.time, line.id) if line.words == "removed (canceled)" else None


def _pickup(line: _Said) -> Event | None:
    found = _SUBMITTED.fullmatch(line.words)
    return Submitted(line.time, line.id, found[1], found[2] or "") if found else None


def _qmgr(line: _Said) -> Event | None:
    if line.words == "removed":
        return Removed(line.time, line.id)
    if found := _QUEUED.fullmatch(line.words):
        return Queued(line.time, line.id, found[1], int(found[2]), int(found[3]))
    return Expired(line.time, line.id) if _EXPIRED.fullmatch(line.words) else None


def _delivery(line: _Said) -> Event | None:
    found = _TRIED.match(line.words)
    status = _STATUS.get(found[4]) if found else None
    if found is None or status is None:
        return None
    words = (found[5] or "").removesuffix(")")
    return Tried(line.time, line.id, found[1], found[2], found[3], status, words)


def _bounce(line: _Said) -> Event | None:
    found = _NOTICED.fullmatch(line.words)
    return Noticed(line.time, line.id, found[1]) if found else None


def _postsuper(line: _Said) -> Event | None:
    verb = _VERBS.get(line.words)
    return Changed(line.time, line.id, verb, line.process) if verb else None


def _swept(line: _Said) -> Event | None:
    found = _SWEPT.fullmatch(line.words)
    return Swept(line.time, int(found[1]), line.process) if found else _complaint(line)


def _helper(line: _Said) -> Event | None:
    if asked := _ASKED.fullmatch(line.words):
        return Announced(line.time, line.id, asked[1], asked[2], asked[3] or "")
    found = _IMPORTED.fullmatch(line.words)
    return Imported(line.time, line.id, found[1], float(found[2]), found[3]) if found else None


def _complaint(line: _Said) -> Event | None:
    """Count a complaint; nothing else is known of this line."""
    if line.id:
        return None
    found = _SEVERE.match(line.words)
    return _SEVERITIES[found[1]] if found else None


_SERVICE: dict[str, Callable[[_Said], Event | None]] = {
    "smtpd": _smtpd,
    "postscreen": _postscreen,
    "postsuper": _swept,
}
"""By program, what reads its lines about no message."""

_MESSAGE: dict[str, Callable[[_Said], Event | None]] = {
    "smtpd": _arrived,
    "cleanup": _cleanup,
    "pickup": _pickup,
    "qmgr": _qmgr,
    "bounce": _bounce,
    "postsuper": _postsuper,
    **dict.fromkeys(
        ("smtp", "lmtp", "error", "retry", "discard", "local", "virtual", "pipe"), _delivery
    ),
}
"""By program, what reads its lines about a message."""
