"""What somebody asks of a relay, and what is answered: values between the verbs and their users."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from backup_mx.relay.root.protocol import Who


@dataclass(frozen=True)
class Asked:
    """What somebody wants: the verb's argument and options, and how he reads the answer.

    room is how many columns his screen has, None where it does not matter; tell gives him a line
    at once, confirm asks him.
    """

    verb: str
    given: Sequence[str]
    options: dict[str, Any]
    who: Who
    stdin: Iterable[str]
    room: int | None
    tell: Callable[[str], None]
    confirm: Callable[[str], bool]


@dataclass(frozen=True)
class Said:
    """An answer, or a part of one; code is the exit code. data: for programs, None: nothing."""

    data: dict[str, Any] | None
    lines: Iterable[str] = ()
    code: int = 0
