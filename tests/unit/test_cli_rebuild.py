"""``backup-mx rebuild`` as an operator meets it: what it writes, asks, prints and ends with."""

from __future__ import annotations

import gzip
import json
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import click
import pytest
from rebuilds import FakeRelay, exported, facts, ids, snapshot

from backup_mx import cli
from backup_mx.cli.gate import site_of
from backup_mx.cli.relays import load
from backup_mx.errors import MachineError
from backup_mx.evidence import Evidence
from backup_mx.findings import Finding
from backup_mx.gates import lock, run
from backup_mx.gates import rebuild as gate
from backup_mx.gates.all import GATES
from backup_mx.machine import rebuild, ship
from backup_mx.machine.look import Look

CONFIG = """
[relay.mx2]
hostname = "mx2.example.org"
address = "203.0.113.20"
volume = true
rebuild_command = ["fake-cloud", "rebuild", "{relay}", "{user_data}"]
[primary.home]
hostname = "mail.example.org"
[domain."example.org"]
[tls]
acme = false
"""


@dataclass(frozen=True)
class Ended:
    code: int
    out: str
    err: str


@dataclass
class Site:
    """A folder with a config, a relay that answers, and a cloud that notes how it was called."""

    folder: Path
    relay: FakeRelay
    run: Callable[..., Ended]

    @property
    def asked_of_the_cloud(self) -> list[str]:
        log = self.folder / "cloud.log"
        return log.read_text().splitlines() if log.exists() else []


@pytest.fixture
def site(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str], tmp_path: Path
) -> Site:
    """A relay with two messages, which a cloud can make anew."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "backup-mx.toml").write_text(CONFIG)
    program = tmp_path / "bin" / "fake-cloud"
    program.parent.mkdir()
    program.write_text(f'#!/bin/sh\necho "$@" >> {tmp_path}/cloud.log\necho made\n')
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{program.parent}:/usr/bin:/bin")
    relay = FakeRelay(facts(queue=ids(2)), snapshot(waiting=2))
    monkeypatch.setattr(ship, "SshHost", lambda *_: relay)
    monkeypatch.setattr(rebuild, "version", lambda _: "the config's")
    monkeypatch.setattr(rebuild, "WAIT_S", 0.0)
    monkeypatch.setattr(rebuild, "PROOF_S", 0.0)

    def run(*arguments: str) -> Ended:
        monkeypatch.setattr(sys, "argv", ["backup-mx", "rebuild", *arguments])
        with pytest.raises(SystemExit) as ended:
            cli.main()
        out, err = capfd.readouterr()
        return Ended(int(ended.value.code or 0), out, err)

    return Site(tmp_path, relay, run)


def become_another(site: Site) -> None:
    """Have the relay be another machine from when the cloud was called."""
    run = site.relay.run

    def answer(*args: object, **others: object) -> ship.Answer:
        if any(" plan " not in line for line in site.asked_of_the_cloud):
            site.relay.facts |= {"boot": "second", "left": ""}
        return run(*args, **others)  # type: ignore[arg-type]

    site.relay.run = answer  # type: ignore[method-assign]


def written(folder: Path) -> dict[Path, bytes]:
    """Return what is in the files of a folder."""
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_the_plan_changes_nothing(site: Site) -> None:
    """--plan shows what dies and what stays; the cloud is not called, and no file is written."""
    before = written(site.folder)
    ended = site.run("--plan")
    assert (ended.code, ended.out) == (0, "Nothing was changed.\n")
    assert "stays: 2 messages, on the volume (2 deferred)" in ended.err
    assert site.asked_of_the_cloud == []
    assert site.relay.done == []
    assert json.loads(site.run("--plan", "--json").out)["plan"]["messages"] == 2
    assert written(site.folder) == before


def test_a_plan_does_not_go_on(site: Site) -> None:
    """To go on is to change something."""
    ended = site.run("--plan", "--resume")
    assert (ended.code, "exclude each other" in ended.err) == (2, True)
    assert site.relay.done == []


KEY = """
wireguard_address = "10.0.20.2"
wireguard_key = { file = "not-here" }
"""
TUNNEL = """
drain_to = "10.0.20.1:2526"
tls = "may"
wireguard_endpoint = "vpn.example.org:51820"
wireguard_public_key = "3p7bfXt9wbTTW2HC7OQ1Nz+DQ8hbeGdNrfx+FG+IK08="
"""


def test_terraform_s_plan_changes_nothing(at_oracle: Site) -> None:
    """Nor does it need a secret, which only what is built has."""
    path = at_oracle.folder / "backup-mx.toml"
    text = path.read_text().replace("volume = true\n", f"volume = true\n{KEY}")
    path.write_text(text.replace('"mail.example.org"\n', f'"mail.example.org"\n{TUNNEL}'))
    before = written(at_oracle.folder)
    ended = at_oracle.run("--plan")
    assert ended.code == 0, ended.err
    assert written(at_oracle.folder) == before


def test_nobody_is_there_to_ask(site: Site) -> None:
    """Without a terminal, and without --yes, nothing happens."""
    ended = site.run()
    assert ended.code == 2
    assert "--yes" in ended.err
    assert site.relay.done == []


@pytest.mark.parametrize("how", ["--yes", "--resume"])
def test_one_at_a_time(site: Site, how: str) -> None:
    """Where a second one fails it would start mail that the first has stopped for good.

    Who only wants to see the plan gets in nobody's way.
    """
    become_another(site)
    with lock.held(site.folder / "build/mx2/rebuild"):
        ended = site.run(how)
        assert ended.code == 1
        assert "another rebuild of mx2 is going on" in ended.err
        assert site.relay.done == []
        assert site.run("--plan").code == 0
    assert site.run(how).code == 0


def test_nobody_else_begins_while_mail_is_stopped(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    """From before the first look until the proof; a lab of one's own is locked by itself."""
    become_another(site)
    proven = rebuild.Rebuild.finish
    refused: list[str] = []

    def finish(job: rebuild.Rebuild, before: Look | None) -> list[Finding]:
        with (
            pytest.raises(MachineError, match="busy") as caught,
            lock.held(site.folder / "build/mx2/rebuild", "busy"),
        ):
            pass
        refused.append(str(caught.value))
        return proven(job, before)

    monkeypatch.setattr(rebuild.Rebuild, "finish", finish)
    assert site.run("--yes").code == 0
    assert refused == ["busy"]


