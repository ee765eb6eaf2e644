"""The key in a certificate: what a TLSA record "3 1 1" is made of (RFC 6698, RFC 7671).

Just enough of DER (X.690) and of a certificate's outline (RFC 5280, section 4.1) to find it.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass

from backup_mx.errors import DnsError

_VERSION = 0xA0  # [0], left out in the oldest certificates
_LONG = 0x80
# Where in a certificate's inner part, counted from the serial number.
_ISSUER, _SUBJECT, _KEY = 2, 4, 5


@dataclass(frozen=True)
class Key:
    """A certificate's key as its SHA-256 in hex, and whether the certificate vouches for itself."""

    digest: str
    self_signed: bool


def key(der: bytes) -> Key:
    """Return the key in a certificate in DER. Raises DnsError where it is none."""
    try:
        certificate = next(_elements(der))
        inside = list(_elements(next(_elements(certificate.content)).content))
        fields = [each.whole for each in inside if each.tag != _VERSION]
        digest = hashlib.sha256(fields[_KEY]).hexdigest()
        return Key(digest, self_signed=fields[_ISSUER] == fields[_SUBJECT])
    except (IndexError, StopIteration, ValueError):
        raise DnsError("what it shows is no certificate") from None


@dataclass(frozen=True)
class _Element:
    tag: int
    content: bytes
    whole: bytes


def _elements(der: bytes) -> Iterator[_Element]:
    """Yield what stands one after the other. Raises IndexError, ValueError."""
    at = 0
    while at < len(der):
        tag, size, begin = der[at], der[at + 1], at + 2
        if size & _LONG:
            begin += size & ~_LONG
            size = int.from_bytes(der[at + 2 : begin], "big")
        end = begin + size
        if end > len(der):
            raise ValueError("cut off")
        yield _Element(tag, der[begin:end], der[at:end])
        at = end
