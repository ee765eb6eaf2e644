"""The edge kit of pfSense, run by php against the stand-in of tests/php (see its README.md)."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

import pytest

from backup_mx.config import load
from backup_mx.kit.edge import render

PHP = Path(__file__).parents[1] / "php"
SCRIPT = "files/root/backup-mx-edge.php"
REVISION = re.compile(r"<revision>.*?</revision>", re.DOTALL)
KEY = "yAnz5TF+lXXJte14tji3zlMNq+hd2rYUIgJBgB3fBmk="
PUBLIC = "HIgo9xNzJMWLKASShiTqIybxZ0U3wGLiUeJ1PKf8ykw="
CONFIGS = Path(__file__).parents[1] / "data" / "edge"

pytestmark = pytest.mark.skipif(
    shutil.which("php") is None, reason="php is not installed (php-cli and php-xml)"
)


@dataclass(frozen=True)
class Pfsense:
    """A folder in which the stand-in keeps its config.xml, and the kit's script."""

    folder: Path
    script: Path

    def run(self, *arguments: str, fail: str = "", includes: Path = PHP / "standin") -> str:
        """Run the script; return its exit code and all it said, as text."""
        done = subprocess.run(
            [
                *("php", "-d", f"include_path={includes}", "-d", "error_reporting=-1"),
                *("-d", "display_errors=stderr", str(self.script), *arguments),
            ],
            env={**os.environ, "STANDIN": str(self.folder), "STANDIN_FAIL": fail},
            capture_output=True,
            text=True,
            check=False,
        )
        return f"{done.returncode}: {done.stdout}{done.stderr}"

    @property
    def xml(self) -> str:
        """config.xml, without the revision, which every write changes."""
        return REVISION.sub("", (self.folder / "config.xml").read_text())

    def edit(self, old: str, new: str) -> None:
        """Change config.xml as the GUI, or a package, might."""
        file = self.folder / "config.xml"
        assert old in file.read_text()
        file.write_text(file.read_text().replace(old, new, 1))

    @property
    def calls(self) -> list[str]:
        """What was asked of pfSense so far."""
        file = self.folder / "calls"
        return file.read_text().splitlines() if file.exists() else []


def made(folder: Path, name: str, old: str = "", new: str = "") -> Pfsense:
    """Render the kit for a config of tests/data/edge, one word changed, beside a stand-in."""
    config = (CONFIGS / f"{name}.toml").read_text()
    (folder / "backup-mx.toml").write_text(config.replace(old, new) if old else config)
    [script] = [
        file for file in render(load(folder / "backup-mx.toml"), "pfsense") if file.path == SCRIPT
    ]
    (folder / "kit.php").write_bytes(script.content)
    if not (folder / "config.xml").exists():
        shutil.copy(PHP / "config.xml", folder / "config.xml")
    return Pfsense(folder, folder / "kit.php")


@pytest.fixture
def plain(tmp_path: Path) -> Pfsense:
    """Two relays that drain to a port of the WAN."""
    return made(tmp_path, "plain")


