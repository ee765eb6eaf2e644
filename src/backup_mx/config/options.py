"""The options of ``backup-mx.toml``: every one declared once, with type, default, doc and check.

An option is one pydantic field: its type carries a Check (what it takes, in words and as a
function), its Field the default, the doc and an example.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

from pydantic import Field, PrivateAttr

from backup_mx.config.checks import Options
from backup_mx.config.options_cloud import Cloudflare, Oci
from backup_mx.config.options_live import Gates, Monitoring, MtaSts, Rfc2136, Roundtrip
from backup_mx.config.values import (
    AcmeDirectory,
    AtRetention,
    Cidr,
    Cidrs,
    Dnsbl,
    DrainTarget,
    Duration,
    Endpoint,
    Fqdn,
    InnerAddress,
    Interface,
    KitName,
    MailAddress,
    Name,
    PemFile,
    Percent,
    Port,
    Preference,
    PublicAddress,
    PublicKey,
    RecipientsPolicy,
    SecretSource,
    Size,
    Ssh,
    Switch,
    TailnetServer,
    TailnetTag,
    Threshold,
    TlsLevel,
    WireGuardKey,
    Word,
)


class Named(Options):
    """A table of which there may be several, each under a name of its own."""

    _name: str = PrivateAttr(default="")

    @property
    def name(self) -> str:
        """Return the table's key, as the file has it (a domain's in small letters)."""
        return self._name


class Relay(Named):
    """A machine that takes mail while the primary is away. One table each; as many as wanted."""

    heading: ClassVar[str] = "relay.mx2"
    hostname: Fqdn = Field(
        description="The name the relay greets with and the MX record will point to.",
        examples=["mx2.example.org"],
    )
    address: PublicAddress = Field(
        description="Its public address. Have it reserved: it must survive a rebuild.",
        examples=["203.0.113.20"],
    )
    preference: Preference = Field(
        default=20,
        description="Its preference in MX records. It must be greater than the primary's: mail "
        "goes to the smallest first. Relays of the same preference share the mail.",
    )
    metrics_at: DrainTarget = Field(
        description="Where your Prometheus and `backup-mx probe` reach its metrics, such as an "
        "address in a tailnet.",
        examples=["203.0.113.20:9725"],
        json_schema_extra={"follows": "<address>:9725"},
    )
    ssh: Ssh = Field(
        description="Where `backup-mx deploy` and `backup-mx queue` log in; a user who is not root "
        "needs sudo without a password. A port is where its sshd listens already: nothing moves "
        "it there, and the firewall opens it beside 22.",
        examples=["root@203.0.113.20"],
        json_schema_extra={"follows": "root@<address>, ubuntu@<address> on [cloud.oci]"},
    )
    volume: Switch = Field(
        default=False,
        description="Whether what it keeps lies on a disk of its own, which outlives the machine: "
        "the only blank one that is attached, formatted at the first boot, or the one that is "
        "labelled backup-mx. While that one is missing, no mail is taken. A relay on [cloud.oci] "
        "has one unless this says otherwise.",
    )
    secrets_in_user_data: Switch = Field(
        default=False,
        description="Whether user-data carries the private WireGuard key, which the provider can "
        "read there, and whoever has Terraform's state. Without it a new relay takes mail and "
        "keeps it until a deploy brings the key.",
    )
    wireguard_address: InnerAddress | None = Field(
        default=None,
        description="The relay's own address inside the WireGuard tunnels.",
        examples=["10.0.20.2"],
    )
    wireguard_key: SecretSource | None = Field(
        default=None,
        description="Where its private WireGuard key is kept, as `wg genkey` writes it: a file, an "
        "environment variable, or a command that prints it.",
        examples=[{"file": "secrets/mx2.key"}],
    )
    rebuild_command: tuple[Word, ...] = Field(
        default=(),
        description="What makes its machine anew for `backup-mx rebuild` where Terraform does not: "
        "a command, run in this file's folder. {relay}, {address} and {user_data}, a file, stand "
        "for themselves in it.",
        examples=[["hcloud", "server", "rebuild", "{relay}", "--user-data-from-file={user_data}"]],
    )


class Primary(Named):
    """The mail server that owns the mailboxes."""

    heading: ClassVar[str] = "primary.home"
    hostname: Fqdn = Field(
        description="The name that its MX record and its certificate bear.",
        examples=["mail.example.org"],
    )
    drain_to: DrainTarget = Field(
        description="Where a relay hands the kept mail over: a host and port that reach the "
        "primary. No MX record is looked up for it.",
        examples=["mail.example.org:25"],
        json_schema_extra={"follows": "<hostname>:25"},
    )
    tls: TlsLevel = Field(
        default="encrypt",
        description='TLS on the way to the primary: "verify" also waits until its certificate '
        'bears its hostname, from a public authority, "encrypt" waits until it offers TLS, "may" '
        'goes without if it does not, "none" never tries.',
    )
    kit: KitName = Field(
        default="postfix-rspamd",
        description="What runs there, so that `backup-mx primary render` writes what lets the "
        "relays' mail through.",
    )
    smtputf8: Switch = Field(
        default=False,
        description="Whether the primary takes SMTPUTF8 (RFC 6531). A relay never offers more "
        "than every primary takes.",
    )
    eightbitmime: Switch = Field(
        default=True,
        description="Whether the primary takes 8BITMIME (RFC 6152). If one does not, no relay "
        "offers it: to rewrite mail on the way breaks its signatures.",
    )
    wireguard_endpoint: Endpoint | None = Field(
        default=None,
        description="Where the primary's side of a WireGuard tunnel is dialled. With it, drain_to "
        "is the address inside the tunnel.",
        examples=["vpn.example.org:51820"],
    )
    wireguard_public_key: WireGuardKey | None = Field(
        default=None,
        description="The public WireGuard key of the primary's side.",
        examples=["xTIBA5rboUvnH4htodjb6e697QjLERt1NAB4mZqp8Dg="],
    )


class Domain(Named):
    """A domain whose mail the relays keep. The header alone suffices."""

    heading: ClassVar[str] = 'domain."example.org"'
    primary: Name = Field(
        description="The [primary.NAME] that owns this domain's mailboxes.",
        examples=["home"],
        json_schema_extra={"follows": "the only primary, where there is one only"},
    )
    recipients: RecipientsPolicy = Field(
        default="catch-all",
        validate_default=True,
        description='Who exists: "catch-all" takes everybody; "callout" asks the primary while it '
        "is up, and puts off whom it does not know; a table names all there are, one a line, and "
        "nobody else is taken. It is a file that you keep, or fetched from the primary.",
        examples=[{"table": "recipients.txt"}],
    )
    other_mx: tuple[Fqdn, ...] = Field(
        default=(),
        description="Mail exchangers of this domain that are yours, and neither its primary nor a "
        "relay. Any other that DNS names is a failure: it takes your mail.",
        examples=[["mx.example.net"]],
    )


class Edge(Named):
    """A router or proxy in front of the primary that lets the relays' mail in.

    Its kind is the table's name: pfsense, haproxy or nftables.
    """

    heading: ClassVar[str] = "edge.nftables"
    optional: ClassVar[bool] = True
    primary: Name = Field(
        description="The [primary.NAME] behind it.",
        examples=["home"],
        json_schema_extra={"follows": "the only primary, where there is one only"},
    )
    forward_to: DrainTarget = Field(
        description="Where it hands the relays' connections on: an inner address and port.",
        examples=["10.0.10.1:2526"],
    )
    interface: Interface | None = Field(
        default=None,
        description="The side that faces the Internet, as this router names it. Without it, "
        'pfsense takes "wan", and nftables any.',
        examples=["eth0"],
    )
    proxy_protocol: Switch = Field(
        default=True,
        description="Whether haproxy tells the primary who connected, by PROXY v2.",
    )
    check_port: Port | None = Field(
        default=None,
        description="A port where the primary answers without PROXY, for haproxy's health checks; "
        "on the usual port they would fill its log with errors.",
        examples=[10025],
    )


class Queue(Options):
    """What the relays keep."""

    heading: ClassVar[str] = "queue"
    message_size_limit: Size = Field(
        default="50 MiB",
        validate_default=True,
        description="The largest message taken. Keep it a little below the primary's own limit, "
        "which sees the message with the relay's header lines added.",
    )
    retention: Duration = Field(
        default="30d",
        validate_default=True,
        description="How long a message waits before the operator is told that it does.",
    )
    at_retention: AtRetention = Field(
        default="hold",
        description='What happens then: "hold" puts it on hold until the primary comes back '
        'or you release it, where the primary is away or refuses it; "keep" goes on trying. '
        "Neither ever loses it.",
    )
    canary_waiting: Duration = Field(
        default="5s",
        validate_default=True,
        description="How often the way to the primary is walked while mail waits; up to two and a "
        "half times as often (every 2s, with 5s) while it cannot be reached.",
    )
    canary_idle: Duration = Field(
        default="60s",
        validate_default=True,
        description="How often it is walked while none does.",
    )
    canary_message_to: MailAddress | None = Field(
        default=None,
        description="Where a message goes all the way once a day, to be sure that not only "
        "recipients are taken; in one of the domains.",
        examples=["canary@example.org"],
    )

    @property
    def canary_late(self) -> float:
        """How many seconds after a walk it has stopped: three walks, and what one may take."""
        return 3.0 * max(self.canary_idle, self.canary_waiting) + 120


class Ledger(Options):
    """The agent's book of every message that was taken, and what became of it."""

    heading: ClassVar[str] = "ledger"
    keep: Duration = Field(
        default="100d",
        validate_default=True,
        description="How long a message that has been delivered or deleted stays in it.",
    )
    hash_addresses: Switch = Field(
        default=False,
        description="Whether senders, recipients and Message-IDs stand in it as hashes, and so in "
        "lists, and are found by the whole of them only. Of what still waits, `show`, `export` and "
        "a message's page on the dashboard tell the addresses all the same, from the queue itself.",
    )


