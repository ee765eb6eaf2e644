"""The operator of a lab: a folder, keys and accounts, and a place on the Internet to work from.

A program of the host that is run as the operator stands in the lab's network, asks the lab's
resolver, trusts the lab's authority, and has an SSH key that the relay's machine lets in.
"""

from __future__ import annotations

import base64
import os
import secrets
import signal
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import backup_mx
from backup_mx.errors import LabError
from backup_mx.lab import certificates, host, names, network
from backup_mx.lab.layout import RESOLVER
from backup_mx.lab.machine import Done

FOLDER = "config"
"""Where the operator works, in the lab's folder: backup-mx.toml is there, build/ comes there."""
PROBER = "lab-prober"
"""The password of the operator's accounts, for submission and for IMAP."""
_KEY = "id_ed25519"
_MADE_AT = "/root/operator"  # for the moment that ssh-keygen needs it
_SECONDS = 300.0
_SSH_CONFIG = """IdentityFile {folder}/id_ed25519
IdentitiesOnly yes
UserKnownHostsFile {folder}/known_hosts
GlobalKnownHostsFile /dev/null
StrictHostKeyChecking accept-new
"""
_PROGRAM = """#!{python}
import sys
sys.path.insert(0, {library!r})
from backup_mx.cli import main
main()
"""
# Mounted over the host's own, in a mount namespace that ends with the program. Where somebody has
# settings for ssh of his own, they are not the operator's.
_INSIDE = """folder=$1; shift
mount --bind "$folder/resolv.conf" /etc/resolv.conf || exit 125
mount --bind "$folder/ssh_config" /etc/ssh/ssh_config || exit 125
home=$(getent passwd "$(id -u)" | cut -d: -f6)
[ ! -d "$home/.ssh" ] || mount --bind "$folder/ssh" "$home/.ssh" || exit 125
exec "$@"
"""


@dataclass(frozen=True)
class Operator:
    """The operator of the lab of this name, which is up."""

    lab: str

    @property
    def folder(self) -> Path:
        """Where the operator works: the lab's backup-mx.toml is there."""
        return names.folder(self.lab) / FOLDER

    @property
    def own(self) -> Path:
        """Where the operator's key and settings are."""
        return names.folder(self.lab) / "operator"

    @property
    def ssh_config(self) -> Path:
        """The operator's settings for ssh(1): a key, and the machines that have been met."""
        return self.own / "ssh_config"

    @property
    def public_key(self) -> str:
        """The operator's public SSH key, as in authorized_keys."""
        return (self.own / f"{_KEY}.pub").read_text().strip()

    def command(self, argv: Sequence[str], folder: Path | None = None) -> list[str]:
        """Return the command line that runs ``argv``, a program of the host, as the operator.

        It is run in ``folder``, or else in the operator's. Raises LabError in a lab without one.
        """
        if not self.ssh_config.exists():
            raise LabError(f"lab {self.lab} has no operator: it is older than this backup-mx")
        wires = network.NAMESPACES / names.scoped(self.lab, "net")
        self._bring_program()
        return [
            # Not private: a copy of the host's mounts would hold another machine's volume.
            *("nsenter", f"--net={wires}", "unshare", "--mount", "--propagation", "slave"),
            *(
                "env",
                f"--chdir={folder or self.folder}",
                f"SSL_CERT_FILE={self.own / 'trusted.pem'}",
            ),
            f"PATH={self.own / 'bin'}:{os.environ.get('PATH', os.defpath)}",
            *("sh", "-c", _INSIDE, "operator", str(self.own), *argv),
        ]

    def run(
        self,
        argv: Sequence[str],
        *,
        stdin: bytes = b"",
        folder: Path | None = None,
        timeout: float = _SECONDS,
        hear: Callable[[str], None] = lambda _line: None,
    ) -> Done:
        """Run a program of the host as the operator, for at most ``timeout`` seconds.

        hear gets each line of its standard error as it comes. Raises LabError when the time is up.
        """
        with tempfile.TemporaryFile() as given, tempfile.TemporaryFile() as out:
            given.write(stdin)
            given.seek(0)
            process = subprocess.Popen(
                self.command(argv, folder),
                stdin=given,
                stdout=out,
                stderr=subprocess.PIPE,
                start_new_session=True,
            )
            err, late = _heard(process, hear, timeout)
            if late:
                raise LabError(f"{' '.join(argv)} did not end within {timeout:.0f} s")
            out.seek(0)
            return Done(tuple(argv), process.returncode, out.read(), err)

    def trust(self, pem: str) -> None:
        """Trust another authority, too."""
        with (self.own / "trusted.pem").open("a") as trusted:
            trusted.write(pem)

    def _bring_program(self) -> None:
        """Put this very backup-mx on the operator's path."""
        place = self.own / "bin" / "backup-mx"
        library = str(Path(backup_mx.__file__).parents[1])
        text = _PROGRAM.format(python=sys.executable, library=library)
        if place.exists() and place.read_text() == text:
            return
        new = place.with_name(f".backup-mx.{secrets.token_hex(4)}")
        new.write_text(text)
        new.chmod(0o755)
        new.replace(place)


def _heard(
    process: subprocess.Popen[bytes], hear: Callable[[str], None], timeout: float
) -> tuple[bytes, bool]:
    """Listen to a program until it ends; return what it complained of, and whether it was late."""
    late = threading.Event()

    def end() -> None:
        late.set()
        os.killpg(process.pid, signal.SIGKILL)

    timer = threading.Timer(timeout, end)
    timer.start()
    said = []
    with process:
        try:
            for raw in process.stderr or ():
                said.append(raw)
                hear(raw.decode(errors="replace").rstrip())
        except BaseException:
            os.killpg(process.pid, signal.SIGKILL)
            raise
        finally:
            timer.cancel()
    return b"".join(said), late.is_set()


def create(lab: str, root: Path) -> Operator:
    """Make the operator of a lab, with the programs of the tree at ``root``."""
    operator = Operator(lab)
    operator.folder.mkdir()
    for folder in (operator.own, operator.own / "bin", operator.own / "ssh"):
        folder.mkdir(mode=0o700)
    (operator.own / "resolv.conf").write_text(f"nameserver {RESOLVER}\n")
    operator.ssh_config.write_text(_SSH_CONFIG.format(folder=operator.own))
    _make_key(operator, root)
    authority = certificates.known(lab)
    (operator.own / "trusted.pem").write_text(authority)
    (operator.folder / "lab.pem").write_text(authority)
    for name, secret in {"tsig.key": _tsig_key(), "prober.password": PROBER}.items():
        (operator.folder / name).touch(0o600)
        (operator.folder / name).write_text(secret)
    return operator


def _make_key(operator: Operator, root: Path) -> None:
    made_at = root / _MADE_AT.lstrip("/")
    keygen = ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", "operator", "-f", _MADE_AT]
    host.call(["chroot", str(root), *keygen])
    for made, mode in ((made_at, 0o600), (made_at.with_suffix(".pub"), 0o644)):
        place = operator.own / f"{_KEY}{made.suffix}"
        place.touch(mode)
        place.write_text(made.read_text())
        made.unlink()


def _tsig_key() -> str:
    return base64.b64encode(secrets.token_bytes(32)).decode()