@pytest.fixture
def tunnel(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Pfsense:
    """A relay that drains through a tunnel."""
    monkeypatch.setenv("MX2_KEY", KEY)
    return made(tmp_path, "tunnel")


def entry(xml: str, words: str) -> str:
    """Return the innermost element of a list that holds ``words``, without white space."""
    found = [
        element
        for element in re.findall(r"<(?:rule|alias|item)>.*?</(?:rule|alias|item)>", xml, re.DOTALL)
        if words in element
    ]
    assert len(found) == 1, f"{words}: {len(found)} times"
    return re.sub(r"\s+", "", found[0])


def test_a_port_forward_for_the_relays_is_written_with_its_rule(plain: Pfsense) -> None:
    """The WAN's drain port goes to the inner address, for an alias of all relays only."""
    assert plain.run().startswith("0: ")
    alias = entry(plain.xml, "<name>backup_mx_relays</name>")
    assert "<type>host</type><address>203.0.113.20203.0.113.21</address>" in alias
    assert "<detail><![CDATA[mx2.example.org||mx3.example.org]]></detail>" in alias
    nat = entry(plain.xml, "<target>10.0.10.1</target>\n\t\t\t<local-port>2526</local-port>")
    assert nat.startswith(
        "<rule><source><address>backup_mx_relays</address></source>"
        "<destination><network>wanip</network><port>2526</port></destination>"
        "<ipprotocol>inet</ipprotocol><protocol>tcp</protocol>"
    )
    rule = entry(plain.xml, "NAT backup-mx: drain")
    assert "<source><address>backup_mx_relays</address></source>" in rule
    assert "<destination><address>10.0.10.1</address><port>2526</port></destination>" in rule
    tie = "<associated-rule-id>nat_backup_mx_drain</associated-rule-id>"
    assert tie in nat
    assert tie in rule
    assert re.search(r"<tracker>[0-9]{10}</tracker>", rule)
    assert plain.calls == ["write_config backup-mx: let the relays in", "filter_configure"]
    assert "disabled" not in nat + rule


def test_a_tunnel_gets_its_peer_and_its_rules(tunnel: Pfsense) -> None:
    """The package's own peer, with the inner address alone, on the tunnel that has the key."""
    assert "WireGuard: tun_wg1 runs with it\ndone\n" in tunnel.run()
    peer = entry(tunnel.xml, f"<publickey>{PUBLIC}</publickey>")
    row = "<row><address>10.0.20.2</address><mask>32</mask><descr></descr></row>"
    assert f"<allowedips>{row}</allowedips><enabled>yes</enabled><tun>tun_wg1</tun>" in peer
    assert "endpoint" not in peer
    assert KEY not in tunnel.xml + tunnel.script.read_text()
    dial = entry(tunnel.xml, "[backup-mx: tunnel]")
    assert "<interface>wan</interface><ipprotocol>inet</ipprotocol><protocol>udp</protocol>" in dial
    assert "<destination><network>wanip</network><port>51820</port></destination>" in dial
    nat = entry(tunnel.xml, "[backup-mx: drain]")
    assert "<destination><address>10.0.20.1</address><port>2526</port></destination>" in nat
    assert "<interface>WireGuard</interface>" in nat


def test_an_assigned_tunnel_is_filtered_on_its_own_interface(tunnel: Pfsense) -> None:
    """pfSense filters an assigned tunnel on its interface, not in the package's group."""
    tunnel.edit(
        "\t</interfaces>", "\t\t<opt1>\n\t\t\t<if>tun_wg1</if>\n\t\t</opt1>\n\t</interfaces>"
    )
    tunnel.run()
    assert "<interface>opt1</interface>" in entry(tunnel.xml, "[backup-mx: drain]")


@pytest.mark.parametrize("kind", ["plain", "tunnel"])
def test_again_changes_nothing(kind: str, request: pytest.FixtureRequest) -> None:
    """A second run finds everything in place: pfSense is not even asked to write."""
    pfsense: Pfsense = request.getfixturevalue(kind)
    pfsense.run()
    before, calls = (pfsense.folder / "config.xml").read_bytes(), pfsense.calls
    assert pfsense.run() == "0: nothing to change\n"
    assert pfsense.run("--diff") == "0: nothing to change\n"
    assert ((pfsense.folder / "config.xml").read_bytes(), pfsense.calls) == (before, calls)


@pytest.mark.parametrize("kind", ["plain", "tunnel"])
def test_a_diff_shows_all_and_touches_nothing(kind: str, request: pytest.FixtureRequest) -> None:
    """--diff says what would be added, ends with 4, and writes nothing."""
    pfsense: Pfsense = request.getfixturevalue(kind)
    said = pfsense.run("--diff")
    assert said.startswith("4: to add: aliases/alias: backup-mx: the relays\n")
    assert "to add: nat/rule: backup-mx: drain" in said
    assert said.endswith("nothing was changed\n")
    assert pfsense.calls == []
    assert (pfsense.folder / "config.xml").read_text() == (PHP / "config.xml").read_text()


@pytest.mark.parametrize("kind", ["plain", "tunnel"])
def test_removing_leaves_the_file_as_it_was(kind: str, request: pytest.FixtureRequest) -> None:
    """After --remove config.xml is what it was, byte for byte, but for the revision."""
    pfsense: Pfsense = request.getfixturevalue(kind)
    before = pfsense.xml
    pfsense.run()
    assert pfsense.xml != before
    assert pfsense.run("--remove").startswith("0: ")
    assert pfsense.xml == before
    assert pfsense.run("--remove") == "0: nothing to change\n"


def test_removing_takes_the_peer_out_of_the_running_tunnel(tunnel: Pfsense) -> None:
    """The relay can no longer dial in, at once."""
    tunnel.run()
    assert PUBLIC in (tunnel.folder / "running.json").read_text()
    tunnel.run("--remove")
    assert PUBLIC not in (tunnel.folder / "running.json").read_text()


def test_what_is_others_stays_as_it_is_and_where_it_is(plain: Pfsense) -> None:
    """Rules that the operator adds before and behind ours survive a change and the removal."""
    plain.run()
    theirs = (
        "\t\t<rule>\n\t\t\t<type>pass</type>\n\t\t\t<interface>lan</interface>\n"
        "\t\t\t<descr><![CDATA[mine: after backup-mx: drain]]></descr>\n\t\t</rule>\n"
    )
    plain.edit("\t\t<separator>\n", f"{theirs}\t\t<separator>\n")
    plain.edit("<local-port>2526</local-port>", "<local-port>25</local-port>")
    before = plain.xml
    assert "written and verified: nat/rule" in plain.run()
    mended = before.replace(
        "<local-port>25</local-port>\n\t\t\t<interface>wan</interface>\n\t\t\t<descr><![CDATA[backup",
        "<local-port>2526</local-port>\n\t\t\t<interface>wan</interface>\n\t\t\t<descr><![CDATA[backup",
    )
    assert plain.xml == mended
    plain.run("--remove")
    assert plain.xml.replace(theirs, "") == REVISION.sub("", (PHP / "config.xml").read_text())
    assert theirs in plain.xml


def test_a_rule_that_is_mended_keeps_its_number(plain: Pfsense) -> None:
    """pfSense's logs and states name a rule by its tracker."""
    plain.run()
    right = plain.xml
    plain.edit(
        "NAT backup-mx: drain]]></descr>", "NAT backup-mx: drain]]></descr>\n\t\t\t<log></log>"
    )
    assert plain.run() == "0: written and verified: filter/rule\ndone\n"
    assert plain.xml == right


def test_a_relay_that_goes_leaves_the_alias(plain: Pfsense) -> None:
    """With another config the same entries are changed, not doubled."""
    plain.run()
    fewer = made(plain.folder, "plain", "203.0.113.21", "203.0.113.22")
    said = fewer.run()
    assert said == "0: written and verified: aliases/alias\ndone\n"
    assert "203.0.113.20203.0.113.22" in entry(fewer.xml, "<name>backup_mx_relays</name>")


def test_a_peer_that_the_package_dropped_is_mended(tunnel: Pfsense) -> None:
    """Neither config.xml without the peer nor a tunnel that runs without it stays so."""
    tunnel.run()
    right = tunnel.xml
    dropped = re.search(
        r"\t{4}<item>\n(?:(?!</item>).)*backup-mx: mx2.*?</item>\n", right, re.DOTALL
    )
    assert dropped
    tunnel.edit(dropped[0], "")
    (tunnel.folder / "running.json").write_text('{"tun_wg1": []}')
    assert "WireGuard: tun_wg1 runs with it" in tunnel.run()
    assert tunnel.xml == right
    (tunnel.folder / "running.json").write_text('{"tun_wg1": []}')
    assert tunnel.run("--diff").startswith("4: to sync: the running peers of tun_wg1\n")
    assert tunnel.run() == "0: WireGuard: tun_wg1 runs with it\ndone\n"


@pytest.mark.parametrize(
    ("fail", "message"),
    [
        ("write", "pfSense did not write config.xml"),
        ("lost", "config.xml was written, but does not hold what it should"),
        ("meanwhile", "somebody else has changed config.xml meanwhile"),
        ("sync", "config.xml is right, but WireGuard did not take it over"),
    ],
)
def test_a_step_that_fails_is_told(tunnel: Pfsense, fail: str, message: str) -> None:
    """Nothing is believed because a function returned: exit code 1, and where to look."""
    said = tunnel.run(fail=fail)
    assert said.startswith("1: ")
    assert message in said
    assert "done" not in said


def test_a_service_that_does_not_run_is_told(tunnel: Pfsense) -> None:
    """The peer is in config.xml for when WireGuard is switched on."""
    assert "note: the WireGuard service does not run" in tunnel.run(fail="stopped")
    assert PUBLIC in tunnel.xml


def test_a_rule_that_blocks_all_before_ours_is_told(plain: Pfsense) -> None:
    """pfSense appends new rules: one that blocks everything would come first."""
    block = (
        "\t\t<rule>\n\t\t\t<type>block</type>\n\t\t\t<interface>wan</interface>\n"
        "\t\t\t<source>\n\t\t\t\t<any></any>\n\t\t\t</source>\n"
        "\t\t\t<destination>\n\t\t\t\t<any></any>\n\t\t\t</destination>\n"
        "\t\t\t<descr><![CDATA[no more]]></descr>\n\t\t</rule>\n"
    )
    plain.edit("\t\t<separator>\n", f"{block}\t\t<separator>\n")
    assert 'note: the rule "no more" on wan blocks all and comes first' in plain.run()


THEIRS = """\t\t<rule>
\t\t\t<source><any></any></source>
\t\t\t<destination><network>wanip</network><port>2526</port></destination>
\t\t\t<ipprotocol>inet</ipprotocol>
\t\t\t<protocol>tcp</protocol>
\t\t\t<target>10.0.10.1</target>
\t\t\t<local-port>25</local-port>
\t\t\t<interface>wan</interface>
\t\t\t<descr><![CDATA[My drain]]></descr>
\t\t</rule>
"""
PORTS = (
    "\t<aliases><alias><name>mail</name><type>port</type><address>25 more</address></alias>"
    "<alias><name>more</name><type>port</type><address>2520:2530</address></alias>"
    "<alias><name>web</name><type>port</type><address>80 443</address></alias></aliases>"
)


def forwarded(pfsense: Pfsense, old: str, new: str) -> str:
    """Run the script beside a port forward of the operator's, a word of it changed."""
    assert old in THEIRS
    pfsense.edit("\t<aliases></aliases>", PORTS)
    pfsense.edit("\t</nat>", (THEIRS.replace(old, new) if old else THEIRS) + "\t</nat>")
    return pfsense.run()


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("", ""),
        ("2526", "2500-2600"),
        ("2526", "mail"),
        ("<port>2526</port>", ""),
        (">tcp<", ">tcp/udp<"),
        ("\t\t\t<protocol>tcp</protocol>\n", ""),
        (">inet<", ">inet46<"),
    ],
)
def test_a_port_forward_that_takes_ours_is_told(plain: Pfsense, old: str, new: str) -> None:
    """The first that matches has the connection, and that one may be open to everybody."""
    said = forwarded(plain, old, new)
    assert said.startswith("0: ")
    assert (
        'note: the port forward "My drain" on wan covers port 2526 and comes first: move it below'
        " ours, or disable it\n"
    ) in said
    assert "My drain" in plain.run()


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("2526", "2527"),
        ("2526", "25-2525"),
        ("2526", "web"),
        (">wan<", ">lan<"),
        (">tcp<", ">udp<"),
        (">inet<", ">inet6<"),
        ("<descr>", "<disabled></disabled>\n\t\t\t<descr>"),
    ],
)
def test_other_port_forwards_are_not_told_of(plain: Pfsense, old: str, new: str) -> None:
    """What is disabled, or is for other connections, stands in nobody's way."""
    said = forwarded(plain, old, new)
    assert said.startswith("0: ")
    assert "note:" not in said


