"""The house rules that code can break without any other test noticing."""

from __future__ import annotations

import ast
import functools
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

SOURCE = Path(__file__).parents[2] / "src" / "backup_mx"
MODULES = sorted(SOURCE.rglob("*.py"))
LAB_TESTS = Path(__file__).parents[1] / "lab"

# Who may import whom, by room; a package may always import itself.
ALLOWED: dict[str, set[str]] = {
    "errors": set(),
    "config/secret": {"errors"},
    "config/checks": set(),
    "config/values": {"config/checks", "config/secret", "errors"},
    "config/values_cloud": {"config/checks", "config/values"},
    "config/options_cloud": {"config/checks", "config/values", "config/values_cloud"},
    "config/values_live": {"config/checks", "config/values"},
    "config/options_live": {"config/checks", "config/values", "config/values_live"},
    "config/options": {
        "config/checks",
        "config/options_cloud",
        "config/options_live",
        "config/values",
    },
    "config/known": set(),
    "config/conflicts": {"config/known", "errors"},
    "config/mistakes": {"config/checks", "config/conflicts", "config/values", "errors"},
    "config/files": {
        "config/checks",
        "config/conflicts",
        "config/mistakes",
        "config/options",
        "config/secret",
        "config/values",
        "errors",
        "relay",
    },
    "config": {
        "config/checks",
        "config/conflicts",
        "config/files",
        "config/mistakes",
        "config/options",
        "config/options_cloud",
        "config/options_live",
        "config/values",
        "errors",
    },
    "config/sample": {"config/checks", "config/options"},
    "relay": {"errors", "net"},
    "machine": {
        "config",
        "config/files",
        "config/known",
        "config/options",
        "config/options_cloud",
        "config/values",
        "errors",
        "evidence",
        "findings",
        "mta_sts",
        "net",
        "relay",
    },
    "net": {"errors"},
    "findings": set(),
    "evidence": {"config", "errors", "findings", "relay"},
    "kit": {"config", "config/options", "config/values", "errors", "findings", "machine", "net"},
    "cloud": {"config", "config/known", "errors", "findings"},
    "mta_sts": {"config", "findings", "net"},
    "dns": {
        "config",
        "config/known",
        "config/options",
        "config/options_cloud",
        "config/options_live",
        "errors",
        "evidence",
        "findings",
        "machine",
        "mta_sts",
        "net",
        "relay",
    },
    "probe": {
        "config",
        "config/options",
        "config/options_live",
        "config/values",
        "dns",
        "errors",
        "evidence",
        "findings",
        "machine",
        "mta_sts",
        "net",
        "relay",
    },
    "gates": {
        "cloud",
        "config",
        "config/options",
        "config/values",
        "dns",
        "errors",
        "evidence",
        "findings",
        "kit",
        "machine",
        "monitoring",
        "mta_sts",
        "net",
        "probe",
        "relay",
    },
    "monitoring": {"config", "config/options", "config/values", "errors", "kit", "machine"},
    "lab": {"config", "errors", "kit", "machine", "relay"},
    "cli": {
        "cloud",
        "config",
        "config/sample",
        "dns",
        "errors",
        "evidence",
        "findings",
        "gates",
        "kit",
        "lab",
        "machine",
        "monitoring",
        "mta_sts",
        "net",
        "probe",
        "relay",
    },
}

# What decides, and all it imports: none of this can read, write, ask or know the time.
PURE = {"__future__", "collections.abc", "dataclasses", "enum", "math", "re", "typing"}
DOORS = {"open", "print", "input", "exec", "eval", "compile", "__import__"}

# By what one asks another machine, unless it is a program or a vendor's library.
CLIENTS = {
    *("smtplib", "imaplib", "poplib", "ftplib", "http.client", "urllib.request", "xmlrpc.client"),
    *("dns.query", "dns.resolver", "dns.asyncquery", "dns.asyncresolver"),
}
CALLS = {
    *("create_connection", "open_connection", "urlopen", "ClientSession"),
    *("getaddrinfo", "gethostbyname", "gethostbyname_ex"),
}
ON_A_SOCKET = {"connect", "connect_ex", "sendto"}
NEAR = {
    "machine/apply/services.py": "the machine's own port, on 127.0.0.1",
    "relay/operator/imports.py": "the machine's own Postfix",
    "relay/root/acme.py": "has the machine's own resolver look a name up",
    "relay/root/client.py": "the helper, at a UNIX socket",
    "relay/root/postlog.py": "Postfix's logger, at a UNIX socket",
    "relay/tasks/policyhosts.py": "the machine's own port, on 127.0.0.1",
    "relay/tasks/systemd.py": "systemd, at a UNIX socket",
}


def room(path: Path) -> str:
    """Return where a module is: a folder or a file at the top; each file of config is one."""
    parts = path.relative_to(SOURCE).parts
    wing = parts[0] == "config" and parts[1] != "__init__.py"
    return "/".join(parts[: 1 + wing]).removesuffix(".py")


@functools.cache
def parsed(path: Path) -> ast.Module:
    return ast.parse(path.read_text())


def imported(path: Path) -> Iterator[str]:
    for node in ast.walk(parsed(path)):
        if isinstance(node, ast.ImportFrom) and node.module and not node.level:
            yield node.module
            if node.module.startswith("backup_mx"):
                yield from (f"{node.module}.{alias.name}" for alias in node.names)
        elif isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)


