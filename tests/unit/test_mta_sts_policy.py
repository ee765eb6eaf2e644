"""A policy of MTA-STS: written, read as senders read it, held against MX records and names."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from backup_mx import config
from backup_mx.config import Config
from backup_mx.findings import Finding
from backup_mx.mta_sts import policy
from backup_mx.mta_sts.compare import Seen, Shown, compare
from backup_mx.mta_sts.policy import Policy, PolicyError

DATA = Path(__file__).parents[1] / "data"
TEXT = (DATA / "config" / "five-lines.toml").read_text()
OURS = Policy("enforce", 604_800, ("mail.example.org", "mx2.example.org"))
GOOD = {each: Shown((each,)) for each in OURS.mx}
PUBLISHED = Seen("example.org", (OURS.record,), OURS.text, "", OURS.mx, GOOD)


def parsed(options: str) -> Config:
    return config.parse(f"{TEXT}\n{options}", "backup-mx.toml")


def verdicts(wanted: Policy | None, seen: Seen) -> list[str]:
    return [each.verdict for each in compare(wanted, seen)]


def worst(wanted: Policy | None, seen: Seen) -> Finding:
    """Return the one finding that is no pass."""
    (found,) = [each for each in compare(wanted, seen) if each.verdict != "pass"]
    return found


@pytest.mark.parametrize("path", sorted((DATA / "mta_sts/read").iterdir()), ids=lambda p: p.stem)
def test_what_senders_heed_is_read(path: Path) -> None:
    """Lines may end as they like, fields may be unknown; of two modes the first counts."""
    wanted = {
        "rfc-8461": Policy("enforce", 604_800, ("mail.example.org", "*.example.net")),
        "odd-but-good": Policy("enforce", 604_800, ("mail.example.org", "*.example.net")),
        "taken-back": Policy("none", 86_400, ()),
    }
    assert policy.read(path.read_bytes().decode()) == wanted[path.stem]


@pytest.mark.parametrize("path", sorted((DATA / "mta_sts/ignored").iterdir()), ids=lambda p: p.stem)
def test_what_senders_ignore_is_no_policy(path: Path) -> None:
    """A word that does not belong, or one that is missing, and why is told."""
    with pytest.raises(PolicyError, match=r"^(it|its|\") ?.+"):
        policy.read(path.read_text())


def test_what_is_written_is_read() -> None:
    """Each line ends with CRLF; nothing is lost on the way."""
    assert policy.read(OURS.text) == OURS
    assert OURS.text.splitlines(keepends=True)[1] == "mode: enforce\r\n"


def test_another_policy_has_another_id() -> None:
    """By its id senders see a new policy: it depends on all of the text, and only on it."""
    others = [
        replace(OURS, mode="testing"),
        replace(OURS, max_age=86_400),
        replace(OURS, mx=("mail.example.org",)),
    ]
    assert len({each.id for each in (OURS, *others)}) == 4
    assert replace(OURS).id == OURS.id
    assert policy.announced_id(OURS.record) == OURS.id


@pytest.mark.parametrize(
    ("record", "known"),
    [
        ("v=STSv1; id=20160831085700Z;", "20160831085700Z"),
        ("v=STSv1;id=1", "1"),
        ("v=STSv1; later=x; id=1;", "1"),
        ("v=STSv1", None),
        ("v=STSv1;", None),
        ("v=STSv1; id=;", None),
        ("v=STSv1; id=2016-08-31;", None),
        ("v=STSv1; id=" + "1" * 33, None),
    ],
)
def test_the_id_of_a_record(record: str, known: str | None) -> None:
    """RFC 8461, section 3.1: up to 32 letters and digits; a record without one counts for none."""
    assert policy.announced((record, "v=spf1 -all", "v=STSv10; id=1;")) == (record,)
    assert policy.announced_id(record) == known


@pytest.mark.parametrize(
    ("pattern", "name", "is_one"),
    [
        ("mx2.example.org", "MX2.example.org.", True),
        ("*.example.org", "mx2.example.org", True),
        ("*.example.org", "a.mx2.example.org", False),
        ("*.example.org", "example.org", False),
        ("mx2.example.org", "mx.example.org", False),
        ("m*.example.org", "mx2.example.org", False),
    ],
)
def test_a_star_stands_for_one_label(pattern: str, name: str, is_one: bool) -> None:
    """As in RFC 8461, section 4.1: of a name's labels, for the first, and for all of it."""
    assert policy.matches(pattern, name) is is_one


def test_a_config_s_policy_has_the_primary_and_every_relay() -> None:
    """Also the relays that nobody has published yet: what is not in it gets no mail."""
    assert policy.wanted(parsed(""), "example.org") is None
    more = 'mta_sts.max_age = "30d"\nrelay.mx3.hostname = "mx3.example.org"\n'
    found = policy.wanted(parsed(more + 'relay.mx3.address = "203.0.113.30"'), "example.org")
    names = ("mail.example.org", "mx2.example.org", "mx3.example.org")
    assert found == Policy("testing", 30 * 86_400, names)


def test_reports_are_asked_for_where_somebody_wants_them() -> None:
    """RFC 8460, section 3."""
    assert policy.report_record(parsed('mta_sts.mode = "testing"')) is None
    told = parsed('mta_sts.reports_to = "tls@example.org"')
    assert policy.report_record(told) == "v=TLSRPTv1; rua=mailto:tls@example.org"


