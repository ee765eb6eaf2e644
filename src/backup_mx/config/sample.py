"""What comes from the options' declarations: the example file, the reference, a first file."""

from __future__ import annotations

import inspect
import textwrap
from collections.abc import Iterator

from pydantic.fields import FieldInfo

from backup_mx.config.checks import Options, follows, takes, to_toml
from backup_mx.config.options import SECTIONS, Named

_EXAMPLE_HEAD = """\
# backup-mx.toml with every option. Generated from the program's own declarations.
#
# Options that must be given stand as they are; the others are commented out. "#option" shows what
# holds without it, "# option" an example of what is not there until it is written.
# docs/reference.md says what each takes.
"""

_REFERENCE_HEAD = """\
# Reference: the options of `backup-mx.toml`

Generated from the program's own declarations; `make generated` writes it anew.

The file is [TOML](https://toml.io/en/v1.0.0). An option that is not in this list is a mistake, and
`backup-mx check` shows all mistakes at once. Host names and domains are written in their ASCII form
(`xn--…`), addresses of IPv6 in brackets where a port may follow. Sizes have a unit: `"50 MiB"`
(1,048,576 bytes each) or `"50 MB"` (1,000,000 bytes each), durations one of s, min, h and d:
`"15min"`.
"""

_STARTER = """\
# What backup-mx needs to know. Every other option is in docs/reference.md.

# The machine that keeps the mail while the primary is away.
[relay.mx2]
hostname = {hostname}
address = {address}

# The mail server that owns the mailboxes.
[primary.home]
hostname = {primary_hostname}
drain_to = {drain_to}

# Whose mail is kept: one such header for each domain.
[domain.{domain}]
"""


def example() -> str:
    """Return a backup-mx.toml that shows every option, and parses."""
    sections = [_example_section(model) for model in SECTIONS.values()]
    return "\n".join([_EXAMPLE_HEAD, *sections])


def starter(hostname: str, address: str, primary_hostname: str, drain_to: str, domain: str) -> str:
    """Return the first backup-mx.toml: the five facts and a pointer to the reference.

    The facts are quoted, not checked: `backup_mx.config.parse` judges the text that comes out.
    """
    return _STARTER.format(
        hostname=to_toml(hostname),
        address=to_toml(address),
        primary_hostname=to_toml(primary_hostname),
        drain_to=to_toml(drain_to),
        domain=to_toml(domain),
    )


def reference() -> str:
    """Return the reference page, in Markdown: each table's options, defaults, docs and checks."""
    sections = [_reference_section(model) for model in SECTIONS.values()]
    return "\n".join([_REFERENCE_HEAD, *sections])


def generated() -> dict[str, str]:
    """Return the generated files: path in the checkout to content."""
    return {"examples/backup-mx.toml": example(), "docs/reference.md": reference()}


def _example_section(model: type[Options]) -> str:
    apart = "# " if model.optional else ""
    lines = [*_comment(_about(model)), f"{apart}[{model.heading}]"]
    for key, field in model.model_fields.items():
        lines += _comment(_described(field))
        lines.append(f"{apart or _mark(field)}{key} = {to_toml(_shown(field))}")
    return "\n".join(lines) + "\n"


def _mark(field: FieldInfo) -> str:
    """Return what stands before an option in the example: nothing where it must be given."""
    if _is_required(field):
        return ""
    return "# " if not field.is_required() and field.default is None else "#"


def _reference_section(model: type[Options]) -> str:
    lines = [f"## `[{_general_heading(model)}]`", "", _about(model), ""]
    lines += ["| option | takes | default | |", "| --- | --- | --- | --- |"]
    for key, field in model.model_fields.items():
        cells = [f"`{key}`", takes(field), _default(field), _with_example(field)]
        lines.append("| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |")
    return "\n".join(lines) + "\n"


def _general_heading(model: type[Options]) -> str:
    section = model.heading.partition(".")[0]
    if not issubclass(model, Named):
        return model.heading
    return f'{section}."NAME"' if '"' in model.heading else f"{section}.NAME"


def _about(model: type[Options]) -> str:
    """Return what a table is for, without the indentation that Python before 3.13 keeps."""
    return inspect.cleandoc(model.__doc__ or "")


def _comment(text: str) -> Iterator[str]:
    return (f"# {line}" for line in textwrap.wrap(" ".join(text.split()), 98))


def _is_required(field: FieldInfo) -> bool:
    return field.is_required() and not follows(field)


def _described(field: FieldInfo) -> str:
    default = f" Default: {follows(field)}." if follows(field) else ""
    return f"{field.description}{default}"


def _shown(field: FieldInfo) -> object:
    """Return the value that the example file shows: the default, where there is a fixed one."""
    shown: object = (field.examples or [""])[0]
    return shown if field.is_required() or field.default is None else field.default


def _default(field: FieldInfo) -> str:
    if field.is_required():
        words = follows(field) or "must be given"
        return f"`{words}`" if "<" in words else words  # Markdown takes <address> for a tag
    return "nothing" if field.default is None else f"`{to_toml(field.default)}`"


def _with_example(field: FieldInfo) -> str:
    example = f" Example: `{to_toml(field.examples[0])}`." if field.examples else ""
    return f"{field.description}{example}"
