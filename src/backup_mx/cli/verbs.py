"""The verbs that a relay itself answers: asked over SSH, shown as it says it."""

from __future__ import annotations

import functools
import shutil
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from backup_mx.cli.relays import host_of
from backup_mx.cli.terminal import (
    CONFIG,
    IN_LAB,
    SSH_CONFIG,
    agree,
    progress,
    say,
    say_json,
    seconds,
)
from backup_mx.errors import MachineError
from backup_mx.relay import text
from backup_mx.relay.operator import verbs
from backup_mx.relay.operator.verbs import PROGRAM, Argument, Option, Verb
from backup_mx.relay.queue import queueid

if TYPE_CHECKING:
    from backup_mx.machine.ship import Answer, Host, Tell
    from backup_mx.relay.operator.parcel import Inbox, Letter
    from backup_mx.relay.root.protocol import Result

_NOT_FOUND = 127  # env(1), EXIT STATUS
_BROUGHT = 512 << 20  # characters in one run of export: it ends after 48 MiB and one more message
_ASKED = 2000  # messages in one run: the relay asks its ledger for each before the first one goes
_MOST_IDS = 50  # on a command line; more go over standard input
_ALSO = {verbs.IDS: "queue ID", verbs.FILES: "file"}  # what a wrong name may have been meant for
_MEANT = (*verbs.FILTERS, verbs.ALL, verbs.YES)  # is seen to here: the relay is told IDs

Found = dict[str, Any]


@dataclass(frozen=True)
class Asked:
    """A verb, and the relay it is for: name as the user or the config says, "" if it says none."""

    verb: Verb
    host: Host
    name: str
    given: tuple[str, ...]
    options: Found

    def run(
        self, *arguments: str, stdin: bytes = b"", verb: str = "", tell: Tell | None = None
    ) -> Answer:
        """Run a verb on the relay. Raises MachineError where there is no agent."""
        wide = [f"COLUMNS={shutil.get_terminal_size().columns}"] if sys.stdout.isatty() else []
        argv = ["env", *wide, PROGRAM, verb or self.verb.name, *arguments]
        answer = self.host.run(argv, stdin=stdin, tell=tell)
        if answer.code == _NOT_FOUND:
            name = self.name or "this relay"
            deploy = f"backup-mx deploy {self.name}".rstrip()
            raise MachineError(f"{name} does not have the agent yet: {deploy} brings it")
        return answer

    def told(
        self, *arguments: str, stdin: bytes = b"", verb: str = "", tell: Tell | None = None
    ) -> str:
        """Run a verb that has to succeed; return what it prints. Raises MachineError."""
        answer = self.run(*arguments, stdin=stdin, verb=verb, tell=tell)
        if answer.code:
            raise MachineError(answer.words or "it failed")
        return answer.stdout

    @property
    def filters(self) -> list[str]:
        """The options that say which messages are meant, for the relay's command line."""
        return self.arguments(verbs.FILTERS)

    def arguments(self, options: Iterable[Option]) -> list[str]:
        """Return what is said of these options, for the relay's command line."""
        return [
            part
            for option in options
            for part in _as_argument(option, self.options.get(option.key))
        ]

    @property
    def ids(self) -> list[str]:
        """The queue IDs that are meant: those given, or what the relay finds by the filters.

        Nothing else becomes an argument of a command that root runs there.
        """
        from backup_mx.relay.operator import selecting

        return selecting.meant(self.given, self.options, sys.stdin, self._found)

    def _found(self) -> list[str]:
        return self.told(*self.filters, "--ids", verb="queue").splitlines()


def _as_argument(option: Option, value: object) -> list[str]:
    if value is None or value is False:
        return []
    unit = "s" if option.kind == verbs.DURATION else ""
    return [option.name] if value is True else [f"{option.name}={value}{unit}"]


def commands() -> list[click.Command]:
    """Return a command for each verb of the table that people use."""
    return [_command(verb) for verb in verbs.VERBS if not verb.hidden]