def test_a_port_forward_behind_ours_is_not_told_of(plain: Pfsense) -> None:
    """Ours comes first then."""
    plain.run()
    plain.edit("\t</nat>", THEIRS + "\t</nat>")
    assert plain.run() == "0: nothing to change\n"


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        (
            "<publickey>xTIBA5rb",
            "<publickey>yTIBA5rb",
            "3: no WireGuard tunnel here has the public key",
        ),
        ("\t\t<wan>\n\t\t\t<enable>", "\t\t<opt7>\n\t\t\t<enable>", ""),
        (
            "\t<aliases></aliases>",
            "\t<aliases>\n\t\t<alias>\n\t\t\t<name>backup_mx_inner</name>\n"
            "\t\t\t<descr>mine</descr>\n\t\t</alias>\n\t</aliases>",
            "1: an alias backup_mx_inner is here that this did not make",
        ),
        (
            "2T1mCjyXVP0hsKqIrRzUeLe3RU4Yw1u6ViWAhGvXPmQ=",
            PUBLIC,
            '1: the WireGuard peer "My phone" has a relay\'s key',
        ),
    ],
)
def test_what_does_not_fit_is_refused(tunnel: Pfsense, old: str, new: str, message: str) -> None:
    """Where something is missing or taken, it is said, and nothing is written."""
    if "<wan>" in old:
        tunnel.edit("\t\t</wan>\n\t\t<lan>", "\t\t</opt7>\n\t\t<lan>")
        message = '3: there is no interface "wan" here, but opt7, lan'
    tunnel.edit(old, new)
    before = tunnel.xml
    assert tunnel.run().startswith(message)
    assert (tunnel.xml, tunnel.calls) == (before, [])


