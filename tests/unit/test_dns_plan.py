"""Which records are wanted, what that changes, and what a change waits for."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import pytest

from backup_mx import config
from backup_mx.dns.judge import judge
from backup_mx.dns.key import Key
from backup_mx.dns.plan import Change, own_names, plan, questions, withdrawal
from backup_mx.dns.provider import Room
from backup_mx.dns.publish import judge_room, lines
from backup_mx.dns.records import Record, displaces
from backup_mx.dns.seen import Question, Said, Seen
from backup_mx.dns.wanted import Facts, Stage, Wanted, wanted
from backup_mx.net.dns import Server

CONFIG = """
[relay.mx2]
hostname = "mx2.example.org"
address = "203.0.113.20"
[relay.mx3]
hostname = "MX3.example.org"
address = "2001:db8::30"
preference = 30
[primary.home]
hostname = "mail.example.org"
[domain."example.org"]
"""
STS = """
[mta_sts]
hosted_by = "mx2"
reports_to = "tls@example.org"
"""
SERVERS = (Server("ns1.example.net", "192.0.2.2"), Server("ns2.example.net", "192.0.2.3"))
PRIMARY = Record("example.org", "MX", "10 mail.example.org")
KEY = Key("ab" * 32, self_signed=False)
MX2 = Record("example.org", "MX", "20 mx2.example.org")
MX3 = Record("example.org", "MX", "30 mx3.example.org")
A = Record("mx2.example.org", "A", "203.0.113.20")
AAAA = Record("mx3.example.org", "AAAA", "2001:db8::30")
ALL = {A, AAAA, PRIMARY, MX2, MX3}


def read(more: str = "") -> config.Config:
    return config.parse(CONFIG + more, "test")


def seen(*has: set[Record], ttl: int | None = 3600) -> Seen:
    """Return what a server each says."""
    pairs = zip(SERVERS, has, strict=False)
    return Seen("example.org", tuple(Said(name, frozenset(own), ttl) for name, own in pairs))


def world(
    asked: list[Question], first: set[Record], second: set[Record] | None = None
) -> dict[Question, Seen]:
    """Return a world in which the two servers have these records."""

    def of(question: Question, records: set[Record]) -> set[Record]:
        return {each for each in records if (each.name, each.kind) == question}

    other = first if second is None else second
    return {each: seen(of(each, first), of(each, other)) for each in asked}


def planned(
    read: config.Config,
    first: set[Record],
    second: set[Record] | None = None,
    lacking: Mapping[tuple[str, str], str] | None = None,
    facts: Facts | None = None,
) -> tuple[Change, ...]:
    records = wanted(read, facts or Facts())
    there = world(questions(read, records), first, second)
    return plan(read, records, there, lambda *asked: (lacking or {}).get(asked, ""))


def everything(more: str, there: set[Record]) -> dict[Question, Seen]:
    """Return the world that a config with these options asks for, which has these records."""
    return world(questions(read(more), wanted(read(more), Facts())), there)


def written(changes: tuple[Change, ...]) -> list[str]:
    return list(lines(changes))


def test_names_come_first_and_exchangers_last() -> None:
    """From a zone that has the primary alone: the relays' own names, then their MX records."""
    changes = planned(read(), {PRIMARY})
    assert written(changes) == [
        "+ mx2.example.org. 300 IN A 203.0.113.20",
        "+ mx3.example.org. 300 IN AAAA 2001:db8::30",
        "+ example.org. 3600 IN MX 20 mx2.example.org.",
        "+ example.org. 3600 IN MX 30 mx3.example.org.",
    ]
    assert [each.stage for each in changes] == [Stage.NAMES] * 2 + [Stage.EXCHANGERS] * 2
    assert not any(each.waits for each in changes)


def test_what_stands_is_no_change() -> None:
    """A zone that has it all is left alone."""
    assert planned(read(), ALL) == ()


def test_the_primary_s_ttl_stays() -> None:
    """One more MX record has the TTL of those that are there; a relay's own name has ours."""
    ttls = {each.what: each.ttl for each in planned(read(), {PRIMARY})}
    assert ttls == {"address": 300, "MX": 3600}


