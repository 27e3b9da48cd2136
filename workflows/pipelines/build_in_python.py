"""Builds a pipeline that is written in Python, in a separate process: ``python build_in_python.py REQUEST``.

REQUEST is a JSON file with ``file``, ``function``, ``inputs`` by name, each with ``text`` and ``path`` (the text as an
absolute path, if that exists), ``v1`` (whether the file is written with SDK v1), and ``answer``, the file for the
answer. This module imports nothing of the program, so any Python with the SDK can run it. The SDK builds a job without
a workspace.
"""

from __future__ import annotations

import contextlib
import functools
import importlib.util
import inspect
import json
import os
import sys
import traceback
from collections.abc import Callable, Iterator
from typing import Any

#: The folder of Python's own modules; installed packages are recognised by their folder's name.
_STANDARD = os.path.dirname(os.path.abspath(os.__file__)) + os.sep
_INSTALLED = (os.sep + "site-packages" + os.sep, os.sep + "dist-packages" + os.sep)
#: The created nodes by id: each node, which keeps its id from being reused, and the user's line that created it.
_made: dict[int, tuple[Any, tuple[str, int]]] = {}


class Refused(Exception):
    """An error for the user: the problem, the remedy, and the place if that is known."""


def main(place: str) -> None:
    """Build the pipeline of a request file, and write the answer."""
    with open(place, encoding="utf-8") as file:
        request = json.load(file)
    try:
        answer = _build(request)
    except Refused as refused:
        answer = {"refused": list(refused.args[:2]), "place": refused.args[2] if refused.args[2:] else None}
    except BaseException as error:  # including SystemExit of a script with its own command line
        answer = {"failed": _failure(error)}
    with open(request["answer"], "w", encoding="utf-8") as file:
        json.dump(answer, file, default=str)


def _build(request: dict[str, Any]) -> dict[str, Any]:
    path, name, given = request["file"], request["function"], request["inputs"]
    # As Python does for a script: its own folder is first.
    sys.path[0] = os.path.dirname(path)
    sys.argv = [path]
    spec = importlib.util.spec_from_file_location(os.path.splitext(os.path.basename(path))[0], path)
    assert spec is not None and spec.loader is not None
    with open(path, "rb") as file:
        text = file.read()
    # A syntax error is reported before the SDK is imported, which takes seconds.
    compile(text, path, "exec", dont_inherit=True)
    first = _sdk_v1() if request["v1"] else None
    _remember_lines(text)
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    if not hasattr(module, name):
        functions = [
            one
            for one, value in vars(module).items()
            if inspect.isfunction(value) and value.__module__ == module.__name__ and not one.startswith("_")
        ]
        raise Refused(
            f"{os.path.basename(path)} has no function {name}.",
            "Existing ones: {}".format(", ".join(functions)) if functions else "Write one that returns the pipeline.",
        )
    found = getattr(module, name)
    used: list[str] = []
    if callable(found) and not hasattr(found, "_to_dict"):
        arguments = _arguments(found, name, given)
        used = list(arguments)
        found = found(**arguments)
    if first is not None and (steps := first.steps_in(found)):
        try:
            named = first.named(steps)
            places = {key: place for key, step in named.items() if (place := _place_of(step)) is not None}
            return {"job": first.job_of(named, name), "used": used, "places": places}
        except first.NotOffline as error:
            remedy = "Run it where such a step runs, or write the step as a script's."
            raise Refused(str(error), remedy, _place_of(error.step)) from None
    if not hasattr(found, "_to_dict"):
        raise Refused(
            "{} gives {}, not a pipeline.".format(name, "nothing" if found is None else "a " + type(found).__name__),
            "Have it return what the function with @pipeline returns"
            + (", or SDK v1's steps or Pipeline." if first is not None else "."),
        )
    job = found._to_dict()
    _write_truths(found, job)
    _declare(job)
    return {"job": job, "used": used, "places": dict(_places(found))}


def _remember_lines(text: bytes) -> None:
    """Have each node remember the user's line that creates it, which messages about the pipeline name."""
    nodes = []
    # Without the SDK there are no nodes; if it is not installed, the user's own import fails.
    with contextlib.suppress(ImportError):
        if b"azure.ai.ml" in text or "azure.ai.ml" in sys.modules:
            from azure.ai.ml.entities._builders.base_node import BaseNode

            nodes.append(BaseNode)
    with contextlib.suppress(ImportError):
        if "azureml_debug_sdk_v1" in sys.modules:
            from azureml.pipeline.core import PipelineStep  # type: ignore[import-not-found,unused-ignore]

            nodes.append(PipelineStep)
    for node in nodes:
        node.__init__ = _remembering(node.__init__)


def _remembering(original: Callable[..., None]) -> Callable[..., None]:
    @functools.wraps(original)
    def made(self: Any, *arguments: Any, **named: Any) -> None:
        frame = inspect.currentframe()
        while frame is not None and not _own(frame.f_code.co_filename):
            frame = frame.f_back
        if frame is not None:
            _made[id(self)] = (self, (frame.f_code.co_filename, frame.f_lineno))
        original(self, *arguments, **named)

    return made


def _own(file: str) -> bool:
    """Whether a Python file is the user's own: not installed, not Python's, and not the program's."""
    path = os.path.abspath(file)
    others = file.startswith("<") or any(part in path for part in _INSTALLED) or path.startswith(_STANDARD)
    return not others and os.path.dirname(path) != os.path.dirname(os.path.abspath(__file__))


