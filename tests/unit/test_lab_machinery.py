"""The lab's pure parts: names, addresses, zones, records, what a host lacks."""

from __future__ import annotations

import os
import re
import stat
import subprocess
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from importlib import resources
from pathlib import Path

import pytest

from backup_mx.config import Config
from backup_mx.errors import HostError, LabError
from backup_mx.kit.files import KitFile
from backup_mx.lab import (
    host,
    image,
    layout,
    mirror,
    mounts,
    names,
    network,
    prepare,
    processes,
    settings,
)
from backup_mx.lab.world import World, standard
from backup_mx.machine import wireguard

ZONES = Path(str(resources.files("backup_mx.lab"))) / "machines/internet/etc/knot/zones"


@pytest.mark.parametrize("bad", ["", "Lab", "a-b", "ninechars", "a/b", "a\n"])
def test_a_name_that_could_not_be_told_from_another_is_refused(bad: str) -> None:
    """A lab's name goes into namespaces and folders: only letters and digits, at most eight."""
    with pytest.raises(LabError, match="cannot be a lab's name"):
        names.checked(bad)


def test_no_lab_owns_another_labs_parts() -> None:
    """What begins with one lab's prefix belongs to no lab of another name."""
    assert not names.scoped("lab2", "mx2").startswith(names.prefix("lab"))
    assert names.scoped("lab", "mx2") == "bmx-lab-mx2"


def test_a_misspelt_machine_is_suggested() -> None:
    """A machine that does not exist is refused with the nearest one that does."""
    with pytest.raises(LabError, match=r'no machine "mx3".*did you mean "mx2"'):
        World().machine("mx3")
    with pytest.raises(LabError, match='brought up without "bare"'):
        World().machine("bare")


def test_mountinfo_is_read_with_its_optional_fields() -> None:
    """Mount points are unescaped, and optional fields do not shift the others."""
    line = r"36 35 98:0 / /a\040b rw,noatime shared:1 master:2 - cgroup cgroup rw,name=systemd"
    assert mounts.parse(line) == mounts.Mount(Path("/a b"), "cgroup", "rw,name=systemd")
    plain = mounts.parse("25 1 0:24 / /x rw - overlay overlay rw,lowerdir=/l")
    assert (plain.point, plain.kind) == (Path("/x"), "overlay")


def test_mounts_are_listed_deepest_first(monkeypatch: pytest.MonkeyPatch) -> None:
    """The order in which they can be unmounted, and nothing with a similar name."""
    points = ["/l/a", "/l/a/root/proc", "/l/a/root", "/l/ab"]
    listed = [mounts.Mount(Path(point), "overlay", "") for point in points]
    monkeypatch.setattr(mounts, "mounted", lambda: listed)
    assert [str(point) for point in mounts.below(Path("/l/a"))] == [
        "/l/a/root/proc",
        "/l/a/root",
        "/l/a",
    ]


def test_a_machine_keeps_its_hardware_address() -> None:
    """The address follows from the machine's IPv4 address, and is a locally administered one."""
    assert network._mac("203.0.113.20") == "02:00:cb:00:71:14"


@pytest.mark.parametrize("role", layout.ROLES.values(), ids=lambda role: role.name)
def test_a_machines_wires_have_names_that_linux_takes(role: layout.Role) -> None:
    """The far end of each interface is named by machine and device, in at most 15 characters."""
    ports = [network._port(role.name, f"eth{number}") for number in range(len(role.links))]
    assert all(len(port) <= 15 for port in ports)
    assert len(set(ports)) == len(role.links)


def tunnel_config(lab: str, folder: Path, monkeypatch: pytest.MonkeyPatch) -> Config:
    """Keep the config of a lab with a tunnel, below a folder of ours."""
    monkeypatch.setattr(names, "LABS", folder)
    return settings.write(lab, standard(lab, tunnel=True).config)