class Intake(Options):
    """Who is asked to come back later. Nothing here refuses mail for good."""

    heading: ClassVar[str] = "intake"
    dnsbl: tuple[Dnsbl, ...] = Field(
        default=("zen.spamhaus.org=127.0.0.[2..11]*3", "list.dnswl.org=127.0.[0..255].[1..3]*-2"),
        description="DNS lists that weigh a client's address, as in Postfix's "
        "postscreen_dnsbl_sites.",
    )
    dnsbl_threshold: Threshold = Field(
        default=3,
        description="The weight from which a client is put off (Postfix's "
        "postscreen_dnsbl_threshold).",
    )
    standby: Switch = Field(
        default=False,
        description="Whether everybody is asked to come back later while the primary is up, so "
        "that spam aimed at the second MX goes through the first one's filters.",
    )
    recipients_every: Duration = Field(
        default="15min",
        validate_default=True,
        description="How often tables of recipients are fetched.",
    )
    recipients_may_shrink: Percent = Field(
        default="20%",
        validate_default=True,
        description="How much smaller than the largest of the last day a fetched table may be; a "
        "smaller one is not believed, and the one before stays.",
    )


class Access(Options):
    """Who may reach the relays' SSH, metrics and dashboard."""

    heading: ClassVar[str] = "access"
    ssh_from: Cidrs = Field(
        default=("0.0.0.0/0", "::/0"),
        validate_default=True,
        description="Networks that may connect to SSH. An empty list would lock you out.",
        examples=[["198.51.100.0/24"]],
    )
    ssh_keys: tuple[PublicKey, ...] = Field(
        default=(),
        description="Public keys that may log in on a relay, on top of those the cloud puts there.",
        examples=[
            ["ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIFDYWOCYXsx/YEGKrwzFq1h/QsJXCohAlanozKzQ9lRc me"]
        ],
    )
    metrics_from: tuple[Cidr, ...] = Field(
        default=(),
        description="Networks that may fetch metrics, at port 9725. Without any, only the relay "
        "itself may.",
        examples=[["100.64.0.0/10"]],
    )
    dashboard_from: tuple[Cidr, ...] = Field(
        default=(),
        description="Networks that may open the dashboard, at port 8025, such as a tailnet; they "
        "need dashboard_password. Without any, `ssh -L 8025:localhost:8025` leads there; "
        "whoever has a login on the relay can go that way.",
        examples=[["100.64.0.0/10"]],
    )
    dashboard_password: SecretSource | None = Field(
        default=None,
        description="Where the dashboard's password is kept.",
        examples=[{"file": "secrets/dashboard"}],
    )
    dashboard_actions: Switch = Field(
        default=False,
        description="Whether the dashboard can hold, release, drain and delete, or only look; it "
        "needs dashboard_password.",
    )


