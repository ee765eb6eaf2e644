"""What is generated from the options: the example, the reference, a first file."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

import pytest
from pydantic import ValidationError

from backup_mx.config import parse, sample
from backup_mx.config.checks import Options, check_of, takes
from backup_mx.config.options import SECTIONS
from backup_mx.errors import ConfigError

ROOT = Path(__file__).parent.parent.parent
OPTIONS = [(model, key) for model in SECTIONS.values() for key in model.model_fields]


@pytest.mark.parametrize("name", sample.generated())
def test_generated_files_are_fresh(name: str) -> None:
    """The example file and the reference page are what the options say today."""
    file = ROOT / name
    found = file.read_text(encoding="utf-8") if file.exists() else None
    assert found == sample.generated()[name], (
        f"{name} is stale: write it anew with `make generated`"
    )


@pytest.mark.parametrize(("model", "key"), OPTIONS)
def test_a_list_is_called_one(model: type[Options], key: str) -> None:
    """What an option is said to take is a list where, and only where, a single value is refused."""
    with pytest.raises(ValidationError) as caught:
        model.model_validate({key: 5j})
    kinds = {each["type"] for each in caught.value.errors() if each["loc"] == (key,)}
    assert takes(model.model_fields[key]).startswith("a list") is ("tuple_type" in kinds)


def test_the_reference_is_indented_nowhere() -> None:
    """What a table is for is prose, whatever Python makes of a docstring: indented, it is code."""
    assert not re.findall(r"^\s+.*", sample.reference().replace("\n\n", "\n"), re.MULTILINE)


def test_example_parses_as_it_stands() -> None:
    """The example file is a config, and holds the required options only."""
    config = parse(sample.example(), "example")
    assert list(config.relays) == ["mx2"]
    given = tomllib.loads(sample.example())
    assert given["relay"]["mx2"] == {"hostname": "mx2.example.org", "address": "203.0.113.20"}
    assert given["queue"] == given["operator"] == {}


def test_example_shows_the_defaults() -> None:
    """With each option uncommented the example means the same, so the comments tell the truth."""
    full = re.sub(r"^#(?=[a-z0-9_]+ = )", "", sample.example(), flags=re.MULTILINE)
    assert full.count("\n#") < sample.example().count("\n#")
    assert parse(full, "full") == parse(sample.example(), "example")


@pytest.mark.parametrize("text", [sample.example(), sample.reference()], ids=["toml", "md"])
def test_every_option_is_shown(text: str) -> None:
    """No option is missing from the example or the reference."""
    for model, key in OPTIONS:
        assert (model.model_fields[key].description or "?") in " ".join(
            text.replace("\n# ", " ").split()
        )
        assert re.search(rf"^((# ?)?{key} = |\| `{key}` \|)", text, re.MULTILINE)


@pytest.mark.parametrize(("model", "key"), OPTIONS)
def test_examples_are_right(model: type[Options], key: str) -> None:
    """An option's own examples pass its check."""
    field = model.model_fields[key]
    for shown in field.examples or []:
        for value in shown if isinstance(shown, list) else [shown]:
            check_of(field)(value)


def test_starter_is_five_facts() -> None:
    """The first file is short, says where the rest is, and holds what was asked for."""
    text = sample.starter(
        "mx2.example.org", "2001:db8::20", "mail.example.org", "[2001:db8::25]:2526", "example.org"
    )
    config = parse(text, "starter")
    assert str(config.relays["mx2"].address) == "2001:db8::20"
    assert config.relays["mx2"].hostname == "mx2.example.org"
    assert config.primaries["home"].hostname == "mail.example.org"
    assert config.primaries["home"].drain_to.next_hop == "[2001:db8::25]:2526"
    assert list(config.domains) == ["example.org"]
    assert "docs/reference.md" in text
    assert len(text.splitlines()) < 20


def test_starter_quotes() -> None:
    """A hostile answer stays a value: it is told as a mistake and never becomes another option."""
    evil = 'x"\nssh = "evil\\\x7f{0}😀'
    text = sample.starter(evil, evil, evil, evil, evil)
    assert tomllib.loads(text)["relay"]["mx2"] == {"hostname": evil, "address": evil}
    with pytest.raises(ConfigError) as caught:
        parse(text, "starter")
    assert len(caught.value.problems) == 5
