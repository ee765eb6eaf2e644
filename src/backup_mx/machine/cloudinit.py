"""relay.pyz to user-data: what a cloud hands to a new machine at its first boot."""

from __future__ import annotations

import base64
import gzip
import json
import lzma
from typing import Any

from backup_mx.config import Config
from backup_mx.errors import BundleError
from backup_mx.machine.bundle import bundle

# Oracle refuses an instance whose metadata is larger, counted as base64 (design, budgets).
LIMIT = 32_000
PATH = "/var/lib/backup-mx/relay.pyz"
# A new machine's network, and its package mirror, may be minutes late.
PATIENCE_S = 600
# cloud-init itself only knows gzip, which takes 600 bytes more; Python is on every image.
UNPACK = f"import lzma; open({PATH!r}, 'wb').write(lzma.open({PATH + '.lzma'!r}).read())"


def user_data(config: Config, relay: str) -> bytes:
    """Return user-data that boots the relay: a gzipped cloud-config, refused above LIMIT as base64.

    Raises BundleError with the sizes of its parts when it is too large.
    """
    return carrying(bundle(config, relay), config, relay)


def carrying(archive: bytes, config: Config, relay: str) -> bytes:
    """Return the user-data of a relay whose relay.pyz is made already; see user_data()."""
    document = cloud_config(config, relay, archive)
    # JSON is YAML, and needs no library to be quoted rightly.
    text = "#cloud-config\n" + json.dumps(document, indent=1) + "\n"
    # Compressed once more, which takes back what the base64 within has cost.
    data = gzip.compress(text.encode(), compresslevel=9, mtime=0)
    if size(data) > LIMIT:
        raise BundleError(too_large(config, relay, archive, data))
    return data


def cloud_config(config: Config, relay: str, archive: bytes) -> dict[str, Any]:
    """Return the cloud-config document that carries ``archive`` and runs it once."""
    hostname = config.relays[relay].hostname
    return {
        "hostname": hostname.partition(".")[0],
        "fqdn": hostname,
        "ssh_authorized_keys": list(config.access.ssh_keys),
        "write_files": [
            {
                "path": f"{PATH}.lzma",
                "permissions": "0600",
                "encoding": "b64",
                "content": base64.b64encode(compressed(archive)).decode(),
            }
        ],
        "runcmd": [["python3", "-c", UNPACK], ["python3", PATH, "--patience", str(PATIENCE_S)]],
    }


def compressed(archive: bytes) -> bytes:
    """Return ``archive`` as LZMA, for text: it is aligned to nothing (pb=0).

    The old container is 50 bytes smaller than xz; gzip around it has the checksum.
    """
    filters = [{"id": lzma.FILTER_LZMA1, "preset": 9, "pb": 0}]
    return lzma.compress(archive, format=lzma.FORMAT_ALONE, filters=filters)


def size(data: bytes) -> int:
    """Return the size of ``data`` as base64, in bytes."""
    return len(base64.b64encode(data))


def too_large(config: Config, relay: str, archive: bytes, data: bytes) -> str:
    """Say what takes the room."""
    parts = {
        "relay.pyz, compressed": len(compressed(archive)),
        "SSH keys": sum(map(len, config.access.ssh_keys)),
        "all of it, compressed": len(data),
        "the same as base64": size(data),
    }
    listed = ", ".join(f"{name} {count:,} bytes" for name, count in parts.items())
    return f"the user-data of {relay} is too large: {listed}; at most {LIMIT:,} are allowed"
