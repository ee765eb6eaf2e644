"""Python's own parser, for one thread at a time.

While one builds its tree the garbage collector may let another go on, and up to Python 3.12 both
count into one depth of recursion: "AST constructor recursion depth mismatch" (CPython's ast.c).
"""

from __future__ import annotations

import ast
import threading

_ONE = threading.Lock()


def tree(source: str) -> ast.Module:
    """Return the syntax tree of a module's source. Raises SyntaxError."""
    with _ONE:
        return ast.parse(source)
