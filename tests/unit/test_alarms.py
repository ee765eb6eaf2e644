"""What an operator is told, and when."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from backup_mx.relay import state
from backup_mx.relay.certificate import Asked
from backup_mx.relay.state import (
    Count,
    Disk,
    Primary,
    Shown,
    Snapshot,
    Sums,
    TableState,
    Trouble,
    Walk,
)
from backup_mx.relay.tell.alarms import Memory, Notice, judge

NOON = 1_795_348_800.0
DAY = 86_400.0
WELL = Snapshot(
    time=NOON,
    started=NOON - DAY,
    relay="mx2",
    hostname="mx2.example.org",
    version="1",
    primaries=(Primary("home", state.UP, NOON - DAY),),
    sums=Sums(accepted=10, delivered=10),
    disk=Disk(40 * 2**30, 50 * 2**30, 75 * 2**20),
    certificate=NOON + 60 * DAY,
    retention=30 * 86_400,
    guarded=NOON + 1000 * DAY,  # whatever later moment a test looks at, it has just been
    reconciled=NOON + 1000 * DAY,
    counters={"accepted": 10},
)
REFUSED = Walk(NOON, good=False, step="connect", why="unreachable", words="no\nroute", seconds=1.0)
DOWN = (Primary("home", state.DOWN, NOON, walk=REFUSED),)
HOST = "mta-sts.example.org"
GOOD = Shown("mta-sts.example.com", NOON + 60 * DAY)


def waiting(count: int, why: str = "unreachable", fate: str = state.WAITING) -> tuple[Count, ...]:
    """Return the counts of so many messages that wait."""
    return (Count(fate, why, count, count * 1000, NOON),) if count else ()


def mail(snapshot: Snapshot, count: int) -> Snapshot:
    """Return a snapshot in which so many messages wait for its only primary."""
    [home] = snapshot.primaries
    return replace(snapshot, primaries=(replace(home, waiting=count),), counts=waiting(count))


class Operator:
    """Who is told: the snapshots come one after the other, so many seconds after noon."""

    def __init__(self) -> None:
        self.memory = Memory()

    def sees(self, at: float, snapshot: Snapshot) -> tuple[Notice, ...]:
        """Take a snapshot as it is at that time; return what is told."""
        self.memory, told = judge(self.memory, replace(snapshot, time=NOON + at))
        return told

    def titles(self, at: float, snapshot: Snapshot) -> list[str]:
        """Return the titles of what is told."""
        return [each.title for each in self.sees(at, snapshot)]


def test_nothing_is_told_while_all_is_well() -> None:
    """A relay in order is silent."""
    assert Operator().sees(0, WELL) == ()


def test_an_outage_is_told_after_a_grace_once_with_its_counts_and_its_end() -> None:
    """Down, back with how long and how many were kept, and drained with how many and how long."""
    operator = Operator()
    operator.sees(0, WELL)
    dark = mail(replace(WELL, primaries=DOWN), 12)
    assert operator.titles(10, dark) == operator.titles(100, dark) == []
    [down] = operator.sees(131, dark)
    assert (down.severity, down.title) == (
        "failure",
        "[mx2] home is down; kept for it: 12 messages",
    )
    assert 'It said: "no route".' in down.body
    assert "What to do: " in down.body
    assert operator.titles(7300, dark) == []
    [back] = operator.sees(11_520, mail(WELL, 12))
    assert (back.severity, back.title) == (
        "success",
        "[mx2] over: home is down; kept for it: 12 messages",
    )
    assert back.body.startswith("It lasted 3 h 12 min.")
    assert "handed over now: 12 messages" in back.body
    drained = replace(WELL, primaries=(replace(WELL.primaries[0], delivered=12),))
    [done] = operator.sees(11_530, drained)
    assert done.title == "[mx2] handed over to home: 12 messages; none waits for it any more"
    assert "10 s" in done.body
    assert operator.sees(11_540, drained) == ()


def test_mail_is_told_of_the_primary_it_waits_for() -> None:
    """With two primaries, of which one is up: what waits for that one is no reason to worry."""
    operator = Operator()
    home, away = Primary("home", state.UP, NOON, waiting=9), replace(DOWN[0], name="away")
    both = replace(WELL, primaries=(home, away), counts=waiting(9))
    operator.sees(0, both)
    assert operator.titles(300, both) == []
    assert operator.titles(601, both) == ["[mx2] the way to away is broken, though no mail waits"]
    both = replace(both, primaries=(home, replace(away, waiting=2)), counts=waiting(11))
    assert operator.titles(610, both) == ["[mx2] away is down; kept for it: 2 messages"]
    back = replace(away, state=state.UP, waiting=2)
    [over] = operator.sees(700, replace(both, primaries=(home, back)))
    assert "handed over now: 2 messages" in over.body
    back = replace(back, waiting=0, delivered=2)
    home = replace(home, delivered=400)
    assert operator.titles(720, replace(both, primaries=(home, back), counts=waiting(9))) == [
        "[mx2] handed over to away: 2 messages; none waits for it any more"
    ]


def test_mail_that_was_given_up_is_told() -> None:
    """At once, again when it is more, and over when nothing more was for a day."""
    operator = Operator()
    lost = replace(WELL, given_up=NOON, counters={"bounced": 1, "dsn": 1, "expired": 0})
    [told] = operator.sees(1, lost)
    assert (told.severity, told.title) == ("failure", "[mx2] Postfix has given up mail")
    assert "recipients bounced 1, messages expired 0, notices made 1" in told.body
    more = replace(lost, given_up=NOON + 7 * 3600, counters={**lost.counters, "bounced": 2})
    assert operator.titles(3600, lost) == []
    assert operator.titles(7 * 3600, more) == ["[mx2] still: Postfix has given up mail"]
    assert operator.titles(DAY + 60, more) == []
    assert operator.titles(DAY + 7 * 3600, more) == ["[mx2] over: Postfix has given up mail"]


def test_a_canary_that_does_not_walk_is_told() -> None:
    """When three walks are missing; not before the first could be, and not over by a restart."""
    seen = Primary("home", state.UP, NOON, walk=replace(REFUSED, good=True))
    known = replace(WELL, walks_every=60, primaries=(seen,))
    never = replace(WELL, walks_every=60, started=NOON)
    for ill in (known, never):
        operator = Operator()
        assert operator.titles(239, ill) == operator.titles(241, ill) == []
        assert operator.titles(359, ill) == []
        [told] = operator.sees(362, ill)
        assert told.title == "[mx2] the canary does not walk to home"
        assert "systemctl restart backup-mx-agent" in told.body
        again = replace(never, started=NOON + 400)
        assert operator.sees(410, again) == ()
        walked = replace(known, primaries=(replace(seen, walk=replace(REFUSED, time=NOON + 900)),))
        assert operator.titles(910, walked) == [f"[mx2] over: {told.title[6:]}"]


def test_a_machine_that_was_suspended_has_time_for_a_walk() -> None:
    """The next one is due within the pause between two, and takes a while itself."""
    seen = Primary("home", state.UP, NOON, walk=replace(REFUSED, good=True))
    known, operator = replace(WELL, walks_every=300, primaries=(seen,)), Operator()
    assert operator.titles(10, known) == operator.titles(7200, known) == []
    assert operator.titles(7200 + 359, known) == []
    walked = replace(known, primaries=(replace(seen, walk=replace(REFUSED, time=NOON + 7559)),))
    assert operator.titles(7560, walked) == []


def test_a_primary_that_restarts_is_no_news() -> None:
    """What is over within the grace is never told, nor that it is over."""
    operator = Operator()
    assert operator.sees(0, mail(replace(WELL, primaries=DOWN), 1)) == ()
    assert operator.sees(60, WELL) == ()


def test_a_broken_way_is_told_while_nothing_waits_and_again_when_mail_comes() -> None:
    """An idle relay whose drain path is broken says so as a warning; mail makes it a failure."""
    operator = Operator()
    operator.sees(0, replace(WELL, primaries=DOWN))
    assert operator.sees(300, replace(WELL, primaries=DOWN)) == ()
    [idle] = operator.sees(601, replace(WELL, primaries=DOWN))
    assert (idle.severity, idle.title) == (
        "warning",
        "[mx2] the way to home is broken, though no mail waits",
    )
    [worse] = operator.sees(610, mail(replace(WELL, primaries=DOWN), 1))
    assert (worse.severity, worse.title) == (
        "failure",
        "[mx2] home is down; kept for it: 1 message",
    )


@pytest.mark.parametrize(
    ("changes", "severity", "said"),
    [
        ({"primaries": (Primary("home", state.REFUSING, NOON),)}, "warning",
         "home answers, but refuses recipients"),
        ({"primaries": (Primary("home", state.FLAPPING, NOON),)}, "warning", "home comes and goes"),
        ({"primaries": (Primary("home", state.UP, NOON, paused="9 of 10 were refused"),)},
         "warning", "no more flushing to home"),
        ({"primaries": (Primary("home", state.UP, NOON, message=REFUSED),)}, "warning",
         "home does not take the daily message"),
        ({"guarded": NOON - DAY}, "warning", "the guard against expiry does not run"),
        ({"guarded": None}, "warning", "the guard against expiry does not run"),
        ({"reconciled": NOON - 7300}, "warning", "ledger and spool are not compared"),
        ({"reconciled": None}, "warning", "ledger and spool are not compared"),
        ({"troubles": (Trouble("reconcile", "no helper", NOON - 301),)}, "warning",
         "the agent cannot do all of its work: reconcile"),
        ({"troubles": (Trouble("follow", "no log", NOON - 301),)}, "failure",
         "the agent cannot read Postfix's log"),
        ({"counts": waiting(3, "refused")}, "warning", "refused by the primary: 3 messages"),
        ({"counts": waiting(1, "capability")}, "warning",
         "more than the primary can do: 1 message"),
        ({"counts": waiting(2, "tls")}, "warning", "no TLS as the config wants it: 2 messages"),
        ({"at_risk": 2}, "warning", "waiting for long: 2 messages"),
        ({"counts": (Count(state.WAITING, "maintenance", 1, 1, NOON - 31 * DAY),)}, "warning",
         "mail waits for 31 d 1 h"),
        ({"counts": (Count(state.WAITING, "4xx", 1, 1, NOON - DAY),)}, "warning",
         "mail waits for 1 d 1 h although the primary is up"),
        ({"counts": waiting(4, "held", state.HELD)}, "warning", "on hold: 4 messages"),
        ({"sums": Sums(accepted=10, delivered=9, differences=1)}, "failure",
         "the ledger does not add up"),
        ({"disk": Disk(4 * 2**30, 50 * 2**30, 75 * 2**20)}, "warning",
         "4.0 GiB left on the mail's disk"),
        ({"disk": Disk(100 * 2**20, 50 * 2**30, 75 * 2**20)}, "failure",
         "100 MiB left on the mail's disk"),
        ({"disk": Disk(40 * 2**30, 50 * 2**30, 75 * 2**20, damaged=True)}, "failure",
         "the mail's disk is damaged, or read-only"),
        ({"certificate": NOON + 10 * DAY}, "warning", "the certificate expires in 10 d"),
        ({"certificate": NOON + 2 * DAY}, "failure", "the certificate expires in 2 d"),
        ({"certificate": NOON - DAY}, "failure", "the certificate expired 1 d ago"),
        ({"policies": (GOOD, Shown(HOST, NOON + 10 * DAY))}, "warning",
         "the certificate of mta-sts.example.org expires in 10 d"),
        ({"policies": (Shown(HOST, NOON + 2 * DAY), GOOD)}, "failure",
         "the certificate of mta-sts.example.org expires in 2 d"),
        ({"tables": (TableState("example.org", 40, NOON, "HTTP 500"),)}, "warning",
         "the recipients of example.org are not fetched"),
        ({"maintenance": NOON}, "failure", "the maintenance has not ended by itself"),
        ({"maintenance": NOON + 5 * DAY}, "warning", "maintenance goes on"),
    ],
)  # fmt: skip
def test_each_trouble_is_told_once_and_its_end_too(
    changes: dict[str, object], severity: str, said: str
) -> None:
    """Every trouble has a title, says what to do, and is told to be over when it is."""
    grace = DAY + 60 if said == "maintenance goes on" else 3601.0
    ill = replace(WELL, **changes)  # type: ignore[arg-type]
    operator = Operator()
    first = operator.sees(0, ill)
    told = [*first, *operator.sees(grace, ill)]
    assert [(each.severity, each.title) for each in told] == [(severity, f"[mx2] {said}")]
    assert "What to do: " in told[0].body
    assert operator.sees(grace + 5, ill) == ()
    home = replace(WELL.primaries[0], message=replace(REFUSED, good=True))
    well = replace(WELL, primaries=(home,), certificate=NOON + 90 * DAY, guarded=NOON + grace,
                   tables=(TableState("example.org", 40, NOON),),
                   policies=(replace(GOOD, host=HOST),))  # fmt: skip
    over = operator.sees(grace + 10, well)
    assert [(each.severity, each.key) for each in over] == [("success", told[0].key)]


ASKED = replace(WELL, acme="acme.example.net", certificate_issuer="CN=E7")
REFUSES = Asked("acme.example.net mx2.example.org", NOON, 3, NOON, "DNS problem\nNXDOMAIN")


def test_an_authority_that_gives_no_certificate_is_told() -> None:
    """After an hour where there is none yet, after a day where there is; in its own words."""
    for issuer, grace, said in (
        ("", 3600, "gives no certificate"),
        ("CN=E7", DAY, "gives no new certificate"),
    ):
        operator, ill = Operator(), replace(ASKED, asked=REFUSES, certificate_issuer=issuer)
        assert operator.sees(0, ill) == operator.sees(grace - 1, ill) == ()
        (told,) = operator.sees(grace + 1, ill)
        assert told.title == f"[mx2] acme.example.net {said}"
        assert '"DNS problem NXDOMAIN"' in told.body
        assert ("one that it has made itself" in told.body) is (issuer == "")
        well = replace(ill, asked=Asked(REFUSES.what, NOON + grace), certificate_issuer="CN=E7")
        assert [each.severity for each in operator.sees(grace + 10, well)] == ["success"]


def test_an_authority_that_nobody_asks_is_told() -> None:
    """An hour after the agent's start, or two days after the last time; not where none is asked."""
    silent = [replace(ASKED, asked=None), replace(ASKED, asked=Asked("x", NOON - 2 * DAY - 60))]
    for ill in silent:
        assert Operator().titles(60, ill) == [
            "[mx2] acme.example.net is not asked for a certificate"
        ]
        assert Operator().titles(60, replace(ill, acme="")) == []
    assert Operator().titles(60, replace(ASKED, started=NOON)) == []


