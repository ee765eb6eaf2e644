"""Config to tree, tree to bundle, bundle to user-data: pure, and the same every time."""

from __future__ import annotations

import base64
import gzip
import hashlib
import io
import json
import lzma
import os
import re
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
from backup_mx.machine.bundle import terse as terse_tree

LAB = Path(str(resources.files("backup_mx.lab") / "backup-mx.toml"))
CONFIGS = Path(__file__).parents[1] / "data/config"
GOLDEN = Path(__file__).parents[1] / "golden"
KEY = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIFDYWOCYXsx/YEGKrwzFq1h/QsJXCohAlanozKzQ9lRc me"
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
    files = {str(file.path): file.content for file in tree.tree(config, "mx2", agent=False).files}
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
    assert carried == bundle(config, "mx2", agent=False)
    unpack, run = about["runcmd"]
    assert unpack[:2] == ["python3", "-c"]
    assert run == ["python3", "/var/lib/backup-mx/relay.pyz", "--patience", "600"]


def test_the_fullest_config_fits_into_user_data() -> None:
    """A tunnel, a volume, callouts, fifty recipients, three domains: within half of the limit.

    In a rebuild, too, which has more to say.
    """
    config = load(CONFIGS / "fullest.toml")
    sizes = [cloudinit.size(cloudinit.user_data(config, "mx2", again=x)) for x in (False, True)]
    assert max(sizes) <= 16_000
    assert sizes[0] < sizes[1]


def at_oracle(options: str = "", more: str = "") -> Config:
    """Return the lab's config, its relay at Oracle with a key."""
    text = LAB.read_text().replace("[relay.mx2]\n", f"[relay.mx2]\n{options}\n")
    return parse(
        f"""{text}
[access]
ssh_keys = ["{KEY}"]
[cloud.oci]
tenancy = "ocid1.tenancy.oc1..aaaa"
region = "eu-frankfurt-1"
budget_mail = "me@example.net"
{more}""",
        "test",
    )


@pytest.mark.parametrize(
    ("config", "root"),
    [
        (at_oracle(), False),
        (at_oracle('ssh = "root@203.0.113.20"'), True),
        (load(LAB), True),
        (parse(LAB.read_text().replace("[relay.mx2]", '[relay.mx2]\nssh = "me@mx2"'), ""), False),
    ],
)
def test_root_is_let_in_only_where_the_operator_comes_as_root(
    config: Config, *, root: bool
) -> None:
    """Images of Oracle, Ubuntu and Debian let nobody in as root unless user-data says so."""
    document = cloudinit.cloud_config(config, "mx2", b"")
    assert document.get("disable_root", True) is not root


def test_at_oracle_the_keys_count_twice(monkeypatch: pytest.MonkeyPatch) -> None:
    """They are handed over beside user-data as well, and Oracle adds up both."""
    config = at_oracle()
    least = cloudinit.size(cloudinit.user_data(config, "mx2")) + len(KEY)
    monkeypatch.setattr(cloudinit, "LIMIT", least)
    cloudinit.user_data(config, "mx2")
    monkeypatch.setattr(cloudinit, "LIMIT", least - 1)
    with pytest.raises(BundleError, match=f"SSH keys beside it {len(KEY)} bytes"):
        cloudinit.user_data(config, "mx2")


def test_user_data_says_all_that_a_deploy_says() -> None:
    """In its files only blank lines and comments are missing, and no file is."""
    whole = tree.tree(load(CONFIGS / "fullest.toml"), "mx2", agent=False)
    for file, terse in zip(whole.files, terse_tree(whole).files, strict=True):
        lines, kept = (each.content.decode().splitlines() for each in (file, terse))
        assert [line for line in lines if line in kept and line.strip()] == kept
        missing = [line.lstrip() for line in lines if line not in kept]
        assert all(not line or line.startswith(("# ", "// ")) or line == "#" for line in missing)


def test_no_secret_is_in_user_data_unless_asked_for() -> None:
    """Without secrets_in_user_data there is neither key nor tunnel in it; a deploy has both."""
    text = (GOLDEN / "tunnel.toml").read_text()
    key = b"dwdtCnMYpX08FsFyUbJmRd9ML4frwJkqsXf7pR25LCo="
    trusting = parse(text, "test")
    wary = parse(text.replace("secrets_in_user_data = true\n", ""), "test")
    assert key in bundle(trusting, "mx2", agent=False)
    assert key not in bundle(wary, "mx2", agent=False)
    assert key in bundle(wary, "mx2")
    first = tree.tree(wary, "mx2", agent=False)
    assert "wireguard-tools" not in first.packages
    assert not [service.unit for service in first.services if "wg-quick" in service.unit]


