"""Values of what is published, proven and watched, as in `backup_mx.config.values`."""

from __future__ import annotations

import contextlib
import re
from typing import Annotated, Literal
from urllib.parse import urlsplit

from backup_mx.config.checks import Check, HintError, matching, text_of
from backup_mx.config.values import DomainCheck, DrainTargetCheck, one_of

_KEY_NAME = re.compile(r"[A-Za-z0-9_-]{1,63}(?:\.[A-Za-z0-9_-]{1,63})*\.?")
_PATH = re.compile(r"(?:/[A-Za-z0-9._~/-]*)?")
_USER = re.compile(r"[!-~]{1,254}")
# RFC 8461 section 3.2: a year at most. Below a day, a policy is forgotten in any outage.
_SHORTEST, _LONGEST = 86_400, 31_557_600
_SECONDS = {"h": 3600, "d": 86_400}
_AGE = re.compile(r"([0-9]{1,5}) ?(h|d)")


def _key_name(value: object) -> str:
    return matching(_KEY_NAME, text_of(value)).rstrip(".").lower()


def _policy_age(value: object) -> int:
    found = _AGE.fullmatch(text_of(value))
    seconds = int(found[1]) * _SECONDS[found[2]] if found else 0
    if not _SHORTEST <= seconds <= _LONGEST:
        raise ValueError
    return seconds


def _address(value: object) -> str:
    """Check a URL of http or https: a host, maybe a port and a path, and nothing that is secret."""
    url = text_of(value).removesuffix("/")
    with contextlib.suppress(ValueError):
        parts = urlsplit(url)
        DrainTargetCheck.read(parts.netloc if parts.port else f"{parts.netloc}:80")
        rest = url.partition(parts.netloc)[2]
        if parts.scheme in ("http", "https") and _PATH.fullmatch(rest):
            return url
    raise HintError("a URL of http or https, without a user's name in it")


def _account(value: object) -> str:
    return matching(_USER, text_of(value))


ZoneName = Annotated[str, DomainCheck]
KeyName = Annotated[str, Check('the name of a TSIG key such as "backup-mx"', _key_name)]
Algorithm = Annotated[
    Literal["hmac-sha256", "hmac-sha384", "hmac-sha512"],
    one_of("hmac-sha256", "hmac-sha384", "hmac-sha512"),
]
PolicyMode = Annotated[Literal["testing", "enforce", "none"], one_of("testing", "enforce", "none")]
PolicyAge = Annotated[int, Check('a duration from "1d" to "365d"', _policy_age)]
WebAddress = Annotated[str, Check('a URL such as "https://prometheus.example.net"', _address)]
Account = Annotated[str, Check("a user's name at a mail server", _account)]
