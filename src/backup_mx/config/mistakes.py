"""Mistakes: what is wrong with a config file, each with its path, line, value and remedy.

A mistake is either one option's own fault, which pydantic found, or a conflict: wrong only together
with another option. The options' declarations come in as ``sections``: `backup_mx.config` has them.
"""

from __future__ import annotations

import bisect
import contextlib
import functools
import re
import tomllib
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from pydantic.fields import FieldInfo
from pydantic_core import ErrorDetails

from backup_mx.config.checks import (
    Options,
    RefusedError,
    check_of,
    escaped,
    follows,
    is_listed,
    takes,
    to_toml,
)
from backup_mx.config.conflicts import Conflict, of_cloudflare, of_oci, of_policy, of_updates
from backup_mx.config.values import WIREGUARD_KEY, DomainCheck, SecretCheck, ip
from backup_mx.errors import Problem, did_you_mean

Tables = Mapping[str, Any]
Sections = Mapping[str, type[Options]]
_Path = tuple[str | int, ...]

# Characters that the search for lines may parse in all: a second's work or so, and many times what
# a file written by hand takes. Without a bound it grows with the square of a long value's lines.
_EFFORT = 1_000_000
_NAMED = ("relay", "primary", "domain")


@dataclass(frozen=True)
class _Mistake:
    path: _Path
    expected: str
    hint: str = ""
    secret: bool = False  # what stands there is not shown


def problems_of(
    text: str,
    tables: Tables,
    faults: Iterable[ErrorDetails],
    sections: Sections,
    outside: Iterable[Conflict],
) -> list[Problem]:
    """Return every mistake in a config, in the file's order; none if it is right.

    ``tables`` is what ``text`` parses to, ``faults`` what pydantic found when it made a Config of
    them, ``sections`` the options of each table of the file, ``outside`` what is wrong with what
    the text only names.
    """
    line_of = _line_finder(text)
    named = (_Mistake(*conflict) for conflict in outside)
    mistakes = [*_conflicts(tables, sections), *_faults(faults, tables, sections), *named]
    problems = [_problem(mistake, tables, line_of) for mistake in mistakes]
    return sorted(problems, key=lambda each: (each.line or 0, each.path))


def table(parent: Tables, key: str) -> Tables:
    """Return the table under ``key``, or an empty one where there is none or something else."""
    found = parent.get(key)
    return found if isinstance(found, dict) else {}


# ── Faults: what is wrong with one option ─────────────────────────────────────────────────────────


def _faults(
    faults: Iterable[ErrorDetails], tables: Tables, sections: Sections
) -> Iterator[_Mistake]:
    """Tell what pydantic found, except what merely follows from another mistake."""
    for found in faults:
        path = found["loc"]
        if path[-1] == "[key]" and found["type"] != "extra_forbidden":
            path = path[:-1]  # pydantic's way to say that the key itself is wrong
        inner = found.get("ctx", {}).get("error")
        unquoted = _unquoted_domain(path, tables)
        if unquoted and found["type"] == "extra_forbidden":
            continue
        if found["type"] == "missing":
            option = _options(path, sections)[str(path[-1])]
            if not follows(option):
                yield _Mistake(path, f"missing: expected {takes(option)}")
        elif found["type"] == "extra_forbidden":
            known = _options(path, sections) if len(path) > 1 else sections
            hint = did_you_mean(str(path[-1]), known)
            secret = _looks_secret(path, tables, sections)
            yield _Mistake(path, "there is no such option", hint, secret)
        elif not _exists(tables, path):
            continue
        elif isinstance(inner, RefusedError):
            secret = _is_secret(path, sections)
            yield _Mistake(path, inner.expected, unquoted or inner.hint, secret)
        else:
            shape = "a list in square brackets" if found["type"] == "tuple_type" else "a table"
            yield _Mistake(path, f"expected {shape}")


