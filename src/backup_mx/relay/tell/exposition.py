"""Prometheus' text format, and what it is told of this process and its machine.

https://prometheus.io/docs/instrumenting/exposition_formats/ describes version 0.0.4. It is written
here because the client library brings servers, registries and kinds of metrics along that the agent
has no use for: 2 MiB of its memory, and most of the time that a scrape took.
"""

from __future__ import annotations

import math
import os
import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
GAUGE, COUNTER = "gauge", "counter"
Row = tuple[Sequence[str], float]
_ESCAPED = str.maketrans({"\\": r"\\", "\n": r"\n", '"': r"\""})
_ESCAPED_HELP = str.maketrans({"\\": r"\\", "\n": r"\n"})
_SELF = Path("/proc/self")
_STAT = Path("/proc/stat")
# proc(5): user nice system idle iowait irq softirq steal; a guest's time is part of user's.
_IDLE, _TIMES = slice(3, 5), 8
_RECEIVED, _SENT = 0, 8


@dataclass(frozen=True)
class Family:
    """A metric: its full name, GAUGE or COUNTER, its help, and a value for each row of labels."""

    name: str
    kind: str
    doc: str
    rows: Sequence[Row]
    labels: Sequence[str] = ()

    @property
    def lines(self) -> Iterator[str]:
        """All that is said of it."""
        yield f"# HELP {self.name} {self.doc.translate(_ESCAPED_HELP)}"
        yield f"# TYPE {self.name} {self.kind}"
        for values, number in self.rows:
            yield f"{self.name}{_labelled(self.labels, values)} {_number(number)}"


def text(families: Iterable[Family]) -> bytes:
    """Return metrics as Prometheus reads them."""
    return "".join(f"{line}\n" for each in families for line in each.lines).encode()


def one(name: str, kind: str, doc: str, value: float) -> Family:
    """Return a metric without labels."""
    return Family(name, kind, doc, (((), value),))


def process() -> Iterator[Family]:
    """Yield what every Prometheus client tells of its process, from proc(5)."""
    fields = (_SELF / "stat").read_text().rpartition(")")[2].split()
    ticks = os.sysconf("SC_CLK_TCK")
    started = time.time() - time.clock_gettime(time.CLOCK_BOOTTIME) + int(fields[19]) / ticks
    for name, kind, doc, value in (
        ("resident_memory_bytes", GAUGE, "Resident memory size in bytes.",
         int(fields[21]) * os.sysconf("SC_PAGE_SIZE")),
        ("virtual_memory_bytes", GAUGE, "Virtual memory size in bytes.", int(fields[20])),
        ("start_time_seconds", GAUGE, "When the process started.", started),
        ("cpu_seconds_total", COUNTER, "Total user and system CPU time spent in seconds.",
         (int(fields[11]) + int(fields[12])) / ticks),
        ("open_fds", GAUGE, "Number of open file descriptors.",
         sum(1 for _ in (_SELF / "fd").iterdir())),
    ):  # fmt: skip
        yield one(f"process_{name}", kind, doc, value)


def machine() -> Iterator[Family]:
    """Yield how busy this machine is, from proc(5): by this a cloud tells which one is idle."""
    ticks = os.sysconf("SC_CLK_TCK")
    row = _STAT.read_text().split(maxsplit=_TIMES + 1)
    spent = [int(each) / ticks for each in row[1 : _TIMES + 1]]
    idle = sum(spent[_IDLE])
    yield Family(
        "backup_mx_machine_cpu_seconds_total", COUNTER, "CPU time of the machine, by what it did.",
        ((("idle",), idle), (("busy",), sum(spent) - idle)), ("mode",),
    )  # fmt: skip
    wires = [row.partition(":")[::2] for row in (_SELF / "net/dev").read_text().splitlines()[2:]]
    counts = [row.split() for name, row in wires if name.strip() != "lo"]
    yield Family(
        "backup_mx_machine_network_bytes_total", COUNTER, "Bytes that passed its interfaces.",
        tuple(((name,), float(sum(int(row[column]) for row in counts)))
              for name, column in (("received", _RECEIVED), ("sent", _SENT))), ("direction",),
    )  # fmt: skip


def _labelled(names: Sequence[str], values: Sequence[str]) -> str:
    if not names:
        return ""
    pairs = zip(names, values, strict=True)
    return "{" + ",".join(f'{name}="{value.translate(_ESCAPED)}"' for name, value in pairs) + "}"


def _number(value: float) -> str:
    return repr(float(value)) if math.isfinite(value) else "+Inf"
