"""What Prometheus is told, at port 9725: one Snapshot as metrics, and nothing kept between scrapes.

Every combination of labels is there from the first scrape on, at 0, so that a rule never waits for
a series to appear; but what the ledger counts is there once it was read. A time that is not known
is 0 as well: "never". Names follow https://prometheus.io/docs/practices/naming/; docs and alerts
refer to them, so they stay.
"""

from __future__ import annotations

import asyncio
import hashlib
import itertools
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass

from backup_mx.relay import http1, ledger
from backup_mx.relay.log.events import REJECTIONS
from backup_mx.relay.queue import reasons
from backup_mx.relay.queue.reasons import CLASSES
from backup_mx.relay.settings import Settings
from backup_mx.relay.state import FATES, HELD, QUEUES, STATES, UP, WAITING, Disk, Primary, Snapshot
from backup_mx.relay.tell import exposition as written
from backup_mx.relay.tell.exposition import CONTENT_TYPE, COUNTER, GAUGE, Family, Row
from backup_mx.relay.web.serving import Address, Server, here, listeners, may_ask, named, peer

PORT = 9725
LONGEST_REQUEST = 16 * 1024
MOST_AT_ONCE = 16
PATIENCE = 10.0
"""Seconds for one scrape, from its connection on."""
STEPS = ("connect", "greeting", "ehlo", "tls", "mail", "rcpt", "rset", "data")

Labels = dict[str, Sequence[str]]
COUNTERS: tuple[tuple[str, str, Labels, str], ...] = (
    # the counter's name in the snapshot, the metric's, its labels and their values, its help
    ("accepted", "accepted", {}, "Messages the relay answered 250 to."),
    ("intake", "intake", {"primary_state": STATES},
     "Messages accepted, by the primary's state at that moment."),
    ("imported", "imports", {}, "Messages brought here from another relay."),
    ("delivered", "delivered", {}, "Messages handed over to a primary, for all their recipients."),
    ("deliveries", "deliveries", {}, "Recipients for whom a primary took a message."),
    ("attempts", "deferrals", {"why": CLASSES},
     "Attempts for a recipient that have to be repeated, by the class of the reason."),
    ("softened", "softened", {},
     "Answers 5xx of a primary that left the message waiting instead of bouncing it."),
    ("bounced", "bounced", {}, "Recipients given up by Postfix. Must stay 0."),
    ("dsn", "dsn", {}, "Bounces (delivery status notifications) made here. Must stay 0."),
    ("expired", "expired", {}, "Messages given up for their age. Must stay 0."),
    ("refusals", "refusals", {"kind": REJECTIONS},
     "Commands of clients answered 5xx (relay_denied, size, recipient, other5xx, the last of "
     "which must stay 0) or 4xx (all others)."),
    ("postscreen", "postscreen", {"verdict": ("connect", "pass", "pregreet", "dnsbl", "hangup")},
     "Connections as postscreen judged them."),
    ("connections", "connections", {}, "Connections that reached the SMTP server."),
    ("standby", "standby_deferrals", {}, "Messages put off (4xx) because the primary was up."),
    ("flushes", "flushes", {}, "Times that the agent had all waiting mail tried at once."),
    ("walks", "canary_walks", {"result": ("good", "bad")},
     "Walks of the canary down the way mail is handed over."),
    ("messages", "canary_messages", {"result": ("good", "bad")},
     "Daily messages of the canary, with a body."),
    ("held", "holds", {}, "Messages taken out of delivery, by the operator or by their age."),
    ("released", "releases", {}, "Messages put back into delivery."),
    ("requeued", "requeues", {}, "Messages given a fresh lifetime in Postfix."),
    ("deleted", "deletions", {}, "Messages deleted by the operator."),
    ("notify:new", "notices_told", {}, "Notices there were to send."),
    ("notify:sent", "notices_sent", {}, "Notices that a service took."),
    ("notify:failed", "notices_failed", {}, "Attempts at a notice that failed."),
    ("warnings", "postfix_warnings", {}, "Warnings in Postfix's log."),
    ("fatals", "postfix_fatals", {}, "Errors in Postfix's log that ended one of its programs."),
    ("lines", "log_lines", {}, "Lines read of Postfix's log."),
    ("garbage", "log_lines_not_understood", {},
     "Lines of Postfix's log that the ledger could make nothing of."),
    ("gaps", "log_gaps", {}, "Times that a part of Postfix's log was missing."),
)  # fmt: skip
_LEDGER = frozenset(ledger.COUNTERS)


