"""Programs that are sent to a machine which has nothing of ours, or something else of that name."""

from __future__ import annotations

import gc
import importlib
import sys
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType

import pytest

from backup_mx.gates import inside
from backup_mx.machine import probe, syntax
from backup_mx.machine.sent import ask
from backup_mx.machine.ship import Answer, Tell, run_local
from backup_mx.net import certificate, courier, outside, shown, smtp

NOBODY = {"host": "127.0.0.1", "port": 1, "ehlo": "probe.invalid"}
WALK = {**NOBODY, "tls": "verify", "name": "mail.example.org"}
LOOK = {**NOBODY, "source": "", "name": "mx2.example.org", "early": ["NOOP"], "early_source": ""}


@dataclass(frozen=True)
class Bare:
    """A machine with a Python that has no packages at all, and what else is given to it."""

    options: tuple[str, ...] = ("-I", "-S")

    def run(self, argv: Sequence[str], *, stdin: bytes = b"", tell: Tell | None = None) -> Answer:
        assert tuple(argv) == ("python3", "-I", "-")
        return run_local([sys.executable, *self.options, "-"], stdin, tell)


@pytest.mark.parametrize(
    ("program", "wanted", "told"),
    [
        (smtp, WALK, {"opened", "relay"}),
        (outside, LOOK, {"tls", "early"}),
        (courier, {**NOBODY, "messages": []}, {"answers"}),
        (shown, {"servers": [{"name": "a", "host": "127.0.0.1", "port": 1}], "ca": ""}, {"a"}),
        (certificate, NOBODY, {"der"}),
        (probe, 0, {"boot", "left", "settled", "version", "volume", "queue", "certificate",
                    "wireguard", "ssh"}),
        (inside, None, {"version", "main", "services", "overrides", "guarded", "guard", "agent",
                      "postfix"}),
    ],
    ids=lambda each: each.__name__ if isinstance(each, ModuleType) else "",
)  # fmt: skip
def test_a_program_brings_along_what_it_needs(
    program: ModuleType, wanted: object, told: set[str]
) -> None:
    """It answers where there is the standard library and nothing else."""
    assert ask(Bare(), program, wanted).keys() == told


def test_a_program_is_not_led_astray_by_what_is_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another version of ours on that machine stands aside."""
    other = tmp_path / "backup_mx" / "net"
    other.mkdir(parents=True)
    for name in ("", "net/"):
        (tmp_path / "backup_mx" / name / "__init__.py").write_text("raise ImportError")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    assert ask(Bare(("-S",)), certificate, NOBODY) == {"der": ""}


def test_what_is_asked_is_carried_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Letters of any script, quotes, braces and line ends; in the program as well."""
    words = '메시지 {0!r} \'"""\' \\n \n\x00'
    source = (
        f"HERE = {words!r}\ndef facts(wanted):\n    return {{'here': HERE, 'wanted': wanted}}\n"
    )
    (tmp_path / "an_echo.py").write_text(source)
    monkeypatch.syspath_prepend(tmp_path)
    told = ask(Bare(), importlib.import_module("an_echo"), [words])
    assert told == {"here": words, "wanted": [words]}


def test_sources_are_parsed_side_by_side() -> None:
    """Gates do so; a garbage collector that lets another thread go on amid it does no harm."""
    source = "x = f(a, [b, (c, {d: e})])\n" * 40
    ends = time.monotonic() + 1.5

    def parse() -> None:
        while time.monotonic() < ends:
            for _ in range(30):
                _Litter()
            syntax.tree(source)

    before = gc.get_threshold()
    gc.set_threshold(200, 2, 2)
    try:
        with ThreadPoolExecutor(3) as pool:
            for each in [pool.submit(parse) for _ in range(3)]:
                each.result()
    finally:
        gc.set_threshold(*before)


class _Litter:
    """What only the garbage collector removes, which has another thread run meanwhile."""

    def __init__(self) -> None:
        self.own = self

    def __del__(self) -> None:
        time.sleep(0)
