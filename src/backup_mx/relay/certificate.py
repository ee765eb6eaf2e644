"""A certificate as openssl reads it, and how the last asking for one ended. Standard library."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

from backup_mx.relay import files

ASKED = Path("/srv/backup-mx/acme/asked.json")
"""Where it is kept how the last asking ended: on the volume, since authorities count for days."""

_OFTEN = 12 * 3600.0
_READ = ("openssl", "x509", "-noout", "-startdate", "-enddate", "-issuer", "-subject")
_NAMES = ("-nameopt", "RFC2253,-esc_msb,utf8")
# Let's Encrypt takes five failed validations an hour, and 3,600 in a row before it wants a word
# with somebody: https://letsencrypt.org/docs/rate-limits/
_AFTER_FAILURES = (900.0, 900.0, 900.0, 900.0, 3600.0, 3600.0, 3600.0, 3600.0, 6 * 3600.0)
_WORDS = 500  # of an authority

Run = Callable[[tuple[str, ...], bytes], str]


@dataclass(frozen=True)
class Certificate:
    """From when until when it holds (seconds since 1970), by whom; issuer: "" for its own."""

    begins: float
    ends: float
    issuer: str

    @property
    def lifetime(self) -> float:
        """For how many seconds it holds in all."""
        return self.ends - self.begins


def read(content: bytes, run: Run, form: str = "PEM") -> Certificate:
    """Read the first certificate in ``content``, in PEM or DER.

    Raises OSError, ValueError, subprocess.SubprocessError where it is none.
    """
    return parsed(run((*_READ, *_NAMES, "-inform", form), content))


def parsed(said: str) -> Certificate:
    """Read what openssl-x509(1) prints: a line ``notBefore=Nov 20 01:17:00 2026 GMT`` and such.

    Raises ValueError.
    """
    import ssl  # a third of what it takes to start a verb

    fields = dict(line.partition("=")[::2] for line in said.splitlines())
    try:
        begins, ends = (ssl.cert_time_to_seconds(fields[key]) for key in ("notBefore", "notAfter"))
        own = fields["issuer"] == fields["subject"]
        return Certificate(float(begins), float(ends), "" if own else fields["issuer"].strip())
    except KeyError as error:
        raise ValueError(f"openssl does not name {error}") from None


@dataclass(frozen=True)
class Asked:
    """How the last asking of an authority ended.

    what is the authority and the name; time when it ended; failures how many in a row were in vain,
    since when; why, in its words or certbot's.
    """

    what: str
    time: float
    failures: int = 0
    since: float = 0.0
    why: str = ""

    def failed(self, why: str, now: float) -> Asked:
        """Return it after another asking, that was in vain."""
        since = self.since if self.failures else now
        return Asked(self.what, now, self.failures + 1, since, why[:_WORDS])


def asked_for(host: str) -> Path:
    """Return where the same is kept of the certificate of an MTA-STS policy's host."""
    return ASKED.with_name(f"{host}.json")


def last(path: Path = ASKED) -> Asked | None:
    """Return how the last asking ended, None where there was none that is known."""
    try:
        found = json.loads(path.read_bytes())
        return Asked(
            str(found["what"]),
            float(found["time"]),
            int(found["failures"]),
            float(found["since"]),
            str(found["why"])[:_WORDS],
        )
    except (OSError, ValueError, KeyError, TypeError):
        return None


def keep(asked: Asked, path: Path = ASKED) -> None:
    """Keep it for the next time, and for the agent. Raises OSError."""
    files.replace(path, json.dumps(asdict(asked)) + "\n")


def pause(failures: int, lifetime: float) -> float:
    """Return how many seconds pass before an authority is asked again.

    lifetime is the certificate's: short ones are looked after more often. After a failure it is an
    authority's patience that counts.
    """
    if failures:
        return _AFTER_FAILURES[min(failures, len(_AFTER_FAILURES)) - 1]
    return min(_OFTEN, lifetime / 8)


def due(asked: Asked | None, what: str, lifetime: float, now: float) -> bool:
    """Tell whether an authority is to be asked about ``what`` now; lifetime as in pause()."""
    if asked is None or asked.what != what:
        return True
    # Less than nothing: the clock was set back since.
    return not 0 <= now - asked.time < pause(asked.failures, lifetime)
