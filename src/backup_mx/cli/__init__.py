"""The verbs. The only place that prints or exits; exit codes are in errors.py."""

from __future__ import annotations

import os
import signal
import sys
import traceback
from typing import NoReturn

import click

from backup_mx import __version__
from backup_mx.cli import (
    cloud,
    dns,
    gate,
    kits,
    lab,
    monitoring,
    mta_sts,
    probe,
    rebuild,
    relays,
    setup,
    verbs,
)
from backup_mx.cli.terminal import fail
from backup_mx.errors import BackupMxError, defect


@click.group(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(__version__, message="%(version)s")
def cli() -> None:
    """Keep a domain's mail while its server is away, and hand it over when it is back.

    \b
    Exit codes: 0 done, 1 it did not work, 2 wrong usage or config,
    3 this host lacks something, 4 a machine cannot be reached, 130 interrupted.
    """  # noqa: D301  click wants the backspace itself


for verb in (
    setup.init,
    setup.check,
    relays.build,
    relays.deploy,
    rebuild.rebuild,
    *verbs.commands(),
    kits.primary,
    kits.edge,
    gate.gate,
    dns.dns,
    mta_sts.mta_sts,
    probe.probe,
    monitoring.monitoring,
    monitoring.explain,
    cloud.cloud,
    lab.lab,
):
    cli.add_command(verb)


def main() -> NoReturn:
    """Run the command line: one clear message and an exit code for whatever goes wrong."""
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.default_int_handler)
    try:
        code = cli.main(prog_name="backup-mx", standalone_mode=False)
    except click.ClickException as error:
        error.show()
        sys.exit(error.exit_code)
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(1)
    except (Exception, KeyboardInterrupt) as error:
        fail(*explained(error))
    sys.exit(code if isinstance(code, int) else 0)


def explained(error: BaseException) -> tuple[str, int]:
    """Return what a user is told of ``error``, and the exit code. No traceback, unless wanted."""
    match error:
        case BackupMxError():
            return str(error), error.exit_code
        case click.exceptions.Abort() | KeyboardInterrupt():
            return "interrupted", 130
        case OSError():
            return f"{error.filename or 'the output'}: {error.strerror}", 1
    if os.environ.get("BACKUP_MX_TRACEBACK"):
        traceback.print_exception(error)
    return f"{defect(error)}. BACKUP_MX_TRACEBACK=1 shows more.", 1
