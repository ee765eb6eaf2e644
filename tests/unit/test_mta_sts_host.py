"""A relay that hosts MTA-STS policies: what is in its tree, who is asked, what is answered."""

from __future__ import annotations

import contextlib
import json
import select
import socket
import ssl
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from smtpd import certificate as pair

import pytest
from click.testing import CliRunner
from ports import closed
from relay_settings import SETTINGS

from backup_mx import config
from backup_mx.cli.mta_sts import mta_sts
from backup_mx.errors import MachineError
from backup_mx.machine.tree import Tree, tree
from backup_mx.relay import certificate, policyhost, settings
from backup_mx.relay.certificate import Asked
from backup_mx.relay.policies import FOLDER, PAIRS, UNIT, reply
from backup_mx.relay.root import acme
from backup_mx.relay.root.acme import Place, Wanted
from backup_mx.relay.state import Shown
from backup_mx.relay.tasks import policyhosts, system

TWO = """
relay.mx2.hostname = "mx2.example.org"
relay.mx2.address = "203.0.113.20"
relay.mx3.hostname = "mx3.example.net"
relay.mx3.address = "203.0.113.30"
primary.home.hostname = "mail.example.org"
domain."example.org" = {}
domain."example.com" = {}
mta_sts.hosted_by = "mx2"
"""
POLICIES = {"mta-sts.example.org": b"one\r\n", "mta-sts.example.com": b"two\r\n"}
FILES = [f"{FOLDER}/mta-sts.example.com", f"{FOLDER}/mta-sts.example.org"]
OPEN = b"-A BACKUP-MX -p tcp --dport 443 -j ACCEPT\n"
ASKED = "GET /.well-known/mta-sts.txt HTTP/1.1\r\nHost: {}\r\n\r\n"


def made(relay: str, *, agent: bool = True) -> Tree:
    return tree(config.parse(TWO, "backup-mx.toml"), relay, agent=agent)


def contents(layer: Tree) -> dict[str, bytes]:
    return {str(file.path): file.content for file in layer.files}


def test_the_host_has_a_policy_for_each_domain() -> None:
    """Beside them a unit, an open port, and the names that the agent's settings have."""
    found = contents(made("mx2"))
    assert [path for path in sorted(found) if path.startswith(f"{FOLDER}/")] == FILES
    assert b"mx: mx3.example.net\r\n" in found[FILES[0]]
    assert f"/etc/systemd/system/{UNIT}" in found
    assert OPEN in found["/etc/backup-mx/firewall/rules.v4"]
    assert OPEN in found["/etc/backup-mx/firewall/rules.v6"]
    wants = found["/etc/systemd/system/multi-user.target.d/backup-mx-agent.conf"].decode()
    assert UNIT in wants.split()
    told = settings.from_json(json.loads(found["/etc/backup-mx/agent.json"]))
    assert told.policies == ("mta-sts.example.org", "mta-sts.example.com")
    assert UNIT in [each.unit for each in made("mx2").services]


@pytest.mark.parametrize(("relay", "agent"), [("mx3", True), ("mx2", False)])
def test_nobody_else_has_any_of_it(relay: str, agent: bool) -> None:
    """Neither another relay, nor the mail layer that user-data carries."""
    layer = made(relay, agent=agent)
    found = contents(layer)
    assert not [path for path in found if path.startswith(f"{FOLDER}/") or UNIT in path]
    assert OPEN not in found["/etc/backup-mx/firewall/rules.v4"]
    assert UNIT not in [each.unit for each in layer.services]


def host_of(request: str) -> bytes:
    return reply(request.encode(), POLICIES)


def test_a_policy_is_answered_for_its_host() -> None:
    """As text, by whatever case and port the host is asked."""
    for asked in ("mta-sts.example.com", "MTA-STS.Example.COM.:443"):
        head, _, body = host_of(ASKED.format(asked)).partition(b"\r\n\r\n")
        assert head.startswith(b"HTTP/1.1 200 OK\r\nContent-Type: text/plain")
        assert b"\r\nContent-Length: 5\r\n" in head
        assert body == b"two\r\n"
    head = host_of(ASKED.format("mta-sts.example.com").replace("GET", "HEAD"))
    assert b"\r\nContent-Length: 5\r\n" in head
    assert head.endswith(b"\r\n\r\n")


