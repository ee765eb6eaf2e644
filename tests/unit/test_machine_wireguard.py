"""The relay's side of a tunnel: its keys, its files, and the script that finds the other side."""

from __future__ import annotations

import base64
import json
import os
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from backup_mx.config import Config, load
from backup_mx.errors import SecretError
from backup_mx.machine.apply.diff import diff_of
from backup_mx.machine.apply.files import File
from backup_mx.machine.tree import PACKAGES, Tree, tree
from backup_mx.machine.wireguard import public_key, tunnels
from backup_mx.relay.settings import from_json

DATA = Path(__file__).parents[1] / "data" / "wireguard"
FIVE_LINES = Path(__file__).parents[1] / "data" / "config" / "five-lines.toml"
AGENTS = "backup-mx-tunnel.service.d/backup-mx-agent.conf"
KEY = "yAnz5TF+lXXJte14tji3zlMNq+hd2rYUIgJBgB3fBmk="
HOME = "xTIBA5rboUvnH4htodjb6e697QjLERt1NAB4mZqp8Dg="
PLACES = {
    "/etc/wireguard/backup-mx.conf",
    "/usr/local/lib/backup-mx/tunnel.sh",
    "/etc/systemd/system/backup-mx-tunnel.service",
    "/etc/systemd/system/backup-mx-tunnel.timer",
    "/etc/systemd/system/multi-user.target.d/backup-mx-tunnel.conf",
    "/etc/systemd/system/wg-quick@backup-mx.service.d/backup-mx.conf",
}


@pytest.fixture
def config(monkeypatch: pytest.MonkeyPatch) -> Config:
    """Three primaries: two behind one tunnel, one behind another, over IPv6."""
    monkeypatch.setenv("MX2_KEY", KEY)
    return load(DATA / "tunnels.toml")


def files(made: Tree) -> dict[str, File]:
    return {str(file.path): file for file in made.files}


def hexed(key: str) -> str:
    """Return a key of the RFC, which has it in hexadecimal, as wg writes it."""
    return base64.b64encode(bytes.fromhex(key)).decode()


@pytest.mark.parametrize(
    ("private", "public"),
    [
        # RFC 7748 section 5.2, the first round of the iterated test: a scalar with bits to clear.
        (
            "0900000000000000000000000000000000000000000000000000000000000000",
            "422c8e7a6227d7bca1350b3e2bb7279f7897b87bb6854b783c60e80311ae3079",
        ),
        # RFC 7748 section 6.1, Bob.
        (
            "5dab087e624a8a4b79e17f8b83800ee66f3bb1292618b6fd1c2f8b27ff88e0eb",
            "de9edb7d7b7dc1b4d35b61c2ece435373f8343c85b78674dadfc7e146f882b4f",
        ),
    ],
)
def test_a_private_key_has_the_public_key_of_the_rfc(private: str, public: str) -> None:
    """X25519 with the base point, in wg's notation."""
    assert public_key(hexed(private)) == hexed(public)


def test_a_relay_without_a_tunnel_has_nothing_of_it() -> None:
    """No file, package, check or service more, where no primary has a tunnel."""
    made = tree(load(FIVE_LINES), "mx2", agent=False)
    assert not PLACES & files(made).keys()
    assert made.packages == PACKAGES
    assert not [each for each in (*made.services, *made.checks) if "wg" in repr(each)]


def test_a_relay_with_a_tunnel_has_all_of_it(config: Config) -> None:
    """Files, the package, the check and the services; the key is for root's eyes alone."""
    made = tree(config, "mx2", agent=False)
    assert files(made).keys() >= PLACES
    assert made.packages == (*PACKAGES, "wireguard-tools")
    assert [service.unit for service in made.services][-2:] == [
        "wg-quick@backup-mx.service",
        "backup-mx-tunnel.timer",
    ]
    holders = {place for place, file in files(made).items() if KEY.encode() in file.content}
    assert holders == {"/etc/wireguard/backup-mx.conf"}
    secret = files(made)["/etc/wireguard/backup-mx.conf"]
    assert secret.mode == "0600"
    assert KEY not in "\n".join(diff_of(secret))


def test_the_agent_knows_which_tunnel_leads_to_a_primary(config: Config) -> None:
    """By the key at its other end; how it is, the tunnel's own unit leaves word after each run."""
    made = files(tree(config, "mx2"))
    told = from_json(json.loads(made["/etc/backup-mx/agent.json"].content))
    wanted = {name: each.wireguard_public_key for name, each in config.primaries.items()}
    assert {each.name: each.tunnel for each in told.targets} == wanted
    (unit,) = (each for path, each in made.items() if AGENTS in path)
    assert b"wg show backup-mx latest-handshakes" in unit.content
    assert AGENTS not in "".join(files(tree(config, "mx2", agent=False)))
    assert AGENTS not in "".join(files(tree(load(FIVE_LINES), "mx2")))


