"""Write anew what follows the code: the golden trees, the example file, the reference page."""

from __future__ import annotations

import shutil
from pathlib import Path

import golden_kits

from backup_mx import config
from backup_mx.config import sample
from backup_mx.machine.agent import LIBRARY
from backup_mx.machine.tree import tree

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
CONFIGS = {
    "five-lines": (ROOT / "tests/data/config/five-lines.toml", "mx2", False),
    "full": (HERE / "full.toml", "backup", True),
    "tunnel": (HERE / "tunnel.toml", "mx2", True),
}
"""Each golden tree: its name to the config it comes from, the relay in it, and whether that has its
agent; user-data carries a relay without."""
CODE = f"{LIBRARY}/backup_mx/"
"""What is below is the agent's code, file by file as in the repository."""


def rendered(name: str) -> dict[str, bytes]:
    """Return a golden tree as the code makes it today: path without the first slash to content."""
    path, relay, agent = CONFIGS[name]
    files = tree(config.load(path), relay, agent=agent).files
    contents = {str(file.path): file.content for file in files}
    return {
        path.lstrip("/"): content for path, content in contents.items() if not path.startswith(CODE)
    }


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
    for path, text in sample.generated().items():
        (ROOT / path).write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
