"""Programs of ours that look around where we are not: sent with what they need of ours."""

from __future__ import annotations

import ast
import inspect
import json
import sys
from types import ModuleType
from typing import Any

from backup_mx.machine import syntax
from backup_mx.machine.ship import Host, facts, must

# One text on standard input: no file is left there, nothing of ours has to be installed, and where
# it is, in whatever version, it stands aside: what sys.modules has is not looked for (importlib,
# _find_and_load), nor are the packages it is in.
_PROGRAM = """\
import json, sys, types
for name, source in json.loads({sources!r}):
    module = sys.modules[name] = types.ModuleType(name)
    exec(compile(source, name, "exec"), module.__dict__)
print(json.dumps(module.facts(json.loads({wanted!r}))))
"""


def ask(host: Host, program: ModuleType, wanted: object = None) -> dict[str, Any]:
    """Run ``facts(wanted)`` of a module on a host that has nothing but Python.

    What the module imports of ours goes along; wanted is whatever JSON can carry. Raises
    MachineError, UnreachableError.
    """
    sources = [(each.__name__, inspect.getsource(each)) for each in _needed(program)]
    text = _PROGRAM.format(sources=json.dumps(sources), wanted=json.dumps(wanted))
    return facts(must(host, ("python3", "-I", "-"), stdin=text.encode()))


def _needed(program: ModuleType) -> list[ModuleType]:
    """Return a module and all of ours that it imports, each after what it imports itself.

    ``from backup_mx.net.session import Session`` is the one way to import that is understood.
    """
    found: dict[str, ModuleType] = {}
    for node in ast.walk(syntax.tree(inspect.getsource(program))):
        if isinstance(node, ast.ImportFrom) and str(node.module).startswith("backup_mx."):
            found |= {each.__name__: each for each in _needed(sys.modules[str(node.module)])}
    return [*found.values(), program]
