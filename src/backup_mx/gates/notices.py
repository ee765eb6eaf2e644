"""Whether the relay's own notices arrive: one is sent to each place, as a test."""

from __future__ import annotations

import inspect
from collections.abc import Iterator, Mapping

from backup_mx.findings import Finding
from backup_mx.gates import telling
from backup_mx.gates.gate import Gate, Site
from backup_mx.machine.agent import LIBRARY
from backup_mx.machine.ship import Host, facts, must
from backup_mx.relay import settings

# The agent's user, who runs the same program day by day, with less than its service may.
_CONFINED = (
    "User=backup-mx",
    f"LoadCredential={settings.PATH.name}:{settings.PATH}",
    "RuntimeDirectory=backup-mx-test",
    "RuntimeDirectoryMode=0700",
    "RuntimeMaxSec=300",
    "UMask=0077",
    "MemoryMax=256M",
    "TasksMax=64",
    "InaccessiblePaths=-/srv -/var/log -/var/spool -/run/log",
    "ProtectSystem=strict",
    "ProtectHome=yes",
    "ProtectProc=invisible",
    "ProtectControlGroups=yes",
    "ProtectKernelLogs=yes",
    "ProtectKernelModules=yes",
    "ProtectKernelTunables=yes",
    "PrivateTmp=yes",
    "PrivateDevices=yes",
    "PrivateUsers=yes",
    "NoNewPrivileges=yes",
    "CapabilityBoundingSet=",
    "RestrictAddressFamilies=AF_UNIX AF_INET AF_INET6",
    "RestrictNamespaces=yes",
    "RestrictSUIDSGID=yes",
    "LockPersonality=yes",
    "SystemCallFilter=@system-service",
)


def judge(site: Site) -> Iterator[Finding]:
    """Send the test notices. Raises MachineError, UnreachableError."""
    if not site.config.notify.urls:
        yield untold(watched=site.config.monitoring.prometheus is not None)
        return
    site.tell("sending a test notice to each place of [notify] urls")
    yield judged(sent(site.host))


def sent(host: Host) -> Mapping[str, str]:
    """Have the relay send them; return why each place was not told, "" where it was."""
    program = f"{inspect.getsource(telling)}\nimport json\nprint(json.dumps(told()))\n"
    argv = (
        *("systemd-run", "--pipe", "--wait", "--collect", "--quiet"),
        *(f"--property={each}" for each in _CONFINED),
        *(f"--setenv=PYTHONPATH={LIBRARY}", "--", "python3", "-P", "-"),
    )
    said = facts(must(host, argv, stdin=program.encode()))
    return {str(place): str(why) for place, why in said.items()}


def untold(*, watched: bool) -> Finding:
    """Judge a relay that tells nobody by itself; watched: a Prometheus does."""
    do = "[notify] urls; docs/deploy.md"
    if not watched:
        saw = "nobody is ever told: there are neither [notify] urls nor [monitoring] prometheus"
        return Finding("notices", "fail", saw, do)
    saw = "the relay tells nobody by itself: your monitoring may be down when your home is"
    return Finding("notices", "warn", saw, do)


def judged(told: Mapping[str, str]) -> Finding:
    """Judge what became of each notice."""
    failed = [f"{place}: {why}" for place, why in told.items() if why]
    if failed:
        do = "mend it in [notify] urls, then backup-mx deploy"
        return Finding("notices", "fail", "; ".join(failed), do)
    return Finding("notices", "pass", f"taken by {', '.join(told)}: see that it arrived")


GATE = Gate("notices", "its own notices are taken", ("MX",), judge, lasting=True)
