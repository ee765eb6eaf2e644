"""A relay serves its domains' MTA-STS policies with certificates of their own, beside the mail."""

from __future__ import annotations

import contextlib
import json
import re
import socket
import sys
import time
from collections.abc import Iterator

import pytest
from dropins import altered
from relays import ADDRESS, RELEASES, Relay, booted, wait_for

from backup_mx.lab import names, network, settings
from backup_mx.lab.authority import OPTIONS, Authority
from backup_mx.lab.operator import Operator
from backup_mx.lab.zone import Zone
from backup_mx.mta_sts import policy
from backup_mx.relay.policies import UNIT

pytestmark = pytest.mark.lab

ASK = "backup-mx-acme@now.service"
HOST = "mta-sts.example.org"
NOBODY = "203.0.113.30"
POLICY_OPTIONS = '[mta_sts]\nmode = "testing"\nhosted_by = "mx2"\n'
FETCH = "from backup_mx.mta_sts.look import served; import json; print(json.dumps(served({!r})))"
METRICS = (
    "from urllib.request import urlopen;"
    " print(urlopen('http://localhost:9725/metrics', timeout=10).read().decode())"
)
# The dashboard of a relay trusts this machine; MSG_FASTOPEN connects without connect(2).
CALLS = """
import socket
AT = ("127.0.0.1", 8025)
for call in (
    lambda line: line.connect(AT),
    lambda line: line.sendto(b"x", socket.MSG_FASTOPEN, AT),
    lambda line: line.sendmsg([b"x"], [], socket.MSG_FASTOPEN, AT),
):
    with socket.socket() as line:
        try:
            call(line)
        except PermissionError:
            continue
        raise SystemExit("it connected")
"""
MANY = 100
IN_TIME = 5.0  # seconds, most of them Python's start; silent strangers that are let be cost more


@pytest.fixture(scope="module", params=RELEASES, ids=str)
def relay(request: pytest.FixtureRequest) -> Iterator[Relay]:
    """A relay that hosts the policy; its authority does not run, and the policy has no address."""
    with booted(request.param, agent=True, options=OPTIONS + POLICY_OPTIONS) as made:
        made.shell("systemctl", "stop", "backup-mx-acme.timer")
        yield made


@pytest.fixture(scope="module")
def authority(relay: Relay) -> Authority:
    """The authority; it runs from now on, and the operator trusts it."""
    made = Authority(relay.world)
    made.start()
    Operator(relay.world.name).trust(made.root())
    return made


def ask(relay: Relay) -> bool:
    """Have the relay ask; tell whether all that it wants was given."""
    return relay.machine.run(["systemctl", "start", ASK], check=False).returncode == 0


def failures(relay: Relay, name: str) -> int:
    """Return how often in a row an authority was asked in vain, as that file has it."""
    found: int = json.loads(relay.machine.path(f"/srv/backup-mx/acme/{name}.json").read_text())[
        "failures"
    ]
    return found


def served(relay: Relay, domain: str = "example.org") -> tuple[str, str]:
    """Fetch the policy as a sender does, from the lab's Internet."""
    done = Operator(relay.world.name).run([sys.executable, "-c", FETCH.format(domain)])
    text, trouble = json.loads(done.text)
    return text, trouble


def wanted(relay: Relay) -> str:
    """Return the policy that the relay's config has."""
    found = policy.wanted(relay.world.made_from, "example.org")
    assert found is not None
    return found.text


def takes_mail(relay: Relay) -> None:
    """See that mail is taken."""
    relay.submit(b"alice@example.org", b"Subject: x\r\n\r\nx\r\n")
    relay.empty()


def test_without_a_certificate_nobody_listens(relay: Relay) -> None:
    """That is no failure: the unit waits, no unit has failed, and mail is taken."""
    with pytest.raises(ConnectionRefusedError):
        network.connect(relay.world.name, ADDRESS, 443)
    assert relay.shell("systemctl", "list-units", "--failed", "-q", UNIT) == ""
    assert UNIT in relay.shell("systemctl", "show", "-P", "Wants", "multi-user.target")
    takes_mail(relay)


def test_a_name_that_does_not_lead_here_is_not_asked_for(
    relay: Relay, authority: Authority
) -> None:
    """Before DNS is published: the relay's own certificate comes, and nothing is in vain."""
    assert authority.root()
    Zone(relay.world).set("mta-sts", "A", NOBODY)
    assert ask(relay)
    assert failures(relay, "asked") == 0
    assert not relay.machine.path(f"/srv/backup-mx/acme/{HOST}.json").exists()


def test_what_is_refused_to_the_policy_holds_nothing_up(relay: Relay, authority: Authority) -> None:
    """An authority looks where nobody is: Postfix has its certificate, mail is taken."""
    relay.shell("rm", "/srv/backup-mx/tls/chain.pem")
    Zone(relay.world).set("mta-sts", "A", ADDRESS)
    rule = ["INPUT", "-p", "tcp", "--dport", "80", "-j", "REJECT"]
    relay.shell("iptables", "-I", *rule)
    try:
        assert not ask(relay)
    finally:
        relay.shell("iptables", "-D", *rule)
    assert authority.shown(authority.root()).trouble == ""
    assert failures(relay, HOST) == 1
    assert served(relay)[0] == ""
    takes_mail(relay)


