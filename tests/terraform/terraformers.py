"""What an operator has: the modules, the JSON, a state, and the real Terraform.

Its providers are stand-ins with the real ones' schema (standin.py), so nothing is asked of a cloud.
"""

from __future__ import annotations

import json
import shutil
import subprocess
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import bindings
import check
import pytest

HERE = Path(__file__).parent
MODULES = HERE.parents[1] / "terraform"
DATA = HERE.parent / "data" / "terraform"
SOURCES = {"oci": "oracle/oci", "cloudflare": "cloudflare/cloudflare"}
VARIABLES = "backup-mx.auto.tfvars.json"
PATIENCE_S = 120


def program() -> str:
    """Return Terraform, or OpenTofu; the test is skipped, and named, where there is neither."""
    found = shutil.which("terraform") or shutil.which("tofu")
    if not found:
        pytest.skip("neither terraform nor tofu is installed here")
    return found


@dataclass(frozen=True)
class Run:
    """What Terraform did: each resource that it changes to how, and each error in words."""

    changes: Mapping[str, str]
    errors: tuple[str, ...]

    def says(self, words: str) -> bool:
        """Tell whether one of the errors has these words in it."""
        return any(words in error for error in self.errors)


@dataclass(frozen=True)
class Folder:
    """A folder like the operator's: a module's files, the JSON, what was built, and a state."""

    path: Path
    environment: Mapping[str, str]
    asked: Path

    @property
    def world(self) -> Path:
        """The file with what the cloud answers."""
        return self.path.with_suffix(".world.json")

    def tell(self) -> None:
        """Have the cloud answer what is in this folder's world."""
        shutil.copy(self.world, self.asked)

    def run(self, *arguments: str) -> str:
        """Run Terraform here, at most PATIENCE_S seconds; return what it printed."""
        self.tell()
        done = subprocess.run(
            [program(), *arguments],
            cwd=self.path,
            env=self.environment,
            capture_output=True,
            text=True,
            timeout=PATIENCE_S,
            check=False,
        )
        return done.stdout

    def plan(self, *options: str) -> Run:
        """Return what it would do."""
        lines = self.run("plan", "-json", "-input=false", *options).splitlines()
        return reading(lines, "planned_change", "change")

    def apply(self, *options: str) -> Run:
        """Do it, and return what was done."""
        lines = self.run("apply", "-json", "-input=false", "-auto-approve", *options).splitlines()
        return reading(lines, "apply_complete", "hook")

    def validate(self) -> tuple[str, ...]:
        """Return what is wrong with the files."""
        found = json.loads(self.run("validate", "-json"))["diagnostics"]
        return tuple(words(each) for each in found if each["severity"] == "error")

    def variables(self, change: Callable[[dict[str, Any]], object]) -> None:
        """Alter the JSON."""
        alter(self.path / VARIABLES, change)

    def answers(self, change: Callable[[dict[str, Any]], object]) -> None:
        """Alter what the cloud answers."""
        alter(self.world, change)


def reading(lines: list[str], kind: str, key: str) -> Run:
    """Return what Terraform's lines of JSON tell."""
    read = [json.loads(line) for line in lines]
    changes = {
        each[key]["resource"]["addr"]: each[key]["action"] for each in read if each["type"] == kind
    }
    errors = [words(each["diagnostic"]) for each in read if each["@level"] == "error"]
    return Run(changes, tuple(errors))


def words(diagnostic: Mapping[str, str]) -> str:
    """Return what a diagnostic says, on one line."""
    return " ".join(f"{diagnostic['summary']}: {diagnostic['detail']}".split())


def alter(path: Path, change: Callable[[dict[str, Any]], object]) -> None:
    """Alter a file of JSON."""
    read = json.loads(path.read_text())
    change(read)
    path.write_text(json.dumps(read))


def copied(name: str, place: Path) -> Path:
    """Copy a module and what belongs to it into ``place``; return the folder to run it in."""
    shutil.copytree(DATA / name, place, dirs_exist_ok=True)
    ignored = shutil.ignore_patterns(".terraform*", "*.json", "*.tfstate*")
    shutil.copytree(MODULES / name, place / name, ignore=ignored)
    shutil.move(place / VARIABLES, place / name / VARIABLES)
    return place / name


def provider(name: str) -> bindings.Provider:
    """Return what a module needs of its provider's schema."""
    resources, data = (
        sorted({label for label, _, _ in check.blocks_of(MODULES / name, kind)})
        for kind in ("resource", "data")
    )
    return bindings.Provider(
        name,
        SOURCES[name],
        bindings.own(name),
        {label: bindings.resource(label) for label in resources},
        {label: bindings.data(label) for label in data},
    )
