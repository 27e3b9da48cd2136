"""Pipelines written in Python: ``make_pipeline.py:FUNCTION``, built with the installed SDK and without a workspace.

The function has ``@pipeline`` of azure-ai-ml, or returns the result of such a function, SDK v1's Pipeline, or the steps
for one. It runs in a separate process, in the folder of its file. What the SDK would send is then read like a YAML
file, with the user's own lines as places:
https://learn.microsoft.com/azure/machine-learning/how-to-create-component-pipeline-python
"""

from __future__ import annotations

import ast
import contextlib
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..errors import UserError
from ..paths import shown
from ..reading import read_text
from ..redaction import scrub
from .yaml_file import Value

#: Seconds for the import of the SDK and for the user's code.
BUILD_SECONDS = 300
#: How many lines of the code's output are shown if it fails.
_SHOWN_LINES = 15
_NAMED = re.compile(r"(?P<file>.+\.py)(?::(?P<function>[A-Za-z_]\w*))?")
#: The SDK writes the prefix before the name of registered data, and also before a path.
_REGISTERED = re.compile(r"azureml:(?P<path>\.{0,2}/.*|\.{1,2}|[^:@]+)")
_CHECK_CODE = "import importlib.util as u, sys; sys.exit(any(u.find_spec(name) is None for name in sys.argv[1:]))"
#: The packages that a Python needs, each after its parent: for SDK v2 and for v1.
_V2, _V1 = ("azure", "azure.ai", "azure.ai.ml"), ("azureml", "azureml.core", "azureml.pipeline.steps")
#: Imports that only a file for SDK v1 has.
_WRITTEN_WITH_V1 = re.compile(r"^\s*(?:from|import)\s+azureml\.(?:core|pipeline|data)\b", re.MULTILINE)


@dataclass(frozen=True)
class PythonPipeline:
    """A Python file and a function in it.

    Attributes:
        file: The Python file.
        function: The function that returns the pipeline; empty if none is named.
    """

    file: Path
    function: str


def parse_place(place: Path) -> PythonPipeline | None:
    """Parse the file and the function from a path; None if it is another kind of file."""
    match = _NAMED.fullmatch(str(place))
    return PythonPipeline(Path(match["file"]), match["function"] or "") if match is not None else None


def build(asked: PythonPipeline, inputs: Mapping[str, str]) -> tuple[Value, dict[str, str]]:
    """Build a pipeline.

    Args:
        asked: The file and the function.
        inputs: As of :func:`.reader.load_pipeline`; the function is called with those that are its parameters.

    Returns:
        The content of a pipeline file, and the inputs that the function has not used. The places are the Python lines
        that have created each step, otherwise that of the function.

    Raises:
        UserError: There is no such file, function or SDK, or the user's code fails; with its own line.
    """
    if not asked.file.is_file():
        raise UserError(f"The file {shown(asked.file)} does not exist.", "Correct --pipeline-file (AML_PIPELINE_FILE).")
    if not asked.function:
        there = [f"{shown(asked.file)}:{name}" for name in _functions(asked.file)]
        remedy = f"Name the function that gives it: {', '.join(there)}" if there else "Write one that returns it."
        raise UserError(f"{shown(asked.file)} is Python, and a pipeline in it is given by a function.", remedy)
    first = _WRITTEN_WITH_V1.search(read_text(asked.file, errors="replace")) is not None
    python = _python(first)
    with tempfile.TemporaryDirectory(prefix="azureml-debug-") as folder:
        answer = _run_builder(python, asked, inputs, Path(folder), first)
    if "refused" in answer:
        file, line = answer["place"] or (asked.file, _own_lines(asked)[0])
        raise UserError(*answer["refused"], file=shown(Path(file)), line=line or None)
    if "failed" in answer:
        raise _build_error(asked, answer["failed"])
    job = normalize_job(answer["job"], asked.file.parent)
    job.setdefault("display_name", asked.function)
    left = {name: text for name, text in inputs.items() if name not in answer["used"]}
    return _with_places(asked, job, answer["places"]), left


