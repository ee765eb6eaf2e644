"""When an authority is asked for a certificate, and what becomes of what it says."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from smtpd import certificate as pair

import pytest
from hypothesis import given
from hypothesis import strategies as st
from relay_settings import SETTINGS

from backup_mx import config
from backup_mx.errors import MachineError
from backup_mx.machine.apply.files import File
from backup_mx.machine.tree import Tree, tree
from backup_mx.relay import certificate, settings
from backup_mx.relay.certificate import Asked, due, pause
from backup_mx.relay.root import acme
from backup_mx.relay.root.acme import Place
from backup_mx.relay.tasks import system

FIVE_LINES = Path(__file__).parents[1] / "data" / "config" / "five-lines.toml"
DATA = Path(__file__).parents[1] / "data" / "certbot"
HOUR, DAY = 3600.0, 86_400.0
WHAT = "acme.example.net mx2.example.org"


@given(st.floats(0, 400 * DAY))
def test_an_authoritys_patience_is_never_used_up(lifetime: float) -> None:
    """Four in vain an hour at most, for good: Let's Encrypt takes five an hour, and one a day.

    It takes 3,600 in a row to begin with, of which one a day comes back.
    """
    at, times = 0.0, []
    for failures in range(1, 60):
        times.append(at)
        at += pause(failures, lifetime)
    assert all(sum(each <= other < each + HOUR for other in times) <= 4 for each in times)
    assert pause(3600, lifetime) == 6 * HOUR


def test_a_good_certificate_is_looked_after_twice_a_day() -> None:
    """A short one more often, so that none runs out between two looks."""
    assert pause(0, 90 * DAY) == 12 * HOUR
    assert pause(0, DAY) == 3 * HOUR


@pytest.mark.parametrize(
    ("asked", "now", "expected"),
    [
        (None, 0.0, True),
        (Asked(WHAT, 1000.0), 1001.0, False),
        (Asked(WHAT, 1000.0), 1000.0 + 12 * HOUR, True),
        (Asked("staging.example.net mx2.example.org", 1000.0), 1001.0, True),
        (Asked(WHAT, 1000.0, 1, 1000.0, "no"), 1800.0, False),
        (Asked(WHAT, 1000.0, 1, 1000.0, "no"), 1900.0, True),
        (Asked(WHAT, 1000.0, 5, 1000.0, "no"), 1900.0, False),
        (Asked(WHAT, 9000.0), 1000.0, True),
    ],
    ids=["never", "just", "twice a day", "another", "in vain", "again", "often", "clock"],
)
def test_when_it_is_time_to_ask(asked: Asked | None, now: float, expected: bool) -> None:
    """At first, when something else is wanted, after a pause, or when the clock was set back."""
    assert due(asked, WHAT, 90 * DAY, now) is expected


def test_how_the_last_asking_ended_is_kept(tmp_path: Path) -> None:
    """Failures are counted from the first one; what is no such file is as if there were none."""
    place = tmp_path / "asked.json"
    assert certificate.last(place) is None
    first = Asked(WHAT, 0.0).failed("no address", 10.0)
    certificate.keep(first.failed("x" * 5000, 20.0), place)
    found = certificate.last(place)
    assert found is not None
    assert (found.failures, found.since, found.time, len(found.why)) == (2, 10.0, 20.0, 500)
    place.write_text('{"what": "x"}')
    assert certificate.last(place) is None


def test_what_openssl_prints_of_a_certificate() -> None:
    """Who issued it is named in one way; one that did so itself has nobody."""
    dates = "notBefore=Nov 20 00:00:00 2026 GMT\nnotAfter=Nov 21 00:00:00 2026 GMT\n"
    found = certificate.parsed(dates + "issuer=CN=E7,O=Let's Encrypt,C=US\nsubject=CN=mx2\n")
    assert (found.issuer, found.lifetime) == ("CN=E7,O=Let's Encrypt,C=US", DAY)
    assert certificate.parsed(dates + "issuer=CN=mx2\nsubject=CN=mx2\n").issuer == ""
    with pytest.raises(ValueError, match="notAfter"):
        certificate.parsed("notBefore=Nov 20 00:00:00 2026 GMT\n")


def parted(folder: Path, name: str) -> tuple[str, str]:
    """Return a certificate that is made now, and its key, as PEM."""
    text = pair(folder, name).read_text()
    begin = text.index("-----BEGIN PRIVATE KEY")
    return text[:begin], text[begin:]


class World:
    """certbot's folder and Postfix's file below ``folder``; asking does what a test says."""

    def __init__(self, folder: Path) -> None:
        self.where = Place(folder / "live", folder / "chain.pem", folder / "asked.json")
        self.where.live.mkdir()
        self.where.chain.write_text("what was there before")
        self.reloads, self.asked, self.said = 0, 0, list[str]()
        self.answer: Callable[[], None] = lambda: None

    def issue(self, name: str = "mx2.example.org", *, key: str = "") -> None:
        """Leave a pair where certbot does, or one whose key is another one's."""
        chain, own = parted(self.where.live, name)
        (self.where.live / "fullchain.pem").write_text(chain)
        (self.where.live / "privkey.pem").write_text(
            parted(self.where.live, key)[1] if key else own
        )

    def ask(self) -> None:
        self.asked += 1
        self.answer()

    def reload(self) -> None:
        self.reloads += 1

    def run(self, *, always: bool = False) -> None:
        acme.run(WHAT, self.where, self.ask, self.reload, self.said.append, always=always)

    @property
    def kept(self) -> Asked:
        found = certificate.last(self.where.asked)
        assert found is not None
        return found


