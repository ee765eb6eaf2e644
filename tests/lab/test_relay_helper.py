"""The root helper beside a Postfix that delivers: no message is lost, none goes out twice."""

from __future__ import annotations

import json
import os
import random
import re
import threading
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from odd_clients import CLIENTS
from primaries import Primary
from relays import MAILLOG, RELEASES, SPOOL, Relay, booted, wait_for

from backup_mx.errors import LabError
from backup_mx.relay.queue import queueid

pytestmark = pytest.mark.lab

ALICE = b"alice@example.org"
NOW = "is being delivered right now"
HELPER = "backup-mx-helper.service"
BOOT = "backup-mx-guard-boot.service"
GUARD = "backup-mx-guard.service"
# Asks the helper as the user that is named.
ASK = """
import json, sys
sys.path.insert(0, "/usr/local/lib/backup-mx")
from backup_mx.relay.root import client
ids = sys.stdin.read().split()
done = client.change(sys.argv[1], ids, by=sys.argv[2], address="198.51.100.7")
print(json.dumps([[each.id, each.done, each.said] for each in done]))
"""
Answers = dict[str, tuple[bool, str]]


@pytest.fixture(scope="module", params=RELEASES)
def relay(request: pytest.FixtureRequest) -> Iterator[Relay]:
    """A relay with its helper, whose agent is away: nobody but the tests changes anything."""
    with booted(request.param, agent=True) as made:
        made.shell("systemctl", "stop", "backup-mx-agent.service", "backup-mx-guard.timer")
        yield made


@pytest.fixture(autouse=True)
def empty(relay: Relay) -> Iterator[None]:
    """Begin and end each test with an empty queue."""
    relay.empty()
    yield
    relay.empty()


@pytest.fixture
def primary(relay: Relay, tmp_path: Path) -> Iterator[Primary]:
    """A primary at the drain target."""
    with Primary(relay.world, tmp_path) as server:
        yield server
        server.going.set()
    relay.shell("postfix", "reload")  # it would go on using its connections to this primary


def change(
    relay: Relay, verb: str, ids: list[str], user: str = "root", by: str = "test"
) -> Answers:
    """Ask the helper; return what it says of each message."""
    argv = ["runuser", "-u", user, "--", "python3", "-c", ASK, verb, by]
    said = relay.machine.run(argv, stdin="\n".join(ids).encode(), timeout=180).text
    return {name: (done, words) for name, done, words in json.loads(said)}


def log_of(relay: Relay, queue_id: str) -> list[str]:
    """Return what the log has of a message."""
    return [line for line in relay.log().splitlines() if f" {queue_id}: " in line]


def fill(relay: Relay, number: int) -> list[str]:
    """Have messages accepted, numbered in their subject; return their IDs."""
    ids = []
    with relay.client() as client:
        client.greeted()
        for each in range(number):
            client.envelope(b"a@example.net", ALICE)
            answer = client.content(b"Subject: number %d\r\n\r\nkept\r\n" % each)
            ids.append(answer.lines[-1].rpartition(" ")[2])
    return ids


def queues(relay: Relay) -> Counter[str]:
    """Count the relay's messages by queue, from the spool itself: each ID once."""
    root = relay.machine.path(SPOOL)
    found: dict[str, str] = {}
    for queue in ("maildrop", "incoming", "active", "deferred", "hold"):
        for path in (root / queue).rglob("*"):
            if len(path.name) > 1:
                found[path.name] = queue
    return Counter(found.values())


def flush(relay: Relay) -> None:
    """Try all mail now."""
    relay.shell("postqueue", "-f")


def test_a_message_that_is_being_delivered_is_not_touched(relay: Relay, primary: Primary) -> None:
    """Whatever is asked while the primary has it: one answer, and it arrives once."""
    primary.going.clear()
    (queue_id,) = fill(relay, 1)
    wait_for("the delivery to begin", lambda: "DATA" in primary.verbs)
    for verb in ("hold", "requeue", "delete"):
        assert change(relay, verb, [queue_id]) == {queue_id: (False, NOW)}
    assert change(relay, "release", [queue_id]) == {queue_id: (True, "was not on hold")}
    primary.going.set()
    wait_for("it to arrive", lambda: len(primary.messages) == 1 and relay.queue() == [])
    assert not [line for line in log_of(relay, queue_id) if "backup-mx/helper" in line]


