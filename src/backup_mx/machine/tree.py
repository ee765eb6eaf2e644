"""Config to tree: every file of a relay, by the path it will have there."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from importlib import resources
from importlib.resources.abc import Traversable
from pathlib import Path
from typing import Any

from jinja2 import Environment, StrictUndefined

from backup_mx.config import Config
from backup_mx.machine.apply.files import Check, File, Folder, Service
from backup_mx.machine.wireguard import Tunnel, private_key, tunnels

PACKAGES = (
    "ca-certificates",
    "iptables",
    "logrotate",
    "openssh-server",
    "openssl",
    "postfix",
    "postfix-lmdb",
    "unattended-upgrades",
)
# Postfix is installed unconfigured: it starts with our files or not at all.
DEBCONF = ("postfix postfix/main_mailer_type select No configuration",)


@dataclass(frozen=True)
class Tree:
    """All that a relay is."""

    files: Sequence[File]
    folders: Sequence[Folder]
    checks: Sequence[Check]
    services: Sequence[Service]
    packages: Sequence[str] = PACKAGES
    debconf: Sequence[str] = DEBCONF


FOLDERS = (
    Folder(Path("/etc/backup-mx/tls"), "0700"),
    Folder(Path("/srv/backup-mx")),
    Folder(Path("/srv/backup-mx/log"), "0750", group="adm"),
    Folder(Path("/srv/backup-mx/spool")),
)
RULES = "/etc/backup-mx/firewall/rules"
CHECKS = (
    Check("postconf", ("postconf",)),
    Check("postfix", ("postfix", "check")),
    Check("sshd", ("/usr/sbin/sshd", "-t")),
    Check("iptables", ("iptables-restore", "--test", "--noflush", f"{RULES}.v4")),
    Check("apt", ("apt-config", "dump")),
    Check("logrotate", ("logrotate", "--debug", "/etc/logrotate.d/backup-mx"), silent=False),
)
SERVICES = (
    Service(
        "backup-mx-certificate.service",
        ("/etc/backup-mx/tls/",),
        makes=("/etc/backup-mx/tls/self-signed.key", "/etc/backup-mx/tls/self-signed.crt"),
    ),
    Service("backup-mx-firewall.service", (f"{RULES}.v4",)),
    Service("backup-mx-firewall6.service", (f"{RULES}.v6",), needs="/proc/net/if_inet6"),
    # Ubuntu starts it by its socket.
    Service("ssh.service", ("/etc/ssh/",), start=False),
    Service("postfix.service", ("/etc/postfix/",), port=25),
)

# What a relay has on top where a primary is behind a tunnel.
TUNNEL_PACKAGES = ("wireguard-tools",)
TUNNEL_CHECKS = (Check("wg-quick", ("wg-quick", "strip", "backup-mx")),)
TUNNEL_SERVICES = (
    Service("wg-quick@backup-mx.service", ("/etc/wireguard/backup-mx.conf",)),
    Service("backup-mx-tunnel.timer", ("/etc/systemd/system/backup-mx-tunnel.timer",)),
)
# Files that hold a secret; all others may be read by everybody.
SECRET = ("/etc/wireguard/backup-mx.conf",)


def tree(config: Config, relay: str) -> Tree:
    """Return all that the relay called ``relay`` is made of: same config, same tree.

    Raises SecretError where a secret that belongs into it cannot be read.
    """
    dialled = tunnels(config)
    files = sorted(relay_files(config, relay, dialled), key=lambda file: file.path)
    if not dialled:
        return Tree(files, FOLDERS, CHECKS, SERVICES)
    return Tree(
        files,
        FOLDERS,
        CHECKS + TUNNEL_CHECKS,
        SERVICES + TUNNEL_SERVICES,
        PACKAGES + TUNNEL_PACKAGES,
    )


def relay_files(config: Config, relay: str, dialled: Sequence[Tunnel]) -> Iterator[File]:
    """Yield the files of a relay; a template that renders to nothing is no file."""
    values = template_values(config, relay, dialled)
    for path, source in walk(resources.files("backup_mx") / "templates" / "relay", "/"):
        place = path.removesuffix(".j2")
        if content := rendered(source, path, values):
            yield File(Path(place), "0600" if place in SECRET else "0644", content=content)


def template_values(config: Config, relay: str, dialled: Sequence[Tunnel]) -> dict[str, Any]:
    """Return what the templates of a relay may name."""
    networks = config.access.ssh_from
    key = private_key(config.relays[relay], config.folder) if dialled else None
    return {
        "tunnels": dialled,
        "wireguard_key": key,
        "relay": config.relays[relay],
        "primaries": config.primaries,
        "domains": list(config.domains.values()),
        "queue": config.queue,
        "intake": config.intake,
        "operator": config.operator,
        # The world must never be offered what one of the primaries cannot take.
        "smtputf8": all(primary.smtputf8 for primary in config.primaries.values()),
        "eightbitmime": all(primary.eightbitmime for primary in config.primaries.values()),
        "ssh_from_v4": [network for network in networks if network.version == 4],
        "ssh_from_v6": [network for network in networks if network.version == 6],
    }


def walk(folder: Traversable, path: str) -> Iterator[tuple[str, Traversable]]:
    """Yield each template below ``folder`` with the path that its place in the tree stands for."""
    for entry in sorted(folder.iterdir(), key=lambda entry: entry.name):
        if entry.is_dir():
            yield from walk(entry, f"{path}{entry.name}/")
        else:
            yield path + entry.name, entry


def rendered(source: Traversable, path: str, values: Mapping[str, Any]) -> bytes:
    """Return a template's bytes: a ``.j2`` filled in, any other file as it is."""
    if not path.endswith(".j2"):
        return source.read_bytes()
    return environment().from_string(source.read_text()).render(values).encode()


@cache
def environment() -> Environment:
    """Return the one way templates are rendered: a name that is not given is an error."""
    return Environment(
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
        autoescape=False,  # noqa: S701  configuration files, not HTML; config.py checks the values
    )