@pytest.mark.parametrize(
    ("ttls", "ttl", "words"),
    [
        ((86_400, 86_400), 86_400, ""),
        ((3600, None), 3600, ""),
        (
            (3600, 604_800),
            300,
            "the name servers tell different TTLs of example.org's MX records: 3600, 604800",
        ),
        ((604_800, 604_800), 86_400, "example.org's MX records have a TTL of 604800 seconds"),
    ],
)
def test_a_ttl_that_nobody_should_take_over_waits(
    ttls: tuple[int | None, int | None], ttl: int, words: str
) -> None:
    """One forged answer is not to make a relay's record last; taking it away never waits."""
    read_ = read()
    records = wanted(read_, Facts())
    there = world(questions(read_, records), ALL - {MX2})
    said = zip(there["example.org", "MX"].said, ttls, strict=True)
    there["example.org", "MX"] = Seen("example.org", tuple(replace(s, ttl=t) for s, t in said))
    (change,) = plan(read_, records, there, lambda *_: "")
    assert change.ttl == ttl
    assert change.waits.startswith(words)
    assert bool(change.waits) is bool(words)
    (gone,) = withdrawal(read_, read_.relays["mx3"], there, address_too=False)
    assert not gone.waits


def test_an_old_record_goes_in_the_same_step() -> None:
    """Another address, and another preference of the same exchanger; nobody else's."""
    old, lower = (
        Record(A.name, "A", "203.0.113.99"),
        Record("example.org", "MX", "5 mx2.example.org"),
    )
    other = Record("example.org", "MX", "50 mx.example.net")
    changes = planned(read(), (ALL - {A, MX2}) | {old, lower, other})
    assert written(changes) == [
        "- mx2.example.org. 300 IN A 203.0.113.99",
        "+ mx2.example.org. 300 IN A 203.0.113.20",
        "- example.org. 3600 IN MX 5 mx2.example.org.",
        "+ example.org. 3600 IN MX 20 mx2.example.org.",
    ]
    assert [each.growth for each in changes] == [0, 0]


def test_a_server_that_lacks_it_is_a_change() -> None:
    """One of two servers without a record is not the world as it is wanted."""
    assert [each.put for each in planned(read(), ALL, ALL - {MX3})] == [MX3]


def test_without_evidence_a_record_waits() -> None:
    """And says for what; the other relay's does not."""
    why = "inbound: port 25 does not answer"
    changes = planned(read(), {PRIMARY}, lacking={("mx2", "MX"): why})
    assert {each.put: each.waits for each in changes if each.waits} == {MX2: why}


def test_an_exchanger_waits_for_its_address() -> None:
    """A name that leads nowhere would be an exchanger that bounces mail with some senders."""
    changes = planned(read(), {PRIMARY}, lacking={("mx3", "A"): "no gate has been run yet"})
    waits = {each.put: each.waits for each in changes if each.waits}
    assert waits == {
        AAAA: "no gate has been run yet",
        MX3: "its address waits: no gate has been run yet",
    }


@pytest.mark.parametrize(
    ("records", "words"),
    [
        (set(), "example.org has no MX record of the primary, mail.example.org: that comes first"),
        ({Record("example.org", "MX", "0 .")}, "takes no mail at all (RFC 7505)"),
        (
            {Record("example.org", "MX", "20 mail.example.org")},
            "the primary's preference is 20, and mx2's must be greater than that: it is 20",
        ),
    ],
)
def test_an_exchanger_waits_for_a_sound_zone(records: set[Record], words: str) -> None:
    """A relay never becomes the first place where mail goes."""
    changes = planned(read(), {A, AAAA} | records)
    assert words in next(each.waits for each in changes if each.put == MX2)


def test_nothing_stands_beside_a_cname() -> None:
    """A name that is another name of something waits until somebody has taken that away."""
    records = wanted(read(), Facts())
    there = world(questions(read(), records), ALL - {A})
    answers = (Said(SERVERS[0], alias="vps.example.net"),)
    there[A.name, "A"] = Seen("example.org", answers)
    change = plan(read(), records, there, lambda *_: "")[0]
    assert "is another name of vps.example.net (CNAME)" in change.waits


def test_a_zone_that_nobody_answers_for_waits() -> None:
    """What is not seen is not changed."""
    records = wanted(read(), Facts())
    there = world(questions(read(), records), ALL)
    there[A.name, "A"] = Seen("example.org", (Said(SERVERS[0], trouble="ns1 is silent"),))
    assert [each.waits for each in plan(read(), records, there, lambda *_: "")] == ["ns1 is silent"]


