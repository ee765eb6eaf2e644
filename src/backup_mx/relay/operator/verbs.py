"""What a relay can be asked, declared once.

On the relay argparse's commands are made from this table, on the operator's host click's.
"""

from __future__ import annotations

from dataclasses import dataclass

from backup_mx.relay.queue.reasons import CLASSES

PROGRAM = "/usr/local/bin/backup-mx"
"""The command, on a relay."""

FLAG, TEXT, NUMBER, DURATION, FOLDER = "flag", "text", "number", "duration", "folder"


@dataclass(frozen=True)
class Option:
    """An option: a flag, or one that takes a text, a number, a duration or a folder."""

    name: str
    help: str
    kind: str = FLAG
    choices: tuple[str, ...] = ()
    short: str = ""
    hidden: bool = False

    @property
    def key(self) -> str:
        """The name of its value."""
        return self.name.removeprefix("--").replace("-", "_")


@dataclass(frozen=True)
class Argument:
    """What stands behind a verb: many of it, or exactly one; one of the choices if there are."""

    name: str
    help: str
    many: bool = False
    choices: tuple[str, ...] = ()


@dataclass(frozen=True)
class Verb:
    """A verb. help: one line, then what more is to be said. Hidden ones are for units."""

    name: str
    help: str
    argument: Argument | None = None
    options: tuple[Option, ...] = ()
    hidden: bool = False


DOMAIN = Option("--domain", "Only mail for this domain.", TEXT)
CLASS = Option("--class", "Only mail that waits for this reason.", TEXT, CLASSES)
OLDER = Option("--older", "Only mail accepted longer ago than this (4h, 30d).", DURATION)
HELD = Option("--held", "Only mail on hold.")
WAITING = Option("--waiting", "Only mail that is not on hold.")
SEARCH = Option(
    "--search",
    "Only mail with this in an address, its queue ID or (while the agent lives) its Message-ID; "
    "what stands hashed in the ledger is found whole only.",
    TEXT,
)
FILTERS = (DOMAIN, CLASS, OLDER, HELD, WAITING, SEARCH)
ALL = Option("--all", "All messages, but for the filters.")
JSON = Option("--json", "Print JSON, for programs.")
YES = Option("--yes", "Do not ask.")
CARRY = Option("--carry", "Messages go over standard output, or come over input.", hidden=True)
IDS = Argument("ID", "Queue IDs; - reads them from standard input.", many=True)
FILES = Argument("FILE", "An ID.eml or ID.json, or a folder of them.", many=True)

VERBS = (
    Verb("status", "Show how a relay and its primary are, on one screen."),
    Verb(
        "queue",
        "List what waits, and why.\n\n"
        f"Each message has a class: {', '.join(CLASSES)}.\n"
        "refused: the primary answered 5xx. capability: it lacks SMTPUTF8 or SIZE. 4xx: it asks\n"
        "to come back later. local: the relay itself cannot. new: not tried yet.",
        options=(
            *FILTERS,
            Option("--limit", "Show so many at most, 0 for all; default: 100.", NUMBER),
            Option(
                "--ids", "Print queue IDs only, all of them, for another verb's standard input."
            ),
        ),
    ),
    Verb(
        "show",
        "Show messages: their way, their envelope, their header.\n\n"
        "An ID from before a requeue is good as well. JSON comes as one line for each message.",
        IDS,
        (*FILTERS, ALL, Option("--body", "Show their bodies as well.")),
    ),
    Verb("hold", "Take messages out of delivery.", IDS, (*FILTERS, ALL)),
    Verb("release", "Put messages on hold back into delivery.", IDS, (*FILTERS, ALL)),
    Verb("requeue", "Give messages a fresh lifetime, and a new queue ID.", IDS, (*FILTERS, ALL)),
    Verb(
        "delete",
        "Delete messages for ever. Who did it is recorded.\n\n"
        "A message that the ledger misses is written off by it.",
        IDS,
        (*FILTERS, ALL, YES),
    ),
    Verb(
        "export",
        "Copy messages to files: ID.eml as it would be delivered, ID.json with its envelope.\n\n"
        "They stay in the queue.",
        IDS,
        (
            *FILTERS,
            ALL,
            Option("--output", "The folder to write to; default: here.", FOLDER, short="-o"),
            CARRY,
        ),
    ),
    Verb(
        "import",
        "Put exported messages into the queue, each once however often it is tried.\n\n"
        "What was on hold is put on hold, unless the primary is faster: the answer says so then.",
        FILES,
        (CARRY,),
    ),
    Verb("drain", "Try all mail now (a flush). What is on hold stays there."),
    Verb(
        "maintenance",
        "Keep mail although the primary answers, until it is over.",
        Argument("WHAT", "on, off or status.", choices=("on", "off", "status")),
        (Option("--for", "How long; default: 4h.", DURATION),),
    ),
    Verb(
        "ledger", "Show the sum of all mail ever accepted, and every message that does not add up."
    ),
    Verb("guard", "Requeue what would expire, end maintenance whose time is over.", hidden=True),
    Verb("agent", "Run the agent.", hidden=True),
    Verb("helper", "Run the root helper, on the socket that systemd passes.", hidden=True),
)
"""All verbs. Every one that is not hidden takes --json as well."""