def test_an_authority_that_gives_a_policy_none_is_told() -> None:
    """By a notice of its own, in its own words; what the relay's own lacks is another matter."""
    refuses = replace(REFUSES, what=f"acme.example.net {HOST}")
    well = replace(ASKED, asked=Asked("x", NOON), policies=(Shown(HOST, GOOD.ends),))
    for ends, grace, said, stands in (
        (None, 3600, "gives no certificate for", "is not served."),
        (GOOD.ends, DAY, "gives no new certificate for", "is served with the one there is."),
    ):
        operator, ill = Operator(), replace(well, policies=(Shown(HOST, ends, asked=refuses),))
        assert operator.sees(0, ill) == operator.sees(grace - 1, ill) == ()
        (told,) = operator.sees(grace + 1, ill)
        assert (told.key, told.title) == (f"asked:{HOST}", f"[mx2] acme.example.net {said} {HOST}")
        assert '"DNS problem NXDOMAIN"' in told.body
        assert stands in told.body
        assert f"whether {HOST} leads to it" in told.body
        assert [each.severity for each in operator.sees(grace + 10, well)] == ["success"]


def test_what_a_policy_s_host_shows_may_be_unknown() -> None:
    """After a restart of the agent, or while nobody answers there, nothing is said to be over."""
    refuses, nothing = Shown(HOST, NOON + DAY, asked=REFUSES), Shown(HOST, None)
    ill = replace(WELL, acme="acme.example.net", asked=Asked("x", NOON), policies=(refuses,))
    operator = Operator()
    told = (*operator.sees(0, ill), *operator.sees(DAY + 1, ill))
    assert {each.key for each in told} == {f"certificate:{HOST}", f"asked:{HOST}"}
    assert operator.sees(DAY + 2, replace(ill, policies=(nothing,))) == ()
    answered = replace(nothing, asked=Asked("x", NOON))
    over = operator.sees(DAY + 3, replace(ill, policies=(answered,)))
    assert [each.key for each in over] == [f"asked:{HOST}"]
    [left] = operator.sees(DAY + 4, replace(ill, policies=()))
    assert left.key == f"certificate:{HOST}"
    assert left.title.startswith("[mx2] no longer watched: ")


