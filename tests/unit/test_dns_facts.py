"""What records follow from beside the config: keys, policies, names of addresses, providers."""

from __future__ import annotations

import json
import subprocess
from base64 import b64encode
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import dns.message
import dns.rdata
import pytest
from nameservers import CONFIG, NameServer, add, names, standing

from backup_mx import config
from backup_mx.dns import facts
from backup_mx.dns.key import key
from backup_mx.dns.plan import Change, plan, questions
from backup_mx.dns.providers import providers
from backup_mx.dns.records import Record
from backup_mx.dns.rfc2136 import Updates
from backup_mx.dns.seen import look as look_at
from backup_mx.dns.wanted import Facts, Stage, wanted
from backup_mx.errors import DnsError
from backup_mx.machine.ship import Answer, Tell
from backup_mx.mta_sts import look, policy
from backup_mx.net import certificate
from backup_mx.net import dns as net

STS = '[mta_sts]\nmode = "testing"\n'
UPDATES = """
[dns.rfc2136]
server = "ns1.example.org:53"
zones = ["example.org"]
key_name = "backup-mx"
key = { env = "TSIG" }
"""


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[NameServer]:
    with standing(monkeypatch) as running:
        yield running


def read(more: str = "") -> config.Config:
    return config.parse(CONFIG + more, "test")