def _own_lines(asked: PythonPipeline) -> tuple[int, dict[str, int]]:
    """The line that defines the function or variable, 0 if there is none, and the lines of its parameters."""
    try:
        tree = ast.parse(read_text(asked.file, errors="replace"))
    except (SyntaxError, ValueError, RecursionError):
        return 0, {}
    line, parameters = 0, dict[str, int]()
    for node in tree.body:
        if isinstance(node, ast.FunctionDef) and node.name == asked.function:
            line = node.lineno
            own = (*node.args.posonlyargs, *node.args.args, *node.args.kwonlyargs)
            parameters = {one.arg: one.lineno for one in own}
        elif isinstance(node, ast.Assign):
            names = [one.id for one in node.targets if isinstance(one, ast.Name)]
            line = node.lineno if asked.function in names else line
    return line, parameters


def _with_places(asked: PythonPipeline, job: Mapping[str, Any], places: Mapping[str, tuple[str, int]]) -> Value:
    """A job as read from a file, with the user's line that has created each part as its place."""
    whole, parameters = _own_lines(asked)

    def made(data: Any, file: Path, line: int) -> Value:
        if isinstance(data, dict):
            return Value({str(key): made(one, file, line) for key, one in data.items()}, file, line)
        if isinstance(data, list):
            return Value([made(one, file, line) for one in data], file, line)
        return Value(data, file, line)

    def pipeline(data: Mapping[str, Any], outer: str, file: Path, line: int) -> Value:
        found = {key: made(one, file, line) for key, one in data.items() if key != "jobs"}
        jobs = dict[str, Value]()
        for name, node in (data.get("jobs") or {}).items():
            place, own = places.get(outer + name, (str(file), line))
            jobs[name] = made(node, Path(place), own)
            component = node.get("component") if isinstance(node, dict) else None
            if isinstance(component, dict) and component.get("jobs"):
                jobs[name].data["component"] = pipeline(component, f"{outer}{name}.", Path(place), own)
        return Value({**found, "jobs": Value(jobs, file, line)}, file, line)

    root = pipeline(job, "", asked.file, whole)
    inputs = root.get("inputs")
    for name in inputs.data if inputs is not None and inputs.is_mapping else ():
        assert inputs is not None
        inputs.data[name] = made(inputs.data[name].plain(), asked.file, parameters.get(name, whole))
    return root


def _functions(file: Path) -> list[str]:
    """The functions of a file that may return a pipeline: those with a decorator for it, otherwise all."""
    try:
        tree = ast.parse(read_text(file, errors="replace"))
    except (SyntaxError, ValueError, RecursionError):
        return []
    found = [node for node in tree.body if isinstance(node, ast.FunctionDef) and not node.name.startswith("_")]
    decorated = [node for node in found if any("pipeline" in ast.dump(one) for one in node.decorator_list)]
    return [node.name for node in decorated or found][:5]


def _python(first: bool) -> str:
    """Find a Python that has the SDK: this one, otherwise the one that a shell would start.

    Args:
        first: Whether SDK v1 is needed.

    Raises:
        UserError: None has it.
    """
    found = [sys.executable, *filter(None, map(shutil.which, ("python", "python3")))]
    for python in dict.fromkeys(found):
        with contextlib.suppress(OSError, subprocess.TimeoutExpired):
            asking = [python, "-c", _CHECK_CODE, *(_V1 if first else _V2)]
            if subprocess.run(asking, capture_output=True, timeout=60, check=False).returncode == 0:
                return python
    if first:
        raise UserError(
            "This pipeline is written with SDK v1, and azureml-pipeline-steps is not installed.",
            "Install it (pip install azureml-core azureml-pipeline-steps), or name a pipeline file of YAML.",
        )
    raise UserError(
        "A pipeline written in Python is built with azure-ai-ml, which is not installed.",
        "Install it (pip install azure-ai-ml), or name a pipeline file of YAML.",
    )


