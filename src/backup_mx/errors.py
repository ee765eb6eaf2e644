"""Every failure a user can meet, and the exit code it ends with.

    BackupMxError            1   what was asked for did not work
    ├── ConfigError          2   the config file has mistakes (all of them, see Problem)
    ├── SecretError          2   a secret that the config names cannot be read
    ├── MachineError         1   a machine refused, or a step on it failed
    │   ├── BundleError      1   a bundle or its user-data cannot be made
    │   └── UnreachableError 4   a machine cannot be reached at all
    ├── CloudError           1   the cloud's provider refused to tell, or could not
    ├── DnsError             1   a name server or DNS provider refused, or could not be asked
    ├── LabError             1   the lab could not do what was asked
    └── HostError            3   this host lacks something: root, a program, a kernel feature

Click's own usage errors end with 2 as well; an interrupt ends with 130.
"""

from __future__ import annotations

import difflib
import traceback
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path


class BackupMxError(Exception):
    """What was asked for did not work; its text is one message fit for a user."""

    exit_code = 1


@dataclass(frozen=True)
class Problem:
    """One mistake in a config file.

    path is the option's dotted path, line its 1-based line (None if nothing stands in the file),
    value what stands there as the user would write it, expected what should.
    """

    path: str
    line: int | None
    value: str
    expected: str
    hint: str = ""

    def __str__(self) -> str:
        """Render as one line: ``line 3: relay.mx2.hostname = "x": expected a host name``."""
        where = f"line {self.line}: " if self.line else ""
        what = f"{self.path} = {self.value}" if self.value else self.path
        hint = f" ({self.hint})" if self.hint else ""
        return f"{where}{what}: {self.expected}{hint}"


class ConfigError(BackupMxError):
    """The config file at ``source`` has the mistakes in ``problems``."""

    exit_code = 2

    def __init__(self, source: str, problems: Iterable[Problem]) -> None:
        self.source = source
        self.problems = tuple(problems)
        super().__init__("\n".join(f"{source}: {problem}" for problem in self.problems))


class SecretError(BackupMxError):
    """A secret that the config names cannot be read, or holds nothing of use."""

    exit_code = 2


class MachineError(BackupMxError):
    """A machine refused, or a step on it failed."""


class BundleError(MachineError):
    """A bundle, or the user-data that carries it, cannot be made."""


class UnreachableError(MachineError):
    """A machine cannot be reached at all."""

    exit_code = 4


class CloudError(BackupMxError):
    """The cloud's provider refused to tell what it was asked, or could not."""


class DnsError(BackupMxError):
    """A name server, or whoever publishes names, refused what it was asked, or could not."""


class LabError(BackupMxError):
    """The lab could not do what was asked."""


class HostError(BackupMxError):
    """Something is missing on this host: root, a program, a kernel feature."""

    exit_code = 3


def defect(error: BaseException) -> str:
    """Return what is told of an error that nobody foresaw: its type, and where it was raised.

    Never its own words: they may be a password, as those of UnicodeEncodeError are.
    """
    where = traceback.extract_tb(error.__traceback__, limit=-1)
    place = "".join(f" at {Path(each.filename).name}:{each.lineno}" for each in where)
    return f"a defect in backup-mx: {type(error).__name__}{place}"


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """Return ``did you mean "x"?`` for the known word nearest to ``word``, or an empty string."""
    near = difflib.get_close_matches(word, list(known), n=1, cutoff=0.6)
    return f'did you mean "{near[0]}"?' if near else ""
