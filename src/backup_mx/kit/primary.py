"""Config to a primary's kit: what lets the relays' mail through on the operator's own server.

backup-mx primary render ──> README.md, backup-mx-kit, elements, files/etc/postfix/backup-mx/…
                     (docker-mailserver: the same below config/, with user-patches.sh)
"""

from __future__ import annotations

import ipaddress
from dataclasses import dataclass, replace
from importlib import resources
from typing import Any

from backup_mx.config import Config
from backup_mx.config.options import Primary
from backup_mx.config.values import Address, bracketed
from backup_mx.kit.files import KitFile
from backup_mx.machine.tree import rendered, walk

LAYERS = (
    "client-restrictions",
    "sender-restrictions",
    "anvil",
    "postscreen",
    "policyd-spf",
    "xforward",
    "greylist",
    "ratelimit",
    "local-addrs",
    "external-relay",
    "ceiling",
)
"""What a kit does, by name: each block that a file has for it stands under ``layer: NAME``."""
PROGRAM = "backup-mx-kit"
_TEMPLATES = resources.files("backup_mx") / "templates" / "primary"


@dataclass(frozen=True)
class Client:
    """A relay as the primary meets it; seen is where it connects from, address its public one."""

    name: str
    hostname: str
    seen: Address
    address: Address

    @property
    def network(self) -> str:
        """The address it connects from, as a network of one (RFC 4632)."""
        return str(ipaddress.ip_network(self.seen))

    @property
    def bracketed(self) -> str:
        """The address it connects from, as Postfix's lists of clients want it."""
        return bracketed(str(self.seen))


def render(config: Config, primary: str) -> tuple[KitFile, ...]:
    """Return the kit of the primary called ``primary``. Pure: same config, same files.

    ``backup-mx-kit`` is what applies it; below ``files/`` a path is the destination on the primary.
    """
    options = config.primaries[primary]
    values = _values(config, options)
    core = _files("postfix-rspamd", values)
    own = [file.path for file in core if file.path.startswith("files/")]
    if options.kit == "postfix-rspamd":
        return (*core, *_readme(options.kit, {**values, "own": own}))
    return _docker_mailserver(core, values)


def clients(config: Config, primary: Primary) -> list[Client]:
    """Return the relays whose mail ``primary`` takes."""
    tunnel = primary.wireguard_endpoint is not None
    return [
        Client(relay.name, relay.hostname, seen, relay.address)
        for relay in config.relays.values()
        if (seen := relay.wireguard_address if tunnel else relay.address) is not None
    ]


def _docker_mailserver(core: list[KitFile], values: dict[str, Any]) -> tuple[KitFile, ...]:
    """Return the kit for that image: what it runs at each start runs the same program."""
    folder = "config/backup-mx/"
    mounted = [replace(file, path=folder + file.path) for file in core]
    own = _files("docker-mailserver/config", values, "config/")
    entries = [_Entry.of(file) for file in (*own, *core)]
    kubernetes = _files("docker-mailserver/kubernetes", {**values, "kit": entries}, "kubernetes/")
    return (*own, *mounted, *kubernetes, *_readme("docker-mailserver", values))


@dataclass(frozen=True)
class _Entry:
    """A file as a ConfigMap holds it: flat, under a key without slashes."""

    key: str
    path: str
    text: str

    @classmethod
    def of(cls, file: KitFile) -> _Entry:
        path = file.path.removeprefix("config/")
        return cls(path.replace("/", "."), path, file.content.decode())


def _values(config: Config, primary: Primary) -> dict[str, Any]:
    """Return what the templates of a kit may name."""
    values = {
        "relays": clients(config, primary),
        "domains": config.domains_of(primary),
        "tunnel": primary.wireguard_endpoint is not None,
    }
    what = rendered(_TEMPLATES / "what.md.j2", "what.md.j2", values).decode()
    return {**values, "what": what}


def _readme(kit: str, values: dict[str, Any]) -> list[KitFile]:
    source = _TEMPLATES / kit / "README.md.j2"
    return [KitFile("README.md", rendered(source, source.name, values))]


def _files(folder: str, values: dict[str, Any], prefix: str = "") -> list[KitFile]:
    """Return the files of a folder of templates but its README, with ``prefix`` before each."""
    return [
        KitFile(
            prefix + path.removesuffix(".j2"),
            rendered(source, path, values),
            "0755" if path == PROGRAM else "0644",
        )
        for path, source in walk(_TEMPLATES.joinpath(*folder.split("/")), "")
        if path != "README.md.j2"
    ]