SILENT = Said(Server("ns3", "192.0.2.4"), trouble="ns3 is silent")


def unheard(seen: Seen) -> Seen:
    """Return what is seen with one more server that says nothing."""
    return replace(seen, said=(*seen.said, SILENT))


def test_a_silent_server_settles_nothing() -> None:
    """Whatever the others have; so what hangs on it is not begun in a later run, either."""
    records = wanted(read(), Facts())
    there = {each: unheard(seen) for each, seen in world(questions(read(), records), ALL).items()}
    changes = plan(read(), records, there, lambda *_: "")
    assert [each.put for each in changes] == [A, AAAA, MX2, MX3]


def test_a_policy_is_announced_once_it_is_served() -> None:
    """The host's address is published with the relay's; the text waits for what it speaks of."""
    facts = Facts(unserved={"example.org": "its policy is not served yet: no route"})
    changes = planned(read(STS), {PRIMARY}, facts=facts)
    assert [(each.what, each.question, each.waits) for each in changes if not each.relay] == [
        ("MTA-STS", ("_mta-sts.example.org", "TXT"), facts.unserved["example.org"]),
        ("TLS reports", ("_smtp._tls.example.org", "TXT"), ""),
    ]
    assert ("policy host", ("mta-sts.example.org", "A")) in [
        (each.what, each.question) for each in changes
    ]
    assert '+ _smtp._tls.example.org. 300 IN TXT "v=TLSRPTv1; rua=mailto:tls@example.org"' in (
        written(changes)
    )


def test_a_key_is_published_where_the_zone_is_signed() -> None:
    """An old key's record goes, or senders that go by DANE would wait for ever."""
    old = Record("_25._tcp.mx2.example.org", "TLSA", "3 1 1 " + "00" * 32)
    changes = planned(read(), ALL | {old}, facts=Facts(keys={"mx2": KEY}))
    assert written(changes) == [
        f"- {old.name}. 300 IN TLSA {old.data}",
        f"+ {old.name}. 300 IN TLSA 3 1 1 {'ab' * 32}",
    ]


def test_a_key_that_goes_soon_waits() -> None:
    """The certificate that a relay makes for itself is gone when the authority's comes."""
    facts = Facts(keys={"mx2": Key("ab" * 32, self_signed=True)})
    waits = [each.waits for each in planned(read(), ALL, facts=facts)]
    assert waits == ["it still shows the certificate that it made for itself"]
    assert [each.waits for each in planned(read("[tls]\nacme = false\n"), ALL, facts=facts)] == [""]


def test_another_address_of_a_relay_is_told() -> None:
    """Senders try every one that they find."""
    there = ALL | {Record("mx2.example.org", "AAAA", "2001:db8::20")}
    records = wanted(read(), Facts())
    found = judge(read(), records, world(questions(read(), records), there))
    assert [each.saw for each in found if each.verdict != "pass"] == [
        "mx2.example.org is 2001:db8::20, too, which the config does not know"
    ]


def test_terraform_keeps_its_own_counsel() -> None:
    """At Cloudflare without a token, MX records wait until [dns.cloudflare] says so: it is told."""

    def waits(more: str) -> set[str]:
        changes = planned(read(zones + more), {A, AAAA, PRIMARY})
        return {each.waits for each in changes if each.what == "MX"}

    zones = '[dns.cloudflare]\nzones = { "example.org" = "023e105f4ecef8ad9ca31a8372d0c353" }\n'
    (why,) = waits("")
    assert why.startswith('`publish = "address"` in [dns.cloudflare] leaves it out: once ')
    assert waits('publish = "mx"\n') == waits('token = { env = "TOKEN" }\n') == {""}
    unproven = planned(read(zones), ALL - {MX2}, lacking={("mx2", "MX"): "names: no"})
    assert [each.waits for each in unproven] == ["names: no"]
    found = judge(read(zones), wanted(read(zones), Facts()), everything(zones, ALL - {MX2}))
    assert [(each.saw, each.do) for each in found if each.verdict != "pass"] == [
        ("example.org MX 20 mx2.example.org: not published", why)
    ]