def test_the_end_of_a_short_certificate_is_soon_when_a_quarter_is_left() -> None:
    """One that holds for a day is not told to expire all the time."""
    short = replace(WELL, certificate_lifetime=DAY)
    assert Operator().sees(0, replace(short, certificate=NOON + DAY / 3)) == ()
    (told,) = Operator().sees(0, replace(short, certificate=NOON + DAY / 5))
    assert told.severity == "warning"
    (told,) = Operator().sees(0, replace(short, certificate=NOON + DAY / 10))
    assert told.severity == "failure"


def test_what_goes_on_is_told_again_each_day_and_what_grows_after_hours() -> None:
    """A reminder a day; more messages on hold are told before that, not at each one."""
    operator = Operator()
    held = replace(WELL, counts=waiting(1, "held", state.HELD))
    more = replace(WELL, counts=waiting(2, "held", state.HELD))
    assert operator.titles(-30, held) == []
    assert operator.titles(0, held) == ["[mx2] on hold: 1 message"]
    assert operator.titles(60, more) == []
    assert operator.titles(6 * 3600, more) == ["[mx2] still: on hold: 2 messages"]
    assert operator.titles(12 * 3600, more) == []
    assert operator.titles(30 * 3600, more) == ["[mx2] still: on hold: 2 messages"]


