"""Config and facts to the records that are wanted. Nothing is asked here.

SPF and DMARC are not among them: a relay sends nobody mail of yours. What it hands over goes to the
primary alone, whose kit has it judge the one who sent the mail to the relay.
"""

from __future__ import annotations

import enum
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

from backup_mx.config import Config
from backup_mx.config.known import zone_of
from backup_mx.config.options import Relay
from backup_mx.dns.key import Key
from backup_mx.dns.records import Record
from backup_mx.evidence import Record as Kind
from backup_mx.mta_sts import policy

LEFT_ALONE = (
    "SPF and DMARC are left alone: a relay sends nobody mail of yours. It hands over to the primary"
    " only, whose kit lets it judge the original sender."
)

# Such a certificate goes when the authority's comes.
_PASSING = "it still shows the certificate that it made for itself"


class Stage(enum.IntEnum):
    """When a record is published: each stage has to be seen at every server before the next."""

    NAMES = 1
    REST = 2
    EXCHANGERS = 3


@dataclass(frozen=True)
class Wanted:
    """A record that is to stand in DNS.

    what says what it is, in a word or two; relay is whose it is, "" for a domain's own. needs is
    what the evidence of that relay, or of each, has to allow, None where none is needed. waits says
    what else has to come first, "" if nothing has. must_stand: Terraform makes MX records that
    lead here without looking it up, so that its absence is a failure, not a warning.
    """

    record: Record
    stage: Stage
    what: str
    relay: str = ""
    needs: Kind | None = None
    waits: str = ""
    must_stand: bool = False


@dataclass(frozen=True)
class Facts:
    """What is seen of the world apart from DNS records.

    keys: of each relay whose zone is signed, the key that it shows to senders. unseen: of each such
    relay whose key could not be seen, why. unserved: of each domain with an MTA-STS policy that is
    not served as the config has it, why.
    """

    keys: Mapping[str, Key] = field(default_factory=dict)
    unseen: Mapping[str, str] = field(default_factory=dict)
    unserved: Mapping[str, str] = field(default_factory=dict)


def wanted(config: Config, facts: Facts) -> tuple[Wanted, ...]:
    """Return the records that are wanted, in the order in which they are published."""
    found = [
        *(each for relay in config.relays.values() for each in _of_relay(config, relay, facts)),
        *(each for domain in config.domains for each in _of_domain(config, domain, facts)),
    ]
    return tuple(sorted(found, key=lambda each: each.stage))


def exchanger(relay: Relay, domain: str) -> Record:
    """Return the MX record that makes a relay a mail exchanger of a domain."""
    return Record(domain, "MX", f"{relay.preference} {relay.hostname}")


def address(relay: Relay, name: str = "") -> Record:
    """Return a relay's address as a record of its hostname, or of another name."""
    kind = "AAAA" if relay.address.version == 6 else "A"
    return Record(name or relay.hostname, kind, str(relay.address))


def key_name(relay: Relay) -> str:
    """Return where a relay's TLSA record is (RFC 7672, section 3.1)."""
    return f"_25._tcp.{relay.hostname}"


def by_terraform(config: Config, name: str) -> bool:
    """Tell whether it is Terraform that publishes a name: at Cloudflare, without a token."""
    cloudflare = config.dns.cloudflare
    return bool(cloudflare and not cloudflare.token and zone_of(name, cloudflare.zones))


def withheld(config: Config, domain: str) -> str:
    """Return why Terraform does not make a domain's MX records, "" where it or others do."""
    cloudflare = config.dns.cloudflare
    if cloudflare and by_terraform(config, domain) and cloudflare.publish != "mx":
        return (
            '`publish = "address"` in [dns.cloudflare] leaves it out: once `backup-mx gate run`'
            ' allows it, write "mx" there, then `backup-mx build` and `terraform apply`'
        )
    return ""


def _unseen(config: Config, relay: Relay) -> bool:
    """Tell whether Terraform makes MX records of a name that it does not make, nor looks up."""
    made = by_terraform(config, relay.hostname)
    return not made and any(by_terraform(config, domain) for domain in config.domains)


def _of_relay(config: Config, relay: Relay, facts: Facts) -> Iterator[Wanted]:
    must_stand = _unseen(config, relay)
    yield Wanted(address(relay), Stage.NAMES, "address", relay.name, "A", must_stand=must_stand)
    for host in policy.hosted(config, relay.name):
        yield Wanted(address(relay, host), Stage.NAMES, "policy host", relay.name, "A")
    if key := facts.keys.get(relay.name):
        # "3 1 1": this very key, whoever signed it; it stays when the certificate is renewed.
        record = Record(key_name(relay), "TLSA", f"3 1 1 {key.digest}")
        waits = _PASSING if key.self_signed and config.tls.acme else ""
        yield Wanted(record, Stage.REST, "TLSA", relay.name, waits=waits)


def _of_domain(config: Config, domain: str, facts: Facts) -> Iterator[Wanted]:
    if announced := policy.wanted(config, domain):
        text = Record(policy.record_name(domain), "TXT", announced.record)
        # Enforced, it makes senders hold mail for any exchanger that does not fit: proven first.
        needs: Kind | None = "MX" if policy.enforced(config) else None
        waits = facts.unserved.get(domain, "")
        yield Wanted(text, Stage.REST, "MTA-STS", needs=needs, waits=waits)
    if reports := policy.report_record(config):
        yield Wanted(Record(policy.report_name(domain), "TXT", reports), Stage.REST, "TLS reports")
    held = withheld(config, domain)
    for relay in config.relays.values():
        yield Wanted(exchanger(relay, domain), Stage.EXCHANGERS, "MX", relay.name, "MX", held)