@pytest.mark.parametrize(
    ("request_", "status"),
    [
        (ASKED.format("example.org"), b"404"),
        (ASKED.format("mta-sts.example.org\r\nHost: mta-sts.example.com"), b"404"),
        ("GET /.well-known/mta-sts.txt HTTP/1.1", b"404"),
        (ASKED.format("mta-sts.example.org").replace(".txt", ".txt/"), b"404"),
        (ASKED.format("mta-sts.example.org").replace("/.w", "//.w"), b"404"),
        (ASKED.format("../../etc/passwd"), b"404"),
        (ASKED.format("mta-sts.example.org").replace("GET", "POST"), b"405"),
        ("", b"405"),
        ("\x00\xff", b"405"),
    ],
)
def test_nothing_else_is_answered(request_: str, status: bytes) -> None:
    """There is no folder that is served: only what is in the table."""
    assert host_of(request_).split()[1] == status


@contextlib.contextmanager
def served(folder: Path) -> Iterator[socket.socket]:
    """The server, with both policies and a certificate for each, while this is open."""
    by_host = policyhost.contexts({host: pair(folder, host) for host in POLICIES})
    with socket.create_server(("127.0.0.1", 0)) as made:
        policyhost.serve(POLICIES, by_host, [made])
        yield made
        made.shutdown(socket.SHUT_RDWR)