def _run_builder(
    python: str, asked: PythonPipeline, inputs: Mapping[str, str], folder: Path, first: bool
) -> dict[str, Any]:
    """Run the process that builds the pipeline; returns its answer."""
    told, answer, said = folder / "told.json", folder / "answer.json", folder / "said"
    given = {
        name: {"text": text, "path": os.path.abspath(text) if text and Path(text).exists() else ""}
        for name, text in inputs.items()
    }
    asking = {"file": str(asked.file), "function": asked.function, "inputs": given, "v1": first}
    told.write_text(json.dumps({**asking, "answer": str(answer)}), "utf-8")
    command = [python, str(Path(__file__).with_name("build_in_python.py")), str(told)]
    # The output goes to a file, so that a process which it leaves running does not block this command.
    with said.open("wb") as stream:
        try:
            done = subprocess.run(
                command,
                cwd=asked.file.parent,
                stdin=subprocess.DEVNULL,
                stdout=stream,
                stderr=stream,
                timeout=BUILD_SECONDS,
                check=False,
            )
        except subprocess.TimeoutExpired:
            raise UserError(
                f"{asked.function} has not returned a pipeline after {BUILD_SECONDS} s.",
                "See what it waits for; it must build the pipeline, not submit it.",
                file=shown(asked.file),
                details=_last_lines(said),
            ) from None
    try:
        value: dict[str, Any] = json.loads(answer.read_text("utf-8"))
    except (OSError, ValueError):
        raise UserError(
            f"The Python that builds the pipeline has ended with {done.returncode} before {asked.function} was done.",
            "See its output; the function must not end the process.",
            file=shown(asked.file),
            details=_last_lines(said),
        ) from None
    return value


def _last_lines(said: Path) -> list[str]:
    return [scrub(line) for line in said.read_text("utf-8", "replace").splitlines()[-_SHOWN_LINES:]]


def _build_error(asked: PythonPipeline, failure: Mapping[str, Any]) -> UserError:
    file, line = Path(failure["file"] or asked.file), failure["line"] or _own_lines(asked)[0]
    module = failure["module"]
    remedy = "Correct it, then run the same command again."
    if module:
        remedy = f"Install {module} where Azure ML's SDK is, or correct the import."
    return UserError(
        scrub(f"{asked.function} fails: {failure['type']}: {failure['message']}".rstrip(": ")),
        remedy,
        file=shown(file),
        line=line or None,
        # A single frame is already in the message.
        details=[_frame(*frame) for frame in failure["frames"][:_SHOWN_LINES] if failure["frames"][1:]],
    )


def _frame(file: str, line: int, function: str, text: str) -> str:
    return scrub(f"{shown(Path(file))}:{line} in {function}: {text}".rstrip(": "))


def normalize_job(job: Any, folder: Path) -> Any:
    """Convert what the SDK would send to the form of a written file: absolute paths, and references as texts.

    Args:
        job: The mapping.
        folder: The folder that its relative paths are relative to.
    """
    if isinstance(job, list):
        return [normalize_job(one, folder) for one in job]
    if not isinstance(job, dict):
        return job
    if isinstance(job.get("path"), str) and job["path"].startswith("${{") and set(job) <= {"path", "type"}:
        return job["path"]
    found = {key: normalize_job(value, folder) for key, value in job.items()}
    if isinstance(found.get("path"), str):
        found["path"] = _path(found["path"], folder)
    for key in ("code", "component", "trial"):
        if isinstance(found.get(key), str):
            found[key] = _path(found[key], folder)
    if isinstance(component := found.get("component"), dict) and "environment_variables" in found:
        # The SDK has them twice.
        component.pop("environment_variables", None)
    environment = found.get("environment")
    if isinstance(environment, dict) and isinstance(environment.get("conda_file"), str):
        environment["conda_file"] = _path(environment["conda_file"], folder)
    return found


def _path(text: str, folder: Path) -> str:
    """A path made absolute if it exists; any other text unchanged."""
    match = _REGISTERED.fullmatch(text)
    name = match["path"] if match else text
    if "://" in name or name.startswith("${{"):
        return text
    place = os.path.normpath(folder / name)
    return place if os.path.exists(place) or name.startswith(("./", "../", "/")) else text
