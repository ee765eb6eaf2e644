"""The settings of a plain relay with one primary; tests replace what they are about."""

from __future__ import annotations

from backup_mx.relay.settings import Settings, Target

TARGET = Target("home", "mail.example.org", "203.0.113.10", 25, "encrypt", ("example.org",))
SETTINGS = Settings(
    relay="mx2",
    hostname="mx2.example.org",
    address="203.0.113.20",
    targets=(TARGET,),
    retention=30 * 86400,
    at_retention="hold",
    canary_waiting=5,
    canary_idle=60,
    canary_message_to="",
    ledger_keep=100 * 86400,
    hash_addresses=False,
    standby=False,
    acme="",
    tables=(),
    recipients_every=900,
    recipients_may_shrink=20,
    metrics_from=(),
    dashboard_from=(),
    dashboard_password="",
    dashboard_actions=False,
    notify_urls=(),
)
