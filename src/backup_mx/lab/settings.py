"""A lab's own config file: what its relay, its edge's kits and its primary's kit are made from."""

from __future__ import annotations

import base64
import re
import secrets
from pathlib import Path

from backup_mx import config
from backup_mx.config import Config
from backup_mx.errors import LabError
from backup_mx.lab import names
from backup_mx.machine.wireguard import public_key

_TABLE = re.compile(r"^(\[[^\n]+\])$(.*?)(?=^\[|\Z)", re.MULTILINE | re.DOTALL)
_EDGE_KEY = "EDGE_PUBLIC_KEY"  # stands in the text for a key that each lab makes anew


def write(lab: str, text: str) -> Config:
    """Keep the text of a lab's ``backup-mx.toml``, with the keys of its tunnel if it has one."""
    _file(lab).parent.mkdir(parents=True, exist_ok=True)
    if _EDGE_KEY in text:
        edge_private = _private_key(lab, "edge")
        _private_key(lab, "mx2")
        text = text.replace(_EDGE_KEY, public_key(edge_private))
    _file(lab).write_text(text)
    return read(lab)


def with_options(text: str, options: str) -> str:
    """Add ``options``, which begin with a table's header, to a config's text.

    A table that the config has already gets the lines as well; what they say counts.
    """
    for header, lines in _TABLE.findall(options):
        for there in _TABLE.finditer(text):
            if there[1] == header:
                keys = "|".join(re.findall(r"^(\w+) = ", lines, re.MULTILINE))
                kept = re.sub(rf"^(?:{keys}) = .*\n?", "", there[2], flags=re.MULTILINE)
                text = text[: there.start()] + header + lines.rstrip() + kept + text[there.end() :]
                break
        else:
            text = f"{text}\n{header}{lines}"
    return text


def replace(lab: str, text: str) -> Config:
    """Let a lab be made from another text from now on; return it as a config."""
    _file(lab).write_text(text)
    return read(lab)


def read(lab: str) -> Config:
    """Return the config that a lab was made from. Raises LabError when it was made without one."""
    text(lab)
    return config.load(_file(lab))


def text(lab: str) -> str:
    """Return the text of that config. Raises LabError when the lab was made without one."""
    if not _file(lab).exists():
        raise LabError(f"lab {lab} was not made from a config")
    return _file(lab).read_text()


def edge_key(lab: str) -> str:
    """Return the private key of the edge's side of the tunnel; nothing without a tunnel."""
    key = _file(lab).with_name("edge.key")
    return key.read_text() if key.exists() else ""


def authority(lab: str) -> Path:
    """Return where the config's folder has what the lab's ACME server is known by."""
    return _file(lab).with_name("acme.pem")


def _private_key(lab: str, name: str) -> str:
    """Make a WireGuard key and leave it beside the config, as NAME.key."""
    key = base64.b64encode(secrets.token_bytes(32)).decode()
    place = _file(lab).with_name(f"{name}.key")
    place.touch(0o600)
    place.write_text(key)
    return key


def _file(lab: str) -> Path:
    return names.folder(lab) / "config" / "backup-mx.toml"
