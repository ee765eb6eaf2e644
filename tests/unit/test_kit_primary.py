"""What a primary's kit renders to, and that its program is a shell script anywhere."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import pytest

from backup_mx import config
from backup_mx.kit import primary
from backup_mx.kit.files import KitFile

KITS = Path(__file__).parents[1] / "golden" / "kits.toml"
ELEMENTS = "elements"
CORE = {
    "backup-mx-kit",
    "elements",
    "files/etc/postfix/backup-mx/postscreen_access.cidr",
    "files/etc/postfix/backup-mx/relays.cidr",
    "files/etc/rspamd/backup-mx/merged.conf",
    "files/etc/rspamd/lua.local.d/backup_mx.lua",
    "files/etc/rspamd/lua.local.d/backup_mx_probe.lua",
    "files/etc/rspamd/modules.local.d/backup_mx.conf",
}


def kit(name: str = "home") -> dict[str, KitFile]:
    """Return the kit of a primary of kits.toml, by path."""
    return {file.path: file for file in primary.render(config.load(KITS), name)}


def text(files: dict[str, KitFile], path: str) -> str:
    """Return a file's content as text."""
    return files[path].content.decode()


def options(elements: str) -> list[tuple[str, str]]:
    """Return what an elements file puts in: option and element."""
    pairs = (line.split(" = ", 1) for line in elements.splitlines() if not line.startswith("#"))
    return [(pair[0], pair[1]) for pair in pairs if len(pair) == 2]


def test_a_kit_is_these_files() -> None:
    """The kit for plain Postfix is its program and what that puts in place, with a page on it."""
    assert set(kit()) == CORE | {"README.md"}
    assert kit()["backup-mx-kit"].mode == "0755"


def test_docker_mailserver_gets_the_same_below_its_own_folder() -> None:
    """That image runs the same program at each start, from Compose's folder or a ConfigMap."""
    files = kit("office")
    assert set(files) == {f"config/backup-mx/{path}" for path in CORE} | {
        "README.md",
        "config/user-patches.sh",
        "kubernetes/backup-mx.yaml",
        "kubernetes/deployment-patch.yaml",
    }


def test_each_address_is_written_as_its_reader_wants_it() -> None:
    """An IPv6 address is in brackets in Postfix's lists, and a network in tables and for SPF."""
    elements = options(text(kit(), ELEMENTS))
    assert [value for name, value in elements if name == "smtpd_authorized_xforward_hosts"] == [
        "203.0.113.20",
        "[2001:db8::20]",
    ]
    assert [value for name, value in elements if name == "skip_addresses"] == [
        "203.0.113.20/32",
        "2001:db8::20/128",
    ]
    table = text(kit(), "files/etc/postfix/backup-mx/relays.cidr")
    assert re.findall("^[^#].*$", table, re.MULTILINE) == [
        "203.0.113.20/32 OK",
        "2001:db8::20/128 OK",
    ]


def test_in_a_tunnel_it_is_the_inner_address() -> None:
    """Where there is a tunnel the relays are met inside it; rspamd is told the public ones too."""
    files = kit("office")
    assert "203.0.113.20" not in text(files, "config/backup-mx/elements")
    assert "[fd00:20::3]" in text(files, "config/backup-mx/elements")
    lua = text(files, "config/backup-mx/files/etc/rspamd/lua.local.d/backup_mx.lua")
    assert "['10.0.20.2'] = '203.0.113.20'" in lua
    assert "['fd00:20::3'] = '2001:db8::20'" in lua


def test_domains_are_those_of_this_primary() -> None:
    """A sender is one's own where the mailboxes are here."""
    lua = text(kit(), "files/etc/rspamd/lua.local.d/backup_mx.lua")
    assert re.findall(
        r"\['(.*)'\] = true,$", lua.split("DOMAINS", 1)[1].split("}")[0], re.MULTILINE
    ) == [
        "example.org",
        "xn--bcher-kva.example",
    ]


@pytest.mark.parametrize("name", ["home", "office"])
def test_a_relay_never_becomes_a_trusted_host(name: str) -> None:
    """Nothing in a kit puts anything into mynetworks, or opens the door to relaying."""
    for path, file in kit(name).items():
        if path.endswith("elements"):
            names = {option for option, _ in options(file.content.decode())}
            assert not names & {"mynetworks", "smtpd_relay_restrictions", "relay_domains"}
        assert b"mynetworks =" not in file.content
        assert b"mynetworks=" not in file.content


@pytest.mark.parametrize("layer", primary.LAYERS)
def test_every_layer_has_a_block_that_says_why(layer: str) -> None:
    """Each layer stands in a block of its own, which begins with its reason."""
    marker = re.compile(
        rf"(#|--) layer: {layer}\n(.*?)\1 end of layer\n".replace(r"\1", "(?:#|--)"), re.DOTALL
    )
    blocks = [found for file in kit().values() for found in marker.findall(file.content.decode())]
    assert blocks
    assert any(re.search(r"^\s*(#|--) \w", block, re.MULTILINE) for _, block in blocks)