def test_the_command_gets_fresh_user_data(site: Site) -> None:
    """What it is given was written just before; its own output does not disturb the result."""
    become_another(site)
    ended = site.run("--yes", "--json")
    assert ended.code == 0, ended.err
    user_data = site.folder / "build/mx2/user-data"
    assert site.asked_of_the_cloud == [f"rebuild mx2 {user_data}"]
    assert b"--volume-exists" in gzip.decompress(user_data.read_bytes())
    assert {each["verdict"] for each in json.loads(ended.out)["findings"]} == {"pass"}
    assert "made\n" in ended.err


def test_a_machine_that_stays_the_old_one(site: Site) -> None:
    """The wait ends, with what to do; --resume goes on from what was noted."""
    ended = site.run("--yes")
    assert ended.code == 4
    assert "waiting for the old machine to go" in ended.err
    record = site.folder / "build/mx2/before.json"
    assert record.stat().st_mode & 0o777 == 0o600
    site.relay.facts |= {"boot": "second", "left": "", "queue": ids(1)}
    resumed = site.run("--resume")
    assert resumed.code == 1
    assert "missing: 4Bmx000001z1" in resumed.out
    site.relay.facts["queue"] = ids(2)
    assert site.run("--resume").code == 0
    assert not record.exists()


@pytest.mark.parametrize("content", [b"", b"[" * 200_000, b'{"boot": "\xff"}', b"{}"])
def test_a_damaged_record_of_what_the_relay_was(site: Site, content: bytes) -> None:
    """A file of this host is not blamed on the relay; what to do is said, and nothing is done."""
    record = site.folder / "build/mx2/before.json"
    record.parent.mkdir(parents=True, exist_ok=True)
    record.write_bytes(content)
    resumed = site.run("--resume")
    assert resumed.code == 1
    assert "build/mx2/before.json is damaged. Delete it, then --resume" in resumed.err
    assert record.exists()


