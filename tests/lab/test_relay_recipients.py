"""Who is taken, put off and refused for being unknown, with each Postfix, on the wire."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from primaries import Primary
from relays import RELEASES, Relay, booted, wait_for

pytestmark = pytest.mark.lab

TABLE = Path(__file__).parents[1] / "data" / "lab" / "recipients.txt"
OPTIONS = f"""
[domain."table.example"]
recipients = {{ table = "{TABLE}" }}
[domain."fetched.example"]
recipients = {{ fetch = "http://192.0.2.80:8099/recipients" }}
[domain."callout.example"]
recipients = "callout"
"""
FETCHED = "/srv/backup-mx/agent/recipients/fetched.example"
QUEUE = "/proc/sys/net/unix/max_dgram_qlen"
# As the helper does it: until when, 0 for not any more.
MAINTENANCE = """
import sys
from backup_mx.relay.queue import commands
from backup_mx.relay.root import maintenance, protocol
maintenance.switch(commands.Postfix(), int(sys.argv[1]), protocol.Who("test"))
"""
REFUSED = "550 5.1.1 <{}>: Recipient address rejected: User unknown in relay recipient table"
PUT_OFF = "450 4.1.1 <{}>: Recipient address rejected: "


@pytest.fixture(scope="module", params=RELEASES)
def relay(request: pytest.FixtureRequest) -> Iterator[Relay]:
    """A relay with a domain of each kind, whose agent is off: what Postfix does is asked for."""
    with booted(request.param, agent=True, options=OPTIONS) as made:
        made.shell("systemctl", "stop", "backup-mx-agent.service")
        made.shell("install", "-d", "-o", "backup-mx", str(Path(FETCHED).parent))
        yield made


@pytest.fixture
def primary(relay: Relay, tmp_path: Path) -> Iterator[Primary]:
    """A primary at the drain target that knows everybody but refused-at-rcpt@."""
    with Primary(relay.world, tmp_path) as server:
        yield server


def answer(relay: Relay, recipient: str) -> str:
    """Return what a stranger hears after RCPT."""
    with relay.client() as client:
        return str(client.greeted().envelope(b"a@example.net", recipient.encode())[1])


def put_off(relay: Relay, recipient: str) -> str:
    """Wait until the primary has been asked about a recipient; return what a stranger hears then.

    One whom the primary answers too late is let in meanwhile.
    """
    said: list[str] = []

    def refused() -> bool:
        said[:] = [answer(relay, recipient)]
        return said[0].startswith(PUT_OFF.format(recipient))

    wait_for(f"{recipient} to be put off", refused, 60)
    return said[0]


@pytest.mark.parametrize("recipient", ["zoe@table.example", "alic@table.example", "@table.example"])
def test_who_is_not_in_the_table_is_refused(relay: Relay, recipient: str) -> None:
    """An authoritative table is the only thing that refuses a recipient for good."""
    said = answer(relay, recipient)
    assert said == REFUSED.format(recipient) or said.startswith("501 5.1.3 Bad recipient")


@pytest.mark.parametrize(
    "recipient",
    [
        "alice@table.example",
        "ALICE@Table.Example",
        "alice+shop@table.example",
        "bob-list@table.example",
        "bob@table.example",
        "mary-ann@table.example",
        "postmaster@table.example",
        "Postmaster",
        "postmaster@mx2.example.org",
        "anybody@example.org",
        "postmaster@fetched.example",
        "postmaster@callout.example",
    ],
)
def test_who_exists_is_taken(relay: Relay, recipient: str) -> None:
    """Who is listed, in any case, with any extension; every postmaster; all of a catch-all."""
    assert answer(relay, recipient) == "250 2.1.5 Ok"


def test_another_domain_is_still_another_domain(relay: Relay) -> None:
    """Tables let nobody in who was not."""
    assert answer(relay, "alice@elsewhere.example").startswith("554 5.7.1 ")


def fetch(relay: Relay, content: str) -> None:
    """Leave a table where the agent does, and wait until root has looked at it."""
    new = "/srv/backup-mx/agent/new"  # not beside it, where root would begin to look
    relay.machine.path(new).write_text(content)
    rests(relay)
    before = looked(relay)
    relay.shell("mv", new, FETCHED)
    wait_for("the table to be looked at", lambda: looked(relay) > before)


def rests(relay: Relay) -> None:
    """Wait until root looks at no table: of what changes meanwhile a path unit tells nobody."""
    state = ["systemctl", "show", "-P", "ActiveState", "backup-mx-recipients.service"]
    wait_for("root to be done", lambda: relay.shell(*state).strip() in ("inactive", "failed"))


def looked(relay: Relay) -> int:
    """Return when the unit that takes tables over has last come to its end."""
    shown = ["systemctl", "show", "-P", "InactiveEnterTimestampMonotonic"]
    return int(relay.shell(*shown, "backup-mx-recipients.service"))


def test_a_fetched_table_is_taken_over_and_a_bad_one_is_not(relay: Relay) -> None:
    """Everybody exists until there is a table; one that is no table changes nothing."""
    assert answer(relay, "zoe@fetched.example") == "250 2.1.5 Ok"
    fetch(relay, "alice@fetched.example\n")
    unknown = REFUSED.format("zoe@fetched.example")
    wait_for("Postfix to know it", lambda: answer(relay, "zoe@fetched.example") == unknown)
    for bad in ("", "# nobody\n", "<html>not found</html>\n", "alice@elsewhere.example\n"):
        fetch(relay, bad)
        assert answer(relay, "alice@fetched.example") == "250 2.1.5 Ok"
        assert answer(relay, "postmaster@fetched.example") == "250 2.1.5 Ok"
        assert answer(relay, "zoe@fetched.example") == unknown
    fetch(relay, "carol@fetched.example\nzoe@fetched.example\n")
    wait_for("the next table", lambda: answer(relay, "zoe@fetched.example") == "250 2.1.5 Ok")
    assert answer(relay, "anybody@example.org") == "250 2.1.5 Ok"


def test_a_table_of_everybody_is_no_way_to_nobody(relay: Relay) -> None:
    """What it is added to is what the next one is measured by."""
    people = "".join(f"u{each}@fetched.example\n" for each in range(20))
    fetch(relay, people)
    unknown = REFUSED.format("zoe@fetched.example")
    wait_for("Postfix to know it", lambda: answer(relay, "zoe@fetched.example") == unknown)
    fetch(relay, "@fetched.example\n")
    wait_for("everybody", lambda: answer(relay, "zoe@fetched.example") == "250 2.1.5 Ok")
    fetch(relay, "nobody@fetched.example\n")
    assert answer(relay, "zoe@fetched.example") == "250 2.1.5 Ok"
    assert answer(relay, "u7@fetched.example") == "250 2.1.5 Ok"
    fetch(relay, people)
    wait_for("the people", lambda: answer(relay, "zoe@fetched.example") == unknown)
    assert answer(relay, "u7@fetched.example") == "250 2.1.5 Ok"


def test_root_looks_after_every_fetch(relay: Relay) -> None:
    """Also where the table is the same as before: root may have missed that it changed."""
    rests(relay)
    before = looked(relay)
    relay.shell("touch", "/srv/backup-mx/agent/recipients-fetched/fetched.example")
    wait_for("root to look", lambda: looked(relay) > before)


def test_what_is_no_file_is_not_read_as_a_table(relay: Relay) -> None:
    """A link or a pipe of the agent's, where its table should be, is told and left."""
    before = relay.shell("cat", "/etc/backup-mx/recipients/fetched.example")
    for made in (["ln", "-sf", "/etc/shadow", FETCHED], ["mkfifo", FETCHED]):
        relay.shell("rm", "-f", FETCHED)
        relay.shell(*made)
        rests(relay)
        started = ["systemctl", "start", "backup-mx-recipients.service"]
        assert relay.machine.run(started, check=False).returncode == 1
    relay.shell("rm", FETCHED)
    relay.shell("systemctl", "reset-failed", "backup-mx-recipients.service")
    assert relay.shell("cat", "/etc/backup-mx/recipients/fetched.example") == before


