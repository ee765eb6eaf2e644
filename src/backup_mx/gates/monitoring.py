"""Whether your own Prometheus hears the relay, and has the rules that tell you of it."""

from __future__ import annotations

import json
import re
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlencode, urlsplit

from backup_mx.config import Config
from backup_mx.errors import MachineError
from backup_mx.findings import Finding
from backup_mx.gates.gate import Gate, Site
from backup_mx.monitoring.render import render
from backup_mx.net.fetch import FetchError, fetch

JOB = "backup-mx"
"""The job that scrapes the relays' agents, as `backup-mx monitoring render` calls it."""
_ALERTS = "/api/v2/alerts"  # what Prometheus appends to an Alertmanager's own URL
_LOOPBACK = {"localhost", "127.0.0.1", "::1"}
_SECONDS = 15.0
_RENDER = "backup-mx monitoring render, and load what it writes"
_NAMED = 3
_ALERT = re.compile(r"^\s*- alert: (\S+)$", re.MULTILINE)


@dataclass(frozen=True)
class Heard:
    """What Prometheus says: the targets of the relay that are up or not, rules, Alertmanagers.

    rules maps an alarm's name to its health ("ok", "unknown", "err"), alertmanagers the URL of each
    to why it does not answer from here, "" where it does.
    """

    targets: Mapping[str, bool]
    rules: Mapping[str, str]
    alertmanagers: Mapping[str, str]


def judge(site: Site) -> Iterator[Finding]:
    """Ask Prometheus, where the config names one. Raises MachineError."""
    url = site.config.monitoring.prometheus
    if url is None:
        saw = "no Prometheus is named in [monitoring]: nobody but the relay itself watches it"
        yield Finding("prometheus", "warn", saw, "docs/operate.md; [notify] urls is the least")
        return
    yield from judged(heard(str(url).rstrip("/"), site.relay.name), alarms(site.config))


def alarms(config: Config) -> list[str]:
    """Return the names of the alarms that `backup-mx monitoring render` has rules for."""
    rendered = (file for file in render(config) if file.path.endswith(".rules.yml"))
    return [name for file in rendered for name in _ALERT.findall(file.content.decode())]


def heard(url: str, relay: str) -> Heard:
    """Ask the Prometheus at ``url`` for all of it. Raises MachineError."""
    query = urlencode({"query": f'up{{job="{JOB}",relay="{relay}"}}'})
    found = _asked(f"{url}/api/v1/query?{query}")
    groups = _asked(f"{url}/api/v1/rules?type=alert")
    active = _asked(f"{url}/api/v1/alertmanagers")
    try:
        return Heard(
            targets={
                str(each["metric"].get("instance", "?")): each["value"][1] == "1"
                for each in found["result"]
            },
            rules={
                str(rule["name"]): str(rule["health"])
                for group in groups["groups"]
                for rule in group["rules"]
            },
            alertmanagers={
                str(each["url"]): health(url, str(each["url"]))
                for each in active["activeAlertmanagers"]
            },
        )
    except (AttributeError, IndexError, KeyError, TypeError) as error:
        raise MachineError(f"{url} does not answer as Prometheus does: {error!r}") from None


def health(prometheus: str, url: str) -> str:
    """Return why an Alertmanager does not answer from here, "" where it does.

    url is how Prometheus names it; Prometheus calls one active that does not answer, too.
    """
    try:
        fetch(f"{near(prometheus, url)}/-/healthy", seconds=_SECONDS)
    except (FetchError, ValueError) as error:
        return str(error)
    return ""


def near(prometheus: str, url: str) -> str:
    """Return the base URL of an Alertmanager as it is from here: "localhost" is Prometheus'.

    url is what Prometheus has of it. Raises ValueError where it is none.
    """
    found = urlsplit(url.removesuffix(_ALERTS))
    host = urlsplit(prometheus).hostname if found.hostname in _LOOPBACK else found.hostname
    place = f"[{host}]" if ":" in str(host) else host
    port = f":{found.port}" if found.port else ""
    return f"{found.scheme}://{place}{port}{found.path}"


def _asked(url: str) -> dict[str, Any]:
    """Return the data of an answer of Prometheus' HTTP API, version 1. Raises MachineError."""
    try:
        return dict(json.loads(fetch(url, seconds=_SECONDS))["data"])
    except FetchError as error:
        raise MachineError(f"Prometheus cannot be asked: {error}") from None
    except (KeyError, TypeError, ValueError):
        raise MachineError(f"{url} does not answer as Prometheus does") from None


def judged(found: Heard, wanted: Collection[str]) -> Iterator[Finding]:
    """Judge what Prometheus knows; wanted are the names of all alarms."""
    yield _target(found.targets)
    yield _rules(found.rules, wanted)
    yield _alertmanager(found.alertmanagers)


def _alertmanager(found: Mapping[str, str]) -> Finding:
    """Judge whether anybody is told; one that answers is enough: all are told."""
    name = "alertmanager"
    if not found:
        saw = "Prometheus has no Alertmanager: alarms fire, and nobody hears them"
        return Finding(name, "fail", saw, "alerting: in prometheus.yml")
    if all(found.values()):
        # It need not be open to this machine.
        saw = f"none answers from here: {'; '.join(found.values())}"
        return Finding(name, "warn", saw, "see that an alarm reaches you")
    return Finding(name, "pass", "Prometheus has somebody to tell, who answers")


def _target(targets: Mapping[str, bool]) -> Finding:
    if not targets:
        saw = f'no target of the job "{JOB}" is this relay'
        return Finding("target", "fail", saw, _RENDER)
    if down := [name for name, up in targets.items() if not up]:
        do = "[access] metrics_from has to let Prometheus in, and relay.metrics_at be its way"
        return Finding("target", "fail", f"{', '.join(down)} cannot be scraped", do)
    return Finding("target", "pass", f"{', '.join(targets)} is scraped")


def _rules(rules: Mapping[str, str], wanted: Collection[str]) -> Finding:
    missing = sorted(set(wanted) - set(rules))
    if missing:
        more = f" and {len(missing) - _NAMED} more" if len(missing) > _NAMED else ""
        saw = f"without the alarms {', '.join(missing[:_NAMED])}{more}"
        return Finding("rules", "fail", saw, _RENDER)
    if broken := [name for name in wanted if rules[name] == "err"]:
        saw = f"{', '.join(broken)} cannot be evaluated"
        return Finding("rules", "fail", saw, "Prometheus' own page of rules says why")
    return Finding("rules", "pass", f"all {len(wanted)} alarms are watched for")


GATE = Gate("monitoring", "your Prometheus hears it, and has the rules", ("MX",), judge)
