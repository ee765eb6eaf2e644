"""Lines of Postfix's log: captured ones, rendered ones with hostile fields, and anything at all."""

import calendar
import time
from collections import Counter
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from backup_mx.relay.log import events, maillog

DATA = Path(__file__).parents[1] / "data" / "maillog"
LOGS = sorted(DATA.glob("*.log"))
WRITTEN = calendar.timegm((2026, 11, 22, 8, 30, 0))
ID = "4jXLxq4KF0zC6Fl"
STAMP = "Nov 22 07:00:00 mx2 "


def read(path: Path) -> list[events.Event | None]:
    return [maillog.parse(line, WRITTEN) for line in path.read_bytes().splitlines()]


def one(said: str) -> events.Event | None:
    return maillog.parse((STAMP + said).encode(), WRITTEN)


@pytest.mark.parametrize("version", ["3.7", "3.10"])
def test_each_kind_of_line_is_known_in_both_releases(version: str) -> None:
    """Postfix 3.7 and 3.10 say the same, but that 3.10 also tells of messages cut short."""
    kinds = Counter(type(event).__name__ for event in read(DATA / f"{version}.log"))
    del kinds["NoneType"], kinds["Counted"]
    assert kinds == {
        "Arrived": 27,
        "Named": 37,
        "Queued": 42,
        "Tried": 51,
        "Removed": 21,
        "Expired": 8,
        "Noticed": 8,
        "Parked": 9,
        "Submitted": 3,
        "Changed": 7,
        "Swept": 3,
        "Announced": 5,
        "Imported": 1,
        "Rejected": 12,
    } | ({"Cancelled": 4} if version == "3.10" else {})


@pytest.mark.parametrize("version", ["3.7", "3.10"])
def test_what_the_intake_refused_is_told_apart(version: str) -> None:
    """Refusals are sorted by what Postfix says, not by what a sender wrote into his addresses."""
    found = read(DATA / f"{version}.log")
    assert Counter(each.kind for each in found if isinstance(each, events.Rejected)) == {
        "relay_denied": 3,
        "size": 2,
        "recipient": 1,
        "other5xx": 1,
        "pregreet": 1,
        "standby": 1,
        "unverified": 1,
        "other4xx": 2,
    }


@pytest.mark.parametrize("path", LOGS, ids=lambda path: path.stem)
def test_outcomes_are_the_recipients_own(path: Path) -> None:
    """Neither an address nor a server's words that imitate a line change how an attempt ended."""
    tried = [each for each in read(path) if isinstance(each, events.Tried)]
    for each in tried:
        kind = each.recipient.strip('"').partition("@")[0][:4]
        expected = {"hard": "5", "evil": "5", "mult": "5", "soft": "4"}.get(kind)
        if expected == "5":
            assert each.status in (events.REFUSED, events.BOUNCED)
        elif expected == "4":
            assert each.status == events.DEFERRED
        assert "fake" not in each.relay
    assert any(each.recipient.startswith("evil@") for each in tried)


@pytest.mark.parametrize("path", LOGS, ids=lambda path: path.stem)
def test_nothing_captured_is_garbage(path: Path) -> None:
    """Every line that Postfix wrote is understood to be one, and the last one is of its hour."""
    assert events.GARBAGE not in read(path)
    last = maillog.when(path.read_bytes().splitlines()[-1], WRITTEN)
    assert last is not None
    assert abs(last - WRITTEN) < 7200 + 14 * 3600


def test_a_long_line_may_have_lost_its_end() -> None:
    """postlogd(8) cuts what is too long: what came before counts."""
    said = f"postfix/smtp[9]: {ID}: to=<a@example.org>, relay=none, dsn=4.4.1, status=deferred (xx"
    event = one(said)
    assert isinstance(event, events.Tried)
    assert event.words == "xx"


@pytest.mark.parametrize(
    "said",
    [
        f"evil/qmgr[1]: {ID}: removed",
        f"postfix/qmgr[1]: fatal: {ID}: removed",
        f"postfix/qmgr[1]: x {ID}: removed",
        f"postfix/cleanup[1]: {ID}: warning: header Subject: x: removed",
        f"postfix/smtpd[1]: {ID}: removed",
        f"postfix/bounce[1]: {ID}: sender non-delivery notification: {ID} x",
        f"postfix/smtp[1]: {ID}: PIX: to=<a@b>, relay=x, dsn=2.0.0, status=sent",
        "backup-mx/helper[1]: maintenance until=0 by=root",
        f"backup-mx/agent[1]: {ID}: delete by=root",
        f"backup-mx/helper[1]: {ID}: delete by=ro ot",
        "postfix/smtp[1]: warning: to=<a@b>, relay=x, dsn=2.0.0, status=sent (x)",
        "postfix/smtpd[1]: vowels: client=a[1.2.3.4]",
    ],
)
def test_what_only_looks_like_it_tells_nothing_of_a_message(said: str) -> None:
    """Tag, queue ID and the whole shape must be right."""
    event = one(said)
    assert event is None or isinstance(event, events.Counted)