def test_a_tunnels_keys_belong_together(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The edge has the private half of the key that the relay knows; nobody else reads either."""
    made = tunnel_config("one", tmp_path, monkeypatch)
    known = made.primaries["home"].wireguard_public_key
    assert known == wireguard.public_key(settings.edge_key("one"))
    assert wireguard.private_key(made.relays["mx2"], made.folder) != settings.edge_key("one")
    keys = list(made.folder.glob("*.key"))
    assert [stat.S_IMODE(key.stat().st_mode) for key in keys] == [0o600, 0o600]


def test_each_lab_has_keys_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No key is in the repository: two labs never share one."""
    for lab in ("one", "two"):
        tunnel_config(lab, tmp_path, monkeypatch)
    assert settings.edge_key("one") != settings.edge_key("two")


def test_a_lab_tells_what_it_was_made_from(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The config can be read again; a lab that had none says so, and has no tunnel's key."""
    made = tunnel_config("one", tmp_path, monkeypatch)
    assert World("one").made_from == made
    with pytest.raises(LabError, match="lab two was not made from a config"):
        _ = World("two").made_from
    assert settings.edge_key("two") == ""


def test_a_kit_is_installed_where_its_paths_say(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What lies below files/ comes to its place, with its mode; the rest is for people."""
    monkeypatch.setattr(names, "LABS", tmp_path)
    machine = World("one").machine("edge")
    files = [KitFile("README.md", b"x"), KitFile("files/etc/x/y", b"y", "0600")]
    prepare.install(machine, files)
    assert [path for path in machine.root.rglob("*") if path.name == "README.md"] == []
    place = machine.root / "etc/x/y"
    assert (place.read_bytes(), stat.S_IMODE(place.stat().st_mode)) == (b"y", 0o600)


def test_a_question_for_a_soa_is_what_rfc_1035_says() -> None:
    """Length, header, name, type and class, as on the wire."""
    expected = "001d002a01000001000000000000" + "076578616d706c65036f726700" + "00060001"
    assert layout.soa_query("example.org").hex() == expected


def zone_records(kind: str) -> set[tuple[str, str]]:
    """Return (owner, value) of every record of a kind in all zones, fully qualified."""
    found = set()
    for path in ZONES.glob("*.zone"):
        for line in path.read_text().splitlines():
            match = re.match(rf"(\S+)\s+{kind}\s+(\S+)$", line)
            if match:
                found.add((f"{match[1]}.{path.stem}", match[2].rstrip(".")))
    return found


NAMELESS = {layout.ROLES["mx2"].addresses[0], "192.0.2.119", "192.0.2.120"}
PUBLIC = {
    network.OUTSIDER,
    *(
        address
        for role in layout.ROLES.values()
        for link in role.links
        if link.wire == layout.WAN
        for address in link.addresses
    ),
}


@pytest.mark.parametrize("address", sorted(PUBLIC - NAMELESS))
def test_every_address_has_a_name_that_leads_back(address: str) -> None:
    """Forward-confirmed reverse DNS holds for the lab's addresses (RFC 8501 section 2)."""
    reverse = ".".join(reversed(address.split("."))) + ".in-addr.arpa"
    found = [value for owner, value in zone_records("PTR") if owner == reverse]
    assert len(found) == 1
    assert (found[0], address) in zone_records("A")


@pytest.mark.parametrize("address", sorted(NAMELESS))
def test_a_few_addresses_have_no_name(address: str) -> None:
    """The relay's has none, as on a free machine, nor have those of two senders."""
    reverse = ".".join(reversed(address.split("."))) + ".in-addr.arpa"
    assert reverse not in {owner for owner, _ in zone_records("PTR")}


def test_a_machines_host_name_is_that_of_its_first_address() -> None:
    """The relays carry the names of their addresses, the primary that of the edge's."""
    pairs = zone_records("A")
    for name in ("mx2", "bare"):
        role = layout.role(name)
        assert (role.hostname, role.addresses[0]) in pairs
    assert (layout.role("primary").hostname, layout.EDGE) in pairs


def test_a_dkim_record_fits_its_strings() -> None:
    """A key of 2048 bits is split into strings of at most 255 characters, none lost."""
    record = prepare.dkim_record("A" * 392)
    strings = re.findall(r'"([^"]*)"', record)
    assert "".join(strings) == "v=DKIM1;k=rsa;p=" + "A" * 392
    assert max(map(len, strings)) <= 255
    assert record.startswith("lab._domainkey.example.net. 300 TXT ")


def test_a_provider_lets_the_owner_in_as_root() -> None:
    """The bare machine's user-data is a cloud-config with the keys and nothing of ours."""
    data = prepare.provider_data(["ssh-ed25519 AAAA me"]).decode()
    assert data.startswith("#cloud-config\n")
    assert '"ssh_authorized_keys": ["ssh-ed25519 AAAA me"]' in data


@pytest.mark.parametrize(
    "change",
    [
        lambda spec: replace(spec, release="bookworm"),
        lambda spec: replace(spec, packages=(*spec.packages, "hello")),
        lambda spec: replace(spec, disabled=()),
        lambda spec: replace(spec, debs=("postfix",)),
    ],
)
def test_another_content_is_another_image(
    change: Callable[[image.ImageSpec], image.ImageSpec],
) -> None:
    """The hash that names an image covers all that goes into it."""
    assert change(image.WORLD).digest != image.WORLD.digest
    assert replace(image.WORLD).digest == image.WORLD.digest


def test_an_image_that_is_there_is_not_built(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """A complete image is taken as it is, without a word."""
    monkeypatch.setenv("BACKUP_MX_CACHE", str(tmp_path))
    spec = image.PLAIN_TRIXIE
    (tmp_path / f"images/plain-trixie-{spec.digest}").mkdir(parents=True)
    said: list[str] = []
    assert image.ensure(spec, said.append).root.parent.name == f"plain-trixie-{spec.digest}"
    assert said == []


def test_the_mirror_indexes_what_it_holds(tmp_path: Path) -> None:
    """Packages lists each package with its fields, its place, its size and its hash."""
    control = tmp_path / "made/DEBIAN/control"
    control.parent.mkdir(parents=True)
    control.parent.chmod(0o755)
    control.write_text(
        "Package: x\nVersion: 1\nArchitecture: all\nMaintainer: m <m@example.org>\nDescription: d\n"
    )
    folder = tmp_path / "debs"
    folder.mkdir()
    build = ["dpkg-deb", "--root-owner-group", "--build", str(tmp_path / "made"), f"{folder}/x.deb"]
    subprocess.run(build, check=True, capture_output=True)
    mirror.index(folder)
    size = (folder / "x.deb").stat().st_size
    packages = (folder / "Packages").read_text()
    assert packages.startswith("Package: x\n")
    assert f"\nFilename: ./x.deb\nSize: {size}\nSHA256: " in packages
    assert f" {len(packages)} Packages\n" in (folder / "Release").read_text()


def test_waiting_says_what_it_waited_for() -> None:
    """A wait in vain names its object and its bound; a pointless one ends at once with why."""
    with pytest.raises(LabError, match="waited 0 s for the moon, in vain"):
        host.wait_for("the moon", lambda: False, timeout=0.0)
    with pytest.raises(LabError, match="waited for the moon, but it is new"):
        host.wait_for("the moon", lambda: False, timeout=600.0, dead=lambda: "it is new")


def test_a_program_that_fails_is_quoted() -> None:
    """The error carries the command and the program's own words."""
    with pytest.raises(LabError, match=r"^ls /nowhere failed: ls: .*No such file"):
        host.call(["ls", "/nowhere"])


def test_a_lab_needs_root(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without root there is one message, and nothing was tried."""
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    with pytest.raises(HostError, match="needs root"):
        World().up(print)


def test_a_missing_program_is_named_with_its_package(monkeypatch: pytest.MonkeyPatch) -> None:
    """All that is missing comes in one message, with the command that brings it."""
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    monkeypatch.setenv("PATH", "")
    monkeypatch.setattr(host, "_has_overlay", lambda: False)
    with pytest.raises(HostError) as caught:
        host.require()
    assert "systemd-nspawn" in str(caught.value)
    assert re.search(
        r"apt-get install .*iproute2.*mmdebstrap.*systemd-container", str(caught.value)
    )
    assert "the kernel has no overlay file system" in str(caught.value)


def test_debians_keys_are_looked_for(tmp_path: Path) -> None:
    """A host without Debian's signing keys is told so: it could not check what it downloads."""
    assert "debian-archive-keyring" in host._missing_keys(tmp_path)[0]
    (tmp_path / "debian-archive-keyring.gpg").touch()
    assert host._missing_keys(tmp_path) == []


@pytest.mark.parametrize(
    ("filesystems", "has"), [("nodev\toverlay\n", True), ("nodev\tproc\n\text4\n", False)]
)
def test_overlay_is_looked_up_in_the_kernels_list(
    tmp_path: Path, filesystems: str, has: bool
) -> None:
    """/proc/filesystems tells whether the kernel knows overlay."""
    (tmp_path / "filesystems").write_text(filesystems)
    assert host._has_overlay(tmp_path / "filesystems") is has


def test_a_process_began_before_now() -> None:
    """The age of this very process is read from /proc."""
    assert processes.started(os.getpid()) < datetime.now(tz=UTC) + timedelta(seconds=1)
    assert processes.started(os.getpid()) > datetime.now(tz=UTC) - timedelta(hours=1)
    assert not processes.gone(os.getpid())


def test_no_mirror_is_named() -> None:
    """The lab's own files name no package mirror but the lab's."""
    lab = Path(str(resources.files("backup_mx.lab")))
    for path in lab.rglob("*"):
        if path.is_file() and path.suffix != ".pyc":
            assert "debian.org" not in path.read_text(), path
