"""Jinja2, set up so that nothing a stranger wrote can be markup, or be invisible.

Imported at the first page, not at the agent's start: who never opens the dashboard does not pay for
the template engine's memory.
"""

from __future__ import annotations

import time
from functools import cache
from pathlib import Path
from urllib.parse import quote

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from backup_mx.relay.text import size, span
from backup_mx.relay.web import shown

TEMPLATES = Path(__file__).parent / "templates"


@cache
def environment() -> Environment:
    """Return the one environment: it escapes always, and knows no undefined name."""
    made = Environment(
        loader=FileSystemLoader(TEMPLATES),
        autoescape=True,
        undefined=StrictUndefined,
        finalize=_final,
        trim_blocks=True,
        lstrip_blocks=True,
        auto_reload=False,
    )
    made.filters |= {
        "moment": shown.moment,
        "iso": shown.machine_moment,
        "size": size,
        "count": shown.count,
        "span": span,
        "lines": _lines,
        "urlencode": lambda text: quote(text, safe="", errors="replace"),
    }
    made.globals |= {
        "state_words": shown.STATE_WORDS,
        "fate_words": shown.FATE_WORDS,
        "why_words": shown.WHY_WORDS,
        "verbs": shown.VERBS,
        "any_of": lambda values: [("", "any"), *((each, each) for each in values)],
    }
    return made


def _lines(text: str) -> Markup:
    return Markup.escape(shown.visible_lines(text))


def _final(value: object) -> object:
    """Show every text with what is invisible in it, before it is escaped."""
    return shown.visible(value) if type(value) is str else value


def render(template: str, **values: object) -> str:
    """Return a page; ``now`` is there in all of them."""
    return environment().get_template(template).render(now=time.time(), **values)
