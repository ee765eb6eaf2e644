"""Evidence: what the gates found of each relay, kept in a file that DNS and Terraform go by.

    gates, rebuild ── merged ──> build/evidence.json ──> lacking ── "" ──> dns publish, Terraform

Nobody signs it off. It counts for one version of a relay and one config, for as long as each proof
in it is fresh; a change of either makes all of it void, a change of the tool all but drills. What
it is to hold, the tool says that goes by it, not the file: a gate that is not in it has not run.
What is void is kept apart, so that the next run can tell what has changed.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Literal, get_args

from backup_mx.config import Config
from backup_mx.errors import BackupMxError
from backup_mx.findings import Finding, Verdict, passed
from backup_mx.relay import files

Record = Literal["A", "MX"]
"""A record that is published for a relay; AAAA counts as A."""
RECORDS: tuple[Record, ...] = get_args(Record)
NEVER = datetime(1970, 1, 1, tzinfo=UTC)
"""When a gate ran that has not."""
_AHEAD = timedelta(minutes=5)
"""By how much the clocks of two machines may differ."""


@dataclass(frozen=True)
class Proof:
    """What one gate found, when (UTC), and looking from where.

    waits names the records that are not published without it, until is when it is stale.
    """

    finding: Finding
    at: datetime
    seen_from: str = ""
    waits: tuple[Record, ...] = ()
    until: datetime = NEVER

    def holds(self, now: datetime) -> bool:
        """Whether it passed, and is fresh."""
        return passed([self.finding]) and not self.stale(now)

    def wanting(self, now: datetime) -> str:
        """Return in words why it does not hold, "" where it does."""
        if self.at == NEVER or passed([self.finding]):
            return self.stale(now)
        return self.finding.saw

    def stale(self, now: datetime) -> str:
        """Return in words why it does not count at that time, "" where it does."""
        if self.at == NEVER:
            return "not run yet"
        if self.at > now + _AHEAD:  # a clock was wrong; it would be fresh for who knows how long
            return f"it is of the future, {moment(self.at)}: run it again"
        return "" if now < self.until else f"stale since {moment(self.until)}"


_NOT_RUN = Proof(Finding("", "unknown", ""), NEVER)


@dataclass(frozen=True)
class Terms:
    """What evidence has to be about, and to hold.

    version is that of the relay's bundle as the config makes it, config what config_hash returns,
    tool which backup-mx goes by it. gates are all that it knows: each by its name, with the records
    that are not published without it.
    """

    version: str
    config: str
    tool: str
    gates: Mapping[str, tuple[Record, ...]]


@dataclass(frozen=True)
class Evidence:
    """What is known of a relay: for which version of it, which config, by which tool.

    allows names the records that may be published, until is when the first proof for them is stale.
    Every proof but a drill's is by that tool. earlier is what gates that have not run since found
    of another version or config, or by another tool: no record goes by it.
    """

    version: str
    config: str
    tool: str
    until: datetime
    allows: tuple[Record, ...]
    proofs: Mapping[str, Proof] = field(default_factory=dict)
    earlier: Mapping[str, Proof] = field(default_factory=dict)

    @property
    def latest(self) -> dict[str, Proof]:
        """What each gate that ever ran found last, whether that counts or not."""
        ran = {name: each for name, each in self.proofs.items() if each.at != NEVER}
        return {**self.earlier, **ran}


def summed(
    version: str, config: str, tool: str, proofs: Mapping[str, Proof], now: datetime
) -> Evidence:
    """Return proofs as evidence: a record is allowed where each gate that it waits for holds."""
    allows = tuple(kind for kind in RECORDS if _allowed(kind, proofs.values(), now))
    needed = [each.until for each in proofs.values() if set(each.waits) & set(allows)]
    return Evidence(version, config, tool, min(needed, default=now), allows, proofs)


def _allowed(kind: Record, proofs: Iterable[Proof], now: datetime) -> bool:
    needed = [each for each in proofs if kind in each.waits]
    return bool(needed) and all(each.holds(now) for each in needed)


def lacking(evidence: Evidence | None, terms: Terms, kind: Record, now: datetime) -> str:
    """Return "" where ``evidence`` allows a record of that kind at ``now``, else why it does not.

    It goes by the proofs: what they allowed when they were written may be over.
    """
    if evidence is None:
        return "no gate has been run yet: backup-mx gate run"
    if evidence.version != terms.version:
        return "the gates judged another version of the relay: backup-mx deploy, then gate run"
    if evidence.config != terms.config:
        return "the config has changed since the gates were run: backup-mx gate run"
    if evidence.tool != terms.tool:
        return f"another backup-mx judged, {evidence.tool}, maybe by less: backup-mx gate run"
    wanting = {
        name: evidence.proofs.get(name, _NOT_RUN).wanting(now)
        for name, waits in terms.gates.items()
        if kind in waits
    }
    return "; ".join(f"{name}: {why}" for name, why in wanting.items() if why)


def config_hash(config: Config) -> str:
    """Return the SHA-256 of all options, those left out included; of a secret, where it is kept.

    But for when Terraform makes the MX records: that is set once the evidence allows them.
    """
    last = {"dns": {"cloudflare": {"publish"}}}
    options = config.model_dump(mode="python", by_alias=True, exclude=last)
    text = json.dumps(options, sort_keys=True, separators=(",", ":"), default=str)
    return hashlib.sha256(text.encode()).hexdigest()


def moment(time: datetime) -> str:
    """Write a time to the minute."""
    return time.astimezone(UTC).strftime("%Y-%m-%d %H:%M UTC")


# ── The file ──────────────────────────────────────────────────────────────────────────────────────


def read(path: Path) -> dict[str, Evidence]:
    """Return each relay's evidence by the relay's name, nothing where there is no file.

    Raises BackupMxError when the file cannot be read, or is not what write() wrote.
    """
    try:
        told = json.loads(path.read_text(encoding="utf-8"))
        return {str(name): _evidence(each) for name, each in told.items()}
    except FileNotFoundError:
        return {}
    except OSError as error:
        raise BackupMxError(f"{path} cannot be read: {error.strerror}") from None
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise BackupMxError(
            f"{path} is not what the gates wrote ({error}): delete it, then backup-mx gate run"
        ) from None


def current(known: Evidence | None, config: Config, version: str) -> Evidence | None:
    """Return what is known of a relay where it is about this config and version, else None."""
    if known is None or (known.version, known.config) != (version, config_hash(config)):
        return None
    return known


def write(path: Path, relays: Mapping[str, Evidence]) -> None:
    """Write each relay's evidence, in one step. Raises BackupMxError when that cannot be."""
    text = json.dumps({name: evidence_data(each) for name, each in relays.items()}, indent=2) + "\n"
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        files.replace(path, text)
    except OSError as error:
        raise BackupMxError(f"{path} cannot be written: {error.strerror}") from None


