"""The second layer of a relay's tree: the agent, which Postfix does without.

Its code travels as the files it is. user-data has no room for it: a machine becomes a relay at its
first boot, and gets this layer by ``backup-mx deploy``.
"""

from __future__ import annotations

from collections.abc import Iterator
from importlib import resources
from importlib.resources.abc import Traversable

from backup_mx.config import Config
from backup_mx.machine import acme, recipients
from backup_mx.machine.apply.files import Check, Service
from backup_mx.mta_sts import policy
from backup_mx.relay.policies import FOLDER, PAIRS
from backup_mx.relay.root import maintenance
from backup_mx.relay.root.takeover import TABLES
from backup_mx.relay.settings import Settings, Table, Target
from backup_mx.relay.tables import texthash

LIBRARY = "/usr/local/lib/backup-mx"
"""Where the code is: a folder of Python's module search path."""

_NET = ("__init__", "canary", "certificate", "fetch", "tls", "wire")
CODE = ("__init__.py", "errors.py", *(f"net/{name}.py" for name in _NET), "relay")
"""What of our package runs on a relay: the standard library and Debian's packages are all it needs.
"""

MAINTENANCE = str(maintenance.PATH)
ONCE = (MAINTENANCE, f"{TABLES}/")
"""Where files are that the relay itself rewrites: a deploy leaves those that are there alone."""

_UNITS = "/etc/systemd/system/backup-mx-"
# It imports all that the agent will, and reads its settings: both before anything is swapped.
_IMPORT = (
    f"import sys; sys.path.insert(0, {LIBRARY!r}); from backup_mx.relay import agent, settings;"
    " settings.read()"
)
CHECKS = (Check("agent", ("python3", "-B", "-I", "-W", "ignore", "-c", _IMPORT)),)
# Before Postfix: it makes what main.cf names.
FIRST_SERVICES = (
    Service(
        "backup-mx-setup.service",
        (
            f"{_UNITS}setup",
            "/etc/sysusers.d/",
            "/etc/sysctl.d/",
            "/etc/tmpfiles.d/",
            f"{LIBRARY}/",
        ),
    ),
)
SERVICES = (
    Service("backup-mx-helper.socket", (f"{_UNITS}helper.socket",)),
    # Its socket starts it; what runs then must be of today.
    Service("backup-mx-helper.service", (f"{_UNITS}helper", f"{LIBRARY}/"), start=False),
    Service("backup-mx-guard.timer", (f"{_UNITS}guard.timer",)),
    Service("logrotate.timer", ("/etc/systemd/system/logrotate.timer.d/",)),
    Service(
        "backup-mx-agent.service",
        (f"{_UNITS}agent.service", f"{LIBRARY}/", "/etc/backup-mx/agent.json"),
    ),
)
# What a relay has on top where tables of recipients are fetched.
FETCH_SERVICES = (Service("backup-mx-recipients.path", (f"{_UNITS}recipients.path",)),)
# What a relay has on top that hosts MTA-STS policies; without a certificate it has nothing to do.
POLICY_SERVICES = (
    Service(
        "backup-mx-mta-sts.service",
        (f"{_UNITS}mta-sts", f"{LIBRARY}/", f"{FOLDER}/"),
        needs=str(PAIRS),
    ),
)


def tables(config: Config) -> Iterator[tuple[str, str]]:
    """Yield the tables of Postfix's that are ours to begin with only: path and first content.

    They are files of the tree so that they are there before main.cf names them: where one is
    missing, all mail is put off.
    """
    yield MAINTENANCE, maintenance.OFF
    for domain in recipients.fetched(config):
        yield (
            f"{TABLES}/{domain}",
            "# Everybody, until a table is fetched.\n" + texthash([f"@{domain}"], "exists"),
        )


def policies(config: Config, relay: str) -> Iterator[tuple[str, str]]:
    """Yield each MTA-STS policy that the relay called ``relay`` serves: path and content."""
    for host, each in policy.hosted(config, relay).items():
        yield f"{FOLDER}/{host}", each.text


def code() -> Iterator[tuple[str, Traversable]]:
    """Yield each file of the code that runs on a relay, and its path there."""
    package = resources.files("backup_mx")
    for name in CODE:
        yield from below(package / name, f"{LIBRARY}/backup_mx/{name}")


def below(entry: Traversable, path: str) -> Iterator[tuple[str, Traversable]]:
    """Yield the sources that ``entry`` is or has in it, each with its path, ``path`` its own."""
    if not entry.is_dir():
        yield path, entry
    elif entry.name != "__pycache__":
        for inner in entry.iterdir():
            yield from below(inner, f"{path}/{inner.name}")


def settings(config: Config, relay: str) -> Settings:
    """Return what the agent of the relay called ``relay`` is told, secrets included.

    Raises SecretError where one of them cannot be read.
    """
    access, queue, intake, folder = config.access, config.queue, config.intake, config.folder
    password = access.dashboard_password
    return Settings(
        relay=relay,
        hostname=config.relays[relay].hostname,
        address=str(config.relays[relay].address),
        targets=tuple(targets(config)),
        retention=queue.retention,
        at_retention=queue.at_retention,
        canary_waiting=queue.canary_waiting,
        canary_idle=queue.canary_idle,
        canary_message_to=queue.canary_message_to or "",
        ledger_keep=config.ledger.keep,
        hash_addresses=config.ledger.hash_addresses,
        standby=intake.standby,
        acme=acme.authority(config.tls) if config.tls.acme else "",
        tables=tuple(
            Table(domain.name, domain.recipients.source)
            for domain in config.domains.values()
            if domain.recipients.kind == "fetch"
        ),
        recipients_every=intake.recipients_every,
        recipients_may_shrink=intake.recipients_may_shrink,
        metrics_from=tuple(map(str, access.metrics_from)),
        dashboard_from=tuple(map(str, access.dashboard_from)),
        dashboard_password=password.read(folder) if password else "",
        dashboard_actions=access.dashboard_actions,
        notify_urls=tuple(url.read(folder) for url in config.notify.urls),
        policies=tuple(policy.hosted(config, relay)),
    )


def targets(config: Config) -> Iterator[Target]:
    """Yield each primary that owns a domain, as the agent sees it."""
    for name, primary in config.primaries.items():
        owned = [each.name for each in config.domains.values() if each.primary == name]
        if owned:
            to, peer = primary.drain_to, primary.wireguard_public_key or ""
            tunnel = peer if primary.wireguard_endpoint else ""
            yield Target(
                name, primary.hostname, to.host, to.port, primary.tls, tuple(owned), tunnel
            )
