"""Config to files for Prometheus, its exporters, Alertmanager and Grafana.

backup-mx monitoring render ──> README.md, prometheus/backup-mx.rules.yml, grafana/backup-mx.json, …
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from importlib import resources
from typing import Any

from jinja2 import Environment

from backup_mx.config import Config
from backup_mx.config.options import Relay
from backup_mx.config.values import bracketed
from backup_mx.kit.files import KitFile
from backup_mx.machine import bundle, tree

BLACKBOX = "127.0.0.1:9115"
"""Where Debian's blackbox exporter listens."""
_TEMPLATES = resources.files("backup_mx") / "templates" / "monitoring"


@dataclass(frozen=True)
class Target:
    """A relay as Prometheus meets it: where its metrics, port 25 and SSH are; cloud: "" or "oci".

    version is what it should run.
    """

    name: str
    hostname: str
    metrics: str
    smtp: str
    ssh: str
    version: str
    cloud: str


def render(config: Config) -> tuple[KitFile, ...]:
    """Return the files. Same config, same files; the versions in them follow its secrets, too.

    Raises SecretError when a secret that a relay needs cannot be read, BundleError.
    """
    values = _values(config)
    return tuple(
        KitFile(path.removesuffix(".j2"), _rendered(source.read_text(), path, values))
        for path, source in tree.walk(_TEMPLATES, "")
    )


def page(runbook: str | None) -> Callable[[str], str]:
    """Return what gives an alarm the annotation that leads to its page in docs/operate.md.

    Its heading is the alarm's name alone, which on the web is an anchor in small letters.
    """

    def annotation(alarm: str) -> str:
        if runbook is None:
            return f"runbook: backup-mx explain {alarm}"
        return f"runbook_url: {runbook}#{alarm.lower()}"

    return annotation


def _values(config: Config) -> dict[str, Any]:
    runbook = config.monitoring.runbook
    return {
        "relays": [_target(config, relay) for relay in config.relays.values()],
        "probe": str(config.monitoring.probe_at),
        "blackbox": BLACKBOX,
        "unwalked": round(config.queue.canary_late),
        "page": page(str(runbook) if runbook else None),
    }


def _target(config: Config, relay: Relay) -> Target:
    address = bracketed(str(relay.address))
    oci = config.cloud.oci
    return Target(
        relay.name,
        relay.hostname,
        str(relay.metrics_at),
        f"{address}:25",
        f"{address}:{relay.ssh.port}",
        bundle.version(bundle.bundle(config, relay.name)),
        "oci" if oci and relay.name in oci.relays else "",
    )


def _rendered(text: str, path: str, values: dict[str, Any]) -> bytes:
    """Fill a template in. Its marks are [[ ]] and [% %]: Prometheus' own templates have {{ }}."""
    if not path.endswith(".j2"):
        return text.encode()
    return _environment().from_string(text).render(values).encode()


@cache
def _environment() -> Environment:
    return tree.environment().overlay(
        block_start_string="[%",
        block_end_string="%]",
        variable_start_string="[[",
        variable_end_string="]]",
        comment_start_string="[#",
        comment_end_string="#]",
    )