def test_what_comes_and_goes_is_not_told_each_time() -> None:
    """An alarm that was just over is told again only after a rest."""
    operator = Operator()
    held = replace(WELL, counts=waiting(1, "held", state.HELD))
    told = [title for at in range(0, 620, 20)
            for title in operator.titles(at, held if at % 80 < 40 else WELL)]  # fmt: skip
    assert told == []
    told = [title for at in range(1000, 1600, 20)
            for title in operator.titles(at, held if at % 80 < 60 else WELL)]  # fmt: skip
    assert told == ["[mx2] on hold: 1 message", "[mx2] over: on hold: 1 message"]
    assert operator.titles(1700, held) == []
    assert operator.titles(1740, held) == ["[mx2] on hold: 1 message"]


def started(snapshot: Snapshot, at: float) -> Snapshot:
    """Return what an agent shows of the same world in its first second: what it has not looked at.

    A primary is what it was, where the last run was just before.
    """
    return replace(
        snapshot, started=NOON + at, counts=(), sums=Sums(), spool={}, reconciled=None, disk=None,
        certificate=None, certificate_issuer=None, asked=None, tables=(), at_risk=0, guarded=None,
        counters={}, troubles=(), policies=tuple(Shown(e.host, None) for e in snapshot.policies),
        primaries=tuple(replace(e, waiting=0, delivered=0, paused="") for e in snapshot.primaries),
    )  # fmt: skip


