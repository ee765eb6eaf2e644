"""The root helper: what it is asked, by whom, and what it never does."""

from __future__ import annotations

import contextlib
import json
import os
import socket
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from relay_settings import SETTINGS

from backup_mx.errors import MachineError
from backup_mx.relay.queue import commands, queueid
from backup_mx.relay.queue.commands import Postfix
from backup_mx.relay.root import changes, client, helper, protocol, pulls
from backup_mx.relay.root.helper import Helper

LONG, SHORT = "4jXLkx0p7MzJ0mR", "1A2B3C4D5E"
CREATED = 1795333641.113951
NOW = 1_795_333_700.0


class Recorder(Postfix):
    """A Postfix that only remembers what it was asked to do."""

    def __init__(self, spool: Path) -> None:
        super().__init__(spool)
        object.__setattr__(self, "asked", [])
        self.asked: list[tuple[str, ...]]

    def change(self, option: str, ids: Iterable[str]) -> None:
        self.asked.append((option, *ids))

    def note(self, lines: Sequence[str]) -> None:
        self.asked.append(("note", *lines))

    def delivered(self, ids: Iterable[str]) -> frozenset[str]:  # noqa: ARG002
        return frozenset()

    def pick_up(self) -> None:
        pass

    def flush(self) -> None:
        self.asked.append(("flush",))

    def reload(self) -> None:
        self.asked.append(("reload",))

    def domains(self) -> list[str]:
        raise MachineError("no postconf here")

    def minfree(self) -> int:
        return 0

    def lifetime(self) -> int:
        return 8_640_000


@pytest.fixture
def spool(tmp_path: Path) -> Path:
    """An empty queue, hashed as Debian's is."""
    for queue in ("maildrop", "incoming", "active", "deferred/A", "hold", "corrupt"):
        (tmp_path / "spool" / queue).mkdir(parents=True)
    return tmp_path / "spool"


