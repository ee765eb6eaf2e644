"""The config file: what each option takes, and how every mistake is told."""

from __future__ import annotations

import string
import tomllib
from ipaddress import IPv4Address, IPv6Network
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from backup_mx.config import Config, load, parse, sample
from backup_mx.config.checks import to_toml
from backup_mx.config.options import SECTIONS
from backup_mx.config.values import HostPort, SshTarget
from backup_mx.errors import ConfigError, Problem

DATA = Path(__file__).parent.parent / "data" / "config"
FIVE_LINES = (DATA / "five-lines.toml").read_text(encoding="utf-8")
VALUES = tomllib.loads((DATA / "values.toml").read_text(encoding="utf-8"))
GOOD = [(path, *pair) for path, cases in VALUES.items() for pair in cases["good"]]
BAD = [(path, value) for path, cases in VALUES.items() for value in cases["bad"]]
MISTAKES = sorted((DATA / "mistakes").glob("*.toml"))


# Options that are nothing alone, and what stands beside them.
COMPANIONS = {
    "primary.home.wireguard_": (
        'primary.home.drain_to = "10.0.20.1:2526"',
        'primary.home.wireguard_endpoint = "vpn.example.org:51820"',
        'primary.home.wireguard_public_key = "xTIBA5rboUvnH4htodjb6e697QjLERt1NAB4mZqp8Dg="',
        'relay.mx2.wireguard_address = "10.0.20.2"',
        'relay.mx2.wireguard_key = { file = "mx2.key" }',
    ),
    "access.dashboard_actions": ('access.dashboard_password = { file = "dash" }',),
    "access.dashboard_from": ('access.dashboard_password = { file = "dash" }',),
    "tailnet.": ('tailnet.auth_key = { file = "key" }',),
    "cloud.oci.": (
        'cloud.oci.tenancy = "ocid1.tenancy.oc1..aaaa"',
        'cloud.oci.region = "eu-frankfurt-1"',
        'cloud.oci.budget_mail = "me@example.net"',
        "cloud.oci.may_cost = true",
        'access.ssh_keys = ["ssh-rsa AAAAB3NzaC1yc2EAAAADAQABAAABAQC7 me"]',
    ),
    "dns.cloudflare.": (
        'dns.cloudflare.zones = { "example.org" = "023e105f4ecef8ad9ca31a8372d0c353" }',
    ),
    "dns.rfc2136.": (
        'dns.rfc2136.server = "ns1.example.net:53"',
        'dns.rfc2136.zones = ["example.org"]',
        'dns.rfc2136.key_name = "backup-mx"',
        'dns.rfc2136.key = { env = "TSIG" }',
    ),
    "roundtrip.": (
        'roundtrip.submit = "smtp.example.net:587"',
        'roundtrip.submit_user = "prober"',
        'roundtrip.submit_password = { env = "SUBMIT" }',
        'roundtrip.sender = "prober@example.net"',
        'roundtrip.recipient = "probe@example.org"',
        'roundtrip.imap = "mail.example.org:993"',
        'roundtrip.imap_user = "probe"',
        'roundtrip.imap_password = { env = "IMAP" }',
    ),
    "edge.nftables.": ('edge.nftables.forward_to = "10.0.10.1:2526"',),
}


def toml(value: object) -> str:
    """Write a value with its tables, which to_toml leaves out in a list."""
    if isinstance(value, list):
        return f"[{', '.join(map(toml, value))}]"
    return "{}" if value == {} else to_toml(value)


def with_option(path: str, value: object) -> str:
    """Return the five lines with the option at ``path`` set."""
    lines = [line for line in FIVE_LINES.splitlines() if not line.startswith(f"{path} =")]
    if path.startswith("domain."):
        lines = [line for line in lines if not line.startswith("domain.")]
    for start, others in COMPANIONS.items():
        given = {line.partition(" =")[0] for line in others}
        if path.startswith(start):
            lines = [line for line in lines if line.partition(" =")[0] not in given]
            lines += [line for line in others if not line.startswith(f"{path} =")]
    return "\n".join([*lines, f"{path} = {toml(value)}"])


