"""Ask an authority for the relay's certificates when it is time to; run by root, on a timer.

    authority ── certbot ──> /srv/backup-mx/acme ── install ──> CHAIN ── reload ──> Postfix
                                                    install ──> PAIRS ── restart ──> policies

Mail waits for none of it: what is in CHAIN stays, self-signed or expired, until there is better.
Postfix's comes first; those of the hosts of MTA-STS policies are asked for afterwards, whatever
became of it.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import socket
import ssl
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from backup_mx.errors import MachineError
from backup_mx.relay import certificate, files, policies, settings, text
from backup_mx.relay.certificate import Asked
from backup_mx.relay.queue.commands import Postfix
from backup_mx.relay.settings import Settings
from backup_mx.relay.tasks import system

CHAIN = Path("/srv/backup-mx/tls/chain.pem")
"""What Postfix shows (smtpd_tls_chain_files): a key, its certificate, those that vouch for it."""

CERTBOT = ("/usr/bin/certbot", "certonly", "--config", "/etc/backup-mx/certbot.ini")
NOW = "now"
_SECONDS = 600.0
_SECONDS_OF_OTHERS = 120.0  # Postfix's turn comes again soon
_CUT_OFF = "the asking did not end"
_DULL = ("Saving debug log", "Ask for help", "See the logfile", "Some challenges have failed",
         "Requesting a certificate", "Renewing an existing", "Certbot failed to auth",
         "Account registered", "Hint:", "An unexpected error occurred", "- - -")  # fmt: skip


@dataclass(frozen=True)
class Place:
    """Where the files are of one authority and name: certbot's, Postfix's, and our own memory."""

    live: Path
    chain: Path = CHAIN
    asked: Path = certificate.ASKED


def place(authority: str, hostname: str) -> Place:
    """Return where certbot.ini has certbot keep the certificates of that authority."""
    return Place(certificate.ASKED.parent / authority / "live" / hostname)


@dataclass(frozen=True)
class Wanted:
    """A certificate that is wanted: for which host, where it goes, who is told of another one.

    seconds is the patience with the authority.
    """

    host: str
    where: Place
    reload: Callable[[], None]
    seconds: float = _SECONDS


def wanted(told: Settings) -> Iterator[Wanted]:
    """Yield the relay's own, then that of each policy's host whose name leads here already."""
    yield Wanted(told.hostname, place(told.acme, told.hostname), Postfix().reload)
    for host in told.policies:
        if not leads_to(told.address, host):
            continue  # nothing that an authority would have to be bothered with
        live, asked = place(told.acme, host).live, certificate.asked_for(host)
        where = Place(live, policies.PAIRS / host, asked)
        yield Wanted(host, where, _restart, _SECONDS_OF_OTHERS)


def leads_to(address: str, host: str) -> bool:
    """Tell whether DNS has ``address`` for a host; what cannot be told is no."""
    try:
        found = socket.getaddrinfo(host, 80, type=socket.SOCK_STREAM)
    except OSError:
        return False
    return address in {each[4][0] for each in found}


def _restart() -> None:
    """Have the policies served with what there is now. Raises MachineError."""
    try:
        restart = ("systemctl", "restart", policies.UNIT)
        subprocess.run(restart, check=True, timeout=60, capture_output=True)
    except (OSError, subprocess.SubprocessError) as error:
        raise MachineError(f"{policies.UNIT} does not start: {error}") from None


def run(
    what: str,
    where: Place,
    ask: Callable[[], None],
    reload: Callable[[], None],
    tell: Callable[[str], None],
    *,
    always: bool,
) -> None:
    """Install what there is; ask for what there is not, if it is time to or ``always``.

    what names authority and host. Raises MachineError when asking was in vain, OSError where it
    cannot be noted how it ended.
    """
    # Also what an earlier run got, and did not live to install.
    install(where, reload, tell)
    before = certificate.last(where.asked)
    if not (always or certificate.due(before, what, lifetime(where), time.time())):
        return
    known = before if before and before.what == what else Asked(what, 0.0)
    # Whatever ends this run, by memory or time: the authority has counted that it was asked.
    certificate.keep(known.failed(_CUT_OFF, time.time()), where.asked)
    try:
        ask()
        install(where, reload, tell)
    except MachineError as error:
        certificate.keep(known.failed(str(error), time.time()), where.asked)
        raise
    certificate.keep(Asked(what, time.time()), where.asked)


def install(where: Place, reload: Callable[[], None], tell: Callable[[str], None]) -> bool:
    """Show the world what certbot has, if that is a pair and another one; return whether it was.

    Raises MachineError when it is no pair, or cannot be written; then what was there stays.
    """
    key, chain = where.live / "privkey.pem", where.live / "fullchain.pem"
    try:
        if not chain.exists():
            return False
        both = f"{key.read_text(encoding='ascii').strip()}\n{chain.read_text(encoding='ascii')}"
        if where.chain.exists() and where.chain.read_text(encoding="ascii") == both:
            return False
        # Raises ssl.SSLError, an OSError, where the key is not the certificate's.
        ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_cert_chain(chain, key)
        where.chain.parent.mkdir(mode=0o700, exist_ok=True)
        files.replace(where.chain, both, 0o600)
    except (OSError, ValueError) as error:
        raise MachineError(f"the certificate in {where.live} is of no use: {error}") from None
    tell(f"another certificate is in use, of {where.live}")
    try:
        reload()
    except MachineError as error:
        # Who does not run reads it when he starts.
        tell(f"nobody was told: {error}")
    return True


def lifetime(where: Place) -> float:
    """Return for how many seconds in all the installed certificate holds, 0.0 without any."""
    try:
        return certificate.read(where.chain.read_bytes(), system.run).lifetime
    except (OSError, ValueError, subprocess.SubprocessError):
        return 0.0


def ask(host: str, seconds: float = _SECONDS) -> None:
    """Have certbot get a certificate, or another one if the one there is runs out soon.

    It may take so many seconds. Raises MachineError with the authority's words, or certbot's.
    """
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    try:
        done = subprocess.run(
            [*CERTBOT, "--cert-name", host, "--domains", host],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=seconds,
            check=False,
            env=environment,
            text=True,
            errors="replace",
        )
    except subprocess.TimeoutExpired:
        raise MachineError(f"certbot did not end within {seconds:.0f} s") from None
    except OSError as error:
        raise MachineError(f"certbot does not run: {error.strerror}") from None
    if done.returncode:
        raise MachineError(words(done.stdout + done.stderr) or f"certbot: {done.returncode}")


def words(said: str) -> str:
    """Return on one line, printable, what certbot said that is worth reading."""
    lines = [" ".join(line.split()) for line in said.splitlines()]
    worth = [line for line in lines if line and not line.startswith(_DULL)]
    return text.printable("; ".join(dict.fromkeys(worth)))


@contextlib.contextmanager
def alone(lock: Path) -> Iterator[None]:
    """Be the only run that asks. Raises MachineError where another one does."""
    with lock.open("w") as held:
        try:
            fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise MachineError("another run is asking just now") from None
        yield


def _say(line: str) -> None:
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


def each_run(told: Settings, *, always: bool) -> Iterator[str]:
    """Do it for every certificate that is wanted; yield what became of those that failed.

    Raises OSError where it cannot be noted how an asking ended.
    """
    for it in wanted(told):
        try:
            what, asking = f"{told.acme} {it.host}", partial(ask, it.host, it.seconds)
            run(what, it.where, asking, it.reload, _say, always=always)
        except MachineError as error:
            yield f"{it.host}: {error}"


def main() -> None:
    """Do it for this relay, with "now" as argument at once; end with a message where it failed."""
    try:
        told = settings.read()
        with alone(place(told.acme, told.hostname).asked.with_name(".lock")):
            failed = list(each_run(told, always=sys.argv[1:] == [NOW]))
        if failed:
            raise SystemExit("\n".join(failed))
    except MachineError as error:
        raise SystemExit(str(error)) from None
    except OSError as error:
        raise SystemExit(f"it cannot be noted how the asking ends: {error}") from None


if __name__ == "__main__":
    main()
