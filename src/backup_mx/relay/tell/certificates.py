"""What an operator must know of the relay's certificates, as a Snapshot shows them. Pure."""

from __future__ import annotations

from collections.abc import Iterator

from backup_mx.relay.state import Shown, Snapshot
from backup_mx.relay.tell.alarm import FAILURE, WARNING, Alarm, clock, late, one_line
from backup_mx.relay.text import span

DAY = 86_400.0
CERTIFICATE_SOON, CERTIFICATE_NOW = 14 * DAY, 3 * DAY
CERTIFICATE_SHARE = 4  # the last quarter of a short one's time is soon; the half of that is now
ASKED_GRACE = 3600.0  # a name that is new is not known everywhere at once
RENEWED_GRACE = DAY  # while there is a good one
ASKED_SECONDS = 2 * DAY  # within which somebody asks again
ASKED_FIRST = 3600.0

KEYS = ("certificate", "asked")
"""What the keys of the alarms here begin with; that of a policy's host follows after a colon."""
_SENDING = (
    "Senders that insist on a valid one (MTA-STS, DANE) will come back later instead of "
    "handing mail over; all others do not mind."
)
_FETCHING = (
    "Senders cannot fetch the MTA-STS policy then: those that remember it hold to it, those that "
    "don't do without."
)
_PORT_80 = (
    "What to do: see journalctl -u 'backup-mx-acme@*' on the relay, whether {} leads to "
    "it, and whether port 80 is open to everybody, also at its provider; "
    "systemctl start backup-mx-acme@now asks at once."
)


def alarms(now: Snapshot) -> Iterator[Alarm]:
    """Yield what holds of each one's end, and of asking for another one."""
    own, *policies = now.certificates
    yield from _ends(now, own)
    yield from _asked(now)
    for each in policies:
        yield from _ends(now, each, each.host)
        yield from _refused(now, each)


def unknown(key: str, now: Snapshot) -> bool:
    """Whether it cannot be said if that alarm holds, since nobody has looked yet or could."""
    shown = _shown(key, now)
    if shown is None:
        return False
    if key == "asked":
        return bool(now.acme) and shown.asked is None
    return shown.ends is None and (key.startswith("certificate") or shown.asked is None)


def gone(key: str, now: Snapshot) -> bool:
    """Whether that policy is not served here any more, or no authority asked."""
    return _shown(key, now) is None or (key.startswith("asked") and not now.acme)


def _shown(key: str, now: Snapshot) -> Shown | None:
    host = key.partition(":")[2]
    return next((each for each in now.certificates if host in ("", each.host)), None)


def _ends(now: Snapshot, shown: Shown, policy: str = "") -> Iterator[Alarm]:
    """Name a certificate that ends soon; policy is the host where it is a policy's."""
    if shown.ends is None:
        return
    left, quarter = shown.ends - now.time, shown.lifetime / CERTIFICATE_SHARE
    soon = min(CERTIFICATE_SOON, quarter or CERTIFICATE_SOON)
    if left > soon:
        return
    key = f"certificate:{policy}" if policy else "certificate"
    when = f"expires in {span(left)}" if left > 0 else f"expired {span(-left)} ago"
    yield Alarm(
        key, FAILURE if left < min(CERTIFICATE_NOW, soon / 2) else WARNING, 0.0,
        f"the certificate {f'of {policy} ' if policy else ''}{when}",
        f"{_FETCHING if policy else _SENDING} {_PORT_80.format(shown.host)}",
        "The certificate is renewed.",
    )  # fmt: skip


def _asked(now: Snapshot) -> Iterator[Alarm]:
    """Name an authority that gives no certificate, or that nobody asks."""
    if not now.acme:
        return
    asked, own = now.asked, now.certificate_issuer == ""
    stands = "with one that it has made itself" if own else "with the one there is"
    if asked and asked.failures:
        yield Alarm(
            "asked", WARNING, ASKED_GRACE if own else RENEWED_GRACE,
            f"{now.acme} gives no {'' if own else 'new '}certificate",
            f'Since {clock(asked.since)}. It said: "{one_line(asked.why)}". Mail is taken all '
            f"the same, {stands}. {_PORT_80.format(now.hostname)}",
            "There is a certificate.",
        )  # fmt: skip
    elif late(now, asked.time if asked else None, ASKED_SECONDS, ASKED_FIRST):
        yield Alarm(
            "asked", WARNING, 0.0, f"{now.acme} is not asked for a certificate",
            f"Mail is taken all the same, {stands}. What to do: systemctl status "
            "backup-mx-acme.timer backup-mx-acme@due.service on the relay.",
            "It is asked again.",
        )  # fmt: skip


def _refused(now: Snapshot, shown: Shown) -> Iterator[Alarm]:
    """Name an authority that gives a policy's host none. None is asked before the name is there."""
    asked, good = shown.asked, shown.ends is not None
    if now.acme and asked and asked.failures:
        stands = "is served with the one there is" if good else "is not served"
        yield Alarm(
            f"asked:{shown.host}", WARNING, RENEWED_GRACE if good else ASKED_GRACE,
            f"{now.acme} gives no {'new ' if good else ''}certificate for {shown.host}",
            f'Since {clock(asked.since)}. It said: "{one_line(asked.why)}". Mail is taken all '
            f"the same, and the MTA-STS policy {stands}. {_PORT_80.format(shown.host)}",
            "There is a certificate.",
        )  # fmt: skip
