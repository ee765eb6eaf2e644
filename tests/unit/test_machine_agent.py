"""The agent's layer of a relay: what it adds to the mail layer, and what it never does to it."""

from __future__ import annotations

import ast
import inspect
import json
import re
from pathlib import Path

import pytest

from backup_mx import config
from backup_mx.config import Config
from backup_mx.errors import MachineError, SecretError
from backup_mx.machine import cloudinit
from backup_mx.machine.agent import LIBRARY
from backup_mx.machine.apply.files import File
from backup_mx.machine.apply.system import run
from backup_mx.machine.tree import ACME_PACKAGES, AGENT_PACKAGES, SERVICES, Tree, tree
from backup_mx.relay import settings

ROOT = Path(__file__).parents[2]
FIVE_LINES = ROOT / "tests/data/config/five-lines.toml"
FULL = ROOT / "tests/golden/full.toml"
SOURCE = ROOT / "src/backup_mx"
GUARD_BOOT = "/etc/systemd/system/backup-mx-guard-boot.service"
BUDGET = 16_000
"""Bytes of user-data as base64 that a five-line config may need (design, budgets)."""


@pytest.fixture(scope="module")
def full() -> Config:
    """A config with every option."""
    return config.load(FULL)


@pytest.fixture(scope="module")
def layers(full: Config) -> tuple[Tree, Tree]:
    """A relay's mail layer, and all of it."""
    return tree(full, "backup", agent=False), tree(full, "backup")


def files(made: Tree) -> dict[str, File]:
    """Return a tree's files by path."""
    return {str(file.path): file for file in made.files}


def test_user_data_stays_within_its_budget() -> None:
    """Five lines become at most 16,000 bytes: the agent is not in it."""
    assert cloudinit.size(cloudinit.user_data(config.load(FIVE_LINES), "mx2")) <= BUDGET


def test_the_agents_layer_takes_nothing_away(layers: tuple[Tree, Tree]) -> None:
    """Every file, package, check and service of the mail layer is in the whole as well."""
    mail, whole = layers
    assert files(mail).keys() < files(whole).keys()
    assert {*mail.packages, *AGENT_PACKAGES, *ACME_PACKAGES} == {*whole.packages}
    assert {*mail.checks} < {*whole.checks}
    assert [each for each in whole.services if each in mail.services] == list(mail.services)


def test_the_mail_layer_knows_no_agent(layers: tuple[Tree, Tree]) -> None:
    """What a machine boots from names nothing that only a deploy brings."""
    mail, _ = layers
    for path, file in files(mail).items():
        for word in (b"9726", b"/etc/backup-mx/maintenance", b"/etc/backup-mx/recipients", b"9725"):
            assert word not in file.content, path


def test_what_main_cf_names_is_made_before_postfix_reads_it(layers: tuple[Tree, Tree]) -> None:
    """A missing table would put all mail off: its folder and file come first."""
    units = [service.unit for service in layers[1].services]
    assert units.index("backup-mx-setup.service") < units.index("postfix.service")
    assert units.index("postfix.service") < units.index("backup-mx-agent.service")
    made = files(layers[1])["/etc/tmpfiles.d/backup-mx.conf"].content.decode()
    named = files(layers[1])["/etc/postfix/main.cf"].content.decode()
    swapped = [str(file.path) for file in layers[1].files]
    for path in ("/etc/backup-mx/maintenance", "/etc/backup-mx/recipients/example.net"):
        assert f"texthash:{path}" in named
        assert f"\nf {path} " in made
        assert swapped.index(path) < swapped.index("/etc/postfix/main.cf")


def test_what_the_relay_rewrites_a_deploy_leaves_alone(layers: tuple[Tree, Tree]) -> None:
    """The tables of maintenance and of what was fetched, and nothing else, are written once."""
    assert [path for path, file in files(layers[1]).items() if file.once] == [
        "/etc/backup-mx/maintenance",
        "/etc/backup-mx/recipients/example.net",
    ]
    assert not any(file.once for file in layers[0].files)
    everybody = files(layers[1])["/etc/backup-mx/recipients/example.net"].content.decode()
    assert everybody.splitlines()[1:] == ["@example.net exists"]


def test_maintenance_keeps_callouts_from_the_primary_too(layers: tuple[Tree, Tree]) -> None:
    """Who is being restored is not asked; the mail layer knows no maintenance."""
    asked = [
        next(line for line in text.splitlines() if line.startswith("address_verify_transport_maps"))
        for text in (files(layer)["/etc/postfix/main.cf"].content.decode() for layer in layers)
    ]
    callout = "texthash:/etc/postfix/callout"
    assert asked == [
        f"address_verify_transport_maps = {callout}",
        f"address_verify_transport_maps = texthash:/etc/backup-mx/maintenance, {callout}",
    ]


def test_postfix_depends_on_nothing_of_the_agents(layers: tuple[Tree, Tree]) -> None:
    """No unit of the agent's layer stands in front of Postfix, but one that only delays it."""
    for path, file in files(layers[1]).items():
        if path.startswith("/etc/systemd/system/backup-mx-") and path not in files(layers[0]):
            assert (b"Before=" in file.content) == (path == GUARD_BOOT), path
            assert b"RequiredBy=" not in file.content, path
    assert all("backup-mx" not in str(each.files) for each in SERVICES if each.port == 25)


