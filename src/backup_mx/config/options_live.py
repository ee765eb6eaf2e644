"""The options of what is published, proven and watched. Declared as in `options`."""

from __future__ import annotations

from typing import ClassVar

from pydantic import Field

from backup_mx.config.checks import Options
from backup_mx.config.values import (
    DrainTarget,
    Duration,
    MailAddress,
    Name,
    SecretSource,
    TrustFile,
    Word,
)
from backup_mx.config.values_live import (
    Account,
    Algorithm,
    KeyName,
    PolicyAge,
    PolicyMode,
    WebAddress,
    ZoneName,
)


class Rfc2136(Options):
    """DNS at a name server that takes updates (RFC 2136), signed with TSIG: Knot, BIND, PowerDNS.

    Nothing is published that the gates have not proven.
    """

    heading: ClassVar[str] = "dns.rfc2136"
    optional: ClassVar[bool] = True
    server: DrainTarget = Field(
        description="The name server that takes the updates, usually at port 53.",
        examples=["ns1.example.net:53"],
    )
    zones: tuple[ZoneName, ...] = Field(
        description="The zones that may be changed there.",
        examples=[["example.org"]],
    )
    key_name: KeyName = Field(
        description="The name of the TSIG key, as the server has it.",
        examples=["backup-mx"],
    )
    algorithm: Algorithm = Field(default="hmac-sha256", description="The key's algorithm.")
    key: SecretSource = Field(
        description="Where the key itself is kept, in base64.",
        examples=[{"file": "secrets/tsig"}],
    )


class MtaSts(Options):
    """A policy by which senders insist on TLS (RFC 8461), for all domains of this file.

    With this table, `backup-mx dns` publishes its records, too. One that stands elsewhere is only
    looked at: every relay must be in it.
    """

    heading: ClassVar[str] = "mta_sts"
    optional: ClassVar[bool] = True
    mode: PolicyMode = Field(
        default="testing",
        description='"testing" has failures reported only, "enforce" has senders wait rather than '
        'go without TLS, "none" takes a policy back.',
    )
    max_age: PolicyAge = Field(
        default="7d",
        validate_default=True,
        description="How long senders remember the policy.",
    )
    hosted_by: Name | None = Field(
        default=None,
        description="The relay that serves the policy, so that it is there while the home is dark. "
        "Without one you serve it yourself: `backup-mx mta-sts render` writes it.",
        examples=["mx2"],
    )
    reports_to: MailAddress | None = Field(
        default=None,
        description="Where senders report what went wrong with TLS (RFC 8460).",
        examples=["tls-reports@example.org"],
    )


class Gates(Options):
    """What is proven before anything is published, and for how long that holds."""

    heading: ClassVar[str] = "gates"
    fresh: Duration = Field(
        default="24h",
        validate_default=True,
        description="How long what a gate has seen counts as evidence.",
    )
    drills_fresh: Duration = Field(
        default="100d",
        validate_default=True,
        description="The same for gates that take a drill: a failover, a rebuild, a reboot.",
    )
    outside: tuple[Word, ...] = Field(
        default=(),
        description="A command that runs Python somewhere outside your network, from where port 25 "
        "is looked at. It is given the program on standard input. Without it, this machine looks.",
        examples=[["ssh", "vps.example.net", "python3", "-"]],
    )


class Roundtrip(Options):
    """An account that sends and a mailbox that gets, for messages that prove the whole way."""

    heading: ClassVar[str] = "roundtrip"
    optional: ClassVar[bool] = True
    submit: DrainTarget = Field(
        description="A submission server elsewhere, not behind the primary's line: TLS at once at "
        "port 465, STARTTLS at any other.",
        examples=["smtp.example.net:587"],
    )
    submit_user: Account = Field(description="The account there.", examples=["prober@example.net"])
    submit_password: SecretSource = Field(
        description="Where its password is kept.", examples=[{"file": "secrets/submit"}]
    )
    sender: MailAddress = Field(
        description="The address it may send as.", examples=["prober@example.net"]
    )
    recipient: MailAddress = Field(
        description="A mailbox at the primary, in one of the domains. It may get other "
        "mail, too: a field in the header tells which messages are from here.",
        examples=["probe@example.org"],
    )
    imap: DrainTarget = Field(
        description="The primary's IMAP server: TLS at once at port 993, STARTTLS at any other.",
        examples=["mail.example.org:993"],
    )
    imap_user: Account = Field(
        description="The mailbox's account there.", examples=["probe@example.org"]
    )
    imap_password: SecretSource = Field(
        description="Where its password is kept.", examples=[{"file": "secrets/imap"}]
    )
    every: Duration = Field(
        default="15min",
        validate_default=True,
        description="How often `backup-mx probe serve` sends one.",
    )
    patience: Duration = Field(
        default="10min",
        validate_default=True,
        description="How long a message is waited for. One that is not there by then is missing.",
    )
    ca: TrustFile | None = Field(
        default=None,
        description="The certificate by which both servers are known, where no public authority "
        "has signed theirs: a PEM file.",
        examples=["home-root.pem"],
    )


class Monitoring(Options):
    """Your own Prometheus, for what `backup-mx monitoring render` writes."""

    heading: ClassVar[str] = "monitoring"
    probe_at: DrainTarget = Field(
        default="127.0.0.1:9727",
        validate_default=True,
        description="Where `backup-mx probe serve` answers Prometheus.",
    )
    prometheus: WebAddress | None = Field(
        default=None,
        description="Where Prometheus is, so that a gate can see whether it hears the relays and "
        "has the rules.",
        examples=["http://127.0.0.1:9090"],
    )
    runbook: WebAddress | None = Field(
        default=None,
        description="Where docs/operate.md stands on the web: each alarm links to its part. "
        "Without it, alarms say `backup-mx explain`.",
        examples=["https://wiki.example.org/backup-mx/operate.html"],
    )
