"""The conditions an operator must know of, as a Snapshot shows them, in plain words. Pure."""

from __future__ import annotations

from collections.abc import Iterator

from backup_mx.relay.queue import reasons
from backup_mx.relay.state import (
    FLAPPING,
    FOLLOW,
    GIVEN_UP,
    HELD,
    REFUSING,
    STARTING,
    UP,
    WAITING,
    Primary,
    Snapshot,
    oldest,
)
from backup_mx.relay.tell import certificates, known
from backup_mx.relay.tell.alarm import (
    FAILURE,
    WARNING,
    Alarm,
    clock,
    late,
    one_line,
)
from backup_mx.relay.text import counted, size, span

# For how many seconds each has to hold before it is told.
DOWN_GRACE = 120.0  # a primary that restarts is no news
IDLE_GRACE = 600.0  # while nothing waits for it, even less
REFUSED_GRACE = 300.0
STUCK_GRACE = 3600.0  # what was kept in a maintenance is old at its end
OVERDUE_GRACE = 3600.0  # what is to be held is, and what was released has its chance
HELD_GRACE = 30.0  # they are put on hold in batches
LEDGER_GRACE = 120.0
TABLE_GRACE = 3600.0
MAINTENANCE_GRACE = 120.0
LONG_MAINTENANCE = 24 * 3600.0
GUARD_SECONDS = 1800.0
"""How long the timer that keeps mail from expiring, due every minute, may not have run."""
GUARD_FIRST = 600.0  # seconds after the agent's start in which it has run
TROUBLE_SECONDS = 120.0  # that a task fails, and a grace, before it is told: most failures pass
COMPARED_SECONDS = 7200.0  # that a comparison with the spool is good for: there is one an hour
COMPARED_FIRST = 3600.0  # seconds after the agent's start in which there is one
# A clock that is put forward, or a machine that was suspended, makes all of them look late: each
# grace is the time in which the next turn comes.
GUARD_GRACE, TROUBLE_GRACE, COMPARED_GRACE = 180.0, 180.0, 3600.0
WALK_SECONDS = 60.0  # that one walk may take (net.canary.TOTAL_SECONDS)
GIVEN_UP_SECONDS = 24 * 3600.0  # that mail which was given up is told of


def alarms(now: Snapshot) -> Iterator[Alarm]:
    """Yield every condition that holds, each key once."""
    for primary in now.primaries:
        yield from _primary(primary, now)
        yield from _unwalked(primary, now)
    yield from _given_up(now)
    yield from _undeliverable(now)
    yield from _stuck(now)
    yield from _old(now)
    yield from _held(now)
    yield from _ledger(now)
    yield from _damage(now)
    yield from _disk(now)
    yield from certificates.alarms(now)
    yield from _tables(now)
    yield from _maintenance(now)
    yield from _guard(now)
    yield from _agent(now)
    yield from _compared(now)


def _primary(primary: Primary, now: Snapshot) -> Iterator[Alarm]:
    if primary.paused and now.maintenance is None:
        yield Alarm(
            f"paused:{primary.name}", WARNING, 0.0, f"no more flushing to {primary.name}",
            f"{primary.paused}\nThe mail stays queued, and Postfix goes on trying at its own pace. "
            f"What to do: mend {primary.name}, then: backup-mx drain {now.relay}",
            "The agent flushes again.",
        )  # fmt: skip
    if primary.message and not primary.message.good:
        yield Alarm(
            f"message:{primary.name}", WARNING, 0.0,
            f"{primary.name} does not take the daily message",
            f"It takes recipients, and not what is sent to them: "
            f'"{one_line(primary.message.words)}". What to do: see what its filters say of it.',
            "The daily message is taken.",
        )  # fmt: skip
    if primary.state in (UP, STARTING):
        return
    waiting = primary.waiting
    key = f"primary:{primary.name}"
    what, advice = _trouble(primary, waiting)
    said = f' It said: "{_words(primary)}".' if _words(primary) else ""
    yield Alarm(
        key,
        FAILURE if waiting and now.maintenance is None else WARNING,
        DOWN_GRACE if waiting else IDLE_GRACE,
        f"{what}{f'; kept for it: {counted(waiting)}' if waiting else ''}",
        f"Since {clock(primary.since)}.{said}{_announced(now)}\n{advice}",
        f"{primary.name} takes mail again.",
    )