def recorded(site: Site) -> tuple[str, str]:
    """Return verdict and words of the gate ``rebuild``."""
    told = json.loads((site.folder / "build/evidence.json").read_text())
    proof = told["mx2"]["gates"]["rebuild"]
    return proof["verdict"], proof["saw"]


def test_what_was_proven_is_evidence(site: Site) -> None:
    """The gate ``rebuild`` goes by how the last one ended; --plan proves nothing."""
    site.run("--plan")
    assert not (site.folder / "build/evidence.json").exists()
    become_another(site)
    assert site.run("--yes").code == 0
    assert recorded(site)[0] == "pass"


def test_what_nobody_saw_before_is_no_evidence(site: Site) -> None:
    """The relay may be well; that it was made anew around its mail, nothing shows."""
    assert site.run("--resume").code == 0
    verdict, saw = recorded(site)
    assert verdict == "unknown"
    assert "what was there before, nobody could ask" in saw


def test_an_empty_queue_is_no_evidence(site: Site) -> None:
    """No mail was there that could have been lost."""
    site.relay.facts["queue"] = {}
    become_another(site)
    assert site.run("--yes").code == 0
    assert recorded(site)[0] == "unknown"


@pytest.mark.parametrize("resumed", [False, True])
def test_a_rebuild_that_does_not_end_voids_what_was_proven(site: Site, *, resumed: bool) -> None:
    """Whatever ends it: what an earlier one proved is about a machine that may be gone."""
    become_another(site)
    assert site.run("--yes").code == 0
    site.relay.facts["settled"] = False
    assert site.run("--resume" if resumed else "--yes").code == 4
    assert recorded(site) == ("unknown", "begun, and not ended")
    (told,) = gate.judge(site_of(load(site.folder / "backup-mx.toml"), "mx2"))
    assert told.do == "make it anew, or --resume"


def all_seen(site: Site) -> Evidence:
    """Have each gate be passed."""
    seen_of = site_of(load(site.folder / "backup-mx.toml"), "mx2")
    proofs = {
        name: run.proof(seen_of, each, [Finding(name, "pass", "seen")])
        for name, each in GATES.items()
    }
    return run.record(seen_of, GATES, proofs)


def allowed(site: Site) -> list[str]:
    """Return the records that the evidence allows."""
    told = json.loads((site.folder / "build/evidence.json").read_text())
    return list(told["mx2"]["allows"])


def test_what_was_seen_before_a_machine_was_replaced_by_hand_is_no_evidence(
    by_hand: Site,
) -> None:
    """Nobody here saw it go: the record tells what it was, not when it went."""
    by_hand.relay.facts["queue"] = {}
    by_hand.relay.snapshot = snapshot()
    by_hand.run()
    all_seen(by_hand)
    become_the_next(by_hand)
    assert by_hand.run("--resume").code == 0
    assert allowed(by_hand) == []


@pytest.mark.parametrize("begun", ["--yes", "--resume"])
def test_what_was_seen_of_the_old_machine_is_no_evidence_for_the_new(
    site: Site, begun: str
) -> None:
    """Neither A nor MX goes by it, from when a rebuild begins: drills and plans alone stand."""
    assert all_seen(site).allows == ("A", "MX")
    site.relay.facts["settled"] = False
    assert site.run(begun).code == 4
    told = json.loads((site.folder / "build/evidence.json").read_text())["mx2"]
    assert told["allows"] == []
    stands = {name for name, each in told["gates"].items() if each["verdict"] == "pass"}
    lasting = {each.name for each in GATES.values() if each.lasting or not each.of_relay}
    assert stands == lasting - {"rebuild"}
    assert {told["gates"][name]["saw"] for name in ("inbound", "version")} == {"not run yet"}


@pytest.fixture
def by_hand(site: Site) -> Site:
    """A site where nothing makes a machine anew, and the relay has no volume."""
    text = CONFIG.replace('rebuild_command = ["fake-cloud"', '# ["fake-cloud"')
    (site.folder / "backup-mx.toml").write_text(text.replace("volume = true", "volume = false"))
    site.relay.facts["volume"] = ""
    return site


