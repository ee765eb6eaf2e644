"""The verbs about the lab."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

import click

from backup_mx.cli.terminal import JSON, LAB, progress, say, say_json

if TYPE_CHECKING:
    from backup_mx.lab.machine import Machine
    from backup_mx.lab.world import World


@click.group()
def lab() -> None:
    """Run a whole mail world on this host, as root: internet, primary, mx2."""


@lab.command()
@LAB
@click.option("--if-needed", is_flag=True, help="A lab that runs already is fine.")
@JSON
def up(name: str, if_needed: bool, as_json: bool) -> None:
    """Boot a lab; return when every machine answers."""
    from backup_mx.lab import world

    began = time.monotonic()
    if if_needed and world.is_up(name):
        progress(f"lab {name} is running already")
    else:
        world.standard(name).up(progress)
    seconds = round(time.monotonic() - began, 1)
    if as_json:
        say_json({"lab": name, "seconds": seconds, "machines": machines_of(name)})
    else:
        say(f"lab {name} is up ({seconds} s)")


def machines_of(name: str) -> list[dict[str, Any]]:
    """Return what each machine of a lab does."""
    from backup_mx.lab.world import attach

    return [status.as_dict() for status in attach(name).status()]


@lab.command()
@LAB
@JSON
def down(name: str, as_json: bool) -> None:
    """End a lab, or what is left of one: processes, mounts, namespaces, disks."""
    from backup_mx.lab import world

    world.down(name)
    if as_json:
        say_json({"lab": name})
    else:
        say(f"lab {name} is gone")


@lab.command()
@LAB
@JSON
def status(name: str, as_json: bool) -> None:
    """Show a lab's machines."""
    machines = machines_of(name)
    if as_json:
        say_json({"lab": name, "machines": machines})
        return
    for each in machines:
        since = f"since {each['since']}" if each["since"] else ""
        say(f"{each['machine']:10}{each['state']:10}{each['address']:16}{since}".rstrip())


def machine_of(name: str, machine: str) -> Machine:
    """Return a machine of a running lab."""
    from backup_mx.lab.world import attach

    return attach(name).machine(machine)


def hand_over(argv: list[str]) -> NoReturn:
    """Become a program, which has the terminal from now on."""
    sys.stdout.flush()
    os.execvp(argv[0], argv)  # noqa: S606  an argument list; no shell is what is wanted


@lab.command()
@click.argument("machine")
@LAB
def shell(machine: str, name: str) -> None:
    """Open a root shell in a machine."""
    hand_over(machine_of(name, machine).command(["bash", "-l"]))


@lab.command("run")
@LAB
@click.argument("machine")
@click.argument("command", metavar="-- COMMAND...", nargs=-1, required=True)
def run_command(machine: str, command: Sequence[str], name: str) -> None:
    """Run a command in a machine, as root; end as it ends."""
    hand_over(machine_of(name, machine).command(list(command)))


@lab.command()
@click.argument("machine")
@LAB
@click.option("--mail", is_flag=True, help="Postfix's log instead, also of a machine that is off.")
def logs(machine: str, name: str, mail: bool) -> None:
    """Print a machine's journal."""
    chosen = machine_of(name, machine)
    if mail:
        hand_over(["cat", str(chosen.path(chosen.role.mail_log))])
    hand_over(chosen.command(["journalctl", "--no-pager"]))


@lab.command()
@click.argument("which", metavar="DRILL")
@LAB
@click.option("--messages", type=click.IntRange(20, 100_000), default=500, show_default=True)
@click.option(
    "--report",
    type=click.Path(path_type=Path, file_okay=False),
    help="Where report.json and report.html go.  [default: reports/DRILL]",
)
@JSON
def drill(which: str, name: str, messages: int, report: Path | None, as_json: bool) -> None:
    """Run a drill in a lab that is up: outage. Fails when a message is lost."""
    from backup_mx.lab import drills, world
    from backup_mx.lab.report import ready_for, write_report

    chosen = drills.drill(which)
    folder = ready_for(report or Path("reports") / which)
    with world.claimed(name) as claimed:
        result = run_drill(chosen, claimed, messages, quiet=as_json)
    if as_json:
        say_json(result)
    else:
        show_result(result)
    written = write_report(result, folder)
    if not as_json:
        say(f"Report: {', '.join(map(str, written))}")
    sys.exit(0 if result["verdict"] == "pass" else 1)


def show_result(result: Mapping[str, Any]) -> None:
    """Print a drill's verdict and what was measured."""
    from backup_mx.lab.report import summary

    say()
    say(f"{result['verdict'].upper()}: {summary(result)}")
    for title, value in result["figures"].items():
        say(f"  {title}: {value}")


def run_drill(
    chosen: Callable[..., Any], world: World, messages: int, *, quiet: bool
) -> dict[str, Any]:
    """Run a drill with its timeline on the terminal, moving bars below it where there is one."""
    from rich.console import Console
    from rich.live import Live

    from backup_mx.lab.screen import Screen, line
    from backup_mx.lab.timeline import Timeline

    console = Console(stderr=quiet, highlight=False)
    timeline = Timeline(time.monotonic, lambda event: console.print(line(event)))
    work = chosen(world, timeline, messages)
    if not console.is_terminal:
        return dict(work.run())
    with Live(Screen(timeline, messages), console=console, transient=True, refresh_per_second=8):
        return dict(work.run())
