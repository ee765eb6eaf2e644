"""What DNS is asked, of a real server on this host."""

from __future__ import annotations

import ipaddress
from collections.abc import Iterator

import dns.flags
import dns.message
import dns.rcode
import pytest
from nameservers import NameServer, serving

from backup_mx.errors import DnsError
from backup_mx.net import dns as net
from backup_mx.net.dns import Names, Server

LONG = "\n".join(f'many 300 TXT "{number:0100}"' for number in range(20))
ZONE = f"""
@ 300 SOA ns1 hostmaster 1 3600 600 604800 60
@ 300 NS NS1
@ 300 NS ns2
@ 300 NS gone
ns1 300 A 127.0.0.1
ns2 300 A 127.0.0.1
ns2 300 AAAA 2001:db8::2
@ 300 MX 20 MX2
@ 300 MX 10 mail.example.org.
mx2 60 A 203.0.113.20
www 300 CNAME mx2
@ 300 TXT "v=spf1 " "mx -all"
@ 300 DNSKEY 257 3 13 mdsswUyr3DPW132mOi8V9xESWE8jTo0dxCjjnopKl+GqJxpVXckHAeF+ (
    KkxLbxILfDLUT0rAK9iUzy1L53eKGQ== )
none 300 MX 0 .
{LONG}
"""
HERE = Server("ns1.example.org", "127.0.0.1")


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[NameServer]:
    with serving(("example.org.", ZONE)) as running:
        monkeypatch.setattr(net, "PORT", running.port)
        yield running


@pytest.fixture
def names(server: NameServer) -> Names:
    assert server.port
    return Names(("127.0.0.1",))


def test_records_are_texts_that_can_be_compared(names: Names) -> None:
    """Small letters, no final dot, sorted; a TXT record's strings are one text."""
    assert names.lookup("example.org.", "MX") == ("10 mail.example.org", "20 mx2.example.org")
    assert names.lookup("EXAMPLE.org", "TXT") == ("v=spf1 mx -all",)
    assert names.lookup("www.example.org", "CNAME") == ("mx2.example.org",)
    assert names.lookup("none.example.org", "MX") == ("0 .",)


def test_what_is_not_there_is_none(names: Names) -> None:
    """A name without the type and a name that is not there are the same to who looks one up."""
    assert names.lookup("mx2.example.org", "AAAA") == ()
    assert names.lookup("mx3.example.org", "A") == ()


def test_a_long_answer_is_asked_for_by_tcp(names: Names, server: NameServer) -> None:
    """Nothing of it is missing."""
    assert len(names.lookup("many.example.org", "TXT")) == 20
    assert len(names.ask(HERE, "many.example.org", "TXT").records) == 20
    assert server.asked.count("many.example.org. TXT tcp") == 2


def test_who_answers_for_a_zone(names: Names) -> None:
    """Each name server at each address; one without an address is told, not left out."""
    assert names.zone("deep.below.mx2.example.org") == "example.org"
    found = names.authoritative("example.org")
    assert {str(each) for each in found} >= {
        "gone.example.org",
        "ns1.example.org (127.0.0.1)",
        "ns2.example.org (127.0.0.1)",
    }
    with pytest.raises(DnsError, match=r"^gone\.example\.org has no address$"):
        names.ask(Server("gone.example.org", ""), "example.org", "MX")


def test_a_server_answers_for_itself(names: Names) -> None:
    """The records with their seconds, what a name really is, and that a name is not there."""
    found = names.ask(HERE, "mx2.example.org", "A")
    assert (found.records, found.ttl, found.authoritative) == (("203.0.113.20",), 60, True)
    assert names.ask(HERE, "www.example.org", "A").alias == "mx2.example.org"
    assert names.ask(HERE, "mx3.example.org", "A").rcode == "NXDOMAIN"
    assert names.ask(HERE, "example.com", "MX").rcode == "REFUSED"