@pytest.mark.parametrize(
    ("zones", "verdict"),
    [
        ('zones = { "example.net" = "023e105f4ecef8ad9ca31a8372d0c353" }', "fail"),
        ('zones = { "example.net" = "023e105f4ecef8ad9ca31a8372d0c353" }\ntoken.env = "T"', "warn"),
        (
            'zones = { "example.org" = "023e105f4ecef8ad9ca31a8372d0c353",'
            ' "example.net" = "123e105f4ecef8ad9ca31a8372d0c353" }',
            "warn",
        ),
    ],
)
def test_terraform_makes_no_exchanger_of_a_name_that_it_does_not_see(
    zones: str, verdict: str
) -> None:
    """It puts MX records last of its own, and knows nothing of another zone: the gate has to."""
    more = f'[domain."example.net"]\n[dns.cloudflare]\n{zones}\n'
    records = wanted(read(more), Facts())
    found = judge(read(more), records, everything(more, {PRIMARY}), missing="warn")
    assert {each.verdict for each in found if each.gate == "address"} == {verdict}
    assert {each.verdict for each in found if "20 mx2" in each.saw} == {"warn"}


def test_withdrawing_takes_every_mx_of_the_relay() -> None:
    """Whatever its preference; the primary's and the other relay's stay, and so do all names."""
    read_, other = read(), Record("example.org", "MX", "5 mx2.example.org")
    there = world([("example.org", "MX")], ALL | {other})
    changes = withdrawal(read_, read_.relays["mx2"], there, address_too=False)
    assert [each.gone for each in changes] == [(MX2, other)]
    assert (
        withdrawal(read_, read_.relays["mx2"], world(list(there), {PRIMARY}), address_too=False)
        == ()
    )


def test_withdrawing_the_name_comes_after_the_exchanger() -> None:
    """Its address, its key and the hosts of policies that lead to it."""
    read_ = read(STS)
    host = Record("mta-sts.example.org", "A", "203.0.113.20")
    asked = [("example.org", "MX"), *own_names(read_, read_.relays["mx2"])]
    there = ALL | {host}
    changes = withdrawal(read_, read_.relays["mx2"], world(asked, there), address_too=True)
    assert [each.gone for each in changes] == [(MX2,), (A,), (host,)]
    why = (
        "an MX record leads there yet: when it is gone, wait for its TTL, which is 3600 seconds,"
        " and run this again"
    )
    assert [each.waits for each in changes] == ["", why, why]
    one = world(asked, there - {MX2}, there)
    assert [
        each.waits for each in withdrawal(read_, read_.relays["mx2"], one, address_too=True)
    ] == ["", why, why]
    later = world(asked, there - {MX2})
    changes = withdrawal(read_, read_.relays["mx2"], later, address_too=True)
    assert [(each.gone, each.waits) for each in changes] == [((A,), ""), ((host,), "")]


def test_withdrawing_goes_by_the_config_where_nobody_answers() -> None:
    """A provider may still take it away; the zone is the config's where even that is not told."""
    cloudflare = '[dns.cloudflare]\nzones = {"example.org" = "023e105f4ecef8ad9ca31a8372d0c353"}\n'
    read_ = read(cloudflare)
    there = {("example.org", "MX"): Seen("", trouble="nobody answers for example.org")}
    (change,) = withdrawal(read_, read_.relays["mx2"], there, address_too=False)
    assert (change.zone, change.gone, change.waits) == ("example.org", (MX2,), "")


@pytest.mark.parametrize("silent", [("example.org", "MX"), ("mx2.example.org", "AAAA")])
def test_a_name_stays_while_a_server_is_silent(silent: Question) -> None:
    """It may have an MX record that leads there."""
    read_ = read()
    there = world([("example.org", "MX"), *own_names(read_, read_.relays["mx2"])], ALL - {MX2})
    there[silent] = unheard(there[silent])
    (name,) = withdrawal(read_, read_.relays["mx2"], there, address_too=True)
    assert name.waits == "something may lead there yet that cannot be seen: ns3 is silent"


def verdicts(records: tuple[Wanted, ...], there: dict[Question, Seen]) -> list[tuple[str, str]]:
    return [(each.gate, each.verdict) for each in judge(read(), records, there)]


def test_a_world_as_wanted_passes() -> None:
    """Every record at every server."""
    records = wanted(read(), Facts())
    found = judge(read(), records, world(questions(read(), records), ALL))
    assert {each.verdict for each in found} == {"pass"}
    assert found[0].saw == "mx2.example.org A 203.0.113.20, at 2 of 2 servers"


