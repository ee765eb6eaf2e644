"""How results, progress and failures are shown, and the options that many verbs share."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

import click

from backup_mx.errors import BackupMxError
from backup_mx.relay import files
from backup_mx.relay.text import printable

if TYPE_CHECKING:  # each verb imports what it needs: --help must not wait for pydantic or rich
    from rich.console import Console

CONFIG = click.option(
    "--config",
    "-c",
    "path",
    type=click.Path(path_type=Path),
    default=Path("backup-mx.toml"),
    show_default=True,
    help="The config file.",
)
JSON = click.option("--json", "as_json", is_flag=True, help="Print JSON, for programs.")
RELAY = click.argument("relay", required=False)
SSH_CONFIG = click.option(
    "--ssh-config",
    type=click.Path(path_type=Path, exists=True, dir_okay=False),
    help="An ssh_config(5) file to use instead of yours.",
)
IN_LAB = click.option(
    "--lab", metavar="NAME", help="Ask the relay of this lab instead, not by SSH."
)
LAB = click.option("--name", default="lab", show_default=True, help="Which lab.")


def seconds(_context: click.Context, _option: click.Parameter, value: str | None) -> int | None:
    """Read an option that is a duration, such as 10min; None where it was not given."""
    from backup_mx.relay import text

    try:
        return None if value is None else text.seconds(value)
    except ValueError as error:
        raise click.BadParameter(str(error)) from None


def attended(instead: str) -> None:
    """Raise click.UsageError where nobody is there to ask; ``instead`` says what takes a person."""
    if not sys.stdin.isatty():
        raise click.UsageError(f"nobody is there to ask; {instead}")


def agree(question: str) -> None:
    """Ask on the terminal whether to go on; --yes of each verb that asks answers it.

    Raises BackupMxError where the answer is no, click.Abort where there is none, click.UsageError
    where nobody is there to ask.
    """
    attended("--yes answers it")
    if not click.confirm(question, err=True):
        raise BackupMxError("you said no: nothing is changed")


def say(line: str = "") -> None:
    """Print one line of a result; a machine may have said it, so it steers no terminal."""
    click.echo(printable(line))


def progress(line: str) -> None:
    """Print one line about work that goes on."""
    click.echo(printable(line), err=True)


def say_json(value: object) -> None:
    """Print a result for programs."""
    click.echo(json.dumps(value, indent=2))


def write(target: Path, content: bytes, mode: int = 0o600) -> Path:
    """Write a file in one step, with its mode; raises BackupMxError when that cannot be."""
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        files.replace(target, content, mode)
    except OSError as error:
        raise BackupMxError(f"{target} cannot be written: {error.strerror}") from None
    return target


def screen() -> Console:
    """Return the terminal, as Rich sees it."""
    from rich.console import Console

    return Console(highlight=False, soft_wrap=not sys.stdout.isatty())


def fail(message: str, code: int) -> NoReturn:
    """End with a message on stderr."""
    for line in f"backup-mx: {message}".splitlines():
        progress(line)
    sys.exit(code)
