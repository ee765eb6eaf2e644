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
@click.option("--volume", is_flag=True, help="Keep mx2's queue on a volume of its own.")
@click.option("--kit/--no-kit", default=True, help="With the primary's kit, or without.")
@click.option("--agent/--no-agent", default=True, help="With mx2's agent, or with Postfix alone.")
@click.option("--published/--unpublished", default=True, help="Whether DNS knows mx2.")
@click.option("--bare", is_flag=True, help="Without any relay yet: mx2 is a plain Debian.")
@JSON
def up(
    name: str,
    if_needed: bool,
    tunnel: bool,
    volume: bool,
    kit: bool,
    agent: bool,
    published: bool,
    bare: bool,
    as_json: bool,
) -> None:
    """Boot a lab; return when every machine answers."""
    from backup_mx.lab import world

    began = time.monotonic()
    if if_needed and world.is_up(name):
        progress(f"lab {name} is running already")
    else:
        made = world.standard(
            name,
            tunnel=tunnel,
            volume=volume,
            kit=kit,
            agent=agent,
            published=published,
            bare=bare,
        )
        made.up(progress)
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


@lab.command("operator")
@LAB
@click.argument("command", metavar="-- COMMAND...", nargs=-1, required=True)
def run_as_operator(command: Sequence[str], name: str) -> None:
    """Run a program of this host as the lab's operator does; end as it ends.

    It stands on the lab's Internet, with the lab's DNS, an SSH key that mx2 lets in, and the
    folder that has the lab's backup-mx.toml: backup-mx lab operator -- backup-mx status
    """
    from backup_mx.lab.operator import Operator
    from backup_mx.lab.world import attach

    hand_over(Operator(attach(name).name).command(list(command)))


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
@click.option("--agent-dead", is_flag=True, help="Kill mx2's agent first; it stays dead.")
@JSON
def drill(
    which: str,
    name: str,
    messages: int | None,
    report: Path | None,
    agent_dead: bool,
    as_json: bool,
) -> None:
    """Run a drill in a lab that is up. Fails when a message is lost.

    \b
    outage        the primary dies, the relay loses power in the middle
    senders       a matrix of senders, each straight to the primary and by the relay
    refusal       the primary comes back broken, and refuses what it gets
    edge-reboot   the router restarts, the tunnel's peer goes and comes back
    flood         a large drain into a primary that throttles everybody else
    retention     mail waits too long: held and told; nothing expires with the agent dead
    maintenance   mail is kept although the primary answers, until it ends by itself
    standby       the relay defers while the primary is up, and accepts when it is not
    flapping      the primary comes and goes every 20 seconds
    agent-killed  the agent is killed at random moments, and its ledger adds up
    rebuild       the relay's machine is made anew around its volume (lab up --volume)
    migrate       mail is exported from one relay, and imported into another
    go-live       a bare Debian becomes a relay, is proven and published (lab up --bare)
    first-boot    a bare machine becomes a relay although nothing is there in time
    certificate   a real ACME server that fails, issues, renews and hangs
    """  # noqa: D301  click wants the backspace itself
    from backup_mx.lab import drills, world
    from backup_mx.lab.report import ready_for, write_report

    try:
        chosen = drills.drill(which)
    except LabError as error:
        raise click.UsageError(str(error)) from None
    folder = ready_for(report or Path("reports") / which)
    with world.claimed(name) as claimed:
        count = messages or chosen.default_messages
        result = run_drill(chosen, claimed, count, agent_dead=agent_dead, quiet=as_json)
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
    chosen: type[Drill], world: World, messages: int, *, agent_dead: bool, quiet: bool
) -> dict[str, Any]:
    """Run a drill with its timeline on the terminal, moving bars below it where there is one."""
    from rich.console import Console
    from rich.live import Live

    from backup_mx.lab.screen import Screen, line
    from backup_mx.lab.timeline import Timeline

    console = Console(stderr=quiet, highlight=False)
    timeline = Timeline(time.monotonic, lambda event: console.print(line(event)))
    work = chosen(world, timeline, messages, agent_dead)
    if not console.is_terminal:
        return dict(work.run())
    with Live(Screen(timeline, messages), console=console, transient=True, refresh_per_second=8):
        return dict(work.run())
