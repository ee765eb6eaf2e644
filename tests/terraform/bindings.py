"""What Oracle's and Cloudflare's providers take, out of the bindings generated from them.

The bindings (`pulumi-oci`, `pulumi-cloudflare`) are read as text and never imported. Their names
are Terraform's, but for what repeats, whose names they make plural: RENAMED has those that matter
here. They do not tell how many of a block there must be, nor what the cloud itself refuses.
"""

from __future__ import annotations

import ast
import functools
import importlib.util
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

Type = str | Sequence["Type"] | Mapping[str, "Type"]
"""A type as Terraform's protocol writes it: "string", ["list", "string"], ["object", {…}]."""

SCALARS: Mapping[str, Type] = {"str": "string", "bool": "bool", "int": "number", "float": "number"}
RENAMED = {
    "async_": "async",
    "plugins_configs": "plugins_config",
    "results": "result",
}
# Resources whose class has another name than Terraform gives them.
MODULES = {"oci_budget_alert_rule": "budget/rule"}
# How deep an object in an object is looked into.
DEPTH = 6
# Where a class ends.
NEXT = re.compile(r"^(?:@|class |def |if )|\Z", re.MULTILINE)


@dataclass(frozen=True)
class Argument:
    """One argument, or one attribute that only the provider sets (neither required nor optional).

    computed is true where the provider fills it in; replaces where a change needs a new resource.
    """

    type: Type
    required: bool = False
    optional: bool = False
    computed: bool = False
    replaces: bool = False


@dataclass(frozen=True)
class Block:
    """What stands between braces: arguments and further blocks by name; single if one at most."""

    arguments: Mapping[str, Argument] = field(default_factory=dict)
    blocks: Mapping[str, Block] = field(default_factory=dict)
    single: bool = False


@dataclass(frozen=True)
class Provider:
    """A provider's own arguments, and the resources and data sources that were asked for.

    source is where Terraform finds it.
    """

    name: str
    source: str
    own: Block
    resources: Mapping[str, Block]
    data: Mapping[str, Block]


class UnknownTypeError(LookupError):
    """The provider has no such resource or data source."""


def package(provider: str) -> Path:
    """Return the folder of a provider's bindings."""
    spec = importlib.util.find_spec(f"pulumi_{provider}")
    if spec is None or spec.origin is None:
        raise UnknownTypeError(f"the bindings of {provider} are not installed")
    return Path(spec.origin).parent


@functools.cache
def own(provider: str) -> Block:
    """Return what the block ``provider "NAME"`` takes."""
    folder = package(provider)
    return arguments_of(source(folder / "provider.py", "ProviderArgs"), folder, provider)


@functools.cache
def resource(name: str) -> Block:
    """Return what the resource called ``name`` takes and tells. Raises UnknownTypeError."""
    provider, _, rest = name.partition("_")
    path = package(provider) / f"{MODULES.get(name) or module(provider, rest)}.py"
    title = camel(path.stem)
    taken = arguments_of(source(path, f"{title}Args", name), path.parent, provider)
    told = getters(source(path, title, name), "Output")
    return with_outputs(taken, told, path.parent, provider)


@functools.cache
def data(name: str) -> Block:
    """Return what the data source called ``name`` takes and tells. Raises UnknownTypeError."""
    provider, _, rest = name.partition("_")
    path = package(provider) / module(provider, rest)
    path = path.with_name(f"get_{path.name}.py")
    told = getters(source(path, f"Get{camel(path.stem[4:])}Result", name), "")
    head = text(path)[text(path).index(f"\ndef {path.stem}(") :].split('"""')[0]
    taken = {each.arg for each in parameters(ast.parse(f"{head}0").body[0])}
    arguments = {}
    for key, (annotation, optional) in told.items():
        # In Cloudflare's, what is never nothing may as well be a default.
        required = key in taken and not optional and provider == "oci"
        arguments[RENAMED.get(key, key)] = Argument(
            type_of(annotation, path.parent),
            required,
            key in taken and not required,
            key not in taken,
        )
    return Block(arguments)


def with_outputs(
    taken: Block, told: Mapping[str, tuple[ast.expr, bool]], folder: Path, provider: str
) -> Block:
    """Add what the provider tells of a resource to what it takes."""
    arguments = {"id": Argument("string", computed=True)}
    for key, (annotation, optional) in told.items():
        name = RENAMED.get(key, key)
        if name in taken.blocks:
            continue
        given = taken.arguments.get(name)
        arguments[name] = Argument(
            given.type if given else type_of(annotation, folder, provider == "oci"),
            bool(given and given.required),
            bool(given and given.optional),
            not (given and given.required) and not optional,
            bool(given and given.replaces),
        )
    return Block(arguments, taken.blocks)