def test_a_text_is_told_as_it_is_cut(names: Names) -> None:
    """Also how its strings are cut: nobody else knows how to name it when it is to go."""
    found = names.ask(HERE, "example.org", "TXT")
    assert found.records == ("v=spf1 mx -all",)
    assert found.cuts == {"v=spf1 mx -all": '"v=spf1 " "mx -all"'}
    assert names.ask(HERE, "mx2.example.org", "A").cuts == {}


def test_a_server_that_does_not_answer_for_the_zone(names: Names, server: NameServer) -> None:
    """A lame delegation is seen: it answers, but not for the zone."""

    def lame(answer: dns.message.Message) -> dns.message.Message:
        answer.flags &= ~dns.flags.AA
        return answer

    server.spoil = lame
    assert not names.ask(HERE, "example.org", "MX").authoritative


def test_a_server_that_does_not_repeat_the_question(names: Names, server: NameServer) -> None:
    """Some refuse so; whatever else such an answer says is said of nothing that was asked."""

    def curt(answer: dns.message.Message) -> dns.message.Message:
        answer.set_rcode(dns.rcode.REFUSED)
        answer.question.clear()
        return answer

    server.spoil = curt
    found = names.ask(HERE, "example.org", "MX")
    assert (found.rcode, found.records, found.ttl) == ("REFUSED", (), None)


def test_a_server_that_is_silent(
    names: Names, server: NameServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is asked twice, and then the answer is that there was none."""
    monkeypatch.setattr(net, "SECONDS", 0.3)
    monkeypatch.setattr(net, "LIFETIME", 1.0)
    server.spoil = lambda _: None
    with pytest.raises(DnsError, match=r"^ns1\.example\.org \(127\.0\.0\.1\) does not answer: no "):
        names.ask(HERE, "example.org", "MX")
    assert server.asked == ["example.org. MX"] * net.TRIES
    with pytest.raises(DnsError, match=r"^MX of example\.org: no resolver answered within 1 s$"):
        names.lookup("example.org", "MX")


def test_a_server_that_hangs_up_on_tcp(names: Names, server: NameServer) -> None:
    """It is one more that does not answer, asked for a long answer or sent a message."""
    server.spoil = lambda answer: None if server.asked[-1].endswith(" tcp") else answer
    with pytest.raises(DnsError, match=r"^ns1\.example\.org .* does not answer: it hung up$"):
        names.ask(HERE, "many.example.org", "TXT")
    question = dns.message.make_query("example.org.", "MX")
    with pytest.raises(DnsError, match=r"^the name server at 127\.0\.0\.1 port .*: it hung up$"):
        net.exchange(question, "127.0.0.1", server.port)


def test_a_resolver_that_fails(names: Names, server: NameServer) -> None:
    """That nobody could tell is not that there is nothing."""

    def failing(answer: dns.message.Message) -> dns.message.Message:
        answer.set_rcode(dns.rcode.SERVFAIL)
        return answer

    server.spoil = failing
    with pytest.raises(DnsError, match=r"^MX of example\.org: no resolver"):
        names.lookup("example.org", "MX")


def test_a_zone_is_signed_only_if_its_parent_says_so(names: Names, server: NameServer) -> None:
    """Keys alone sign nothing: without a DS record nobody can trust them."""
    assert not names.signed("example.org")
    server.zones[0].find_rdataset("example.org.", "DS", create=True).add(
        dns.rdata.from_text("IN", "DS", "60485 13 2 " + "ab" * 32), 300
    )
    assert names.signed("example.org")


def test_what_is_no_name(names: Names) -> None:
    """It is said in words."""
    with pytest.raises(DnsError, match="is no name in DNS"):
        names.lookup("a..b", "A")


def test_names_of_addresses() -> None:
    """The name whose PTR record tells an address's name."""
    assert net.reverse(ipaddress.ip_address("203.0.113.20")) == "20.113.0.203.in-addr.arpa"
    assert net.reverse(ipaddress.ip_address("2001:db8::1")).endswith(".8.b.d.0.1.0.0.2.ip6.arpa")
