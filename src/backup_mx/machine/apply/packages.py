"""The distribution's packages, on a machine whose network may come late."""

from __future__ import annotations

from collections.abc import Sequence

from .steps import Steps
from .system import run, tell

# A mirror that does not answer is tried again here, not by apt: so the patience is kept.
APT = (
    "apt-get", "-q", "-y",
    "-o", "DPkg::Lock::Timeout=300",
    "-o", "Acquire::Retries=0",
    "-o", "Acquire::http::Timeout=10",
    "-o", "Dpkg::Options::=--force-confold",
)  # fmt: skip


def missing_packages(wanted: Sequence[str]) -> list[str]:
    """Return those of ``wanted`` that are not installed."""
    _, said = run(["dpkg-query", "-W", "-f", "${Package} ${db:Status-Status}\n", *wanted])
    installed = {line.split()[0] for line in said.splitlines() if line.endswith(" installed")}
    return [name for name in wanted if name not in installed]


def install(wanted: Sequence[str], answers: Sequence[str], steps: Steps) -> None:
    """Install what is missing, as patiently as the run is."""
    if missing := missing_packages(wanted):
        tell(f"packages: installing {', '.join(missing)}")
        steps.until("packages", lambda: install_once(missing, answers))


def install_once(packages: Sequence[str], answers: Sequence[str]) -> str:
    """Try once; return the first complaint, or nothing when all are installed."""
    for argv in (
        # Its answers are locked while another program configures packages.
        ["debconf-set-selections"],
        # An interrupted run may have left some.
        ["dpkg", "--configure", "-a", "--force-confold"],
        [*APT, "update", "-o", "APT::Update::Error-Mode=any"],
        [*APT, "install", "--no-install-recommends", *packages],
    ):
        code, said = run(argv, stdin="\n".join(answers) if len(argv) == 1 else "", timeout=900)
        if code:
            lines = said.splitlines() or [f"{argv[0]} ended with {code}"]
            return next((line for line in lines if line.startswith(("E:", "dpkg: "))), lines[-1])
    return ""
