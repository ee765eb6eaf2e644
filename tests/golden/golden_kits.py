"""The primaries' kits as the code makes them today, and as they are in the repository."""

from __future__ import annotations

import shutil
from pathlib import Path

from backup_mx import config
from backup_mx.kit import primary

HERE = Path(__file__).parent
STORED = HERE / "kits"
PRIMARIES = {"postfix-rspamd": "home", "docker-mailserver": "office"}
"""Each kit to the primary of kits.toml that has it."""


def rendered(kit: str) -> dict[str, bytes]:
    """Return a kit as the code makes it: path to content."""
    files = primary.render(config.load(HERE / "kits.toml"), PRIMARIES[kit])
    return {file.path: file.content for file in files}


def stored(kit: str) -> dict[str, bytes]:
    """Return a kit as it is in the repository."""
    folder = STORED / kit
    files = (path for path in folder.rglob("*") if path.is_file())
    return {str(path.relative_to(folder)): path.read_bytes() for path in files}


def write() -> None:
    """Store every kit as the code makes it; files that are no more go."""
    shutil.rmtree(STORED, ignore_errors=True)
    for kit in PRIMARIES:
        for path, content in rendered(kit).items():
            target = STORED / kit / path
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(content)