def test_in_the_middle_of_a_drain_each_message_goes_once_or_stays(
    relay: Relay, primary: Primary
) -> None:
    """Held, requeued, released and deleted at random while it drains: nothing lost or doubled."""
    primary.pause()
    number = 300
    ids = fill(relay, number)
    wait_for("all to be deferred", lambda: queues(relay)["deferred"] == number, 60)
    primary.resume()
    flush(relay)
    deleted: list[str] = []

    def disturb(seed: int) -> None:
        chosen = random.Random(seed)  # noqa: S311  a test, not a secret
        for _ in range(6):
            verb = chosen.choice(["hold", "requeue", "release", "delete"])
            told = change(relay, verb, chosen.sample(ids, 12))
            if verb == "delete":
                # What has just been delivered, or requeued, is noted as deleted, too.
                deleted.extend(name for name, (_, said) in told.items() if said == "deleted")

    with ThreadPoolExecutor(3) as pool:
        list(pool.map(disturb, range(3)))
    change(relay, "release", [each.id for each in relay.queue() if each.queue == "hold"])

    def subjects() -> Counter[bytes]:
        return Counter(re.findall(rb"number \d+", b"".join(m.content for m in primary.messages)))

    def drained() -> bool:
        flush(relay)
        return len(subjects()) + len(deleted) >= number and not sum(queues(relay).values())

    wait_for("the rest to drain", drained, 60)
    assert set(subjects().values()) == {1}
    assert len(subjects()) + len(deleted) == number
    assert len(set(deleted)) == len(deleted)


def test_two_thousand_at_once(relay: Relay) -> None:
    """Each of 2,000 messages gets its answer, and is where it should be."""
    ids = fill(relay, 2000)
    wait_for("all to be deferred", lambda: queues(relay)["deferred"] == 2000, 60)
    for verb, where in (("hold", "hold"), ("release", "deferred"), ("delete", "")):
        told = change(relay, verb, ids)
        assert {done for done, _ in told.values()} == {True}
        assert set(queues(relay)) == ({where} - {""})


def submit(relay: Relay, recipients: list[bytes]) -> str:
    """Have a message for many accepted; return its ID."""
    with relay.client() as client:
        client.greeted().envelope(b"a@example.net")
        client.wire.sendall(b"".join(b"RCPT TO:<%b>\r\n" % each for each in recipients))
        assert {client.hear().code for _ in recipients} == {250}
        return client.content(b"Subject: to many\r\n\r\nkept\r\n").lines[-1].rpartition(" ")[2]


def test_a_message_for_a_thousand_is_one_like_any_other(relay: Relay, primary: Primary) -> None:
    """Half of them have it when it is held, released and requeued: each has it once in the end."""
    primary.refused = "later"
    people = [
        b"%b%d@example.org" % (b"later" if each % 2 else b"now", each) for each in range(1000)
    ]
    queue_id = submit(relay, people)

    def halved() -> bool:
        message = relay.queued()
        if message.queue == "deferred" and len(message.recipients) > 500:
            flush(relay)  # the primary was thought dead
        return message.queue == "deferred" and len(message.recipients) == 500

    wait_for("half of them to have it", halved, 60)
    for verb, said in (("hold", "put on hold"), ("release", "released"), ("requeue", "requeued")):
        assert change(relay, verb, [queue_id]) == {queue_id: (True, said)}
    wait_for("it to be back", lambda: requeued(relay, queue_id))
    primary.refused = "nobody"

    def had() -> list[bytes]:
        return [each.encode() for message in primary.messages for each in message.recipients]

    def drained() -> bool:
        flush(relay)
        return len(had()) >= len(people) and relay.queue() == []

    wait_for("the rest to have it", drained, 60)
    assert Counter(had()) == Counter(people)