@pytest.mark.parametrize("name", ["home", "office"])
def test_every_block_ends(name: str) -> None:
    """As many blocks end as begin, and no layer is without a name that is known."""
    for file in kit(name).values():
        content = file.content.decode()
        begun = re.findall(r"^\s*(?:#|--) layer: (\S+)$", content, re.MULTILINE)
        assert len(begun) == len(re.findall(r"^\s*(?:#|--) end of layer$", content, re.MULTILINE))
        assert set(begun) <= set(primary.LAYERS)


def test_a_config_map_holds_each_file_whole() -> None:
    """What Kubernetes mounts is byte for byte what Compose mounts."""
    files = kit("office")
    data = text(files, "kubernetes/backup-mx.yaml").split("data:\n", 1)[1]
    entries = re.findall(r"^  (\S+): \|2\n((?:(?:    .*)?\n)+)", data, re.MULTILINE)
    held = {key: re.sub("^    ", "", body, flags=re.MULTILINE) for key, body in entries}
    patch = text(files, "kubernetes/deployment-patch.yaml")
    paths = dict(re.findall(r"- key: (\S+)\n *path: (\S+)", patch))
    expected = {
        path.removeprefix("config/").removeprefix("backup-mx/"): file.content.decode()
        for path, file in files.items()
        if path.startswith("config/")
    }
    assert {paths[key]: body for key, body in held.items()} == expected
    assert all(re.fullmatch("[-._a-zA-Z0-9]+", key) for key in held)


def test_the_page_names_every_file() -> None:
    """The page that comes with a kit says where each of its files goes."""
    page = text(kit(), "README.md")
    assert all(f"`{path}`" in page for path in CORE if path.startswith("files/"))
    assert all(f"| {layer} |" in page for layer in primary.LAYERS)


@pytest.mark.parametrize("shell", ["sh", "dash", "bash", "busybox"])
def test_the_program_is_a_script_in_every_shell(shell: str, tmp_path: Path) -> None:
    """Its syntax is that of any POSIX shell."""
    if shutil.which(shell) is None:
        pytest.skip(f"no {shell} here: make packages")
    script = tmp_path / "backup-mx-kit"
    script.write_bytes(kit()["backup-mx-kit"].content)
    argv = [shell, "sh", "-n"] if shell == "busybox" else [shell, "-n"]
    subprocess.run([*argv, str(script)], check=True)


@pytest.mark.skipif(shutil.which("shellcheck") is None, reason="no shellcheck: make packages")
@pytest.mark.parametrize(
    ("name", "path"), [("home", "backup-mx-kit"), ("office", "config/user-patches.sh")]
)
def test_shellcheck_has_nothing_to_say(name: str, path: str, tmp_path: Path) -> None:
    """The scripts of a kit pass shellcheck."""
    script = tmp_path / "script"
    script.write_bytes(kit(name)[path].content)
    done = subprocess.run(["shellcheck", str(script)], capture_output=True, text=True, check=False)
    assert done.stdout == ""


@pytest.mark.parametrize("argument", [[], ["no-such-verb"], ["apply", "twice"]])
def test_without_a_verb_it_says_how_it_is_used(argument: list[str], tmp_path: Path) -> None:
    """Anything but one of its three verbs ends with its usage, and nothing is done."""
    script = tmp_path / "backup-mx-kit"
    script.write_bytes(kit()["backup-mx-kit"].content)
    done = subprocess.run(["sh", str(script), *argument], capture_output=True, check=False)
    assert done.returncode == 1
    assert b"apply|undo|status" in done.stderr


POSTCONF = """#!/bin/sh
case $1 in
  -h) echo "$PWD/postfix" ;;
  -hx) cat "$PWD/$2" 2>/dev/null ;;
  -n) cat "$PWD/set" 2>/dev/null ;;
esac
"""
"""A Postfix whose configuration is below the current folder."""


def run(folder: Path, command: str) -> subprocess.CompletedProcess[str]:
    """Run a command among the functions of the program, its paths below ``folder``."""
    for path, file in kit().items():
        target = folder / "kit" / path
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(file.content)
    postconf = folder / "bin" / "postconf"
    postconf.parent.mkdir(exist_ok=True)
    postconf.write_text(POSTCONF)
    postconf.chmod(0o755)
    functions, usage, _ = text(kit(), "backup-mx-kit").partition("[ $# = 1 ] ||")
    assert usage
    script = folder / "kit" / "functions"
    script.write_text(
        functions.replace("STATE=/var/lib/backup-mx-kit", f"STATE={folder}/state")
        .replace("SPF_CONF=/etc/postfix-policyd-spf-python/", f"SPF_CONF={folder}/")
        .replace('"/$file"', f'"{folder}/root/$file"')
        + f"WORK={folder}/work\n{command}\n"
    )
    path = f"{postconf.parent}:/usr/bin:/bin"
    argv = ["sh", str(script)]
    return subprocess.run(
        argv, cwd=folder, env={"PATH": path}, capture_output=True, text=True, check=True
    )


