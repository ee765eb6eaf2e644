"""What a kit renders to."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class KitFile:
    """A file of a kit: its path relative to the rendered folder, and its mode in octal."""

    path: str
    content: bytes
    mode: str = "0644"
