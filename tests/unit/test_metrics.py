"""What Prometheus is told, as Prometheus would read it."""

from __future__ import annotations

import asyncio
import ipaddress
import math
import re
import shutil
import subprocess
import urllib.error
import urllib.request
from dataclasses import replace

import pytest
import web_world
from hypothesis import given, settings
from hypothesis import strategies as st
from prometheus_client.parser import text_string_to_metric_families

from backup_mx.relay.certificate import Asked
from backup_mx.relay.ledger import COUNTERS
from backup_mx.relay.queue import reasons
from backup_mx.relay.state import (
    DOWN,
    HELD,
    STATES,
    UP,
    WAITING,
    Count,
    Disk,
    Primary,
    Shown,
    Snapshot,
    Sums,
    Walk,
)
from backup_mx.relay.tell import metrics

NOW = 1_795_000_000.0
EMPTY = Snapshot(NOW, NOW - 50, "mx2", "mx2.example.org", "5f0c")
WALK = Walk(NOW - 3, True, "rset", "", "250 Ok", 0.25, ("SIZE 1000", "8BITMIME"))
Labels = frozenset[tuple[str, str]]
SCRAPE = b"GET /metrics HTTP/1.1\r\nUser-Agent: Prometheus/3\r\nHost: %b\r\n\r\n"


COUNTED = replace(EMPTY, counters=dict.fromkeys(COUNTERS, 0))


def read(snapshot: Snapshot, now: float = NOW) -> dict[tuple[str, Labels], float]:
    """Return every sample by its name and labels; two of the same are a mistake."""
    text = metrics.exposition(snapshot, now).decode()
    found: dict[tuple[str, Labels], float] = {}
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            key = (sample.name, frozenset(sample.labels.items()))
            assert key not in found
            found[key] = sample.value
    return found


def one(snapshot: Snapshot, name: str, **labels: str) -> float:
    """Return one sample of ours."""
    return read(snapshot)[f"backup_mx_{name}", frozenset(labels.items())]


def test_everything_is_there_from_the_first_scrape() -> None:
    """An empty relay and a busy one have the same series, so that no rule waits for one."""
    up = Primary("home", UP, NOW - 60, 4, WALK, NOW - 3)
    quiet = replace(COUNTED, primaries=(Primary("home", "starting", NOW),))
    busy = replace(
        EMPTY,
        primaries=(up,),
        counts=(Count(WAITING, "refused", 3, 900, NOW - 70), Count(HELD, "held", 1, 5, NOW - 9)),
        counters=COUNTED.counters
        | {"accepted": 4, "refusals:size": 2, "intake:up": 4, "walks:bad": 1},
        spool={"deferred": (3, 900)},
        maintenance=NOW + 60,
    )
    assert set(read(quiet)) == set(read(busy))


@pytest.mark.parametrize(
    ("name", "labels", "value"),
    [
        ("messages", {"fate": "waiting", "why": "tls"}, 3),
        ("messages_bytes", {"fate": "waiting", "why": "tls"}, 900),
        ("oldest_message_age_seconds", {"fate": "waiting", "why": "tls"}, 70),
        ("messages", {"fate": "held", "why": "held"}, 0),
        ("queue_messages", {"queue": "corrupt"}, 1),
        ("queue_bytes", {"queue": "maildrop"}, 0),
        ("canary_up", {"primary": "home"}, 1),
        ("primary_state", {"primary": "home", "state": "up"}, 1),
        ("primary_state", {"primary": "home", "state": "down"}, 0),
        ("canary_step", {"primary": "home", "step": "rset"}, 1),
        ("canary_failure", {"primary": "home", "why": "tls"}, 0),
        ("canary_duration_seconds", {"primary": "home"}, 0.25),
        ("canary_last_success_timestamp_seconds", {"primary": "home"}, NOW - 3),
        ("ledger_messages", {"fate": "delivered"}, 7),
        ("ledger_accepted_messages", {}, 10),
        ("ledger_even", {}, 1),
        ("dsn_total", {}, 0),
        ("refusals_total", {"kind": "relay_denied"}, 5),
        ("refusals_total", {"kind": "disk"}, 0),
        ("deferrals_total", {"why": "unreachable"}, 8),
        ("events_total", {"event": "something:new"}, 6),
        ("snapshot_age_seconds", {}, 0),
        ("drain_eta_seconds", {}, 6),
        ("maintenance", {}, 0),
        ("config_changed", {}, 1),
        ("disk_needed_bytes", {}, 3),
        ("disk_damaged", {}, 1),
        ("wireguard_handshake_timestamp_seconds", {"primary": "home"}, NOW - 99),
        ("info", {"relay": "mx2", "hostname": "mx2.example.org", "version": "5f0c"}, 1),
    ],
)
def test_values(name: str, labels: dict[str, str], value: float) -> None:
    """Each part of the snapshot stands where its name says."""
    snapshot = replace(
        EMPTY,
        primaries=(Primary("home", UP, NOW - 60, 4, WALK, NOW - 3, waiting=3),),
        counts=(Count(WAITING, "tls", 3, 900, NOW - 70),),
        sums=Sums(accepted=10, delivered=7, waiting=3),
        spool={"deferred": (3, 900), "corrupt": (1, 10)},
        per_second=0.5,
        drifted=True,
        disk=Disk(1, 2, 3, damaged=True),
        handshakes={"home": NOW - 99},
        counters={"refusals:relay_denied": 5, "attempts:unreachable": 8, "something:new": 6},
    )
    assert one(snapshot, name, **labels) == value