@pytest.fixture
def world(tmp_path: Path) -> World:
    return World(tmp_path)


def test_a_certificate_is_installed_once(world: World) -> None:
    """Key and chain in one file that only root reads; Postfix is told once; it is not asked again.

    The key comes first, as smtpd_tls_chain_files wants it.
    """
    world.answer = world.issue
    world.run()
    text = world.where.chain.read_text()
    assert text.index("PRIVATE KEY") < text.index("BEGIN CERTIFICATE")
    assert world.where.chain.stat().st_mode & 0o777 == 0o600
    assert (world.reloads, world.asked, world.kept.failures) == (1, 1, 0)
    world.run()
    assert (world.reloads, world.asked) == (1, 1)
    world.answer = lambda: None  # certbot is content with what it has
    world.run(always=True)
    assert (world.reloads, world.asked) == (1, 2)


def test_what_an_earlier_run_got_is_installed(world: World) -> None:
    """A run that was killed between certbot's end and Postfix is made up for, without asking."""
    world.issue()
    certificate.keep(Asked(WHAT, time.time()), world.where.asked)
    world.run()
    assert (world.reloads, world.asked) == (1, 0)


def refuse() -> None:
    raise MachineError("DNS problem: NXDOMAIN")


def test_an_authority_that_gives_none_changes_nothing(world: World) -> None:
    """What Postfix shows stays; the next time is later; a person is not made to wait."""
    world.answer = refuse
    for failures in (1, 2):
        with pytest.raises(MachineError, match="NXDOMAIN"):
            world.run(always=True)
        assert (world.kept.failures, world.kept.why) == (failures, "DNS problem: NXDOMAIN")
    world.run()
    assert (world.asked, world.reloads) == (2, 0)
    assert world.where.chain.read_text() == "what was there before"
    world.answer = world.issue
    world.run(always=True)
    assert (world.kept.failures, world.kept.why, world.reloads) == (0, "", 1)


class KilledError(BaseException):
    """What nobody catches, as a kernel that is out of memory."""


def killed() -> None:
    raise KilledError


def test_an_asking_that_is_killed_is_counted(world: World) -> None:
    """The authority has counted it, too. One that ends is not counted twice."""
    world.answer = killed
    for failures in (1, 2):
        with pytest.raises(KilledError):
            world.run(always=True)
        assert (world.kept.failures, world.kept.why) == (failures, "the asking did not end")
    world.run()
    assert world.asked == 2, "it is not time to"
    world.answer = refuse
    with pytest.raises(MachineError):
        world.run(always=True)
    assert (world.kept.failures, world.kept.why) == (3, "DNS problem: NXDOMAIN")


def test_a_disk_that_is_full_is_told_in_a_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What cannot be noted is not asked; there is no traceback."""
    here = Place(tmp_path / "live", tmp_path / "chain.pem", tmp_path / "none" / "asked.json")
    monkeypatch.setattr(acme, "place", lambda *_: here)
    monkeypatch.setattr(settings, "read", lambda: SETTINGS)
    with pytest.raises(SystemExit) as ended:
        acme.main()
    assert str(ended.value).startswith("it cannot be noted how the asking ends: [Errno")
    assert "\n" not in str(ended.value)


def test_a_key_of_another_certificate_is_not_installed(world: World) -> None:
    """Postfix would go without TLS: what was there stays."""
    world.answer = lambda: world.issue(key="other.example.org")
    with pytest.raises(MachineError, match="is of no use"):
        world.run()
    assert (world.reloads, world.kept.failures) == (0, 1)
    assert world.where.chain.read_text() == "what was there before"


def test_a_postfix_that_does_not_run_reads_it_later(world: World) -> None:
    """There is nothing to reload then, and nothing went wrong."""
    world.answer = world.issue

    def stopped() -> None:
        raise MachineError("the Postfix mail system is not running")

    acme.run(WHAT, world.where, world.ask, stopped, world.said.append, always=False)
    assert world.kept.failures == 0
    assert "not running" in world.said[-1]
    assert acme.lifetime(world.where) == 2 * DAY


def test_only_one_run_asks(tmp_path: Path) -> None:
    """What another one is about is no failure of the authority's: nothing is noted."""
    lock = tmp_path / "lock"
    with acme.alone(lock), pytest.raises(MachineError, match="another run"), acme.alone(lock):
        pass
    with acme.alone(lock):
        pass