def ours(path: Path) -> set[str]:
    names = [name.split(".")[1:] for name in imported(path) if name.startswith("backup_mx.")]
    places = [SOURCE.joinpath(*parts[: 2 if parts[0] == "config" else 1]) for parts in names]
    files = [file for at in places for file in (at.with_suffix(".py"), at / "__init__.py")]
    return {room(file) for file in files if file.exists()}


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(SOURCE)))
def test_imports_go_one_way(path: Path) -> None:
    """Config knows no machine, a machine knows no lab, and nobody imports the verbs."""
    if room(path) != "__init__":
        assert ours(path) <= ALLOWED[room(path)] | {room(path)}


@pytest.mark.parametrize(
    "path",
    [
        *(each for each in MODULES if room(each) == "machine" and each.parent.name == "apply"),
        SOURCE / "net" / "session.py",
        SOURCE / "net" / "sshkeys.py",
        SOURCE / "net" / "tls.py",
        SOURCE / "net" / "wire.py",
        SOURCE / "gates" / "inside.py",
    ],
)
def test_what_runs_on_the_machine_needs_nothing(path: Path) -> None:
    """relay.pyz, and what goes along with a program, import the standard library only."""
    assert {name.partition(".")[0] for name in imported(path)} <= sys.stdlib_module_names


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(SOURCE)))
def test_no_shell(path: Path) -> None:
    """Programs are given argument lists, never a shell's text."""
    for node in ast.walk(parsed(path)):
        assert not (isinstance(node, ast.keyword) and node.arg == "shell")


@pytest.mark.parametrize("name", ALLOWED)
def test_every_allowed_import_is_made(name: str) -> None:
    """Who may import whom is what is needed, and no more."""
    rooms = [path for path in MODULES if room(path) == name]
    assert ALLOWED[name] <= {other for path in rooms for other in ours(path)}


def reached(path: Path) -> set[Path]:
    """Return a module with all of ours that it imports, and that those do."""
    found, todo = set(), [path]
    while todo:
        found.add(one := todo.pop())
        names = [name.split(".")[1:] for name in imported(one) if name.startswith("backup_mx.")]
        places = [SOURCE.joinpath(*parts) for parts in names]
        files = [file for at in places for file in (at.with_suffix(".py"), at / "__init__.py")]
        todo += [file for file in files if file.exists() and file not in found]
    return found


@pytest.mark.parametrize("name", ["drain", "lifetime"])
def test_what_decides_does_nothing_else(name: str) -> None:
    """When mail is drained and how long it is kept is decided without any I/O, and any clock."""
    for path in reached(SOURCE / "relay" / "decide" / f"{name}.py"):
        foreign = {each for each in imported(path) if not each.startswith("backup_mx")}
        assert foreign <= PURE, path
        names = {node.id for node in ast.walk(parsed(path)) if isinstance(node, ast.Name)}
        assert not names & DOORS, path


def asks_others(path: Path) -> bool:
    """Tell whether a module opens, or looks up, a way to another program."""
    nodes = list(ast.walk(parsed(path)))
    taken = [node for node in nodes if isinstance(node, ast.ImportFrom)]
    names = {f"{node.module}.{alias.name}" for node in taken for alias in node.names}
    words = {node.attr for node in nodes if isinstance(node, ast.Attribute)}
    words |= {name.rpartition(".")[2] for name in names}
    names |= set(imported(path))
    if "socket" not in names:
        words -= ON_A_SOCKET  # SQLite's, say
    return bool(names & CLIENTS or words & (CALLS | ON_A_SOCKET))


def test_only_net_asks_other_machines() -> None:
    """Whoever wants something of another machine goes by net; a lab is all on this one."""
    asking = {path for path in MODULES if room(path) not in {"net", "lab"} and asks_others(path)}
    assert {str(path.relative_to(SOURCE)) for path in asking} == set(NEAR)


@pytest.mark.parametrize(
    "path", [path for path in MODULES if room(path) != "cli" and "inside" not in path.parts]
)
def test_only_the_verbs_exit(path: Path) -> None:
    """A library raises; what ends the process is cli, and the programs that run alone."""
    exits = {"sys.exit", "exit", "quit", "os._exit", "SystemExit"}
    nodes = [node for node in ast.walk(parsed(path)) if isinstance(node, ast.Call | ast.Raise)]
    ends = {node.lineno for node in nodes if what_ends(node) in exits}
    assert not ends - {line for part in programs(parsed(path)) for line in part}


def what_ends(node: ast.Call | ast.Raise) -> str:
    """Return what is called, or raised without being called."""
    what = node.func if isinstance(node, ast.Call) else node.exc
    return ast.unparse(what) if what else ""


def programs(tree: ast.Module) -> list[range]:
    """Return the lines of what only runs as a program: below ``if __name__``, and its main()."""
    own = [node for node in tree.body if isinstance(node, ast.If)]
    own = [node for node in own if ast.unparse(node.test) == "__name__ == '__main__'"]
    mains = [node for node in tree.body if isinstance(node, ast.FunctionDef) and own]
    mains = [node for node in mains if node.name == "main"]
    return [range(node.lineno, (node.end_lineno or 0) + 1) for node in (*own, *mains)]


@pytest.mark.parametrize("path", sorted(LAB_TESTS.glob("*.py")), ids=lambda path: path.name)
def test_the_labs_of_tests_are_found_again(path: Path) -> None:
    """A lab whose name is made up, and not worlds.fresh_name(), outlives tests that are killed."""
    calls = [node for node in ast.walk(parsed(path)) if isinstance(node, ast.Call)]
    made = [node for node in calls if ast.unparse(node.func) in {"World", "standard", "Lab"}]
    given = [it for node in made for it in (*node.args, *node.keywords)]
    assert not [it for it in given if isinstance(it, ast.JoinedStr)]
    assert not [it for it in given if isinstance(it, ast.keyword) and it.arg == "name"]