def _announced(now: Snapshot) -> str:
    until = now.maintenance
    return "" if until is None else f" A maintenance was announced, until {clock(until)}."


def _unwalked(primary: Primary, now: Snapshot) -> Iterator[Alarm]:
    """Name a primary of which nobody knows how it is: what is shown of it is of long ago.

    After a machine was suspended the next walk is on its way for as long as that grace.
    """
    slow, walk = 3 * now.walks_every + WALK_SECONDS, primary.walk
    if now.walks_every and late(now, walk.time if walk else None, slow, slow):
        last = f"since {clock(walk.time)}" if walk else "yet"
        yield Alarm(
            f"canary:{primary.name}", WARNING, now.walks_every + WALK_SECONDS,
            f"the canary does not walk to {primary.name}",
            f"It did not {last}, so nobody knows how {primary.name} is, and its return is not "
            "seen. Postfix goes on trying at its own pace. What to do: journalctl -u "
            "backup-mx-agent on the relay, then systemctl restart backup-mx-agent.",
            "It walks again.",
        )  # fmt: skip


def _given_up(now: Snapshot) -> Iterator[Alarm]:
    """Name mail that Postfix gave up, for a day: that it did cannot be mended, only seen to."""
    if now.given_up is None or not 0 <= now.time - now.given_up < GIVEN_UP_SECONDS:
        return
    bounced, expired, notices = (now.counters.get(name, 0) for name in GIVEN_UP)
    yield Alarm(
        "given-up", FAILURE, 0.0, "Postfix has given up mail",
        f"The last time {clock(now.given_up)}. Since the ledger began: recipients bounced "
        f"{bounced}, messages expired {expired}, notices made {notices}. That must never happen. "
        "What it made lies on hold, with the whole message in it. What to do: "
        f"backup-mx queue {now.relay} --held, export it and bring it to its recipient; "
        f"backup-mx deploy {now.relay} --diff shows what somebody changed.",
        "Nothing more was given up for a day.", bounced + expired + notices,
    )  # fmt: skip


def _trouble(primary: Primary, waiting: int) -> tuple[str, str]:
    """Say what a primary that is not up does, and what there is to do about it."""
    name = primary.name
    kept = "Mail that comes is kept here and handed over by itself once it is well. What to do: "
    if primary.state == REFUSING:
        return (
            f"{name} answers, but refuses recipients",
            f"Nothing bounces. {kept}see whether its mailboxes and its filters are there.",
        )
    if primary.state == FLAPPING:
        return (
            f"{name} comes and goes",
            f"{kept}see whether it restarts again and again, or its line is bad.",
        )
    if waiting:
        return f"{name} is down", f"{kept}see whether the server and its line are up."
    return (
        f"the way to {name} is broken, though no mail waits",
        f"{name} itself may be well: senders have not come to this relay. {kept}see the drain "
        f"path: the port at the router, the tunnel, the TLS certificate.",
    )


def _undeliverable(now: Snapshot) -> Iterator[Alarm]:
    """Name mail that a primary which is up does not take as it is."""
    if not _any_up(now):
        return
    words = {
        reasons.REFUSED: ("refused by the primary", "the primary's filters and mailboxes"),
        reasons.CAPABILITY: ("more than the primary can do", "its SMTPUTF8 and SIZE"),
        reasons.TLS: ("no TLS as the config wants it", "the primary's certificate"),
    }
    for why, (what, where) in words.items():
        count = sum(e.messages for e in now.counts if (e.fate, e.why) == (WAITING, why))
        if count:
            yield Alarm(
                f"undeliverable:{why}", WARNING, REFUSED_GRACE, f"{what}: {counted(count)}",
                f"They stay queued and do not bounce. What to do: read what was said "
                f"(backup-mx queue {now.relay}), mend {where}, then: backup-mx drain {now.relay}",
                "No message waits for this any more.", count,
            )  # fmt: skip