def test_each_host_s_certificate_is_told() -> None:
    """The relay's own, and those of the policies that it serves, also where there is none yet."""
    refused = Asked("acme.example.net mta-sts.example.org", NOW, 3, NOW, "no")
    snapshot = replace(
        EMPTY,
        certificate=NOW + 90,
        certificate_lifetime=100.0,
        asked=replace(refused, failures=0),
        policies=(Shown("mta-sts.example.org", NOW + 60, 70.0, refused), Shown("b.example", None)),
    )
    for host, ends, lifetime, failures in (
        ("mx2.example.org", NOW + 90, 100, 0),
        ("mta-sts.example.org", NOW + 60, 70, 3),
        ("b.example", 0, 0, 0),
    ):
        assert one(snapshot, "certificate_expiry_timestamp_seconds", host=host) == ends
        assert one(snapshot, "certificate_lifetime_seconds", host=host) == lifetime
        assert one(snapshot, "certificate_failures", host=host) == failures


def test_all_that_the_ledger_counts_has_a_name() -> None:
    """A counter of the ledger is a metric of its own, but for those of its inner life."""
    counted = replace(EMPTY, counters=dict.fromkeys(COUNTERS, 1))
    events = {labels for name, labels in read(counted) if name == "backup_mx_events_total"}
    assert {value for each in events for _, value in each} == {"found", "renewed", "reopened"}


def test_what_the_ledger_counts_is_not_there_before_it_was_read() -> None:
    """A counter that falls to 0 at each restart would have risen when it is itself again."""
    own = {"flushes": 3, "walks:good": 2, "notify:new": 1}
    before, after = (read(replace(each, counters=each.counters | own)) for each in (EMPTY, COUNTED))
    gone = {name.removeprefix("backup_mx_") for name, _ in set(after) - set(before)}
    assert gone >= {"bounced_total", "expired_total", "dsn_total", "refusals_total"}
    assert gone == {
        f"{name}_total"
        for key, name, _, _ in metrics.COUNTERS
        if any(each.partition(":")[0] == key for each in COUNTERS)
    } | {"events_total"}
    assert not set(before) - set(after)
    assert one(EMPTY, "flushes_total") == one(EMPTY, "standby_deferrals_total") == 0


def test_a_stuck_agent_is_seen() -> None:
    """The age of the numbers grows although nothing makes new ones."""
    assert read(EMPTY, NOW + 900)["backup_mx_snapshot_age_seconds", frozenset()] == 900


def test_mail_that_does_not_move_takes_for_ever() -> None:
    """Without a pace there is no end; without mail there is nothing to wait for."""
    waiting = replace(EMPTY, counts=(Count(WAITING, "new", 2, 10, NOW),))
    assert one(waiting, "drain_eta_seconds") == math.inf
    down = replace(waiting, primaries=(Primary("home", DOWN, NOW, waiting=2),), per_second=1.0)
    assert one(down, "drain_eta_seconds") == math.inf
    assert one(EMPTY, "drain_eta_seconds") == 0


