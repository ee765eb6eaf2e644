"""Write anew what follows the code: the golden trees, the example file, the reference page."""

from __future__ import annotations

import shutil
from pathlib import Path

import golden_kits

from backup_mx import config, sample
from backup_mx.machine.tree import tree

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
CONFIGS = {
    "five-lines": (ROOT / "tests/data/config/five-lines.toml", "mx2"),
    "full": (HERE / "full.toml", "backup"),
    "tunnel": (HERE / "tunnel.toml", "mx2"),
}
"""Each golden tree: its name to the config it comes from and the relay in it."""


def rendered(name: str) -> dict[str, bytes]:
    """Return a golden tree as the code makes it today: path without the first slash to content."""
    path, relay = CONFIGS[name]
    files = tree(config.load(path), relay).files
    return {str(file.path).lstrip("/"): file.content for file in files}


def stored(name: str) -> dict[str, bytes]:
    """Return a golden tree as it is in the repository."""
    folder = HERE / name
    files = (path for path in folder.rglob("*") if path.is_file())
    return {str(path.relative_to(folder)): path.read_bytes() for path in files}


def main() -> None:
    """Write all of it; files that are no more go."""
    for name in CONFIGS:
        shutil.rmtree(HERE / name, ignore_errors=True)
        for path, content in rendered(name).items():
            target = HERE / name / path
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(content)
    golden_kits.write()
    sample.write_generated(ROOT)


if __name__ == "__main__":
    main()