def evidence_data(evidence: Evidence) -> dict[str, Any]:
    """Return a relay's evidence for programs, as it stands in the file."""
    return {
        "version": evidence.version,
        "until": _stamp(evidence.until),
        "allows": list(evidence.allows),
        "config": evidence.config,
        "tool": evidence.tool,
        "gates": {name: _proof_data(proof) for name, proof in evidence.proofs.items()},
        "earlier": {name: _proof_data(proof) for name, proof in evidence.earlier.items()},
    }


def _proof_data(proof: Proof) -> dict[str, Any]:
    found = proof.finding
    return {
        "verdict": found.verdict,
        "saw": found.saw,
        "do": found.do,
        "at": _stamp(proof.at),
        "from": proof.seen_from,
        "waits": list(proof.waits),
        "until": _stamp(proof.until),
    }


def _evidence(told: Mapping[str, Any]) -> Evidence:
    return Evidence(
        version=str(told["version"]),
        config=str(told["config"]),
        tool=str(told["tool"]),
        until=_time(told["until"]),
        allows=tuple(_one_of(RECORDS, each) for each in told["allows"]),
        proofs=_proofs(told["gates"]),
        earlier=_proofs(told.get("earlier", {})),  # which older versions did not write
    )


def _proofs(told: Mapping[str, Any]) -> dict[str, Proof]:
    return {str(name): _proof(str(name), each) for name, each in told.items()}


def _proof(name: str, told: Mapping[str, Any]) -> Proof:
    verdict = _one_of(get_args(Verdict), told["verdict"])
    return Proof(
        finding=Finding(name, verdict, str(told["saw"]), str(told["do"])),
        at=_time(told["at"]),
        seen_from=str(told["from"]),
        waits=tuple(_one_of(RECORDS, each) for each in told["waits"]),
        until=_time(told["until"]),
    )


def _one_of(known: tuple[Any, ...], word: object) -> Any:  # noqa: ANN401  one of a Literal's words
    if word not in known:
        raise ValueError(f"{word!r} is none of {', '.join(known)}")
    return word


def _stamp(time: datetime) -> str:
    """Write a time as RFC 3339 has it, which Terraform's timecmp reads."""
    return time.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def _time(text: str) -> datetime:
    return datetime.strptime(text, "%Y-%m-%dT%H:%M:%SZ").replace(tzinfo=UTC)
