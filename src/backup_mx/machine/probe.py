"""What a relay is at this moment, looked up on the relay itself.

`backup_mx.machine.look` has it sent there (`backup_mx.machine.sent`): a machine without the agent,
or whose Postfix is stopped, answers as well. Standard library only, but for what goes along.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import stat
import subprocess
from base64 import b64decode, b64encode
from collections.abc import Iterator, Sequence
from email.utils import parsedate_to_datetime
from pathlib import Path
from typing import Any

from backup_mx.net.certificate import shown

VOLUME = "/srv/backup-mx"
LEFT = "/var/lib/backup-mx/left"
"""On a root disk that is to be replaced: the boot that it was left at."""
QUEUES = ("maildrop", "incoming", "active", "deferred", "hold", "corrupt")
_SECONDS = 30.0


def facts(ssh_port: int) -> dict[str, Any]:
    """Return what can be seen; what cannot be is empty. With port 0 nothing is connected to.

    boot tells one start of a machine from another; left is the boot at which this root disk was
    to be replaced, "" on any other; settled is whether cloud-init is through;
    volume the device at VOLUME, "" where that is a folder of the root disk; queue the queue of
    each message that is on disk; wireguard a public key; ssh the fingerprints of the keys that the
    machine shows at ``ssh_port``.
    """
    return {
        "boot": text("/proc/sys/kernel/random/boot_id"),
        "left": text(LEFT),
        "settled": settled(),
        "version": version(),
        "volume": volume(),
        "queue": queue(Path(VOLUME, "spool")),
        "certificate": certificate() if ssh_port else {},
        "wireguard": said(["wg", "show", "backup-mx", "public-key"]),
        "ssh": fingerprints(scanned(ssh_port)) if ssh_port else [],
    }


def text(path: str) -> str:
    """Return a file's text, "" where there is none."""
    with contextlib.suppress(OSError):
        return Path(path).read_text(encoding="utf-8", errors="replace").strip()
    return ""


def said(argv: Sequence[str], given: bytes = b"") -> str:
    """Return what a program prints, "" where it fails or is not there."""
    with contextlib.suppress(OSError, subprocess.SubprocessError):
        done = subprocess.run(argv, input=given, capture_output=True, timeout=_SECONDS, check=True)
        return done.stdout.decode(errors="replace").strip()
    return ""


def settled(folder: Path = Path("/run/cloud-init")) -> bool:
    """Whether cloud-init has nothing to do at this boot, or is through with it."""
    return (folder / "result.json").exists() or not (folder / "enabled").exists()


def version() -> str:
    """Return the version of the bundle that was applied last."""
    with contextlib.suppress(ValueError, KeyError, TypeError):
        return str(json.loads(text("/var/lib/backup-mx/applied.json"))["version"])
    return ""


def volume(mounts: str = "/proc/self/mountinfo") -> str:
    """Return the device that is mounted at VOLUME (proc(5): fields before and after a dash)."""
    for line in reversed(text(mounts).splitlines()):
        fields, _, rest = line.partition(" - ")
        if fields.split(" ")[4] == VOLUME:
            return rest.split(" ")[1]
    return ""


def queue(spool: Path) -> dict[str, str]:
    """Return the queue in which each message lies that somebody got a 250 for."""
    return {path.name: name for name in QUEUES for path in files(spool / name)}


def files(folder: Path) -> Iterator[Path]:
    """Yield the whole messages below a folder: their owner may "execute" them (mail_queue.h)."""
    for place, _, names in os.walk(folder):
        for name in names:
            with contextlib.suppress(FileNotFoundError):
                path = Path(place, name)
                if path.stat().st_mode & stat.S_IXUSR:
                    yield path


def certificate(port: int = 25) -> dict[str, Any]:
    """Return what senders see after STARTTLS: sha256, issuer, own (self-signed), until (epoch)."""
    der = shown("127.0.0.1", port, "localhost", _SECONDS)
    return {"sha256": hashlib.sha256(der).hexdigest(), **names_of(der)} if der else {}


def names_of(der: bytes) -> dict[str, Any]:
    """Return what openssl reads in a certificate."""
    fields = ["-issuer", "-subject", "-enddate", "-nameopt", "RFC2253"]
    printed = said(["openssl", "x509", "-inform", "DER", "-noout", *fields], der)
    read = dict(line.split("=", 1) for line in printed.splitlines() if "=" in line)
    until = read.get("notAfter", "").removesuffix(" GMT")
    return {
        "issuer": read.get("issuer", ""),
        "own": bool(printed) and read.get("issuer") == read.get("subject"),
        "until": read_time(until),
    }


def read_time(told: str) -> float:
    """Read ``Jan  2 03:04:05 2030``, in UTC, 0.0 for anything else."""
    with contextlib.suppress(ValueError):
        month, day, clock, year = told.split()
        return parsedate_to_datetime(f"{day} {month} {year} {clock} +0000").timestamp()
    return 0.0


def scanned(port: int) -> str:
    """Return the keys that this machine's sshd shows, as ssh-keyscan prints them."""
    types = ["-t", "ed25519,ecdsa,rsa"]
    return said(["ssh-keyscan", "-T", "5", *types, "-p", str(port), "127.0.0.1"])


def fingerprints(printed: str) -> list[str]:
    """Return what ssh-keygen calls each key that ssh-keyscan found: ``SHA256:…``."""
    keys = (line.split()[2] for line in printed.splitlines() if line[:1] not in ("#", ""))
    return sorted(fingerprint(key) for key in keys)


def fingerprint(key: str) -> str:
    """Return the fingerprint of a public key in base64."""
    digest = hashlib.sha256(b64decode(key)).digest()
    return "SHA256:" + b64encode(digest).decode().rstrip("=")
