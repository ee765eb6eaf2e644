"""Whether senders are asked to come back later, because the primary is up: pure.

A wrong "later" costs a sender a retry, a wrong "yes" lets spam past the first MX: so the gate
closes slowly and opens at the first bad walk. Whenever anything is unclear, mail is taken.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from backup_mx.relay.state import UP, Primary

STABLE = 120.0  # seconds that a primary must have been up
ACTION = "DEFER 4.3.2 standby: the first mail exchanger of this domain is up, deliver there"
"""What Postfix's access(5) makes a 450 of; by its first word the ledger counts it."""
DUNNO = "DUNNO"
_OURS = ("127.0.0.1", "::1")


def action(
    request: Mapping[str, str],
    primaries: Mapping[str, Primary],
    now: float,
    *,
    fresh: float,
    maintenance: bool = False,
) -> str:
    """Return the answer to a policy request (SMTPD_POLICY_README).

    primaries is by domain, in small letters; ``fresh`` the seconds for which a walk's result
    counts. One that senders cannot reach at its public name is to be left out of them, as the
    drain path says nothing about theirs. The relay's own postmaster, and the one without a domain,
    are in none of the domains: they are always taken. A domain's postmaster is put off as anybody
    is; the first MX takes it. What the relay hands to itself was taken long ago (``backup-mx
    import``).
    """
    ours = request.get("client_address") in _OURS
    if request.get("protocol_state") != "RCPT" or ours or maintenance:
        return DUNNO
    domain = request.get("recipient", "").rpartition("@")[2].lower()
    primary = primaries.get(domain)
    return ACTION if primary and closed(primary, now, fresh) else DUNNO


def closed(primary: Primary, now: float, fresh: float) -> bool:
    """Tell whether a primary is up, has been for STABLE seconds, and was seen to be just now."""
    walk = primary.walk
    if walk is None or not walk.good or primary.state != UP:
        return False
    # A walk of the future: the clock was set back, and how old it is cannot be told.
    return primary.since <= now - STABLE and 0 <= now - walk.time <= fresh


def by_domain(owned: Iterable[tuple[Primary, Iterable[str]]]) -> dict[str, Primary]:
    """Return the primary of each domain."""
    return {domain.lower(): primary for primary, domains in owned for domain in domains}
