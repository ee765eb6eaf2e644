"""What senders find of a domain's MTA-STS: its record, its policy, and its mail exchangers."""

from __future__ import annotations

from backup_mx.config import Config
from backup_mx.mta_sts import policy
from backup_mx.mta_sts.compare import Seen
from backup_mx.net.dns import Names
from backup_mx.net.fetch import FetchError, fetch

SECONDS = 60.0  # RFC 8461, section 3.3
MOST = 64 * 1024  # bytes, as there


def ask(config: Config, names: Names, domain: str) -> Seen:
    """Return what there is; the policy is fetched where there is one, or one is wanted.

    Raises DnsError.
    """
    texts = names.lookup(policy.record_name(domain), "TXT")
    looked = policy.wanted(config, domain) or policy.announced(texts)
    return Seen(domain, texts, *(served(domain) if looked else ("", "")), hosts(names, domain))


def hosts(names: Names, domain: str) -> tuple[str, ...]:
    """Return the hosts of a domain's MX records as senders see them (none for RFC 7505's)."""
    found = (each.rpartition(" ")[2] for each in names.lookup(domain, "MX"))
    return tuple(each for each in found if each != ".")


def served(domain: str, seconds: float = SECONDS) -> tuple[str, str]:
    """Return the policy's text, or "" and why there is none, in words.

    Only 200 with text/plain counts, from a server whose certificate is good; a redirect does not
    (RFC 8461, section 3.3).
    """
    try:
        found = fetch(
            policy.url(domain), seconds=seconds, most=MOST, redirects=0, kind="text/plain"
        )
        return found.decode(), ""
    except FetchError as error:
        return "", str(error)
    except UnicodeDecodeError:
        return "", f"{policy.url(domain)} is not text"