def made_certificate(folder: Path, issuer: bool) -> bytes:
    """Return a certificate in DER, self-signed or by an issuer."""

    def openssl(*words: str) -> bytes:
        return subprocess.run(
            ["openssl", *words], cwd=folder, check=True, capture_output=True
        ).stdout

    new = ("req", "-new", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes")
    openssl(*new, "-x509", "-subj", "/CN=ca", "-keyout", "ca.key", "-out", "ca.pem")
    if not issuer:
        return openssl("x509", "-in", "ca.pem", "-outform", "DER")
    openssl(*new, "-subj", "/CN=mx2.example.org", "-keyout", "own.key", "-out", "own.csr")
    by = ("-CA", "ca.pem", "-CAkey", "ca.key", "-CAcreateserial")
    openssl("x509", "-req", "-in", "own.csr", *by, "-out", "own.pem")
    return openssl("x509", "-in", "own.pem", "-outform", "DER")


@pytest.mark.parametrize("issuer", [False, True])
def test_the_key_of_a_certificate(tmp_path: Path, issuer: bool) -> None:
    """As openssl has it; and whether the certificate vouches for itself."""
    der = made_certificate(tmp_path, issuer)
    name = "own" if issuer else "ca"
    public = ["openssl", "pkey", "-in", f"{name}.key", "-pubout", "-outform", "DER"]
    raw = subprocess.run(public, cwd=tmp_path, check=True, capture_output=True).stdout
    digest = ["openssl", "dgst", "-sha256", "-r"]
    wanted_ = subprocess.run(digest, input=raw, check=True, capture_output=True).stdout
    assert key(der).digest == wanted_.decode().split()[0]
    assert key(der).self_signed is not issuer


@pytest.mark.parametrize("der", [b"", b"\x30", b"\x30\x03\x02\x01\x01", b"\x30\x82\xff\xff\x00"])
def test_what_is_no_certificate(der: bytes) -> None:
    """It has no key."""
    with pytest.raises(DnsError, match="no certificate"):
        key(der)


@dataclass(frozen=True)
class Host:
    """A relay that answers every program with a text."""

    text: str

    def run(self, argv: Sequence[str], *, stdin: bytes = b"", tell: Tell | None = None) -> Answer:
        assert (tuple(argv), tell) == (("python3", "-I", "-"), None)
        assert b'"port": 25' in stdin
        return Answer(0, self.text, "")


def signed(server: NameServer) -> None:
    add(server, Record("example.org", "DS", f"60485 13 2 {'ab' * 32}"))
    add(server, Record("example.org", "DNSKEY", "257 3 13 AwEAAQ=="))


def shows(monkeypatch: pytest.MonkeyPatch, der: bytes | None) -> None:
    """Let port 25 show this machine a certificate, or none."""
    monkeypatch.setattr(certificate, "shown", lambda *_: der)


def told(der: bytes) -> str:
    """Return what a relay answers that shows itself this one."""
    return json.dumps({"der": b64encode(der).decode()})


@pytest.mark.parametrize("here", [True, False])
def test_the_relay_itself_tells_its_key(
    server: NameServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, here: bool
) -> None:
    """Where port 25 leads there from here, too, it has to show the same one."""
    der = made_certificate(tmp_path, issuer=True)
    shows(monkeypatch, der if here else None)
    assert facts.gather(read(), names(), lambda _: Host(told(der))).keys == {}
    signed(server)
    found = facts.gather(read(), names(), lambda _: Host(told(der)))
    assert found.keys == {"mx2": key(der)}
    assert list(facts.blind(found)) == []


@pytest.mark.parametrize(
    ("said", "why"),
    [
        (None, "mx2: its port 25 shows this machine another key than the relay has itself"),
        (told(b""), "mx2: it shows itself no certificate"),
        (told(b"0"), "mx2: what it shows is no certificate"),
        ('{"der": "A"}', "mx2: what it shows is no certificate"),
        ("{}", "mx2: what it shows is no certificate"),
        ("", "mx2: the machine answered no facts: "),
    ],
)
def test_a_key_seen_at_port_25_alone_is_not_believed(
    server: NameServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, said: str | None, why: str
) -> None:
    """Whoever stands on the way could show that one; a TLSA record that stands may be wrong."""
    stranger = made_certificate(tmp_path, issuer=False)
    own = told(made_certificate(tmp_path, issuer=True)) if said is None else said
    shows(monkeypatch, stranger)
    signed(server)
    found = facts.gather(read(), names(), lambda _: Host(own))
    assert found.keys == {}
    (blind,) = facts.blind(found)
    assert (blind.gate, blind.verdict) == ("TLSA", "unknown")
    assert blind.saw.startswith(why)


@pytest.mark.parametrize(
    ("served", "why"),
    [
        (("", "example.org: no route"), "its policy is not served yet: example.org: no route"),
        (("hello", ""), "what is served is no policy: "),
        (("version: STSv1\nmode: none\nmax_age: 86400\n", ""), "is not the config's"),
    ],
)
def test_a_policy_that_is_not_served_is_not_announced(
    server: NameServer, monkeypatch: pytest.MonkeyPatch, served: tuple[str, str], why: str
) -> None:
    """Fetched as senders do."""
    assert server.port
    monkeypatch.setattr(look, "served", lambda _: served)
    found = facts.gather(read(STS), names(), lambda _: Host(""))
    assert why in found.unserved["example.org"]


def test_a_policy_that_is_served_is_announced(
    server: NameServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Then nothing stands in the way of its record."""
    assert server.port
    own = policy.wanted(read(STS), "example.org")
    assert own
    monkeypatch.setattr(look, "served", lambda _: (own.text, ""))
    found = facts.gather(read(STS), names(), lambda _: Host(""))
    assert found.unserved == {}


def test_the_name_of_an_address_is_a_request(server: NameServer) -> None:
    """Only the address's provider can set it, and mail does not wait for it."""
    found = list(facts.pointers(read(), names()))
    assert [(each.verdict, each.saw) for each in found] == [
        ("warn", "203.0.113.20 is nameless, not mx2.example.org")
    ]
    data = dns.rdata.from_text("IN", "PTR", "MX2.example.org.")
    name = "20.113.0.203.in-addr.arpa."
    server.zones[1].find_rdataset(name, "PTR", create=True).add(data, 300)
    assert [each.verdict for each in facts.pointers(read(), names())] == ["pass"]


CLOUDFLARE = '[dns.cloudflare]\nzones = {"example.org" = "023e105f4ecef8ad9ca31a8372d0c353"}\n'


def test_who_changes_a_zone(monkeypatch: pytest.MonkeyPatch) -> None:
    """A provider where the config has one, Terraform, or a person."""
    monkeypatch.setenv("TSIG", "c2VjcmV0")
    found = providers(read(UPDATES))
    assert found.words("example.org") == "by updates to ns1.example.org:53"
    assert found.words("example.net") == "by hand"
    assert providers(read(CLOUDFLARE)).words("example.org") == "by Terraform"


@pytest.mark.parametrize(
    ("secret", "why"), [("no base64!", "is not base64"), (None, "TSIG is not set")]
)
def test_a_zone_whose_secret_is_gone_is_changed_by_hand(
    monkeypatch: pytest.MonkeyPatch, secret: str | None, why: str
) -> None:
    """And it says why: a withdrawal is never refused for that."""
    if secret:
        monkeypatch.setenv("TSIG", secret)
    found = providers(read(UPDATES))
    assert found.by_zone == {}
    assert found.words("example.org").startswith("by hand: ")
    gone = (Record("example.org", "MX", "20 mx2.example.org"),)
    change = Change("example.org", "MX", Stage.EXCHANGERS, None, gone, 300, "mx2")
    for told in (found.words("example.org"), found.advice(change)):
        assert why in told


def test_an_update_names_a_text_as_the_server_has_it(
    server: NameServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A record is deleted by its very strings (RFC 2136, 3.4.2.4), and all else stays."""
    texts = server.zones[0].find_rdataset("_smtp._tls.example.org.", "TXT", create=True)
    for each in ('"v=TLSRPTv1;" " rua=mailto:old@example.org"', '"some" "thing else"'):
        texts.add(dns.rdata.from_text("IN", "TXT", each), 300)
    own = read(UPDATES + '[mta_sts]\nreports_to = "tls@example.org"\n')
    records = wanted(own, Facts())
    changes = plan(own, records, look_at(names(), questions(own, records)), lambda *_: "")
    sent: list[dns.message.Message] = []

    def exchange(update: dns.message.Message, *_: object) -> dns.message.Message:
        sent.append(update)
        return dns.message.make_response(update)

    monkeypatch.setattr(net, "addresses", lambda _: ["127.0.0.1"])
    monkeypatch.setattr(net, "exchange", exchange)
    assert own.dns.rfc2136
    updates = Updates(own.dns.rfc2136, "c2VjcmV0")
    updates.apply("example.org", [each for each in changes if each.what == "TLS reports"])
    assert [each.to_text() for each in sent[0].sections[2]] == [
        '_smtp._tls.example.org. 0 NONE TXT "v=TLSRPTv1;" " rua=mailto:old@example.org"',
        '_smtp._tls.example.org. 300 IN TXT "v=TLSRPTv1; rua=mailto:tls@example.org"',
    ]


def test_what_terraform_is_told() -> None:
    """To publish, to withdraw, and to take the name away, the config is changed differently."""
    new, old = (Record("example.org", "MX", f"{number} mx2.example.org") for number in (20, 30))
    name = Record("mx2.example.org", "A", "203.0.113.20")

    def advice(stage: Stage, put: Record | None, *gone: Record) -> str:
        change = Change("example.org", "MX", stage, put, gone, 300, "mx2")
        return providers(read(CLOUDFLARE)).advice(change)

    apply = "`backup-mx build`, and `terraform apply` in terraform/cloudflare, are to make"
    assert advice(Stage.EXCHANGERS, new, old) == apply
    assert advice(Stage.EXCHANGERS, None, old) == (
        f'with `publish = "address"` in [dns.cloudflare], which withdraws every relay, {apply}'
    )
    assert advice(Stage.NAMES, None, name) == f"without [relay.mx2] in the config, {apply}"
    assert advice(Stage.NAMES, replace(name, data="203.0.113.21"), name) == apply


@pytest.mark.parametrize(
    "record",
    [
        Record("_smtp._tls.example.org", "TXT", "v=TLSRPTv1; rua=mailto:tls@example.org"),
        Record("_25._tcp.mx2.example.org", "TLSA", "3 1 1 " + "ab" * 32),
        Record("mta-sts.example.org", "A", "203.0.113.20"),
    ],
)
def test_what_terraform_does_not_make_is_made_by_hand(record: Record) -> None:
    """Its module has the relays' addresses and the MX records: whoever waits for more waits."""
    change = Change("example.org", "", Stage.REST, record, (), 300)
    assert providers(read(CLOUDFLARE)).advice(change) == "you are to make"