def _options(path: _Path, sections: Sections) -> Mapping[str, FieldInfo]:
    """Return the options that the table has in which ``path`` ends."""
    for end in (2, 1):  # [cloud.oci] has options of its own, [relay.mx2] those of all relays
        if model := sections.get(".".join(map(str, path[:end]))):
            return model.model_fields
    start = f"{path[0]}."
    return {key.removeprefix(start): FieldInfo() for key in sections if key.startswith(start)}


def _is_secret(path: _Path, sections: Sections) -> bool:
    named = next(part for part in reversed(path) if isinstance(part, str))  # not a list's index
    option = _options(path, sections).get(named)
    return option is not None and check_of(option) is SecretCheck


def _looks_secret(path: _Path, tables: Tables, sections: Sections) -> bool:
    """Tell whether a secret may stand under a name that is no option: misspelt, or misplaced."""
    secrets = [
        key
        for model in sections.values()
        for key, field in model.model_fields.items()
        if check_of(field) is SecretCheck and not is_listed(field)
    ]
    value = _at(tables, path) if _exists(tables, path) else None
    values = value if isinstance(value, list) else [value]
    # A URL of a place that is told may hold a token, whatever it stands under.
    telling = any(
        isinstance(each, str) and (WIREGUARD_KEY.fullmatch(each) or "://" in each)
        for each in values
    )
    return telling or bool(did_you_mean(str(path[-1]), secrets))


def _unquoted_domain(path: _Path, tables: Tables) -> str:
    """See through [domain.example.org], which TOML reads as a table org in a table example."""
    if path[:1] != ("domain",) or len(path) < 2 or "." in str(path[1]):
        return ""
    words, inner = [str(path[1])], table(table(tables, "domain"), str(path[1]))
    while key := next((key for key, value in inner.items() if isinstance(value, dict)), ""):
        words, inner = [*words, key], inner[key]
    return f'with quotes: [domain."{escaped(".".join(words))}"]' if len(words) > 1 else ""


# ── Conflicts: what is wrong only together ────────────────────────────────────────────────────────


def _conflicts(tables: Tables, sections: Sections) -> Iterator[_Mistake]:
    """Tell what clashes, judging by the values that are right whatever else is wrong."""
    relays, primaries, domains = (
        _right_values(table(tables, section), sections[section]) for section in _NAMED
    )
    for section in _NAMED:
        if tables.get(section, {}) == {}:
            yield _Mistake((section,), f"expected a table such as [{sections[section].heading}]")
    yield from _twins(relays)
    edges = _right_values(table(tables, "edge"), sections["edge"])
    for name, primary in primaries.items():
        yield from _loops(name, primary, relays)
        yield from _tunnel(name, primary, table(table(tables, "primary"), name))
    if any("wireguard_endpoint" in primary for primary in primaries.values()):
        yield from _ways_in(table(tables, "relay"))
    yield from _inner_addresses(primaries, relays)
    for section, owned in (("domain", domains), ("edge", edges)):
        for name, options in owned.items():
            yield from _owner(section, name, options, tables)
    yield from _same_domain(table(tables, "domain"))
    yield from _relays_as_domains(domains, relays)
    for section, key in (
        ("operator", "address"), ("queue", "canary_message_to"), ("roundtrip", "recipient")
    ):  # fmt: skip
        given = dict(checked(table(tables, section), sections[section]))
        yield from _mail_elsewhere((section, key), str(given.get(key, "")), table(tables, "domain"))
    yield from _open_dashboard(table(tables, "access"))
    found = (
        *_clouds(tables, sections, relays, domains),
        *_published(tables, sections, relays, domains),
    )
    for conflict in found:
        yield _Mistake(*conflict)


def _clouds(
    tables: Tables, sections: Sections, relays: Mapping[str, Tables], domains: Mapping[str, Tables]
) -> Iterator[Conflict]:
    """Tell what clashes with the cloud and with Cloudflare, where the file has them."""
    if "oci" in table(tables, "cloud"):
        access = dict(checked(table(tables, "access"), sections["access"]))
        yield from of_oci(_part(tables, sections, "cloud", "oci"), relays, access)
    yield from of_cloudflare(_part(tables, sections, "dns", "cloudflare"), relays, domains)