@pytest.fixture(autouse=True)
def flushed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where the helper leaves its mark that root had the mail tried."""
    monkeypatch.setattr(pulls, "FOLDER", tmp_path / "pulled")
    monkeypatch.setattr(protocol, "FLUSHED", tmp_path / "flushed")
    return tmp_path / "flushed"


def answered(server: Helper, said: bytes) -> list[dict[str, Any]]:
    """Say something to the helper and hang up; return all its answers."""
    ours, theirs = socket.socketpair()
    with ours, theirs:
        ours.settimeout(5.0)
        thread = threading.Thread(target=_converse, args=(server, theirs))
        thread.start()
        with contextlib.suppress(OSError):
            ours.sendall(said)
            ours.shutdown(socket.SHUT_WR)
        with ours.makefile("rb") as stream:
            lines = stream.read().splitlines()
        thread.join(5.0)
        assert not thread.is_alive()
    return [json.loads(line) for line in lines]


def _converse(server: Helper, wire: socket.socket) -> None:
    places = threading.BoundedSemaphore()
    places.acquire()
    server._hear_out(wire, places)


def root(postfix: Postfix) -> Helper:
    """A helper that answers whoever runs the tests."""
    table = postfix.spool / "maintenance"
    return Helper(postfix, users=frozenset({os.getuid()}), table=table, patience=5.0)


def request(**fields: object) -> bytes:
    return json.dumps(fields).encode() + b"\n"


def put(spool: Path, queue: str, queue_id: str = LONG, mode: int = 0o700) -> Path:
    path = spool / queue / queue_id
    path.write_bytes(b"a queue file")
    path.chmod(mode)
    return path


@pytest.mark.parametrize("good", [LONG, SHORT, "4dDqXk0YqYz5N", "zzzzzzzzzzz0"])
def test_queue_ids(good: str) -> None:
    """Both kinds of queue IDs are known as such."""
    assert queueid.valid(good)


@pytest.mark.parametrize(
    "bad",
    ["", "ALL", "-", "-h", "4jXLkx0p7MzJ0mR\n", "4jXLkx0p7MzJ0m/R", "../../etc", "1A2B ALL",
     "é" * 8, None, 5, ["x"], LONG * 9, "ALL" * 3, "4jXLkx0p7MzJ0mA", "*"],
)  # fmt: skip
def test_what_is_no_queue_id(bad: object) -> None:
    """Nothing that postsuper could take for something else is a queue ID."""
    assert not queueid.valid(bad)


def test_a_long_id_tells_when_it_was_made() -> None:
    """The time in a long ID is the one that Postfix logged; a short one has none."""
    assert queueid.created(LONG) == pytest.approx(CREATED)
    assert queueid.created(SHORT) is None


@settings(max_examples=400)
@given(st.binary())
@example(b'{"verb": "hold", "ids": ["ALL"], "by": "x"}')
@example(b"[" * 100_000)
@example(b'{"verb": "delete", "ids": ["' + LONG.encode() + b'\\n"], "by": "x"}')
@example(b'{"verb": "maintenance", "until": 1e999, "by": "x"}')
def test_any_bytes_are_a_request_or_an_error(line: bytes) -> None:
    """Whatever a line holds, it is read or refused in words."""
    with contextlib.suppress(protocol.RequestError):
        protocol.parse(line, NOW)


JUNK = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3)
    ),
    max_leaves=5,
)
VERBS = st.sampled_from([*protocol.CHANGES, "show", "list", "flush", "maintenance"])
REQUESTS = st.fixed_dictionaries(
    {"verb": VERBS},
    optional={
        "ids": JUNK | st.lists(st.text(max_size=20) | st.sampled_from([LONG, SHORT]), max_size=5),
        "id": JUNK | st.just(LONG),
        "by": JUNK | st.just("root"),
        "from": JUNK | st.just("198.51.100.7"),
        "until": JUNK | st.integers(int(NOW) - 100, int(NOW) + 10**7),
        "body": JUNK,
    },
)


@settings(max_examples=400)
@given(REQUESTS)
def test_a_request_that_is_read_is_harmless(found: dict[str, Any]) -> None:
    """Who asks cannot forge a line of the log, and times are within bounds."""
    try:
        read = protocol.parse(json.dumps(found).encode(), NOW)
    except protocol.RequestError:
        return
    assert read.who.name.isprintable()
    assert " " not in str(read.who).replace(" from=", "", 1)
    assert "\n" not in str(read.who)
    assert read.until == 0 or NOW < read.until <= NOW + protocol.LONGEST_MAINTENANCE
    assert len(read.ids) <= protocol.MOST_IDS


@settings(max_examples=150, deadline=None)
@given(said=st.binary(max_size=300) | st.lists(REQUESTS, max_size=3).map(
    lambda some: b"".join(json.dumps(each).encode() + b"\n" for each in some)))  # fmt: skip
def test_whatever_is_said_no_foreign_id_reaches_a_program(
    said: bytes, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """Any bytes get answers and at most one error, the last one; programs see queue IDs only."""
    spool = tmp_path_factory.mktemp("spool")
    (spool / "hold").mkdir()
    put(spool, "hold")
    postfix = Recorder(spool)
    answers = answered(root(postfix), said)
    assert len(answers) <= max(2 * said.count(b"\n"), 1)
    assert not any("error" in each and "verb" in str(each) for each in answers[:-1])
    for option, *ids in postfix.asked:
        if option == "note":
            lines = [line for line in ids if not line.startswith("maintenance until=")]
            assert all(queueid.valid(line.partition(":")[0]) for line in lines)
        else:
            assert all(map(queueid.valid, ids))


def test_one_mistake_ends_the_conversation(spool: Path) -> None:
    """After an error nothing more is read."""
    postfix = Recorder(spool)
    answers = answered(root(postfix), b"what?\n" + request(verb="flush"))
    assert [set(each) for each in answers] == [{"error"}]
    assert postfix.asked == []


def test_several_requests_on_one_connection(spool: Path, flushed: Path) -> None:
    """Each is answered in its turn; who is root leaves a mark for the agent."""
    postfix = Recorder(spool)
    answers = answered(root(postfix), request(verb="flush") + request(verb="list"))
    assert answers == [{"done": True}, {"end": True, "listed": 0}]
    assert postfix.asked == [("flush",)]
    assert flushed.exists() == (os.getuid() == 0)


def test_strangers_are_not_answered(spool: Path) -> None:
    """Who is neither root nor the agent gets an error, whatever he says."""
    postfix = Recorder(spool)
    stranger = Helper(postfix, users=frozenset({os.getuid() + 1}))
    assert "error" in answered(stranger, request(verb="flush"))[0]
    assert postfix.asked == []


AGENT = 4711


def asked_as(
    user: int, postfix: Recorder, monkeypatch: pytest.MonkeyPatch, **fields: object
) -> list[dict[str, Any]]:
    """Ask the helper of a relay as one of its users."""
    monkeypatch.setattr(helper, "_user", lambda _: user)
    monkeypatch.setattr(Recorder, "domains", lambda _: ["example.org"])
    root, told = postfix.spool.parent, postfix.spool.parent / "agent.json"
    server = Helper(postfix, frozenset({0, AGENT}), root / "maintenance", told, patience=5.0)
    return answered(server, request(**{"from": "198.51.100.7"}, **fields))


def told(spool: Path, *, actions: bool) -> None:
    """Have the config say whether the dashboard acts."""
    text = replace(SETTINGS, dashboard_actions=actions).text
    (spool.parent / "agent.json").write_text(text)


@pytest.mark.parametrize(
    ("user", "verb", "said", "recorded"),
    [
        (0, "delete", "martin", "martin"),
        (0, "delete", "retention", "retention"),
        (0, "maintenance", "martin", "martin"),
        (AGENT, "delete", "dashboard", "agent:dashboard"),
        (AGENT, "delete", "root", "agent:root"),
        (AGENT, "delete", "x" * 64, "agent:" + "x" * 58),
        (AGENT, "requeue", "retention", "retention"),
    ],
)
def test_only_root_is_whom_it_says_it_is(
    spool: Path, monkeypatch: pytest.MonkeyPatch, verb: str, user: int, said: str, recorded: str
) -> None:
    """Who asks by way of the agent is recorded as such, whoever the agent says it is."""
    told(spool, actions=True)
    put(spool, "hold")
    postfix = Recorder(spool)
    wanted = {"until": int(time.time()) + 60} if verb == "maintenance" else {"ids": [LONG]}
    asked_as(user, postfix, monkeypatch, verb=verb, by=said, **wanted)
    (line,) = (each[1] for each in postfix.asked if each[0] == "note")
    assert line.endswith(f" by={recorded} from=198.51.100.7")


@pytest.mark.parametrize("actions", [True, False, None])
@pytest.mark.parametrize("by", ["retention", "dashboard", "root"])
@pytest.mark.parametrize("verb", [*protocol.CHANGES, "maintenance", "list", "flush"])
def test_the_agent_does_what_retention_needs_and_no_more(
    spool: Path, monkeypatch: pytest.MonkeyPatch, verb: str, by: str, actions: bool | None
) -> None:
    """Nothing is deleted in retention's name; the dashboard acts only if the config lets it."""
    if actions is not None:
        told(spool, actions=actions)
    postfix = Recorder(spool)
    wanted = {"until": int(time.time()) + 60} if verb == "maintenance" else {"ids": [LONG]}
    (answer,) = asked_as(AGENT, postfix, monkeypatch, verb=verb, by=by, **wanted)
    if verb in protocol.CHANGES:
        may = verb != "delete" if by == "retention" else actions is True
    else:
        may = verb != "maintenance"
    assert ("error" not in answer) == may
    if not may:
        assert answer == {"error": f"the agent may not have the helper do this: {verb}"}
        assert postfix.asked == []