def test_mail_for_a_primary_that_is_down_makes_no_drain_longer() -> None:
    """It is not handed over at any pace; what waits for the other primary is."""
    both = replace(
        EMPTY,
        primaries=(Primary("home", UP, NOW, waiting=30), Primary("away", DOWN, NOW, waiting=900)),
        counts=(Count(WAITING, "new", 930, 10, NOW),),
        per_second=2.0,
    )
    assert one(both, "drain_eta_seconds") == 15


def test_the_hash_of_the_offer_changes_with_it_only() -> None:
    """Another order or case of the EHLO keywords is no change; another keyword is."""

    def offering(*words: str) -> float:
        walk = replace(WALK, offer=words)
        primary = Primary("home", UP, NOW, walk=walk)
        return one(replace(EMPTY, primaries=(primary,)), "primary_offer_hash", primary="home")

    assert offering("SIZE 10", "PIPELINING") == offering("Pipelining", "SIZE 10")
    assert offering("SIZE 10") != offering("SIZE 20")


def test_names_follow_the_conventions() -> None:
    """Base units only, counters end in _total, gauges do not, and everything has its help.

    https://prometheus.io/docs/practices/naming/
    """
    text = metrics.exposition(EMPTY, NOW).decode()
    for family in text_string_to_metric_families(text):
        if family.name.startswith("process_"):
            continue
        assert re.fullmatch(r"backup_mx(_[a-z][a-z0-9]*)+", family.name)
        assert not re.search(r"_(ms|minutes|hours|days|kb|kib|mb|mib|percent|count)\b", family.name)
        assert not family.name.endswith("_total")
        assert family.documentation.endswith(".")
        assert (
            all(sample.name.endswith("_total") for sample in family.samples)
            == (family.type == "counter" and bool(family.samples))
            or not family.samples
        )


@pytest.mark.skipif(not shutil.which("promtool"), reason="a second opinion, where it is installed")
def test_promtool_has_nothing_to_say() -> None:
    """Prometheus' own linter agrees."""
    said = subprocess.run(
        ["promtool", "check", "metrics"],
        input=metrics.exposition(web_world.view().snapshot(), NOW),
        capture_output=True,
        check=False,
        timeout=30,
    )
    assert (said.returncode, said.stdout, said.stderr) == (0, b"", b"")


WORDS = st.text(max_size=30)


@settings(deadline=None)
@given(
    name=WORDS,
    words=WORDS,
    event=WORDS,
    state=st.sampled_from(STATES),
    why=st.sampled_from(reasons.CLASSES),
    number=st.integers(0, 2**53),
)
def test_no_text_breaks_the_format(
    name: str, words: str, event: str, state: str, why: str, number: int
) -> None:
    """Whatever a primary, a domain or a counter is called, it comes back as it was."""
    primary = Primary(name, state, NOW, walk=replace(WALK, words=words, why=why, good=False))
    snapshot = replace(EMPTY, relay=words, primaries=(primary,), counters={f"x{event}": number})
    found = read(snapshot)
    assert found["backup_mx_events_total", frozenset({("event", f"x{event}")})] == number
    assert found["backup_mx_canary_failure", frozenset({("primary", name), ("why", why)})] == 1


def fetch(address: str, method: str = "GET") -> tuple[int, dict[str, str], bytes]:
    """Ask as Prometheus does."""
    request = urllib.request.Request(address, method=method)  # noqa: S310 - our own server
    try:
        with urllib.request.urlopen(request, timeout=10) as answer:  # noqa: S310
            return answer.status, dict(answer.headers), answer.read()
    except urllib.error.HTTPError as error:
        with error:
            return error.code, dict(error.headers), error.read()


def test_the_server_tells_metrics_and_nothing_else() -> None:
    """GET /metrics is answered in Prometheus' format; other paths and methods are not there."""

    async def ask() -> list[tuple[int, dict[str, str], bytes]]:
        server = await metrics.serve(lambda: EMPTY, web_world.settings(), port=0)
        base = f"http://{server.addresses[0]}"
        try:
            asked = (("/metrics", "GET"), ("/", "GET"), ("/metrics", "POST"), ("/x", "GET"))
            return [await asyncio.to_thread(fetch, base + path, how) for path, how in asked]
        finally:
            await server.stop()

    answers = asyncio.run(ask())
    assert [status for status, _, _ in answers] == [200, 404, 405, 404]
    _, headers, body = answers[0]
    assert headers["Content-Type"].startswith("text/plain; version=")
    assert b"backup_mx_ledger_even 1.0" in body