def exposition(snapshot: Snapshot, now: float) -> bytes:
    """Return a snapshot in Prometheus' text format; now is when it is asked for."""
    return written.text((*_families(snapshot, now), *written.machine(), *written.process()))


async def serve(snapshot: Callable[[], Snapshot], settings: Settings, port: int = PORT) -> Server:
    """Answer GET /metrics to loopback and to settings.metrics_from. Raises MachineError.

    One request a connection.
    """
    bound = listeners(settings.metrics_from, port)
    desk = _Desk(snapshot, settings)
    running = [
        await asyncio.start_server(desk.serve, sock=each, limit=LONGEST_REQUEST) for each in bound
    ]
    addresses = named(bound)

    async def stop() -> None:
        for each in running:
            each.close()

    return Server(addresses, stop)


@dataclass
class _Desk:
    """Who answers the connections, MOST_AT_ONCE at a time."""

    snapshot: Callable[[], Snapshot]
    settings: Settings
    busy: int = 0

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.busy += 1
        try:
            if self.busy <= MOST_AT_ONCE:
                await asyncio.wait_for(self._serve(reader, writer), PATIENCE)
        except (TimeoutError, OSError, EOFError, asyncio.LimitOverrunError):
            pass  # a peer that says nothing, too much, or is gone
        finally:
            self.busy -= 1
            writer.close()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = await reader.readuntil(b"\r\n\r\n")
        writer.write(self.answer(head, peer(writer.transport), here(writer.transport)))
        await writer.drain()

    def answer(self, head: bytes, address: Address | None, asked: Address | None) -> bytes:
        """Return the whole answer to a request; address is the peer's, asked the machine's own."""
        request = http1.request(head)
        if not may_ask(address, self.settings.metrics_from):
            return _said("403 Forbidden", b"this address is not in access.metrics_from\n")
        if not self.settings.is_named(request.host, asked):
            return _said("421 Misdirected Request", b"ask by the relay's name or address\n")
        if request.path != "/metrics":
            return _said("404 Not Found", b"only /metrics is here\n")
        if request.method != "GET":
            return _said("405 Method Not Allowed", b"only GET is answered\n", "Allow: GET")
        body = exposition(self.snapshot(), time.time())
        return _said("200 OK", body, kind=CONTENT_TYPE)


def _said(status: str, body: bytes, *more: str, kind: str = "text/plain; charset=utf-8") -> bytes:
    own = (f"Content-Type: {kind}", "X-Content-Type-Options: nosniff", "Cache-Control: no-store")
    return http1.reply(status, *own, *more, body=body)


def _families(found: Snapshot, now: float) -> Iterator[Family]:
    yield from _agent(found, now)
    yield from _mail(found, now)
    yield from _ledger(found)
    yield from _machine(found)
    yield from _primaries(found.primaries)
    yield from _counters(found)


def _gauge(name: str, doc: str, value: float | None) -> Family:
    return written.one(f"backup_mx_{name}", GAUGE, doc, value or 0)


def _table(name: str, doc: str, labels: Sequence[str], rows: Iterable[Row]) -> Family:
    return Family(f"backup_mx_{name}", GAUGE, doc, tuple(rows), labels)


def _agent(found: Snapshot, now: float) -> Iterator[Family]:
    names, values = ("relay", "hostname", "version"), (found.relay, found.hostname, found.version)
    yield _table("info", "Which relay this is, and what runs on it.", names, [(values, 1)])
    yield _gauge("agent_start_time_seconds", "When the agent started.", found.started)
    yield _gauge(
        "snapshot_age_seconds",
        "How old these numbers are. The agent looks every few seconds; minutes mean it is stuck.",
        max(0.0, now - found.time),
    )
    yield _gauge("failing_tasks", "Tasks of the agent that fail now.", len(found.troubles))