ILL = replace(
    WELL,
    primaries=(
        Primary("home", state.UP, NOON - DAY, paused="9 of 10 were refused", waiting=9,
                walk=replace(REFUSED, good=True)),
        Primary("away", state.UP, NOON - DAY, message=REFUSED),
        Primary("dark", state.DOWN, NOON, walk=REFUSED, waiting=3),
    ),
    counts=(*waiting(3, "refused"), *waiting(12, "held", state.HELD),
            Count(state.WAITING, "tls", 1, 1, NOON - 31 * DAY)),
    at_risk=3, sums=Sums(10, 9, differences=1),
    disk=Disk(2**20, 50 * 2**30, 75 * 2**20, damaged=True),
    tables=(TableState("example.org", 40, NOON, "HTTP 500"),),
    troubles=(Trouble("reconcile", "no helper", NOON - 400),),
    certificate=NOON + DAY, acme="acme.example.net", certificate_issuer="", asked=REFUSES,
    policies=(Shown(HOST, NOON + DAY, asked=REFUSES),), guarded=NOON - DAY, reconciled=NOON - DAY,
)  # fmt: skip


OLD = (Count(state.WAITING, "local", 500, 1, NOON - 20 * DAY),
       Count(state.WAITING, "4xx", 200, 1, NOON - 19 * DAY))  # fmt: skip