def test_the_guard_before_postfix_does_not_keep_it_from_starting(
    layers: tuple[Tree, Tree],
) -> None:
    """With the volume there, and for minutes at most; if it fails, Postfix starts all the same."""
    agent = files(layers[1])
    unit = agent[GUARD_BOOT].content.decode()
    assert {
        "After=backup-mx-volume.service",
        "Before=postfix.service postfix@-.service",
        "Type=oneshot",
        "ExecStart=/usr/bin/python3 -P -m backup_mx.relay.root.guard now",
    } <= set(unit.splitlines())
    assert not re.search("^(Requires|BindsTo|Conflicts|.*By)=", unit, re.MULTILINE)
    [minutes] = re.findall("^TimeoutStartSec=([0-9]+)min$", unit, re.MULTILINE)
    waits = inspect.signature(run).parameters["timeout"].default
    assert int(minutes) * 60 + 60 <= waits, "the start that a deploy waits for has to fit, too"
    for name in ("postfix.service", "postfix@-.service"):
        dropin = agent[f"/etc/systemd/system/{name}.d/backup-mx-agent.conf"].content.decode()
        says = [line for line in dropin.splitlines() if not line.startswith("#")]
        assert says == ["[Unit]", "Wants=backup-mx-guard-boot.service"]


def test_what_runs_as_root_is_in_one_sandbox(layers: tuple[Tree, Tree]) -> None:
    """Guard and helper do the same to the same queue; only what each may write to may differ."""

    def sandbox(unit: str) -> list[str]:
        content = files(layers[1])[f"/etc/systemd/system/{unit}"].content.decode()
        start = content.index("\nNoNewPrivileges=")
        lines = content[start:].splitlines()
        return [line for line in lines if not line.startswith(("#", "ReadWritePaths="))]

    guard = sandbox("backup-mx-guard.service")
    assert "ProtectSystem=strict" in guard
    assert sandbox("backup-mx-guard-boot.service") == guard
    assert sandbox("backup-mx-helper.service") == guard


def test_the_code_is_the_repositorys(layers: tuple[Tree, Tree]) -> None:
    """Each module of relay is on the relay as it is, and of net what it needs; nothing else is."""
    there = {
        path.removeprefix(f"{LIBRARY}/backup_mx/"): file.content
        for path, file in files(layers[1]).items()
        if path.startswith(f"{LIBRARY}/backup_mx/")
    }
    wanted = {
        str(path.relative_to(SOURCE)): path.read_bytes()
        for path in (SOURCE / "relay").rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }
    needed = ("__init__", "canary", "certificate", "fetch", "tls", "wire")
    net = [f"net/{name}.py" for name in needed]
    own = {name: (SOURCE / name).read_bytes() for name in ("__init__.py", "errors.py", *net)}
    assert there == wanted | own


def test_the_code_finds_all_it_imports_of_ours(layers: tuple[Tree, Tree]) -> None:
    """No module on the relay imports one of ours that is not there."""
    there = {path for path in files(layers[1]) if path.startswith(LIBRARY)}
    modules = {
        path.removeprefix(f"{LIBRARY}/").removesuffix(".py").removesuffix("/__init__")
        for path in there
    }
    for path in sorted(each for each in there if each.endswith(".py")):
        for node in ast.walk(ast.parse(files(layers[1])[path].content)):
            if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("backup_mx"):
                assert str(node.module).replace(".", "/") in modules, (path, node.module)


def test_modes(layers: tuple[Tree, Tree]) -> None:
    """The settings, with secrets in them, are root's alone; the verbs can be run."""
    made = files(layers[1])
    assert made["/etc/backup-mx/agent.json"].mode == "0600"
    assert made["/usr/local/bin/backup-mx"].mode == "0755"
    others = made.keys() - {"/etc/backup-mx/agent.json", "/usr/local/bin/backup-mx"}
    assert {made[path].mode for path in others} == {"0644"}


def test_the_settings_are_read_back_as_they_were_meant(layers: tuple[Tree, Tree]) -> None:
    """What deploy writes is what the agent reads, secrets and units included."""
    text = files(layers[1])["/etc/backup-mx/agent.json"].content.decode()
    told = settings.from_json(json.loads(text))
    assert (told.relay, told.hostname) == ("backup", "mx2.example.org")
    assert [each.domains for each in told.targets] == [
        ("example.org",),
        ("example.com", "example.net"),
    ]
    assert [each.tunnel for each in told.targets] == ["", ""]
    assert told.retention == 14 * 86400
    assert told.dashboard_password == "not a secret"  # noqa: S105  it says so
    assert told.notify_urls == ("ntfys://ntfy.example.net/nobodys",)
    assert told.text == text


def test_a_secret_that_is_not_there_is_no_matter_of_user_data() -> None:
    """Only the agent is told secrets: user-data is made without reading them, a bundle is not."""
    text = f'{FIVE_LINES.read_text()}\n[notify]\nurls = [{{ command = ["false"] }}]\n'
    made = config.parse(text, "test")
    assert tree(made, "mx2", agent=False)
    with pytest.raises(SecretError):
        tree(made, "mx2")


TABLES = '[domain."table.example"]\nprimary = "{}"\nrecipients = {{ table = "{}" }}\n'


def test_a_table_of_recipients_is_checked_when_a_relay_is_made(tmp_path: Path) -> None:
    """One message that names the file and the line; a file that is not there is named, too."""
    place = tmp_path / "recipients.txt"
    text = FIVE_LINES.read_text() + TABLES.format(
        next(iter(config.load(FIVE_LINES).primaries)), place
    )
    made = config.parse(text, "test")
    with pytest.raises(MachineError, match=rf"{place} cannot be read: No such file"):
        tree(made, "mx2")
    place.write_text("# who is there\n\nalice\nbob@elsewhere.example\n")
    with pytest.raises(MachineError, match=rf'{place}, line 4: "bob@elsewhere.example" is not in'):
        tree(made, "mx2")
    place.write_text("alice\n")
    known = files(tree(made, "mx2"))["/etc/postfix/recipients"].content.decode()
    assert "\nalice@table.example exists\n" in known
    assert "\npostmaster@table.example exists\n" in known
