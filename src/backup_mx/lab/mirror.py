"""The lab's own package mirror: a flat apt repository made of the .deb files in a folder."""

from __future__ import annotations

import hashlib
from pathlib import Path

from backup_mx.lab import host


def index(folder: Path) -> None:
    """Write the repository's Packages and Release files beside its .deb files.

    The format is that of dpkg-scanpackages(1): each package's control fields, then where it is,
    its size in bytes and its hash. Raises LabError when a package cannot be read.
    """
    packages = "\n".join(_entry(deb) for deb in sorted(folder.glob("*.deb"))).encode()
    (folder / "Packages").write_bytes(packages)
    digest = hashlib.sha256(packages).hexdigest()
    (folder / "Release").write_text(f"SHA256:\n {digest} {len(packages)} Packages\n")


def _entry(deb: Path) -> str:
    control = host.call(["dpkg-deb", "--field", str(deb)]).rstrip("\n")
    digest = hashlib.sha256(deb.read_bytes()).hexdigest()
    return f"{control}\nFilename: ./{deb.name}\nSize: {deb.stat().st_size}\nSHA256: {digest}\n"
