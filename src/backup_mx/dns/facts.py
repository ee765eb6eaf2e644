"""What the records follow from apart from the config: keys, policies, and who names addresses."""

from __future__ import annotations

from base64 import b64decode
from collections.abc import Callable, Iterator

from backup_mx.config import Config
from backup_mx.config.options import Relay
from backup_mx.dns.key import Key, key
from backup_mx.dns.wanted import Facts
from backup_mx.errors import BackupMxError, DnsError
from backup_mx.findings import Finding
from backup_mx.machine.sent import ask
from backup_mx.machine.ship import Host
from backup_mx.mta_sts import look, policy
from backup_mx.net import certificate
from backup_mx.net.dns import Names, reverse

Hosts = Callable[[str], Host]
"""A relay's name to the machine that it is."""

_SECONDS = 12.0  # postscreen lets a stranger wait for six
_EHLO = "backup-mx.invalid"


def gather(config: Config, names: Names, hosts: Hosts) -> Facts:
    """Look at what the config's records follow from; a minute at most where nothing answers."""
    keys: dict[str, Key] = {}
    unseen: dict[str, str] = {}
    for relay in config.relays.values():
        try:
            if names.signed(names.zone(relay.hostname)):
                keys[relay.name] = _key(relay, hosts)
        except BackupMxError as error:
            unseen[relay.name] = str(error)
    unserved = {domain: why for domain in config.domains if (why := _unserved(config, domain))}
    return Facts(keys, unseen, unserved)


def blind(facts: Facts) -> Iterator[Finding]:
    """Tell of each key that could not be seen: its TLSA record, if there is one, may be wrong."""
    for relay, why in facts.unseen.items():
        yield Finding("TLSA", "unknown", f"{relay}: {why}")


def pointers(config: Config, names: Names) -> Iterator[Finding]:
    """Judge the names of the relays' addresses, which only the addresses' providers can set."""
    for relay in config.relays.values():
        try:
            found = names.lookup(reverse(relay.address), "PTR")
        except DnsError as error:
            yield Finding("PTR", "unknown", str(error))
            continue
        host = relay.hostname
        if host in found:
            yield Finding("PTR", "pass", f"{relay.address} is {host}")
        else:
            yield Finding(
                "PTR",
                "warn",
                f"{relay.address} is {', '.join(found) or 'nameless'}, not {host}",
                f"Ask the provider of that address to name it {host}. Mail does not wait for it.",
            )


def _key(relay: Relay, hosts: Hosts) -> Key:
    """Return the key that the relay shows to senders. Raises BackupMxError where none is seen.

    The relay itself is asked, by SSH: at port 25 anybody on the way could show another, which
    senders would then insist on. Many a line lets no port 25 out, so that is only held against it.
    """
    own = key(_asked_there(hosts(relay.name)))
    shown = certificate.shown(str(relay.address), 25, _EHLO, _SECONDS)
    if shown and key(shown).digest != own.digest:
        raise DnsError("its port 25 shows this machine another key than the relay has itself")
    return own


def _asked_there(host: Host) -> bytes:
    """Return the certificate in DER as the relay itself sees it. Raises BackupMxError."""
    there = {"host": "127.0.0.1", "port": 25, "ehlo": _EHLO}
    try:
        der = b64decode(ask(host, certificate, there)["der"])
    except (KeyError, TypeError, ValueError):
        raise DnsError("what it shows is no certificate") from None
    if not der:
        raise DnsError("it shows itself no certificate")
    return der


def _unserved(config: Config, domain: str) -> str:
    """Return why a domain's policy must not be announced yet, "" where there is nothing to."""
    wanted = policy.wanted(config, domain)
    if wanted is None:
        return ""
    text, trouble = look.served(domain)
    if trouble:
        return f"its policy is not served yet: {trouble}"
    try:
        same = policy.read(text) == wanted
    except policy.PolicyError as error:
        return f"what is served is no policy: {error}"
    return "" if same else "the policy that is served is not the config's"
