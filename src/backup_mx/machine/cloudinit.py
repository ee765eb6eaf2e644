"""relay.pyz to user-data: what a cloud hands to a new machine at its first boot."""

from __future__ import annotations

import base64
import gzip
import json
import lzma
from typing import Any

from backup_mx.config import Config
from backup_mx.errors import BundleError
from backup_mx.machine.apply.files import APPLIED, KEPT
from backup_mx.machine.bundle import bundle
from backup_mx.machine.recipients import known

# Oracle refuses an instance whose metadata is larger: user-data as base64, and the SSH keys, which
# Terraform hands over beside it (terraform/oci/relay.tf has the same sum).
LIMIT = 32_000
PATH = str(KEPT)
# A new machine's network, and its package mirror, may be minutes late.
PATIENCE_S = 600
# cloud-init itself only knows gzip, which takes 600 bytes more; Python is on every image. What has
# been applied, be it by a later deploy, is not replaced: cloud-init may run again on a machine that
# has the agent, whose bundle is at PATH then and is only applied once more.
UNPACK = (
    f"import lzma, os; os.umask(0o77); os.path.exists({str(APPLIED)!r}) or "
    f"open({PATH!r}, 'wb').write(lzma.open({PATH + '.lzma'!r}).read())"
)


def user_data(config: Config, relay: str, *, again: bool = False) -> bytes:
    """Return user-data that boots the relay: a gzipped cloud-config, refused above LIMIT.

    It carries the mail layer; the agent comes with a deploy. ``again``: there is a volume of an
    earlier machine, and the new one waits for just that. Raises BundleError with the sizes of
    its parts when it is too large.
    """
    archive = bundle(config, relay, agent=False)
    document = cloud_config(config, relay, archive, again=again)
    # JSON is YAML, and needs no library to be quoted rightly.
    text = "#cloud-config\n" + json.dumps(document) + "\n"
    # Compressed once more, which takes back what the base64 within has cost.
    data = gzip.compress(text.encode(), compresslevel=9, mtime=0)
    if size(data) + beside(config, relay) > LIMIT:
        raise BundleError(too_large(config, relay, archive, data))
    return data


def cloud_config(
    config: Config, relay: str, archive: bytes, *, again: bool = False
) -> dict[str, Any]:
    """Return the cloud-config document that carries ``archive`` and runs it once."""
    patiently = ["--patience", str(PATIENCE_S), *["--volume-exists"] * again]
    options, keys = config.relays[relay], list(config.access.ssh_keys)
    return {
        "hostname": options.hostname.partition(".")[0],
        "fqdn": options.hostname,
        # Most images let nobody in as root. Opened only where that is how the operator comes.
        **({"disable_root": False} if options.ssh.user == "root" else {}),
        # cloud-init complains of an empty list.
        **({"ssh_authorized_keys": keys} if keys else {}),
        "write_files": [
            {
                "path": f"{PATH}.lzma",
                "permissions": "0600",
                "encoding": "b64",
                "content": base64.b64encode(compressed(archive)).decode(),
            }
        ],
        "runcmd": [["python3", "-c", UNPACK], ["python3", PATH, *patiently]],
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


def beside(config: Config, relay: str) -> int:
    """Return how many bytes of metadata come with the user-data: at Oracle, the SSH keys."""
    oci = config.cloud.oci
    return len("\n".join(config.access.ssh_keys)) if oci and relay in oci.relays else 0


def too_large(config: Config, relay: str, archive: bytes, data: bytes) -> str:
    """Say what takes the room."""
    parts = {
        "relay.pyz, compressed": len(compressed(archive)),
        "SSH keys": sum(map(len, config.access.ssh_keys)),
        "tables of recipients": sum(map(len, known(config, agent=False))),
        "all of it, compressed": len(data),
        "the same as base64": size(data),
        "SSH keys beside it": beside(config, relay),
    }
    listed = ", ".join(f"{name} {count:,} bytes" for name, count in parts.items() if count)
    return f"the user-data of {relay} is too large: {listed}; at most {LIMIT:,} are allowed"