@pytest.mark.parametrize(
    ("first", "second", "saw"),
    [
        (ALL - {MX2}, ALL - {MX2}, "example.org MX 20 mx2.example.org: not published"),
        (ALL, ALL - {MX2}, "not at ns2.example.net (192.0.2.3)"),
        (ALL - {PRIMARY}, ALL - {PRIMARY}, "example.org has no MX record of the primary"),
        (
            (ALL - {A}) | {Record(A.name, "A", "203.0.113.99")},
            ALL,
            "ns1.example.net (192.0.2.2): 203.0.113.99 instead of 203.0.113.20 at mx2.example.org",
        ),
    ],
)
def test_drift_is_seen(first: set[Record], second: set[Record], saw: str) -> None:
    """A record that is gone, at one server or all; another in its place; the primary's gone."""
    records = wanted(read(), Facts())
    found = judge(read(), records, world(questions(read(), records), first, second))
    assert [each.verdict for each in found if saw in each.saw] == ["fail"]


def test_a_stranger_among_the_exchangers_is_told() -> None:
    """Somebody else's MX record takes mail; that fails, unless it is named, and stays there."""
    other = Record("example.org", "MX", "50 mx.example.net")
    records = wanted(read(), Facts())
    found = judge(read(), records, world(questions(read(), records), ALL | {other}))
    assert [each.saw for each in found if each.verdict == "fail"] == [
        "example.org: 50 mx.example.net is neither the primary nor a relay of this config"
    ]


@pytest.mark.parametrize(("mode", "waits"), [("enforce", "mx3: names: no"), ("testing", "")])
def test_a_policy_that_is_enforced_waits_for_every_relays_evidence(mode: str, waits: str) -> None:
    """Senders would hold mail for an exchanger that does not fit; in testing, they only report."""
    config = read(STS + f'mode = "{mode}"\n')
    changes = planned(config, {A, AAAA, PRIMARY}, lacking={("mx3", "MX"): "names: no"})
    assert [each.waits for each in changes if each.what == "MTA-STS"] == [waits]


def test_a_silent_server_is_no_pass() -> None:
    """It might have anything."""
    records = wanted(read(), Facts())
    there = world(questions(read(), records), ALL)
    said = (*there[A.name, "A"].said, Said(Server("ns3", "192.0.2.4"), trouble="ns3 is silent"))
    there[A.name, "A"] = Seen("example.org", said)
    found = [each for each in judge(read(), records, there) if each.gate == "address"]
    assert [each.verdict for each in found] == ["unknown", "pass", "pass"]


def test_what_is_not_published_yet_may_be_less_than_a_failure() -> None:
    """Before the first publication, a gate looks at names that are not there."""
    records = wanted(read(), Facts())
    found = judge(read(), records, world(questions(read(), records), {PRIMARY}), "warn")
    assert {each.verdict for each in found} == {"warn"}


@pytest.mark.parametrize(
    ("room", "growth", "verdict"),
    [(Room(100, 200), 4, "pass"), (Room(190, 200), 4, "warn"), (Room(198, 200), 3, "fail")],
)
def test_a_full_zone_is_told_beforehand(room: Room, growth: int, verdict: str) -> None:
    """And one that is nearly full."""
    assert judge_room("example.org", room, growth).verdict == verdict


def test_texts_in_a_zone_file() -> None:
    """A long text is several strings; quotes and what is not ASCII are escaped."""
    assert Record("a", "TXT", 'say "ü\\"').text == '"say \\"\\195\\188\\\\\\""'
    assert Record("a", "TXT", "x" * 300).text == f'"{"x" * 255}" "{"x" * 45}"'
    assert Record("a", "MX", "0 .").text == "0 ."


def test_a_text_goes_as_it_is_cut() -> None:
    """Readers do not care how; a name server that is to take it away does."""
    cut = Record("a", "TXT", "v=TLSRPTv1; x", '"v=TLSRPTv1;" " x"')
    assert cut.line() == 'a. 300 IN TXT "v=TLSRPTv1;" " x"'
    assert cut == Record("a", "TXT", "v=TLSRPTv1; x")


def test_only_the_same_sort_of_text_goes() -> None:
    """An SPF record beside it is nobody's business here."""
    new = Record("_mta-sts.example.org", "TXT", "v=STSv1; id=2;")
    assert displaces(new, Record(new.name, "TXT", "v=STSv1;id=1"))
    assert not displaces(new, Record(new.name, "TXT", "v=spf1 -all"))
    assert not displaces(new, new)
