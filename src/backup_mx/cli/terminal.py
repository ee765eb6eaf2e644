"""How results, progress and failures are shown, and the options that many verbs share."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

import click

from backup_mx.errors import BackupMxError

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


def say(line: str = "") -> None:
    """Print one line of a result; a machine may have said it, so it steers no terminal."""
    click.echo(printable(line))


def progress(line: str) -> None:
    """Print one line about work that goes on."""
    click.echo(printable(line), err=True)


def say_json(value: object) -> None:
    """Print a result for programs."""
    click.echo(json.dumps(value, indent=2))


def duration(seconds: float) -> str:
    """Write a duration as people do."""
    for unit, length in (("d", 86400), ("h", 3600), ("min", 60)):
        if seconds >= length:
            return f"{seconds / length:.0f} {unit}"
    return f"{max(seconds, 0):.0f} s"


def size(octets: float) -> str:
    """Write a number of bytes as people do."""
    for unit in ("B", "KiB", "MiB"):
        if octets < 1024:
            return f"{octets:.0f} {unit}"
        octets /= 1024
    return f"{octets:.1f} GiB"


def write(target: Path, content: bytes, mode: int = 0o600) -> Path:
    """Write a file in one step, with its mode; raises BackupMxError when that cannot be."""
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        new = target.with_name(f".{target.name}.new")
        # A leftover keeps its mode, or has a reader already.
        new.unlink(missing_ok=True)
        new.touch(mode=0o600, exist_ok=False)
        new.write_bytes(content)
        new.chmod(mode)
        return new.replace(target)
    except OSError as error:
        raise BackupMxError(f"{target} cannot be written: {error.strerror}") from None


def printable(text: str) -> str:
    """Return ``text`` without anything that could steer a terminal."""
    return "".join(each if each.isprintable() else "\N{REPLACEMENT CHARACTER}" for each in text)


def screen() -> Console:
    """Return the terminal, as Rich sees it."""
    from rich.console import Console

    return Console(highlight=False, soft_wrap=not sys.stdout.isatty())


def fail(message: str, code: int) -> NoReturn:
    """End with a message on stderr."""
    for line in f"backup-mx: {message}".splitlines():
        progress(line)
    sys.exit(code)
