"""Changes at Cloudflare, by Cloudflare's own Python library: the only module that knows either."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from backup_mx.config import options_cloud
from backup_mx.dns.plan import Change
from backup_mx.dns.provider import Room
from backup_mx.dns.records import Record, displaces
from backup_mx.errors import DnsError, HostError, SecretError

Told = Any
"""Whatever goes into the library, or comes out of it."""

_SECONDS, _TRIES = 30.0, 3
_SHORTEST = 60  # seconds of a TTL there
_PAGE = 500  # records
_PROXIED = " (proxied)"
_REFUSED = {
    400: "refuses: {said}",
    401: 'does not accept the token for {zone}: it needs "DNS: Edit" for this zone',
    403: 'does not accept the token for {zone}: it needs "DNS: Edit" for this zone',
    404: "knows no zone of the ID that [dns.cloudflare] zones has for {zone}",
    429: "throttles: try again in five minutes",
}


class Cloudflare:
    """The zones of an account: `backup_mx.dns.provider.Provider`."""

    words = "by Cloudflare's API"

    def __init__(self, options: options_cloud.Cloudflare, token: str) -> None:
        """Take the token. Raises SecretError for what is none, HostError without the library."""
        if not (token.isascii() and token.isprintable()):
            # Of what does not fit into a header, the library tells every letter.
            raise SecretError("[dns.cloudflare] token has more in it than a token's letters")
        self._options = options
        self._library = _library()
        self._client = self._library.Cloudflare(
            api_token=token, timeout=_SECONDS, max_retries=_TRIES - 1
        )

    def room(self, zone: str) -> Room | None:
        """Return how many of the zone's records are used. Raises DnsError."""
        return Room(len(self._records(zone)), self._options.record_limit)

    def apply(self, zone: str, changes: Sequence[Change]) -> None:
        """Make all changes in one transaction of Cloudflare's. Raises DnsError."""
        there = self._records(zone)
        gone = [number for number, each in there.items() if any(_goes(c, each) for c in changes)]
        puts = [(change.put, change) for change in changes if change.put]
        new = [_written(put, change) for put, change in puts if put not in there.values()]
        if not gone and not new:
            return
        identity = self._options.zones[zone]
        self._asked(
            zone,
            lambda: self._client.dns.records.batch(
                zone_id=identity, deletes=[{"id": each} for each in gone], posts=new
            ),
        )

    def _records(self, zone: str) -> dict[str, Record]:
        """Return all of the zone's records by Cloudflare's ID for each."""
        identity = self._options.zones[zone]
        records = self._client.dns.records
        listed = self._asked(zone, lambda: list(records.list(zone_id=identity, per_page=_PAGE)))
        return {str(each.id): _read(each) for each in listed}

    def _asked(self, zone: str, call: Callable[[], Told]) -> Told:
        library = self._library
        try:
            return call()
        except library.APIStatusError as error:
            raise DnsError(f"Cloudflare {_refusal(error, zone)}") from None
        except library.APIConnectionError:
            raise DnsError(f"Cloudflare does not answer, {_TRIES} times") from None
        except library.CloudflareError as error:
            raise DnsError(f"Cloudflare's answer about {zone} is not to be read: {error}") from None


def _library() -> Told:
    try:
        return importlib.import_module("cloudflare")
    except ModuleNotFoundError:
        raise HostError(
            "this needs Cloudflare's Python library. In the checkout:"
            " .venv/bin/pip install '.[cloudflare]'"
        ) from None


def _refusal(error: Told, zone: str) -> str:
    said = "; ".join(f"{each.message} ({each.code})" for each in error.errors or ())
    known = _REFUSED.get(error.status_code, "fails: {code} {said}")
    return known.format(zone=zone, said=said, code=error.status_code)


def _goes(change: Change, there: Record) -> bool:
    """Tell whether a change takes away what Cloudflare has.

    That may be more than the world sees: an address behind Cloudflare's proxy is shown as another,
    and an exchanger is withdrawn whatever its preference, also where no name server tells it.
    """
    if (there.name, there.kind) != change.question:
        return False
    if change.put and displaces(change.put, there):
        return True
    hidden = there.data.endswith(_PROXIED)
    withdrawn = not change.put and there.target in {old.target for old in change.gone if old.target}
    return there in change.gone or hidden or withdrawn


def _read(told: Told) -> Record:
    """Return a record as the world would see it, were it not behind the proxy."""
    content = " ".join(str(told.content or "").split())
    name, kind = str(told.name).lower(), str(told.type)
    if kind == "TXT":
        content = content.strip('"').replace('" "', "")
    elif kind == "MX":
        content = f"{int(told.priority or 0)} {content.lower().rstrip('.') or '.'}"
    elif kind == "TLSA":
        content = content.lower()
    return Record(name, kind, content + (_PROXIED if told.proxied else ""))


def _written(put: Record, change: Change) -> Mapping[str, Told]:
    """Return a record as Cloudflare takes it."""
    about = f"backup-mx: {f'the relay {change.relay}' if change.relay else change.what}"
    made: dict[str, Told] = {
        "name": put.name,
        "type": put.kind,
        "ttl": max(change.ttl, _SHORTEST),
        "comment": about,
    }
    if put.kind == "TLSA":
        usage, selector, matching, digest = put.data.split()
        numbers = {"usage": usage, "selector": selector, "matching_type": matching}
        data = {name: int(number) for name, number in numbers.items()}
        return {**made, "data": {**data, "certificate": digest}}
    if put.kind == "MX":
        return {**made, "content": put.target, "priority": put.preference}
    # Its proxy takes HTTP only: mail would end there.
    proxied = {"proxied": False} if put.kind in ("A", "AAAA") else {}
    return {**made, **proxied, "content": put.text if put.kind == "TXT" else put.data}