def test_a_callout_takes_everybody_while_the_primary_is_down(relay: Relay) -> None:
    """No answer is no reason to put mail off, nor to let a sender wait long."""
    began = time.monotonic()
    assert answer(relay, "someone@callout.example") == "250 2.1.5 Ok"
    assert time.monotonic() - began < 30, "that long a connection is waited for (smtp(8))"


def test_a_callout_puts_off_whom_the_primary_does_not_know(relay: Relay, primary: Primary) -> None:
    """Known is taken, unknown gets a 450; no message is made, none is left."""
    assert answer(relay, "known@callout.example") == "250 2.1.5 Ok"
    said = put_off(relay, "refused-at-rcpt@callout.example")
    assert "mailboxes" not in said, "what the primary said is the operator's to read"
    assert primary.messages == []
    assert "DATA" not in primary.verbs
    wait_for("the questions to be gone", lambda: relay.queue() == [])


def test_nobody_is_asked_about_during_maintenance(relay: Relay, primary: Primary) -> None:
    """The primary is up and knows nobody, as it does while it is restored: everybody is taken."""
    primary.refused = "restored"
    end = str(int(time.time()) + 3600)
    table = ("python3", "-c", MAINTENANCE, end)
    relay.shell("env", "PYTHONPATH=/usr/local/lib/backup-mx", *table)
    try:
        assert answer(relay, "restored@callout.example") == "250 2.1.5 Ok"
        assert primary.verbs == []
        wait_for("the question to be gone", lambda: relay.queue() == [])
    finally:
        relay.shell("env", "PYTHONPATH=/usr/local/lib/backup-mx", *table[:-1], "0")
    put_off(relay, "restored-later@callout.example")


