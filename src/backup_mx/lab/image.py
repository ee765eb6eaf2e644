"""Images: the read-only trees that machines are booted over, built once each by mmdebstrap.

An image's folder is named by a hash of all that goes into it; it appears under that name only
when it is complete.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import json
import os
import shutil
import subprocess
import tempfile
from collections import deque
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

from backup_mx.errors import LabError
from backup_mx.lab import mirror
from backup_mx.lab.host import Progress
from backup_mx.machine.tree import (
    ACME_PACKAGES,
    AGENT_PACKAGES,
    DEBCONF,
    PACKAGES,
    VOLUME_PACKAGES,
)

_FORMAT = 1  # raise it when images are made in another way than before
_TAIL_LINES = 12
_MILESTONE = "I: "  # how mmdebstrap marks what it does

_SYSTEM = (
    "ca-certificates",
    "cloud-init",
    "dbus",
    "iproute2",
    "openssh-server",
    "procps",
    "python3",
    "sudo",
    "systemd",
    "systemd-sysv",
)
_INTERNET = ("knot", "knot-dnsutils", "pebble", "python3-dkim", "swaks", "unbound")
_EDGE = ("haproxy", "nftables", "wireguard-go", "wireguard-tools")
_PRIMARY = (
    "dovecot-imapd",
    "dovecot-lmtpd",
    "dovecot-sieve",
    "postfix-policyd-spf-python",
    "redis-server",
    "rspamd",
    "ssl-cert",
)
_MONITORING = ("prometheus", "prometheus-alertmanager", "prometheus-blackbox-exporter")
_RELAY = (*PACKAGES, *AGENT_PACKAGES, *ACME_PACKAGES, *VOLUME_PACKAGES)
_STARTS_BY_ITSELF = (
    "apt-daily-upgrade.timer",
    "apt-daily.timer",
    "certbot.timer",
    "dovecot.service",
    "dovecot.socket",
    "haproxy.service",
    "knot.service",
    "nftables.service",
    "postfix.service",
    "prometheus-alertmanager.service",
    "prometheus-blackbox-exporter.service",
    "prometheus.service",
    "redis-server.service",
    "rspamd.service",
    "ssh.service",
    "unattended-upgrades.service",
    "unbound.service",
)
_USELESS_IN_A_CONTAINER = (
    "console-getty.service",
    "dev-hugepages.mount",
    "dpkg-db-backup.timer",
    "e2scrub_reap.service",
    "fstrim.timer",
    "getty.target",
    "sys-fs-fuse-connections.mount",
    "systemd-networkd-wait-online.service",
    "systemd-networkd.service",
    "systemd-pstore.service",
)


@dataclass(frozen=True)
class ImageSpec:
    """What an image is made of.

    release is Debian's name for it; disabled units may be enabled by a machine, all others stay
    as the packages leave them; debs are packages that the image does not hold but keeps beside it,
    with what they need, as a repository for apt.
    """

    name: str
    release: str
    packages: tuple[str, ...]
    disabled: tuple[str, ...] = ()
    debs: tuple[str, ...] = ()

    @property
    def digest(self) -> str:
        """The hash of all that goes into the image; the same image has the same on every host."""
        made_of = [_FORMAT, asdict(self), _USELESS_IN_A_CONTAINER, _hooks(self, Path("debs"))]
        return hashlib.sha256(json.dumps(made_of).encode()).hexdigest()[:16]


@dataclass(frozen=True)
class Image:
    """A complete image: its tree, and the repository beside it (which may hold nothing)."""

    spec: ImageSpec
    folder: Path

    @property
    def root(self) -> Path:
        """The tree; machines must not write to it."""
        return self.folder / "root"

    @property
    def debs(self) -> Path:
        """The flat apt repository of ``spec.debs``."""
        return self.folder / "debs"


WORLD = ImageSpec(
    "world",
    "trixie",
    tuple(sorted({*_SYSTEM, *_INTERNET, *_EDGE, *_PRIMARY, *_MONITORING, *_RELAY})),
    disabled=_STARTS_BY_ITSELF,
)
"""Debian 13 with what any machine of the lab needs, all of it switched off."""

PLAIN_TRIXIE = ImageSpec("plain", "trixie", _SYSTEM, debs=_RELAY)
"""Debian 13 as a provider hands it out."""

PLAIN_BOOKWORM = ImageSpec("plain", "bookworm", _SYSTEM, debs=_RELAY)
"""Debian 12 as a provider hands it out."""

PLAIN_NOBLE = ImageSpec("plain", "noble", (*_SYSTEM, "apt", "locales"), debs=_RELAY)
"""Ubuntu 24.04 as a provider hands it out; it can be had where Ubuntu's signing keys are."""
UBUNTU_KEYS = Path("/usr/share/keyrings/ubuntu-archive-keyring.gpg")
_COMPONENTS = {"noble": "main,universe"}
"""What mmdebstrap would leave out."""