def test_a_line_without_end(spool: Path) -> None:
    """A request that is too long is refused before it is read to its end."""
    answers = answered(root(Recorder(spool)), b"x" * (protocol.LINE + 70_000))
    assert answers == [{"error": f"a request has {protocol.LINE} bytes at most"}]


def test_who_is_slow_is_hung_up_on(spool: Path) -> None:
    """A client that drips its request holds no place for long."""
    server = Helper(Recorder(spool), users=frozenset({os.getuid()}), patience=0.4)
    ours, theirs = socket.socketpair()
    with ours, theirs:
        thread = threading.Thread(target=_converse, args=(server, theirs))
        started = time.monotonic()
        thread.start()
        while thread.is_alive() and time.monotonic() - started < 5.0:
            with contextlib.suppress(OSError):
                ours.send(b" ")
            thread.join(0.05)
        assert not thread.is_alive()


def test_a_failure_is_an_answer(spool: Path) -> None:
    """What Postfix's programs cannot do is told, and the next request is heard."""
    until = int(time.time()) + 60
    said = request(verb="maintenance", until=until, by="root") + request(verb="flush")
    answers = answered(root(Recorder(spool)), said)
    assert answers == [{"error": "no postconf here"}, {"done": True}]


Serving = Callable[[Helper], Path]


