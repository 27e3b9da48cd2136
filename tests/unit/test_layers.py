"""Which part of the program knows which: no circle of imports, and no layer that knows one above it.

Imports inside functions count, too: they only come later. What is imported for types alone does not.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator, Mapping
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
#: From the ground up: the folders of `workflows`; "" is its own modules. Those of one line may know each other.
LAYERS = (
    ("", "logs", "debuggee"),
    ("debugger",),
    ("pipelines", "assets", "deployments", "environments"),
    ("engines", "snapshots"),
    ("runs", "experiments", "azureml", "backends"),
    ("flows", "vscode", "remote"),
    ("tasks", "mcp_server"),
)
#: Modules of `workflows` itself that are no ground for others, but start or show something of a layer.
STARTING = {"": "tasks", "__main__": "tasks", "reference": "tasks", "doctor": "flows", "forwarder": "engines"}
#: What knows something above it all the same, and why.
EXCEPTIONS = {
    # An input, a model or an environment may be named by what a workspace calls it.
    ("environments.references", "azureml.named_assets"),
    ("environments.references", "engines.docker_contexts"),
    ("deployments.variables", "flows.service_variables"),
    # How bytes are forwarded is the same from a container, from a node of a workspace and from another machine.
    ("forwarder", "azureml.forwarding"),
    ("forwarder", "remote.forwarding"),
    ("engines.docker_steps", "azureml.forwarding"),
    ("engines.docker_steps", "remote.forwarding"),
    ("azureml.child_run", "remote.forwarding"),
    ("azureml.relay.container", "remote.keepalive"),
}
#: Circles that are meant, by the import that closes each.
CIRCLES = {
    # Every child of a debugged process loads `child`; the rest is loaded once a debugger is there.
    ("debuggee.azureml_debuggee.child", "debuggee.azureml_debuggee.child_session"),
    # A run that goes on from an earlier one is a pipeline's, and asks for another.
    ("flows.pipeline", "flows.from_run"),
}


def _name(path: Path) -> str:
    parts = path.relative_to(ROOT / "workflows").with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


MODULES = {_name(path): path for path in sorted((ROOT / "workflows").rglob("*.py"))}


def imported(text: str, name: str, is_package: bool, modules: Mapping[str, object]) -> Iterator[str]:
    """The modules of the program that one imports, by their names below `workflows`."""
    for node in _running(ast.parse(text)):
        found: list[str] = []
        if isinstance(node, ast.Import):
            found = [one.name for one in node.names if one.name.partition(".")[0] == "workflows"]
        elif isinstance(node, ast.ImportFrom):
            above = ["workflows", *filter(None, name.split("."))]
            above = above[: len(above) - node.level + is_package] if node.level else []
            start = ".".join([*above, *filter(None, [node.module])])
            found = [start, *(f"{start}.{one.name}" for one in node.names)]
        names = [one.partition(".")[2] for one in found if one.partition(".")[0] == "workflows"]
        known = [one for one in names if one in modules and one != name]
        # Of a package and a module in it, the module is meant.
        yield from (one for one in known if one and not any(other.startswith(f"{one}.") for other in known))


def _running(node: ast.AST) -> Iterator[ast.AST]:
    """Every node but what only a type checker sees."""
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.If) and "TYPE_CHECKING" in ast.unparse(child.test):
            continue
        yield child
        yield from _running(child)


@cache
def imports() -> dict[str, set[str]]:
    return {
        name: set(imported(path.read_text(encoding="utf-8"), name, path.name == "__init__.py", MODULES))
        for name, path in MODULES.items()
    }


def layer(module: str) -> int:
    folder = STARTING.get(module) or (module.partition(".")[0] if "." in module or module in FOLDERS else "")
    return next(number for number, folders in enumerate(LAYERS) if folder in folders)


FOLDERS = {folder for folders in LAYERS for folder in folders if folder}


def circles(graph: Mapping[str, set[str]]) -> list[list[str]]:
    """A way round for each module from which one leads back to it, the shortest of each set of modules."""
    found: dict[frozenset[str], list[str]] = {}
    for start in graph:
        ways, seen = [[start]], {start}
        while ways:
            way = ways.pop(0)
            if start in graph[way[-1]]:
                found.setdefault(frozenset(way), way)
                break
            for after in sorted(graph[way[-1]] - seen):
                seen.add(after)
                ways.append([*way, after])
    return list(found.values())


def test_every_folder_has_its_layer() -> None:
    there = {path.parent.name for path in (ROOT / "workflows").glob("*/__init__.py")}
    assert there == FOLDERS


def test_no_module_knows_one_of_a_layer_above() -> None:
    upwards = {(name, one) for name, known in imports().items() for one in known if layer(one) > layer(name)}
    assert sorted(upwards - EXCEPTIONS) == []
    assert sorted(EXCEPTIONS - upwards) == [], "no exceptions any more"


def test_there_is_no_circle_of_imports() -> None:
    graph = {name: {one for one in known if (name, one) not in CIRCLES} for name, known in imports().items()}
    assert circles(graph) == []
    assert all(one in imports()[name] for name, one in CIRCLES), "no exceptions any more"


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("import workflows.errors", {"errors"}),
        ("from workflows import errors, paths", {"errors", "paths"}),
        ("from ..engines.base import Engine", {"engines.base"}),
        ("from .. import engines", {"engines"}),
        ("from . import deployment", {"flows.deployment"}),
        ("def run():\n    from .deployment import Deployment", {"flows.deployment"}),
        ("if TYPE_CHECKING:\n    from ..engines.base import Engine", set()),
        ("import os, json\nfrom docker import errors", set()),
    ],
)
def test_imports_of_every_form_are_seen(text: str, found: set[str]) -> None:
    assert set(imported(text, "flows.pipeline", False, MODULES)) == found


def test_circles_are_seen() -> None:
    assert circles({"a": {"b"}, "b": {"c"}, "c": {"b"}, "d": {"a"}}) == [["b", "c"]]