def images() -> Path:
    """Return the folder of all images, below $BACKUP_MX_CACHE or /var/cache/backup-mx."""
    return Path(os.environ.get("BACKUP_MX_CACHE") or "/var/cache/backup-mx") / "images"


def ensure(spec: ImageSpec, progress: Progress) -> Image:
    """Return the image, building it first if it is not there yet (a minute or two).

    Two that want it at once get one build: the second waits. Raises LabError with mmdebstrap's
    last words when it cannot be built, and then leaves nothing of it.
    """
    images().mkdir(parents=True, exist_ok=True)
    # Images hold setuid programs that nobody patches: other users of the host stay out.
    images().chmod(0o700)
    final = images() / f"{spec.name}-{spec.release}-{spec.digest}"
    if not final.exists():
        with _only_builder(progress):
            if not final.exists():
                _build(spec, final, progress)
    return Image(spec, final)


@contextlib.contextmanager
def _only_builder(progress: Progress) -> Iterator[None]:
    """Be the one process that builds images here, and clear away what a killed one left."""
    with (images() / ".lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            progress("waiting for another process that builds an image")
            fcntl.flock(lock, fcntl.LOCK_EX)
        for stale in images().glob(".building-*"):
            shutil.rmtree(stale)
        yield


def _build(spec: ImageSpec, final: Path, progress: Progress) -> None:
    progress(f"building the image {spec.name} ({spec.release}); this happens once")
    temporary = Path(tempfile.mkdtemp(prefix=".building-", dir=images()))
    try:
        (temporary / "debs").mkdir()
        _run(_command(spec, temporary), progress)
        mirror.index(temporary / "debs")
        temporary.rename(final)
    except BaseException:
        shutil.rmtree(temporary)
        raise


def _command(spec: ImageSpec, folder: Path) -> list[str]:
    """Return the build's command line.

    The build lives in a process namespace that ends with this process, however it ends: a build
    must not go on writing into a folder that the next one clears away.
    """
    caged = ["setpriv", "--pdeathsig", "KILL", "unshare", "--propagation", "slave", "--pid"]
    return [
        *[*caged, "--fork", "--kill-child", "--mount-proc", "--"],
        *["mmdebstrap", "--variant=minbase", "--format=directory"],
        *['--aptopt=Acquire::http::Timeout "20"', '--aptopt=Acquire::Retries "2"'],
        f"--include={','.join(spec.packages)}",
        *[f"--components={names}" for names in [_COMPONENTS.get(spec.release)] if names],
        *_hooks(spec, folder / "debs"),
        spec.release,
        str(folder / "root"),
    ]


def _hooks(spec: ImageSpec, debs: Path) -> list[str]:
    """Return mmdebstrap's hooks: shell commands, in which "$1" is the tree being made."""
    finish = [
        *[f'systemctl --quiet --root="$1" disable {unit}' for unit in spec.disabled],
        f'systemctl --quiet --root="$1" mask {" ".join(_USELESS_IN_A_CONTAINER)}',
        # Each machine makes its own keys; the sources are no machine's business in a lab.
        'rm -f "$1"/etc/ssh/ssh_host_*_key* "$1"/etc/apt/sources.list',
        # The tree is as its packages left it: a first boot need not rebuild what they built.
        'touch "$1"/etc/.updated "$1"/var/.updated',
    ]
    if spec.debs:
        finish.insert(0, _download(spec.debs, debs))
    return [
        *[
            f"""--essential-hook=echo "{answer}" | chroot "$1" debconf-set-selections"""
            for answer in DEBCONF
        ],
        *[f"--customize-hook={command}" for command in finish],
    ]


def _download(packages: tuple[str, ...], debs: Path) -> str:
    """Return the command that fetches packages and all they need, beyond what the image has."""
    get = f"apt-get --yes --download-only install {' '.join(packages)}"
    return (
        f'APT_CONFIG="$MMDEBSTRAP_APT_CONFIG" {get} && mv "$1"/var/cache/apt/archives/*.deb {debs}/'
    )


def _run(command: list[str], progress: Progress) -> None:
    """Run the build, hand its milestones to ``progress``."""
    tail: deque[str] = deque(maxlen=_TAIL_LINES)
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, errors="replace"
    ) as process:
        try:
            for line in process.stdout or ():
                tail.append(line.rstrip())
                if line.startswith(_MILESTONE) and "hook" not in line:
                    progress(line.removeprefix(_MILESTONE).rstrip())
        except BaseException:
            process.kill()
            raise
    if process.returncode:
        words = "\n  ".join(tail)
        raise LabError(f"the image could not be built; mmdebstrap's last words:\n  {words}")
