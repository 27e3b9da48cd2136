"""Finds errors in an entry script, without running it, that are certain to keep the server from loading it.

``python entry_script.py SCRIPT ROOT [OTHER...]`` prints one line of JSON: null, or the error and its place. It runs
with the service's own Python, whose grammar matters, before the current worker is ended.
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

#: Files that are inspected at most.
_MOST = 500
#: Names whose use may add names to a module at run time.
_DYNAMIC = frozenset(("globals", "vars", "locals", "exec", "setattr", "__dict__", "__getattr__", "modules"))


def find_fault(script: str) -> dict[str, Any] | None:
    """Find an error in the script itself.

    Args:
        script: Its path.

    Returns:
        None if no error is certain; else ``{"type", "message", "file", "line"}``. A missing function has the type
        ``UserScriptError`` and the server's own message.

    Raises:
        OSError: It cannot be read.
    """
    tree, wrong = _parse(script)
    if tree is None:
        return wrong
    names = _module_names(tree)
    for wanted in ("init", "run"):
        if names is not None and wanted not in names:
            message = "User script at {} does not have a {}() function defined.".format(script, wanted)
            return {"type": "UserScriptError", "message": message, "file": script, "line": None}
    return None


def find_fault_below(script: str, roots: Sequence[str]) -> dict[str, Any] | None:
    """Find an error in the script, or a syntax error in a module below ``roots`` that it certainly imports."""
    wrong = find_fault(script)
    waiting, seen = [script], {script}
    while waiting and wrong is None and len(seen) < _MOST:
        file = waiting.pop()
        try:
            tree, wrong = _parse(file)
        except OSError:
            continue
        for found in () if tree is None else _imported_files(tree, file, roots):
            if found not in seen:
                seen.add(found)
                waiting.append(found)
    return wrong


def _parse(file: str) -> tuple[ast.Module | None, dict[str, Any] | None]:
    """The syntax tree, or the error; both are None if neither can be determined."""
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


def _module_names(tree: ast.Module) -> set[str] | None:
    """The names that a module may have once it is loaded; None if its text does not show them."""
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
            # The names in a `case` are strings.
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


def _imported_files(tree: ast.Module, file: str, roots: Sequence[str]) -> Iterator[str]:
    """Files below the roots that importing this one certainly imports, and not inside `try` or `if`."""
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
                yield from _package_files(folder, inside)
            continue
        else:
            continue
        for name in wanted:
            first, *rest = name.split(".")
            place = _find_module(first, roots)
            if place is not None:
                yield place
                if os.path.basename(place) == "__init__.py":
                    yield from _package_files(os.path.dirname(place), rest)


def _package_files(folder: str, names: Sequence[str]) -> Iterator[str]:
    """The existing files of a chain of packages in a folder."""
    for name in names:
        folder = os.path.join(folder, name)
        for place in (os.path.join(folder, "__init__.py"), folder + ".py"):
            if os.path.isfile(place):
                yield place
                break


def _find_module(name: str, roots: Sequence[str]) -> str | None:
    """The file of a module, if the import would load it from below the roots."""
    try:
        found = importlib.util.find_spec(name)
    except Exception:
        return None
    origin = getattr(found, "origin", None) or ""
    inside = any(origin.startswith(root.rstrip(os.sep) + os.sep) for root in roots)
    return origin if inside and origin.endswith(".py") else None


if __name__ == "__main__":
    # As in the server, which does not have this file's folder on its path.
    sys.path[:] = [*sys.path[1:], *sys.argv[2:3]]
    sys.stdout.write(json.dumps(find_fault_below(sys.argv[1], sys.argv[2:])) + "\n")