def _stuck(now: Snapshot) -> Iterator[Alarm]:
    """Name mail that its primary, which is up, does not get, or puts off again and again."""
    found = [each for each in known.tried(now) if each.oldest is not None]
    first = oldest(found)
    if first is None or min(now.time - first, known.steady(now)) <= known.STUCK_SECONDS:
        return
    whys = ", ".join(f"{each.why} {each.messages}" for each in found)
    yield Alarm(
        "stuck", WARNING, STUCK_GRACE,
        f"mail waits for {span(now.time - first)} although the primary is up",
        f"It stays queued and does not bounce. Why they wait: {whys}. What to do: read what was "
        f"said (backup-mx queue {now.relay}). 4xx: the primary's limits, or a full mailbox; "
        "local: a domain that left the config, or the relay itself (its mail log).",
        "No message waits for that any more.",
    )  # fmt: skip


def _old(now: Snapshot) -> Iterator[Alarm]:
    """Name mail that nears the retention, or is past it and not on hold."""
    look = f"What to do: bring the primary back, or export it; backup-mx queue {now.relay}"
    if now.at_risk:
        yield Alarm(
            "at-risk", WARNING, 60.0, f"waiting for long: {counted(now.at_risk)}",
            f"Of {span(now.retention)}, nine tenths have passed. {look}",
            "No message waits for that long any more.", now.at_risk,
        )  # fmt: skip
    waits = [each.oldest for each in now.counts if each.fate == WAITING and each.oldest]
    if waits and now.retention and now.time - min(waits) > now.retention:
        yield Alarm(
            "overdue", WARNING, OVERDUE_GRACE, f"mail waits for {span(now.time - min(waits))}",
            f"That is more than {span(now.retention)}. It does not expire. {look}",
            "No message waits for that long any more.",
        )  # fmt: skip


def _held(now: Snapshot) -> Iterator[Alarm]:
    count = sum(each.messages for each in now.counts if each.fate == HELD)
    if count:
        yield Alarm(
            "held", WARNING, HELD_GRACE, f"on hold: {counted(count)}",
            f"They waited longer than {span(now.retention)}, somebody put them there, or they are "
            "damaged. They do not expire. What is held by retention is released by itself when the "
            "primary comes back, but what it refused although it was up. All else, only by you: "
            f"backup-mx show {now.relay} ID says who held it. "
            f"What to do: backup-mx queue {now.relay}, then release, export or delete them.",
            "No message is on hold any more.", count,
        )  # fmt: skip


def _ledger(now: Snapshot) -> Iterator[Alarm]:
    if not now.sums.even:
        count = now.sums.differences
        yield Alarm(
            "ledger", FAILURE, LEDGER_GRACE, "the ledger does not add up",
            f"Log and spool say different things of {counted(count)}; accepted is not delivered "
            f"+ waiting + held + deleted. What to do: backup-mx ledger {now.relay} names each.",
            "The ledger adds up again.", count,
        )  # fmt: skip


def _damage(now: Snapshot) -> Iterator[Alarm]:
    if now.disk and now.disk.damaged:
        yield Alarm(
            "disk:damaged", FAILURE, 0.0, "the mail's disk is damaged, or read-only",
            "While it is read-only, no mail is taken (senders get no answer, and try again), and "
            "none handed over. What to do: copy what waits, before anything else; then reboot the "
            "relay, which checks the disk: backup-mx explain disk tells how.",
            "The disk is well again.",
        )  # fmt: skip


