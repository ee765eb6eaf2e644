"""Labs for a module's tests, their names, and what is broken in their machines for a while."""

from __future__ import annotations

import contextlib
import functools
import itertools
import os
import secrets
import string
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import reaper

from backup_mx.lab.machine import Machine
from backup_mx.lab.world import World

_numbers = itertools.count()


def fresh_name() -> str:
    """Return a name for a lab, which is gone when this process is, however that ends.

    All names of one process begin alike, and those of another's in another way: runs side by side
    leave each other alone.
    """
    return f"{_prefix()}{next(_numbers):02x}"


@functools.cache
def _prefix() -> str:
    """Start this process's reaper; return what the names of its labs begin with."""
    letters = (secrets.choice(string.ascii_lowercase + string.digits) for _ in range(4))
    prefix = f"t{''.join(letters)}"
    # In a session of its own: what ends the tests, be it Ctrl-C or a kill of the group, misses it.
    # Without another's mark: these may be tests of tests.
    _reapers.append(
        subprocess.Popen(
            [sys.executable, str(Path(reaper.__file__)), str(os.getpid()), prefix],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
            env={name: value for name, value in os.environ.items() if name != reaper.MARK},
        )
    )
    os.environ[reaper.MARK] = prefix
    return prefix


_reapers: list[subprocess.Popen[bytes]] = []
"""Kept, as nobody waits for them: they outlive this process."""


@contextlib.contextmanager
def standing(made: World) -> Iterator[World]:
    """Have a lab up, and gone in the end, however far it came."""
    try:
        made.up(print)
        yield made
    finally:
        made.down()


@contextlib.contextmanager
def altered(machine: Machine, **parameters: str) -> Iterator[None]:
    """Run a machine's Postfix for a while with other parameters."""
    path = machine.root / "etc/postfix/main.cf"
    kept = path.read_bytes()
    said = [f"{name}={value}" for name, value in parameters.items()]
    machine.run(["postconf", "-e", *said])
    machine.run(["postfix", "reload"])
    try:
        yield
    finally:
        machine.run(["tee", "/etc/postfix/main.cf"], stdin=kept)
        machine.run(["postfix", "reload"])