def value_at(config: Config, path: str) -> object:
    section, *names, key = path.split(".")
    tables: dict[str, Any] = {
        "relay": config.relays.get("mx2"),
        "primary": config.primaries.get("home"),
        "domain": config.domains.get("example.org"),
        "edge": config.edges.get("nftables"),
        "cloud": config.cloud.oci,
        "dns": config.dns.rfc2136 if names == ["rfc2136"] else config.dns.cloudflare,
    }
    return getattr(tables.get(section) or getattr(config, section), key)


def problems_of(text: str) -> tuple[Problem, ...]:
    with pytest.raises(ConfigError) as caught:
        parse(text, "test")
    return caught.value.problems


@pytest.mark.parametrize(("path", "written", "meant"), GOOD)
def test_good_values(path: str, written: object, meant: str) -> None:
    """A good value is taken, and stands in its one usual form."""
    value = value_at(parse(with_option(path, written), "test"), path)
    assert (" ".join(map(str, value)) if isinstance(value, tuple) else str(value)) == meant


@pytest.mark.parametrize(("path", "value"), BAD)
def test_bad_values(path: str, value: object) -> None:
    """A bad value is one mistake, at its path and line, in a message fit to print."""
    text = with_option(path, value)
    (problem,) = problems_of(text)
    assert problem.path.partition("[")[0] == path
    assert problem.line == len(text.split("\n"))
    assert problem.expected.startswith("expected ")
    assert str(problem).isprintable()


def test_every_option_has_values() -> None:
    """No option goes without good and bad values in values.toml."""
    assert set(VALUES) == {
        f"{model.heading}.{key}" for model in SECTIONS.values() for key in model.model_fields
    }


@pytest.mark.parametrize("file", MISTAKES, ids=lambda file: file.stem)
def test_mistakes(file: Path) -> None:
    """All mistakes of a file are told at once, in its order, as its own #! lines say."""
    text = file.read_text(encoding="utf-8")
    expected = [line[3:] for line in text.split("\n") if line.startswith("#! ")]
    assert [str(problem) for problem in problems_of(text)] == expected
    assert [str(problem) for problem in problems_of(text.replace("\n", "\r\n"))] == expected


def test_five_lines_suffice() -> None:
    """Whatever five lines leave out has its value."""
    config = parse(FIVE_LINES, "test")
    assert config.relays["mx2"].ssh == SshTarget("root", "203.0.113.20", 22)
    assert config.relays["mx2"].address == IPv4Address("203.0.113.20")
    assert config.primaries["home"].drain_to == HostPort("mail.example.org", 2526)
    assert config.primaries["home"].tls == "encrypt"
    assert config.primaries["home"].smtputf8 is False
    assert config.domains["example.org"].primary == "home"
    assert config.queue.message_size_limit == 50 * 2**20
    assert len(config.intake.dnsbl) == 2
    assert config.intake.dnsbl_threshold == 3
    assert config.access.ssh_from[1] == IPv6Network("::/0")
    assert config.access.ssh_keys == ()
    assert config.operator.address == "postmaster@example.org"


def test_defaults_follow() -> None:
    """What an option defaults to follows the others: hostname, address, first domain."""
    text = """
        relay.mx2 = { hostname = "mx2.example.org", address = "2001:db8::20" }
        primary.home.hostname = "Mail.example.org"
        domain."Z.example" = {}
        domain."a.example" = {}
    """
    config = parse(text, "test")
    assert config.relays["mx2"].ssh == SshTarget("root", "2001:db8::20", 22)
    assert config.primaries["home"].drain_to == HostPort("mail.example.org", 25)
    assert config.operator.address == "postmaster@z.example"
    assert list(config.domains) == ["z.example", "a.example"]


def test_oracles_image_has_a_user_of_its_own() -> None:
    """A relay there is reached as ubuntu, and has a volume; others are not, and have none."""
    text = (
        FIVE_LINES
        + """
        relay.a = { hostname = "a.example.org", address = "203.0.113.21" }
        relay.b = { hostname = "b.example.org", address = "203.0.113.22", ssh = "me@b.example.org" }
        access.ssh_keys = ["ssh-rsa AAAAB3NzaC1yc2EAAAADAQABAAABAQC7 me"]
        [cloud.oci]
        tenancy = "ocid1.tenancy.oc1..aaaa"
        region = "eu-frankfurt-1"
        budget_mail = "me@example.net"
        relays = ["a", "b"]
    """
    )
    relays = parse(text, "test").relays
    assert {name: (str(each.ssh), each.volume) for name, each in relays.items()} == {
        "mx2": ("root@203.0.113.20:22", False),
        "a": ("ubuntu@203.0.113.21:22", True),
        "b": ("me@b.example.org:22", True),
    }