def _published(
    tables: Tables, sections: Sections, relays: Mapping[str, Tables], domains: Mapping[str, Tables]
) -> Iterator[Conflict]:
    """Tell what clashes with what is published otherwise."""
    hostnames = (relay["hostname"] for relay in relays.values() if "hostname" in relay)
    updates, cloudflare = (
        _part(tables, sections, "dns", name) for name in ("rfc2136", "cloudflare")
    )
    yield from of_updates(updates, cloudflare, dict.fromkeys((*hostnames, *domains)))
    policy, tls = (
        dict(checked(table(tables, name), sections[name])) for name in ("mta_sts", "tls")
    )
    yield from of_policy(policy, relays, tls)


def _part(tables: Tables, sections: Sections, section: str, name: str) -> Tables:
    """Return what is right of a table such as [cloud.oci], with its defaults."""
    model = sections[f"{section}.{name}"]
    return dict(checked(_with_defaults(table(table(tables, section), name), model), model))


def _with_defaults(options: Tables, model: type[Options]) -> Tables:
    """Return a table's options, and those that it leaves out as if they stood there."""
    fields = model.model_fields.items()
    fixed = {key: field.default for key, field in fields if not field.is_required()}
    return {key: value for key, value in {**fixed, **options}.items() if value is not None}


def _open_dashboard(access: Tables) -> Iterator[_Mistake]:
    """Tell where the dashboard would need a password that it has not."""
    path = ("access", "dashboard_password")
    if "dashboard_password" in access:
        return
    if access.get("dashboard_from"):
        yield _Mistake(path, "missing: others than the relay itself may open the dashboard")
    elif access.get("dashboard_actions"):
        yield _Mistake(path, "missing: whoever has a login there could delete mail")


def _right_values(named: Tables, model: type[Options]) -> dict[str, dict[str, Any]]:
    """Return, of each table of a section, the options whose values their Checks take."""
    return {
        name: dict(checked(options, model))
        for name, options in named.items()
        if isinstance(options, dict)
    }


def checked(options: Tables, model: type[Options]) -> Iterator[tuple[str, object]]:
    """Yield the options of a table whose values their Checks take, and what these become."""
    for key, field in model.model_fields.items():
        if key in options:
            given, check = options[key], check_of(field)
            with contextlib.suppress(ValueError):
                if not is_listed(field):
                    yield key, check(given)
                elif isinstance(given, list):
                    yield key, [check(each) for each in given]


def _twins(relays: Mapping[str, Mapping[str, object]]) -> Iterator[_Mistake]:
    seen: dict[object, str] = {}
    for name, relay in relays.items():
        for key in ("hostname", "address", "wireguard_address"):
            if key in relay and seen.setdefault(relay[key], name) != name:
                yield _Mistake(
                    ("relay", name, key),
                    f"expected one of its own, but {_dotted(('relay', seen[relay[key]]))} has it",
                )


def _loops(name: str, primary: Tables, relays: Mapping[str, Tables]) -> Iterator[_Mistake]:
    """Tell where a relay would hand its mail to a relay."""
    path: _Path = ("primary", name)
    owners = {
        str(relay[key]): _dotted(("relay", owner))
        for owner, relay in relays.items()
        for key in ("hostname", "address")
        if key in relay
    }
    if owner := owners.get(primary.get("hostname", "")):
        yield _Mistake((*path, "hostname"), f"expected another host than {owner}'s")
    drain = primary.get("drain_to")
    if drain and (owner := owners.get(drain.host)):
        expected = f"expected the primary's host and port, but this is {owner} itself: a loop"
        yield _Mistake((*path, "drain_to"), expected)
    elif drain and drain.port == 25 and _is_loopback(drain.host):
        # Another port of the loopback may be a tunnel's end; at 25 the relay itself answers.
        expected = "expected the primary's host and port, but there the relay itself answers"
        yield _Mistake((*path, "drain_to"), expected)


