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
from backup_mx.config.values import Network
from backup_mx.machine import acme, recipients, tailnet
from backup_mx.machine import agent as agents
from backup_mx.machine.apply.files import Check, File, Folder, Service
from backup_mx.machine.wireguard import Tunnel, private_key, tunnels
from backup_mx.mta_sts import policy
from backup_mx.relay.operator.verbs import PROGRAM

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
# What the agent imports, and the program that its notifications leave by.
AGENT_PACKAGES = ("apprise", "python3-aiohttp", "python3-jinja2")
# What makes, checks and grows the file system of a volume.
VOLUME_PACKAGES = ("e2fsprogs",)
# What asks a certificate authority.
ACME_PACKAGES = ("certbot",)
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
    volume: bool = False


FOLDERS = (
    Folder(Path("/etc/backup-mx/tls")),
    Folder(Path("/srv/backup-mx")),
    Folder(Path("/srv/backup-mx/log"), "0750", group="adm"),
    Folder(Path("/srv/backup-mx/spool")),
    Folder(Path("/srv/backup-mx/tls"), "0700"),
)
# The lists of networks in [access].
NETWORKS = ("ssh_from", "metrics_from", "dashboard_from")
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
        makes=("/srv/backup-mx/tls/chain.pem",),
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
# What a relay has on top where there is a volume.
VOLUME_SERVICES = (
    Service("backup-mx-ssh-keys.service", ("/usr/local/lib/backup-mx/ssh-keys.sh",)),
)
# Files that hold a secret, and programs; all others may be read by everybody, and run by nobody.
SECRET = ("/etc/wireguard/backup-mx.conf", "/etc/backup-mx/agent.json")
PROGRAMS = (PROGRAM,)


def tree(config: Config, relay: str, *, agent: bool = True) -> Tree:
    """Return all that the relay called ``relay`` is made of: same config, same tree.

    Without ``agent`` it is the mail layer alone, with no more of secrets than user-data may carry:
    without its key there is no tunnel, and mail waits for the deploy that brings it. Raises
    SecretError where a secret that belongs
    into it cannot be read, MachineError where a table of recipients or a certificate is not one.
    """
    options = config.relays[relay]
    dialled = tunnels(config) if agent or options.secrets_in_user_data else []
    fetched = recipients.fetched(config) if agent else []
    asks = agent and config.tls.acme
    return Tree(
        sorted(relay_files(config, relay, dialled, agent=agent), key=lambda file: file.path),
        FOLDERS,
        (*CHECKS, *TUNNEL_CHECKS * bool(dialled), *agents.CHECKS * agent),
        (
            *agents.FIRST_SERVICES * agent,
            *VOLUME_SERVICES * options.volume,
            *SERVICES,
            *TUNNEL_SERVICES * bool(dialled),
            *agents.SERVICES * agent,
            *agents.FETCH_SERVICES * bool(fetched),
            *acme.SERVICES * asks,
            *agents.POLICY_SERVICES * bool(agent and policy.hosted(config, relay)),
            *tailnet.services(config, relay) * agent,
        ),
        (
            *PACKAGES,
            *TUNNEL_PACKAGES * bool(dialled),
            *AGENT_PACKAGES * agent,
            *ACME_PACKAGES * asks,
            *VOLUME_PACKAGES * options.volume,
        ),
        volume=options.volume,
    )


def relay_files(
    config: Config, relay: str, dialled: Sequence[Tunnel], *, agent: bool
) -> Iterator[File]:
    """Yield the files of a relay; a template that renders to nothing is no file."""
    values = template_values(config, relay, dialled, agent=agent)
    templates = resources.files("backup_mx") / "templates"
    for layer in ("relay", *("agent",) * agent):
        for path, source in walk(templates / layer, "/"):
            if content := rendered(source, path, values):
                yield file(path.removesuffix(".j2"), content)
    if agent:
        yield file("/etc/backup-mx/agent.json", agents.settings(config, relay).text.encode())
        yield from (file(path, text.encode()) for path, text in agents.tables(config))
        yield from (file(path, text.encode()) for path, text in agents.policies(config, relay))
        yield from (file(path, source.read_bytes()) for path, source in agents.code())


def file(path: str, content: bytes) -> File:
    """Return a file with the mode that its place asks for."""
    mode = "0600" if path in SECRET else "0755" if path in PROGRAMS else "0644"
    return File(Path(path), mode, content=content, once=path.startswith(agents.ONCE))


def template_values(
    config: Config, relay: str, dialled: Sequence[Tunnel], *, agent: bool
) -> dict[str, Any]:
    """Return what the templates of a relay may name."""
    access = config.access
    key = private_key(config.relays[relay], config.folder) if dialled else None
    return {
        "agent": agent,
        "tunnels": dialled,
        "wireguard_key": key,
        "relay": config.relays[relay],
        "at_oracle": bool(config.cloud.oci and relay in config.cloud.oci.relays),
        "primaries": config.primaries,
        "domains": list(config.domains.values()),
        "known": recipients.known(config, agent=agent),
        "fetched": recipients.fetched(config) if agent else [],
        "callouts": recipients.callouts(config),
        "queue": config.queue,
        "intake": config.intake,
        "operator": config.operator,
        "tailnet": config.tailnet,
        "tls": config.tls,
        "authority": acme.authority(config.tls),
        "acme_ca": acme.own_authority(config) if agent else "",
        "policies": policy.hosted(config, relay) if agent else {},
        # The world must never be offered what one of the primaries cannot take.
        "smtputf8": all(primary.smtputf8 for primary in config.primaries.values()),
        "eightbitmime": all(primary.eightbitmime for primary in config.primaries.values()),
        **{
            f"{name}_v{v}": of_version(getattr(access, name), v)
            for name in NETWORKS
            for v in (4, 6)
        },
    }


def of_version(networks: Sequence[Network], version: int) -> list[Network]:
    """Return those of the networks that are IPv4's, or IPv6's."""
    return [network for network in networks if network.version == version]


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
        autoescape=False,  # noqa: S701  configuration files, not HTML; config/values.py checks the values
    )