def test_mail_that_a_primary_which_is_up_does_not_get_is_told() -> None:
    """Whatever keeps it: a domain that left the config, a mailbox that is full for weeks."""
    operator, ill = Operator(), replace(WELL, counts=OLD)
    assert operator.titles(0, ill) == operator.titles(3599, ill) == []
    [told] = operator.sees(3601, ill)
    assert (told.key, told.severity) == ("stuck", "warning")
    assert told.title == "[mx2] mail waits for 20 d 1 h although the primary is up"
    assert "local 500, 4xx 200" in told.body
    [over] = operator.sees(3700, WELL)
    assert (over.key, over.severity) == ("stuck", "success")


@pytest.mark.parametrize(
    "changes",
    [
        {"counts": waiting(5, "4xx")},
        {"counts": (replace(OLD[0], why="refused"), replace(OLD[1], why="maintenance"))},
        {"maintenance": NOON + 9000},
        {"primaries": (Primary("home", state.DOWN, NOON - DAY, waiting=700),)},
        {"primaries": (Primary("home", state.UP, NOON - 2 * 3600, waiting=700),)},
        {"primaries": (WELL.primaries[0], Primary("away", state.DOWN, NOON - DAY, waiting=700))},
    ],
)
def test_mail_that_has_good_reason_to_wait_is_not_stuck(changes: dict[str, object]) -> None:
    """It is young, it has an alarm of its own, or its primary was up for no long time."""
    operator, ill = Operator(), replace(WELL, **changes)  # type: ignore[arg-type]
    told = [each.key for at in (0, 3700) for each in operator.sees(at, ill)]
    assert "stuck" not in told


def test_mail_stays_stuck_while_its_primary_comes_and_goes() -> None:
    """It is neither over nor told anew before it went, or the primary was up for long again."""
    operator, ill = Operator(), replace(WELL, counts=OLD)
    ill = replace(ill, primaries=(replace(WELL.primaries[0], waiting=700),))
    assert [each.key for at in (0, 3601) for each in operator.sees(at, ill)] == ["stuck"]
    away = replace(ill, primaries=(replace(ill.primaries[0], state=state.DOWN, since=NOON + 3610),))
    back = replace(ill, primaries=(replace(ill.primaries[0], since=NOON + 3650),))
    for at, seen in ((3620, away), (3660, back), (3650 + 6 * 3600, back), (DAY, back)):
        assert operator.sees(at, seen) == ()
    assert [each.key for each in operator.sees(DAY + 60, WELL)] == ["stuck"]


def test_a_start_of_the_agent_is_the_end_of_nothing() -> None:
    """What holds still is not told to be over, nor anew, because it is not known yet."""
    operator = Operator()
    told = {each.key for at in (0, 4000) for each in operator.sees(at, ILL)}
    assert told == {
        *("held", "ledger", "at-risk", "overdue", "undeliverable:refused", "undeliverable:tls"),
        *("message:away", "primary:dark", "table:example.org", "agent", "guarded", "reconciled"),
        *("certificate", "asked", f"certificate:{HOST}", "paused:home", "disk", "disk:damaged"),
    }
    fresh = replace(ILL, started=NOON + 4010)
    assert operator.sees(4011, started(ILL, 4010)) == ()
    assert operator.sees(4020, replace(fresh, troubles=(), reconciled=None, guarded=None)) == ()
    assert operator.sees(4400, fresh) == ()


def test_what_a_start_finds_well_is_over() -> None:
    """As soon as it was looked at; what its tasks do, when each has had its time."""
    operator = Operator()
    told = {each.key for at in (0, 4000) for each in operator.sees(at, ILL)}
    good = replace(REFUSED, good=True)
    up = (replace(each, state=state.UP, paused="", waiting=0, walk=good, message=good)
          for each in ILL.primaries)  # fmt: skip
    well = replace(WELL, started=NOON + 4010, primaries=tuple(up), policies=(GOOD,),
                   tables=(TableState("example.org", 40, NOON),), asked=Asked("x", NOON + 4000),
                   acme="acme.example.net", certificate_issuer="CN=E7")  # fmt: skip
    well = replace(well, policies=(replace(GOOD, host=HOST, asked=Asked("x", NOON + 4000)),))
    over = {each.key for each in operator.sees(4100, well) if each.severity == "success"}
    assert told - over == {"agent", "at-risk"}
    over = {each.key for each in operator.sees(4311, well) if each.severity == "success"}
    assert over == {"agent", "at-risk"}


