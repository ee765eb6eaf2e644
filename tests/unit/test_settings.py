"""What the agent is told."""

from __future__ import annotations

import json

import web_world

from backup_mx.relay import settings

SECRETS = {"dashboard_password": "s3cret", "notify_urls": ["tgram://s3cret/1"]}


def test_secrets_are_not_in_what_is_logged() -> None:
    """A traceback or a log line that shows the settings shows no password and no token."""
    told = settings.from_json(json.loads(web_world.settings().text) | SECRETS)
    assert "s3cret" not in repr(told)
    assert told.dashboard_password == "s3cret"  # noqa: S105
    assert told.notify_urls == ("tgram://s3cret/1",)
    assert settings.from_json(json.loads(told.text)) == told
