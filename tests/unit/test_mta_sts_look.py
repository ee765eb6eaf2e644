"""A policy is fetched as senders fetch it."""

from __future__ import annotations

import re

import pytest
from test_fetch import saying

from backup_mx.mta_sts import look, policy

TEXT = "version: STSv1\r\nmode: none\r\nmax_age: 86400\r\n"
HEAD = f"HTTP/1.1 200 OK\r\nContent-Length: {len(TEXT)}\r\nContent-Type: "


@pytest.mark.parametrize(
    ("answer", "found", "why"),
    [
        (f"{HEAD}text/plain; charset=utf-8\r\n\r\n{TEXT}", TEXT, ""),
        (f"{HEAD}text/html\r\n\r\n{TEXT}", "", "text/html instead of text/plain"),
        ("HTTP/1.1 302 Found\r\nLocation: /elsewhere\r\n\r\n", "", "redirected$"),
        ("HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n", "", "404 Not Found"),
        (f"{HEAD}text/plain\r\n\r\n{TEXT[:9]}", "", "cut off"),
        (f"{HEAD}text/plain\r\n\r\n{'ÿ' * len(TEXT)}", "", "is not text"),
        ("HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: 70000\r\n\r\n"
         + "x" * 70_000, "", "more than 65536 bytes"),
    ],
)  # fmt: skip
def test_only_a_plain_answer_counts(
    answer: str, found: str, why: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """200 with text/plain, all of it and not too much; a redirect is not followed."""
    with saying(answer.encode("latin-1")) as url:
        monkeypatch.setattr(policy, "url", lambda _: url)
        text, trouble = look.served("example.org", 5.0)
    assert text == found
    assert re.search(why, trouble)
    assert bool(trouble) is not bool(text)
