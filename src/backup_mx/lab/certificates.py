"""The lab's own certificate authority: made with the lab, trusted by its relays, gone with it."""

from __future__ import annotations

from pathlib import Path

from backup_mx.lab import host, names

_CURVE = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "30")
_HANDED_IN = "/root/authority.pem"  # for the moment that openssl needs it


def create_authority(lab: str, root: Path) -> None:
    """Make the lab's authority, with the openssl of the tree at ``root``."""
    subject = ["-subj", "/CN=The lab's authority"]
    pem = host.call([*_request(root), *subject, "-keyout", "-"])
    _authority(lab).write_text(pem)
    _authority(lab).chmod(0o600)


def issue(lab: str, root: Path, name: str) -> str:
    """Return a key and a certificate for the host ``name``, as PEM, signed by the lab's authority.

    root is a tree whose openssl is used; nothing stays in it.
    """
    handed_in = root / _HANDED_IN.lstrip("/")
    handed_in.write_text(_authority(lab).read_text())
    handed_in.chmod(0o600)
    try:
        signed = ["-CA", _HANDED_IN, "-CAkey", _HANDED_IN, "-extensions", "usr_cert"]
        subject = ["-subj", f"/CN={name}", "-addext", f"subjectAltName=DNS:{name}"]
        return host.call([*_request(root), *signed, *subject, "-keyout", "-"])
    finally:
        handed_in.unlink()


def own(root: Path, folder: str, name: str) -> str:
    """Make a key and a certificate for ``name`` that is its own authority; return the certificate.

    They are own.key and own.crt in ``folder`` of the tree at ``root``.
    """
    subject = ["-subj", f"/CN={name}", "-addext", f"subjectAltName=DNS:{name}"]
    place = ["-keyout", f"{folder}/own.key", "-out", f"{folder}/own.crt"]
    host.call([*_request(root), *subject, *place])
    # For a service that is not root's, in a lab that only root can enter.
    (root / folder.lstrip("/") / "own.key").chmod(0o644)
    return (root / folder.lstrip("/") / "own.crt").read_text()


def trust(lab: str, root: Path) -> None:
    """Add the lab's authority to those that the tree at ``root`` trusts, as Debian does it."""
    authority = known(lab)
    (root / "usr/local/share/ca-certificates/lab.crt").write_text(authority)
    with (root / "etc/ssl/certs/ca-certificates.crt").open("a") as bundle:
        bundle.write(authority)


def known(lab: str) -> str:
    """Return the certificate of the lab's authority, as PEM, without its key."""
    return _certificate(_authority(lab).read_text())


def _authority(lab: str) -> Path:
    return names.folder(lab) / "authority.pem"


def _certificate(pem: str) -> str:
    """Return the certificate of a text that holds its key too."""
    begin = pem.index("-----BEGIN CERTIFICATE-----")
    return pem[begin:]


def _request(root: Path) -> list[str]:
    return ["chroot", str(root), "openssl", "req", "-quiet", "-x509", *_CURVE]
