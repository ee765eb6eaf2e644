"""Values of clouds: what an option of [cloud.…] or [dns.…] must look like, and what it becomes.

They end up in Terraform's input, so each grammar is an allow list, as in `backup_mx.config.values`.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Literal

from backup_mx.config.checks import Check, HintError, matching, text_of
from backup_mx.config.values import DomainCheck, PublicKeyCheck, one_of, whole

_OCID = r"ocid1\.{kind}\.oc[0-9]+\.[a-z0-9-]*\.[a-z0-9]+"
_TENANCY = re.compile(_OCID.format(kind="tenancy"))
_COMPARTMENT = re.compile(_OCID.format(kind="(?:compartment|tenancy)"))
_REGION = re.compile(r"[a-z]{2}(?:-[a-z]+){1,2}-[0-9]{1,2}")
_PLACE = re.compile(r"[A-Za-z0-9]{1,8}:[A-Z0-9-]+-AD-[1-9]")
_SHAPE = re.compile(r"VM\.[A-Za-z0-9]+(?:\.[A-Za-z0-9]+)*")
_PROFILE = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.@-]{0,62}")
_GIGABYTES = re.compile(r"([0-9]{1,5}) ?GB", re.IGNORECASE)
_ZONE_ID = re.compile(r"[0-9a-f]{32}")
# What Oracle makes: a disk or a volume has no less and no more, in GB.
_SMALLEST, _LARGEST = 50, 32_768


def _tenancy(value: object) -> str:
    return matching(_TENANCY, text_of(value))


def _compartment(value: object) -> str:
    return matching(_COMPARTMENT, text_of(value))


def _region(value: object) -> str:
    return matching(_REGION, text_of(value))


def _place(value: object) -> str:
    place = text_of(value)
    if ":" not in place:
        raise HintError("the tenancy's own letters before the colon belong to it")
    return matching(_PLACE, place)


def _shape(value: object) -> str:
    shape = matching(_SHAPE, text_of(value))
    if shape.endswith(".Flex"):
        raise HintError("one of fixed size: for this one, cores and memory would have to be told")
    return shape


def _profile(value: object) -> str:
    return matching(_PROFILE, text_of(value))


def _gigabytes(value: object) -> int:
    if isinstance(value, int) and not isinstance(value, bool):
        raise HintError('a number needs its unit: "50 GB", in quotes')
    found = _GIGABYTES.fullmatch(text_of(value))
    if not found:
        raise ValueError
    if not _SMALLEST <= int(found[1]) <= _LARGEST:
        raise HintError(f"Oracle makes none below {_SMALLEST} GB")
    return int(found[1])


def _inner_network(value: object) -> ipaddress.IPv4Network:
    network = ipaddress.IPv4Network(text_of(value))
    if not network.is_private or not 16 <= network.prefixlen <= 30:
        raise ValueError
    return network


def _rsa_key(value: object) -> str:
    key = str(PublicKeyCheck.read(value))
    if not key.startswith("ssh-rsa "):
        raise HintError("Oracle's console takes no other kind: ssh-keygen -t rsa -b 4096")
    return key


def _zones(value: object) -> Mapping[str, str]:
    if not isinstance(value, dict) or not value:
        raise HintError('a table of names and IDs: { "example.org" = "…" }')
    return {_zone(name): _zone_id(each) for name, each in value.items()}


def _zone(name: object) -> str:
    return str(DomainCheck.read(name))


def _zone_id(value: object) -> str:
    return matching(_ZONE_ID, text_of(value))


def _folder(value: object) -> Path:
    if not text_of(value):
        raise ValueError
    return Path(text_of(value))


Tenancy = Annotated[str, Check("a tenancy's OCID: ocid1.tenancy.…", _tenancy)]
Compartment = Annotated[
    str, Check("a compartment's OCID: ocid1.compartment.…, or the tenancy's", _compartment)
]
Region = Annotated[str, Check('a region such as "eu-frankfurt-1"', _region)]
Place = Annotated[str, Check('an availability domain such as "Uocm:PHX-AD-1"', _place)]
Shape = Annotated[str, Check('a shape such as "VM.Standard.E2.1.Micro"', _shape)]
Profile = Annotated[str, Check('the name of a profile such as "DEFAULT"', _profile)]
Gigabytes = Annotated[int, Check('a size of "50 GB" or more, in whole GB', _gigabytes)]
InnerNetwork = Annotated[
    ipaddress.IPv4Network,
    Check('a private IPv4 network from /16 to /30, such as "172.30.255.0/28"', _inner_network),
]
RsaKey = Annotated[str, Check('one line of a .pub file that begins with "ssh-rsa"', _rsa_key)]
Zones = Annotated[
    Mapping[str, str], Check("a table of zones and their IDs, 32 digits and letters each", _zones)
]
RecordLimit = Annotated[int, whole(1, 1_000_000, "a number of records")]
Published = Annotated[Literal["address", "mx"], one_of("address", "mx")]
Folder = Annotated[Path, Check("a folder's path", _folder)]
