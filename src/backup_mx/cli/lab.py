"""The verbs about the lab."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

import click

from backup_mx.cli.terminal import JSON, LAB, progress, say, say_json
from backup_mx.errors import LabError

if TYPE_CHECKING:
    from backup_mx.lab.drills import Drill
    from backup_mx.lab.machine import Machine
    from backup_mx.lab.world import World


@click.group()
def lab() -> None:
    """Run a whole mail world on this host, as root: internet, edge, primary, mx2."""


@lab.command()
@LAB
@click.option("--if-needed", is_flag=True, help="A lab that runs already is fine.")
@click.option("--tunnel", is_flag=True, help="Let mx2 drain through WireGuard.")
@click.option("--kit/--no-kit", default=True, help="With the primary's kit, or without.")
@JSON
def up(name: str, if_needed: bool, tunnel: bool, kit: bool, as_json: bool) -> None:
    """Boot a lab; return when every machine answers."""
    from backup_mx.lab import world

    began = time.monotonic()
    if if_needed and world.is_up(name):
        progress(f"lab {name} is running already")
    else:
        world.standard(name, tunnel=tunnel, kit=kit).up(progress)
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
@click.option(
    "--messages",
    type=click.IntRange(20, 100_000),
    help="How many are sent.  [default: the drill's own number]",
)
@click.option(
    "--report",
    type=click.Path(path_type=Path, file_okay=False),
    help="Where report.json and report.html go.  [default: reports/DRILL]",
)
@JSON
def drill(which: str, name: str, messages: int | None, report: Path | None, as_json: bool) -> None:
    """Run a drill in a lab that is up. Fails when a message is lost.

    \b
    outage       the primary dies, the relay loses power in the middle
    senders      a matrix of senders, each straight to the primary and by the relay
    refusal      the primary comes back broken, and refuses what it gets
    edge-reboot  the router restarts, the tunnel's peer goes and comes back
    flood        a large drain into a primary that throttles everybody else
    """  # noqa: D301  click wants the backspace itself
    from backup_mx.lab import drills, world
    from backup_mx.lab.report import ready_for, write_report

    try:
        chosen = drills.drill(which)
    except LabError as error:
        raise click.UsageError(str(error)) from None
    folder = ready_for(report or Path("reports") / which)
    with world.claimed(name) as claimed:
        result = run_drill(chosen, claimed, messages or chosen.default_messages, quiet=as_json)
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


def run_drill(chosen: type[Drill], world: World, messages: int, *, quiet: bool) -> dict[str, Any]:
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
