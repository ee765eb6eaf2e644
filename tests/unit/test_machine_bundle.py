"""Config to tree, tree to bundle, bundle to user-data: pure, and the same every time."""

from __future__ import annotations

import base64
import gzip
import hashlib
import io
import json
import lzma
import os
import subprocess
import sys
import zipfile
from dataclasses import replace
from importlib import resources
from pathlib import Path

import pytest

from backup_mx.config import Config, load, parse
from backup_mx.errors import BundleError
from backup_mx.machine import cloudinit, tree
from backup_mx.machine.apply.files import Bundle, File
from backup_mx.machine.bundle import bundle, lean, pack, program, version

LAB = Path(str(resources.files("backup_mx.lab") / "backup-mx.toml"))
BUILD = """
import sys
from pathlib import Path
from backup_mx.config import load
from backup_mx.machine.bundle import bundle
sys.stdout.buffer.write(bundle(load(Path(sys.argv[1])), "mx2"))
"""


@pytest.fixture(scope="module")
def config() -> Config:
    """The lab's own config."""
    return load(LAB)


def test_a_template_becomes_the_file_of_its_place(config: Config) -> None:
    """Each file of a relay has the path of its template, which no longer shows in it."""
    files = {str(file.path): file.content for file in tree.tree(config, "mx2").files}
    assert b"myhostname = mx2.example.org\n" in files["/etc/postfix/main.cf"]
    assert files["/etc/postfix/transport"].endswith(
        b"\nexample.org relay:[mail.example.org]:2526\n"
    )
    assert not [path for path, content in files.items() if path.endswith(".j2") or b"{{" in content]


@pytest.mark.parametrize(
    ("seed", "umask", "zone"), [("0", 0o022, "UTC"), ("1", 0o077, "Pacific/Auckland")]
)
def test_the_same_config_gives_the_same_bytes(
    config: Config, seed: str, umask: int, zone: str
) -> None:
    """Hash seed, umask, time zone and another process make no difference."""
    environment = {**os.environ, "PYTHONHASHSEED": seed, "TZ": zone, "PYTHONPATH": "src"}
    argv = [sys.executable, "-c", BUILD, str(LAB)]
    built = subprocess.run(argv, env=environment, umask=umask, check=True, stdout=subprocess.PIPE)
    assert hashlib.sha256(built.stdout).digest() == hashlib.sha256(bundle(config, "mx2")).digest()


def test_another_config_gives_another_version(config: Config) -> None:
    """The version is a hash of all that makes the machine what it is."""
    relay = tree.tree(config, "mx2")
    [first, *others] = relay.files
    versions = {
        version(pack("mx2", changed))
        for changed in (
            relay,
            replace(relay, files=[replace(first, content=b"other"), *others]),
            replace(relay, files=[replace(first, mode="0600"), *others]),
            replace(relay, packages=["postfix"]),
            replace(relay, services=relay.services[1:]),
            replace(relay, checks=relay.checks[1:]),
        )
    }
    assert len(versions) == 6


def test_a_bundle_reads_back_as_the_tree(config: Config, tmp_path: Path) -> None:
    """What is packed is what the machine unpacks, defaults included."""
    relay = tree.tree(config, "mx2")
    secret = File(Path("/etc/secret"), "0600", "postfix", "postfix", "sch\u00f6n\n".encode())
    relay = replace(relay, files=[*relay.files, secret])
    archive = tmp_path / "relay.pyz"
    archive.write_bytes(pack("mx2", relay))
    read = Bundle.read(archive)
    assert (read.relay, read.version) == ("mx2", version(archive.read_bytes()))
    assert (read.files, read.folders) == (list(relay.files), list(relay.folders))
    assert [it.unit for it in read.services] == [it.unit for it in relay.services]
    assert [it.port for it in read.services] == [it.port for it in relay.services]
    assert [tuple(check.argv) for check in read.checks] == [check.argv for check in relay.checks]


def test_a_bundle_runs_on_its_own(config: Config, tmp_path: Path) -> None:
    """The program inside needs nothing but Python's standard library."""
    archive = tmp_path / "relay.pyz"
    archive.write_bytes(bundle(config, "mx2"))
    helped = subprocess.run(
        [sys.executable, "-I", "-S", "-W", "error", str(archive), "--help"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert (helped.returncode, helped.stderr) == (0, "")
    assert "show what would change, touch nothing" in helped.stdout


def test_the_program_is_the_program_without_its_words() -> None:
    """Docstrings, comments, annotations and what only they need go; a string stays as it is."""
    source = (
        '"""Module."""\n\nfrom __future__ import annotations\n\n'
        "from collections.abc import Sequence\n\n\n"
        "def f(a: Sequence[int], *, b: str = '# no comment') -> str:\n"
        '    """Do\n    it."""\n    # why\n    if a:\n        return b\n    return ""\n'
    )
    assert lean(source) == (
        "from __future__ import annotations\n"
        "def f(a, *, b = '# no comment'):\n if a:\n  return b\n return \"\"\n"
    )
    assert set(program()) >= {"__main__.py", "apply/main.py", "apply/undo.py"}


def test_the_archive_is_stored_and_undated(config: Config) -> None:
    """No compression and no date, so that neither zlib nor the clock has a say in the bytes."""
    with zipfile.ZipFile(io.BytesIO(bundle(config, "mx2"))) as opened:
        entries = opened.infolist()
    assert {(entry.compress_type, entry.date_time[0]) for entry in entries} == {
        (zipfile.ZIP_STORED, 1980)
    }


def test_user_data_carries_the_bundle_and_runs_it(config: Config) -> None:
    """What a cloud hands over is a cloud-config that writes relay.pyz and applies it patiently."""
    text = gzip.decompress(cloudinit.user_data(config, "mx2")).decode()
    head, _, document = text.partition("\n")
    assert head == "#cloud-config"
    about = json.loads(document)
    assert about["fqdn"] == "mx2.example.org"
    [file] = about["write_files"]
    assert (file["path"], file["permissions"]) == ("/var/lib/backup-mx/relay.pyz.lzma", "0600")
    carried = lzma.decompress(base64.b64decode(file["content"]))
    assert carried == bundle(config, "mx2")
    unpack, run = about["runcmd"]
    assert unpack[:2] == ["python3", "-c"]
    assert run == ["python3", "/var/lib/backup-mx/relay.pyz", "--patience", "600"]


def test_user_data_that_is_too_large_is_refused_with_its_parts() -> None:
    """Above the provider's limit nothing is built, and it is said what takes the room."""
    keys = [
        "ssh-ed25519 "
        + "AAAAC3NzaC1lZDI1NTE5AAAAI"
        + hashlib.sha256(str(number).encode()).hexdigest()[:42]
        + "A"
        for number in range(600)
    ]
    listed = ", ".join(f'"{key}"' for key in keys)
    config = parse(f"{LAB.read_text()}\n[access]\nssh_keys = [{listed}]\n", "test")
    with pytest.raises(BundleError) as caught:
        cloudinit.user_data(config, "mx2")
    message = str(caught.value)
    assert message.startswith("the user-data of mx2 is too large: relay.pyz, compressed 1")
    assert f"SSH keys {sum(map(len, keys)):,} bytes" in message
    assert message.endswith("at most 32,000 are allowed")