def _mail(found: Snapshot, now: float) -> Iterator[Family]:
    kinds = {(HELD if why == reasons.HELD else WAITING, why): (0, 0, 0.0) for why in CLASSES}
    for each in found.counts:
        age = max(0.0, now - each.oldest) if each.oldest is not None else 0.0
        kinds[each.fate, each.why] = (each.messages, each.octets, age)
    labels = ("fate", "why")
    for name, doc, which in (
        ("messages", "Messages on the relay, by what becomes of them and why they are here.", 0),
        ("messages_bytes", "What those messages weigh.", 1),
        ("oldest_message_age_seconds", "How long the oldest of them has been here; 0: none is.", 2),
    ):
        yield _table(name, doc, labels, ((key, row[which]) for key, row in kinds.items()))
    yield from _lifetime(found)
    yield from _spool(found)
    yield from _drain(found)


def _lifetime(found: Snapshot) -> Iterator[Family]:
    yield _gauge("retention_seconds", "How long mail waits before it is held.", found.retention)
    yield _gauge(
        "retention_at_risk_messages",
        "Waiting messages that have used up nine tenths of the retention.",
        found.at_risk,
    )


def _spool(found: Snapshot) -> Iterator[Family]:
    queues = {queue: found.spool.get(queue, (0, 0)) for queue in QUEUES}
    for which, name, doc in (
        (0, "queue_messages", "Messages in each of Postfix's queues, when the spool was listed."),
        (1, "queue_bytes", "Bytes in each of Postfix's queues, when the spool was listed."),
    ):
        yield _table(name, doc, ["queue"], (((key,), row[which]) for key, row in queues.items()))


def _drain(found: Snapshot) -> Iterator[Family]:
    yield _gauge(
        "drain_messages_per_second",
        "Messages handed over a second, over the last minute.",
        found.per_second,
    )
    yield _gauge(
        "drain_eta_seconds",
        "How long the mail for primaries that are up takes at that pace; +Inf while none moves.",
        found.eta,
    )


def _ledger(found: Snapshot) -> Iterator[Family]:
    sums = found.sums
    yield _gauge("ledger_accepted_messages", "Messages ever accepted.", sums.accepted)
    fates = (((fate,), getattr(sums, fate)) for fate in FATES)
    yield _table("ledger_messages", "What became of the accepted messages.", ["fate"], fates)
    yield _gauge(
        "ledger_differences",
        "Messages of which ledger and spool say different things. Must be 0.",
        sums.differences,
    )
    yield _gauge("ledger_even", "1 while every accepted message is accounted for.", sums.even)
    yield _gauge(
        "reconcile_timestamp_seconds",
        "When ledger and spool were last compared.",
        found.reconciled,
    )
    yield _gauge(
        "guard_timestamp_seconds",
        "When the timer last ran that keeps mail from expiring without the agent.",
        found.guarded,
    )
    yield _gauge(
        "config_changed",
        "1 while a file on the machine is not as the last deploy left it.",
        found.drifted,
    )


def _machine(found: Snapshot) -> Iterator[Family]:
    disk = found.disk or Disk(0, 0, 0)
    for name, doc, octets in (
        ("disk_free_bytes", "Free on the file system of the spool.", disk.free),
        ("disk_size_bytes", "Size of the file system of the spool.", disk.total),
        ("disk_needed_bytes", "Below so much free, Postfix takes no mail.", disk.needed),
    ):
        yield _gauge(name, doc, octets)
    yield _gauge(
        "disk_damaged",
        "1 while that file system is read-only, or has found errors in itself.",
        disk.damaged,
    )
    yield from _certificates(found)
    yield _gauge("maintenance", "1 while mail is kept back on purpose.", bool(found.maintenance))
    yield _gauge("maintenance_end_timestamp_seconds", "When that ends.", found.maintenance)
    yield _table(
        "wireguard_handshake_timestamp_seconds",
        "When the tunnel to a primary last lived; 0: never.",
        ["primary"],
        (((name,), when) for name, when in found.handshakes.items()),
    )
    yield from _tables(found)