def test_tables_know_their_names() -> None:
    """A relay, a primary and a domain say under which name they stand, in the file's order."""
    text = FIVE_LINES + 'relay.a = { hostname = "a.example.org", address = "203.0.113.21" }'
    config = parse(text, "test")
    assert [relay.name for relay in config.relays.values()] == ["mx2", "a"]
    assert [primary.name for primary in config.primaries.values()] == ["home"]
    assert [domain.name for domain in config.domains.values()] == ["example.org"]


def test_config_is_frozen() -> None:
    """Nobody changes a config once it is read."""
    relay = parse(FIVE_LINES, "test").relays["mx2"]
    with pytest.raises(ValidationError, match="frozen"):
        relay.hostname = "evil.example"


@pytest.mark.parametrize("key", ["name", "_name", "", "[key]", "relays", "model_config", "a\nb"])
@pytest.mark.parametrize("table", ["", "relay.mx2.", "queue.", 'domain."example.org".'])
def test_unknown_keys(table: str, key: str) -> None:
    """A key that is no option is a mistake wherever it stands, whatever it is called."""
    lines = FIVE_LINES.replace('domain."example.org" = {}', 'domain."example.org".primary = "home"')
    (problem,) = problems_of(f"{lines}{table}{to_toml(key)} = 1")
    # What resembles "key", an option that names a secret, may be one misspelt: it is not shown.
    assert (problem.line, problem.value) == (6, "" if key == "[key]" else "1")
    assert problem.expected == "there is no such option"
    assert problem.path.startswith(table)
    assert str(problem).isprintable()


@pytest.mark.parametrize("key", ["Mx2", "-a", "a.b", "a b", "", "a\n", "a" * 32, "$a", "[key]"])
def test_bad_names(key: str) -> None:
    """A relay's name is for files and commands: small letters, digits and hyphens."""
    table = f'relay.{to_toml(key)} = {{ hostname = "a.example.org", address = "203.0.113.9" }}'
    (problem,) = problems_of(f"{FIVE_LINES}{table}")
    assert "expected a name of small letters" in str(problem)
    assert problem.line == 6


@pytest.mark.parametrize("key", ["example", "a b.example", "example.org.", "b\u00fccher.example"])
def test_bad_domains(key: str) -> None:
    """A domain that no mail address could have is a mistake, with a hint where one helps."""
    (problem,) = problems_of(f"{FIVE_LINES}domain.{to_toml(key)} = {{}}")
    assert "expected a mail domain" in str(problem)
    if not key.isascii():
        assert '"xn--bcher-kva.example"' in problem.hint


@pytest.mark.parametrize("host", ["localhost:25", "127.9.9.9:25", "[::1]:25", "0.0.0.0:25"])
def test_drain_to_loopback(host: str) -> None:
    """At port 25 of its loopback a relay would meet itself."""
    (problem,) = problems_of(with_option("primary.home.drain_to", host))
    assert "there the relay itself answers" in problem.expected


@pytest.mark.parametrize("host", ["mx2.example.org:2526", "MX2.example.org:25", "203.0.113.20:1"])
def test_drain_to_itself(host: str) -> None:
    """A relay whose drain target is itself would send its mail in circles."""
    (problem,) = problems_of(with_option("primary.home.drain_to", host))
    assert "relay.mx2 itself: a loop" in problem.expected


def test_one_cause_one_mistake() -> None:
    """A mistake is not told again by what defaults to it."""
    text = """
        relay.mx2 = { hostname = "mx2.example.org", address = "nonsense" }
        primary.home.hostname = "nonsense"
        domain."nonsense" = {}
    """
    paths = [problem.path for problem in problems_of(text)]
    assert paths == ["relay.mx2.address", "primary.home.hostname", "domain.nonsense"]


def test_operator_in_a_broken_domain() -> None:
    """An operator's address in a domain that is itself mistaken is not a second mistake."""
    text = FIVE_LINES.replace('example.org" = {}', 'example_1.org" = {}')
    (problem,) = problems_of(f'{text}operator.address = "me@example.org"')
    assert problem.path == 'domain."example_1.org"'