def _command(verb: Verb) -> click.Command:
    shown = (*verb.options, verbs.JSON)
    params: list[click.Parameter] = [_option(each) for each in shown if not each.hidden]
    kept = f"\b\n{verb.help}".replace("\n\n", "\n\n\b\n")
    made = click.Command(verb.name, params=params, help=kept, callback=_callback(verb))
    decorators = (IN_LAB, SSH_CONFIG, CONFIG)
    made = functools.reduce(lambda command, option: option(command), decorators, made)
    made.params.insert(0, click.Argument(["given"], nargs=-1, metavar=_metavar(verb.argument)))
    return made


def _metavar(argument: Argument | None) -> str:
    if argument is None:
        return "[RELAY]"
    own = "|".join(argument.choices) or argument.name
    return f"[RELAY] {own}{'...' if argument.many else ''}"


def _option(option: Option) -> click.Option:
    names = [*filter(None, (option.short, option.name)), option.key]
    if option.kind == verbs.FLAG:
        return click.Option(names, is_flag=True, help=option.help)
    kinds: dict[str, click.ParamType[Any]] = {
        verbs.NUMBER: click.IntRange(min=0),
        verbs.FOLDER: click.Path(path_type=Path, file_okay=False),
    }
    kind = click.Choice(option.choices) if option.choices else kinds.get(option.kind, click.STRING)
    checked = seconds if option.kind == verbs.DURATION else None
    return click.Option(names, type=kind, help=option.help, callback=checked)


def _callback(verb: Verb) -> Callable[..., int]:
    def asked(
        given: tuple[str, ...],
        path: Path,
        ssh_config: Path | None,
        lab: str | None,
        **options: object,
    ) -> int:
        name, own = split(verb, given)
        try:
            host = host_of(name or None, path, ssh_config, lab)
        except click.UsageError as error:
            if name and not own and verb.argument in _ALSO:
                other = _ALSO[verb.argument]
                raise click.UsageError(f'{error.message} "{name}" is no {other} either') from None
            raise
        if verb.argument == verbs.FILES and not own:
            raise click.UsageError(f"{verb.name} takes files, or a folder of them")
        return _ANSWERED.get(verb.name, ask)(Asked(verb, host, name, own, options))

    return asked


def split(verb: Verb, given: tuple[str, ...]) -> tuple[str, tuple[str, ...]]:
    """Return the relay's name, "" where none is given, and what is the verb's own argument.

    Raises click.UsageError where there is too much or too little.
    """
    own = given
    name = ""
    if given and not _belongs(verb.argument, given[0]):
        name, own = given[0], given[1:]
    argument = verb.argument
    if argument is None:
        if own:
            raise click.UsageError(f"{verb.name} takes no more than a relay")
    elif argument.choices and len(own) != 1:
        words = f"{', '.join(argument.choices[:-1])} or {argument.choices[-1]}"
        raise click.UsageError(f"{verb.name} takes {words}; a relay's name comes before it")
    return name, own


def _belongs(argument: Argument | None, given: str) -> bool:
    """Tell whether something given is the verb's own argument, and not a relay's name."""
    if argument is None:
        return False
    if argument.choices:
        return given in argument.choices
    if argument == verbs.FILES:
        return Path(given).exists() or Path(given).suffix in {".eml", ".json"}
    return given == "-" or queueid.valid(given)


def ask(asked: Asked) -> int:
    """Pass a verb on, and show what the relay says; return its exit code."""
    if asked.verb.argument == verbs.IDS:
        return ask_about(asked)
    given = ["--", *asked.given] if asked.given else []
    return show(asked.run(*asked.arguments((*asked.verb.options, verbs.JSON)), *given))