def _place_of(node: Any) -> tuple[str, int] | None:
    return _made[id(node)][1] if id(node) in _made else None


def _places(pipeline: Any, outer: str = "") -> Iterator[tuple[str, tuple[str, int]]]:
    """The lines that have created a pipeline's steps, by name; steps of nested pipelines as ``outer.inner``."""
    jobs = getattr(pipeline, "jobs", None)
    for name, node in (jobs if isinstance(jobs, dict) else {}).items():
        place = _place_of(node)
        if place is not None:
            yield outer + name, place
        yield from _places(getattr(node, "component", None), f"{outer}{name}.")


def _sdk_v1() -> Any:
    """Load the module beside this one for SDK v1, and prepare the SDK to work without a workspace."""
    place = os.path.join(os.path.dirname(os.path.abspath(__file__)), "build_with_sdk_v1.py")
    spec = importlib.util.spec_from_file_location("azureml_debug_sdk_v1", place)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    module.prepare()
    return module


def _write_truths(pipeline: Any, written: Any) -> None:
    """Put back True and False for which the SDK has written 1 and 0; Azure gets the words."""
    entries = written.get("inputs") if isinstance(written, dict) else None
    for name, one in (getattr(pipeline, "inputs", None) or {}).items():
        value = getattr(one, "_data", None)
        if isinstance(value, bool) and isinstance(entries, dict) and name in entries:
            entries[name] = value
    jobs = getattr(pipeline, "jobs", None)
    for name, node in (jobs if isinstance(jobs, dict) else {}).items():
        inner = (written.get("jobs") or {}).get(name) if isinstance(written, dict) else None
        if isinstance(inner, dict):
            _write_truths(node, inner)
            _write_truths(getattr(node, "component", None), inner.get("component"))


def _declare(pipeline: dict[str, Any]) -> None:
    """Declare the inputs of nested pipelines for parameters without an annotation.

    The SDK writes such an input where it is given and used, but leaves it out of the declarations.
    """
    for job in (pipeline.get("jobs") or {}).values():
        component = job.get("component")
        if isinstance(component, dict) and component.get("jobs"):
            declared = component["inputs"] = component.get("inputs") or {}
            for name in job.get("inputs") or {}:
                declared.setdefault(name, {})
            _declare(component)


def _arguments(function: Callable[..., Any], name: str, given: dict[str, Any]) -> dict[str, Any]:
    """The arguments of a function: the inputs that are its parameters."""
    parameters = inspect.signature(function).parameters
    any_name = any(one.kind is one.VAR_KEYWORD for one in parameters.values())
    values = {
        key: _value(parameters.get(key), entry)
        for key, entry in given.items()
        if key in parameters or (any_name and "." not in key)
    }
    for key in ("ws", "workspace"):
        if key in parameters and key not in values and (first := sys.modules.get("azureml_debug_sdk_v1")) is not None:
            values[key] = first.Elsewhere(key)
    missing = [
        key
        for key, one in parameters.items()
        if key not in values and one.default is one.empty and one.kind not in (one.VAR_KEYWORD, one.VAR_POSITIONAL)
    ]
    if missing:
        raise Refused(
            "{} needs {}.".format(name, ", ".join(missing)),
            "Give it: {}".format(" ".join(f"--input {key}=VALUE" for key in missing)),
        )
    return values


def _value(parameter: Any, entry: dict[str, Any]) -> Any:
    """An input's value: of the parameter's type; without one, data if the path exists, otherwise a literal."""
    text, path = entry["text"], entry["path"]
    kind = getattr(parameter, "annotation", None)
    kind = {"int": int, "float": float, "bool": bool, "str": str}.get(kind, kind) if isinstance(kind, str) else kind
    default = getattr(parameter, "default", None)
    if kind not in (int, float, bool, str) and isinstance(default, (bool, int, float, str)):
        kind = type(default)
    if kind is bool and text.lower() in ("true", "false"):
        return text.lower() == "true"
    if kind in (int, float):
        try:
            return kind(text)
        except ValueError:
            raise Refused(
                f"The input {parameter.name} is {text!r}, which is not of type {kind.__name__}.",
                f"Correct it: --input {parameter.name}=1",
            ) from None
    if kind is str:
        return text
    if path or "://" in text:
        from azure.ai.ml import Input

        return Input(type="uri_file" if path and os.path.isfile(path) else "uri_folder", path=path or text)
    try:
        return json.loads(text)
    except ValueError:
        return text


def _failure(error: BaseException) -> dict[str, Any]:
    """A description of an error, with the user's own lines of its traceback, the innermost one first."""
    frames = [one for one in traceback.extract_tb(error.__traceback__) if _own(one.filename)][::-1]
    file, line = (frames[0].filename, frames[0].lineno) if frames else (None, None)
    if isinstance(error, SyntaxError) and error.filename:
        file, line = error.filename, error.lineno
    try:
        text = " ".join(str(error).split())
    except Exception:  # some errors of the SDK cannot be converted to text
        text = ""
    return {
        "type": type(error).__name__,
        "message": text[:1000],
        "module": getattr(error, "name", None) if isinstance(error, ImportError) else None,
        "file": file,
        "line": line,
        "frames": [[one.filename, one.lineno, one.name, one.line or ""] for one in frames[:30]],
    }


if __name__ == "__main__":
    main(sys.argv[1])
