"""Checks: how an option says what it takes, in words and as a function, and what options are.

The grammars themselves are in `backup_mx.config.values`.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar

from pydantic import BaseModel, ConfigDict
from pydantic.fields import FieldInfo
from pydantic_core import CoreSchema, core_schema


class HintError(ValueError):
    """A value is wrong for a reason that the Check's words alone do not tell."""


class RefusedError(ValueError):
    """A Check refused a value: what it expected, and the hint if there is one."""

    def __init__(self, expected: str, hint: str = "") -> None:
        super().__init__(expected)
        self.expected, self.hint = expected, hint


@dataclass(frozen=True)
class Check:
    """What an option takes: in words, for people, and as a function from TOML's value to ours.

    ``read`` raises ValueError for anything else, a HintError where the user gets to know why.
    """

    words: str
    read: Callable[[object], object]

    def __call__(self, value: object) -> object:
        """Return the value to use, or raise a ValueError that says what was expected."""
        try:
            return self.read(value)
        except ValueError as error:
            hint = str(error) if isinstance(error, HintError) else ""
            raise RefusedError(f"expected {self.words}", hint) from None

    def __get_pydantic_core_schema__(self, source: object, handler: object) -> CoreSchema:
        """Stand for the whole schema of the annotated type: pydantic's own coercions stay out."""
        return core_schema.no_info_plain_validator_function(self)


def text_of(value: object) -> str:
    """Return ``value`` if it is a string of printable characters; raises HintError."""
    if not isinstance(value, str):
        raise HintError("write it in quotes")
    if not value.isprintable():
        raise HintError("it holds a line break or another character that cannot be printed")
    return value


def matching(pattern: re.Pattern[str], text: str) -> str:
    """Return ``text`` if all of it is what ``pattern`` describes; raises ValueError."""
    if not pattern.fullmatch(text):
        raise ValueError
    return text


class Options(BaseModel):
    """One table of the file.

    heading is how the reference writes its header; optional is true where a file may well do
    without the table though it has options that must be given.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")
    heading: ClassVar[str] = ""
    optional: ClassVar[bool] = False


def is_listed(field: FieldInfo) -> bool:
    """Tell whether an option takes a list."""
    return getattr(field.annotation, "__origin__", None) is tuple


def check_of(field: FieldInfo) -> Check:
    """Return an option's Check; a list's is the one of its items."""
    item = getattr(field.annotation, "__args__", (None,))[0]
    checks = [*field.metadata, *getattr(item, "__metadata__", ())]
    return next(check for check in checks if isinstance(check, Check))


def takes(field: FieldInfo) -> str:
    """Return in words what an option takes."""
    words = check_of(field).words
    return f"a list, each item {words}" if is_listed(field) else words


def follows(field: FieldInfo) -> str:
    """Return in words what an option defaults to where that depends on others, else ""."""
    extra = field.json_schema_extra
    return str(extra["follows"]) if isinstance(extra, dict) else ""


def escaped(text: str) -> str:
    """Escape what could move a terminal's cursor or end a string."""
    return "".join(c if c.isprintable() else f"\\U{ord(c):08x}" for c in text)


def to_toml(value: object) -> str:
    """Write a value as TOML does, on one line and printable; "" for nothing (None)."""
    if isinstance(value, str):
        return '"' + escaped(value.replace("\\", "\\\\").replace('"', '\\"')) + '"'
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, list | tuple):
        return f"[{', '.join(to_toml(item) if _is_plain(item) else '…' for item in value)}]"
    if isinstance(value, int) and value.bit_length() > 10_000:  # str() refuses 4,300 digits
        return "a very long number"
    if isinstance(value, dict):
        inner = ", ".join(f"{_key(key)} = {to_toml(item)}" for key, item in value.items())
        return f"{{ {inner} }}"
    return "" if value is None else str(value)


def _key(key: str) -> str:
    """Write a table's key: a dot in it would part it in two."""
    return key if re.fullmatch(r"[A-Za-z0-9_-]+", key) else to_toml(key)


def _is_plain(value: object) -> bool:
    return not isinstance(value, list | dict)
