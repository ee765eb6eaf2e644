"""A primary's kit on the lab's hostile primary: each layer is needed; undo leaves no trace."""

from __future__ import annotations

import smtplib
from collections.abc import Callable, Iterator

import kits
import pytest
from kits import INNER, SENDER, Letter, client, drain, filed
from worlds import fresh_name

from backup_mx import config
from backup_mx.kit import primary
from backup_mx.kit.files import KitFile
from backup_mx.lab import host
from backup_mx.lab.world import World, standard

FOLDERS = ("/etc/postfix", "/etc/rspamd", "/etc/postfix-policyd-spf-python")
STRANGER = "192.0.2.66"
GTUBE = "XJS*C4JDBQADN1.NSBN3*2IDNEN*GTUBE-STANDARD-ANTI-UBE-TEST-EMAIL*C.34X\n"
MAIN = "/etc/postfix/main.cf"
LUA = "files/etc/rspamd/lua.local.d/backup_mx.lua"


@pytest.fixture(scope="module")
def files() -> tuple[KitFile, ...]:
    """The kit for a relay in a tunnel."""
    return primary.render(config.parse(kits.CONFIG, "the test's"), "home")


@pytest.fixture(scope="module")
def raw() -> Iterator[World]:
    """A hostile primary that no kit was ever on."""
    made = standard(fresh_name(), kit=False)
    try:
        made.up(print)
        yield made
    finally:
        made.down()


@pytest.fixture
def bare(raw: World, files: tuple[KitFile, ...]) -> World:
    """The same, with the kit at hand and not applied."""
    kits.put(raw, files)
    kits.run(raw, "undo")
    return raw


@pytest.fixture
def world(raw: World, files: tuple[KitFile, ...]) -> World:
    """The same, with the kit applied."""
    kits.put(raw, files)
    kits.run(raw, "apply")
    return raw


def tree(world: World) -> dict[str, tuple[bytes, int, int]]:
    """Return what the folders that a kit writes in hold: path to content, mode and owner."""
    root = world.machine("primary").root
    return {
        str(path.relative_to(root)): (
            path.read_bytes() if path.is_file() and not path.is_symlink() else b"",
            path.lstat().st_mode,
            path.lstat().st_uid,
        )
        for folder in FOLDERS
        for path in (root / folder.lstrip("/")).rglob("*")
    }


def accepted_without_a_name(world: World) -> bool:
    """A relay whose address has no name hands a letter over."""
    return drain(world, Letter()) == "250"


def accepted_in_our_name(world: World) -> bool:
    """A letter from one of our own addresses, kept by the relay, is taken."""
    return drain(world, Letter("carol@example.org", origin=STRANGER)) == "250"


def forty_in_a_minute(world: World) -> bool:
    """A relay hands more over than anybody else may."""
    session = client(world)
    codes = [(session.mail("bob@example.net")[0], session.rset()[0]) for _ in range(40)]
    session.close()
    return set(codes) == {(250, 250)}


def straight_to_smtpd(world: World) -> bool:
    """Postscreen lets a relay pass without tests."""
    log = world.machine("primary").path("/var/log/mail.log")
    before = log.stat().st_size
    client(world).close()
    said: list[str] = []

    def judged() -> bool:
        lines = log.read_bytes()[before:].decode(errors="replace").splitlines()
        said.extend(line for line in lines if f"[{INNER}]" in line and "postscreen" in line)
        return any("LISTED" in line or " PASS " in line for line in said)

    host.wait_for("postscreen's verdict", judged, timeout=60)
    return any("ALLOWLISTED" in line for line in said)


def spf_of_the_sender(world: World) -> bool:
    """A sender whose domain says -all is taken from the relay, whose address SPF does not know."""
    return drain(world, Letter()) == "250"


def xforward_offered(world: World) -> bool:
    """A relay may say, for the log, who sent it a message."""
    session = client(world)
    session.close()
    return "xforward" in session.esmtp_features


def not_put_off(world: World) -> bool:
    """What a greylister would put off is neither put off nor tagged."""
    letter = Letter(header="X-Lab-Weight: 5\n")
    drain(world, letter)
    found = filed(world, letter)
    return found.folder == "INBOX" and "GREYLIST" not in found.symbols


def as_many_as_there_are(world: World) -> bool:
    """More letters of one sender than rspamd's ratelimit lets through are scored and not tagged."""
    letters = [Letter() for _ in range(25)]
    assert {drain(world, letter) for letter in letters} == {"250"}
    return filed(world, letters[-1]).folder == "INBOX"


def own_notices_judged(world: World) -> bool:
    """A letter that begins at the relay is judged, though its inner address counts as local."""
    letter = Letter(received=False)
    drain(world, letter)
    return filed(world, letter).header["X-Spamd-Result"] is not None