STEPS = """\
Nothing here makes the machine of mx2 anew: that takes rebuild_command in [relay.mx2], or \
[cloud.oci]. By hand:
  see that no other mail comes, and ask this once more:
    ssh -p 22 root@203.0.113.20 systemctl stop postfix.service postfix@-.service
  replace the machine, with build/mx2/user-data
  have the new one proven:
    backup-mx rebuild mx2 --resume --exported kept
"""


def exported_all(site: Site) -> None:
    """Take out what waits there."""
    (site.folder / "kept").mkdir()
    exported(site.folder / "kept", list(ids(2)))


def noted_earlier(site: Site) -> Path:
    """Have a record of what the relay was before some earlier rebuild: nothing waited."""
    record = site.folder / "build/mx2/before.json"
    record.parent.mkdir(parents=True)
    record.write_text(json.dumps(facts(boot="zeroth", volume="")))
    return record


def become_the_next(site: Site) -> None:
    """Have the operator replace the machine, with a disk on which nothing waits."""
    site.relay.facts |= {"boot": "second", "left": "", "queue": {}}


@pytest.mark.parametrize("how", ["--plan", "--yes"])
def test_a_machine_replaced_by_hand_takes_no_mail_with_it(by_hand: Site, how: str) -> None:
    """Whoever replaces it, what waits there is looked at first, and has to be taken out."""
    ended = by_hand.run(how)
    assert ended.code == 1
    assert "2 messages wait on mx2, on the disk that dies with the machine" in ended.err
    assert "  backup-mx export mx2 --all -o mx2-mail\n" in ended.err
    assert "--resume" not in ended.err
    folder = by_hand.folder / "kept"
    folder.mkdir()
    exported(folder, ["4Bmx000000z1"])
    ended = by_hand.run(how, "--exported", "kept")
    assert ended.code == 1
    assert "1 message on mx2 is not in kept (4Bmx000001z1)" in ended.err
    assert by_hand.relay.done == []


def test_without_a_way_to_replace_it(by_hand: Site) -> None:
    """Once no mail is lost by it, it is said how it is done by hand, and then proven."""
    exported_all(by_hand)
    assert by_hand.run("--plan", "--exported", "kept").code == 0
    ended = by_hand.run("--exported", "kept")
    assert ended.code == 1
    assert "is made anew by: you, by hand" in ended.err
    assert "stays: 2 messages, in kept" in ended.err
    assert "Usage" not in ended.err
    assert ended.out == STEPS
    assert by_hand.relay.done == []
    become_the_next(by_hand)
    assert by_hand.run("--resume", "--exported", "kept").code == 0
    assert "import 2" in by_hand.relay.done
    assert recorded(by_hand)[0] == "pass"


def test_what_is_left_to_the_operator_as_json(by_hand: Site) -> None:
    """It is not done yet; the plan and each step are there."""
    by_hand.relay.facts["queue"] = {}
    ended = by_hand.run("--json")
    assert ended.code == 1
    told = json.loads(ended.out)
    assert told["plan"]["how"] == "you, by hand"
    assert [each["run"].partition(" ")[0] for each in told["steps"]] == ["ssh", "", "backup-mx"]


def test_a_machine_that_nobody_can_ask_is_replaced_by_hand(by_hand: Site) -> None:
    """What an earlier rebuild has noted is not what it was."""
    record = noted_earlier(by_hand)
    by_hand.relay.unreachable = "ssh: Connection timed out"
    ended = by_hand.run("--relay-is-gone")
    assert ended.code == 1
    assert "systemctl stop" not in ended.out
    assert not record.exists()


def test_the_old_machine_started_again_is_not_the_new_one(by_hand: Site) -> None:
    """By hand as well its root disk knows that it is to go."""
    by_hand.relay.facts["queue"] = {}
    by_hand.run()
    by_hand.relay.facts |= {"boot": "second"}
    ended = by_hand.run("--resume")
    assert ended.code == 4
    assert "waiting for the old machine to go" in ended.err


def test_what_an_earlier_rebuild_noted_is_not_gone_by(by_hand: Site) -> None:
    """It ended otherwise; what waits now, and was taken out, is put back."""
    noted_earlier(by_hand)
    exported_all(by_hand)
    by_hand.run("--exported", "kept")
    become_the_next(by_hand)
    ended = by_hand.run("--resume", "--exported", "kept")
    assert "import 2" in by_hand.relay.done
    assert "2 of 2 messages are there, 2 of them put back" in ended.out