def _disk(now: Snapshot) -> Iterator[Alarm]:
    disk = now.disk
    if disk is None or disk.free >= max(4 * disk.needed, disk.total // 10):
        return
    short = disk.free < max(2 * disk.needed, disk.total // 33)
    yield Alarm(
        "disk", FAILURE if short else WARNING, 60.0, f"{size(disk.free)} left on the mail's disk",
        f"Below {size(disk.needed)}, senders are asked to come back later (4xx); what was taken "
        "is safe. What to do: bring the primary back, or make the volume larger.",
        "There is room again.",
    )  # fmt: skip


def _tables(now: Snapshot) -> Iterator[Alarm]:
    for table in now.tables:
        if table.trouble:
            left = (
                f"The table of {clock(table.fetched)}, with {table.recipients} recipients, stays "
                "in use."
                if table.fetched
                else "There is no table yet: everybody is taken, whether the mailbox exists or not."
            )
            yield Alarm(
                f"table:{table.domain}", WARNING, TABLE_GRACE,
                f"the recipients of {table.domain} are not fetched",
                f"{one_line(table.trouble)}. {left} "
                "What to do: see what its URL answers to the relay.",
                "The table is fetched again.",
            )  # fmt: skip


def _maintenance(now: Snapshot) -> Iterator[Alarm]:
    if now.maintenance is None:
        return
    off = f"What to do: backup-mx maintenance {now.relay} off"
    if now.time > now.maintenance:
        yield Alarm(
            "maintenance", FAILURE, MAINTENANCE_GRACE, "the maintenance has not ended by itself",
            f"Its end was {clock(now.maintenance)}, and mail is still kept back. {off}",
            "Mail goes to the primary again.",
        )  # fmt: skip
    else:
        yield Alarm(
            "maintenance", WARNING, LONG_MAINTENANCE, "maintenance goes on",
            f"Mail is kept back until {clock(now.maintenance)}. {off}",
            "Mail goes to the primary again.",
        )  # fmt: skip


def _guard(now: Snapshot) -> Iterator[Alarm]:
    if late(now, now.guarded, GUARD_SECONDS, GUARD_FIRST):
        ran = f"It ran last {clock(now.guarded)}" if now.guarded else "It has not run yet"
        yield Alarm(
            "guarded", WARNING, GUARD_GRACE, "the guard against expiry does not run",
            f"{ran}. What to do: "
            "systemctl status backup-mx-guard.timer backup-mx-guard.service on the relay.",
            "It runs again.",
        )  # fmt: skip


def _agent(now: Snapshot) -> Iterator[Alarm]:
    """Name what the agent cannot do: it lives, and looks well from afar."""
    found = [each for each in now.troubles if now.time - each.since > TROUBLE_SECONDS]
    if not found:
        return
    blind = any(each.task == FOLLOW for each in found)
    names = ", ".join(each.task for each in found)
    title = "cannot read Postfix's log" if blind else f"cannot do all of its work: {names}"
    lost = "What waits is not known to it; the primary's return is flushed all the same. "
    said = "\n".join(
        f"{each.task}, since {clock(each.since)}: {one_line(each.why)}" for each in found
    )
    yield Alarm(
        "agent", FAILURE if blind else WARNING, TROUBLE_GRACE, f"the agent {title}",
        f"{said}\nPostfix keeps the mail and goes on trying at its own pace. "
        f"{lost if blind else ''}What to do: journalctl -u backup-mx-agent on the relay; "
        f"backup-mx status {now.relay}",
        "The agent does all of its work again.", len(found),
    )  # fmt: skip


def _compared(now: Snapshot) -> Iterator[Alarm]:
    if late(now, now.reconciled, COMPARED_SECONDS, COMPARED_FIRST):
        last = f"since {clock(now.reconciled)}" if now.reconciled else "yet"
        yield Alarm(
            "reconciled", WARNING, COMPARED_GRACE, "ledger and spool are not compared",
            f"They were not {last}, so a message that one of them lacks goes unnoticed. "
            "What to do: systemctl status backup-mx-helper.socket and journalctl -u "
            "backup-mx-agent on the relay.",
            "They are compared again.",
        )  # fmt: skip


def _any_up(now: Snapshot) -> bool:
    return any(primary.state == UP for primary in now.primaries)


def _words(primary: Primary) -> str:
    return one_line(primary.walk.words) if primary.walk else ""