@pytest.fixture
def listener(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[socket.socket]:
    """The server with one thread, and no patience for a slow handshake."""
    monkeypatch.setattr(policyhost, "THREADS", 1)
    monkeypatch.setattr(policyhost, "HANDSHAKE", 0.5)
    monkeypatch.setattr(policyhost, "SECONDS", 60.0)
    with served(tmp_path) as made:
        yield made


def fetched(
    listener: socket.socket, folder: Path, host: str, request: str, source: str = "127.0.0.1"
) -> bytes:
    """Ask for a host, trusting its certificate alone."""
    trust = ssl.create_default_context(cafile=str(folder / f"{host}.pem"))
    with (
        socket.create_connection(listener.getsockname(), 10, (source, 0)) as wire,
        trust.wrap_socket(wire, server_hostname=host) as secured,
    ):
        secured.sendall(request.encode())
        return b"".join(iter(lambda: secured.recv(4096), b""))


@pytest.mark.parametrize("host", POLICIES)
def test_each_host_shows_its_own_certificate(
    listener: socket.socket, tmp_path: Path, host: str
) -> None:
    """By the name in the handshake, and its policy by the name that is asked."""
    said = fetched(listener, tmp_path, host, ASKED.format(host))
    assert said.endswith(POLICIES[host])


def test_a_host_that_is_none_of_ours_is_refused(listener: socket.socket, tmp_path: Path) -> None:
    """In the handshake already."""
    (tmp_path / "example.net.pem").write_text((tmp_path / "mta-sts.example.org.pem").read_text())
    with pytest.raises(ssl.SSLError, match=r"(?i)unrecognized"):
        fetched(listener, tmp_path, "example.net", "")


@pytest.mark.parametrize("rubbish", [b"", b"GET / HTTP/1.1\r\n\r\n", b"\x16\x03\x01\x40\x00" * 99])
def test_who_says_nothing_of_use_is_cut_off(
    listener: socket.socket, tmp_path: Path, rubbish: bytes
) -> None:
    """The only thread is free again within the seconds that a client has."""
    with socket.create_connection(listener.getsockname(), 10) as stranger:
        stranger.sendall(rubbish)
        host = "mta-sts.example.org"
        assert fetched(listener, tmp_path, host, ASKED.format(host)).endswith(b"one\r\n")


@pytest.mark.parametrize(("asked", "seconds"), [("GET / HTTP/1.1\r\n", 0.5), ("x" * 20_000, 60.0)])
def test_who_asks_for_ever_is_cut_off(
    listener: socket.socket,
    tmp_path: Path,
    asked: str,
    seconds: float,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A head that does not end in time gets no answer, nor does one that is too long: at once."""
    monkeypatch.setattr(policyhost, "SECONDS", seconds)
    host = "mta-sts.example.org"
    with contextlib.suppress(ConnectionError, ssl.SSLError):
        assert fetched(listener, tmp_path, host, asked) == b""
    assert fetched(listener, tmp_path, host, ASKED.format(host)).endswith(b"one\r\n")


@pytest.fixture
def hello() -> bytes:
    """What a client says first, where it asks for a name that is no text."""
    said = ssl.MemoryBIO()
    client = ssl.create_default_context().wrap_bio(ssl.MemoryBIO(), said, server_hostname="xyz.org")
    with pytest.raises(ssl.SSLWantReadError):
        client.do_handshake()
    return said.read().replace(b"xyz.org", b"xyz.or\xff")


def test_who_dawdles_in_the_handshake_is_cut_off(listener: socket.socket, hello: bytes) -> None:
    """A byte now and then buys no time: the clock is one for all of the handshake."""
    start = time.monotonic()
    with (
        contextlib.suppress(ConnectionError),
        socket.create_connection(listener.getsockname(), 0.1) as stranger,
    ):
        for each in hello[:100]:
            stranger.send(bytes([each]))
            with contextlib.suppress(TimeoutError):
                assert stranger.recv(1) == b""
                break
        else:
            pytest.fail("a hundred bytes, each a tenth of a second later, were waited for")
    assert time.monotonic() - start > 0.4


def test_strangers_of_one_network_hold_up_no_other(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """However many they are, they have a few places; who is beyond is hung up on at once."""
    monkeypatch.setattr(policyhost, "HANDSHAKE", 60.0)
    monkeypatch.setattr(policyhost, "THREADS", policyhost.EACH + 1)
    host = "mta-sts.example.org"
    with served(tmp_path) as listener, contextlib.ExitStack() as open_:
        strangers = [
            open_.enter_context(socket.create_connection(listener.getsockname(), 10))
            for _ in range(policyhost.EACH + 20)
        ]
        said = fetched(listener, tmp_path, host, ASKED.format(host), "127.0.0.2")
        end = time.monotonic() + 10
        while len(gone := select.select(strangers, [], [], 1)[0]) < 20:
            assert time.monotonic() < end, f"{len(gone)} of 20 are hung up on"
        assert len(gone) == 20
    assert said.endswith(b"one\r\n")


def test_a_place_is_given_back(listener: socket.socket, tmp_path: Path) -> None:
    """Whoever comes often, one after the other, is answered every time."""
    host = "mta-sts.example.org"
    for _ in range(policyhost.EACH + 1):
        assert fetched(listener, tmp_path, host, ASKED.format(host)).endswith(b"one\r\n")


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        ("192.0.2.1", "192.0.2.2", False),
        ("192.0.2.1", "192.0.2.1", True),
        ("2001:db8::1", "2001:db8::ffff:0:0:1", True),
        ("2001:db8::1", "2001:db8:0:1::1", False),
    ],
)
def test_a_network_is_what_one_client_has(one: str, other: str, same: bool) -> None:
    """An address of IPv4, a /64 of IPv6."""
    assert (policyhost.network(one) == policyhost.network(other)) is same


def test_a_name_that_is_no_text_is_not_worth_a_word(
    listener: socket.socket,
    tmp_path: Path,
    hello: bytes,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    """Or strangers would write into the journal; what goes wrong otherwise is said."""
    monkeypatch.setattr(sys, "unraisablehook", policyhost.unheard)
    with socket.create_connection(listener.getsockname(), 10) as stranger:
        stranger.sendall(hello)
        assert stranger.recv(100)[:1] == b"\x15", "an alert"
    host = "mta-sts.example.org"
    assert fetched(listener, tmp_path, host, ASKED.format(host)).endswith(b"one\r\n")
    assert capfd.readouterr().err == ""


def test_a_certificate_of_no_use_harms_no_other(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """It is left out, and that is said."""
    (tmp_path / "broken").write_text("rubbish")
    good = pair(tmp_path, "mta-sts.example.org")
    found = policyhost.contexts({"a.example": tmp_path / "broken", "b.example": good})
    assert list(found) == ["b.example"]
    assert capsys.readouterr().err.startswith("no certificate for a.example: ")


def test_the_agent_sees_what_senders_see(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of each host the certificate that it shows itself, and what became of asking for one."""
    monkeypatch.setattr(certificate, "ASKED", tmp_path / "asked.json")
    refused = Asked("acme.example.net mta-sts.example.com", 5.0, 3, 1.0, "no")
    certificate.keep(refused, tmp_path / "mta-sts.example.com.json")
    seen = list[bytes]()

    def run(argv: tuple[str, ...], der: bytes) -> str:
        seen.append(der)
        return system.run(argv, der)

    with served(tmp_path) as listener:
        found = policyhosts.look(POLICIES, run, listener.getsockname()[1])
    own = [
        (tmp_path / f"{host}.pem").read_text().partition("-----BEGIN PR")[0] for host in POLICIES
    ]
    assert seen == [ssl.PEM_cert_to_DER_cert(each) for each in own]
    assert [each.host for each in found] == list(POLICIES)
    assert [each.asked for each in found] == [None, refused]
    for each in found:
        assert each.lifetime == 2 * 86400
        assert each.ends == pytest.approx(time.time() + 2 * 86400, abs=60)


def test_a_host_that_shows_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody listens, or a host is not known there: no certificate is no crash."""
    monkeypatch.setattr(certificate, "ASKED", tmp_path / "asked.json")
    with served(tmp_path) as listener:
        port = listener.getsockname()[1]
        assert policyhosts.look(["example.net"], port=port) == (Shown("example.net", None),)
    with closed() as port:
        found = policyhosts.look(POLICIES, port=port)
    assert found == tuple(Shown(host, None) for host in POLICIES)


def test_postfix_s_certificate_comes_first(monkeypatch: pytest.MonkeyPatch) -> None:
    """Then those of the policies' hosts that lead here, with less patience."""
    told = replace(SETTINGS, acme="acme.example.net", policies=tuple(POLICIES))
    monkeypatch.setattr(acme, "leads_to", lambda _, host: host.endswith("org"))
    own, other = acme.wanted(told)
    assert (own.host, own.where.chain) == (told.hostname, acme.CHAIN)
    assert (other.host, other.where.chain) == ("mta-sts.example.org", PAIRS / other.host)
    assert other.seconds < own.seconds
    assert own.where.asked != other.where.asked
    assert own.where.live != other.where.live


def test_a_name_leads_here_or_it_does_not() -> None:
    """One that leads nowhere is no error."""
    assert acme.leads_to("127.0.0.1", "127.0.0.1")
    assert not acme.leads_to("203.0.113.20", "127.0.0.1")
    assert not acme.leads_to("203.0.113.20", "nobody.invalid")


def test_one_that_fails_holds_up_no_other(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each is asked for, and each notes for itself how that ended."""
    hosts = ("mx2.example.org", "mta-sts.example.org", "mta-sts.example.com")
    places = {
        host: Place(tmp_path / host, tmp_path / f"{host}.pem", tmp_path / f"{host}.json")
        for host in hosts
    }
    asked = list[str]()

    def ask(host: str, _: float) -> None:
        asked.append(host)
        if not host.endswith("com"):
            raise MachineError("no such name")

    monkeypatch.setattr(acme, "ask", ask)
    monkeypatch.setattr(
        acme, "wanted", lambda _: [Wanted(host, places[host], lambda: None) for host in hosts]
    )
    failed = list(acme.each_run(replace(SETTINGS, acme="a.example"), always=False))
    assert failed == [f"{host}: no such name" for host in hosts[:2]]
    assert asked == list(hosts)
    kept = [certificate.last(places[host].asked) or Asked("", 0.0) for host in hosts]
    assert [each.failures for each in kept] == [1, 1, 0]


@pytest.fixture
def written(tmp_path: Path) -> Path:
    place = tmp_path / "backup-mx.toml"
    place.write_text(TWO)
    return place


def test_what_is_to_be_put_up_is_shown(written: Path) -> None:
    """The policy and the records, of the domains that are named."""
    run = CliRunner().invoke(mta_sts, ["render", "example.com", "-c", str(written)])
    assert run.exit_code == 0
    lines = run.output.splitlines()
    assert lines[0] == "https://mta-sts.example.com/.well-known/mta-sts.txt, by mx2"
    assert "  mx: mx2.example.org" in lines
    assert lines[-1].startswith('_mta-sts.example.com. TXT "v=STSv1; id=')
    assert "example.org/" not in run.output


def test_it_is_written_for_a_web_server(written: Path, tmp_path: Path) -> None:
    """Byte for byte what a relay would serve."""
    output = ["-o", str(tmp_path / "web"), "--json"]
    run = CliRunner().invoke(mta_sts, ["render", "-c", str(written), *output])
    first = json.loads(run.stdout)["domains"][0]
    file = tmp_path / "web/mta-sts.example.org/.well-known/mta-sts.txt"
    assert first["file"] == str(file)
    assert file.read_bytes().decode() == first["policy"]
    assert file.read_bytes() == contents(made("mx2"))[f"{FOLDER}/mta-sts.example.org"]


@pytest.mark.parametrize(
    ("words", "told"),
    [(["example.cm"], 'did you mean "example.com"?'), ([], "has no [mta_sts]")],
)
def test_what_cannot_be_shown_is_told(written: Path, words: list[str], told: str) -> None:
    """A domain that is none, or a config without a policy."""
    if not words:
        written.write_text(TWO.replace('mta_sts.hosted_by = "mx2"', ""))
    run = CliRunner().invoke(mta_sts, ["render", "-c", str(written), *words])
    assert run.exit_code == 2
    assert told in run.output