@pytest.mark.parametrize("written", ["", "TestOnly = 1\n", "TestOnly = 1\nLookup_Time = 20"])
def test_what_is_added_stands_on_a_line_of_its_own(written: str, tmp_path: Path) -> None:
    """policyd-spf.conf may end without a newline: its last option stays what it is."""
    conf = tmp_path / "policyd-spf.conf"
    conf.write_text(written)
    run(tmp_path, 'MODE=apply; edit_spf "$SPF_CONF"')
    *before, added = conf.read_text().splitlines()
    assert before == written.splitlines()
    assert added.startswith("skip_addresses = 203.0.113.20/32,2001:db8::20/128,127.0.0.0/8,")


def test_a_link_called_main_cf_is_edited_as_such(tmp_path: Path) -> None:
    """What main.cf leads to may have any name; master.cf is the one beside main.cf."""
    (tmp_path / "work").mkdir()
    (tmp_path / "postfix").mkdir()
    (tmp_path / "postfix" / "master.cf").write_text("services\n")
    (tmp_path / "shared.conf").write_text("myhostname = a.example\n")
    (tmp_path / "postfix" / "main.cf").symlink_to("../shared.conf")
    run(
        tmp_path,
        'edit_main() { cat "$1/main.cf" "$1/master.cf" >"$1/seen"; echo edited >"$1/main.cf"; }\n'
        'edit "$(edited_files)" "$PWD/shared.conf"',
    )
    assert (tmp_path / "work/edit/seen").read_text() == "myhostname = a.example\nservices\n"
    assert (tmp_path / "shared.conf").read_text() == "edited\n"


@pytest.mark.parametrize(
    ("earlier", "kept"), [(None, True), ("state/now", False), ("root/etc/postfix/backup-mx", False)]
)
def test_at_first_what_looks_like_ours_is_the_operators(
    earlier: str | None, kept: bool, tmp_path: Path
) -> None:
    """A relay's address that is there before the first apply was put in by hand: undo keeps it."""
    conf = tmp_path / "policyd-spf.conf"
    by_hand = "skip_addresses = 192.0.2.1,203.0.113.20/32"
    conf.write_text(by_hand)
    if earlier is not None:
        (tmp_path / earlier).mkdir(parents=True)
        (tmp_path / earlier / "relays.cidr").touch()
    run(tmp_path, 'stage "$SPF_CONF"')
    before = (tmp_path / f"work/before{conf}").read_text()
    assert before == (by_hand if kept else "skip_addresses = 192.0.2.1\n")
    assert "203.0.113.20/32,2001:db8::20/128" in (tmp_path / f"work/planned{conf}").read_text()


@pytest.mark.parametrize(
    ("conf", "expected"),
    [
        ("", "true false"),
        ("Mail_From_reject = Softfail", "true true"),
        ("Mail_From_reject = SPF_Not_Pass", "true true"),
        ("Mail_From_reject = False", "false false"),
        ("Mail_From_reject = Softfail\nTestOnly = 0", "false false"),
    ],
)
def test_what_spf_refuses_straight_is_what_policyd_spf_was_told(
    conf: str, expected: str, tmp_path: Path
) -> None:
    """Softfails are refused where policyd-spf.conf says so, and failures unless it says not."""
    (tmp_path / "set").write_text(
        "smtpd_recipient_restrictions = check_policy_service unix:private/policyd-spf\n"
    )
    (tmp_path / "policyd-spf.conf").write_text(conf)
    done = run(tmp_path, "say $(truth refuses_spf_failures) $(truth refuses_spf_softfails)")
    assert done.stdout.strip() == expected


def test_it_says_what_it_ends_and_cannot_do(tmp_path: Path) -> None:
    """Block lists and access tables behind the relays' OK are named, so is SPF done elsewhere."""
    (tmp_path / "set").write_text(
        "smtpd_recipient_restrictions = check_policy_service unix:private/policy-spf\n"
    )
    (tmp_path / "smtpd_client_restrictions").write_text(
        "check_client_access cidr:/etc/postfix/backup-mx/relays.cidr, permit_mynetworks,"
        " reject_rbl_client bl.example=127.0.0.2, check_client_access hash:/etc/postfix/deny\n"
    )
    (tmp_path / "smtpd_sender_restrictions").write_text(
        "permit_mynetworks reject_rhsbl_sender dbl.example\n"
    )
    lines = run(tmp_path, "notes").stderr.splitlines()
    assert "policy service" in lines[0]
    assert [line.split("rspamd: ")[1] for line in lines[1:]] == [
        "smtpd_client_restrictions: reject_rbl_client bl.example=127.0.0.2",
        "smtpd_client_restrictions: check_client_access hash:/etc/postfix/deny",
        "smtpd_sender_restrictions: reject_rhsbl_sender dbl.example",
    ]


def test_without_flock_it_does_not_begin(tmp_path: Path) -> None:
    """Two runs at once would undo each other's work, so it wants the means to prevent that."""
    done = run(
        tmp_path,
        'id() { say 0; }; have() { [ "$1" != flock ]; }; (require) || say "refused"',
    )
    assert done.stdout == "refused\n"
    assert "install util-linux" in done.stderr
    assert not (tmp_path / "state").exists()
