"""Mail that leaves a queue or comes into it as files: what ``export`` and ``import`` answer."""

from __future__ import annotations

import tempfile
from dataclasses import asdict
from pathlib import Path

from backup_mx.relay.operator import export as exporting
from backup_mx.relay.operator import imports, parcel, selecting
from backup_mx.relay.operator.asking import Asked, Said
from backup_mx.relay.operator.changing import told
from backup_mx.relay.queue.commands import Postfix


def export(asked: Asked) -> Said:
    """Answer ``export``: into a folder, or, to another machine, line by line."""
    ids = selecting.meant(asked.given, asked.options, asked.stdin)
    if asked.options.get("carry"):
        results = exporting.carry(Postfix(), ids, asked.tell)
        return Said({"results": [asdict(each) for each in results]})
    folder = exporting.results_folder(asked.options.get("output"))
    results = exporting.export(Postfix(), ids, folder)
    return told(results, folder=str(folder))


def take_in(asked: Asked) -> Said:
    """Answer ``import``: from files, or, from another machine, line by line."""
    importer = imports.Importer(asked.who, Postfix())
    if asked.options.get("carry"):
        with tempfile.TemporaryDirectory(dir=imports.DONE.parent) as folder:
            box = parcel.Inbox(Path(folder))
            for line in asked.stdin:
                box.take(line)
            results = list(importer.take(imports.letters([folder])))
    elif asked.given:
        results = list(importer.take(imports.letters(asked.given)))
    else:
        raise selecting.UsageError("import takes files, or a folder of them")
    return told(results)
