"""Cloudflare's token, before anything is asked with it."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from backup_mx.config.options_cloud import Cloudflare as Options
from backup_mx.dns import cloudflare
from backup_mx.errors import SecretError


@pytest.mark.parametrize("token", ["sesäme", "ses\name", "\ufeffsesame"])
def test_what_is_no_token_is_not_told(monkeypatch: pytest.MonkeyPatch, token: str) -> None:
    """It could not go into a header: the library's words about that would have it in them."""
    monkeypatch.setattr(
        cloudflare, "_library", lambda: SimpleNamespace(Cloudflare=lambda **_: None)
    )
    options = Options.__new__(Options)
    with pytest.raises(SecretError, match=r"\[dns.cloudflare\] token") as caught:
        cloudflare.Cloudflare(options, token)
    assert "ses" not in str(caught.value)
    cloudflare.Cloudflare(options, "sesame")
