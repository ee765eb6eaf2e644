"""Machines as a provider hands them out, which install what they need from the lab's mirror."""

from __future__ import annotations

import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from backup_mx.lab import image, names
from backup_mx.lab.image import ImageSpec
from backup_mx.lab.world import World

pytestmark = pytest.mark.lab

INSTALL = b"""#cloud-config
package_update: true
packages: [postfix, postfix-lmdb]
"""


@pytest.mark.parametrize(
    ("spec", "postfix"),
    [
        (image.PLAIN_TRIXIE, "3.10."),
        pytest.param(image.PLAIN_BOOKWORM, "3.7.", marks=pytest.mark.long),
    ],
)
def test_a_plain_machine_installs_from_the_mirror(
    spec: ImageSpec, postfix: str, make_world: Callable[[World], World]
) -> None:
    """A plain Debian has no Postfix until its user-data installs one, by apt, from the lab."""
    world = make_world(World(user_data=INSTALL, relay_image=spec, members=("internet", "mx2")))
    assert not (image.ensure(spec, print).root / "usr/sbin/postfix").exists()
    world.up(print)
    mx2 = world.machine("mx2")
    assert mx2.run(["postconf", "-hd", "mail_version"]).text.startswith(postfix)
    policy = mx2.run(["apt-cache", "policy", "postfix"]).text
    assert f"http://mirror.example.net/{spec.release} ./ Packages" in policy
    assert mx2.run(["cloud-init", "status"]).text.strip() == "status: done"


def test_a_bare_machine_lets_its_owner_in(
    tmp_path: Path, make_world: Callable[[World], World]
) -> None:
    """The plain machine that is not booted from our user-data takes its owner's SSH key as root."""
    key = tmp_path / "key"
    generate = ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(key)]
    subprocess.run(generate, check=True)
    world = make_world(
        World(
            members=("internet", "bare"),
            authorized_keys=(key.with_suffix(".pub").read_text().strip(),),
        )
    )
    world.up(print)
    inside = ["ip", "netns", "exec", names.scoped(world.name, "net")]
    options = ["-o", "StrictHostKeyChecking=no", "-o", f"UserKnownHostsFile={tmp_path}/hosts"]
    ssh = [*inside, "ssh", "-i", str(key), *options, "root@203.0.113.30", "hostname"]
    done = subprocess.run(ssh, capture_output=True, text=True, timeout=30, check=False)
    assert done.stdout == "bare\n", done.stderr
    assert not (world.machine("bare").root / "usr/sbin/postfix").exists()
