"""The edge kits nftables and haproxy, as text; tests/lab/test_edge.py tries them on a router."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from backup_mx.config import Config, load, parse
from backup_mx.errors import ConfigError, SecretError
from backup_mx.kit.edge import render

DATA = Path(__file__).parents[1] / "data" / "edge"
KEY = "yAnz5TF+lXXJte14tji3zlMNq+hd2rYUIgJBgB3fBmk="
PUBLIC = "HIgo9xNzJMWLKASShiTqIybxZ0U3wGLiUeJ1PKf8ykw="
NFT = "files/etc/nftables.d/backup-mx.nft"
HAPROXY = "files/etc/haproxy/backup-mx.cfg"


@pytest.fixture(autouse=True)
def _key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MX2_KEY", KEY)


def config(name: str, *changes: tuple[str, str]) -> Config:
    """Return one of the configs in tests/data/edge, with some of its words changed."""
    text = (DATA / f"{name}.toml").read_text()
    for old, new in changes:
        assert old in text
        text = text.replace(old, new)
    return parse(text, name)


def kit(made_from: Config, kind: str) -> dict[str, str]:
    """Return a kit as text, by path."""
    return {file.path: file.content.decode() for file in render(made_from, kind)}


def rules(text: str) -> list[str]:
    """Return the lines of a file that are neither empty nor comments, without indentation."""
    lines = (line.strip() for line in text.splitlines())
    return [line for line in lines if line and not line.startswith("#")]


@pytest.mark.parametrize("name", ["plain", "tunnel"])
@pytest.mark.parametrize("kind", ["nftables", "haproxy", "pfsense"])
def test_a_kit_says_where_each_of_its_files_goes_and_how_to_undo_it(name: str, kind: str) -> None:
    """README.md and WIREGUARD.md name every file, and have the sections that they need."""
    made = kit(config(name), kind)
    readmes = {path: text for path, text in made.items() if path.endswith(".md")}
    assert readmes.keys() == (
        {"README.md", "WIREGUARD.md"} if name == "tunnel" and kind != "pfsense" else {"README.md"}
    )
    for path in made.keys() - readmes.keys():
        assert path.removeprefix("files/") in "".join(readmes.values())
    assert all("## Load\n" in text and "## Undo\n" in text for text in readmes.values())
    assert not re.search(r"\{[{%#]|[}%#]\}", "".join(made.values()))
    assert KEY not in "".join(made.values())


def test_nftables_translates_for_the_relays_only() -> None:
    """One rule: from the outer side and the relays, to this router itself, at the drain's port."""
    lines = rules(kit(config("plain"), "nftables")[NFT])
    assert lines[:2] == ["table inet backup_mx", "delete table inet backup_mx"]
    assert [line for line in lines if "dnat ip" in line] == [
        'iifname "eth0" ip saddr { 203.0.113.20, 203.0.113.21 } fib daddr type local '
        "tcp dport 2526 dnat ip to 10.0.10.1:2526"
    ]
    assert not [line for line in lines if "drop" in line]


@pytest.mark.parametrize(
    ("name", "file", "expected"),
    [
        (
            "plain",
            NFT,
            "ip saddr { 203.0.113.20, 203.0.113.21 } fib daddr type local tcp dport 2526"
            " dnat ip to 10.0.10.1:2526",
        ),
        ("tunnel", "README.md", "ip saddr 203.0.113.20 udp dport 51820 accept"),
    ],
)
def test_nftables_without_an_interface_asks_for_none(name: str, file: str, expected: str) -> None:
    """Nobody knows what this router calls its outer side: a wrong name would never match."""
    made = kit(config(name, ('interface = "eth0"\n', "")), "nftables")
    assert expected in made[file].splitlines() or expected in rules(made[file])
    assert not [each for each, text in made.items() if "iifname" in text or "None" in text]


def test_nftables_speaks_ipv6() -> None:
    """Relays with IPv6 addresses are translated to an IPv6 address in brackets."""
    six = config(
        "plain",
        ("203.0.113.20", "2001:db8::20"),
        ("203.0.113.21", "2001:db8::21"),
        ("10.0.10.1:2526", "[2001:db8:1::1]:2526"),
    )
    rule = 'iifname "eth0" ip6 saddr { 2001:db8::20, 2001:db8::21 } fib daddr type local'
    assert f"{rule} tcp dport 2526 dnat ip6 to [2001:db8:1::1]:2526" in rules(
        kit(six, "nftables")[NFT]
    )