@pytest.mark.parametrize("agent", [False, True])
def test_user_data_is_shown_to_root_alone(config: Config, *, agent: bool) -> None:
    """On every relay nobody else may ask the metadata service, by IPv4 or IPv6.

    What else is at that address (DNS), or near it (Oracle's disks), stays open. A reload makes the
    jump there, where an older relay had none, and makes no second one.
    """
    files = {file.path.name: file.content for file in tree.tree(config, "mx2", agent=agent).files}
    assert not config.relays["mx2"].secrets_in_user_data
    rules = files["rules.v4"].decode().splitlines()
    assert [line for line in rules if "BACKUP-MX-OUT" in line] == [
        ":BACKUP-MX-OUT - [0:0]",
        "-A BACKUP-MX-OUT -d 169.254.169.254 -p tcp --dport 80 -m owner ! --uid-owner 0 -j REJECT",
    ]
    [rule] = [
        line for line in files["rules.v6"].decode().splitlines() if "-A BACKUP-MX-OUT" in line
    ]
    assert "fd00:c1::a9fe:a9fe" in rule
    assert rule.endswith(" -p tcp --dport 80 -m owner ! --uid-owner 0 -j REJECT")
    for tables, name in (("iptables", "firewall"), ("ip6tables", "firewall6")):
        unit = files[f"backup-mx-{name}.service"].decode().splitlines()
        jump, wait = "OUTPUT -j BACKUP-MX-OUT", f"{tables} --wait 10"
        assert [line.replace("/usr/sbin/", "") for line in unit if "BACKUP-MX-OUT" in line] == [
            f"ExecStart={wait} -I {jump}",
            f"ExecReload=/bin/sh -c '{wait} -C {jump} || exec {wait} -I {jump}'",
            f"ExecStop={wait} -D {jump}",
        ]


def test_oracles_agent_may_ask_as_well_where_there_is_one() -> None:
    """It measures what the account's check judges by; elsewhere its number may be anybody's."""
    assert b"--uid-owner 584788 -j RETURN" in rules(at_oracle())[0]
    assert b"584788" not in rules(at_oracle(more="relays = []"))[0]


def rules(config: Config) -> tuple[bytes, bytes]:
    """Return the relay's rules for IPv4 and for IPv6."""
    files = {file.path.name: file.content for file in tree.tree(config, "mx2").files}
    return files["rules.v4"], files["rules.v6"]


@pytest.mark.parametrize(
    ("ssh", "ports"), [("me@mx2", [22]), ("me@mx2:22", [22]), ("me@mx2:2222", [22, 2222])]
)
def test_the_firewall_never_shuts_the_port_of_a_fresh_image(ssh: str, ports: list[int]) -> None:
    """sshd listens on 22 until the operator moves it: from the same networks, and the tailnet."""
    text = LAB.read_text().replace("[relay.mx2]", f'[relay.mx2]\nssh = "{ssh}"')
    access = '[access]\nssh_from = ["198.51.100.0/24", "2001:db8:2::/48"]\n'
    tailnet = '[tailnet]\nauth_key = { command = ["echo", "key"] }\n'
    for said, source in zip(
        rules(parse(text + access + tailnet, "test")),
        ("198.51.100.0/24", "2001:db8:2::/48"),
        strict=True,
    ):
        lines = said.decode().splitlines()
        wanted = [
            line
            for port in ports
            for line in (
                f"-A BACKUP-MX -i tailscale0 -p tcp --dport {port} -j ACCEPT",
                f"-A BACKUP-MX -p tcp --dport {port} -s {source} -j ACCEPT",
            )
        ]
        assert [line for line in lines if re.search(r"--dport 22(22)? ", line)] == wanted


def test_a_first_boot_unpacks_for_root_alone(config: Config, tmp_path: Path) -> None:
    """What user-data has brought may hold a secret; a bundle that was applied is not replaced."""
    unpack = cloudinit.UNPACK.replace("/var/lib/backup-mx", str(tmp_path))
    archive = bundle(config, "mx2", agent=False)
    (tmp_path / "relay.pyz.lzma").write_bytes(cloudinit.compressed(archive))
    subprocess.run([sys.executable, "-c", unpack], umask=0o022, check=True)
    unpacked = tmp_path / "relay.pyz"
    assert unpacked.read_bytes() == archive
    assert unpacked.stat().st_mode & 0o777 == 0o600
    (tmp_path / "applied.json").touch()
    unpacked.write_bytes(b"deployed")
    subprocess.run([sys.executable, "-c", unpack], check=True)
    assert unpacked.read_bytes() == b"deployed"


def test_a_first_boot_has_no_more_program_than_it_needs(config: Config, tmp_path: Path) -> None:
    """What user-data carries runs on its own, too, and has no --diff."""
    archive = tmp_path / "relay.pyz"
    archive.write_bytes(bundle(config, "mx2", agent=False))
    argv = [sys.executable, "-I", "-S", "-W", "error", str(archive)]
    helped = subprocess.run([*argv, "--help"], capture_output=True, text=True, check=False)
    assert (helped.returncode, helped.stderr) == (0, "")
    assert "--patience" in helped.stdout
    assert "--diff" not in helped.stdout


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
    assert message.startswith("the user-data of mx2 is too large: relay.pyz, compressed ")
    assert f"SSH keys {sum(map(len, keys)):,} bytes" in message
    assert message.endswith("at most 32,000 are allowed")
