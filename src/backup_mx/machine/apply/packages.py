"""The distribution's packages, on a machine whose network may come late."""

from __future__ import annotations

import time
from collections.abc import Sequence

from .system import ApplyError, must, run, tell

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


def install(wanted: Sequence[str], answers: Sequence[str], patience: float) -> None:
    """Install what is missing, trying again for ``patience`` seconds."""
    missing = missing_packages(wanted)
    if not missing:
        return
    tell(f"packages: installing {', '.join(missing)}")
    must(["debconf-set-selections"], stdin="".join(f"{answer}\n" for answer in answers))
    deadline = time.monotonic() + patience
    while failure := install_once(missing):
        if time.monotonic() >= deadline:
            raise ApplyError(
                f"the packages cannot be installed, given up after {patience:.0f} s: {failure}"
            )
        tell(f"packages: not yet ({failure}); trying again")
        time.sleep(min(5, max(0, deadline - time.monotonic())))


def install_once(packages: Sequence[str]) -> str:
    """Try once; return the first complaint, or nothing when all are installed."""
    for argv in (
        ["dpkg", "--configure", "-a", "--force-confold"],  # an interrupted run may have left some
        [*APT, "update", "-o", "APT::Update::Error-Mode=any"],
        [*APT, "install", "--no-install-recommends", *packages],
    ):
        code, said = run(argv, timeout=900)
        if code:
            lines = said.splitlines() or [f"{argv[0]} ended with {code}"]
            return next((line for line in lines if line.startswith(("E:", "dpkg: "))), lines[-1])
    return ""
