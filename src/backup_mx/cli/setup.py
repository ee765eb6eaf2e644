"""The verbs about the config file: init, check."""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path

import click

from backup_mx.cli.terminal import CONFIG, JSON, say, say_json
from backup_mx.errors import BackupMxError, ConfigError

FACTS = {
    "hostname": "The relay's name, such as mx2.example.org",
    "address": "The relay's public address, such as 203.0.113.20",
    "primary": "Your mail server's name, such as mail.example.org",
    "drain-to": "Where the relay reaches it, such as mail.example.org:2526",
    "domain": "The domain whose mail you host, such as example.org",
}


def fact_options(command: Callable[..., None]) -> Callable[..., None]:
    """Give a command one option for each fact that a config file needs."""
    for name, doc in reversed(FACTS.items()):
        command = click.option(f"--{name}", help=f"{doc}.")(command)
    return command


@click.command()
@fact_options
@CONFIG
@JSON
def init(path: Path, as_json: bool, **given: str | None) -> None:
    """Write a first config file. Asks on a terminal for what no option gives; never overwrites."""
    from backup_mx import config
    from backup_mx.config import sample

    if path.exists():
        raise BackupMxError(f"{path} exists already, and is left as it is")
    facts = [given[name.replace("-", "_")] or ask(name) for name in FACTS]
    text = sample.starter(*facts)
    config.parse(text, str(path))
    write_new(path, text)
    if as_json:
        say_json({"config": str(path)})
    else:
        say(f"{path} is written. Next: backup-mx check, then backup-mx build")


def write_new(path: Path, text: str) -> None:
    """Write a file that is not there yet: all of it or nothing, and over nobody's."""
    new = path.with_name(f".{path.name}.new")
    try:
        new.write_text(text, encoding="utf-8")
        path.hardlink_to(new)
    except OSError as error:
        raise BackupMxError(f"{path} cannot be written: {error.strerror}") from None
    finally:
        new.unlink(missing_ok=True)


def ask(name: str) -> str:
    """Ask for a fact on a terminal; without one, say which option is missing."""
    if not sys.stdin.isatty():
        raise click.UsageError(f"missing option --{name} (there is no terminal to ask on)")
    return str(click.prompt(FACTS[name], err=True))


@click.command()
@CONFIG
@JSON
def check(path: Path, as_json: bool) -> None:
    """Check the config file and the files that it names; show every mistake.

    No command that prints a secret is run, no environment variable looked at.
    """
    from backup_mx import config

    try:
        loaded = config.load(path, look=True)
    except ConfigError as error:
        if as_json:
            say_json({"config": str(path), "problems": [asdict(each) for each in error.problems]})
            sys.exit(error.exit_code)
        raise
    if as_json:
        say_json({"config": str(path), "problems": []})
        return
    say(f"{path} is right.")
    for relay in loaded.relays.values():
        say(f"  {relay.name}: {relay.hostname} ({relay.address})")
    for domain in loaded.domains.values():
        primary = loaded.primaries[domain.primary]
        say(f"  mail for {domain.name} is drained to {primary.drain_to}, TLS {primary.tls}")
