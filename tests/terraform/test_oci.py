"""terraform/oci, planned and applied by the real Terraform: what is made, what dies, what stays."""

from __future__ import annotations

import base64
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from terraformers import Folder, Run

from backup_mx.errors import MachineError
from backup_mx.machine.providers import Terraform

pytest_plugins = ["folders"]

Make = Callable[[str], Folder]
REPLACE = '-replace=oci_core_instance.relay["mx2"]'
MADE = {
    "oci_budget_alert_rule.any",
    "oci_budget_budget.any",
    "oci_core_default_route_table.relays",
    "oci_core_default_security_list.relays",
    "oci_core_internet_gateway.relays",
    "oci_core_subnet.relays",
    "oci_core_vcn.relays",
}
EACH = {
    "oci_core_instance.relay",
    "oci_core_public_ip.relay",
    "oci_core_volume.queue",
    "oci_core_volume_attachment.queue",
}


def at_oracle(folder: Folder, kind: str, name: str | None = None) -> dict[str, Any]:
    """Return what Terraform's state says of a resource."""
    state = json.loads((folder.path / "terraform.tfstate").read_text())
    for each in state["resources"]:
        for instance in each["instances"]:
            if f"{each['type']}.{each['name']}" == kind and instance.get("index_key") == name:
                found: dict[str, Any] = instance["attributes"]
                return found
    raise LookupError(kind)


def test_terraform_takes_the_module(folder: Make) -> None:
    """`terraform validate` finds nothing; it would find a slip, as the schema is the provider's."""
    made = folder("oci")
    assert made.validate() == ()
    path = made.path / "relay.tf"
    path.write_text(path.read_text().replace("preserve_boot_volume =", "preserve_bootvolume ="))
    assert len(made.validate()) == 1


def test_the_first_run_reserves_addresses_only(folder: Make) -> None:
    """Without an address in the config there is an address, a volume and a budget, no machine."""
    new = folder("oci")

    def unknown(read: dict[str, Any]) -> None:
        for relay in read["relays"].values():
            relay["address"] = relay["user_data"] = None

    new.variables(unknown)
    plan = new.plan()
    stays = {"oci_core_public_ip.relay", "oci_core_volume.queue"}
    each = {f'{kind}["{name}"]' for kind in stays for name in ("mx2", "mx3")}
    assert not plan.errors
    assert set(plan.changes) == MADE | each


def test_what_stands_is_left_alone(standing: Make) -> None:
    """A second run changes nothing, and all that was asked for has been made."""
    made = standing("oci")
    assert made.plan() == Run({}, ())
    place = "Test:EU-FRANKFURT-1-AD-3"
    for kind in EACH:
        at_oracle(made, kind, "mx3")
    assert at_oracle(made, "oci_core_instance.relay", "mx2")["availability_domain"] == place
    assert at_oracle(made, "oci_core_volume.queue", "mx2")["availability_domain"] == place


def test_a_new_image_and_new_user_data_replace_nothing(standing: Make) -> None:
    """What changes by itself, or with each change of the config, makes no machine anew."""
    made = standing("oci")
    (made.path.parent / "built/mx2/user-data").write_text("other user-data\n")
    made.variables(lambda read: read["ssh_keys"].append(read["ssh_keys"][0] + "-too"))
    made.answers(newer)
    assert made.plan().changes == {}


@pytest.mark.parametrize("old", [True, False])
def test_the_place_is_found_by_either_name_of_the_limit(folder: Make, *, old: bool) -> None:
    """Oracle has renamed it: a tenancy lists both, or the new one. Other limits do not count."""
    new = folder("oci")

    def listed(world: dict[str, Any]) -> None:
        limits = world["data"]["oci_limits_limit_values"]["limit_values"]
        renamed = [{**each, "name": "standard-e2-micro-core-count"} for each in limits]
        others = [{**each, "name": "standard-a1-core-count", "value": "9"} for each in limits]
        world["data"]["oci_limits_limit_values"]["limit_values"] = [
            *(limits if old else ()),
            *renamed,
            *others,
        ]

    new.answers(listed)
    assert not new.apply().errors
    place = at_oracle(new, "oci_core_instance.relay", "mx2")["availability_domain"]
    assert place == "Test:EU-FRANKFURT-1-AD-3"