@pytest.fixture
def serving(tmp_path: Path) -> Iterator[Serving]:
    """A maker of helpers that listen; each has ended by itself when the test is over."""
    threads: list[threading.Thread] = []
    sockets: list[socket.socket] = []

    def serve(server: Helper) -> Path:
        path = tmp_path / "helper.sock"
        sockets.append(socket.socket(socket.AF_UNIX))
        sockets[-1].bind(str(path))
        sockets[-1].listen()
        threads.append(threading.Thread(target=server.serve, args=(sockets[-1],)))
        threads[-1].start()
        return path

    yield serve
    for thread in threads:
        thread.join(10.0)
        assert not thread.is_alive(), "the helper did not end when nobody asked any more"
    for each in sockets:
        each.close()


def idle(postfix: Postfix) -> Helper:
    return Helper(postfix, users=frozenset({os.getuid()}), idle=0.3, patience=2.0)


def test_the_spool_is_listed_in_parts(spool: Path, serving: Serving) -> None:
    """Every whole file is listed once, however many there are; nothing else that lies there is."""
    names = [f"4jXLkx0p7Mz{number:04d}".replace("1", "B") for number in range(2500)]
    ids = sorted({*names})
    for each in ids:
        put(spool, "deferred/A", each)
    put(spool, "incoming", LONG, mode=0o600)
    os.mkfifo(spool / "deferred" / "4jXLkx0p7MzFFFF", 0o700)
    (spool / "deferred" / "4jXLkx0p7MzGGGG").symlink_to(spool / "deferred/A" / ids[0])
    path = serving(idle(Recorder(spool)))
    listed = list(client.listing(path=path))
    assert sorted(each.id for each in listed) == ids
    assert {(each.queue, each.size) for each in listed} == {("deferred", 12)}


def test_changes_are_split_into_batches(spool: Path, serving: Serving) -> None:
    """Thousands of messages are changed in one call, each answered for, in order."""
    ids = sorted(f"{number:010X}" for number in range(1200))
    for each in ids:
        put(spool, "hold", each)
    path = serving(idle(Recorder(spool)))
    results = client.change("hold", [*ids, "ALL"], by="root", path=path)
    assert [each.id for each in results] == [*ids, "ALL"]
    assert {each.said for each in results[:-1]} == {"was on hold already"}
    assert results[-1] == protocol.Result("ALL", False, protocol.NO_ID)