def _relays_as_domains(domains: Tables, relays: Mapping[str, Tables]) -> Iterator[_Mistake]:
    """Tell where a relay's own name is to be a mail domain: Postfix has it as its own already."""
    owners = {relay.get("hostname"): name for name, relay in relays.items()}
    for name in domains:
        if owner := owners.get(name.lower()):
            expected = f"expected a mail domain, but this is the host {_dotted(('relay', owner))}"
            yield _Mistake(("domain", name), expected)


def _is_loopback(host: str) -> bool:
    with contextlib.suppress(ValueError):
        address = ip(host)
        return address.is_loopback or address.is_unspecified
    return host.rpartition(".")[2] == "localhost"


def _tunnel(name: str, primary: Tables, given: Tables) -> Iterator[_Mistake]:
    """Tell where a primary's side of a tunnel is half told, or mail would go beside it.

    primary holds its right values, given all that the file says.
    """
    path: _Path = ("primary", name)
    ends = ("wireguard_endpoint", "wireguard_public_key")
    if len(missing := [key for key in ends if key not in given]) == 1:
        yield _Mistake((*path, *missing), "missing: a tunnel needs both its end point and its key")
    drain = primary.get("drain_to")
    if ends[0] in primary and (drain is None or not _is_address(drain.host)):
        expected = "expected the address inside the tunnel, and a port"
        yield _Mistake((*path, "drain_to"), expected)


def _ways_in(relays: Tables) -> Iterator[_Mistake]:
    """Tell which relay could not enter the tunnel that a primary has."""
    for name, given in relays.items():
        for key in ("wireguard_address", "wireguard_key"):
            if isinstance(given, dict) and key not in given:
                yield _Mistake(("relay", name, key), "missing: a primary is behind a tunnel")


def _inner_addresses(
    primaries: Mapping[str, Tables], relays: Mapping[str, Tables]
) -> Iterator[_Mistake]:
    """Tell where a tunnel's addresses cannot be routed: taken twice, or of two families."""
    inner = [
        relay["wireguard_address"] for relay in relays.values() if "wireguard_address" in relay
    ]
    seen: dict[object, tuple[str, object]] = dict.fromkeys(inner, ("a relay", None))
    for name, primary in primaries.items():
        drain = primary.get("drain_to")
        if "wireguard_endpoint" not in primary or drain is None or not _is_address(drain.host):
            continue
        address, path = ip(drain.host), ("primary", name, "drain_to")
        # Two primaries may stand behind one peer, at two ports of its address.
        key = primary.get("wireguard_public_key")
        owner, owners_key = seen.setdefault(address, (_dotted(("primary", name)), key))
        if owners_key != key:
            yield _Mistake(path, f"expected an address of its own, but {owner} has it")
        if inner and all(each.version != address.version for each in inner):
            family = f"IPv{inner[0].version}"
            yield _Mistake(
                path, f"expected an {family} address, as the relays' wireguard_address is"
            )


def _is_address(host: str) -> bool:
    with contextlib.suppress(ValueError):
        return bool(ip(host))
    return False


def _owner(section: str, name: str, owned: Tables, tables: Tables) -> Iterator[_Mistake]:
    """Tell where the primary of a domain or edge does not stand in the file, or is not told."""
    path, primaries = (section, name, "primary"), table(tables, "primary")
    known = ", ".join(_dotted((primary,)) for primary in primaries)
    if "primary" in owned and primaries and owned["primary"] not in primaries:
        expected = f"expected the name of a [primary.NAME]: {known}"
        yield _Mistake(path, expected, did_you_mean(owned["primary"], primaries))
    if not _exists(tables, path) and len(primaries) > 1:
        yield _Mistake(path, f"missing: expected one of the primaries: {known}")