def test_user_data_that_is_not_there_is_told_in_words(folder: Make) -> None:
    """Nobody has built yet, or elsewhere."""
    new = folder("oci")
    (new.path.parent / "built/mx2/user-data").unlink()
    (told,) = new.plan().errors
    assert "The user-data of mx2 is not there: `backup-mx build` writes ../built/mx2" in told


def test_a_machine_without_a_volume_stays_where_it_is(folder: Make) -> None:
    """That Oracle now gives the shape elsewhere moves nothing."""
    new = folder("oci")
    new.variables(lambda read: [each.pop("volume_gb") for each in read["relays"].values()])
    assert not new.apply().errors
    new.answers(newer)
    assert new.plan() == Run({}, ())


def newer(world: dict[str, Any]) -> None:
    """Let there be a newer image, and the free machines elsewhere."""
    world["data"]["oci_core_images"]["images"].insert(0, {"id": "ocid1.image.oc1..newer"})
    limits = world["data"]["oci_limits_limit_values"]["limit_values"]
    limits[0]["value"], limits[2]["value"] = "2", "0"


def test_a_rebuild_keeps_the_address_and_the_queue(standing: Make) -> None:
    """-replace destroys one machine; its address moves over, its volume stays as it is.

    The new machine takes the newest image and user-data, and stands where its volume is.
    """
    made = standing("oci")
    before = at_oracle(made, "oci_core_instance.relay", "mx2")
    (made.path.parent / "built/mx2/user-data").write_text("other user-data\n")
    made.answers(newer)
    assert made.plan(REPLACE).changes == {
        'data.oci_core_private_ips.relay["mx2"]': "read",
        'oci_core_instance.relay["mx2"]': "replace",
        'oci_core_volume_attachment.queue["mx2"]': "replace",
        'oci_core_public_ip.relay["mx2"]': "update",
    }
    assert not made.apply(REPLACE).errors
    after = at_oracle(made, "oci_core_instance.relay", "mx2")
    assert before["id"] != after["id"]
    assert before["availability_domain"] == after["availability_domain"]
    assert after["source_details"][0]["source_id"] == "ocid1.image.oc1..newer"
    assert before["metadata"]["user_data"] != after["metadata"]["user_data"]
    assert made.plan().changes == {}