@pytest.mark.parametrize("name", ["no-address", "no-server", "refused"])
def test_certbots_words(name: str) -> None:
    """Of what certbot prints, the authority's own words are told, without its advice."""
    told = acme.words((DATA / f"{name}.txt").read_text())
    assert told == (DATA / f"{name}.told").read_text().strip()


def test_certbots_words_steer_no_terminal() -> None:
    """They come from whoever answers: the journal and a status are read on terminals."""
    assert acme.words("Detail: \x1b[2Jgone\x9b1m\u202e") == "Detail: \ufffd[2Jgone\ufffd1m\ufffd"


def test_asking_reaches_only_what_it_needs(tmp_path: Path) -> None:
    """Whatever an authority answers: no key but the certificate's, and no ledger, is in reach."""
    unit = files(made(tmp_path))["/etc/systemd/system/backup-mx-acme@.service"].content.decode()
    lines = unit.splitlines()
    assert "ReadWritePaths=/srv/backup-mx/acme /srv/backup-mx/tls /srv/backup-mx/spool" in lines
    assert (
        "InaccessiblePaths=-/srv/backup-mx/ssh -/srv/backup-mx/tailscale -/srv/backup-mx/agent"
        " -/etc/wireguard -/var/lib/tailscale"
    ) in lines


def files(layer: Tree) -> dict[str, File]:
    return {str(file.path): file for file in layer.files}


def made(tmp_path: Path, options: str = "", *, agent: bool = True) -> Tree:
    place = tmp_path / "backup-mx.toml"
    place.write_text(f"{FIVE_LINES.read_text()}\n[tls]\n{options}\n")
    return tree(config.load(place), "mx2", agent=agent)


def test_asking_is_the_agents_layer(tmp_path: Path) -> None:
    """user-data carries none of it; a deploy brings certbot, its file, the units and port 80."""
    lean, whole = made(tmp_path, agent=False), made(tmp_path)
    ours = {"/etc/backup-mx/certbot.ini", "/etc/systemd/system/backup-mx-acme.timer",
            "/etc/systemd/system/backup-mx-acme@.service"}  # fmt: skip
    assert not ours & files(lean).keys()
    assert ours <= files(whole).keys()
    assert "certbot" in whole.packages
    assert "certbot" not in lean.packages
    rules = "/etc/backup-mx/firewall/rules.v4"
    assert b"-A BACKUP-MX -p tcp --dport 80 " in files(whole)[rules].content
    assert b"-A BACKUP-MX -p tcp --dport 80 " not in files(lean)[rules].content
    asked = files(whole)["/etc/backup-mx/certbot.ini"].content.decode()
    assert "\nserver = https://acme-v02.api.letsencrypt.org/directory\n" in asked
    assert "\nconfig-dir = /srv/backup-mx/acme/acme-v02.api.letsencrypt.org\n" in asked


def test_nothing_of_it_is_there_where_none_is_asked(tmp_path: Path) -> None:
    """No package, no file, no unit, no open port."""
    whole = made(tmp_path, "acme = false")
    assert "certbot" not in whole.packages
    assert not [path for path in files(whole) if "acme" in path and "/lib/" not in path]
    assert (
        b"-A BACKUP-MX -p tcp --dport 80 "
        not in files(whole)["/etc/backup-mx/firewall/rules.v4"].content
    )
    assert not [each for each in whole.services if "acme" in each.unit]


def test_an_authority_of_ones_own(tmp_path: Path) -> None:
    """Its certificate goes along, and is all that certbot trusts; a key never goes along."""
    known = tmp_path / "ca.pem"
    text, key = parted(tmp_path, "ca.example.org")
    known.write_text(text)
    options = 'acme_directory = "https://ca.example.org:9000/dir"\nacme_ca = "ca.pem"'
    whole = files(made(tmp_path, options))
    assert whole["/etc/backup-mx/acme-ca.pem"].content == known.read_bytes()
    unit = whole["/etc/systemd/system/backup-mx-acme@.service"].content
    assert b"REQUESTS_CA_BUNDLE=/etc/backup-mx/acme-ca.pem" in unit
    for content, why in (
        (text + key, "holds a private key"),
        ("rubbish", "no PEM certificate"),
        ("ü", "no PEM certificate"),
    ):
        known.write_text(content)
        with pytest.raises(MachineError, match=why):
            made(tmp_path, options)
    known.unlink()
    with pytest.raises(MachineError, match=r"ca\.pem cannot be used: No such file"):
        made(tmp_path, options)
    assert made(tmp_path, options, agent=False), "user-data does not need it"


def test_openssl_reads_what_is_shown(tmp_path: Path) -> None:
    """The program of this machine is asked, too."""
    found = certificate.read(pair(tmp_path, "mx2.example.org").read_bytes(), system.run)
    assert (found.lifetime, found.issuer) == (2 * DAY, "")
