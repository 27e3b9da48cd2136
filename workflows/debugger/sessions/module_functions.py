"""Finding the source of library functions where the program would import them, without importing anything."""

from __future__ import annotations

import json
from typing import Any

from workflows.debugger.sessions.model import Breakpoint, Function
from workflows.debugger.sessions.peer import Peer
from workflows.errors import UserError

#: Runs in the debugged program, on any Python from 3.8 on.
_FIND = """\
def _azureml_find(module, function):
    import ast, importlib.machinery, json, sys, tokenize
    file = getattr(sys.modules.get(module), "__file__", None)
    path, parts = None, module.split(".")
    for number in range(1, len(parts) + 1) if file is None else ():
        spec = importlib.machinery.PathFinder.find_spec(".".join(parts[:number]), path)
        if spec is None:
            return json.dumps({"missing": ".".join(parts[:number])})
        file, path = spec.origin, spec.submodule_search_locations
    if not file or not file.endswith(".py"):
        return json.dumps({"file": file or ""})
    with tokenize.open(file) as opened:
        body, found = ast.parse(opened.read()).body, None
    for name in function.split("."):
        kinds = (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)
        pending, found = list(body), None
        while pending and found is None:
            node = pending.pop(0)
            if isinstance(node, kinds):
                found = node if node.name == name else None
            else:
                pending += [part for part in ast.iter_child_nodes(node) if isinstance(part, ast.stmt)]
        if found is None:
            return json.dumps({"file": file, "line": 0})
        body = found.body
    if isinstance(found, ast.ClassDef):
        return json.dumps({"file": file, "line": 0})
    first = found.body[0]
    if isinstance(first, ast.Expr) and isinstance(first.value, ast.Constant) and len(found.body) > 1:
        first = found.body[1]
    return json.dumps({"file": file, "line": first.lineno, "alone": first.lineno == found.lineno})

"""


def find_function_line(program: Peer, wanted: Function, timeout: float) -> Breakpoint:
    """Find the first line of a module's function.

    Raises:
        UserError: There is no such module, or no such function in it, or it is not written in Python.
    """
    name = f"{wanted.module}:{wanted.function}"
    program.ask_program(_FIND, timeout)
    answer: dict[str, Any] = json.loads(
        program.ask_program(f"_azureml_find{(wanted.module, wanted.function)}", timeout)
    )
    if "missing" in answer:
        raise UserError(f"{name}: the program can import no module {answer['missing']}", "Check the name.")
    if "line" not in answer:
        raise UserError(
            f"{name}: {wanted.module} has no Python source ({answer['file'] or 'built in'})",
            "Name a function that is written in Python.",
        )
    if not answer["line"]:
        raise UserError(
            f"{name}: there is no function {wanted.function} in {answer['file']}",
            "Write a method as CLASS.METHOD. Name the module in which it is defined.",
        )
    function = wanted.function.rpartition(".")[2] if answer["alone"] else ""
    return Breakpoint(answer["file"], answer["line"], wanted.condition, wanted.log, function, wanted.most)
