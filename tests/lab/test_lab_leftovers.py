"""A lab that ends badly leaves nothing; what leaves something is found and removed."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from backup_mx.errors import LabError
from backup_mx.lab import host, image, names, sweep
from backup_mx.lab.image import ImageSpec
from backup_mx.lab.world import World, attach, down

pytestmark = pytest.mark.lab

UP = """
import sys
from backup_mx.lab.world import World
World(sys.argv[1], members=("internet", "primary")).up(lambda line: print(line, flush=True))
print("up", flush=True)
"""

TESTS = """
import subprocess, sys
from worlds import fresh_name
name = fresh_name()
print(name, flush=True)
subprocess.run([sys.executable, "-c", sys.argv[1], name])
"""
"""What a test process does that has a lab brought up by a program."""


SOURCE = Path(image.__file__).parents[2]


@contextlib.contextmanager
def ended(process: subprocess.Popen[str]) -> Iterator[None]:
    """Have a process's pipe open, and the process killed if the block fails: nobody waits then."""
    with process:
        try:
            yield
        except BaseException:
            process.kill()
            raise


@pytest.fixture
def name(make_world: Callable[[World], World]) -> str:
    """A lab's name; whatever a test leaves under it goes."""
    return make_world(World()).name


def traces(name: str) -> list[str]:
    """Return all that can be seen of a lab on this host, by other means than the lab's own."""
    found = [f"mount {line}" for line in Path("/proc/self/mountinfo").read_text().splitlines()]
    found += subprocess.run(
        ["ip", "netns"], capture_output=True, text=True, check=True
    ).stdout.splitlines()
    for command_line in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            found.append(command_line.read_bytes().decode(errors="replace").replace("\0", " "))
        except OSError:
            continue
    # Not by glob("**"), which fails when another lab's group goes while it looks.
    groups = (place for place, _, _ in os.walk("/sys/fs/cgroup"))
    found += [place for place in groups if "/bmx-" in place]
    found += [str(path) for path in Path("/run/systemd/nspawn").glob("*/*")]
    found += [str(path) for path in Path("/var/lib/backup-mx/lab").glob("*")]
    return [thing for thing in found if f"bmx-{name}" in thing or f"/lab/{name}" in thing]


def interrupted_up(name: str, at: str, number: signal.Signals) -> None:
    """Bring a lab up in another process and end that process when it says ``at``."""
    process = subprocess.Popen(
        [sys.executable, "-c", UP, name],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        env={**os.environ, "PYTHONPATH": str(SOURCE)},
    )
    with ended(process):
        assert process.stdout
        assert any(at in line for line in process.stdout), f"it never said {at!r}"
        process.send_signal(number)


def test_down_after_a_killed_up_leaves_nothing(name: str) -> None:
    """SIGKILL in the middle of up: down finds every trace without having been told."""
    interrupted_up(name, "waiting for internet", signal.SIGKILL)
    assert traces(name), "the test must have something to clear away"
    down(name)
    assert traces(name) == []


def test_up_after_a_killed_up_starts_afresh(name: str) -> None:
    """SIGKILL in the middle of up: the next up clears that away and works."""
    interrupted_up(name, "waiting for internet", signal.SIGKILL)
    said: list[str] = []
    world = World(name, members=("primary",))
    world.up(said.append)
    assert "clearing away what an earlier lab left" in said
    assert [row.machine for row in attach(name).status()] == ["primary"]
    world.down()
    assert traces(name) == []


def test_an_interrupt_clears_up_by_itself(name: str) -> None:
    """Ctrl-C in the middle of up: nothing remains even without down."""
    interrupted_up(name, "waiting for internet", signal.SIGINT)
    assert traces(name) == []


def test_killed_tests_leave_nothing() -> None:
    """SIGKILL for pytest in the middle of an up: the program that is at it goes, and the lab."""
    process = subprocess.Popen(
        [sys.executable, "-c", TESTS, UP],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        env={**os.environ, "PYTHONPATH": f"{SOURCE}:{Path(__file__).parent}"},
    )
    with ended(process):
        assert process.stdout
        name = process.stdout.readline().strip()
        assert any("waiting for internet" in line for line in process.stdout)
        assert traces(name), "the test must have something to clear away"
        process.kill()
        # Here, as a program that goes on saying something would fail once the pipe is closed.
        host.wait_for(f"lab {name} to go", lambda: not sweep.leftovers(name), timeout=60.0)
    assert traces(name) == []


def test_down_ends_a_lab_with_somebody_in_it(name: str) -> None:
    """A shell in a machine and a program in its namespace do not keep the lab from going."""
    world = World(name, members=("primary",))
    world.up(print)
    machine = world.machine("primary")
    shell = subprocess.Popen(machine.command(["sleep", "600"]), cwd=machine.root)
    program = subprocess.Popen(["ip", "netns", "exec", names.scoped(name, "net"), "sleep", "600"])
    with shell, program:
        world.down()
    assert traces(name) == []


def test_down_of_nothing_is_fine(name: str) -> None:
    """There is no lab, and afterwards there is still none."""
    down(name)
    assert traces(name) == []
    with pytest.raises(LabError, match=f"lab {name} is not running"):
        attach(name)


def test_a_relay_whose_cloud_init_fails_is_reported(name: str) -> None:
    """User-data that does not work is one clear message, and the lab is gone."""
    world = World(name, user_data=b"#cloud-config\nruncmd: [[false]]\n", members=("mx2",))
    with pytest.raises(LabError, match="cloud-init failed in mx2"):
        world.up(print)
    assert traces(name) == []


def test_a_mirror_that_does_not_answer(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """An image that cannot be built is one clear message with the builder's words, no folder."""
    monkeypatch.setenv("BACKUP_MX_CACHE", str(tmp_path))
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:9")
    with pytest.raises(LabError, match="the image could not be built") as caught:
        image.ensure(ImageSpec("tiny", "trixie", ("sudo",)), print)
    assert "127.0.0.1" in str(caught.value)
    assert [path.name for path in (tmp_path / "images").iterdir()] == [".lock"]


def test_a_killed_build_leaves_nothing_complete(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """SIGKILL in the middle of a build: the builder ends too, the next build clears away."""
    monkeypatch.setenv("BACKUP_MX_CACHE", str(tmp_path))
    build = (
        "from backup_mx.lab import image\n"
        "spec = image.ImageSpec('tiny', 'trixie', ('sudo',))\n"
        "image.ensure(spec, lambda line: print(line, flush=True))\n"
    )
    environment = {**os.environ, "PYTHONPATH": str(SOURCE)}
    process = subprocess.Popen(
        [sys.executable, "-c", build], stdout=subprocess.PIPE, text=True, env=environment
    )
    with ended(process):
        assert process.stdout
        assert any("apt-get update" in line for line in process.stdout)
        process.kill()

    def builders() -> list[bytes]:
        lines = [path for path in Path("/proc").glob("[0-9]*/cmdline") if path.exists()]
        return [line for line in map(_words, lines) if str(tmp_path).encode() in line]

    host.wait_for("mmdebstrap to end with its starter", lambda: not builders(), timeout=60.0)
    half_done = list((tmp_path / "images").glob(".building-*"))
    assert half_done
    assert not list((tmp_path / "images").glob("tiny-*"))
    with image._only_builder(print):
        assert not half_done[0].exists()


def _words(command_line: Path) -> bytes:
    try:
        return command_line.read_bytes()
    except OSError:
        return b""