def test_a_drain_goes_on_over_a_start() -> None:
    """It is not told as done before the ledger was read, nor by one that was begun anew."""
    operator = Operator()
    had = replace(WELL, primaries=(replace(WELL.primaries[0], delivered=500),))
    operator.sees(0, mail(replace(had, primaries=DOWN), 12))
    operator.sees(130, mail(replace(had, primaries=DOWN), 12))
    assert len(operator.sees(200, mail(had, 12))) == 1
    assert operator.sees(210, started(had, 209)) == ()
    anew, memory = (
        replace(WELL, primaries=(replace(had.primaries[0], delivered=7),)),
        operator.memory,
    )
    assert operator.sees(220, anew) == ()
    operator.memory = memory
    done = replace(had, primaries=(replace(had.primaries[0], delivered=512),))
    [told] = operator.sees(220, done)
    assert told.title.endswith("handed over to home: 12 messages; none waits for it any more")


def test_what_left_the_config_is_not_told_to_be_well() -> None:
    """Neither a primary that has another name now, nor a table, nor the daily message."""
    operator = Operator()
    for at in (0, 4000):
        operator.sees(at, ILL)
    house = Primary("house", state.DOWN, NOON + 4010, walk=REFUSED, waiting=3)
    kept = replace(ILL.primaries[1], message=None)
    now = replace(ILL, started=NOON + 4010, primaries=(house, kept), tables=(), policies=())
    gone = operator.sees(4020, now)
    assert {each.key for each in gone} == {
        *("primary:dark", "paused:home", f"certificate:{HOST}"),
    }
    assert {each.severity for each in gone} == {"info"}
    assert "[mx2] no longer watched: dark is down; kept for it: 3 messages" in {
        each.title for each in gone
    }
    again = [each.key for each in operator.sees(4200, now)]
    assert again == ["primary:house"]
    later = operator.sees(4010 + 2 * 3600, now)
    assert {each.key for each in later if each.severity == "info"} == {
        "message:away", "table:example.org",
    }  # fmt: skip


def test_what_cannot_be_known_is_neither_begun_nor_over() -> None:
    """While the agent starts, or the primary is away, what was told before still stands."""
    operator = Operator()
    dark = replace(mail(replace(WELL, primaries=DOWN), 2), counts=waiting(2, "refused"))
    operator.sees(0, replace(WELL, counts=waiting(2, "refused")))
    assert len(operator.sees(400, replace(WELL, counts=waiting(2, "refused")))) == 1
    operator.sees(410, dark)
    [down] = operator.sees(600, dark)
    assert down.key == "primary:home"
    starting = replace(dark, primaries=(Primary("home", state.STARTING, NOON + 700),), disk=None)
    assert operator.sees(700, starting) == ()
    [back] = operator.sees(710, replace(WELL, counts=waiting(2, "refused")))
    assert back.body.startswith("It lasted 11 min 50 s.")


def test_a_clock_that_is_put_back_silences_nothing() -> None:
    """An alarm that began in what is now the future is told all the same."""
    operator = Operator()
    dark = mail(replace(WELL, primaries=DOWN), 1)
    operator.sees(5 * DAY, dark)
    assert operator.sees(0, dark) == ()
    assert len(operator.sees(121, dark)) == 1


STATES = st.sampled_from(state.STATES)
SNAPSHOTS = st.builds(
    lambda at, which, count, why, free, words: replace(
        WELL,
        time=NOON + at,
        primaries=(Primary("home", which, NOON, walk=replace(REFUSED, words=words)),),
        counts=waiting(count, why),
        disk=Disk(free, 50 * 2**30, 75 * 2**20),
    ),
    st.integers(0, 200_000),
    STATES,
    st.integers(0, 3),
    st.sampled_from(("refused", "tls", "unreachable")),
    st.integers(0, 50 * 2**30),
    st.text(max_size=300),
)