def test_the_interface_has_a_peer_for_each_tunnel_and_no_name_to_look_up(config: Config) -> None:
    """The primaries behind one edge share its peer; only their inner addresses are routed."""
    lines = files(tree(config, "mx2", agent=False))[
        "/etc/wireguard/backup-mx.conf"
    ].content.decode()
    kept = [line for line in lines.splitlines() if line and not line.startswith("#")]
    assert kept == [
        "[Interface]",
        f"PrivateKey = {KEY}",
        "Address = 10.0.20.2",
        "[Peer]",
        f"PublicKey = {HOME}",
        "AllowedIPs = 10.0.20.1/32, 10.0.20.9/32",
        "PersistentKeepalive = 25",
        "[Peer]",
        "PublicKey = HIgo9xNzJMWLKASShiTqIybxZ0U3wGLiUeJ1PKf8ykw=",
        "AllowedIPs = 10.0.21.1/32",
        "PersistentKeepalive = 25",
    ]


def test_a_tunnel_s_inside_may_be_ipv6(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Then it is the one IPv6 address that is routed."""
    monkeypatch.setenv("MX2_KEY", KEY)
    text = (DATA / "tunnels.toml").read_text().replace("10.0.20.2", "fd00:20::2")
    for inner, six in (("10.0.20.1", "1"), ("10.0.20.9", "9"), ("10.0.21.1", "2:1")):
        text = text.replace(f"{inner}:", f"[fd00:20::{six}]:")
    (tmp_path / "six.toml").write_text(text)
    made = files(tree(load(tmp_path / "six.toml"), "mx2", agent=False))
    lines = made["/etc/wireguard/backup-mx.conf"].content.decode()
    assert "\nAddress = fd00:20::2\n" in lines
    assert "\nAllowedIPs = fd00:20::1/128, fd00:20::9/128\n" in lines


def test_the_script_is_told_where_each_tunnel_leads(config: Config) -> None:
    """Key, host and port of each, an IPv6 address without brackets."""
    unit = files(tree(config, "mx2", agent=False))[
        "/etc/systemd/system/backup-mx-tunnel.service"
    ].content
    assert (
        f"tunnel.sh {HOME} vpn.example.org 51820 "
        "HIgo9xNzJMWLKASShiTqIybxZ0U3wGLiUeJ1PKf8ykw= 2001:db8::1 51821\n" in unit.decode()
    )
    assert [tunnel.public_key for tunnel in tunnels(config)] == [
        HOME,
        "HIgo9xNzJMWLKASShiTqIybxZ0U3wGLiUeJ1PKf8ykw=",
    ]


@pytest.mark.parametrize(
    "key", [HOME[:-2] + "=", HOME[:-2] + "9=", f"{HOME}\n{HOME}", "ssh-ed25519"]
)
def test_what_is_no_key_is_refused_and_not_shown(
    config: Config, monkeypatch: pytest.MonkeyPatch, key: str
) -> None:
    """A key that wg would refuse does not get as far as the relay."""
    monkeypatch.setenv("MX2_KEY", key)
    with pytest.raises(
        SecretError, match=r"relay.mx2.wireguard_key: .* is no WireGuard key"
    ) as told:
        tree(config, "mx2", agent=False)
    assert key not in str(told.value)


# ── The script, with programs of the test's in the place of wg, getent and date ───────────────────

NOW = 1_800_000_000
Run = Callable[..., tuple[int, list[str], list[str]]]


@pytest.fixture
def run(tmp_path: Path, config: Config) -> Run:
    """A maker of runs: returns the exit code, what was set with wg, and what was said."""
    script = tmp_path / "tunnel.sh"
    script.write_bytes(
        files(tree(config, "mx2", agent=False))[f"/usr/local/lib/backup-mx/{script.name}"].content
    )
    shutil.copytree(DATA / "bin", tmp_path / "bin")

    def run(
        *arguments: str, ago: int, endpoint: str, addresses: str
    ) -> tuple[int, list[str], list[str]]:
        (tmp_path / "latest-handshakes").write_text(f"other\t{NOW}\n{HOME}\t{NOW - ago}\n")
        (tmp_path / "endpoints").write_text(f"other\t192.0.2.1:1\n{HOME}\t{endpoint}\n")
        kinds = ("STREAM", "DGRAM", "RAW")
        lines = (f"{address} {kind} x\n" for address in addresses.split() for kind in kinds)
        (tmp_path / "ahosts").write_text("".join(lines))
        (tmp_path / "now").write_text(str(NOW))
        (tmp_path / "set").unlink(missing_ok=True)
        done = subprocess.run(
            ["sh", str(script), *(arguments or (HOME, "vpn.example.org", "51820"))],
            env={"PATH": f"{tmp_path / 'bin'}:{os.environ['PATH']}", "STAND": str(tmp_path)},
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.stderr == ""
        was_set = (tmp_path / "set").read_text() if (tmp_path / "set").exists() else ""
        return done.returncode, was_set.splitlines(), done.stdout.splitlines()

    return run


def dialled(endpoint: str) -> list[str]:
    """What has the tunnel dial at once."""
    start = f"set backup-mx peer {HOME}"
    return [
        f"{start} persistent-keepalive 0",
        f"{start} endpoint {endpoint} persistent-keepalive 25",
    ]


@pytest.mark.parametrize("ago", [0, 134])
def test_a_tunnel_that_spoke_lately_is_left_alone(run: Run, ago: int) -> None:
    """Under 135 s nothing is looked up or set, though the name says otherwise."""
    assert run(ago=ago, endpoint="192.0.2.7:51820", addresses="192.0.2.8") == (0, [], [])


@pytest.mark.parametrize("ago", [135, 179])
@pytest.mark.parametrize("endpoint", ["192.0.2.8:51820", "[2001:db8::8]:51820"])
def test_a_tunnel_that_may_live_keeps_an_address_that_is_the_name_s(
    run: Run, endpoint: str, ago: int
) -> None:
    """Idle, it shakes hands after up to 145 s: under 180 s no other address has its turn."""
    addresses = "2001:db8::8 192.0.2.8 192.0.2.9"
    assert run(ago=ago, endpoint=endpoint, addresses=addresses) == (0, [], [])


def test_an_address_that_only_begins_like_the_name_s_is_not_its(run: Run) -> None:
    """The whole end point counts, and its dots are dots."""
    _, was_set, _ = run(ago=140, endpoint="192.0.2.8:5182", addresses="192.0.2.8")
    assert was_set == dialled("192.0.2.8:51820")


@pytest.mark.parametrize("ago", [135, 180, NOW, -5])
def test_a_silent_tunnel_is_pointed_at_the_name_s_address(run: Run, ago: int) -> None:
    """After 135 s, without any handshake yet, or where the clock was set back."""
    assert run(ago=ago, endpoint="192.0.2.7:51820", addresses="192.0.2.8") == (
        0,
        dialled("192.0.2.8:51820"),
        ["vpn.example.org: the tunnel dials 192.0.2.8:51820, before that 192.0.2.7:51820"],
    )


def test_a_silent_tunnel_dials_the_same_address_again_without_a_word(run: Run) -> None:
    """An edge that is off for a week leaves no line in the journal for each try."""
    assert run(ago=999, endpoint="192.0.2.8:51820", addresses="192.0.2.8") == (
        0,
        dialled("192.0.2.8:51820"),
        [],
    )


@pytest.mark.parametrize("ago", [180, NOW, -5])
@pytest.mark.parametrize(
    ("endpoint", "expected"),
    [
        ("(none)", "[2001:db8::8]:51820"),
        ("[2001:db8::8]:51820", "192.0.2.8:51820"),
        ("192.0.2.8:51820", "192.0.2.9:51820"),
        ("192.0.2.9:51820", "[2001:db8::8]:51820"),
        ("198.51.100.1:51820", "[2001:db8::8]:51820"),
    ],
)
def test_each_address_of_a_name_has_its_turn(
    run: Run, endpoint: str, expected: str, ago: int
) -> None:
    """The best first; one that does not answer is followed by the next, the last by the first."""
    addresses = "2001:db8::8 192.0.2.8 192.0.2.9"
    _, was_set, said = run(ago=ago, endpoint=endpoint, addresses=addresses)
    assert was_set == dialled(expected)
    assert said == [f"vpn.example.org: the tunnel dials {expected}, before that {endpoint}"]


def test_a_name_without_an_address_is_told_and_the_others_go_on(run: Run) -> None:
    """No resolver: the end point stays, the next tunnel has its turn, the run has failed."""
    two = (HOME, "gone.example.org", "51820", "other", "vpn.example.org", "51821")
    assert run(*two, ago=999, endpoint="192.0.2.8:51820", addresses="") == (
        1,
        [],
        ["gone.example.org: no address is known for it now"],
    )
