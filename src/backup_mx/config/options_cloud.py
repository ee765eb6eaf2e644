"""The options of clouds and of DNS: what Terraform is told. Declared as in `options`."""

from __future__ import annotations

from typing import ClassVar

from pydantic import Field

from backup_mx.config.checks import Options
from backup_mx.config.values import MailAddress, Name, SecretSource, Switch
from backup_mx.config.values_cloud import (
    Compartment,
    Folder,
    Gigabytes,
    InnerNetwork,
    Place,
    Profile,
    Published,
    RecordLimit,
    Region,
    RsaKey,
    Shape,
    Tenancy,
    Zones,
)


class Oci(Options):
    """Oracle's cloud, where a small machine is free: what `terraform/oci` makes there."""

    heading: ClassVar[str] = "cloud.oci"
    optional: ClassVar[bool] = True
    tenancy: Tenancy = Field(
        description="The account: Oracle shows its OCID under Tenancy details.",
        examples=["ocid1.tenancy.oc1..aaaaexample"],
    )
    compartment: Compartment = Field(
        description="What everything is put into.",
        examples=["ocid1.compartment.oc1..aaaaexample"],
        json_schema_extra={"follows": "the tenancy"},
    )
    region: Region = Field(
        description="The tenancy's home region: what is free is free only there.",
        examples=["eu-frankfurt-1"],
    )
    budget_mail: MailAddress = Field(
        description="Who gets a mail when anything in the tenancy costs money.",
        examples=["me@example.net"],
    )
    relays: tuple[Name, ...] = Field(
        description="Which relays stand there.",
        examples=[["mx2"]],
        json_schema_extra={"follows": "all of the file"},
    )
    profile: Profile | None = Field(
        default=None,
        description="The section of ~/.oci/config that says who asks. Without it, Oracle's "
        "programs go by their own environment variables, and by the section DEFAULT.",
        examples=["DEFAULT"],
    )
    availability_domain: Place | None = Field(
        default=None,
        description="Where the machines stand. Without it, the one is found where Oracle gives "
        "this tenancy the shape.",
        examples=["Uocm:PHX-AD-1"],
    )
    shape: Shape = Field(
        default="VM.Standard.E2.1.Micro",
        description="The kind of machine. Two of the default's are free.",
    )
    boot_volume_size: Gigabytes = Field(
        default="50 GB",
        validate_default=True,
        description="The size of a machine's own disk, which dies with it.",
    )
    volume_size: Gigabytes = Field(
        default="50 GB",
        validate_default=True,
        description="The size of the volume with a relay's queue, which outlives the machine. 200 "
        "GB are free, all disks and volumes together.",
    )
    may_cost: Switch = Field(
        default=False,
        description="Whether it may be more than what is free: more machines, others, more GB.",
    )
    network: InnerNetwork = Field(
        default="172.30.255.0/28",
        validate_default=True,
        description="The machines' own network there. It must not be one of the primary's.",
    )
    console_key: RsaKey | None = Field(
        default=None,
        description="The public key that opens the machines' serial consoles, for the day on which "
        "nothing else leads in. Oracle takes RSA keys only.",
        examples=["ssh-rsa AAAAB3NzaC1yc2EAAAADAQABAAABAQC7 me"],
    )
    folder: Folder = Field(
        default="terraform/oci",
        validate_default=True,
        description="Where Terraform runs: a copy of `terraform/oci`. `backup-mx build` writes its "
        "input there.",
    )


class Cloudflare(Options):
    """DNS at Cloudflare, where `backup-mx dns` or `terraform/cloudflare` publishes.

    Nothing is published that the gates have not proven.
    """

    heading: ClassVar[str] = "dns.cloudflare"
    optional: ClassVar[bool] = True
    zones: Zones = Field(
        description="The zones with the relays' names and the domains, and the ID that Cloudflare "
        "shows on each zone's page.",
        examples=[{"example.org": "023e105f4ecef8ad9ca31a8372d0c353"}],
    )
    record_limit: RecordLimit = Field(
        default=200,
        description="How many records a zone may have: 200 in a free one, 1000 in one made before "
        "September 2024.",
    )
    token: SecretSource | None = Field(
        default=None,
        description="Where a token is kept that may edit the DNS of these zones, and nothing else, "
        "for `backup-mx dns`. Without it Terraform publishes, to which the token comes by "
        "CLOUDFLARE_API_TOKEN.",
        examples=[{"file": "secrets/cloudflare"}],
    )
    publish: Published = Field(
        default="address",
        description='What Terraform publishes: "address" for the relays\' names alone, "mx" for '
        "them and the MX records, which go last.",
    )
    folder: Folder = Field(
        default="terraform/cloudflare",
        validate_default=True,
        description="Where Terraform runs: a copy of `terraform/cloudflare`. `backup-mx build` "
        "writes its input there.",
    )