@given(st.lists(SNAPSHOTS, max_size=30))
def test_whatever_happens_over_follows_begun(snapshots: list[Snapshot]) -> None:
    """Nobody is told that something is over who was not told of it; every title is one line."""
    memory, begun = Memory(), set()
    for snapshot in sorted(snapshots, key=lambda each: each.time):
        memory, notices = judge(memory, snapshot)
        for notice in notices:
            assert notice.title.isprintable()
            if notice.severity != "success":
                begun.add(notice.key)
            elif not notice.key.startswith("drained:"):
                begun.remove(notice.key)


def test_a_primary_that_is_down_in_a_maintenance_is_a_warning() -> None:
    """It was announced; once that is over and it is still down, it is a failure."""
    operator, dark = Operator(), mail(replace(WELL, primaries=DOWN), 3)
    planned = replace(dark, maintenance=NOON + 3600)
    [told] = [each for at in (0, 130) for each in operator.sees(at, planned)]
    assert (told.key, told.severity) == ("primary:home", "warning")
    assert "A maintenance was announced, until " in told.body
    [worse] = operator.sees(3700, dark)
    assert (worse.key, worse.severity) == ("primary:home", "failure")
    assert "announced" not in worse.body


def test_a_pause_for_maintenance_is_no_news() -> None:
    """The operator who announced maintenance is not told that nothing is flushed meanwhile."""
    paused = (Primary("home", state.UP, NOON, paused="maintenance until then"),)
    assert Operator().sees(0, replace(WELL, primaries=paused, maintenance=NOON + 3600)) == ()


@pytest.mark.parametrize(
    ("changes", "early", "late"),
    [
        ({"troubles": (Trouble("follow", "no log", NOON),)}, 120, 301),
        ({"started": NOON, "guarded": None}, 600, 781),
        ({"started": NOON, "reconciled": None}, 3600, 7201),
        ({"reconciled": NOON}, 7200, 10801),
    ],
)
def test_what_may_be_slow_is_no_news_until_it_is_too_slow(
    changes: dict[str, object], early: float, late: float
) -> None:
    """An agent that has just started has not done everything yet, and a failure may pass."""
    operator = Operator()
    ill = replace(WELL, **changes)  # type: ignore[arg-type]
    for at in (early, early + 1, late - 1):
        assert operator.titles(at, ill) == []
    assert len(operator.titles(late, ill)) == 1


@pytest.mark.parametrize("step", [3600, 3 * 3600, 10 * DAY])
def test_a_clock_that_is_put_forward_is_no_news(step: float) -> None:
    """Nor a machine that was suspended: all was done just now, and its next turn comes."""
    failing = Trouble("reconcile", "busy", NOON)
    well = replace(WELL, guarded=NOON, reconciled=NOON, retention=0, certificate=NOON + 90 * DAY)
    operator = Operator()
    assert operator.sees(1, replace(well, troubles=(failing,))) == ()
    assert operator.sees(step, replace(well, troubles=(failing,))) == ()
    assert operator.sees(step + 60, well) == ()
    for at in (62, 3590):
        assert operator.sees(step + at, replace(well, guarded=NOON + step + at)) == ()
    done = replace(well, guarded=NOON + step + 3591, reconciled=NOON + step + 3591)
    assert operator.sees(step + 3591, done) == ()


def test_a_restart_is_no_proof_that_all_is_compared_again() -> None:
    """An agent that was started anew does not know, so nothing is over yet."""
    operator, ill = Operator(), replace(WELL, reconciled=NOON - 11_000)
    assert len([*operator.titles(-3600, ill), *operator.titles(0, ill)]) == 1
    assert operator.titles(700, replace(WELL, started=NOON + 690, reconciled=None)) == []


def test_without_a_table_everybody_is_taken() -> None:
    """A first fetch that never succeeded leaves no table that could stay in use."""
    operator = Operator()
    never = replace(WELL, tables=(TableState("example.org", 0, None, "HTTP 500"),))
    operator.sees(0, never)
    [told] = operator.sees(3601, never)
    assert "everybody is taken" in told.body
    assert "stays in use" not in told.body
