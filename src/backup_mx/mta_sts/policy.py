"""A policy: how it is written and read, and the one that a config wants. No I/O.

https://mta-sts.DOMAIN/.well-known/mta-sts.txt   the policy (RFC 8461, section 3.2)
_mta-sts.DOMAIN TXT                              says that there is one, and which (3.1)
_smtp._tls.DOMAIN TXT                            where senders report failures (RFC 8460, 3)
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from backup_mx.config import Config

PATH = "/.well-known/mta-sts.txt"
MODES = ("enforce", "testing", "none")
LONGEST = 31_557_600
"""The greatest max_age, in seconds: a year."""
_MX = re.compile(r"(?:\*\.)?[a-z0-9](?:[a-z0-9.-]*[a-z0-9])?")
_FIELD = re.compile(r"\s*([A-Za-z0-9][A-Za-z0-9_.-]{0,31})\s*:\s*(.*?)\s*")
_RECORD = re.compile(r"v=STSv1(?:\s*;\s*[a-z0-9][a-z0-9_.-]*=[^\s;]*)+\s*;?\s*", re.IGNORECASE)
_ID = re.compile(r";\s*id=([A-Za-z0-9]{1,32})\s*(?:;|$)")


class PolicyError(Exception):
    """What is served is no policy; the text says why."""


@dataclass(frozen=True)
class Policy:
    """What senders are asked for: mode, for how long they remember it (seconds), at which hosts."""

    mode: str
    max_age: int
    mx: tuple[str, ...]

    @property
    def text(self) -> str:
        """The policy as it is served."""
        lines = ("version: STSv1", f"mode: {self.mode}", *(f"mx: {name}" for name in self.mx))
        return "".join(f"{line}\r\n" for line in (*lines, f"max_age: {self.max_age}"))

    @property
    def id(self) -> str:
        """What tells this policy from any other one: another text, another id."""
        return hashlib.sha256(self.text.encode()).hexdigest()[:32]

    @property
    def record(self) -> str:
        """The TXT record at record_name() that announces it."""
        return f"v=STSv1; id={self.id};"

    def covers(self, host: str) -> bool:
        """Tell whether mail may go to ``host``: one of the mx names or patterns is its."""
        return named(self.mx, host)


def wanted(config: Config, domain: str) -> Policy | None:
    """Return the policy that ``config`` has for one of its domains; None without [mta_sts].

    It has every relay before DNS does: a host in it that gets no mail does no harm, and an MX that
    is not in it gets none.
    """
    options = config.mta_sts
    if options is None:
        return None
    own = config.primaries[config.domains[domain].primary].hostname
    relays = [relay.hostname for relay in config.relays.values()]
    hosts = dict.fromkeys([own, *relays, *config.domains[domain].other_mx])
    return Policy(options.mode, options.max_age, tuple(hosts))


def enforced(config: Config) -> bool:
    """Tell whether senders are to hold back mail for whoever does not fit the policy."""
    return config.mta_sts is not None and config.mta_sts.mode == "enforce"


def hosted(config: Config, relay: str) -> dict[str, Policy]:
    """Return the policies that the relay called ``relay`` serves: host name to policy."""
    if config.mta_sts is None or config.mta_sts.hosted_by != relay:
        return {}
    found = {host(domain): wanted(config, domain) for domain in config.domains}
    return {name: policy for name, policy in found.items() if policy}


def host(domain: str) -> str:
    """Return the name of the web server that has a domain's policy."""
    return f"mta-sts.{domain}"


def url(domain: str) -> str:
    """Return where a domain's policy is."""
    return f"https://{host(domain)}{PATH}"


def record_name(domain: str) -> str:
    """Return where the TXT record is that announces a domain's policy."""
    return f"_mta-sts.{domain}"


def report_name(domain: str) -> str:
    """Return where the TXT record is that asks for reports on TLS (RFC 8460, section 3)."""
    return f"_smtp._tls.{domain}"


def report_record(config: Config) -> str | None:
    """Return that record; None where the config names nobody who wants reports."""
    options = config.mta_sts
    if options is None or options.reports_to is None:
        return None
    return f"v=TLSRPTv1; rua=mailto:{options.reports_to}"


def read(text: str) -> Policy:
    """Read a policy as senders do. Raises PolicyError where they would ignore it."""
    fields: dict[str, list[str]] = {}
    for key, value in _fields(text):
        fields.setdefault(key, []).append(value)
    # Of a field that may be there once, the first counts.
    version, mode, max_age = (fields.get(key, [""])[0] for key in ("version", "mode", "max_age"))
    if version != "STSv1":
        raise PolicyError('it does not say "version: STSv1"')
    if mode not in MODES:
        raise PolicyError(f"its mode is none of {', '.join(MODES)}")
    if not re.fullmatch(r"[0-9]{1,10}", max_age, re.ASCII) or int(max_age) > LONGEST:
        raise PolicyError(f"its max_age is no number of seconds up to {LONGEST}")
    names = tuple(name.lower().rstrip(".") for name in fields.get("mx", []))
    if wrong := [name for name in names if not _MX.fullmatch(name)]:
        raise PolicyError(f'"{wrong[0][:100]}" is no name of a mail exchanger')
    if not names and mode != "none":
        raise PolicyError("it names no mail exchanger")
    return Policy(mode, int(max_age), names)


def _fields(text: str) -> Iterator[tuple[str, str]]:
    for line in re.split(r"\r?\n", text):
        if not line.strip():
            continue
        found = _FIELD.fullmatch(line)
        if not found:
            raise PolicyError("it has a line that is no field")
        yield found[1], found[2]


def announced(records: tuple[str, ...]) -> tuple[str, ...]:
    """Return those TXT records of a name that speak of MTA-STS, valid or not."""
    return tuple(each for each in records if re.match(r"v=STSv1\s*(;|$)", each))


def announced_id(record: str) -> str | None:
    """Return the id in a record that speaks of MTA-STS; None where senders would ignore it."""
    found = _ID.search(record)
    return found[1] if found and _RECORD.fullmatch(record) else None


def matches(pattern: str, name: str) -> bool:
    """Tell whether a name, or one with ``*`` for its first label, is ``name`` (section 4.1)."""
    pattern, name = pattern.lower().rstrip("."), name.lower().rstrip(".")
    if pattern.startswith("*."):
        return name.partition(".")[2] == pattern[2:]
    return pattern == name


def named(patterns: Iterable[str], host: str) -> bool:
    """Tell whether one of these names, of a policy or in a certificate, is for ``host``."""
    return any(matches(pattern, host) for pattern in patterns)