def test_what_agrees_passes() -> None:
    """A record, its policy, MX records and certificates that are in it."""
    assert verdicts(OURS, PUBLISHED) == ["pass"]


def test_a_domain_without_mta_sts_passes() -> None:
    """Where none is wanted. Other TXT records are none of its."""
    seen = Seen("example.org", ("v=spf1 -all",), "", "no such host", OURS.mx, GOOD)
    assert verdicts(None, seen) == ["pass"]


@pytest.mark.parametrize(
    ("mode", "verdict", "words"),
    [("enforce", "fail", "mail is not sent there"), ("testing", "warn", "senders report it")],
)
def test_a_relay_that_is_not_in_the_policy(mode: str, verdict: str, words: str) -> None:
    """The classic: a new MX gets no mail from whoever heeds a policy from before it."""
    old = Policy(mode, 604_800, ("mail.example.org",))
    seen = replace(PUBLISHED, records=(old.record,), text=old.text)
    found = worst(None, seen)
    assert (found.verdict, words in found.saw) == (verdict, True)
    assert "mx2.example.org" in found.saw
    assert 'Put "mx: mx2.example.org" into the policy' in found.do


def test_an_mx_that_the_config_does_not_know() -> None:
    """What is about to be published would shut it out."""
    seen = replace(PUBLISHED, records=(), mx=(*OURS.mx, "mx.example.com"))
    (found,) = [each for each in compare(OURS, seen) if each.verdict == "fail"]
    assert "mx.example.com is a mail exchanger, and not in the policy" in found.saw


@pytest.mark.parametrize(
    ("shown", "why"),
    [
        (Shown(("other.example.org",)), "shows a certificate for other.example.org"),
        (Shown(()), "shows a certificate for no name"),
        (Shown(("mx2.example.org",), "self-signed"), "no certificate that senders trust"),
    ],
)
def test_a_certificate_that_senders_refuse(shown: Shown, why: str) -> None:
    """Its names do not have the MX's, or nobody vouches for it."""
    seen = replace(PUBLISHED, certificates={**GOOD, "mx2.example.org": shown})
    assert worst(OURS, seen).verdict == "fail"
    assert why in worst(OURS, seen).saw
    mild = replace(OURS, mode="testing")
    seen = replace(seen, records=(mild.record,), text=mild.text)
    assert worst(mild, seen).verdict == "warn"
    off = Policy("none", 86_400, ())
    assert verdicts(off, replace(seen, records=(off.record,), text=off.text)) == ["pass"]


def test_a_wildcard_certificate_is_as_good() -> None:
    """And a host that nobody has looked at is not judged."""
    shown = {"mx2.example.org": Shown(("*.example.org",))}
    assert verdicts(OURS, replace(PUBLISHED, certificates=shown)) == ["pass"]


def test_a_host_that_could_not_be_looked_at_is_unknown() -> None:
    """Senders that heed an enforced policy would not deliver to it if it shows nothing good."""
    unseen = {**GOOD, "mail.example.org": Shown((), error="timed out")}
    seen = replace(PUBLISHED, certificates=unseen)
    found = worst(OURS, seen)
    assert found.verdict == "unknown"
    assert found.saw == (
        "example.org: what mail.example.org shows could not be looked at: timed out"
    )
    mild = replace(OURS, mode="testing")
    assert verdicts(mild, replace(seen, records=(mild.record,), text=mild.text)) == ["pass"]


@pytest.mark.parametrize(
    ("records", "why"),
    [
        ((OURS.record, "v=STSv1; id=1;"), "has 2 records"),
        (("v=STSv1; id=not-this;",), "which is none"),
    ],
)
def test_a_record_that_senders_ignore(records: tuple[str, ...], why: str) -> None:
    """Two of them are as good as none (RFC 8461, section 3.1)."""
    found = worst(OURS, replace(PUBLISHED, records=records))
    assert (found.verdict, why in found.saw) == ("fail", True)


def test_a_record_without_a_policy() -> None:
    """It was there for months once: DNS says there is a policy, and nobody serves it."""
    for seen in (
        replace(PUBLISHED, text="", trouble="https://mta-sts.example.org: Connection refused"),
        replace(PUBLISHED, text="<html>"),
    ):
        found = worst(OURS, seen)
        assert found.verdict == "fail"
        assert "refused" in found.saw or "no policy" in found.saw


def test_what_is_not_published_yet_fails_nothing() -> None:
    """The gates are asked before anything is published."""
    before = replace(PUBLISHED, records=())
    assert verdicts(OURS, before) == ["warn"]
    assert verdicts(OURS, replace(before, text="", trouble="no such host")) == ["warn"]


def test_a_policy_that_is_not_the_config_s() -> None:
    """Served or announced: each is said, with what helps."""
    old = replace(OURS, max_age=86_400)
    found = worst(OURS, replace(PUBLISHED, records=(old.record,), text=old.text))
    assert (found.verdict, "not the config's" in found.saw) == ("warn", True)
    found = worst(OURS, replace(PUBLISHED, records=(old.record,)))
    assert (found.verdict, "old one's id" in found.saw) == ("warn", True)
    assert "dns publish" in found.do


def test_a_gate_may_call_it_otherwise() -> None:
    """Findings carry the name of who asked."""
    assert [each.gate for each in compare(None, PUBLISHED, "names")] == ["names"]
