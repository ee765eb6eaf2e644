"""Furnishing a machine's disk before its first boot: identity, files, seed, keys, units."""

from __future__ import annotations

import hashlib
import json
import shutil
import textwrap
from collections.abc import Iterable
from importlib import resources
from importlib.resources.abc import Traversable
from pathlib import Path

from backup_mx.kit.files import KitFile
from backup_mx.lab import certificates, host, names, settings
from backup_mx.lab.image import Image
from backup_mx.lab.layout import (
    AUTHORITY,
    DKIM_KEY,
    DKIM_SELECTOR,
    MIRROR,
    RESOLVER,
    SENDER_DOMAIN,
    TUNNEL,
)
from backup_mx.lab.machine import PATH, Machine
from backup_mx.lab.operator import Operator

KIT = "/root/backup-mx-kit"
"""Where a kit's rendered folder lies on a machine."""

_KIT_SECONDS = 180.0
_TXT_CHARACTERS = 250  # a string of a TXT record holds at most 255 (RFC 1035 section 3.3.14)


def identity(machine: Machine) -> None:
    """Give it a host name, a machine id and the lab's resolver."""
    etc = machine.root / "etc"
    hostname = machine.role.hostname
    (etc / "hostname").write_text(f"{hostname}\n")
    (etc / "hosts").write_text(
        f"127.0.0.1 localhost\n{machine.role.addresses[0]} {hostname} {hostname.split('.')[0]}\n"
    )
    (etc / "machine-id").write_text(
        hashlib.md5(hostname.encode(), usedforsecurity=False).hexdigest() + "\n"
    )
    (etc / "resolv.conf").unlink(missing_ok=True)
    (etc / "resolv.conf").write_text(f"nameserver {RESOLVER}\n")


def files(machine: Machine) -> None:
    """Copy the files of lab/machines/NAME to it: a path there is the path on the machine."""
    _copy(resources.files("backup_mx.lab") / "machines" / machine.name, machine.root)


def _copy(source: Traversable, target: Path) -> None:
    for entry in source.iterdir():
        if entry.is_dir():
            (target / entry.name).mkdir(exist_ok=True)
            _copy(entry, target / entry.name)
        else:
            (target / entry.name).write_bytes(entry.read_bytes())


def enable(machine: Machine) -> None:
    """Let its units start at boot."""
    if machine.role.units:
        host.call(["systemctl", "--quiet", f"--root={machine.root}", "enable", *machine.role.units])


def kit(machine: Machine, files: Iterable[KitFile]) -> None:
    """Leave a rendered kit on a machine, in the folder KIT."""
    for file in files:
        _place(file, machine.path(f"{KIT}/{file.path}"))


def install(machine: Machine, files: Iterable[KitFile]) -> None:
    """Put the files of a kit where they belong: their path below files/ is their place."""
    for file in files:
        if file.path.startswith("files/"):
            _place(file, machine.path(file.path.removeprefix("files")))


def apply_kit(primary: Machine) -> None:
    """Run the kit that lies on the primary, before it boots: there is nothing yet to reload."""
    place = ["env", "--ignore-environment", f"PATH={PATH}", "BACKUP_MX_RELOAD=no"]
    # On the lab's wire: programs look their host's name up, and wait for an answer.
    wire = ["ip", "netns", "exec", names.scoped(primary.lab, "net")]
    inside = [*wire, "chroot", str(primary.root)]
    host.call([*place, *inside, *kit_command("apply")], timeout=_KIT_SECONDS)


def kit_command(verb: str) -> list[str]:
    """Return the command that does ``verb`` (apply, undo, status) with the primary's kit there."""
    return ["env", f"--chdir={KIT}", "sh", "backup-mx-kit", verb]


