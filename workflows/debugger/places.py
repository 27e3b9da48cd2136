"""Typed places to stop at: ``score.py:42``, ``score.py:run``, ``package.module:function``."""

from __future__ import annotations

import ast
import re
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from workflows.debugger.locations import Condition, check_line, parse_location, resolve_source
from workflows.debugger.sessions.model import Breakpoint, Function, as_mapped
from workflows.errors import BadValue
from workflows.models import PathMapping
from workflows.reading import read_bytes

_NAME = re.compile(r"[^\W\d]\w*(?:\.[^\W\d]\w*)*")


@dataclass(frozen=True)
class Place:
    """Where to stop.

    Attributes:
        text: Its name in messages.
        source: The file, an absolute local path; None for a module of the program.
        line: Counted from 1; 0 for a module's function.
        function: The module's function, or the function that is meant on a line with several.
        module: The module's name.
    """

    text: str
    source: Path | None = None
    line: int = 0
    function: str = ""
    module: str = ""

    def breakpoint(
        self, mappings: Sequence[PathMapping], condition: Condition, log: str = "", most: int = 0
    ) -> Breakpoint | Function:
        """The breakpoint for a program with these path mappings."""
        if self.source is None:
            return Function(self.module, self.function, condition, log, most)
        return Breakpoint(as_mapped(self.source, mappings), self.line, condition, log, self.function, most)


def read_place(text: str, *, cwd: Path, roots: Sequence[Path]) -> Place:
    """Find the place that a user has typed.

    Args:
        text: As typed.
        cwd: The current folder, absolute.
        roots: Folders of the code that is debugged, absolute.

    Raises:
        BadValue: It has no valid form, or the file has no such function.
        UserError: There is no such file, or its line holds no code.
    """
    before, colon, name = text.strip().rpartition(":")
    if not colon or not before.strip() or not _NAME.fullmatch(name):
        file, line = parse_location(text)
        source = resolve_source(file, cwd=cwd, roots=roots)
        check_line(source, line)
        return Place(f"{source.name}:{line}", source, line)
    # A module's name has no folder and no extension.
    if is_module(text):
        return Place(f"{before}:{name}", module=before, function=name)
    source = resolve_source(before, cwd=cwd, roots=roots)
    line, only = find_function(source, name)
    return Place(f"{source.name}:{name}", source, line, only)


def is_module(text: str) -> bool:
    """Whether a place names a function of a module, not of a file."""
    before, colon, name = text.strip().rpartition(":")
    return bool(colon and _NAME.fullmatch(name) and _NAME.fullmatch(before) and not before.endswith(".py"))


def find_function(source: Path, name: str) -> tuple[int, str]:
    """Find the first line of a function that runs when it is called.

    Args:
        source: The file.
        name: The function's name, which may be qualified: ``Net.forward``.

    Returns:
        The line, and the function's own name if its definition is on the same line; else an empty text.

    Raises:
        BadValue: There is none, or there are several.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            tree = ast.parse(read_bytes(source))
    except (OSError, SyntaxError, ValueError, RecursionError, MemoryError) as error:
        raise BadValue(f"{source.name} cannot be read as Python here: {error}", "Name a line instead.") from error
    found = _functions(tree.body, "")
    named = [one for one in found if one[0] == name] or [one for one in found if one[0].endswith(f".{name}")]
    if not named:
        known = ", ".join(one[0] for one in found[:20]) or "none"
        raise BadValue(
            f"There is no function {name} in {source.name}",
            f"Write it as FILE:LINE, for example {source.name}:42, or name one of its functions: {known}.",
        )
    if len({one[0] for one in named}) > 1:
        several = ", ".join(one[0] for one in named[:20])
        raise BadValue(f"{source.name} has several functions {name}", f"Name one of: {several}.")
    # Of several definitions of the same name, the last one counts.
    node = named[-1][1]
    first = node.body[0]
    if isinstance(first, ast.Expr) and isinstance(first.value, ast.Constant) and len(node.body) > 1:
        first = node.body[1]
    return first.lineno, node.name if first.lineno == node.lineno else ""


_Function = ast.FunctionDef | ast.AsyncFunctionDef


def _functions(body: Sequence[ast.AST], inside: str) -> list[tuple[str, _Function]]:
    """All functions with their qualified names."""
    found: list[tuple[str, _Function]] = []
    for node in body:
        if isinstance(node, _Function):
            found += [(inside + node.name, node), *_functions(node.body, f"{inside}{node.name}.")]
        elif isinstance(node, ast.ClassDef):
            found += _functions(node.body, f"{inside}{node.name}.")
        else:
            inner = [part for part in ast.iter_child_nodes(node) if isinstance(part, ast.stmt | ast.ExceptHandler)]
            found += _functions(inner, inside)
    return found
