"""Which of the things of a kind is meant on the command line."""

from __future__ import annotations

from collections.abc import Collection

import click

from backup_mx.errors import did_you_mean


def meant(kind: str, name: str | None, known: Collection[str], are: str = "the config has") -> str:
    """Return the one of the ``known`` that is named, or the only one where none is.

    Raises click.UsageError, with all that there ``are`` and the one that is likely meant.
    """
    if name is None and len(known) == 1:
        return next(iter(known))
    if name is not None and name in known:
        return name
    told = f'there is no {kind} "{name}"' if name else f"say which {kind} is meant"
    hint = did_you_mean(name or "", known)
    raise click.UsageError(f"{told}: {are} {', '.join(known) or 'none'}. {hint}".rstrip())
