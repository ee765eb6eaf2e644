"""The relay's certificate, from a real ACME server that looks at a real port 80."""

from __future__ import annotations

import contextlib
import json
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from relays import Relay, booted, wait_for
from worlds import fresh_name

from backup_mx.lab import network
from backup_mx.lab.authority import OPTIONS, Authority
from backup_mx.lab.drills import certificate
from backup_mx.lab.drills.certificate import LOG, Certificate
from backup_mx.lab.layout import VALIDATORS
from backup_mx.lab.report import write_report
from backup_mx.lab.timeline import Timeline
from backup_mx.lab.world import standard
from backup_mx.relay.root.acme import CHAIN

pytestmark = pytest.mark.lab

NOW, DUE = "backup-mx-acme@now.service", "backup-mx-acme@due.service"
ASKED = "/srv/backup-mx/acme/asked.json"


@pytest.fixture(
    scope="module", params=["3.10", pytest.param("3.7", marks=pytest.mark.long)], ids=str
)
def relay(request: pytest.FixtureRequest) -> Iterator[Relay]:
    """A relay that asks the lab's authority, which does not run yet."""
    with booted(request.param, agent=True, options=OPTIONS) as made:
        made.shell("systemctl", "stop", "backup-mx-acme.timer")
        yield made


@pytest.fixture(scope="module")
def authority(relay: Relay) -> Authority:
    """The authority; it runs from now on."""
    made = Authority(relay.world)
    made.start()
    return made


def ask(relay: Relay, unit: str = NOW) -> bool:
    """Have the relay ask; tell whether it was given something."""
    return relay.machine.run(["systemctl", "start", unit], check=False).returncode == 0


def asked(relay: Relay) -> dict[str, object]:
    """Return how the last asking ended."""
    found: dict[str, object] = json.loads(relay.machine.path(ASKED).read_text())
    return found


def takes_mail(relay: Relay) -> None:
    """See that mail is taken."""
    relay.submit(b"alice@example.org", b"Subject: x\r\n\r\nx\r\n")
    relay.empty()


def test_without_an_authority_the_relay_certifies_itself(relay: Relay) -> None:
    """Asking fails, is noted, and is not done again at once; STARTTLS works, mail is taken."""
    assert not ask(relay)
    first = asked(relay)
    assert "refused" in str(first["why"])
    assert ask(relay, DUE), "it is not time to"
    assert asked(relay) == first
    takes_mail(relay)


def test_a_name_that_leads_nowhere_gets_none(relay: Relay, authority: Authority) -> None:
    """The authority's own words are kept; what is shown stays."""
    before = authority.shown(authority.root())
    assert "self-signed" in before.trouble
    authority.hide()
    try:
        assert not ask(relay)
    finally:
        authority.unhide()
    assert "could not resolve" in str(asked(relay)["why"])
    assert authority.shown(authority.root()).der == before.der
    takes_mail(relay)


def test_a_closed_port_80_gets_none(relay: Relay, authority: Authority) -> None:
    """As where the provider's own firewall keeps it shut."""
    rule = ["INPUT", "-p", "tcp", "--dport", "80", "-j", "REJECT"]
    relay.shell("iptables", "-I", *rule)
    try:
        assert not ask(relay)
    finally:
        relay.shell("iptables", "-D", *rule)
    assert "refused" in str(asked(relay)["why"])
    assert authority.shown(authority.root()).trouble


def test_the_relay_is_certified(relay: Relay, authority: Authority) -> None:
    """All senders see it at once, a session from before goes on, and nobody listens afterwards."""
    root = authority.root()
    with authority.session() as before:
        assert ask(relay)
        found = authority.shown(root)
        assert found.trouble == ""
        assert 89 < (found.ends - time.time()) / 86_400 < 90
        assert before.noop()[0] == 250
    log = relay.machine.path(LOG).read_text()
    assert all(each in log for each in VALIDATORS)
    assert asked(relay)["failures"] == 0
    assert relay.machine.path(CHAIN).stat().st_mode & 0o777 == 0o600
    with pytest.raises(ConnectionRefusedError):
        network.connect(relay.world.name, "203.0.113.20", 80)
    takes_mail(relay)


def test_the_operator_sees_who_issued_it(relay: Relay, authority: Authority) -> None:
    """An agent that starts looks at once."""
    assert authority.shown(authority.root()).trouble == "", "the test before made it"
    relay.shell("systemctl", "restart", "backup-mx-agent.service")
    wait_for(
        "the agent to see it",
        lambda: "issued by CN=Pebble" in relay.shell("backup-mx", "status"),
        timeout=60,
    )


def test_a_relay_made_anew_keeps_it(relay: Relay, authority: Authority) -> None:
    """Key and certificate are on the volume: without asking, Postfix shows what it showed."""
    before = authority.shown(authority.root()).der
    relay.stop()
    relay.shell("systemctl", "restart", "backup-mx-certificate.service")
    relay.start()
    assert authority.shown(authority.root()).der == before


@pytest.mark.long
def test_the_drill(tmp_path: Path) -> None:
    """No mail is lost or held up, whatever becomes of the authority; then with a closed port 80."""

    class Closed(Certificate):
        """The provider's firewall keeps port 80 shut."""

        def nowhere(self) -> None:
            rule = ["INPUT", "-p", "tcp", "--dport", "80", "-j", "DROP"]
            self.relay.machine.run(["iptables", "-I", *rule])

    home = standard(fresh_name(), agent=True)
    try:
        home.up(print)
        with contextlib.ExitStack() as stack:
            report = Certificate(home, Timeline(time.monotonic), 30).run()
            write_report(report, tmp_path)
            assert report["reasons"] == []
            assert (report["delivered"], report["lost"], report["dsn"]) == (report["sent"], 0, 0)
            marks = [each["mark"] for each in report["timeline"] if each["mark"]]
            assert marks == [
                *("authority down", "no name", "issued", "renewed", "authority hangs"),
                *("told", "over", "well"),
            ]
            patch = stack.enter_context(pytest.MonkeyPatch.context())
            patch.setattr(certificate, "PATIENCE", 20.0)
            report = Closed(home, Timeline(time.monotonic), 30).run()
            assert (report["verdict"], report["lost"]) == ("fail", 0)
            assert any("a good certificate, in vain" in each for each in report["reasons"])
    finally:
        home.down()