@pytest.mark.long
def test_many_messages_for_a_thousand_take_no_memory(relay: Relay) -> None:
    """Strangers choose how many recipients there are, and how long; the helper has 128 MB."""
    people = [b"%0240d@example.org" % each for each in range(1000)]
    with relay.altered(defer_transports="relay, smtp"):
        ids = [submit(relay, people) for _ in range(20)]
        wait_for("all to be deferred", lambda: queues(relay)["deferred"] == len(ids), 120)
    relay.machine.run(["systemctl", "stop", HELPER], check=False)  # so that it begins anew
    for verb, said in (("hold", "put on hold"), ("requeue", "requeued")):
        assert set(change(relay, verb, ids).values()) == {(True, said)}
    helper = relay.shell("systemctl", "show", "-P", "MainPID", HELPER).strip()
    peak = re.search(r"VmHWM:\s+(\d+) kB", relay.shell("cat", f"/proc/{helper}/status"))
    assert peak
    assert int(peak[1]) < 50 * 1024


def test_a_helper_that_is_killed_loses_nothing(relay: Relay) -> None:
    """Killed at any moment of its work, every message is still there, and the next call works."""
    ids = fill(relay, 600)
    wait_for("all to be deferred", lambda: queues(relay)["deferred"] == 600, 60)
    for pause in (0.0, 0.1, 0.3, 0.6):
        change(relay, "release", ids[:1])  # so that it runs
        done = threading.Event()

        def ask(done: threading.Event = done) -> None:
            try:
                change(relay, "hold", ids)
            except LabError:
                pass  # it was cut off
            finally:
                done.set()

        thread = threading.Thread(target=ask)
        thread.start()
        time.sleep(pause)  # the moment itself is what varies
        relay.machine.run(["systemctl", "kill", "--signal=KILL", HELPER], check=False)
        assert done.wait(60)
        thread.join()
        assert sum(queues(relay).values()) == 600
        assert {each for each, _ in change(relay, "release", ids).values()} == {True}
    assert queues(relay) == {"deferred": 600}


@contextmanager
def acting(relay: Relay) -> Iterator[None]:
    """Have root's settings say for a while that the dashboard acts."""
    settings = relay.machine.path("/etc/backup-mx/agent.json")
    before = settings.read_text()
    settings.write_text(before.replace('"dashboard_actions": false', '"dashboard_actions": true'))
    assert settings.read_text() != before
    try:
        yield
    finally:
        settings.write_text(before)


def test_who_deleted_what_stands_in_the_log_first(relay: Relay) -> None:
    """Who and from where comes before Postfix's own line, in the same log."""
    (queue_id,) = fill(relay, 1)
    wait_for("it to be deferred", lambda: queues(relay)["deferred"] == 1)
    with acting(relay):
        assert change(relay, "delete", [queue_id], "backup-mx") == {queue_id: (True, "deleted")}
    wait_for("the last line", lambda: ": removed" in log_of(relay, queue_id)[-1])
    noted, removed = log_of(relay, queue_id)[-2:]
    assert re.search(
        rf" backup-mx/helper\[\d+\]: {queue_id}: delete by=agent:test from=198\.51\.100\.7$", noted
    )
    assert re.search(rf" postfix/postsuper\[\d+\]: {queue_id}: removed$", removed)


def test_the_agent_deletes_nothing_where_the_dashboard_only_looks(relay: Relay) -> None:
    """Whatever becomes of it: only what retention needs is done, under whatever name it asks."""
    (queue_id,) = fill(relay, 1)
    wait_for("it to be deferred", lambda: queues(relay)["deferred"] == 1)
    for verb, by in (("delete", "retention"), ("delete", "dashboard"), ("hold", "dashboard")):
        with pytest.raises(LabError, match=f"may not have the helper do this: {verb}"):
            change(relay, verb, [queue_id], "backup-mx", by)
    held = {queue_id: (True, "put on hold")}
    assert change(relay, "hold", [queue_id], "backup-mx", "retention") == held
    assert not [line for line in log_of(relay, queue_id) if ": delete " in line]
    with acting(relay), pytest.raises(LabError, match="may not have the helper do this: delete"):
        change(relay, "delete", [queue_id], "backup-mx", "retention")
    assert queues(relay) == {"hold": 1}