def test_a_table_of_a_domain_that_has_none_any_more_is_dropped(relay: Relay) -> None:
    """Both copies go, the agent's and Postfix's; a link of the agent's leads root nowhere."""
    old = [f"{Path(FETCHED).parent}/old.example", "/etc/backup-mx/recipients/old.example"]
    relay.shell("touch", FETCHED, *old)
    relay.shell("rm", FETCHED)
    rests(relay)
    relay.shell("systemctl", "restart", "backup-mx-setup.service")
    wait_for("both to go", lambda: not any(map(present(relay), old)))
    assert present(relay)("/etc/backup-mx/recipients/fetched.example")
    assert relay.setting("relay_recipient_maps")


def present(relay: Relay) -> Callable[[str], bool]:
    """Return what tells whether there is something at a path of the relay."""
    return lambda path: relay.machine.run(["test", "-e", path], check=False).returncode == 0


def test_sockets_hold_more_than_ten_lines_of_the_log(relay: Relay) -> None:
    """Systemd understands the file; where the machine does not let it, as here, nothing fails."""
    assert relay.shell("systemctl", "is-active", "backup-mx-setup.service") == "active\n"
    steps = [
        "mount -o remount,rw /proc/sys",
        f"echo 10 >{QUEUE}",
        "/usr/lib/systemd/systemd-sysctl /etc/sysctl.d/50-backup-mx.conf",
        f"cat {QUEUE}",
    ]
    assert relay.shell("unshare", "--mount", "sh", "-ec", "\n".join(steps)) == "512\n"


def test_a_callout_while_the_primary_refuses_everybody(relay: Relay, primary: Primary) -> None:
    """A primary that says to come back later is down: everybody is taken."""
    primary.pause()
    assert answer(relay, "other@callout.example") == "250 2.1.5 Ok"


def test_what_was_taken_unasked_is_asked_about_later(relay: Relay, tmp_path: Path) -> None:
    """A yes for want of an answer is kept for minutes; then, with the primary up, it is asked."""
    recipient = "refused-at-rcpt@callout.example"
    relay.shell("sh", "-c", "rm -f /var/lib/postfix/verify_cache*")
    with relay.altered(address_verify_negative_refresh_time="1s"):
        assert answer(relay, recipient) == "250 2.1.5 Ok"
    with (
        relay.altered(address_verify_negative_refresh_time="1s"),
        Primary(relay.world, tmp_path),
    ):
        put_off(relay, recipient)


@pytest.mark.usefixtures("primary")
def test_only_the_question_is_hard(relay: Relay) -> None:
    """Mail of a callout's domain is drained as any other: what is refused stays."""
    with relay.altered(smtpd_recipient_restrictions=""):
        queue_id = relay.submit(b"refused-at-rcpt@callout.example", b"Subject: x\r\n")
        wait_for("it to be refused", lambda: relay.queued(queue_id).why == "refused")
    relay.empty()