def _same_domain(domains: Tables) -> Iterator[_Mistake]:
    """Tell where a domain stands a second time, in other letters."""
    seen = set()
    for name, key in _domain_names(domains):
        if name in seen:
            yield _Mistake(("domain", key), "expected each domain once, in whichever letters")
        seen.add(name)


def _mail_elsewhere(path: _Path, address: str, domains: Tables) -> Iterator[_Mistake]:
    """Tell where mail of the relay's own would leave the domains, if all of them are known."""
    names = [name for name, _ in _domain_names(domains)]
    home = address.rpartition("@")[2]
    if home and len(names) == len(domains) > 0 and home not in names:
        yield _Mistake(path, "expected an address in one of the domains", did_you_mean(home, names))


def _domain_names(domains: Tables) -> Iterator[tuple[str, str]]:
    """Return each right domain's name in its usual form and its key in the file."""
    for key in domains:
        with contextlib.suppress(ValueError):
            yield str(DomainCheck(key)), key


# ── From a mistake to a Problem: its line, value and path as the file has them ────────────────────


def _problem(mistake: _Mistake, tables: Tables, line_of: Callable[[_Path], int | None]) -> Problem:
    path = mistake.path
    line = next(filter(None, (line_of(path[:end]) for end in range(len(path), 0, -1))), None)
    found = _at(tables, path) if _exists(tables, path) else None
    value = "" if mistake.secret or isinstance(found, dict) else to_toml(found)
    value = value if len(value) <= 60 else f"{value[:59]}…"
    return Problem(_dotted(path), line, value, mistake.expected, mistake.hint)


def _at(tables: object, path: _Path) -> object:
    """Return what stands at ``path``; raises LookupError or TypeError where nothing does."""
    return functools.reduce(lambda inner, key: inner[key], path, tables)  # type: ignore[index]


def _exists(tables: object, path: _Path) -> bool:
    try:
        _at(tables, path)
    except (LookupError, TypeError):
        return False
    return True


def _dotted(path: _Path) -> str:
    """Write a path as TOML does: ``domain."example.org".primary``, ``intake.dnsbl[0]``."""
    text = ""
    for part in path:
        bare = isinstance(part, str) and re.fullmatch(r"[A-Za-z0-9_-]+", part)
        text += f"[{part}]" if isinstance(part, int) else f".{part if bare else to_toml(part)}"
    return text.removeprefix(".")


class _TooMuchEffortError(Exception):
    """To find more lines would take longer than anybody waits for a message."""


def _line_finder(text: str) -> Callable[[_Path], int | None]:
    """Return a function from a path to the 1-based line where it begins.

    It returns None if the path is absent, or the search grew longer than a message is worth.
    tomllib tells no lines. But what stands in a file is what the file's first so many lines parse
    to, and that only grows: the first prefix that holds a path ends where the path does.
    """
    lines = text.replace("\r\n", "\n").split("\n")
    effort = _EFFORT

    @functools.cache
    def holds(count: int) -> object:
        """Return what the first ``count`` lines hold, None where they break off in a value."""
        nonlocal effort
        head = "\n".join(lines[:count])
        for closing in ("", "\n]", "\n]}"):  # an array may be open at the line's end
            effort -= len(head)
            if effort < 0:
                raise _TooMuchEffortError
            with contextlib.suppress(ValueError, RecursionError):
                return tomllib.loads(head + closing)
        return None

    def whole(count: int) -> int:
        """Return the largest number of lines up to ``count`` that parse."""
        return next(end for end in range(count, -1, -1) if holds(end) is not None)

    def has(count: int, path: _Path) -> bool:
        return _exists(holds(whole(count)), path)

    def line_of(path: _Path) -> int | None:
        counts = range(len(lines) + 1)
        if effort < 0:
            return None
        try:
            end = bisect.bisect_left(counts, True, key=lambda count: has(count, path))
            return whole(end - 1) + 1 if end <= len(lines) else None
        except _TooMuchEffortError:
            return None

    return line_of
