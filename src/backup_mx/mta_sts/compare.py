"""A policy against the MX records and the certificates that it speaks of. Nothing is asked here."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

from backup_mx.findings import Finding, Verdict
from backup_mx.mta_sts.policy import (
    Policy,
    PolicyError,
    announced,
    announced_id,
    named,
    read,
    url,
)

GATE = "mta-sts"


@dataclass(frozen=True)
class Shown:
    """The certificate a mail exchanger shows after STARTTLS: the DNS names in it.

    trouble is why senders would not trust it whatever its names: expired, self-signed, no TLS;
    error is why it could not be looked at.
    """

    names: tuple[str, ...]
    trouble: str = ""
    error: str = ""


@dataclass(frozen=True)
class Seen:
    """What there is of a domain.

    records are the TXT records at policy.record_name(); text is the policy that is served, or ""
    and then trouble says why there is none; mx are the hosts of its MX records, of those about to
    be published, too; certificates are what they show, those left out nobody was to look at.
    """

    domain: str
    records: tuple[str, ...]
    text: str
    trouble: str
    mx: tuple[str, ...]
    certificates: Mapping[str, Shown] = field(default_factory=dict)


def compare(wanted: Policy | None, seen: Seen, gate: str = GATE) -> tuple[Finding, ...]:
    """Judge what senders who heed MTA-STS would make of it; at least one finding.

    wanted is the config's policy (policy.wanted), None where it has none: then one that stands
    elsewhere still has to name every mail exchanger. What is not published yet is a warning: it
    hurts nobody, and `backup-mx dns publish` does it.
    """
    return tuple(_findings(wanted, seen, gate))


def _findings(wanted: Policy | None, seen: Seen, gate: str) -> Iterator[Finding]:
    records = announced(seen.records)
    if not records and wanted is None:
        yield Finding(gate, "pass", f"{seen.domain} has no MTA-STS, and none is wanted")
        return
    if len(records) > 1 or (records and announced_id(records[0]) is None):
        yield _ignored(seen, records, gate)
        return
    served, findings = _served(wanted, seen, gate, published=bool(records))
    yield from findings
    if served and wanted and records:
        yield from _differences(wanted, served, str(announced_id(records[0])), seen, gate)
    # What is wanted is what `dns publish` lets loose next.
    for policy in dict.fromkeys(each for each in (served, wanted) if each):
        if policy.mode != "none":
            yield from _hosts(policy, seen, gate)


def _ignored(seen: Seen, records: tuple[str, ...], gate: str) -> Finding:
    why = f"{len(records)} records" if len(records) > 1 else f'"{records[0][:80]}", which is none'
    saw = f"{seen.domain}: senders ignore MTA-STS, for _mta-sts.{seen.domain} has {why}"
    return Finding(gate, "fail", saw, "Keep one TXT record there: `backup-mx dns plan` shows it.")


def _served(
    wanted: Policy | None, seen: Seen, gate: str, *, published: bool
) -> tuple[Policy | None, tuple[Finding, ...]]:
    """Return the policy that senders get, if they get one, and what is to be said of that."""
    verdict: Verdict = "fail" if published else "warn"
    do = f"See that {url(seen.domain)} can be fetched"
    do = f"{do}." if published else f"{do}, then publish its record: `backup-mx dns publish`."
    if seen.trouble:
        saw = f"{seen.domain}: the policy cannot be fetched: {seen.trouble}"
        return None, (Finding(gate, verdict, saw, do),)
    try:
        served = read(seen.text)
    except PolicyError as error:
        saw = f"{seen.domain}: what is served is no policy: {error}"
        return None, (Finding(gate, verdict, saw, _serve_it(wanted)),)
    if not published:
        saw = f"{seen.domain}: a policy is served, and no record in DNS says so yet"
        return served, (Finding(gate, "warn", saw, "`backup-mx dns publish` does it."),)
    days = f"{served.max_age / 86_400:g} d"
    saw = f'{seen.domain}: mode "{served.mode}", remembered for {days}: {", ".join(served.mx)}'
    return served, (Finding(gate, "pass", saw),)


def _differences(
    wanted: Policy, served: Policy, known: str, seen: Seen, gate: str
) -> Iterator[Finding]:
    if served != wanted:
        saw = f"{seen.domain}: the policy that is served is not the config's"
        yield Finding(gate, "warn", saw, _serve_it(wanted))
    elif known != wanted.id:
        saw = f"{seen.domain}: the policy is new, and DNS still has the old one's id ({known})"
        yield Finding(gate, "warn", saw, "`backup-mx dns publish` changes it.")


def _serve_it(wanted: Policy | None) -> str:
    if wanted is None:
        return "Mend it where you keep it."
    return (
        "Where a relay hosts it, `backup-mx deploy` that relay; else put there what "
        "`backup-mx mta-sts render` writes."
    )


def _hosts(policy: Policy, seen: Seen, gate: str) -> Iterator[Finding]:
    """Judge each mail exchanger as a sender does that heeds ``policy``."""
    verdict: Verdict = "fail" if policy.mode == "enforce" else "warn"
    then = "mail is not sent there" if policy.mode == "enforce" else "senders report it"
    for host in seen.mx:
        if not policy.covers(host):
            saw = f"{seen.domain}: {host} is a mail exchanger, and not in the policy: {then}"
            do = f'Put "mx: {host}" into the policy, or take its MX record away.'
            yield Finding(gate, verdict, saw, do)
        elif error := _unseen(policy, seen.certificates.get(host)):
            saw = f"{seen.domain}: what {host} shows could not be looked at: {error}"
            yield Finding(gate, "unknown", saw, "Look from where its port 25 answers.")
        elif why := _distrust(host, seen.certificates.get(host)):
            saw = f"{seen.domain}: {host} {why}: {then}"
            yield Finding(gate, verdict, saw, f"Give {host} a certificate of a public authority.")


def _unseen(policy: Policy, shown: Shown | None) -> str:
    """Return why nobody knows whether senders deliver, "" where one does, or they do anyhow."""
    return shown.error if shown and policy.mode == "enforce" else ""


def _distrust(host: str, shown: Shown | None) -> str:
    """Return what a sender dislikes of a host's certificate, "" if nothing, or it was not seen."""
    if shown is None or shown.error:
        return ""
    if shown.trouble:
        return f"shows no certificate that senders trust ({shown.trouble})"
    if named(shown.names, host):
        return ""
    return f"shows a certificate for {', '.join(shown.names) or 'no name'}"
