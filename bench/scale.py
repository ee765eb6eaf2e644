"""100,000 messages on a relay of 1 GB and an eighth of a core, held against the design's budgets.

    make scale                          (as root; half an hour, most of it the filling)
    .venv/bin/python bench/scale.py --messages 5000 --keep

Fills a lab's relay whose primary is away, at full speed; then takes memory and CPU away from it and
asks what its agent and its verbs need. Prints a table, and writes it to reports/scale.json.
"""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import sqlite3
import statistics
import subprocess
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path

import click
from limits import limited

from backup_mx.lab import names, network
from backup_mx.lab.corpus import RECIPIENTS
from backup_mx.lab.drills.agent import UNIT, Agent
from backup_mx.lab.host import wait_for
from backup_mx.lab.stations import QUEUES
from backup_mx.lab.world import World, attach, is_up, standard

LAB = "scale"
MEMORY = 2**30
CORES = 0.125
OCTETS = 2048
IDLE_SECONDS = 60.0
VERB_SECONDS = 120.0
METRICS = ("127.0.0.1", 9725)
TICKS = 100  # a second, proc(5); 100 on every Linux of today
LEDGER = "/srv/backup-mx/agent/ledger.sqlite"
SAMPLE = 2000
ROWS = ["queue", "--limit", "5000"]
VERBS = (["status"], ["queue"], ROWS, [*ROWS, "--json"], ["ledger"])


@dataclass(frozen=True)
class Figure:
    """Something measured, in ``unit``, and the budget it has, if any; ratio above 1 is over it."""

    what: str
    value: float
    unit: str
    budget: float | None = None
    least: bool = False

    @property
    def ratio(self) -> float | None:
        """The share of the budget that is used up."""
        if not self.budget:
            return None
        return round(self.budget / self.value if self.least else self.value / self.budget, 2)

    def __str__(self) -> str:
        """Return a line of the table."""
        ratio = "" if self.ratio is None else f"  {self.ratio:.2f} of {self.budget:g}"
        return f"{self.what:<58}{self.value:>10g} {self.unit:<4}{ratio}"


