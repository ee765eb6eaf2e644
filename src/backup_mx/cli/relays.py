"""The verbs about relays: build, deploy, queue, drain."""

from __future__ import annotations

import functools
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from backup_mx.cli.terminal import (
    CONFIG,
    IN_LAB,
    JSON,
    RELAY,
    SSH_CONFIG,
    duration,
    printable,
    say,
    say_json,
    screen,
    size,
    write,
)
from backup_mx.errors import MachineError, did_you_mean

if TYPE_CHECKING:
    from backup_mx.config import Config
    from backup_mx.machine.ship import Host
    from backup_mx.relay.postfix import Message


def load(path: Path) -> Config:
    """Read the config file."""
    from backup_mx import config

    return config.load(path)


def relay_named(config: Config, name: str | None) -> str:
    """Return the relay that is meant: the named one, or the only one."""
    known = list(config.relays)
    if name is None and len(known) == 1:
        return known[0]
    if name not in known:
        meant = f'there is no relay "{name}"' if name else "say which relay is meant"
        hint = did_you_mean(name or "", known)
        raise click.UsageError(f"{meant}: the config has {', '.join(known)}. {hint}".rstrip())
    return name


@click.command()
@click.argument("relays", metavar="[RELAY]...", nargs=-1)
@CONFIG
@click.option(
    "--output",
    "-o",
    type=click.Path(path_type=Path, file_okay=False),
    default=Path("build"),
    show_default=True,
    help="The folder to write to.",
)
@JSON
def build(relays: Sequence[str], path: Path, output: Path, as_json: bool) -> None:
    """Write relay.pyz and user-data of each relay (default: of all)."""
    from backup_mx.machine import bundle, cloudinit

    config = load(path)
    built = []
    for name in [relay_named(config, relay) for relay in relays] or config.relays:
        archive = bundle.bundle(config, name)
        data = cloudinit.carrying(archive, config, name)
        built.append(
            {
                "relay": name,
                "version": bundle.version(archive),
                "bundle": str(write(output / name / "relay.pyz", archive)),
                "user_data": str(write(output / name / "user-data", data)),
                "user_data_base64_bytes": cloudinit.size(data),
            }
        )
    if as_json:
        say_json({"relays": built})
        return
    for each in built:
        say(f"{each['relay']}: version {str(each['version'])[:12]}")
        say(f"  {each['bundle']}  for a machine that runs: backup-mx deploy, or python3 relay.pyz")
        say(
            f"  {each['user_data']}  for a new machine: {each['user_data_base64_bytes']:,} bytes"
            f" as base64, at most {cloudinit.LIMIT:,}"
        )


@click.command()
@RELAY
@CONFIG
@SSH_CONFIG
@click.option("--diff", is_flag=True, help="Show what would change; change nothing.")
@JSON
def deploy(
    relay: str | None, path: Path, ssh_config: Path | None, diff: bool, as_json: bool
) -> None:
    """Make a running Debian or Ubuntu machine the relay, over SSH. What fails is undone."""
    from backup_mx.machine import bundle, ship

    config = load(path)
    name = relay_named(config, relay)
    archive = bundle.bundle(config, name)
    lines: list[str] = []
    host = ship.SshHost(config.relays[name].ssh, ssh_config)
    ship.deploy(host, archive, lines.append if as_json else say, diff=diff)
    if as_json:
        say_json({"relay": name, "version": bundle.version(archive), "said": lines})


def host_of(relay: str | None, path: Path, ssh_config: Path | None, lab: str | None) -> Host:
    """Return the machine that runs a relay: by SSH, or in a lab."""
    from backup_mx.machine.ship import SshHost

    if lab is None:
        config = load(path)
        return SshHost(config.relays[relay_named(config, relay)].ssh, ssh_config)
    from backup_mx.lab.stations import LabHost
    from backup_mx.lab.world import attach

    return LabHost(attach(lab).machine(relay or "mx2"))


def waiting_on(host: Host) -> list[Message]:
    """Return what waits on a relay, oldest first."""
    from backup_mx.machine.ship import must
    from backup_mx.relay import postfix

    try:
        return postfix.messages(must(host, postfix.LIST).splitlines())
    except ValueError as error:
        raise MachineError(str(error)) from None


def on_a_relay(command: Callable[[Host, bool], None]) -> Callable[..., None]:
    """Give a command the options that say which relay is asked, and hand it that relay."""

    @functools.wraps(command)
    def asked(
        relay: str | None, path: Path, ssh_config: Path | None, lab: str | None, as_json: bool
    ) -> None:
        command(host_of(relay, path, ssh_config, lab), as_json)

    options: tuple[Callable[..., Any], ...] = (JSON, IN_LAB, SSH_CONFIG, CONFIG, RELAY)
    return functools.reduce(lambda made, option: option(made), options, asked)


@click.command()
@on_a_relay
def queue(host: Host, as_json: bool) -> None:
    """List what waits on a relay, and why.

    Each message has a class: refused (the primary answered 5xx), capability (it lacks SMTPUTF8 or
    SIZE), tls, 4xx, unreachable, local (the relay itself), held, or new (not tried yet).
    """
    messages = waiting_on(host)
    if as_json:
        say_json({"messages": [{**asdict(each), "class": each.why} for each in messages]})
    elif not messages:
        say("Nothing waits.")
    else:
        show_queue(messages)


def show_queue(messages: Sequence[Message]) -> None:
    """Print the queue as a table. What servers said is hostile: only printable text is shown."""
    from rich.table import Table
    from rich.text import Text

    from backup_mx.relay import reasons

    now = time.time()
    table = Table(box=None, pad_edge=False, header_style="bold")
    for title in ("ID", "class", "waits", "size", "from", "to", "why"):
        table.add_column(title, overflow="fold", justify="right" if title == "size" else "left")
    for message in messages:
        recipients = ", ".join(each.address for each in message.recipients)
        words = "; ".join(sorted({each.reason for each in message.recipients} - {""}))
        waits = duration(now - message.arrival)
        cells = (message.id, message.why, waits, size(message.size), message.sender or "<>")
        table.add_row(*(Text(printable(cell)) for cell in (*cells, recipients, words)))
    screen().print(table)
    octets = sum(message.size for message in messages)
    oldest = duration(now - messages[0].arrival)
    say(f"{len(messages)} waiting, {size(octets)}, the oldest for {oldest}")
    counts = Counter(message.why for message in messages)
    say(", ".join(f"{counts[name]} {name}" for name in reasons.CLASSES if counts[name]))


@click.command()
@on_a_relay
def drain(host: Host, as_json: bool) -> None:
    """Let a relay try its mail now (a flush). What is on hold stays there."""
    from backup_mx.machine.ship import must
    from backup_mx.relay import postfix

    messages = waiting_on(host)
    held = sum(message.queue == "hold" for message in messages)
    tried = len(messages) - held
    must(host, postfix.FLUSH)
    if as_json:
        say_json({"tried": tried, "held": held})
        return
    say("Nothing waits." if not messages else f"{counted(tried)} tried now.")
    if held:
        say(f"{counted(held)} on hold, and not tried.")


def counted(messages: int) -> str:
    """Say how many messages are, with the verb they need."""
    return f"{messages} message is" if messages == 1 else f"{messages} messages are"