def _certificates(found: Snapshot) -> Iterator[Family]:
    shown = found.certificates
    for name, doc, rows in (
        ("certificate_expiry_timestamp_seconds",
         "When the certificate expires that senders see: the relay's, or an MTA-STS policy's.",
         [((each.host,), each.ends or 0) for each in shown]),
        ("certificate_lifetime_seconds", "For how long it holds in all.",
         [((each.host,), each.lifetime) for each in shown]),
        ("certificate_failures", "How often in a row an authority was asked for one in vain.",
         [((each.host,), each.asked.failures if each.asked else 0) for each in shown]),
    ):  # fmt: skip
        yield _table(name, doc, ["host"], rows)


def _tables(found: Snapshot) -> Iterator[Family]:
    domains = found.tables
    for name, doc, rows in (
        ("recipients", "Recipients in a domain's fetched table.",
         [((each.domain,), each.recipients) for each in domains]),
        ("recipients_fetch_timestamp_seconds", "When that table was last fetched.",
         [((each.domain,), each.fetched or 0) for each in domains]),
        ("recipients_ok", "0 while something is wrong with the table; the last good one is used.",
         [((each.domain,), not each.trouble) for each in domains]),
    ):  # fmt: skip
        yield _table(name, doc, ["domain"], rows)


PRIMARY: tuple[tuple[str, str, Callable[[Primary], float]], ...] = (
    ("canary_up", "1 while mail can be handed over to this primary.",
     lambda each: each.state == UP),
    ("primary_state_timestamp_seconds", "Since when the primary is in its state.",
     lambda each: each.since),
    ("canary_good_walks", "Good walks in a row.",
     lambda each: each.good),
    ("canary_last_success_timestamp_seconds", "When the canary last came through; 0: never.",
     lambda each: each.last_good or 0),
    ("primary_waiting_messages", "Messages that wait in delivery for this primary.",
     lambda each: each.waiting),
    ("canary_message_ok", "0 after the primary did not take the last daily message.",
     lambda each: each.message is None or each.message.good),
    ("flush_paused", "1 while mail waits and the agent does not flush, for a reason.",
     lambda each: bool(each.paused)),
    ("canary_last_walk_timestamp_seconds", "When the canary last walked; 0: not yet.",
     lambda each: each.walk.time if each.walk else 0),
    ("canary_duration_seconds", "How long its last walk took.",
     lambda each: each.walk.seconds if each.walk else 0),
    ("primary_offer_hash", "A number that changes when the primary's EHLO answer does.",
     lambda each: _hash(each.walk.offer) if each.walk else 0),
)  # fmt: skip
CHOICES: tuple[tuple[str, str, str, Sequence[str], Callable[[Primary], str]], ...] = (
    ("primary_state", "state", "The primary's state: the one at 1.", STATES,
     lambda each: each.state),
    ("canary_step", "step", "How far the last walk came: the step at 1.", STEPS,
     lambda each: each.walk.step if each.walk else ""),
    ("canary_failure", "why", "Why the last walk ended early; all 0: it did not.", CLASSES,
     lambda each: each.walk.why if each.walk else ""),
)  # fmt: skip


def _primaries(found: Sequence[Primary]) -> Iterator[Family]:
    for name, doc, value in PRIMARY:
        yield _table(name, doc, ["primary"], (((each.name,), value(each)) for each in found))
    for name, label, doc, known, chosen in CHOICES:
        rows = (((each.name, one), one == chosen(each)) for each in found for one in known)
        yield _table(name, doc, ["primary", label], rows)


def _hash(offer: Iterable[str]) -> int:
    words = "\n".join(sorted(each.upper() for each in offer)).encode()
    return int.from_bytes(hashlib.sha256(words).digest()[:6], "big")  # exact in a double


def _counters(found: Snapshot) -> Iterator[Family]:
    left = dict(found.counters)
    # The ledger tells all of its counters or none. Zeros until it does would be a rise afterwards.
    unread = () if left.keys() & _LEDGER else _LEDGER
    for key, name, labels, doc in COUNTERS:
        rows = [
            (values, left.pop(":".join((key, *values)), 0))
            for values in itertools.product(*labels.values())
            if ":".join((key, *values)) not in unread
        ]
        yield Family(f"backup_mx_{name}_total", COUNTER, doc, rows, tuple(labels))
    events = [((key,), left[key]) for key in sorted(left)]
    yield Family("backup_mx_events_total", COUNTER, "What else was counted.", events, ("event",))
