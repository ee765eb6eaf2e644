"""Fixtures of the tests that run Terraform, which name this file as their plugin.

It is no conftest.py: mypy takes two of that name, here and in tests/lab, for one.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest
from terraformers import HERE, SOURCES, Folder, copied, program, provider

READY_S = 60
ATTACH = re.compile(r"TF_REATTACH_PROVIDERS='(.*)'")
Run = Callable[[Path], Folder]


def attached(process: subprocess.Popen[str]) -> dict[str, Any]:
    """Return how Terraform reaches a stand-in, once it listens; it has READY_S for that."""
    assert process.stdout
    impatient = threading.Timer(READY_S, process.kill)
    impatient.start()
    try:
        for line in process.stdout:
            if found := ATTACH.search(line):
                told: dict[str, Any] = json.loads(found[1])
                return told
    finally:
        impatient.cancel()
    raise TimeoutError(f"no stand-in within {READY_S} s: it ended with {process.wait()}")


@pytest.fixture(scope="session")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Run]:
    """Start the stand-ins for the providers; yield a maker of folders in which Terraform runs."""
    program()
    place = tmp_path_factory.mktemp("stand-ins")
    schema, world = place / "schema.json", place / "world.json"
    schema.write_text(json.dumps({name: asdict(provider(name)) for name in SOURCES}))
    argv = (sys.executable, "-u", HERE / "standin.py")
    servers = [
        subprocess.Popen([*argv, name, schema, world, "--dev"], stdout=subprocess.PIPE, text=True)
        for name in SOURCES
    ]
    try:
        reach: dict[str, Any] = {}
        for server in servers:
            reach |= attached(server)
        environment = {
            "PATH": os.environ["PATH"],
            "HOME": str(place),
            "CHECKPOINT_DISABLE": "1",
            "TF_REATTACH_PROVIDERS": json.dumps(reach),
        }
        yield lambda path: Folder(path, environment, world)
    finally:
        for server in servers:
            server.kill()
            server.communicate()


@pytest.fixture
def folder(tmp_path: Path, runs: Run) -> Callable[[str], Folder]:
    """Return a maker of folders in which nothing has been applied yet."""
    return lambda name: runs(copied(name, tmp_path / "new"))


@pytest.fixture(scope="session")
def applied(tmp_path_factory: pytest.TempPathFactory, runs: Run) -> Mapping[str, Path]:
    """Folders in which a module has been applied."""
    places = {name: tmp_path_factory.mktemp("applied") for name in SOURCES}
    for name, place in places.items():
        assert not runs(copied(name, place)).apply().errors
    return places


@pytest.fixture
def standing(tmp_path: Path, applied: Mapping[str, Path], runs: Run) -> Callable[[str], Folder]:
    """Return a maker of folders in which a module has been applied: what it made stands."""

    def make(name: str) -> Folder:
        shutil.copytree(applied[name], tmp_path / "standing")
        return runs(tmp_path / "standing" / name)

    return make
