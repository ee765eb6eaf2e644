"""Wanted against seen: the changes that makes, and what each waits for. Nothing is asked here."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator
from dataclasses import dataclass, replace

from backup_mx.config import Config
from backup_mx.config.known import zone_of
from backup_mx.config.options import Relay
from backup_mx.dns.records import LONGEST_TTL, TTL, Record, displaces
from backup_mx.dns.seen import Question, Seen, World
from backup_mx.dns.wanted import Stage, Wanted, exchanger, key_name
from backup_mx.evidence import Record as Kind
from backup_mx.mta_sts import policy

Lacking = Callable[[str, Kind], str]
"""A relay's name and a kind of record to "" where the evidence allows it, else why not."""


@dataclass(frozen=True)
class Change:
    """One record put, or records taken away, or one in the place of others.

    ttl is in seconds. waits tells why it is not made now, "" where it can be.
    """

    zone: str
    what: str
    stage: Stage
    put: Record | None
    gone: tuple[Record, ...]
    ttl: int
    relay: str = ""
    waits: str = ""

    @property
    def question(self) -> Question:
        """What is asked to see whether it has been made."""
        record = self.put or self.gone[0]
        return record.name, record.kind

    @property
    def growth(self) -> int:
        """By how many records it makes its zone larger."""
        return (self.put is not None) - len(self.gone)

    def made(self, seen: Seen) -> bool:
        """Tell whether every server has it so."""
        if seen.troubles or not seen.answers:
            return False
        return (self.put is None or seen.everywhere(self.put)) and not (
            seen.records & set(self.gone)
        )


def questions(config: Config, wanted: Iterable[Wanted]) -> list[Question]:
    """Return what has to be asked to plan and to judge."""
    asked = [(each.record.name, each.record.kind) for each in wanted]
    asked += [(domain, "MX") for domain in config.domains]
    asked += [other_family(relay) for relay in config.relays.values()]
    return list(dict.fromkeys(asked))


def other_family(relay: Relay) -> Question:
    """Return what is asked for an address of a relay that the config does not know."""
    return relay.hostname, "A" if relay.address.version == 6 else "AAAA"


def plan(
    config: Config, wanted: Iterable[Wanted], world: World, lacking: Lacking
) -> tuple[Change, ...]:
    """Return the changes that make the world as it is wanted, in the order to make them in."""
    found: list[Change] = []
    for each in wanted:
        seen = world[each.record.name, each.record.kind]
        gone = tuple(sorted(old for old in seen.records if displaces(each.record, old)))
        # A silent server may lack it: then it is looked for again, and nothing later is begun.
        if seen.everywhere(each.record) and not gone and not seen.troubles:
            continue
        # Records of one name and type have one TTL: the primary's MX is not to change its own.
        ttl = min(seen.ttl, LONGEST_TTL) if each.record.kind == "MX" else TTL
        change = Change(seen.zone, each.what, each.stage, each.record, gone, ttl, each.relay)
        waits = _waits(config, each, seen, lacking) or nameless(change, found)
        found.append(replace(change, waits=waits))
    return tuple(found)


def settled(
    wanted: Iterable[Wanted], world: World, changes: Iterable[Change]
) -> Iterator[tuple[str, str]]:
    """Yield each wanted record that needs no change: its zone, and its line in a zone file."""
    changed = {each.put for each in changes}
    for each in wanted:
        if each.record not in changed:
            seen = world[each.record.name, each.record.kind]
            yield seen.zone, each.record.line(seen.ttl)


def withdrawal(
    config: Config, relay: Relay, world: World, *, address_too: bool
) -> tuple[Change, ...]:
    """Return the changes that take a relay out of DNS: its MX records, and its names on demand.

    Every MX record of its hostname goes, whatever the preference, and the config's where nobody
    tells. Its names wait for a later run while one of its MX records is seen, or anybody is silent:
    senders, and resolvers for its TTL, go by an MX record that is gone.
    """
    asked: list[tuple[Question, Stage, str]] = [
        ((domain, "MX"), Stage.EXCHANGERS, "MX") for domain in config.domains
    ]
    if address_too:
        asked += [(each, Stage.NAMES, "address") for each in own_names(config, relay)]
    held = _led_to(relay, [world[question] for question, *_ in asked])
    found = []
    for question, stage, what in asked:
        seen = world[question]
        names = stage is Stage.NAMES
        gone = tuple(sorted(seen.records if names else _exchangers(relay, question[0], seen)))
        if gone:
            zone = seen.zone or _zone(config, question[0])
            waits = held if names else ""
            found.append(Change(zone, what, stage, None, gone, seen.ttl, relay.name, waits))
    return tuple(found)