def arguments_of(body: ast.ClassDef, folder: Path, provider: str, *, single: bool = False) -> Block:
    """Return the arguments that an ``…Args`` class takes, as a block."""
    arguments, blocks = {}, {}
    start = next(each for each in body.body if getattr(each, "name", "") == "__init__")
    documented = ast.get_docstring(start) or ""  # type: ignore[arg-type]
    required = {each.arg for each in parameters(start, given=True)}
    for each in parameters(start):
        name = RENAMED.get(each.arg, each.arg)
        kind = stripped(each.annotation)
        changeable = re.search(rf":param [^\n]*\b{each.arg}: \((Updatable|Optional)\)", documented)
        repeated, inner = unwrapped(kind)
        if inner and provider == "oci":
            body = source(folder / "_inputs.py", inner)
            blocks[name] = arguments_of(body, folder, provider, single=not repeated)
            continue
        arguments[name] = Argument(
            type_of(kind, folder),
            each.arg in required,
            each.arg not in required,
            replaces=provider == "oci" and not changeable and each.arg != "async_",
        )
    return Block(arguments, blocks, single)


def module(provider: str, rest: str) -> str:
    """Return in which module of the bindings a type is: Oracle's are in a folder per service."""
    return rest.replace("_", "/", 1) if provider == "oci" else rest


def camel(name: str) -> str:
    """Return ``a_name`` as ``AName``."""
    return "".join(part.capitalize() for part in name.split("_"))


@functools.cache
def text(path: Path) -> str:
    """Return a module of the bindings."""
    return path.read_text(encoding="utf-8")


def source(path: Path, name: str, asked: str = "") -> ast.ClassDef:
    """Return the class ``name`` of a module, parsed alone: whole modules have 100,000 lines."""
    heads = (f"\nclass {name}{after}" for after in ":(")
    starts = [text(path).find(head) + 1 for head in heads] if path.exists() else [0]
    if not max(starts):
        raise UnknownTypeError(f"the provider has no {asked or name}")
    end = NEXT.search(text(path), max(starts) + 1)
    parsed = ast.parse(text(path)[max(starts) : end.start() if end else None]).body[0]
    assert isinstance(parsed, ast.ClassDef)
    return parsed


def parameters(function: ast.stmt, *, given: bool = False) -> Iterator[ast.arg]:
    """Yield a function's parameters; with ``given`` only those without a default."""
    assert isinstance(function, ast.FunctionDef)
    yield from (each for each in function.args.args if not given and each.arg != "__self__")
    for each, default in zip(function.args.kwonlyargs, function.args.kw_defaults, strict=True):
        if not given or default is None:
            yield each


def getters(body: ast.ClassDef, wrapper: str) -> dict[str, tuple[ast.expr, bool]]:
    """Return the properties of a class: name to annotation, and whether it may be nothing."""
    found = {}
    for each in body.body:
        if isinstance(each, ast.FunctionDef) and each.decorator_list and each.returns:
            if wrapper and not ast.unparse(each.returns).startswith(f"pulumi.{wrapper}["):
                continue
            found[each.name] = (stripped(each.returns), "Optional[" in ast.unparse(each.returns))
    return found


def stripped(annotation: ast.expr | None) -> ast.expr:
    """Return an annotation without what Pulumi and Optional put around it."""
    assert annotation is not None
    while isinstance(annotation, ast.Subscript) and ast.unparse(annotation.value) in (
        "pulumi.Input",
        "pulumi.Output",
        "Optional",
    ):
        annotation = annotation.slice
    return annotation


def unwrapped(kind: ast.expr) -> tuple[bool, str]:
    """Return whether a type repeats, and the class that it is, or that its items are; else ""."""
    repeated = isinstance(kind, ast.Subscript) and ast.unparse(kind.value) == "Sequence"
    inner = stripped(kind.slice) if repeated and isinstance(kind, ast.Subscript) else kind
    named = isinstance(inner, ast.Constant) and isinstance(inner.value, str)
    return repeated, str(inner.value) if named and isinstance(inner, ast.Constant) else ""


def type_of(kind: ast.expr, folder: Path, listed: bool = False, depth: int = DEPTH) -> Type:
    """Return Terraform's type of an annotation; a single object is a list of one if ``listed``."""
    kind = stripped(kind)
    if isinstance(kind, ast.Subscript):
        outer = ast.unparse(kind.value)
        inner = kind.slice.elts if isinstance(kind.slice, ast.Tuple) else [kind.slice]
        if outer == "Union":
            return type_of(inner[0], folder, listed, depth)
        return ["list" if outer == "Sequence" else "map", type_of(inner[-1], folder, False, depth)]
    if isinstance(kind, ast.Constant) and isinstance(kind.value, str):
        found = object_of(kind.value.removeprefix("outputs."), folder, depth)
        return ["list", found] if listed else found
    return SCALARS.get(ast.unparse(kind).removeprefix("_builtins."), "dynamic")


def object_of(name: str, folder: Path, depth: int) -> Type:
    """Return the type of what a class of the bindings holds."""
    taken = name.endswith("Args")
    if not depth:
        return "dynamic"
    body = source(folder / ("_inputs.py" if taken else "outputs.py"), name)
    told = getters(body, "Input" if taken else "")
    return [
        "object",
        {key: type_of(kind, folder, False, depth - 1) for key, (kind, _) in told.items()},
    ]