def test_only_root_and_the_agent_may_ask(relay: Relay) -> None:
    """Anybody else does not even get to the socket."""
    with pytest.raises(LabError, match="cannot be asked: Permission denied"):
        change(relay, "delete", fill(relay, 1), "nobody")


def test_a_requeue_begins_a_new_lifetime_and_a_release_does_not(relay: Relay) -> None:
    """The time in the ID is the one of the queue file by which qmgr judges its age."""
    (queue_id,) = fill(relay, 1)
    wait_for("it to be deferred", lambda: queues(relay)["deferred"] == 1)
    made = created(relay, queue_id)
    assert made == int(queueid.created(queue_id) or 0)
    change(relay, "hold", [queue_id])
    change(relay, "release", [queue_id])
    assert created(relay, queue_id) == made
    wait_for("the next second", lambda: time.time() > made + 1.5)
    change(relay, "requeue", [queue_id])
    wait_for("it to be back", lambda: relay.queued().id != queue_id)
    message = relay.queued()
    assert created(relay, message.id) == int(queueid.created(message.id) or 0) > made
    assert message.arrival == made


def created(relay: Relay, queue_id: str) -> int:
    """Return when the queue file was made, as it says itself."""
    envelope = relay.shell("env", "TZ=UTC", "postcat", "-eq", queue_id)
    found = re.search(r"^create_time: (.*)$", envelope, re.MULTILINE)
    assert found
    return int(time.mktime(time.strptime(found[1]))) - time.timezone


def test_a_damaged_message_is_not_requeued(relay: Relay) -> None:
    """Pickup would delete it: it stays, and the answer says so; a good one is requeued."""
    cut, spoilt, good = fill(relay, 3)
    wait_for("all to be deferred", lambda: queues(relay)["deferred"] == 3)
    (path,) = deferred(relay, cut)
    path.write_bytes(path.read_bytes()[:-200])
    (path,) = deferred(relay, spoilt)
    path.write_bytes(path.read_bytes().replace(b"N\x04kept", b"\xff\x04kept"))
    told = change(relay, "requeue", [cut, spoilt, good])
    wait_for("the good one to be back", lambda: requeued(relay, good))
    assert told.pop(good) == (True, "requeued")
    assert [len(deferred(relay, each)) for each in (cut, spoilt)] == [1, 1]
    assert {(done, "Postfix would delete it" in said) for done, said in told.values()} == {
        (False, True)
    }


def test_without_room_for_a_copy_nothing_is_requeued(relay: Relay) -> None:
    """Pickup would try it each minute, and nobody deliver it: it stays in delivery."""
    (queue_id,) = fill(relay, 1)
    wait_for("it to be deferred", lambda: queues(relay)["deferred"] == 1)
    with relay.altered(queue_minfree="1000000000000"):
        done, said = change(relay, "requeue", [queue_id])[queue_id]
    assert (done, said.partition(":")[0]) == (False, "no room for a copy")
    assert queues(relay) == {"deferred": 1}


def test_what_postfix_put_aside_can_be_deleted(relay: Relay) -> None:
    """postsuper does not reach it there; it is noted as any deletion."""
    (queue_id,) = fill(relay, 1)
    wait_for("it to be deferred", lambda: queues(relay)["deferred"] == 1)
    aside = relay.machine.path(SPOOL) / "corrupt" / queue_id
    deferred(relay, queue_id)[0].rename(aside)
    assert "kept" in relay.shell("postcat", f"{SPOOL}/corrupt/{queue_id}")  # as the runbook says
    assert change(relay, "delete", [queue_id]) == {queue_id: (True, "deleted")}
    assert not aside.exists()
    assert "delete by=test" in log_of(relay, queue_id)[-1]


