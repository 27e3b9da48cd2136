"""Looks at an entry script without running it, for what is sure to keep the server from loading it.

``python entry_script.py SCRIPT ROOT [OTHER...]`` prints one line of JSON: null, or what is wrong and where. It runs on
the service's own Python, whose grammar counts, before the worker that serves is ended.
"""

from __future__ import annotations

import ast
import importlib.util
import json
import os
import sys
import warnings
from collections.abc import Iterator, Sequence
from typing import Any

#: Files that are looked at, at most.
_MOST = 500
#: What may give a module names that its text does not show.
_DYNAMIC = frozenset(("globals", "vars", "locals", "exec", "setattr", "__dict__", "__getattr__", "modules"))


def find_fault(script: str) -> dict[str, Any] | None:
    """What is wrong with the script's own text.

    Args:
        script: Its path.

    Returns:
        None where nothing is sure; else ``{"type", "message", "file", "line"}``. A missing function has the type
        ``UserScriptError`` and the server's own words.

    Raises:
        OSError: It cannot be read.
    """
    tree, wrong = _parsed(script)
    if tree is None:
        return wrong
    names = _names(tree)
    for wanted in ("init", "run"):
        if names is not None and wanted not in names:
            message = "User script at {} does not have a {}() function defined.".format(script, wanted)
            return {"type": "UserScriptError", "message": message, "file": script, "line": None}
    return None


def find_fault_below(script: str, roots: Sequence[str]) -> dict[str, Any] | None:
    """The same, and syntax errors of the modules below ``roots`` that are imported with the script in any case."""
    wrong = find_fault(script)
    waiting, seen = [script], {script}
    while waiting and wrong is None and len(seen) < _MOST:
        file = waiting.pop()
        try:
            tree, wrong = _parsed(file)
        except OSError:
            continue
        for found in () if tree is None else _imported(tree, file, roots):
            if found not in seen:
                seen.add(found)
                waiting.append(found)
    return wrong


def _parsed(file: str) -> tuple[ast.Module | None, dict[str, Any] | None]:
    """The tree, and what is wrong; both None where nothing can be told."""
    with open(file, "rb") as source:
        text = source.read()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            tree = ast.parse(text, file)
            compile(tree, file, "exec", dont_inherit=True)
    except SyntaxError as error:
        wrong = {"type": type(error).__name__, "message": str(error.msg), "file": file, "line": error.lineno}
        return None, wrong
    except ValueError as error:  # a NUL, before Python 3.12
        return None, {"type": "SyntaxError", "message": str(error), "file": file, "line": None}
    except (RecursionError, MemoryError):
        return None, None
    return tree, None


def _names(tree: ast.Module) -> set[str] | None:
    """The names that a module may have once it is loaded; None where they cannot be told from its text."""
    names: set[str] = set()
    waiting: list[ast.AST] = list(tree.body)
    while waiting:
        node = waiting.pop()
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)):
            names.add(node.name)
        elif isinstance(node, (ast.Import, ast.ImportFrom)):
            if any(alias.name == "*" for alias in node.names):
                return None
            names.update((alias.asname or alias.name).partition(".")[0] for alias in node.names)
        elif isinstance(node, ast.Name) and not isinstance(node.ctx, ast.Load):
            names.add(node.id)
        else:
            # `case` has its names as texts.
            for _, value in ast.iter_fields(node):
                names.update(part for part in (value if isinstance(value, list) else [value]) if type(part) is str)
            waiting.extend(ast.iter_child_nodes(node))
    for node in ast.walk(tree):
        if isinstance(node, ast.Global):
            names.update(node.names)
        word = getattr(node, "id", None) or getattr(node, "attr", None) or getattr(node, "name", None)
        if word in _DYNAMIC:
            return None
    return names


def _imported(tree: ast.Module, file: str, roots: Sequence[str]) -> Iterator[str]:
    """Files below the roots that are imported as soon as this one is; what may be caught, or left out, is not."""
    for node in tree.body:
        if isinstance(node, ast.Import):
            wanted = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.level == 0 and node.module:
            wanted = [node.module, *("{}.{}".format(node.module, alias.name) for alias in node.names)]
        elif isinstance(node, ast.ImportFrom):
            folder = os.path.dirname(file)
            for _ in range(node.level - 1):
                folder = os.path.dirname(folder)
            inner = (node.module or "").split(".") if node.module else []
            for inside in [inner, *([*inner, alias.name] for alias in node.names)]:
                yield from _below(folder, inside)
            continue
        else:
            continue
        for name in wanted:
            first, *rest = name.split(".")
            place = _place(first, roots)
            if place is not None:
                yield place
                if os.path.basename(place) == "__init__.py":
                    yield from _below(os.path.dirname(place), rest)


def _below(folder: str, names: Sequence[str]) -> Iterator[str]:
    """The files of a chain of packages in a folder, as far as they are there."""
    for name in names:
        folder = os.path.join(folder, name)
        for place in (os.path.join(folder, "__init__.py"), folder + ".py"):
            if os.path.isfile(place):
                yield place
                break


def _place(name: str, roots: Sequence[str]) -> str | None:
    """The file of a module that lies below the roots, where it is that one that is imported."""
    try:
        found = importlib.util.find_spec(name)
    except Exception:
        return None
    origin = getattr(found, "origin", None) or ""
    inside = any(origin.startswith(root.rstrip(os.sep) + os.sep) for root in roots)
    return origin if inside and origin.endswith(".py") else None


if __name__ == "__main__":
    # As the server does; this file's own folder is not the service's.
    sys.path[:] = [*sys.path[1:], *sys.argv[2:3]]
    sys.stdout.write(json.dumps(find_fault_below(sys.argv[1], sys.argv[2:])) + "\n")