def test_what_was_handed_over_after_the_export_is_not_delivered_twice(by_hand: Site) -> None:
    """Postfix was stopped, and it was asked once more, as one is told: one message is left."""
    exported_all(by_hand)
    by_hand.run("--exported", "kept")
    by_hand.relay.facts["queue"].pop("4Bmx000000z1")
    by_hand.run("--exported", "kept")
    become_the_next(by_hand)
    by_hand.run("--resume", "--exported", "kept")
    assert [each for each in by_hand.relay.done if "import" in each] == ["import 1"]


@pytest.mark.parametrize("volume", [False, True])
def test_by_hand_there_is_user_data(by_hand: Site, *, volume: bool) -> None:
    """That file is what the steps name; it formats no blank disk where there is a volume."""
    path = by_hand.folder / "backup-mx.toml"
    path.write_text(path.read_text().replace("volume = false", f"volume = {str(volume).lower()}"))
    by_hand.relay.facts |= {"queue": {}, "volume": "/dev/vdb" if volume else ""}
    by_hand.run()
    user_data = gzip.decompress((by_hand.folder / "build/mx2/user-data").read_bytes())
    assert (b"--volume-exists" in user_data) == volume


@pytest.fixture
def at_oracle(site: Site) -> Site:
    """A site whose relay is Terraform's."""
    cloud = """
[access]
ssh_keys = ["ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIFDYWOCYXsx/YEGKrwzFq1h/QsJXCohAlanozKzQ9lRc me"]
[cloud.oci]
tenancy = "ocid1.tenancy.oc1..aaaaexample"
region = "eu-frankfurt-1"
budget_mail = "me@example.net"
folder = "terraform"
"""
    text = CONFIG.replace("rebuild_command", "# rebuild_command") + cloud
    (site.folder / "backup-mx.toml").write_text(text)
    (site.folder / "bin/fake-cloud").rename(site.folder / "bin/terraform")
    return site


SAVED = "build/mx2/terraform.plan"


def test_terraform_is_called_in_its_folder(
    at_oracle: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It gets its variables first; what it plans is shown, asked about, and just that is done.

    Mail is stopped once nobody has to be waited for any more, also with --yes.
    """
    site, done = at_oracle, at_oracle.relay.done
    asked: list[tuple[list[str], list[str]]] = []
    saved = site.folder / SAVED

    def answer(*_: object, **__: object) -> bool:
        asked.append((site.asked_of_the_cloud, list(done)))
        assert saved.stat().st_mode & 0o777 == 0o600
        return True

    become_another(site)
    monkeypatch.setattr(sys.stdin, "isatty", lambda: True)
    monkeypatch.setattr(click, "confirm", answer)
    ended = site.run("--yes")
    assert ended.code == 0, ended.err
    machine = 'oci_core_instance.relay["mx2"]'
    planned = f"-chdir=terraform plan -replace={machine} -out={saved}"
    assert asked == [([planned], [])]
    assert site.asked_of_the_cloud == [planned, f"-chdir=terraform apply {saved}"]
    assert not saved.exists()
    assert (site.folder / "terraform/backup-mx.auto.tfvars.json").exists()


def test_who_says_no_to_terraform_has_lost_nothing(
    at_oracle: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing has been stopped; what it would have done is nobody else's to read."""
    monkeypatch.setattr(sys.stdin, "isatty", lambda: True)
    monkeypatch.setattr(click.termui, "visible_prompt_func", lambda _: "n")
    ended = at_oracle.run()
    assert ended.code == 1
    assert ended.err.endswith("backup-mx: you said no: nothing is changed\n")
    assert len(at_oracle.asked_of_the_cloud) == 1
    assert at_oracle.relay.done == []
    assert not (at_oracle.folder / SAVED).exists()


def test_nobody_is_there_to_read_terraform_s_plan(at_oracle: Site) -> None:
    """--yes is no answer to what has not been seen."""
    ended = at_oracle.run("--yes")
    assert ended.code == 2
    assert "Terraform's plan has to be read" in ended.err
    assert at_oracle.asked_of_the_cloud == []
