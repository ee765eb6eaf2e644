"""What rspamd made of a message: read from its history, from rspamc, or from the message itself.

Pure, no I/O. Sources: rspamd's HTTP answers (/history, /checkv2), its milter_headers
(X-Spamd-Result), and Authentication-Results (RFC 8601).
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from email.message import Message
from email.parser import HeaderParser
from typing import Any

from backup_mx.errors import LabError

DRAINED = "BACKUP_MX_DRAIN"
"""The symbol by which our kit marks mail that a relay hands over."""

_FINDINGS = {
    "spf": {
        "R_SPF_ALLOW": "pass",
        "R_SPF_FAIL": "fail",
        "R_SPF_SOFTFAIL": "softfail",
        "R_SPF_NEUTRAL": "neutral",
        "R_SPF_NA": "none",
        "R_SPF_DNSFAIL": "temperror",
        "R_SPF_PERMFAIL": "permerror",
    },
    "dkim": {
        "R_DKIM_ALLOW": "pass",
        "R_DKIM_REJECT": "fail",
        "R_DKIM_NA": "none",
        "R_DKIM_TEMPFAIL": "temperror",
        "R_DKIM_PERMFAIL": "permerror",
    },
    "dmarc": {
        "DMARC_POLICY_ALLOW": "pass",
        "DMARC_POLICY_ALLOW_WITH_FAILURES": "pass",
        "DMARC_POLICY_REJECT": "fail",
        "DMARC_POLICY_QUARANTINE": "fail",
        "DMARC_POLICY_SOFTFAIL": "fail",
        "DMARC_NA": "none",
        "DMARC_DNSFAIL": "temperror",
        "DMARC_BAD_POLICY": "permerror",
    },
}
_RESULT = re.compile(r"\[(-?[\d.]+) / -?[\d.]+\]")
_SYMBOL = re.compile(r"(?:^|;)\s*([A-Z][A-Z0-9_]*)\((-?[\d.]+)\)\s*(?:\[([^\]]*)\])?")
_METHOD = re.compile(r"(?:^|;)\s*(spf|dkim|dmarc)=(\w+)")
_ADDRESS = re.compile(r"\b(\d{1,3}(?:\.\d{1,3}){3})\b")


@dataclass(frozen=True)
class Verdict:
    """rspamd's verdict on a message.

    action is rspamd's word for it; client the address it takes for the sender's; spf, dkim, dmarc
    what it found, in the words of RFC 8601; symbols the score of each symbol; source where it was
    read.
    """

    source: str
    score: float
    action: str
    client: str
    spf: str
    dkim: str
    dmarc: str
    symbols: Mapping[str, float] = field(repr=False)

    @property
    def is_junk(self) -> bool:
        """Whether it calls for the Junk folder, or worse."""
        return self.action in ("add header", "rewrite subject", "reject")


def from_history(text: str) -> dict[str, Verdict]:
    """Read the controller's /history: the latest verdict on each Message-ID (in angle brackets).

    Raises LabError when it is not such a document.
    """
    try:
        entries = json.loads(text)["rows"]
        newest = sorted(entries, key=lambda entry: float(entry["unix_time"]))
        return {
            f"<{entry['message-id'].strip('<>')}>": _judged("history", entry, entry["ip"])
            for entry in newest
        }
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise LabError(f"rspamd's history cannot be read: {error!r}") from error


def from_scan(text: str, client: str) -> Verdict:
    """Read what ``rspamc --json`` printed for mail said to come from ``client``.

    Raises LabError when it is no answer of rspamd's.
    """
    try:
        # rspamc prints "Results for file: …" above the JSON in some versions.
        return _judged("scan", json.loads(text[text.index("{") :]), client)
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise LabError(f"rspamc did not say what it found: {text[:200]!r}") from error


def from_trace(text: str) -> Verdict | None:
    """Read the fields that rspamd's milter put on top of a message; None when there are none."""
    head = HeaderParser().parsestr(text)
    result = _unfolded(head, "X-Spamd-Result")
    score = _RESULT.search(result)
    if score is None:
        return None
    found = {match[1]: match[3] or "" for match in _SYMBOL.finditer(result)}
    symbols = {match[1]: float(match[2]) for match in _SYMBOL.finditer(result)}
    methods = dict(reversed(_METHOD.findall(_unfolded(head, "Authentication-Results"))))
    return Verdict(
        source="headers",
        score=float(score[1]),
        action="add header" if _unfolded(head, "X-Spam").lower() == "yes" else "no action",
        client=_client(head, found),
        spf=methods.get("spf", "none"),
        dkim=methods.get("dkim", "none"),
        dmarc=methods.get("dmarc", "none"),
        symbols=symbols,
    )


def _unfolded(head: Message, name: str) -> str:
    return " ".join(str(head.get(name, "")).split())


def _client(head: Message, options: Mapping[str, str]) -> str:
    """Return the client's address: of rspamd's own field, else of SPF's reason."""
    for text in (_unfolded(head, "X-Rspamd-Client"), *options.values()):
        if found := _ADDRESS.search(text):
            return found[1]
    return ""


def _judged(source: str, entry: Mapping[str, Any], client: str) -> Verdict:
    symbols = {name: float(symbol["score"]) for name, symbol in entry["symbols"].items()}
    return Verdict(
        source=source,
        score=float(entry["score"]),
        action=str(entry["action"]),
        client=client,
        spf=_found("spf", symbols),
        dkim=_found("dkim", symbols),
        dmarc=_found("dmarc", symbols),
        symbols=symbols,
    )


def _found(method: str, symbols: Iterable[str]) -> str:
    names = set(symbols)
    return next((word for name, word in _FINDINGS[method].items() if name in names), "none")


def differences(straight: Verdict, relayed: Verdict) -> list[str]:
    """Say in what ``relayed`` judged otherwise than ``straight``; nothing when it is the same.

    A score that differs is told with the symbols that make the difference.
    """
    told = [
        f"{name} {getattr(relayed, name) or 'unknown'}, straight {getattr(straight, name)}"
        for name in ("spf", "dkim", "dmarc", "client")
        if getattr(relayed, name) != getattr(straight, name)
    ]
    if round(straight.score, 2) != round(relayed.score, 2):
        because = ", ".join(_unlike(straight.symbols, relayed.symbols)) or "no symbol says why"
        told.append(f"score {relayed.score:.2f}, straight {straight.score:.2f}: {because}")
    return told


def _unlike(straight: Mapping[str, float], relayed: Mapping[str, float]) -> list[str]:
    """Name the symbols that weigh otherwise: "RDNS_NONE 0.00 for 2.00"."""
    names = sorted(straight.keys() | relayed.keys())
    pairs = ((name, relayed.get(name, 0.0), straight.get(name, 0.0)) for name in names)
    return [f"{name} {there:.2f} for {here:.2f}" for name, there, here in pairs
            if round(there, 2) != round(here, 2)]  # fmt: skip
