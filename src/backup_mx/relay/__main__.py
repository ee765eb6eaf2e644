"""``backup-mx VERB …`` on a relay: reads the command line, prints, and says how it ended."""

from __future__ import annotations

import argparse
import json
import os
import runpy
import sys
import traceback
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from typing import Any

from backup_mx.errors import BackupMxError, defect
from backup_mx.relay import text
from backup_mx.relay.operator import verbs
from backup_mx.relay.operator.verbs import Argument, Option, Verb

_RUNS = {"agent": "backup_mx.relay.agent", "helper": "backup_mx.relay.root.helper"}


def parser() -> argparse.ArgumentParser:
    """Return the command line, made from the table of verbs."""
    made = argparse.ArgumentParser(
        prog="backup-mx", description="What this relay can be asked.", allow_abbrev=False
    )
    shown = ",".join(verb.name for verb in verbs.VERBS if not verb.hidden)
    commands = made.add_subparsers(dest="verb", required=True, metavar=f"{{{shown}}}")
    for verb in verbs.VERBS:
        command = _command(commands, verb)
        _fill(command, verb)
    return made


def _command(
    commands: argparse._SubParsersAction[argparse.ArgumentParser], verb: Verb
) -> argparse.ArgumentParser:
    """Add a command; one without help is not listed."""
    add = partial(
        commands.add_parser,
        verb.name,
        description=verb.help,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    return add() if verb.hidden else add(help=verb.help.partition("\n")[0])


def _fill(command: argparse.ArgumentParser, verb: Verb) -> None:
    if verb.argument:
        _add_argument(command, verb.argument)
    for option in (*verb.options, *(() if verb.hidden else (verbs.JSON,))):
        _add_option(command, option)


def _add_argument(command: argparse.ArgumentParser, argument: Argument) -> None:
    command.add_argument(
        "given",
        metavar=argument.name,
        help=argument.help,
        nargs="*" if argument.many else 1,
        choices=argument.choices or None,
    )


def _add_option(command: argparse.ArgumentParser, option: Option) -> None:
    names = [name for name in (option.short, option.name) if name]
    about = argparse.SUPPRESS if option.hidden else option.help
    if option.kind == verbs.FLAG:
        command.add_argument(*names, action="store_true", dest=option.key, help=about)
        return
    command.add_argument(
        *names,
        dest=option.key,
        help=about,
        metavar=option.kind.upper() if not option.choices else None,
        choices=option.choices or None,
        type=_KINDS.get(option.kind, str),
    )


def _duration(given: str) -> int:
    try:
        return text.seconds(given)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from None


def _number(given: str) -> int:
    if not given.isascii() or not given.isdecimal() or len(given) > 12:
        raise argparse.ArgumentTypeError(f"{text.printable(given)!r} is no number")
    return int(given)


_KINDS: dict[str, Callable[[str], int]] = {verbs.DURATION: _duration, verbs.NUMBER: _number}


def run(arguments: Sequence[str]) -> int:
    """Do what the command line says; return the exit code. Raises BackupMxError."""
    options = vars(parser().parse_args(arguments))
    verb, given = options.pop("verb"), options.pop("given", ())
    if verb in _RUNS:
        runpy.run_module(_RUNS[verb], run_name="__main__", alter_sys=True)
        return 0
    from backup_mx.relay.operator import answers
    from backup_mx.relay.operator.asking import Asked, Said
    from backup_mx.relay.operator.who import who

    as_json = options.pop("json", False)
    asked = Asked(verb, given, options, who(), sys.stdin, _room(), _say, _confirm)
    said = answers.of(verb)(asked)
    code = 0
    for part in (said,) if isinstance(said, Said) else said:
        for line in _for_programs(part.data) if as_json or options.get("carry") else part.lines:
            _say(line)
        code = max(code, part.code)
    return code


def _for_programs(data: dict[str, Any] | None) -> Iterable[str]:
    return () if data is None else (json.dumps(data),)


def _say(line: str) -> None:
    sys.stdout.write(line + "\n")


def _confirm(question: str) -> bool:
    """Ask whoever sits there; who leaves has said no."""
    if not (sys.stdin and sys.stdin.isatty()):
        raise BackupMxError("nobody is there to ask; --yes answers it")
    try:
        return input(f"{question} [y/N] ").strip().lower() in {"y", "yes"}
    except EOFError:
        _say("")
        return False


def _room() -> int | None:
    """Return how wide the reader's screen is, None where nobody reads it on one."""
    told = os.environ.get("COLUMNS", "")
    if told.isascii() and told.isdecimal() and int(told[:6]) > 0:
        return max(int(told[:6]), 40)
    if not sys.stdout.isatty():
        return None
    return max(os.get_terminal_size(sys.stdout.fileno()).columns, 40)


def main() -> int:
    """Run the command line; whatever goes wrong is one message on stderr, and an exit code."""
    for stream in (sys.stdin, sys.stdout):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(encoding="utf-8", errors="replace")
    try:
        code = run(sys.argv[1:])
        sys.stdout.flush()
    except KeyboardInterrupt:
        return 130
    except Exception as error:
        if not isinstance(error, BackupMxError) and set(sys.argv[1:2]) & _RUNS.keys():
            raise  # the journal is to have all of it
        _end_output()
        for line in _explained(error).splitlines():
            sys.stderr.write(f"backup-mx: {text.printable(line)}\n")
        return error.exit_code if isinstance(error, BackupMxError) else 1
    return code


def _end_output() -> None:
    """Write what was said before; what cannot be written must not fail once more at the end."""
    try:
        sys.stdout.flush()
    except OSError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _explained(error: Exception) -> str:
    """Return what is told of an error: nothing where nobody reads, no traceback unless wanted."""
    match error:
        case BackupMxError():
            return str(error)
        case BrokenPipeError():
            return ""
        case OSError():
            return f"{error.filename or 'the output'}: {error.strerror}"
    if os.environ.get("BACKUP_MX_TRACEBACK"):
        traceback.print_exception(error)
    return f"{defect(error)}. BACKUP_MX_TRACEBACK=1 shows more."


if __name__ == "__main__":
    raise SystemExit(main())
