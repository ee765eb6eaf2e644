"""The runbook: a page for every alarm, whoever tells it, and the verb that prints it."""

from __future__ import annotations

import ast
import json
import re
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from backup_mx.cli import monitoring
from backup_mx.gates import alarms
from backup_mx.monitoring import runbook
from backup_mx.monitoring.runbook import Page
from backup_mx.relay.tell import conditions

ROOT = Path(__file__).parents[2]
TELL = ROOT / "src/backup_mx/relay/tell"
RULES = ROOT / "src/backup_mx/templates/monitoring/prometheus/backup-mx.rules.yml.j2"
RULE = re.compile(r"- alert: (\w+)\n(.*?)labels: \{severity: (\w+)\}", re.DOTALL)
FOR = re.compile(r"^ +for: (\d+)(\w)\b", re.MULTILINE)
UNITS = {"m": "min", "h": "h", "d": "d"}
TEXT = """# Living with it
## Alarms
Each has a page.

### BackupMxOne

It burns. Badly. *critical*

- Look: there.

Notice: `fire`, `smoke`

### BackupMxTwo

It does not. *info*

## The end
"""


def rules() -> dict[str, str]:
    """Return how bad each alarm of Prometheus' is, and after how long, as the runbook says it."""
    found = {}
    for name, body, severity in RULE.findall(RULES.read_text()):
        lasts = FOR.search(body)
        found[name] = severity + (f", {lasts[1]} {UNITS[lasts[2]]}" if lasts else "")
    return found


def notices() -> set[str]:
    """Return the keys of all notices that a relay can tell, from the code that tells them."""
    keys: set[str] = set()
    for path in (*TELL.glob("*.py"), TELL.parent / "tasks" / "duties.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Call) and ast.unparse(node.func) in ("Alarm", "self.say"):
                keys.add(literal(node.args[0], path))
    return keys


def literal(node: ast.expr, path: Path) -> str:
    """Return what a key begins with, up to the name of what it is about."""
    text = ast.unparse(node)
    if text == "key":
        text = next(
            ast.unparse(each.value)
            for each in ast.walk(ast.parse(path.read_text()))
            if isinstance(each, ast.Assign) and ast.unparse(each.targets[0]) == "key"
        )
    text = re.sub(r"\{([A-Z]+)\}", lambda name: str(getattr(conditions, name[1])), text)
    found = re.match(r"f?'([\w-]+)", text)
    assert found, text
    return found[1]


def test_every_alarm_of_prometheus_has_a_page_and_no_other_has() -> None:
    """With how bad it is and after how long, as the rule has it."""
    said = {name: re.findall(r"\*(\w+(?:, [^*]+)?)\*", " ".join(each.text.split()))[0]
            for name, each in runbook.pages().items()}  # fmt: skip
    assert len(said) > 30
    assert said == rules()


def test_every_notice_of_a_relay_has_a_page() -> None:
    """What the agent tells through Apprise is explained as well, and nothing else is promised."""
    explained = {key for each in runbook.pages().values() for key in each.notices}
    assert {"primary", "undeliverable", "crashes", "ledger", "asked"} <= notices()
    assert explained == notices()


def test_every_alarm_that_the_docs_name_exists() -> None:
    """In any page of the docs, the README, the changelog and the templates."""
    known = set(rules())
    texts = [*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md"), *RULES.parents[1].rglob("*.*")]
    assert len(texts) > 10
    for path in texts:
        named = set(re.findall(r"\bBackupMx[A-Z]\w+", path.read_text()))
        assert named - {"BackupMxError", alarms.TEST} <= known, path


def test_links_within_the_runbook_lead_somewhere() -> None:
    """Each anchor is a heading's."""
    text = (ROOT / "docs/operate.md").read_text()
    headings = {line.lstrip("# ").lower().replace(" ", "-") for line in text.splitlines()
                if line.startswith("#")}  # fmt: skip
    anchors = re.findall(r"\]\(#([^)]+)\)", text)
    assert anchors
    assert set(anchors) <= headings


def test_pages_are_read() -> None:
    """From a heading that is an alarm's name up to the next heading."""
    pages = runbook.parsed(TEXT)
    assert list(pages) == ["BackupMxOne", "BackupMxTwo"]
    assert pages["BackupMxOne"].notices == ("fire", "smoke")
    assert pages["BackupMxTwo"] == Page("BackupMxTwo", "It does not. *info*")


@pytest.mark.parametrize(
    ("asked", "found"),
    [("BackupMxTwo", "BackupMxTwo"), ("backupmxtwo", "BackupMxTwo"), ("two", "BackupMxTwo"),
     ("smoke", "BackupMxOne"), ("fire:home", "BackupMxOne")],
)  # fmt: skip
def test_a_page_is_found(asked: str, found: str) -> None:
    """By the alarm's name in any case, without what all of them begin with, or by a notice."""
    assert [each.alarm for each in runbook.find(runbook.parsed(TEXT), asked)] == [found]


@pytest.mark.parametrize(
    ("asked", "said"),
    [
        ("BackupMxTow", 'did you mean "BackupMxTwo"?'),
        ("smoek", 'did you mean "smoke"?'),
        ("xyz", "backup-mx explain without a name"),
    ],
)
def test_a_page_that_is_not_there(asked: str, said: str) -> None:
    """What comes near is named."""
    with pytest.raises(LookupError, match=f'there is no alarm "{asked}"') as error:
        runbook.find(runbook.parsed(TEXT), asked)
    assert said in str(error.value)


def explain(*argv: str) -> Result:
    """Run the verb."""
    return CliRunner().invoke(monitoring.explain, argv)


def test_explain_of_no_alarm_is_wrong_usage() -> None:
    """Like any other name that is none."""
    ended = explain("nonsense")
    assert ended.exit_code == 2
    assert 'there is no alarm "nonsense": backup-mx explain without a name' in ended.output


def test_explain_prints_a_page() -> None:
    """All of it, for a name or for a notice; some notices have two pages."""
    assert "Its port 25" not in explain("BackupMxDiskFull").output
    assert explain("held").output.startswith("BackupMxMailHeld\n\nMessages are on hold")
    assert explain("primary:home").output.count("Notice: `primary`") == 2


def test_explain_lists_all() -> None:
    """A line each, no longer than a screen is wide."""
    lines = explain().output.splitlines()
    assert [line.split()[0] for line in lines] == list(runbook.pages())
    assert all(len(line) < 140 for line in lines)


def test_explain_for_programs() -> None:
    """The same as JSON."""
    said = json.loads(explain("--json", "disk").output)
    about = ["BackupMxDiskDamaged", "BackupMxDiskFilling", "BackupMxDiskFull"]
    assert [each["alarm"] for each in said] == about


def test_render_writes_readable_files(tmp_path: Path) -> None:
    """Whoever runs Prometheus has to read them; the last line says what to read first."""
    config = ROOT / "tests/data/lab/relay.toml"
    done = CliRunner().invoke(
        monitoring.monitoring, ["render", "-c", str(config), "-o", str(tmp_path)]
    )
    assert done.exit_code == 0, done.output
    assert f"{tmp_path / 'README.md'} says what goes where." in done.output
    rules = tmp_path / "prometheus" / "backup-mx.rules.yml"
    assert rules.stat().st_mode & 0o777 == 0o644