def ask_about(asked: Asked) -> int:
    """Pass on a verb for messages; ask before some are deleted."""
    ids = asked.ids
    if asked.verb.name == "delete" and ids and not asked.options["yes"]:
        named = ids[0] if len(ids) == 1 else text.counted(len(ids))
        where = f" on {asked.name}" if asked.name else ""
        agree(f"Delete {named}{where} for ever?")
    sure = ["--yes"] if asked.verb.name == "delete" else []
    how = [each for each in (*asked.verb.options, verbs.JSON) if each not in _MEANT]
    flags = [*sure, *asked.arguments(how)]
    if ids and len(ids) <= _MOST_IDS:
        return show(asked.run(*flags, "--", *ids))
    return show(asked.run(*flags, "--", "-", stdin="\n".join(ids).encode()))


def show(answer: Answer) -> int:
    """Show what a relay said, printable only."""
    for line in answer.stdout.splitlines():
        say(line)
    for line in answer.stderr.splitlines():
        progress(line)
    return answer.code


def export(asked: Asked) -> int:
    """Bring messages from the relay into a folder here, as many at a time as memory is for."""
    from backup_mx.relay.operator.parcel import Inbox

    folder = asked.options.get("output") or Path()
    left, results = asked.ids, list["Result"]()
    box = Inbox(folder, wanted=set(left))
    try:
        box.begin()
        while left:
            part = left[:_ASKED]
            meant = set(part)
            brought = [each for each in _bring(asked, box, part) if each.id in meant]
            done = {each.id for each in brought}
            if not done:
                raise MachineError("the relay stopped exporting")
            results += brought
            left = [each for each in part if each not in done] + left[_ASKED:]
        box.end()
    except OSError as error:
        raise MachineError(f"{folder} cannot be written: {error.strerror}") from None
    return _show_results(asked, results, f"to {folder.absolute()}")


def _bring(asked: Asked, box: Inbox, ids: Sequence[str]) -> list[Result]:
    from backup_mx.machine import letters
    from backup_mx.relay.operator.parcel import SpoiltError

    answer = asked.run("--carry", "-", stdin="\n".join(ids).encode(), tell=_at_most(_BROUGHT))
    results = letters.results(answer)
    came, spoilt = set(), {}
    for line in answer.stdout.splitlines()[:-1]:
        try:
            letter = box.take(line)
        except SpoiltError as error:
            spoilt[error.id] = f": {error}"
        else:
            came.add(letter and letter.id)
    return [
        replace(each, done=False, said=f"did not come{spoilt.get(each.id, '')}")
        if each.done and each.id not in came
        else each
        for each in results
    ]


def _at_most(characters: int) -> Tell:
    """Return what is told each line of an answer, and ends it where it is longer than that."""
    left = characters

    def tell(line: str) -> None:
        nonlocal left
        left -= len(line)
        if left < 0:
            raise MachineError(f"the relay answers with more than {characters:,} characters")

    return tell


def take_in(asked: Asked) -> int:
    """Send exported messages to the relay, which puts them into its queue."""
    from backup_mx.machine import letters

    results: list[Result] = []
    for batch in letters.batches(_fit(asked.given, results)):
        results += letters.results(asked.run("--carry", stdin="\n".join(batch).encode()))
    return _show_results(asked, results, "")


def _fit(given: Sequence[str], results: list[Result]) -> Iterator[tuple[Path, Letter]]:
    """Yield the messages that can be sent; say in results which cannot."""
    from backup_mx.machine import letters
    from backup_mx.relay.operator import imports, parcel
    from backup_mx.relay.root.protocol import Result

    for file in imports.letters(given):
        try:
            yield letters.read(file)
        except (parcel.ParcelError, OSError) as error:
            results.append(Result(file.stem, False, str(error)))


def _show_results(asked: Asked, results: Sequence[Result], where: str) -> int:
    failed = [each for each in results if not each.done]
    if asked.options["json"]:
        say_json({"results": [asdict(each) for each in results]})
    else:
        for each in failed:
            say(f"{each.id}: {each.said}")
        done = text.counted(len(results) - len(failed))
        say(f"{done} {asked.verb.name}ed {where}".rstrip())
    return 1 if failed else 0


_ANSWERED: dict[str, Callable[[Asked], int]] = {"export": export, "import": take_in}