def test_an_alias_that_others_use_is_not_removed(plain: Pfsense) -> None:
    """A rule of the operator's would lose its addresses, and pfSense would skip it."""
    plain.run()
    plain.edit(
        "<descr><![CDATA[Default allow LAN to any rule]]>",
        "<descr><![CDATA[Mine]]>",
    )
    plain.edit("<network>lan</network>", "<address>backup_mx_relays</address>")
    before = plain.xml
    assert plain.run("--remove") == '1: "Mine" uses the alias backup_mx_relays: change that first\n'
    assert plain.xml == before


@pytest.mark.parametrize("arguments", [["--undo"], ["--diff", "--remove"], ["apply"], [""]])
def test_an_unknown_argument_is_refused(plain: Pfsense, arguments: list[str]) -> None:
    """Exit code 2, with the usage, and nothing is done."""
    said = plain.run(*arguments)
    assert said.startswith("2: I do not know")
    assert "usage: php backup-mx-edge.php [--diff | --remove | --help]" in said
    assert plain.calls == []


def test_help_is_given(plain: Pfsense) -> None:
    """--help says how to use it."""
    assert plain.run("--help").startswith("0: usage:")


def test_a_machine_that_is_no_pfsense_is_told(plain: Pfsense, tunnel: Pfsense) -> None:
    """Without pfSense's functions, or its package, the exit code is 3."""
    nothing = plain.folder / "nothing"
    nothing.mkdir()
    assert plain.run(includes=nothing) == (
        "3: config.inc is not on this machine: is it a pfSense?\n"
    )
    for name in ("config.inc", "util.inc", "filter.inc"):
        shutil.copy(PHP / "standin" / name, nothing)
    assert tunnel.run(includes=nothing).startswith("3: the package WireGuard is not installed")


def test_a_broken_config_xml_is_left_alone(plain: Pfsense) -> None:
    """What cannot be parsed is not written over."""
    plain.edit("</interfaces>", "")
    before = plain.xml
    assert not plain.run().startswith("0: ")
    assert plain.xml == before