@pytest.mark.parametrize("unit", [BOOT, GUARD])
def test_while_postfix_is_away_what_is_near_its_end_is_requeued(relay: Relay, unit: str) -> None:
    """Or put on hold; by short lifetimes, as all of a lab has one clock. It stands in the log."""
    plain, linked = fill(relay, 2)
    wait_for("both to be deferred", lambda: queues(relay)["deferred"] == 2)
    spool, settings = relay.machine.path(SPOOL), relay.machine.path("/etc/postfix/main.cf")
    (spool / "twin").hardlink_to(deferred(relay, linked)[0])
    kept = settings.read_text()
    relay.stop()
    try:
        limits = ("maximal_queue_lifetime", "bounce_queue_lifetime")
        relay.shell("postconf", "-e", *(f"{name}=1s" for name in limits))
        relay.shell("systemctl", "start", unit)
        said = relay.shell("journalctl", "--no-pager", "-o", "cat", "-u", unit)
        assert (spool / "maildrop" / plain).exists(), said
        assert (spool / "hold" / linked).exists()
    finally:
        settings.write_text(kept)
        (spool / "twin").unlink()
        relay.start()
    wait_for("it to be back", lambda: requeued(relay, plain))
    assert "hold by=guard" in log_of(relay, linked)[-2]


def test_postfix_starts_after_the_guard_and_whatever_becomes_of_it(relay: Relay) -> None:
    """At each start, a restart's too, the guard runs while Postfix is away; its failure is seen."""

    def moment(unit: str, what: str) -> int:
        (value,) = shown(relay, f"{what}TimestampMonotonic", unit)
        return int(value)

    def starts() -> None:
        before = moment(BOOT, "ExecMainStart")
        relay.shell("systemctl", "restart", "postfix")
        relay.machine.listening(25)
        ran = moment(BOOT, "ExecMainStart"), moment(BOOT, "ExecMainExit")
        assert before < ran[0] < ran[1] < moment("postfix.service", "ActiveEnter")

    assert {"postfix.service", "postfix@-.service"} <= shown(relay, "Before", BOOT)
    assert shown(relay, "Result", BOOT) == {"success"}, "nothing was to be guarded at the first"
    starts()
    assert BOOT not in relay.shell("systemctl", "--failed", "--no-legend")
    code = relay.machine.path("/usr/local/lib/backup-mx/backup_mx/relay/root/guard.py")
    kept = code.read_text()
    code.write_text("raise SystemExit(1)")
    try:
        starts()
        assert BOOT in relay.shell("systemctl", "--failed", "--no-legend")
    finally:
        code.write_text(kept)
    starts()
    assert shown(relay, "Result", BOOT) == {"success"}


def shown(relay: Relay, what: str, unit: str) -> set[str]:
    """Return the words of a property of a unit."""
    return set(relay.shell("systemctl", "show", "-P", what, unit).split())


def test_no_requeue_of_an_odd_message_is_refused(relay: Relay) -> None:
    """Whatever was taken, Postfix's own file of it is found whole."""
    odd = [each for each in CLIENTS if (each.hears[-2:]) == (354, 250)]
    for each in odd:
        with relay.client() as client:
            client.hear()
            for words in each.says:
                client.say(words)
    wait_for("all to be deferred", lambda: queues(relay)["deferred"] >= len(odd) > 0, 60)
    told = change(relay, "requeue", [each.id for each in relay.queue()])
    assert set(told.values()) == {(True, "requeued")}


def deferred(relay: Relay, queue_id: str) -> list[Path]:
    """Return where a message lies if it is deferred: the folder is hashed."""
    return list((relay.machine.path(SPOOL) / "deferred").rglob(queue_id))


def requeued(relay: Relay, queue_id: str) -> bool:
    """Tell whether Postfix has taken a requeued message, under a new ID."""
    return any(f"orig_id={queue_id}" in line for line in relay.log().splitlines())


def test_without_the_agent_nothing_expires(relay: Relay) -> None:
    """With a lifetime of 60 s the guard keeps a message for longer; it never expires."""
    limits = {"maximal_queue_lifetime": "60s", "bounce_queue_lifetime": "60s"}
    with relay.altered(**limits):
        (queue_id,) = fill(relay, 1)
        until = time.time() + 75

        def guarded() -> bool:
            relay.shell("backup-mx", "guard")
            flush(relay)
            return time.time() > until

        wait_for("its lifetime to pass", guarded, 120)
    message = relay.queued()
    assert message.id != queue_id
    assert message.queue != "hold"
    assert not [line for line in relay.log().splitlines() if "expired" in line and queue_id in line]