def test_nftables_lets_a_tunnel_s_relay_reach_the_drain_and_nothing_else() -> None:
    """What comes from the inner addresses is dropped, but the drain, answers and ping."""
    made = kit(config("tunnel"), "nftables")
    lines = rules(made[NFT])
    assert (
        "ip saddr { 10.0.20.2 } ip daddr 10.0.20.1 tcp dport 2526 dnat ip to 10.0.10.1:2526"
        in lines
    )
    assert lines.count("ip saddr { 10.0.20.2 } jump from_relays") == 2
    chain = lines[lines.index("chain from_relays {") :]
    assert chain == [
        "chain from_relays {",
        "ct state established,related accept",
        "meta l4proto tcp ct original ip daddr 10.0.20.1 ct original proto-dst 2526 accept",
        "icmp type echo-request accept",
        "drop",
        "}",
        "}",
    ]
    assert 'iifname "eth0" ip saddr 203.0.113.20 udp dport 51820 accept' in made["README.md"]


def test_nftables_translates_nothing_that_is_there_already() -> None:
    """Where the proxy listens on the tunnel's own inner address no translation is wanted."""
    made = kit(config("tunnel", ("10.0.10.1:2526", "10.0.20.1:2526")), "nftables")
    assert "dnat" not in made[NFT] + made["README.md"]
    assert "from_relays" in made[NFT]


def test_haproxy_admits_the_relays_and_tells_who_connects() -> None:
    """The drain's port on all addresses, PROXY v2 to the primary, checks on a port without it."""
    lines = rules(kit(config("plain"), "haproxy")[HAPROXY])
    assert "bind :2526" in lines
    assert "bind :::2526 v6only" not in lines
    reject = "tcp-request connection reject unless { src 203.0.113.20 203.0.113.21 }"
    assert reject in lines
    assert lines[-1] == "server primary 10.0.10.10:25 send-proxy-v2 check port 10025"


def test_haproxy_listens_for_the_families_that_the_relays_have() -> None:
    """An IPv6 relay is listened for beside the IPv4 one."""
    lines = rules(kit(config("plain", ("203.0.113.21", "2001:db8::21")), "haproxy")[HAPROXY])
    assert [line for line in lines if line.startswith("bind")] == [
        "bind :2526",
        "bind :::2526 v6only",
    ]


def test_haproxy_without_proxy_and_checks_is_plain() -> None:
    """What the primary cannot take is left out, and README.md says what that means."""
    bare = config("plain", ("check_port = 10025", "proxy_protocol = false"))
    made = kit(bare, "haproxy")
    assert rules(made[HAPROXY])[-1] == "server primary 10.0.10.10:25"
    assert "smtpchk" not in made[HAPROXY]
    assert "**Never exempt the address from\nwhich this proxy" in made["README.md"]
    assert "source ADDRESS" in made["README.md"]


@pytest.mark.parametrize("kind", ["nftables", "haproxy"])
def test_a_tunnel_s_peers_have_public_keys_and_one_address_each(kind: str) -> None:
    """The public half is worked out from the secret; the file is wg's own format."""
    peers = kit(config("tunnel"), kind)["files/etc/wireguard/backup-mx.peers"]
    assert rules(peers) == ["[Peer]", f"PublicKey = {PUBLIC}", "AllowedIPs = 10.0.20.2/32"]


@pytest.mark.parametrize("kind", ["nftables", "pfsense"])
@pytest.mark.parametrize(
    ("target", "message"),
    [
        ("proxy.home.arpa:2526", "expected an address: a router does not look names up"),
        ("[fd00::1]:2526", "expected an IPv4 address, as 203.0.113.20 is, a relay's"),
    ],
)
def test_what_no_router_can_translate_to_is_refused(kind: str, target: str, message: str) -> None:
    """A name, or an address of the other family, is told as a mistake of that option."""
    wrong = config("plain", ("10.0.10.1:2526", target))
    with pytest.raises(ConfigError, match=re.escape(message)) as told:
        render(wrong, kind)
    assert f"edge.{kind}.forward_to = {target}" in str(told.value)


def test_haproxy_may_forward_to_a_name() -> None:
    """It looks names up itself."""
    named = config("plain", ("10.0.10.10:25", "primary.home.arpa:25"))
    assert "server primary primary.home.arpa:25 " in kit(named, "haproxy")[HAPROXY]


def test_an_edge_that_the_config_lacks_is_told() -> None:
    """There is nothing to render for it."""
    without = parse((DATA / "plain.toml").read_text().partition("[edge.haproxy]")[0], "test")
    with pytest.raises(ConfigError, match=r"expected a table \[edge.haproxy\]"):
        render(without, "haproxy")


def test_a_key_that_cannot_be_read_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without it the edge would not know the relay."""
    monkeypatch.delenv("MX2_KEY")
    with pytest.raises(SecretError, match="MX2_KEY is not set"):
        render(load(DATA / "tunnel.toml"), "nftables")