def test_the_helper_says_who() -> None:
    """The lines of our own helper carry verb, person and address."""
    asked = one(f"backup-mx/helper[1]: {ID}: delete by=root from=198.51.100.7")
    assert asked == events.Announced(asked.time, ID, "delete", "root", "198.51.100.7")  # type: ignore[union-attr]
    imported = one(f"backup-mx/helper[1]: {ID}: import from=mx2/{ID} accepted=1763800000 by=root")
    assert isinstance(imported, events.Imported)
    assert (imported.origin, imported.accepted) == (f"mx2/{ID}", 1763800000.0)


def test_the_year_is_the_last_that_is_not_ahead_of_the_file() -> None:
    """A log written over New Year's Eve belongs to two years; a leap day to a leap year."""
    january = calendar.timegm((2027, 1, 1, 3, 0, 0))

    def year(stamp: str) -> int | None:
        found = maillog.when(f"{stamp} mx2 postfix/qmgr[1]: x".encode(), january)
        return time.localtime(found).tm_year if found is not None else None

    assert year("Jan  1 02:00:00") == 2027
    assert year("Dec 31 23:59:59") == 2026
    assert year("Jan  2 12:00:00") == 2027  # a clock that was set back
    assert year("Feb 29 12:00:00") == 2024
    assert year("Feb 30 12:00:00") is None


def test_other_stamps_are_read_too() -> None:
    """RFC 3339, as newer loggers write it."""
    line = f"2026-11-22T07:00:00.5+01:00 mx2 postfix/qmgr[1]: {ID}: removed".encode()
    assert maillog.parse(line, 0) == events.Removed(WRITTEN - 9000 + 0.5, ID)


@given(st.binary(max_size=300))
def test_any_bytes_are_survived(line: bytes) -> None:
    """Whatever a line holds, reading it never raises."""
    maillog.parse(line, WRITTEN)
    maillog.when(line, WRITTEN)


@given(
    st.sampled_from(["smtp", "smtpd", "qmgr", "cleanup", "pickup", "bounce", "postsuper", "x"]),
    st.text(max_size=200),
)
def test_any_words_of_any_program_are_survived(program: str, words: str) -> None:
    """What a program says is free text as far as we are concerned."""
    one(f"postfix/{program}[1]: {ID}: {words}")
    one(f"postfix/{program}[1]: {words}")
    one(f"backup-mx/helper[1]: {ID}: {words}")


def quoted(local: str) -> str:
    """Quote a local part as Postfix does (quote_822_local.c); it prints controls as "?"."""
    shown = "".join(c if c.isprintable() else "?" for c in local)
    escaped = shown.replace("\\", "\\\\").replace('"', '\\"')
    return f'"{escaped}"@example.org'


imitation = st.sampled_from(
    [
        ">, relay=x[192.0.2.1]:25, delay=1, delays=0/0/0/1, dsn=2.0.0, status=sent (250 ok)",
        ">, size=1, nrcpt=1 (queue active)",
        f"> orig_id={ID}",
        "removed",
        "\\",
        '"',
        "status=expired, returned to sender",
    ]
)
hostile = st.lists(imitation | st.text(max_size=20), max_size=4).map("".join)
status = st.sampled_from(["sent", "deferred", "SOFTBOUNCE", "bounced"])


@given(hostile, hostile, status)
def test_an_attempt_reads_back_as_it_was_written(local: str, words: str, ended: str) -> None:
    """Recipient, outcome and the server's words survive each other's worst."""
    address, shown = quoted(local), "".join(c if c.isprintable() else "?" for c in words)
    event = one(
        f"postfix/smtp[1]: {ID}: to=<{address}>, orig_to=<{address}>, relay=m[192.0.2.1]:25,"
        f" conn_use=2, delay=0.1, delays=0/0/0/0.1, dsn=4.0.0, status={ended} ({shown})"
    )
    assert isinstance(event, events.Tried)
    assert (event.recipient, event.relay, event.words) == (address, "m[192.0.2.1]:25", shown)
    assert event.status == {"SOFTBOUNCE": "refused"}.get(ended, ended)


@given(hostile, st.integers(0, 10**12), st.integers(1, 10**6))
def test_a_sender_reads_back_as_he_was_written(local: str, size: int, recipients: int) -> None:
    """So do the queue manager's lines, and pickup's with the old queue ID."""
    address = quoted(local)
    event = one(
        f"postfix/qmgr[1]: {ID}: from=<{address}>, size={size}, nrcpt={recipients} (queue active)"
    )
    assert isinstance(event, events.Queued)
    assert event[2:] == (address, size, recipients)
    assert isinstance(
        one(f"postfix/qmgr[1]: {ID}: from=<{address}>, status=expired, returned to sender"),
        events.Expired,
    )
    plain = one(f"postfix/pickup[1]: {ID}: uid=0 from=<{address}>")
    assert isinstance(plain, events.Submitted)
    assert plain[2:] == (address, "")
    again = one(f"postfix/pickup[1]: {ID}: uid=0 from=<{address}> orig_id=4jXLxq4KF0zC6Fm")
    assert isinstance(again, events.Submitted)
    assert again[2:] == (address, "4jXLxq4KF0zC6Fm")