def test_a_release_at_the_end_of_a_lifetime_is_a_requeue(relay: Relay) -> None:
    """What was on hold for longer than it may live is tried, and stays."""
    with relay.altered(maximal_queue_lifetime="10s", bounce_queue_lifetime="10s"):
        (queue_id,) = fill(relay, 1)
        # While it is being delivered nobody may hold it, and a dead primary takes a while to fail.
        held = {queue_id: (True, "put on hold")}
        wait_for("it to be held", lambda: change(relay, "hold", [queue_id]) == held)
        end = (queueid.created(queue_id) or 0) + 11
        wait_for("its lifetime to end", lambda: time.time() > end)
        told = change(relay, "release", [queue_id])
        assert told == {queue_id: (True, "requeued: its lifetime was nearly over")}
        wait_for("it to be tried", lambda: queues(relay) == {"deferred": 1})
    assert "expired" not in "".join(log_of(relay, queue_id))


def test_the_listing_is_the_spool(relay: Relay) -> None:
    """What the helper lists is what lies there, whole and half-written told apart."""
    ids = fill(relay, 3)
    wait_for("all to be deferred", lambda: queues(relay)["deferred"] == 3)
    with relay.client() as client:
        client.greeted().envelope(b"a@example.net", ALICE)
        client.say(b"DATA")
        client.wire.sendall(b"Subject: not yet\r\n")
        listed = json.loads(relay.shell("python3", "-c", LISTING))
    assert {(queue, each) for queue, each, *_ in listed} == {("deferred", each) for each in ids}


LISTING = ASK.partition("ids =")[0] + "print(json.dumps(list(client.listing())))\n"


def test_show_gives_envelope_header_and_body(relay: Relay) -> None:
    """On demand the body; of a large one only the beginning."""
    queue_id = relay.submit(ALICE, b"Subject: \xfc\r\n\r\n" + b"0123456789abcdef\r\n" * 30_000)
    asked = ASK.partition("ids =")[0] + "print(json.dumps(client.show(sys.argv[1], body=True)))\n"
    said: dict[str, Any] = json.loads(relay.shell("python3", "-c", asked, queue_id))
    assert said["sender"] == "a@example.net"
    assert [each["address"] for each in said["recipients"]] == ["alice@example.org"]
    assert "Subject: \N{REPLACEMENT CHARACTER}" in said["headers"]
    assert said["cut"]
    assert len(said["body"]) == 256 * 1024


def drift(relay: Relay) -> str:
    """Let the guard look anew, as its timer has it run; return what it saw."""
    relay.shell("rm", "-f", "/run/backup-mx/drift")
    relay.shell("systemctl", "start", "backup-mx-guard.service")
    return relay.shell("cat", "/run/backup-mx/drift")


def test_what_was_changed_by_hand_is_seen(relay: Relay) -> None:
    """A relay as it was deployed has not drifted; one whose main.cf somebody edits has."""
    assert drift(relay) == ""
    with relay.altered(smtpd_banner="somebody's own"):
        assert drift(relay).startswith("--- /etc/postfix/main.cf")
    assert drift(relay) == ""


def test_a_log_that_has_grown_large_is_rotated_within_the_hour(relay: Relay) -> None:
    """By Debian's own unit, more than once a day, each under a name of its own."""
    hours = relay.shell("systemctl", "show", "-P", "TimersCalendar", "logrotate.timer")
    assert re.findall(r"OnCalendar=(.*?) ;", hours) == ["*-*-* *:00:00"]
    log = relay.machine.path(MAILLOG)

    def rotated() -> list[Path]:
        return sorted(log.parent.glob("maillog-*"))

    def passed(second: int) -> bool:
        return int(time.time()) > second

    before = rotated()
    for made in (1, 2):
        os.truncate(log, log.stat().st_size + 101 * 2**20)
        began = int(time.time())
        relay.shell("systemctl", "start", "logrotate.service")
        assert log.stat().st_size < 2**20
        assert len(rotated()) == len(before) + made
        wait_for("another second", partial(passed, began + 1))
    assert [path.suffix for path in rotated()[-2:]] == [".gz", ""]
    relay.submit(ALICE, b"Subject: x\r\n\r\nkept\r\n")
    wait_for("Postfix to write into the new one", lambda: "postfix/" in relay.log())