@dataclass
class Bench:
    """A relay that is filled and measured."""

    world: World
    messages: int
    figures: list[Figure] = field(default_factory=list)

    def __post_init__(self) -> None:
        """Name the relay's parts."""
        self.machine = self.world.machine("mx2")
        self.agent = Agent(self.machine)

    def note(self, *figure: str | float | bool | None, **more: float | bool) -> None:
        """Keep a figure and show it."""
        self.figures.append(Figure(*figure, **more))  # type: ignore[arg-type]
        click.echo(str(self.figures[-1]))

    def run(self) -> None:
        """Measure everything."""
        self.source(len(RECIPIENTS))  # from now on postscreen knows this client
        empty = self.source(SAMPLE)
        self.fill()
        full = self.source(SAMPLE)
        self.note("intake, empty queue", round(SAMPLE / empty), "/s")
        budget = round(0.9 * SAMPLE / empty)
        self.note(f"intake, {self.queued():,} queued", round(SAMPLE / full), "/s", budget,
                  least=True)  # fmt: skip
        self.note("catching up on a whole core", self.caught_up(), "s", 20.0)
        self.note("  lines of log", self.lines(), "")
        self.verbs(lambda: None)
        with limited(self.machine, MEMORY, CORES) as join:
            click.echo(f"from now on: {MEMORY / 2**30:g} GiB, {CORES:g} of a core")
            self.rest()
            self.verbs(join)
            with self.quiet():
                self.rest()
                self.verbs(join)
        self.note("the agent's memory at its highest", self.memory("VmHWM"), "MiB", 45.0)

    @contextlib.contextmanager
    def quiet(self) -> Iterator[None]:
        """Have Postfix not try anything again while the block runs."""
        click.echo("from now on: Postfix, which tried all mail again in turns, is stopped")
        self.machine.run(["systemctl", "stop", "postfix"], timeout=600)
        try:
            wait_for("the agent to have read all that there is", self.read_all, timeout=1800)
            yield
        finally:
            self.machine.run(["systemctl", "start", "postfix"], timeout=600)

    def rest(self) -> None:
        """Measure what an agent needs that has nothing to catch up on but what is retried."""
        before = self.lines()
        self.note(f"the agent's CPU over {IDLE_SECONDS:.0f} s, of a core",
                  round(100 * self.share(IDLE_SECONDS), 2), "%", 1.0)  # fmt: skip
        self.note("  lines of log in that time", self.lines() - before, "")
        self.note("the agent's memory", self.memory("VmRSS"), "MiB", 45.0)
        for title, value in zip(("median", "worst of 20"), self.metrics(), strict=True):
            self.note(f"/metrics, {title}", value, "ms", 50.0)

    def verbs(self, join: Callable[[], None]) -> None:
        """Measure the verbs, as processes that ``join`` puts where they belong."""
        for verb in VERBS:
            self.note(f"backup-mx {' '.join(verb)}", self.timed(verb, join), "s", 2.0)

    def fill(self) -> None:
        """Have the messages taken in while the agent is dead, as fast as Postfix takes them."""
        self.machine.run(["systemctl", "stop", UNIT])
        missing = self.messages - self.queued()
        seconds = self.source(missing) if missing >= len(RECIPIENTS) else 0.0
        click.echo(f"{self.queued():,} messages wait, after {seconds:.0f} s")

    def source(self, count: int) -> float:
        """Send so many messages with smtp-source(1); return the seconds it took."""
        began = time.monotonic()
        with ThreadPoolExecutor(len(RECIPIENTS)) as pool:
            list(pool.map(self._source, RECIPIENTS, [count // len(RECIPIENTS)] * len(RECIPIENTS)))
        return time.monotonic() - began

    def _source(self, recipient: str, count: int) -> None:
        argv = ["smtp-source", "-s", "5", "-l", str(OCTETS), "-m", str(count)]
        argv += ["-f", "post@example.net", "-t", recipient, "127.0.0.1:25"]
        self.machine.run(argv, timeout=3600)

    def caught_up(self) -> float:
        """Let the agent begin its ledger anew; return the seconds until it knows every message."""
        self.machine.run(["systemctl", "stop", UNIT])
        for file in self.machine.path(LEDGER).parent.glob("ledger.sqlite*"):
            file.unlink()
        queued = self.queued()
        began = time.monotonic()
        self.machine.run(["systemctl", "start", UNIT], timeout=600)
        wait_for(f"the agent to know of {queued} messages", lambda: self.known() >= queued,
                 timeout=3600)  # fmt: skip
        return round(time.monotonic() - began, 1)

    def queued(self) -> int:
        """Count the messages on the disk, each once though it may move meanwhile."""
        spool = self.machine.path("/srv/backup-mx/spool")
        return len({
            name for queue in QUEUES for _, _, files in os.walk(spool / queue) for name in files
        })  # fmt: skip

    def lines(self) -> int:
        """Count the lines of Postfix's log."""
        with self.machine.path(self.machine.role.mail_log).open("rb") as lines:
            return sum(1 for _ in lines)

    def read_all(self) -> bool:
        """Tell whether the agent is as far as the log, which does not grow."""
        time.sleep(0.5)  # as in known
        log = self.machine.path(self.machine.role.mail_log).stat().st_size
        with contextlib.closing(sqlite3.connect(self.machine.path(LEDGER))) as ledger:
            query = "SELECT value FROM meta WHERE key = 'position'"
            return bool(json.loads(ledger.execute(query).fetchone()[0])["offset"] >= log)

    def known(self) -> int:
        """How many messages wait, as the agent's last snapshot says."""
        time.sleep(0.5)  # asking is work that it would be charged with
        with contextlib.suppress(Exception):
            found = self.agent.snapshot()
            return found.sums.waiting + found.sums.held if found else 0
        return 0

    def memory(self, field_name: str) -> float:
        """Return a line of the agent's /proc/PID/status (proc(5)), in MiB."""
        status = self.machine.run(["cat", f"/proc/{self.agent.process}/status"]).text
        [line] = [each for each in status.splitlines() if each.startswith(f"{field_name}:")]
        return round(int(line.split()[1]) / 1024, 1)

    def share(self, seconds: float) -> float:
        """Return the share of a core that the agent takes over so many seconds."""
        before = self.ticks()
        time.sleep(seconds)
        return (self.ticks() - before) / TICKS / seconds

    def ticks(self) -> int:
        """Return the CPU time that the agent ever took (proc(5): utime and stime)."""
        stat = self.machine.run(["cat", f"/proc/{self.agent.process}/stat"]).text
        fields = stat.rpartition(")")[2].split()
        return int(fields[11]) + int(fields[12])

    def metrics(self) -> tuple[float, float]:
        """Return the median and the longest time that /metrics takes, in milliseconds."""
        return _median_and_worst([self._scrape() for _ in range(20)])

    def _scrape(self) -> float:
        with network.inside(names.scoped(self.world.name, "mx2")):
            connection = http.client.HTTPConnection(*METRICS, timeout=30)
            connection.connect()
        began = time.monotonic()
        connection.request("GET", "/metrics")
        body = connection.getresponse().read()
        seconds = time.monotonic() - began
        connection.close()
        if b"backup_mx_" not in body:
            raise click.ClickException("/metrics does not answer as it should")
        return 1000 * seconds

    def timed(self, verb: list[str], join: Callable[[], None]) -> float:
        """Return the median of the seconds that a verb takes on the relay; VERB_SECONDS at most."""
        argv = self.machine.command(["/usr/local/bin/backup-mx", *verb])
        taken = []
        for _ in range(3):
            began = time.monotonic()
            # The child, not we, is to be in the machine's group: no thread runs any more.
            with contextlib.suppress(subprocess.TimeoutExpired):
                subprocess.run(argv, check=True, capture_output=True, preexec_fn=join,
                               timeout=VERB_SECONDS)  # fmt: skip
            taken.append(time.monotonic() - began)
        return round(statistics.median(taken), 2)


def _median_and_worst(taken: list[float]) -> tuple[float, float]:
    return round(statistics.median(taken), 1), round(max(taken), 1)


@contextlib.contextmanager
def relay(name: str, keep: bool) -> Iterator[World]:
    """Have a lab with a relay whose primary never was; one that is up already is used."""
    if is_up(name):
        yield attach(name)
        return
    # Nobody is told: Apprise, now and then, would be measured with whatever is going on.
    made = standard(name, agent=True, options="[notify]\nurls = []\n")
    world = replace(made, members=("internet", "mx2"))
    try:
        world.up(click.echo)
        yield world
    finally:
        if not keep:
            world.down()


@click.command()
@click.option("--messages", default=100_000, show_default=True)
@click.option("--name", default=LAB, show_default=True, help="The lab's name.")
@click.option("--keep", is_flag=True, help="Leave the lab up.")
@click.option("--report", type=click.Path(path_type=Path), default=Path("reports/scale.json"))
def main(messages: int, name: str, keep: bool, report: Path) -> None:
    """Measure a relay with very many messages on a very small machine."""
    with relay(name, keep) as world:
        bench = Bench(world, messages)
        bench.run()
    report.parent.mkdir(parents=True, exist_ok=True)
    rows = [asdict(each) | {"ratio": each.ratio} for each in bench.figures]
    report.write_text(json.dumps(rows, indent=2) + "\n")
    click.echo(f"Report: {report}")


if __name__ == "__main__":
    main()
