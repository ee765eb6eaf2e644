"""A lab's config with more in it than the standard one."""

from __future__ import annotations

import tomllib

from backup_mx.lab.settings import with_options

TEXT = """# A comment.
[domain."example.org"]

[intake]
dnsbl = [
    "dnsbl.example.net",
]
"""


def test_options_are_added_to_the_tables_that_are_there_and_to_those_that_are_not() -> None:
    """A table may be named in both; nothing of either is lost."""
    options = """
[intake]
standby = true

[domain."example.org"]
recipients = "callout"
[queue]
retention = "1h"
"""
    assert tomllib.loads(with_options(TEXT, options)) == {
        "domain": {"example.org": {"recipients": "callout"}},
        "intake": {"dnsbl": ["dnsbl.example.net"], "standby": True},
        "queue": {"retention": "1h"},
    }


def test_an_option_that_is_there_already_is_as_the_new_one_says() -> None:
    """TOML takes no key twice."""
    text = '[tls]\nacme = false\ncontact = "a@example.org"\n\n[queue]\nretention = "1d"'
    options = '[tls]\nacme = true\n[queue]\nretention = "1h"\n'
    assert tomllib.loads(with_options(text, options)) == {
        "tls": {"acme": True, "contact": "a@example.org"},
        "queue": {"retention": "1h"},
    }


def test_no_options_change_nothing() -> None:
    """The standard config stays as it is, comments included."""
    assert with_options(TEXT, "") == TEXT
