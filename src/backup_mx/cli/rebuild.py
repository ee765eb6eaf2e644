"""The verb that makes a relay anew: ``backup-mx rebuild``."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from backup_mx.cli.findings import show_findings
from backup_mx.cli.relays import BUILT, load, relay_named, terraform_inputs, written
from backup_mx.cli.terminal import (
    CONFIG,
    JSON,
    RELAY,
    SSH_CONFIG,
    agree,
    attended,
    progress,
    say,
    say_json,
    write,
)
from backup_mx.errors import MachineError

if TYPE_CHECKING:
    from backup_mx.config import Config
    from backup_mx.evidence import Proof
    from backup_mx.findings import Finding
    from backup_mx.lab.world import World
    from backup_mx.machine.look import Look
    from backup_mx.machine.plan import Plan
    from backup_mx.machine.providers import Provider
    from backup_mx.machine.rebuild import Rebuild
    from backup_mx.machine.ship import Host


@click.command()
@RELAY
@CONFIG
@SSH_CONFIG
@click.option("--lab", metavar="NAME", help="Rebuild mx2 of this lab instead.")
@click.option("--plan", "only_plan", is_flag=True, help="Show what would happen; change nothing.")
@click.option("--yes", is_flag=True, help="Do not ask, but for what Terraform plans.")
@click.option(
    "--relay-is-gone", is_flag=True, help="Go on though nobody can ask it what waits there."
)
@click.option(
    "--exported",
    metavar="FOLDER",
    type=click.Path(path_type=Path, exists=True, file_okay=False),
    help="What waits has been exported to here, and is put back afterwards.",
)
@click.option("--resume", is_flag=True, help="The machine has been replaced: wait, deploy, prove.")
@JSON
def rebuild(
    relay: str | None,
    path: Path,
    ssh_config: Path | None,
    lab: str | None,
    only_plan: bool,
    yes: bool,
    relay_is_gone: bool,
    exported: Path | None,
    resume: bool,
    as_json: bool,
) -> None:
    """Make a relay anew, with mail in its queue, and prove that it is the same.

    Shows first what dies and what stays. Without a volume it is refused while mail waits: that has
    to be exported first. DNS is not touched. Fails when the new machine is not the same relay, and
    where it is left to you to replace it.
    """
    if only_plan and resume:
        raise click.UsageError("--plan and --resume exclude each other")
    from backup_mx.findings import passed
    from backup_mx.machine.rebuild import Rebuild

    with _world(lab) as world, contextlib.ExitStack() as alone:
        config = world.made_from if world else load(path)
        name = relay_named(config, relay)
        alone.enter_context(_alone(name, world, changes=not only_plan))
        job = Rebuild(config, name, _host(config, name, ssh_config, world), progress, exported)
        errand = _Errand(config, name, job, world, ssh_config)
        result: dict[str, Any] = {"relay": name}
        provider = _provider(config, name, world)
        if resume:
            before = errand.resumed()
        else:
            plan = job.planned(provider, gone=relay_is_gone)
            result["plan"] = plan.data
            for line in plan.lines:
                progress(line)
            if only_plan:
                say_json(result) if as_json else say("Nothing was changed.")
                return
            if provider is None:
                errand.prepared(plan)
                _show_steps(result, name, _steps(plan, job), as_json=as_json)
                sys.exit(1)
            before = errand.replaced(plan, provider, yes=yes)
        findings = errand.finished(before)
    _show(result, findings, as_json=as_json)
    sys.exit(0 if passed(findings) else 1)


@dataclass(frozen=True)
class _Errand:
    """A rebuild, and what is kept of it here: the evidence, and what the relay was before."""

    config: Config
    name: str
    job: Rebuild
    world: World | None
    ssh_config: Path | None

    @property
    def record(self) -> Path:
        """Where it stands what the relay was, so that --resume can prove that it is the same."""
        return BUILT / self.name / "before.json"

    def resumed(self) -> Look | None:
        """Go on after the machine was replaced; return what it was, None where nobody knows."""
        before = _recorded(self.record)
        self._begin()
        return before

    def prepared(self, plan: Plan) -> None:
        """Write what the operator replaces the machine with, and keep what it is by now."""
        _build(self.config, self.name if plan.volume else None)
        if plan.before:
            self.job.mark(plan.before)
            self._keep(plan.before)
        else:
            self.record.unlink(missing_ok=True)

    def replaced(self, plan: Plan, provider: Provider, *, yes: bool) -> Look | None:
        """Ask, and make the machine anew; return what it was, None where nobody could ask it."""
        if self.world is None:
            _build(self.config, self.name if plan.volume else None)
        with _confirmed(self.name, provider, yes=yes):
            self._begin()
            self.record.unlink(missing_ok=True)
            return self.job.replace(plan, provider, self._keep)

    def finished(self, before: Look | None) -> Sequence[Finding]:
        """Wait for the new machine, deploy, and prove that it is the same relay."""
        from backup_mx.findings import passed
        from backup_mx.machine.proof import as_evidence

        findings = self.job.finish(before)
        self._note(as_evidence(before, findings), {})
        if passed(findings):
            self.record.unlink(missing_ok=True)
        return findings

    def _keep(self, last: Look) -> None:
        write(self.record, last.text.encode())

    def _begin(self) -> None:
        """Keep as evidence that it has begun; it voids what the gates saw of the machine.

        On a resume, too: nobody here knows when the old one went.
        """
        from backup_mx.findings import Finding
        from backup_mx.gates import run
        from backup_mx.gates.all import GATES

        do = "make it anew, or --resume"
        begun = Finding("rebuild", "unknown", "begun, and not ended", do)
        self._note([begun], run.unseen(GATES))

    def _note(self, findings: Sequence[Finding], others: Mapping[str, Proof]) -> None:
        """Keep what was found as the evidence that the gate ``rebuild`` goes by; not of a lab.

        others are what is to be kept of other gates.
        """
        from backup_mx.cli.gate import site_of
        from backup_mx.gates import run
        from backup_mx.gates.all import GATES

        if self.world is None:
            site = site_of(self.config, self.name, self.ssh_config)
            proof = run.proof(site, GATES["rebuild"], findings)
            run.record(site, GATES, {**others, "rebuild": proof})


def _show(result: dict[str, Any], findings: Sequence[Finding], *, as_json: bool) -> None:
    if as_json:
        say_json({**result, "findings": [asdict(each) for each in findings]})
    else:
        show_findings(findings)


@contextlib.contextmanager
def _world(lab: str | None) -> Iterator[World | None]:
    """Have a lab for oneself, None where it is not about one."""
    if lab is None:
        yield None
        return
    from backup_mx.lab.world import claimed

    with claimed(lab) as world:
        yield world


def _alone(
    name: str, world: World | None, *, changes: bool
) -> contextlib.AbstractContextManager[None]:
    """Keep other rebuilds of a relay away where one ``changes`` it; a lab is one's own already.

    The one would take away what the other's Terraform has planned and, where it fails, start the
    mail that the other has stopped for good. Raises MachineError.
    """
    from backup_mx.gates.lock import held

    if world or not changes:
        return contextlib.nullcontext()
    return held(BUILT / name / "rebuild", f"another rebuild of {name} is going on")


def _host(config: Config, name: str, ssh_config: Path | None, world: World | None) -> Host:
    """Return how the relay is reached."""
    if world:
        from backup_mx.lab.rebuilding import LabRelay

        return LabRelay(world.machine("mx2"))
    from backup_mx.machine.ship import SshHost

    return SshHost(config.relays[name].ssh, ssh_config)


def _provider(config: Config, name: str, world: World | None) -> Provider | None:
    """Return what makes the machine anew, from what _build() writes; None: nothing here does."""
    from backup_mx.machine.providers import Terraform, command

    if world:
        from backup_mx.lab.rebuilding import LabProvider

        return LabProvider(world, progress)
    relay, oci = config.relays[name], config.cloud.oci
    if relay.rebuild_command:
        user_data = (BUILT / name / "user-data").absolute()
        values = {"relay": name, "address": str(relay.address), "user_data": str(user_data)}
        return command(relay.rebuild_command, values, config.folder, progress)
    if oci is None or name not in oci.relays:
        return None
    saved = (BUILT / name / "terraform.plan").absolute()
    return Terraform(config.folder / oci.folder, name, saved, progress)


@dataclass(frozen=True)
class _Step:
    """What the operator does, and the command that does it, "" where there is none."""

    do: str
    run: str = ""


def _steps(plan: Plan, job: Rebuild) -> Iterator[_Step]:
    """Yield how the operator replaces a machine that nothing here does, when no mail is lost so."""
    from backup_mx.machine.rebuild import POSTFIX

    if plan.before and not plan.volume:
        stop = f"{job.systemctl} stop {' '.join(POSTFIX)}"
        yield _Step("see that no other mail comes, and ask this once more:", stop)
    yield _Step(f"replace the machine, with {BUILT / plan.relay.name / 'user-data'}")
    yield _Step("have the new one proven:", job.resume)


def _show_steps(
    result: dict[str, Any], name: str, steps: Iterable[_Step], *, as_json: bool
) -> None:
    if as_json:
        say_json({**result, "steps": [asdict(each) for each in steps]})
        return
    say(
        f"Nothing here makes the machine of {name} anew: that takes rebuild_command in"
        f" [relay.{name}], or [cloud.oci]. By hand:"
    )
    for each in steps:
        say(f"  {each.do}")
        if each.run:
            say(f"    {each.run}")


def _build(config: Config, again: str | None) -> None:
    """Write what a provider reads, of all relays: a plan of Terraform's is about all of them.

    ``again`` is the relay whose volume is there already, if any.
    """
    built = [written(config, name, BUILT, again=name == again) for name in config.relays]
    terraform_inputs(config, BUILT, built)


@contextlib.contextmanager
def _confirmed(name: str, provider: Provider, *, yes: bool) -> Iterator[None]:
    """Ask, with all that there is to know on the table: from here on nothing waits for a person.

    What Terraform has planned can be done within the block, and is gone after it.
    """
    from backup_mx.machine.providers import Terraform

    terraform = provider if isinstance(provider, Terraform) else None
    if yes and not terraform:
        yield
        return
    if terraform:
        attended("Terraform's plan has to be read")
    with terraform.planned() if terraform else contextlib.nullcontext():
        agree(f"Make {name} anew?")
        yield


def _recorded(record: Path) -> Look | None:
    """Return what the relay was, None where nobody could ask it."""
    from backup_mx.machine import look

    if not record.exists():
        progress(f"{record} is not there: what the relay was before is not known")
        return None
    try:
        return look.read(record.read_text(encoding="utf-8"))
    except (MachineError, UnicodeError):
        raise MachineError(
            f"{record} is damaged. Delete it, then --resume: what the relay was before is not"
            " known then, and not proven"
        ) from None