def judged_by_its_sender(world: World) -> bool:
    """The score is that of who sent to the relay: address, SPF."""
    letter = Letter()
    drain(world, letter)
    found = filed(world, letter)
    return found.header["X-Rspamd-Client"] == SENDER and "R_SPF_ALLOW" in found.symbols


def never_refused(world: World) -> bool:
    """What would have been refused straight is taken, and filed as junk."""
    letter = Letter(header="X-Lab-Weight: 14\n")
    return drain(world, letter) == "250" and filed(world, letter).folder == "Junk"


HOLDS: dict[str, Callable[[World], bool]] = {
    "client-restrictions": accepted_without_a_name,
    "sender-restrictions": accepted_in_our_name,
    "anvil": forty_in_a_minute,
    "postscreen": straight_to_smtpd,
    "policyd-spf": spf_of_the_sender,
    "xforward": xforward_offered,
    "greylist": not_put_off,
    "ratelimit": as_many_as_there_are,
    "local-addrs": own_notices_judged,
    "external-relay": judged_by_its_sender,
    "ceiling": never_refused,
}
"""Each layer of the kit: what holds with it, and breaks when it alone is missing."""


def test_every_layer_is_tried() -> None:
    """No layer of the kit is without a test."""
    assert tuple(HOLDS) == primary.LAYERS


@pytest.mark.parametrize("layer", kits.mostly_long(HOLDS))
def test_with_the_kit_a_layer_lets_the_drain_through(world: World, layer: str) -> None:
    """What each layer is for holds on a primary with the kit."""
    assert HOLDS[layer](world), HOLDS[layer].__doc__


@pytest.mark.parametrize("layer", kits.mostly_long(HOLDS))
def test_a_layer_is_needed(world: World, files: tuple[KitFile, ...], layer: str) -> None:
    """Without this one layer what it is for does not hold."""
    kits.put(world, kits.without(files, layer))
    kits.run(world, "apply")
    assert not HOLDS[layer](world), f"{layer} does nothing that this test sees"


JUNK = {
    "SPF fails": Letter(origin=STRANGER, name="unknown"),
    "our own name": Letter("carol@example.org", origin=STRANGER, name="unknown"),
    "GTUBE": Letter(text=GTUBE),
    "a high score": Letter(header="X-Lab-Weight: 14\n"),
    "a score short of that": Letter(header="X-Lab-Weight: 9\n"),
}


@pytest.mark.parametrize("letter", JUNK.values(), ids=JUNK)
def test_what_is_refused_straight_is_junk_from_a_relay(world: World, letter: Letter) -> None:
    """It is accepted, marked as spam and filed as junk."""
    assert drain(world, letter) == "250"
    found = filed(world, letter)
    assert found.folder == "Junk"
    assert found.header["X-Spam"] == "Yes"


def test_the_name_that_counts_is_the_verified_one(world: World) -> None:
    """A sender without reverse DNS is seen to have none, whatever it said in HELO."""
    letter = Letter(origin="192.0.2.119", name="unknown", helo="mail.example.com")
    drain(world, letter)
    assert "RDNS_NONE" in filed(world, letter).symbols


def test_bayes_learns_from_drained_spam(world: World) -> None:
    """A letter that scores above the reject threshold is learnt as spam though it is delivered."""
    log = world.machine("primary").path("/var/log/rspamd/rspamd.log")
    words = " ".join(f"word{number}" for number in range(40))
    letter = Letter(header="X-Lab-Weight: 14\n", text=words + "\n", origin=STRANGER, name="unknown")
    before = log.stat().st_size
    drain(world, letter)
    filed(world, letter)

    def learnt() -> bool:
        lines = log.read_bytes()[before:].decode(errors="replace").splitlines()
        return any("learn" in line and "spam" in line for line in lines)

    host.wait_for("rspamd to learn", learnt, timeout=60)


def test_a_relay_may_not_relay(world: World) -> None:
    """A relay hands over mail for the domains that live here, for no other."""
    session = client(world)
    session.mail("bob@example.net")
    code, _ = session.rcpt("bob@example.net")
    session.close()
    assert code == 554


def test_others_are_judged_as_before(world: World) -> None:
    """Who is no relay is still refused for what a relay is not."""
    session = client(world, "192.0.2.119", "stranger.example.net")
    with pytest.raises(smtplib.SMTPRecipientsRefused):
        session.sendmail("bob@example.net", ["alice@example.org"], Letter().content)
    session.close()


def test_applying_twice_changes_nothing(world: World) -> None:
    """The second run finds all in place, and says so."""
    before = tree(world)
    assert "nothing to do" in kits.run(world, "apply").text
    assert tree(world) == before
    assert "missing" not in kits.run(world, "status").text