def _place(file: KitFile, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(file.content)
    path.chmod(int(file.mode, 8))


def wireguard(machine: Machine) -> None:
    """Let its wg-quick make tunnels without the kernel's help, which not every host has."""
    dropin = machine.path("/etc/systemd/system/wg-quick@.service.d/lab.conf")
    dropin.parent.mkdir(parents=True)
    dropin.write_text(
        "[Service]\n"
        "Environment=WG_QUICK_USERSPACE_IMPLEMENTATION=wireguard-go\n"
        "Environment=WG_I_PREFER_BUGGY_USERSPACE_TO_POLISHED_KMOD=1\n"
    )


def tunnel(edge: Machine, private_key: str) -> None:
    """Give the edge its side of the tunnel, without any peer: those come with the kit."""
    interface = edge.path("/etc/wireguard/wg0.conf")
    interface.write_text(
        f"[Interface]\nAddress = {TUNNEL}/24\nListenPort = 51820\nPrivateKey = {private_key}\n"
    )
    interface.chmod(0o600)
    host.call(["systemctl", "--quiet", f"--root={edge.root}", "enable", "wg-quick@wg0"])


def no_cloud(machine: Machine) -> None:
    """Let cloud-init be: nobody has data for this machine."""
    (machine.root / "etc/cloud/cloud-init.disabled").touch()


def cloud(machine: Machine, user_data: bytes) -> None:
    """Leave it cloud-init's NoCloud seed, with ``user_data`` as a provider would hand it out."""
    seed = machine.root / "var/lib/cloud/seed/nocloud"
    seed.mkdir(parents=True)
    (seed / "user-data").write_bytes(user_data)
    hostname = machine.role.hostname
    meta = {"instance-id": f"{machine.lab}-{machine.name}", "local-hostname": hostname}
    (seed / "meta-data").write_text(json.dumps(meta) + "\n")
    (machine.root / "etc/cloud/cloud.cfg.d/90_lab.cfg").write_text(
        "datasource_list: [ NoCloud, None ]\n"
        "# The lab has set the interface up before the machine boots.\n"
        "network: { config: disabled }\n"
        "# apt's sources are what the lab says: there is no other mirror in reach.\n"
        "apt: { preserve_sources_list: true }\n"
        "# Providers' images hold more locales; this one is in every Debian.\n"
        "locale: C.UTF-8\n"
    )


def provider_data(authorized_keys: Iterable[str]) -> bytes:
    """Return the cloud-config by which a provider lets a customer's keys in as root.

    Many do. Debian's own image does not, and says so: that is what one meets without this.
    """
    config = {"disable_root": False, "ssh_authorized_keys": list(authorized_keys)}
    return f"#cloud-config\n{json.dumps(config)}\n".encode()


def sources(machine: Machine, release: str) -> None:
    """Point its apt to the lab's mirror, and to nothing else."""
    apt = machine.root / "etc/apt"
    shutil.rmtree(apt / "sources.list.d")
    (apt / "sources.list.d").mkdir()
    (apt / "sources.list").write_text(f"deb [trusted=yes] http://{MIRROR}/{release} ./\n")


def mirrors(internet: Machine, images: Iterable[Image]) -> None:
    """Put the repositories of the images at hand where the mirror serves them."""
    for image in images:
        if image.spec.debs:
            place = internet.root / "srv/mirror" / image.spec.release
            shutil.copytree(image.debs, place, dirs_exist_ok=True)


def certificate(machine: Machine, name: str) -> None:
    """Give a machine a certificate for the host name ``name``, from the lab's authority."""
    pem = certificates.issue(machine.lab, machine.root, name)
    place = machine.path(f"/etc/ssl/private/{name}.pem")
    place.write_text(pem)
    place.chmod(0o600)


def authority(internet: Machine) -> None:
    """Give the ACME server what it is known by, and let the lab's config name it."""
    known = certificates.own(internet.root, "/etc/pebble", AUTHORITY)
    settings.authority(internet.lab).write_text(known)


def name_servers(internet: Machine, operator: Operator, *, published: bool) -> None:
    """Give the first one the key of the operator's updates; without published, no word of mx2."""
    key = (operator.folder / "tsig.key").read_text()
    knot = internet.root / "etc/knot"
    # Debian lets root and the server into this folder, and nobody else.
    (knot / "tsig.conf").write_text(
        f"key:\n  - id: backup-mx\n    algorithm: hmac-sha256\n    secret: {key}\n"
    )
    zone = knot / "zones/example.org.zone"
    if not published:
        lines = zone.read_text().splitlines(keepends=True)
        zone.write_text("".join(line for line in lines if "mx2" not in line.split()))


def place(internet: Machine) -> None:
    """Bring the program of the place where the operator is told."""
    program = resources.files("backup_mx.lab") / "inside" / "place.py"
    target = internet.path("/srv/lab/place.py")
    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_bytes(program.read_bytes())


def way_in(machine: Machine, operator: Operator) -> None:
    """Let the operator in as root, as a provider does with a customer's key."""
    folder = machine.root / "root/.ssh"
    folder.mkdir(mode=0o700, exist_ok=True)
    (folder / "authorized_keys").write_text(f"{operator.public_key}\n")


def dkim_key(internet: Machine) -> None:
    """Make the sender's DKIM key: the private half in DKIM_KEY, the public one for its zone."""
    openssl = ["chroot", str(internet.root), "openssl"]
    internet.path(DKIM_KEY).parent.mkdir()
    host.call([*openssl, "genrsa", "-traditional", "-out", DKIM_KEY, "2048"])
    public = host.call([*openssl, "rsa", "-in", DKIM_KEY, "-pubout"])
    record = dkim_record("".join(public.splitlines()[1:-1]))
    (internet.root / "etc/knot/zones/dkim.inc").write_text(record)


def dkim_record(public: str) -> str:
    """Return a DKIM key's TXT record as a line of its zone (RFC 6376 section 3.6.1).

    public is the base64 of the key's SubjectPublicKeyInfo, in one piece.
    """
    strings = textwrap.wrap(f"v=DKIM1;k=rsa;p={public}", _TXT_CHARACTERS)
    quoted = " ".join(f'"{string}"' for string in strings)
    return f"{DKIM_SELECTOR}._domainkey.{SENDER_DOMAIN}. 300 TXT {quoted}\n"