class Operator(Options):
    """The person who runs all this."""

    heading: ClassVar[str] = "operator"
    address: MailAddress = Field(
        description="Where postmaster's and root's mail on the relays goes; in one of the domains.",
        examples=["postmaster@example.org"],
        json_schema_extra={"follows": "postmaster@<first domain in the file>"},
    )


class Tailnet(Options):
    """A tailnet that the relays join, as a second way in for SSH beside `ssh_from`.

    The machine has to have Tailscale's program. docs/deploy.md has the policy that goes with it.
    """

    heading: ClassVar[str] = "tailnet"
    optional: ClassVar[bool] = True
    auth_key: SecretSource = Field(
        description="Where a pre-authorised key is kept: with the tag below, and not ephemeral. A "
        "deploy brings it to a machine that is not in the tailnet yet, where it stays in memory "
        "until it is used.",
        examples=[{"file": "secrets/tailnet"}],
    )
    server: TailnetServer = Field(
        default="https://controlplane.tailscale.com",
        description="Tailscale's server, or your Headscale. One that is down when your home is "
        "leaves the relays that have joined reachable, but lets none join.",
    )
    tag: TailnetTag = Field(
        default="tag:backup-mx",
        description="The tag that the relays bear. A machine that has one needs no login again.",
    )


class Tls(Options):
    """The certificate by which senders know a relay; a self-signed one stands in until it is there.

    To have one asked for is to agree to its authority's terms.
    """

    heading: ClassVar[str] = "tls"
    acme: Switch = Field(
        default=True,
        description="Whether a relay asks an authority for its certificate, by ACME's HTTP-01: the "
        "authority must reach it at port 80, under its hostname.",
    )
    acme_directory: AcmeDirectory = Field(
        default="https://acme-v02.api.letsencrypt.org/directory",
        description="Which authority: the URL of its ACME directory. To try something out, take "
        "Let's Encrypt's staging directory, whose limits are wider.",
    )
    acme_ca: PemFile | None = Field(
        default=None,
        description="The certificate by which an ACME server of your own is known, such as "
        "step-ca's root: a PEM file.",
        examples=["acme-root.pem"],
    )
    contact: MailAddress = Field(
        description="The mail address that the authority is given.",
        examples=["postmaster@example.org"],
        json_schema_extra={"follows": "[operator] address"},
    )


class Notify(Options):
    """Whom a relay tells by itself what its operator must know, when the home is dark, too."""

    heading: ClassVar[str] = "notify"
    urls: tuple[SecretSource, ...] = Field(
        default=(),
        description="Where each of the places is kept that are told, as a URL of Apprise: ntfy, "
        "Slack, a mail API, and many more. None of them may be behind the primary's line.",
        examples=[[{"file": "secrets/ntfy"}]],
    )


SECTIONS: Mapping[str, type[Options]] = {
    "relay": Relay,
    "primary": Primary,
    "domain": Domain,
    "edge": Edge,
    "queue": Queue,
    "ledger": Ledger,
    "intake": Intake,
    "access": Access,
    "operator": Operator,
    "tailnet": Tailnet,
    "tls": Tls,
    "notify": Notify,
    "cloud.oci": Oci,
    "dns.cloudflare": Cloudflare,
    "dns.rfc2136": Rfc2136,
    "mta_sts": MtaSts,
    "gates": Gates,
    "roundtrip": Roundtrip,
    "monitoring": Monitoring,
}