def test_a_batch_that_fails_keeps_no_other_from_being_changed(
    spool: Path, serving: Serving, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is behind it is tried as well, by another helper if need be, and the trouble is told."""
    ids, tried = sorted(f"{number:010X}" for number in range(1700)), list[str]()

    def change(_p: Postfix, _v: str, some: Sequence[str], _w: protocol.Who) -> list[object]:
        tried.append(some[0])
        if some[0] == ids[0]:
            raise MachineError("postsuper says no")
        if some[0] == ids[500]:
            raise ConnectionError  # as one that is killed: it hangs up
        return []

    monkeypatch.setattr(changes, "change", change)
    path = serving(idle(Recorder(spool)))
    with pytest.raises(MachineError, match="postsuper says no"):
        client.change("hold", ids, by="root", path=path)
    assert tried == [ids[0], ids[500], ids[1000], ids[1500]]


def test_nobody_else_is_sent_to_a_helper_that_is_still_at_it(
    spool: Path, serving: Serving, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One that does not answer in time is not asked again, and again waited for."""
    ids, asked, let_go = sorted(f"{n:010X}" for n in range(1200)), list[str](), threading.Event()

    def change(*_: object) -> list[object]:
        let_go.wait(5.0)
        return []

    def say(stream: client.Wire, verb: str, fields: dict[str, object]) -> None:
        asked.append(verb)
        said(stream, verb, fields)

    said = client._say
    monkeypatch.setattr(client, "_say", say)
    monkeypatch.setattr(changes, "change", change)
    monkeypatch.setattr(client, "_SECONDS", 0.2)
    path = serving(idle(Recorder(spool)))
    try:
        with pytest.raises(MachineError, match="does not answer"):
            client.change("hold", ids, by="root", path=path)
    finally:
        let_go.set()
    assert asked == ["hold"]


def test_a_helper_releases_first_what_was_pulled(spool: Path, serving: Serving) -> None:
    """One that was killed left it on hold, and its name in a file."""
    put(spool, "hold", LONG)
    put(spool, "hold", SHORT)
    pulls.FOLDER.mkdir()
    (pulls.FOLDER / "ids").write_text(f"{LONG}\nno ID\n")
    postfix = Recorder(spool)
    client.ask("flush", path=serving(idle(postfix)))
    assert postfix.asked == [
        ("note", f"{LONG}: release by=helper"),
        (commands.RELEASE, LONG),
        ("flush",),
    ]


def test_several_may_ask_at_once(spool: Path, serving: Serving) -> None:
    """A client that says nothing keeps nobody waiting."""
    path = serving(idle(Recorder(spool)))
    with socket.socket(socket.AF_UNIX) as silent:
        silent.connect(str(path))
        assert client.ask("flush", path=path) == {"done": True}


def test_no_helper_is_one_message(tmp_path: Path) -> None:
    """Where nobody listens, and where nonsense is answered, a MachineError says so."""
    with pytest.raises(MachineError, match="cannot be asked"):
        client.ask("flush", path=tmp_path / "none")


def test_an_error_of_the_helper_is_raised(spool: Path, serving: Serving) -> None:
    """What the helper refuses is a MachineError with its words."""
    path = serving(idle(Recorder(spool)))
    with pytest.raises(MachineError, match="no such verb"):
        client.ask("rm -rf", path=path)


def test_the_helper_needs_systemd(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without a socket that was passed to this very process it does not start."""
    monkeypatch.setenv("LISTEN_PID", str(os.getpid() + 1))
    monkeypatch.setenv("LISTEN_FDS", "1")
    with pytest.raises(MachineError, match="started by systemd"):
        helper.passed()


def test_a_program_that_is_missing_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    """A relay without Postfix's programs is one clear message."""
    monkeypatch.setenv("PATH", "/nonexistent")
    with pytest.raises(MachineError, match="postqueue is not installed"):
        Postfix().flush()
    assert commands.TAG == "backup-mx/helper"