def test_the_policy_is_served(relay: Relay, authority: Authority) -> None:
    """With a certificate of its own, which comes by itself; the home is dark all the time."""
    before = authority.shown(authority.root()).der
    assert ask(relay)
    wait_for("the policy", lambda: served(relay)[0] != "")
    assert served(relay) == (wanted(relay), "")
    assert "version: STSv1\r\nmode: testing\r\nmx: mail.example.org" in wanted(relay)
    assert failures(relay, HOST) == 0
    assert authority.shown(authority.root()).der == before, "Postfix keeps its own"


def test_the_operator_is_told_of_its_certificate(relay: Relay) -> None:
    """By the agent, beside Postfix's: in its status and in its metrics."""
    relay.shell("systemctl", "restart", "backup-mx-agent.service")  # it looks every 5 minutes
    line = f"certificate of {HOST}: expires in"
    wait_for("the agent's word", lambda: line in relay.shell("backup-mx", "status"))
    told = relay.shell("python3", "-c", METRICS)
    ends = re.findall(r'certificate_expiry_timestamp_seconds{host="(.+)"} (.+)', told)
    assert [host for host, _ in ends] == ["mx2.example.org", HOST]
    assert all(float(each) > time.time() for _, each in ends)
    assert f'backup_mx_certificate_failures{{host="{HOST}"}} 0.0\n' in told


def test_another_certificate_is_shown_at_once(relay: Relay, authority: Authority) -> None:
    """An authority's certificates run out: the next one is in use without a deploy."""
    assert authority.root()
    first = relay.shell("systemctl", "show", "-P", "MainPID", UNIT)
    relay.shell("rm", "-r", "/srv/backup-mx/acme/acme.example.net/live/" + HOST,
                f"/srv/backup-mx/acme/acme.example.net/renewal/{HOST}.conf",
                f"/srv/backup-mx/acme/acme.example.net/archive/{HOST}")  # fmt: skip
    assert ask(relay)
    wait_for("the policy", lambda: served(relay)[0] != "")
    assert relay.shell("systemctl", "show", "-P", "MainPID", UNIT) != first


@contextlib.contextmanager
def strangers(relay: Relay) -> Iterator[None]:
    """Have MANY connect from one place, and say nothing."""
    with contextlib.ExitStack() as open_:
        with network.inside(names.scoped(relay.world.name, "internet")):
            for _ in range(MANY):
                open_.enter_context(socket.create_connection((ADDRESS, 443), 10))
        yield


def among_strangers(relay: Relay) -> float:
    """Return the seconds that the policy takes while they are there."""
    with strangers(relay):
        asked = time.monotonic()
        assert served(relay) == (wanted(relay), "")
        return time.monotonic() - asked


def test_strangers_hold_up_neither_mail_nor_the_policy(relay: Relay) -> None:
    """A hundred that connect from one place and say nothing: mail and the policy know nothing."""
    assert min(among_strangers(relay) for _ in range(3)) < IN_TIME
    with strangers(relay):
        takes_mail(relay)
    number = relay.shell("systemctl", "show", "-P", "MainPID", UNIT).strip()
    (peak,) = re.findall(r"VmHWM:\s+(\d+) kB", relay.shell("cat", f"/proc/{number}/status"))
    assert int(peak) < 48 * 1024


def test_strangers_write_nothing_into_the_journal(relay: Relay) -> None:
    """Not by a name in the handshake that is no text, either."""
    before = relay.shell("journalctl", "-u", UNIT, "-o", "cat")
    hello = ["openssl", "s_client", "-connect", f"{ADDRESS}:443", "-servername", "x\udcff"]
    refused = Operator(relay.world.name).run(hello)
    assert b"alert" in refused.stderr
    relay.shell("journalctl", "--sync")
    assert relay.shell("journalctl", "-u", UNIT, "-o", "cat") == before


def test_whoever_breaks_into_it_reaches_no_dashboard(relay: Relay) -> None:
    """From its place nothing is called: a program there, in its stead, is refused by the kernel."""
    relay.machine.run(["tee", "/run/calls.py"], stdin=CALLS.encode())
    relay.machine.listening(8025)
    asked = relay.machine.run(["python3", "/run/calls.py"], check=False)
    assert (asked.returncode, asked.stderr) == (1, b"it connected\n")
    program = "ExecStart=/usr/bin/python3 /run/calls.py"
    with altered(relay, UNIT, "Type=oneshot", "Restart=no", "ExecStart=", program):
        assert relay.shell("systemctl", "show", "-P", "Result", UNIT) == "success\n"
    wait_for("the policy", lambda: served(relay) == (wanted(relay), ""))


def test_a_deploy_brings_another_policy(relay: Relay) -> None:
    """The certificate stays."""
    text = settings.text(relay.world.name).replace('mode = "testing"', 'mode = "enforce"')
    relay.world.deploy(print, text)
    assert "mode: enforce" in wanted(relay)
    wait_for("the new policy", lambda: served(relay)[0] == wanted(relay))
    assert failures(relay, HOST) == 0


def test_a_relay_that_hosts_none_any_more(relay: Relay) -> None:
    """Port 443 is closed, the unit is gone."""
    relay.world.deploy(print, settings.text(relay.world.name).replace('hosted_by = "mx2"\n', ""))
    assert not relay.machine.path("/etc/backup-mx/policies").exists() or not list(
        relay.machine.path("/etc/backup-mx/policies").iterdir()
    )
    with pytest.raises(OSError, match="timed out"):
        network.connect(relay.world.name, ADDRESS, 443)
    takes_mail(relay)