def _led_to(relay: Relay, world: Collection[Seen]) -> str:
    """Return why a relay's names are not taken away yet, "" where nothing leads to them."""
    leading = [each for each in world if any(mx.target == relay.hostname for mx in each.records)]
    if leading:
        ttl = max(ttl for each in leading for ttl in each.ttls)
        return (
            "an MX record leads there yet: when it is gone, wait for its TTL, which is"
            f" {ttl} seconds, and run this again"
        )
    silent = "; ".join(dict.fromkeys(why for each in world for why in each.troubles))
    return f"something may lead there yet that cannot be seen: {silent}" if silent else ""


def _exchangers(relay: Relay, domain: str, seen: Seen) -> set[Record]:
    """Return a relay's MX records of a domain, as far as anybody tells."""
    if not seen.answers:
        return {exchanger(relay, domain)}
    return {each for each in seen.records if each.target == relay.hostname}


def _zone(config: Config, name: str) -> str:
    """Return the zone that the config has for a name, "" where it has none."""
    updates, cloudflare = config.dns.rfc2136, config.dns.cloudflare
    zones = dict.fromkeys(updates.zones, "") if updates else {}
    return zone_of(name, {**zones, **(cloudflare.zones if cloudflare else {})}) or ""


def own_names(config: Config, relay: Relay) -> list[Question]:
    """Return the names that are a relay's alone: its own, its key's, and those of policies."""
    hosts = (relay.hostname, *policy.hosted(config, relay.name))
    kinds = ((host, kind) for host in hosts for kind in ("A", "AAAA"))
    return [(key_name(relay), "TLSA"), *kinds]


def unready(config: Config, relay: Relay, domain: str, seen: Seen) -> str:
    """Return why a relay must not be a mail exchanger of a domain as it is, "" where it may.

    seen are the domain's MX records.
    """
    primary = config.primaries[config.domains[domain].primary].hostname
    if any(each.target == "." for each in seen.records):
        return f"{domain} says that it takes no mail at all (RFC 7505)"
    first = [each.preference for each in seen.records if each.target == primary]
    if not first:
        return (
            f"{domain} has no MX record of the primary, {primary}: that comes first, or all mail"
            " would go to the relay"
        )
    if max(first) >= relay.preference:
        return (
            f"the primary's preference is {max(first)}, and {relay.name}'s must be greater than"
            f" that: it is {relay.preference}"
        )
    return ""


def _waits(config: Config, wanted: Wanted, seen: Seen, lacking: Lacking) -> str:
    """Return the first reason why a record is not put now."""
    if not seen.answers:
        return "; ".join(seen.troubles)
    if seen.alias:
        return (
            f"{wanted.record.name} is another name of {seen.alias} (CNAME), and nothing else may"
            " stand beside that"
        )
    for relay in [wanted.relay] if wanted.relay else config.relays:
        if wanted.needs and (why := lacking(relay, wanted.needs)):
            return why if wanted.relay else f"{relay}: {why}"
    if wanted.stage is Stage.EXCHANGERS:
        own = config.relays[wanted.relay]
        domain = wanted.record.name
        return unready(config, own, domain, seen) or _unkept(domain, seen) or wanted.waits
    return wanted.waits


def _unkept(domain: str, seen: Seen) -> str:
    """Return why nothing can get the TTL of a domain's MX records: it would change that of all."""
    if len(seen.ttls) > 1:
        said = ", ".join(map(str, seen.ttls))
        return f"the name servers tell different TTLs of {domain}'s MX records: {said}"
    if seen.ttls and seen.ttls[0] > LONGEST_TTL:
        return (
            f"{domain}'s MX records have a TTL of {seen.ttls[0]} seconds: a relay that is withdrawn"
            f" would draw mail for as long. {LONGEST_TTL} at most, and 300 is better"
        )
    return ""


def nameless(change: Change, others: Iterable[Change]) -> str:
    """Return why a mail exchanger has to wait whose name leads nowhere, "" where it need not."""
    if change.stage is not Stage.EXCHANGERS:
        return ""
    names = (each for each in others if each.relay == change.relay and each.what == "address")
    return next((f"its address waits: {each.waits}" for each in names if each.waits), "")
