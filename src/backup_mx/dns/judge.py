"""What stands in DNS, judged: every record at every server, and who else takes the mail."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

from backup_mx.config import Config
from backup_mx.dns.plan import other_family, unready
from backup_mx.dns.records import Record, displaces
from backup_mx.dns.seen import Seen, World
from backup_mx.dns.wanted import Stage, Wanted, exchanger, withheld
from backup_mx.findings import Finding, Verdict

PUBLISH = "backup-mx dns publish"


def judge(
    config: Config, wanted: Iterable[Wanted], world: World, missing: Verdict = "fail"
) -> list[Finding]:
    """Return what is wrong with the records of the relays, and what is right.

    missing is the verdict on what stands at no server yet, but for what must stand.
    """
    found: list[Finding] = []
    listed = list(wanted)
    for each in listed:
        if each.stage is not Stage.EXCHANGERS:
            seen = world[each.record.name, each.record.kind]
            absent = "fail" if each.must_stand else missing
            found += standing(each.what, each.record, seen, absent)
    for relay in config.relays.values():
        for record in sorted(world[other_family(relay)].records):
            saw = f"{relay.hostname} is {record.data}, too, which the config does not know"
            do = "Senders try that as well: see that port 25 is open there, or take it away."
            found.append(Finding("address", "warn", saw, do))
    for domain in config.domains:
        own = [each.record for each in listed if each.record.name == domain]
        mine = [each for each in own if each.kind == "MX"]
        found += exchangers(config, domain, world[domain, "MX"], mine, missing)
    return found


def exchangers(
    config: Config,
    domain: str,
    seen: Seen,
    wanted: Sequence[Record] | None = None,
    missing: Verdict = "fail",
) -> Iterator[Finding]:
    """Judge the MX records of a domain; wanted are the relays', by default of all of them."""
    if wanted is None:
        wanted = [exchanger(relay, domain) for relay in config.relays.values()]
    for record in wanted:
        yield from standing("MX", record, seen, missing, withheld(config, domain) or PUBLISH)
    if not seen.answers:
        return
    reasons = (unready(config, relay, domain, seen) for relay in config.relays.values())
    for why in filter(None, dict.fromkeys(reasons)):
        yield Finding("MX", "fail", why, "Mend the zone: nothing here changes the primary's.")
    known = {each.hostname for each in config.relays.values()}
    known.add(config.primaries[config.domains[domain].primary].hostname)
    known.update(config.domains[domain].other_mx)
    for record in sorted(seen.records):
        if record.target not in known | {"."}:  # the root is a reason of its own, above
            saw = f"{domain}: {record.data} is neither the primary nor a relay of this config"
            do = f'It takes your mail: take it away, or name it in [domain."{domain}"] other_mx.'
            yield Finding("MX", "fail", saw, do)


def standing(
    what: str, record: Record, seen: Seen, missing: Verdict = "fail", do: str = PUBLISH
) -> Iterator[Finding]:
    """Judge whether a record stands at every server, and nothing in its place.

    missing is the verdict on one that stands at none, do what is to be done about that.
    """
    shown = f"{record.name} {record.kind} {record.data}"
    for trouble in seen.troubles:
        yield Finding(what, "unknown", f"{shown}: {trouble}")
    if not seen.answers:
        return
    lack = [each.server for each in seen.answers if record not in each.records]
    others = sorted(each for each in seen.records if displaces(record, each))
    for other in others:
        having = [str(each.server) for each in seen.answers if other in each.records]
        saw = f"{', '.join(having)}: {other.data} instead of {record.data} at {record.name}"
        yield Finding(what, "fail", saw, PUBLISH)
    if len(lack) == len(seen.answers) and not others:
        yield Finding(what, missing, f"{shown}: not published", do)
    elif lack and not others:
        saw = f"{shown}: not at {', '.join(map(str, lack))}"
        yield Finding(what, "fail", saw, "See why that server does not follow the others.")
    elif not lack and not others:
        yield Finding(what, "pass", f"{shown}, at {len(seen.answers)} of {len(seen.said)} servers")