@pytest.mark.parametrize(
    "sent",
    [b"", b"GET /metrics", b"\x00" * 50_000, b"GET /metrics HTTP/1.1\r\n" + b"a" * 50_000],
)
def test_a_peer_that_does_not_ask_is_let_go(sent: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    """Silence, half a request, garbage without end: closed soon, and others are answered."""
    monkeypatch.setattr(metrics, "PATIENCE", 0.5)

    async def ask() -> tuple[bytes, int]:
        server = await metrics.serve(lambda: EMPTY, web_world.settings(), port=0)
        host, _, port = server.addresses[0].rpartition(":")
        try:
            reader, writer = await asyncio.open_connection(host, int(port))
            writer.write(sent)
            status, _, _ = await asyncio.to_thread(fetch, f"http://{host}:{port}/metrics")
            try:
                said = await asyncio.wait_for(reader.read(), 10)
            except ConnectionError:
                said = b""
            writer.close()
            return said, status
        finally:
            await server.stop()

    assert asyncio.run(ask()) == (b"", 200)


def test_many_at_once_do_not_take_the_agent_with_them(monkeypatch: pytest.MonkeyPatch) -> None:
    """More connections than there are places are closed at once; then there is room again."""
    monkeypatch.setattr(metrics, "PATIENCE", 0.5)

    async def ask() -> tuple[int, int]:
        server = await metrics.serve(lambda: EMPTY, web_world.settings(), port=0)
        host, _, port = server.addresses[0].rpartition(":")
        try:
            crowd = [
                await asyncio.open_connection(host, int(port))
                for _ in range(2 * metrics.MOST_AT_ONCE)
            ]
            ends = await asyncio.wait_for(
                asyncio.gather(*(reader.read() for reader, _ in crowd)), 10
            )
            status, _, _ = await asyncio.to_thread(fetch, f"http://{host}:{port}/metrics")
            for _, writer in crowd:
                writer.close()
            return len(ends), status
        finally:
            await server.stop()

    assert asyncio.run(ask()) == (2 * metrics.MOST_AT_ONCE, 200)


def test_a_peer_from_elsewhere_is_told_no() -> None:
    """Loopback and access.metrics_from are answered, nobody else."""
    desk = metrics._Desk(lambda: EMPTY, web_world.settings(metrics_from=("100.64.0.0/10",)))
    for address, status in (
        ("127.0.0.1", b"200"),
        ("100.64.0.9", b"200"),
        ("198.51.100.9", b"403"),
    ):
        said = desk.answer(SCRAPE % b"localhost", ipaddress.ip_address(address), None)
        assert said.split()[1] == status
    assert desk.answer(SCRAPE % b"localhost", None, None).split()[1] == b"403"


@pytest.mark.parametrize(
    ("head", "status"),
    [
        (SCRAPE % b"127.0.0.1:9725", b"200"),
        (SCRAPE % b"[::1]:9725", b"200"),
        (SCRAPE % b"MX2.example.org:9725", b"200"),
        (SCRAPE % b"mx2", b"200"),
        (SCRAPE % b"198.51.100.20:9725", b"200"),
        (SCRAPE % b"198.51.100.21:9725", b"421"),
        (SCRAPE % b"evil.example:9725", b"421"),
        (SCRAPE % b"[", b"421"),
        (SCRAPE % b"localhost\r\nhost: evil.example", b"421"),
        (SCRAPE % b"evil.example\r\nX: y\r\nHost : localhost", b"421"),
        (b"GET /metrics HTTP/1.0\r\n\r\n", b"421"),
    ],
)
def test_only_who_asks_for_this_relay_is_answered(head: bytes, status: bytes) -> None:
    """As at the dashboard: a page in the operator's browser must not read it by its own name."""
    desk = metrics._Desk(lambda: EMPTY, web_world.settings())
    loopback, here = map(ipaddress.ip_address, ("127.0.0.1", "198.51.100.20"))
    assert desk.answer(head, loopback, here).split()[1] == status
