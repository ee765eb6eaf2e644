"""Which backup-mx it is that judges: any change of its sources makes it another."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

import backup_mx
from backup_mx import __version__
from backup_mx.machine.bundle import digest
from backup_mx.machine.tool import sources, tool

HERE = Path(__file__).parents[2]


@pytest.fixture
def package(tmp_path: Path) -> Path:
    """A part of the package, as it may be installed somewhere."""
    for part in ("gates", "templates/primary", "lab/machines/edge"):
        shutil.copytree(Path(backup_mx.__file__).parent / part, tmp_path / part)
    return tmp_path


def test_it_is_the_version_and_what_it_is_made_of() -> None:
    """Everything that judges is counted, and what it renders."""
    counted = sources(Path(backup_mx.__file__).parent)
    assert tool() == f"{__version__}+{digest(counted)[:12]}"
    assert {"evidence.py", "gates/failover.py", "templates/relay/etc/postfix/main.cf.j2"} <= {
        *counted
    }


def test_a_checkout_is_the_tool_that_is_installed_from_it() -> None:
    """What was proven before a wheel was made of it counts for the wheel."""
    assert sources(HERE / "src/backup_mx") == sources(Path(backup_mx.__file__).parent)


@pytest.mark.parametrize(
    "change",
    [
        lambda package: (package / "gates/size.py").write_text("# judges nothing\n"),
        lambda package: (package / "gates/size.py").unlink(),
        lambda package: (package / "gates/new.py").touch(),
        lambda package: (package / "gates/size.py").rename(package / "gates/sizes.py"),
        lambda package: next((package / "templates").rglob("*.j2")).write_text(""),
    ],
)
def test_any_change_makes_it_another(package: Path, change: Callable[[Path], object]) -> None:
    """A gate that judges by more, one that has come or gone, a kit that says something else."""
    before = digest(sources(package))
    change(package)
    assert digest(sources(package)) != before


@pytest.mark.parametrize("path", ["gates/__pycache__/size.pyc", "operate.md", "lab/new.py"])
def test_what_judges_nothing_is_not_counted(package: Path, path: str) -> None:
    """Compiled code comes and goes; a wheel has the runbook; no lab judges a relay."""
    before = sources(package)
    (package / path).parent.mkdir(exist_ok=True)
    (package / path).write_text("other")
    assert sources(package) == before
