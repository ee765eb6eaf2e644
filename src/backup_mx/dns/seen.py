"""What every authoritative server of a zone says of a name: the world as it is, not as cached."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cached_property, partial
from typing import TypeVar

from backup_mx.dns.records import TTL, Record
from backup_mx.errors import DnsError
from backup_mx.net.dns import Answer, Names, Server

Question = tuple[str, str]
"""A name and a type."""

AT_ONCE = 16
"""How many questions are open at a time."""

Key = TypeVar("Key")
Found = TypeVar("Found")


@dataclass(frozen=True)
class Said:
    """What one server said; trouble tells why that is no answer, "" where it is one."""

    server: Server
    records: frozenset[Record] = frozenset()
    ttl: int | None = None
    alias: str = ""
    trouble: str = ""


@dataclass(frozen=True)
class Seen:
    """What is seen of one question: the zone that it is in, and what each server said.

    trouble tells why nobody could be asked, "" where somebody could.
    """

    zone: str
    said: tuple[Said, ...] = ()
    trouble: str = ""

    @cached_property
    def answers(self) -> tuple[Said, ...]:
        """What was said by those who answered."""
        return tuple(each for each in self.said if not each.trouble)

    @cached_property
    def troubles(self) -> tuple[str, ...]:
        """What kept each of the others from answering."""
        found = (self.trouble, *(each.trouble for each in self.said))
        return tuple(each for each in found if each)

    @cached_property
    def records(self) -> frozenset[Record]:
        """What any of them has."""
        return frozenset(record for each in self.answers for record in each.records)

    @cached_property
    def alias(self) -> str:
        """The name that a CNAME leads to, by any of them."""
        return next((each.alias for each in self.answers if each.alias), "")

    @cached_property
    def ttls(self) -> tuple[int, ...]:
        """The seconds that the records there are kept: one number where all servers agree."""
        return tuple(sorted({each.ttl for each in self.answers if each.ttl is not None}))

    @property
    def ttl(self) -> int:
        """The seconds for one more of the records there: theirs if servers agree, else ours."""
        return self.ttls[0] if len(self.ttls) == 1 else TTL

    def everywhere(self, record: Record) -> bool:
        """Tell whether all who answered have it, and somebody did."""
        return bool(self.answers) and all(record in each.records for each in self.answers)


World = Mapping[Question, Seen]


def look(names: Names, questions: Iterable[Question]) -> dict[Question, Seen]:
    """Ask every server of each question's zone. What cannot be told is part of the answer."""
    wanted = list(dict.fromkeys(questions))
    zones = _each(names.zone, {name for name, _ in wanted})
    servers = _each(names.authoritative, {each for each in zones.values() if isinstance(each, str)})
    asked = [
        (question, server)
        for question in wanted
        for server in _or_none(servers.get(str(zones[question[0]])))
    ]
    said = _each(partial(_said, names, zones), asked)
    return {
        question: _seen(
            zones[question[0]],
            servers,
            tuple(
                each for (of, _), each in said.items() if of == question and isinstance(each, Said)
            ),
        )
        for question in wanted
    }


def _said(
    names: Names, zones: Mapping[str, str | DnsError], asked: tuple[Question, Server]
) -> Said:
    (name, kind), server = asked
    try:
        answer = names.ask(server, name, kind)
    except DnsError as error:
        return Said(server, trouble=str(error))
    if trouble := _trouble(answer, server, str(zones[name])):
        return Said(server, trouble=trouble)
    records = frozenset(
        Record(name, kind, data, answer.cuts.get(data, "")) for data in answer.records
    )
    return Said(server, records, answer.ttl, answer.alias)


def _trouble(answer: Answer, server: Server, zone: str) -> str:
    if answer.rcode not in ("NOERROR", "NXDOMAIN"):
        return f"{server} answers {answer.rcode}"
    return "" if answer.authoritative else f"{server} does not answer for {zone}"


def _seen(
    zone: str | DnsError,
    servers: Mapping[str, tuple[Server, ...] | DnsError],
    said: tuple[Said, ...],
) -> Seen:
    if isinstance(zone, DnsError):
        return Seen("", trouble=str(zone))
    found = servers[zone]
    return Seen(zone, trouble=str(found)) if isinstance(found, DnsError) else Seen(zone, said)


def _or_none(found: tuple[Server, ...] | DnsError | None) -> tuple[Server, ...]:
    return found if isinstance(found, tuple) else ()


def _each(call: Callable[[Key], Found], keys: Iterable[Key]) -> dict[Key, Found | DnsError]:
    """Call for each key, side by side; return what came of it, or the DnsError."""

    def caught(key: Key) -> Found | DnsError:
        try:
            return call(key)
        except DnsError as error:
            return error

    listed = list(keys)
    # Made here and not kept: its threads stand in the network namespace that this one stands in.
    with ThreadPoolExecutor(AT_ONCE) as pool:
        return dict(zip(listed, pool.map(caught, listed), strict=True))