def test_undo_leaves_no_trace(bare: World) -> None:
    """Every byte, mode and owner is as before, and nothing of the kit is kept."""
    before = tree(bare)
    kits.run(bare, "apply")
    assert tree(bare) != before
    kits.run(bare, "undo")
    assert tree(bare) == before
    assert not bare.machine("primary").path("/var/lib/backup-mx-kit").exists()


def test_mynetworks_are_not_touched(world: World) -> None:
    """A relay is exempted from checks, it does not become a trusted host."""
    assert world.machine("primary").run(["postconf", "-h", "mynetworks"]).text == "127.0.0.0/8\n"


def test_what_was_edited_since_survives_undo(world: World) -> None:
    """Undo takes out what the kit put in, and nothing that the operator wrote after it."""
    main = world.machine("primary").path(MAIN)
    before = main.read_text()
    try:
        main.write_text(
            before.replace(
                "reject_unknown_client_hostname", "reject_unknown_reverse_client_hostname"
            )
        )
        said = kits.run(world, "undo").text
        after = main.read_text()
    finally:
        main.write_text(before)
    assert "edited since" in said
    assert "backup-mx" not in after
    assert INNER not in after
    assert "permit_mynetworks, reject_unknown_reverse_client_hostname" in " ".join(after.split())


def test_a_kit_for_other_addresses_takes_the_place_of_the_first(world: World) -> None:
    """When a relay's address changes, the old one goes; undo still leaves no trace."""
    other = config.parse(kits.CONFIG.replace(INNER, "10.0.20.7"), "the test's")
    kits.put(world, primary.render(other, "home"))
    kits.run(world, "apply")
    assert INNER not in world.machine("primary").path(MAIN).read_text()
    assert "10.0.20.7" in world.machine("primary").path(MAIN).read_text()


def test_a_server_that_is_broken_already_is_left_alone(bare: World) -> None:
    """Where Postfix complains before, the kit says so and changes nothing."""
    main = bare.machine("primary").path(MAIN)
    whole = main.read_bytes()
    main.write_bytes(whole + b"inet_protocols = nonsense\n")
    try:
        before = tree(bare)
        done = kits.run(bare, "apply", check=False)
        assert tree(bare) == before
    finally:
        main.write_bytes(whole)
    assert done.returncode == 1
    assert b"nothing was changed" in done.stderr


@pytest.mark.parametrize(
    ("path", "broken"),
    [
        (LUA, b"rspamd_config:no_such_thing(\n"),
        ("elements", b"inet_protocols = nonsense\n"),
    ],
    ids=["rspamd", "postfix"],
)
def test_what_the_programs_refuse_is_taken_back(
    bare: World, files: tuple[KitFile, ...], path: str, broken: bytes
) -> None:
    """A kit that Postfix or rspamd does not take leaves everything as it was."""
    before = tree(bare)
    kits.put(bare, [KitFile(f.path, f.content + broken * (f.path == path)) for f in files])
    done = kits.run(bare, "apply", check=False)
    assert done.returncode == 1
    assert b"everything is as it was" in done.stderr
    assert tree(bare) == before


@pytest.mark.parametrize(
    "seconds",
    [
        pytest.param("0.3", marks=pytest.mark.long),
        "1.3",
        pytest.param("2.3", marks=pytest.mark.long),
    ],
)
def test_a_run_cut_off_is_mended_by_the_next(bare: World, seconds: str) -> None:
    """Killed at any moment, the kit applies in a second run, and undoes without trace."""
    before = tree(bare)
    argv = ["timeout", "-s", "KILL", seconds, "sh", f"{kits.KIT}/backup-mx-kit", "apply"]
    bare.machine("primary").run(argv, check=False)
    kits.run(bare, "apply")
    assert "missing" not in kits.run(bare, "status").text
    kits.run(bare, "undo")
    assert tree(bare) == before


def test_the_operators_own_rules_stay(bare: World) -> None:
    """Rules of the operator's for the same modules are in force beside the kit's."""
    machine = bare.machine("primary")
    own = {
        "local.d/external_relay.conf": 'rules { OWN { strategy="ip_map"; ip_map=["192.0.2.9"]; } }',
        "local.d/force_actions.conf": 'rules { OWN { action="reject"; expression="GTUBE"; } }',
        "override.d/greylist.conf": 'whitelist_symbols = ["OWN"];\n',
    }
    paths = [machine.path(f"/etc/rspamd/{path}") for path in own]
    try:
        for path, text in zip(paths, own.values(), strict=True):
            path.write_text(text)
        before = tree(bare)
        kits.run(bare, "apply")
        dump = machine.run(
            ["rspamadm", "configdump", "external_relay", "force_actions", "greylist"]
        ).text
        kits.run(bare, "undo")
        assert tree(bare) == before
    finally:
        for path in paths:
            path.unlink(missing_ok=True)
    assert "BACKUP_MX_ORIGIN" in dump
    assert all(words in dump for words in ("192.0.2.9", 'expression = "GTUBE"', '"OWN"'))
