"""A lab's own config file: what its relay, its edge's kits and its primary's kit are made from."""

from __future__ import annotations

import base64
import secrets
from pathlib import Path

from backup_mx import config
from backup_mx.config import Config
from backup_mx.errors import LabError
from backup_mx.lab import names
from backup_mx.machine.wireguard import public_key

_EDGE_KEY = "EDGE_PUBLIC_KEY"  # stands in the text for a key that each lab makes anew


def write(lab: str, text: str) -> Config:
    """Keep the text of a lab's ``backup-mx.toml``, with the keys of its tunnel if it has one."""
    _file(lab).parent.mkdir(parents=True)
    if _EDGE_KEY in text:
        edge_private = _private_key(lab, "edge")
        _private_key(lab, "mx2")
        text = text.replace(_EDGE_KEY, public_key(edge_private))
    _file(lab).write_text(text)
    return read(lab)


def read(lab: str) -> Config:
    """Return the config that a lab was made from. Raises LabError when it was made without one."""
    if not _file(lab).exists():
        raise LabError(f"lab {lab} was not made from a config")
    return config.load(_file(lab))


def edge_key(lab: str) -> str:
    """Return the private key of the edge's side of the tunnel; nothing without a tunnel."""
    key = _file(lab).with_name("edge.key")
    return key.read_text() if key.exists() else ""


def _private_key(lab: str, name: str) -> str:
    """Make a WireGuard key and leave it beside the config, as NAME.key."""
    key = base64.b64encode(secrets.token_bytes(32)).decode()
    place = _file(lab).with_name(f"{name}.key")
    place.touch(0o600)
    place.write_text(key)
    return key


def _file(lab: str) -> Path:
    return names.folder(lab) / "config" / "backup-mx.toml"