@pytest.fixture
def rebuilt(
    standing: Make, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> tuple[Folder, Terraform]:
    """Return a folder in which all stands, and what `backup-mx rebuild mx2` does there."""
    made = standing("oci")
    (made.path.parent / "built/mx2/user-data").write_text("other user-data\n")
    for name, value in {**made.environment, "TF_CLI_ARGS_plan": "-no-color"}.items():
        monkeypatch.setenv(name, value)
    made.tell()
    return made, Terraform(made.path, "mx2", tmp_path / "terraform.plan", print)


def test_a_rebuild_does_what_it_has_shown(
    rebuilt: tuple[Folder, Terraform], capfd: pytest.CaptureFixture[str]
) -> None:
    """The tool has Terraform plan, in a file that nobody else reads, and then do just that."""
    made, terraform = rebuilt
    before = at_oracle(made, "oci_core_instance.relay", "mx2")
    with terraform.planned():
        shown = capfd.readouterr().err
        assert 'oci_core_instance.relay["mx2"] will be replaced' in shown
        assert "2 to add, 1 to change, 2 to destroy" in shown
        assert terraform.saved.stat().st_mode & 0o777 == 0o600
        assert at_oracle(made, "oci_core_instance.relay", "mx2") == before
        terraform.replace()
    assert not terraform.saved.exists()
    after = at_oracle(made, "oci_core_instance.relay", "mx2")
    assert before["id"] != after["id"]
    assert before["metadata"]["user_data"] != after["metadata"]["user_data"]
    assert made.plan().changes == {}


def test_a_rebuild_does_nothing_that_it_has_not_shown(
    rebuilt: tuple[Folder, Terraform],
) -> None:
    """Where something else was applied in between, Terraform refuses what was planned."""
    made, terraform = rebuilt
    with terraform.planned():
        assert not made.apply().errors
        between = at_oracle(made, "oci_core_instance.relay", "mx2")
        with pytest.raises(MachineError, match=r"apply .*terraform\.plan` ended with 1"):
            terraform.replace()
    assert at_oracle(made, "oci_core_instance.relay", "mx2") == between


def test_a_rebuild_that_cannot_be_planned_is_told(rebuilt: tuple[Folder, Terraform]) -> None:
    """Before anything is stopped; no plan is left behind."""
    made, terraform = rebuilt
    made.variables(lambda read: read.update(region="Frankfurt"))
    with pytest.raises(MachineError, match=r"plan .* ended with 1"), terraform.planned():
        pytest.fail("there is no plan")
    assert not terraform.saved.exists()


def test_a_queue_is_not_destroyed(standing: Make) -> None:
    """A relay that is taken out of the config is not gone at once.

    Its queue and its address stay until Terraform is told to forget them.
    """
    made = standing("oci")
    made.variables(lambda read: read["relays"].pop("mx3"))
    assert made.plan().says('oci_core_volume.queue["mx3"] has lifecycle.prevent_destroy')
    made.run("state", "rm", 'oci_core_volume.queue["mx3"]')
    assert made.plan().says('oci_core_public_ip.relay["mx3"] has lifecycle.prevent_destroy')
    made.run("state", "rm", 'oci_core_public_ip.relay["mx3"]')
    assert made.plan().changes == {
        'oci_core_instance.relay["mx3"]': "delete",
        'oci_core_volume_attachment.queue["mx3"]': "delete",
    }


def test_another_address_than_the_reserved_one_is_refused(standing: Make) -> None:
    """A relay that was built with another address than its own is not deployed."""
    made = standing("oci")
    made.variables(lambda read: read["relays"]["mx2"].update(address="198.18.7.21"))
    assert made.plan().says("another than the one in backup-mx.toml, of: mx2.")


def test_the_rules_open_what_they_say(standing: Make) -> None:
    """Mail and ACME from everywhere, SSH and metrics from where [access] says, nothing else."""
    made = standing("oci")
    rules = at_oracle(made, "oci_core_default_security_list.relays")["ingress_security_rules"]
    assert [(rule["source"], port(rule)) for rule in rules] == [
        ("0.0.0.0/0", 25),
        ("0.0.0.0/0", 80),
        ("198.18.9.7/32", 9725),
        ("198.18.9.0/24", 22),
        ("0.0.0.0/0", 0),
    ]
    metadata = at_oracle(made, "oci_core_instance.relay", "mx2")["instance_options"]
    assert metadata == [{"are_legacy_imds_endpoints_disabled": True}]


def test_another_port_for_ssh_is_opened_beside_22(standing: Make) -> None:
    """A fresh machine listens on 22, whatever the config says."""
    made = standing("oci")
    made.variables(lambda read: read["relays"]["mx2"].update(ssh_port=2222))
    assert not made.apply().errors
    rules = at_oracle(made, "oci_core_default_security_list.relays")["ingress_security_rules"]
    ssh = [port(rule) for rule in rules if rule["source"] == "198.18.9.0/24"]
    assert ssh == [22, 2222]


def test_port_80_is_shut_where_nobody_comes_in(standing: Make) -> None:
    """Without ACME the authority has no way in, as nothing would answer it."""
    made = standing("oci")
    made.variables(lambda read: read.update(acme=False))
    assert not made.apply().errors
    rules = at_oracle(made, "oci_core_default_security_list.relays")["ingress_security_rules"]
    assert 80 not in [port(rule) for rule in rules]


def test_port_443_is_open_where_a_policy_is_served(standing: Make) -> None:
    """A relay that hosts the MTA-STS policy is fetched from by whoever sends mail."""
    made = standing("oci")
    made.variables(lambda read: read.update(mta_sts=True))
    assert not made.apply().errors
    rules = at_oracle(made, "oci_core_default_security_list.relays")["ingress_security_rules"]
    assert ("0.0.0.0/0", 443) in [(rule["source"], port(rule)) for rule in rules]


def test_user_data_is_not_shown(folder: Make) -> None:
    """It may carry a key, and a plan is read by many: in a log, in a comment."""
    new = folder("oci")
    shown = new.run("plan", "-input=false", "-no-color")
    secret = (new.path.parent / "built/mx2/user-data").read_bytes()
    assert "user_data" in shown
    assert base64.b64encode(secret).decode() not in shown


def port(rule: dict[str, Any]) -> int:
    """Return the port that a rule opens, 0 for none."""
    found = rule["tcp_options"]
    return int(found[0]["min"]) if found and found[0]["min"] == found[0]["max"] else 0


def test_the_console_is_opened_by_a_key_only(standing: Make) -> None:
    """Without a key there is no way in by the console; with one, each machine has one."""
    made = standing("oci")
    made.variables(lambda read: read.update(console_key="ssh-rsa AAAA me"))
    assert made.plan().changes == {
        f'oci_core_instance_console_connection.relay["{name}"]': "create" for name in ("mx2", "mx3")
    }


def test_a_wrong_value_is_told_in_words(folder: Make) -> None:
    """Each variable's check answers, all at once."""
    new = folder("oci")
    new.variables(
        lambda read: read.update(
            tenancy="me",
            compartment="home",
            region="Frankfurt",
            profile="",
            availability_domain="AD-1",
            shape="VM.Standard.A1.Flex",
            boot_volume_gb=20,
            network="10.0.0.0/8",
            ssh_from=[],
            metrics_from=["::/0"],
            dashboard_from=["here"],
            ssh_keys=["-----BEGIN OPENSSH PRIVATE KEY-----"],
            console_key="ssh-ed25519 AAAA me",
            budget_mail="me",
            may_cost=None,
            acme=None,
            mta_sts=None,
            relays={},
        )
    )
    plan = new.plan()
    for told in (
        "begins with ocid1.tenancy",
        "begins with ocid1.compartment",
        "eu-frankfurt-1, for example",
        "The profile is the name of a section",
        "with the tenancy's own letters",
        "The shape is a virtual machine of fixed size",
        "The machine's own disk has 50 GB or more",
        "The network is an IPv4 network from /16 to /30",
        "SSH takes at least one IPv4 network",
        "Metrics are fetched from IPv4 networks",
        "The dashboard is opened from IPv4 networks",
        "at least one public SSH key",
        "The console's key is an RSA key",
        "Name one mail address",
        "Say true or false.",
        "Say true or false of acme",
        "Say true or false of mta_sts",
        "There is at least one relay",
    ):
        assert plan.says(told), (told, plan.errors)


def test_a_wrong_relay_is_told_in_words(folder: Make) -> None:
    """Each check of a relay answers, all at once."""
    new = folder("oci")

    def wrong(read: dict[str, Any]) -> None:
        read["relays"]["mx2"].update(hostname="mx2", address="2001:db8::1", volume_gb=20)
        read["relays"]["mx3"].update(user_data=None, ssh_port=0)
        read["relays"]["MX4"] = {"hostname": "mx4.example.org", "address": "198.18.7.4"}
        read["relays"]["MX4"]["user_data"] = "/built/none"

    new.variables(wrong)
    plan = new.plan()
    for told in (
        "each with a name of small letters",
        "hostname is a full one",
        "Oracle reserves no other",
        "both its address and its user-data, or neither",
        "The path of a relay's user-data counts from the folder",
        "SSH is at a port from 1 to 65535",
        "A queue's volume has 50 GB or more",
    ):
        assert plan.says(told), (told, plan.errors)


def test_what_oracle_does_not_give_is_told_in_words(folder: Make) -> None:
    """A place, an image, or a third machine that is not to be had, and what would cost money."""
    new = folder("oci")
    new.variables(lambda read: read.update(boot_volume_gb=51))
    new.answers(lambda world: world["data"]["oci_limits_limit_values"].update(limit_values=[]))
    plan = new.plan()
    assert plan.says("Oracle gives this tenancy no VM.Standard.E2.1.Micro in eu-frankfurt-1")
    assert plan.says("together have 202 GB, and 200 GB are free")

    def without_volumes(read: dict[str, Any]) -> None:
        read["relays"]["mx4"] = {**read["relays"]["mx3"], "hostname": "mx4.example.org"}
        for relay in read["relays"].values():
            relay["volume_gb"] = None

    new.variables(without_volumes)
    new.answers(lambda world: world["data"]["oci_core_images"].update(images=[]))
    (new.path.parent / "built/mx2/user-data").write_bytes(bytes(24_000))
    plan = new.plan()
    assert plan.says("There are 3 relays, but Oracle gives this tenancy only 0")
    assert plan.says("Oracle gives 2 machines of VM.Standard.E2.1.Micro for free")
    assert plan.says("Oracle lists no image of Ubuntu 24.04")
    assert plan.says("The user-data of mx2 and the SSH keys are larger than the 32,000 bytes")
