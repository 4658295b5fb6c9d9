"""What tells whether the tuner that was proven is the one that is there: a digest of what it decides by."""

import ast
import hashlib
import io
import tokenize
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from observability import tuning

# What a decision comes from, and what becomes of it; how it is said is left out.
MODULES: Final = (
    "thresholds",
    "trends",
    "conditions",
    "load",
    "table",
    "bounds",
    "decision",
    "verdict",
    "steps",
    "loop",
)
_DIRECTORY: Final = Path(tuning.__file__).parent


def fingerprint() -> str:
    """Return a short digest of the table, its thresholds, the guard rails and the loop, and not of comments."""
    lines = [line for name in MODULES for line in code((_DIRECTORY / f"{name}.py").read_text())]
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()[:12]


def code(source: str) -> Iterator[str]:
    """Return the lines of a module without comments, docstrings and blank lines."""
    lines = source.splitlines()
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        if token.type == tokenize.COMMENT:
            row, column = token.start
            lines[row - 1] = lines[row - 1][:column]
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef) and ast.get_docstring(node) is not None:
            first = node.body[0]
            lines[first.lineno - 1 : first.end_lineno] = [""] * ((first.end_lineno or first.lineno) - first.lineno + 1)
    return (line.rstrip() for line in lines if line.strip())
