"""A stand-in for a provider: it has the provider's schema, and makes up what a cloud would answer.

It runs as a server that many runs of Terraform talk to: `standin.py oci SCHEMA WORLD --dev`. SCHEMA
is what bindings.py has read, WORLD the answers, looked up each time: {"data": {TYPE: {…}}, "made":
{TYPE: {DISPLAY NAME: {…}}}}. What it makes is only in Terraform's state; what WORLD does not tell
is null, an ID excepted.
"""

from __future__ import annotations

import json
import sys
import uuid
from pathlib import Path
from typing import Any

from tf import iface, runner, schema, types  # type: ignore[import-not-found]
from tf.gen import tfplugin_pb2  # type: ignore[import-not-found]

Values = dict[str, Any]
Written = str | list[Any]
"""A type as the protocol has it, and as bindings.Type has it."""


class Any_(types.TfType):  # type: ignore[misc]  # noqa: N801
    """A type that is handed on as it is."""

    def __init__(self, written: object) -> None:
        self.written = written

    def encode(self, value: object) -> object:
        """Return the value."""
        return value

    def decode(self, value: object) -> object:
        """Return the value."""
        return value

    def tf_type(self) -> bytes:
        """Return the type as the protocol writes it."""
        return json.dumps(self.written).encode()


class Nested(schema.NestedBlock):  # type: ignore[misc]
    """A block: Oracle's provider has a list of them, also where there is one at most."""

    def __init__(self, name: str, block: schema.Block, most: int | None) -> None:
        super().__init__(name, None, block, max_items=most)

    def to_pb(self) -> object:
        """Return it as the protocol has it."""
        nested = tfplugin_pb2.Schema.NestedBlock
        mode = nested.NestingMode.LIST
        block = self.block.to_pb()
        return nested(type_name=self.type_name, block=block, nesting=mode, max_items=self.max_items)

    def encode(self, value: object) -> object:
        """Return the value."""
        return value

    def decode(self, value: object) -> object:
        """Return the value."""
        return value

    def semantically_equal(self, one: object, other: object) -> bool:
        """Tell whether two are the same."""
        return one == other


def filled(kind: Written, value: object) -> object:
    """Return a value of a type, with null for what an object in it lacks."""
    if kind[0] == "object" and isinstance(value, dict) and isinstance(kind, list):
        return {key: filled(inner, value.get(key)) for key, inner in kind[1].items()}
    if kind[0] == "list" and isinstance(value, list) and isinstance(kind, list):
        return [filled(kind[1], each) for each in value]
    return value


def parts(block: Values, *, top: bool = True) -> Values:
    """Return the attributes and blocks of a block; what is filled in is so at the top only."""
    attributes = [
        schema.Attribute(
            name,
            Any_(each["type"]),
            required=each["required"],
            optional=each["optional"],
            computed=each["computed"] and top,
            requires_replace=each["replaces"],
        )
        for name, each in block["arguments"].items()
    ]
    nested = [
        Nested(name, schema.Block(**parts(each, top=False)), 1 if each["single"] else None)
        for name, each in block["blocks"].items()
    ]
    return {"attributes": attributes, "block_types": nested}


class Kind:
    """One type of resource or data source, with its schema."""

    name, known = "", schema.Schema()

    def __init__(self, provider: Provider) -> None:
        self.provider = provider

    def answer(self, kind: str) -> Values:
        """Return what the world tells of this type."""
        world = json.loads(self.provider.world.read_text())[kind]
        told: Values = world.get(f"{self.provider.get_model_prefix()}{self.name}", {})
        return told

    @classmethod
    def get_name(cls) -> str:
        """Return its name without the provider's."""
        return cls.name

    @classmethod
    def get_schema(cls) -> schema.Schema:
        """Return its schema."""
        return cls.known


class Resource(Kind, iface.Resource):  # type: ignore[misc]
    """A resource that exists in Terraform's state only."""

    def create(self, _context: object, planned: Values) -> Values:
        """Fill in what the plan leaves open."""
        told = self.answer("made").get(str(planned.get("display_name")), {})
        made = {"id": f"{self.name}.{uuid.uuid4().hex[:8]}", **told}
        return {
            name: made.get(name) if value is types.Unknown else value
            for name, value in planned.items()
        }

    def read(self, _context: object, current: Values) -> Values:
        """Return what is known."""
        return current

    def update(self, context: object, _current: Values, planned: Values) -> Values:
        """Return what was planned."""
        return self.create(context, planned)

    def delete(self, _context: object, current: Values) -> None:
        """Forget it."""

    def upgrade(self, _context: object, _version: int, old: Values) -> Values:
        """Return the state: its schema does not change."""
        return old


class Data(Kind, iface.DataSource):  # type: ignore[misc]
    """A data source that answers what the world tells."""

    def read(self, _context: object, config: Values) -> Values:
        """Return what was asked, and the answer."""
        told = {**config, **self.answer("data"), "id": self.name}
        return {
            each.name: filled(each.type.written, told.get(each.name))
            for each in self.known.attributes
        }


class Provider:
    """The provider as a whole."""

    def __init__(self, known: Values, world: Path) -> None:
        self.known, self.world = known, world

    def get_model_prefix(self) -> str:
        """Return what all its names begin with."""
        return f"{self.known['name']}_"

    def full_name(self) -> str:
        """Return its name, as Terraform looks it up."""
        return str(self.known["source"])

    def get_provider_schema(self, _diagnostics: object) -> schema.Schema:
        """Return what its own block takes."""
        return schema.Schema(**parts(self.known["own"]))

    def validate_config(self, diagnostics: object, config: Values) -> None:
        """Take any."""

    def configure_provider(self, diagnostics: object, config: Values) -> None:
        """Need nothing."""

    def get_resources(self) -> list[type]:
        """Return its resources."""
        return self.kinds(Resource, self.known["resources"])

    def get_data_sources(self) -> list[type]:
        """Return its data sources."""
        return self.kinds(Data, self.known["data"])

    def get_functions(self) -> list[type]:
        """Return its functions: none."""
        return []

    def new_resource(self, kind: type[Kind]) -> Kind:
        """Return a resource."""
        return kind(self)

    new_data_source = new_resource

    def kinds(self, base: type[Kind], known: Values) -> list[type]:
        """Return a class for each type."""
        return [
            type(
                name,
                (base,),
                {
                    "name": name.removeprefix(self.get_model_prefix()),
                    "known": schema.Schema(version=0, **parts(block)),
                },
            )
            for name, block in known.items()
        ]


if __name__ == "__main__":
    asked, known, world = sys.argv[1:4]
    runner.run_provider(Provider(json.loads(Path(known).read_text())[asked], Path(world)))