def test_long_values_are_cut() -> None:
    """A long value is cut in the message; nobody needs all of it to find it."""
    (problem,) = problems_of(with_option("queue.message_size_limit", "x" * 5000))
    assert len(problem.value) == 60


def test_source_leads_each_line() -> None:
    """Each line of the message begins with the file's name."""
    with pytest.raises(ConfigError) as caught:
        parse("relay = 1", "my.toml")
    assert all(line.startswith("my.toml: ") for line in str(caught.value).splitlines())


def test_load(tmp_path: Path) -> None:
    """A file is read as UTF-8, with or without Windows' mark at its start."""
    file = tmp_path / "backup-mx.toml"
    file.write_bytes(b"\xef\xbb\xbf" + FIVE_LINES.encode())
    assert load(file).model_dump() == load(DATA / "five-lines.toml").model_dump()
    assert load(file).folder == tmp_path


def test_load_names_the_file(tmp_path: Path) -> None:
    """A file that is not there, is a folder or is no text is a mistake like any other."""
    latin = tmp_path / "latin.toml"
    latin.write_bytes(b"# one\n# caf\xe9\n")
    for path, message in [
        (tmp_path / "none.toml", "No such file or directory (`backup-mx init` writes one)"),
        (tmp_path, "cannot be read: Is a directory"),
        (latin, "line 2: the file: expected text in UTF-8"),
    ]:
        with pytest.raises(ConfigError) as caught:
            load(path)
        assert str(caught.value).startswith(f"{path}: ")
        assert message in str(caught.value)


@pytest.mark.parametrize(
    "text",
    [
        "a = " + "[" * 5000 + "]" * 5000,
        "a = " + "[" * 300 + "]" * 300,
        "a" + ".a" * 3000 + " = 1",
        "[queue]\nmessage_size_limit = " + "9" * 5000,
        "[queue]\nmessage_size_limit = 0x" + "f" * 9000,
        "[relay]\n[[relay.mx2]]",
        '[relay.mx2]\nssh = """' + "\n" * 1500 + '"""',
        "\x00",
        "a = 1\r",
    ],
    ids=lambda text: text[:30],
)
def test_monsters(text: str) -> None:
    """Text that overwhelms a parser ends as a mistake too, and soon."""
    assert problems_of(text)


def problems_in(text: str) -> tuple[Problem, ...]:
    """Return the mistakes in a text, none if it is a config; let any other exception through."""
    try:
        parse(text, "test")
    except ConfigError as error:
        return error.problems
    return ()


@given(st.text())
def test_any_text(text: str) -> None:
    """Arbitrary text is a config or a ConfigError, never anything else."""
    problems_in(text)


FULL = sample.example().replace("\n#", "\n")  # with its comments bare: full of near misses
PIECES = [*string.punctuation, "\n", "\\u0000", '"""', "[[", "{}", " = ", "1979-05-27", "inf", "é"]


@given(
    st.sampled_from([FIVE_LINES, sample.example(), FULL]),
    st.lists(st.tuples(st.integers(0, 6000), st.integers(0, 40), st.sampled_from(["", *PIECES]))),
)
def test_mutated_samples(text: str, cuts: list[tuple[int, int, str]]) -> None:
    """A config with pieces cut out and others put in is a config or a ConfigError with lines."""
    for at, length, piece in cuts:
        start = at % (len(text) + 1)
        text = text[:start] + piece + text[start + length :]
    last = text.count("\n") + 1
    for problem in problems_in(text):
        assert problem.line is None or 1 <= problem.line <= last
        assert str(problem).isprintable()


TOML_VALUES: st.SearchStrategy[object] = st.recursive(
    st.one_of(st.none().map(lambda _: {}), st.booleans(), st.integers(), st.text()),
    lambda inner: st.lists(inner, max_size=3),
    max_leaves=5,
)


@given(st.lists(st.tuples(st.sampled_from([*VALUES, "relay", "domain.x", "queue"]), TOML_VALUES)))
def test_options_of_any_kind(options: list[tuple[str, object]]) -> None:
    """Options with values of any type are a config or a ConfigError."""
    text = "\n".join(f"{path} = {toml(value)}" for path, value in dict(options).items())
    assert problems_in(f"{text}\n")
