"""The verb about MTA-STS: mta-sts render."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from backup_mx.cli.meant import meant
from backup_mx.cli.relays import load
from backup_mx.cli.terminal import CONFIG, JSON, say, say_json, write

if TYPE_CHECKING:
    from backup_mx.config import Config


@click.group()
def mta_sts() -> None:
    """Show the policy by which senders insist on TLS (RFC 8461)."""


@mta_sts.command()
@click.argument("domains", metavar="[DOMAIN]...", nargs=-1)
@CONFIG
@click.option(
    "--output",
    "-o",
    type=click.Path(path_type=Path, file_okay=False),
    help="Write each policy below this folder, as HOST/.well-known/mta-sts.txt.",
)
@JSON
def render(domains: Sequence[str], path: Path, output: Path | None, as_json: bool) -> None:
    """Show each domain's policy (default: all domains) and the records that announce it.

    Where a relay hosts it, `backup-mx deploy` brings the policy; where you do, put it there
    yourself, and then let `backup-mx dns publish` announce it.
    """
    config = load(path)
    if config.mta_sts is None:
        raise click.UsageError(f"{path} has no [mta_sts]: there is no policy to show")
    wanted = [meant("domain", name, config.domains) for name in domains or config.domains]
    rendered = [policy_of(config, domain) for domain in wanted]
    if output:
        _write(rendered, output)
    if as_json:
        say_json({"domains": rendered})
        return
    for each in rendered:
        for line in _lines(each):
            say(line)


def _write(rendered: Sequence[dict[str, Any]], folder: Path) -> None:
    for each in rendered:
        place = folder / each["host"] / ".well-known" / "mta-sts.txt"
        each["file"] = str(write(place, each["policy"].encode(), 0o644))


def policy_of(config: Config, domain: str) -> dict[str, Any]:
    """Return a domain's policy, where it is served, and the TXT records that go with it."""
    from backup_mx.mta_sts import policy

    wanted = policy.wanted(config, domain)
    assert wanted is not None  # noqa: S101  render() has looked
    records = {policy.record_name(domain): wanted.record}
    if reports := policy.report_record(config):
        records[policy.report_name(domain)] = reports
    return {
        "domain": domain,
        "host": policy.host(domain),
        "url": policy.url(domain),
        "hosted_by": config.mta_sts.hosted_by if config.mta_sts else None,
        "policy": wanted.text,
        "records": records,
    }


def _lines(each: dict[str, Any]) -> Iterator[str]:
    by = f", by {each['hosted_by']}" if each["hosted_by"] else ""
    yield f"{each['url']}{by}"
    if "file" in each:
        yield f"  written to {each['file']}"
    yield from (f"  {line}" for line in each["policy"].splitlines())
    yield from (f'{name}. TXT "{record}"' for name, record in each["records"].items())
