"""Converts pipelines written with SDK v1 (azureml-pipeline-steps) to pipeline jobs as in YAML files.

build_in_python.py loads this in the user's own Python, and it imports nothing of the program. SDK v1 makes steps
without a workspace, but a Pipeline only with one. Here a Pipeline keeps the steps that it is given, and a workspace is
a stand-in that only knows names. Data in a workspace, such as a registered dataset, becomes an input without a value.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

#: Texts with which the SDK represents inputs and outputs in a step's arguments.
_PLACES = re.compile(r"\$AZUREML_DATAREFERENCE_\w+|DatasetOutputConfig:\S+|DatasetConsumptionConfig:\S+")


class NotOffline(Exception):
    """A step of a kind that cannot be built without a workspace.

    Args:
        problem: The message for the user.
        step: The step.
    """

    def __init__(self, problem: str, step: Any) -> None:
        super().__init__(problem)
        self.step = step


class Elsewhere:
    """A stand-in for something in a workspace, of which only the name is known.

    Args:
        name: Its name.
    """

    def __init__(self, name: str) -> None:
        self.name = name

    def __getattr__(self, name: str) -> Elsewhere:
        if name.startswith("__"):
            raise AttributeError(name)
        return Elsewhere(self.name)

    def __getitem__(self, name: str) -> Elsewhere:
        return Elsewhere(str(name))

    def __contains__(self, name: str) -> bool:
        return True

    def __call__(self, *arguments: Any, **named: Any) -> Elsewhere:
        """A method's result is also something in a workspace, named by the method's first text argument."""
        first = next((one for one in (*arguments, *named.values()) if isinstance(one, str)), None)
        return Elsewhere(first or self.name)


class Recorded:
    """Replaces the SDK's Pipeline, and keeps its steps."""

    def __init__(self, workspace: Any = None, steps: Iterable[Any] = (), description: Any = None, **_: Any) -> None:
        self.steps, self.description = steps, description

    def validate(self) -> list[Any]:
        """Return no errors: the pipeline is checked when it is read."""
        return []


def prepare() -> None:
    """Replace parts of the SDK so that the user's code works without a workspace."""
    from azureml import core  # type: ignore[import-not-found,unused-ignore]
    from azureml.pipeline import core as pipelines  # type: ignore[import-not-found,unused-ignore]

    pipelines.Pipeline = Recorded
    workspace = Elsewhere("workspace")
    core.Workspace = type("Workspace", (), {name: staticmethod(lambda *_, **__: workspace) for name in _GETTERS})
    for name in ("Dataset", "Datastore", "Model"):
        setattr(core, name, Elsewhere(name.lower()))
    core.Environment.get = staticmethod(_environment)


_GETTERS = ("from_config", "get", "setup")


def _environment(workspace: Any, name: str, version: Any = None, label: Any = None) -> Any:
    from azureml.core import Environment

    found = Environment(name)
    found.registered = f"azureml:{name}:{version}" if version else f"azureml:{name}@{label or 'latest'}"
    return found


def steps_in(found: Any) -> list[Any]:
    """The steps in what a function has returned; none if it is something else."""
    if isinstance(found, Recorded):
        found = found.steps
    if hasattr(found, "step_type"):
        return [found]
    if isinstance(found, (list, tuple)) and found:
        flat = [one for each in found for one in (each if isinstance(each, (list, tuple)) else [each])]
        return flat if all(hasattr(one, "step_type") for one in flat) else []
    return []


def named(last: list[Any]) -> dict[str, Any]:
    """Steps and the steps that they need, in order, by names that are valid in a job file.

    Args:
        last: The steps.
    """
    steps = list(_with_needed(last))
    return dict(zip(_names(steps), steps, strict=True))


def job_of(found: Mapping[str, Any], name: str) -> dict[str, Any]:
    """A pipeline job.

    Args:
        found: Its steps; see :func:`named`.
        name: Its display name.

    Raises:
        NotOffline: A step does not run a Python script.
    """
    steps = list(found.values())
    for step in steps:
        if not isinstance(getattr(step, "_script_name", None), str):
            kind = type(step).__name__
            raise NotOffline(f"The step {step.name} is a {kind}: steps of Python scripts are built here.", step)
    names = {id(step): key for key, step in found.items()}
    makers = {id(_source(one)): (names[id(step)], _output_name(one)) for step in steps for one in step._outputs}
    parameters = {one.name: one.default_value for step in steps for one in _parameters(step)}
    jobs = {names[id(step)]: _job(step, makers) for step in steps}
    for step in steps:
        # An order without data. A job file can only express it with an output and an input.
        for other in (names[id(one)] for one in step.run_after_steps):
            jobs[other]["outputs"]["done"] = {"type": "uri_folder"}
            jobs[names[id(step)]]["inputs"][f"after_{other}"] = f"${{{{parent.jobs.{other}.outputs.done}}}}"
    inputs = {name: value for name, value in parameters.items() if isinstance(value, (str, int, float, bool))}
    return {
        "type": "pipeline",
        "display_name": name,
        "inputs": {**inputs, **{one: {"type": "string", "optional": True} for one in set(parameters) - set(inputs)}},
        "jobs": jobs,
    }


def _with_needed(last: list[Any]) -> Iterator[Any]:
    """The steps and those that they need, each after the steps whose outputs it uses."""
    done: set[int] = set()
    for step in last:
        yield from _needed(step, {id(_source(o)): s for s in _all(last) for o in s._outputs}, done)


def _all(last: list[Any]) -> list[Any]:
    found, waiting = [], list(last)
    while waiting:
        step = waiting.pop()
        if step in found:
            continue
        found.append(step)
        waiting += step.run_after_steps
        waiting += [maker for one in step._inputs if (maker := getattr(_source(one), "_producer", None)) is not None]
    return found


def _needed(step: Any, makers: Mapping[int, Any], done: set[int]) -> Iterator[Any]:
    if id(step) in done:
        return
    done.add(id(step))
    for other in [*step.run_after_steps, *(makers.get(id(_source(one))) for one in step._inputs)]:
        if other is not None:
            yield from _needed(other, makers, done)
    yield step


def _names(steps: list[Any]) -> list[str]:
    found: list[str] = []
    for step in steps:
        name = re.sub(r"\W+", "_", str(step.name), flags=re.ASCII).strip("_") or "step"
        number = 2
        while name in found:
            name, number = f"{re.sub(r'_[0-9]+$', '', name)}_{number}", number + 1
        found.append(name)
    return found


def _source(entry: Any) -> Any:
    """The data object inside an input or output of a step."""
    for attribute in ("dataset", "bind_object", "_bind_object"):
        inner = getattr(entry, attribute, None) if not isinstance(entry, Elsewhere) else None
        if inner is not None:
            return _source(inner)
    return entry


def _name(entry: Any, prefix: str) -> str:
    for attribute in ("_name", "name", "data_reference_name"):
        value = getattr(entry, attribute, None)
        if isinstance(value, str) and value:
            return re.sub(r"\W+", "_", value, flags=re.ASCII)
    return prefix


def _output_name(entry: Any) -> str:
    return _name(_source(entry), "output")


def _parameters(step: Any) -> list[Any]:
    return [one for one in [*step._arguments, *step._params.values()] if type(one).__name__ == "PipelineParameter"]


def _job(step: Any, makers: Mapping[int, tuple[str, str]]) -> dict[str, Any]:
    inputs: dict[str, Any] = {}
    outputs: dict[str, Any] = {}
    words: dict[str, str] = {}
    for entry in step._outputs:
        name = _output_name(entry)
        outputs[name] = {"type": "uri_folder"}
        words[str(getattr(entry, "arg_val", entry))] = f"${{{{outputs.{name}}}}}"
    for entry in step._inputs:
        name = _name(entry, f"input{len(inputs) + 1}")
        made = makers.get(id(_source(entry)))
        inputs[name] = f"${{{{parent.jobs.{made[0]}.outputs.{made[1]}}}}}" if made else {"type": "uri_folder"}
        words[str(getattr(entry, "arg_val", entry))] = f"${{{{inputs.{name}}}}}"
    command = [_word(one, words, inputs) for one in step._arguments]
    configuration = step._runconfig
    found: dict[str, Any] = {
        "type": "command",
        "code": str(step._source_directory or "."),
        "command": " ".join(["python", shlex.quote(step._script_name), *command]),
        "inputs": inputs,
        "outputs": outputs,
        "environment": _definition(configuration),
    }
    if isinstance(compute := getattr(step._compute_target, "name", step._compute_target), str):
        found["compute"] = f"azureml:{compute}"
    if configuration is not None:
        found.update(_settings(configuration))
    return found


def _word(one: Any, words: Mapping[str, str], inputs: dict[str, Any]) -> str:
    """An argument of a step as a word of a shell command."""
    if type(one).__name__ == "PipelineParameter":
        inputs[one.name] = f"${{{{parent.inputs.{one.name}}}}}"
        return f"${{{{inputs.{one.name}}}}}"
    text = str(getattr(one, "arg_val", one))
    if text in words:
        return words[text]
    if isinstance(one, Elsewhere) or _PLACES.fullmatch(text) or not isinstance(one, (str, int, float, bool)):
        name = _name(one, f"input{len(inputs) + 1}")
        inputs[name] = {"type": "uri_folder"}
        return f"${{{{inputs.{name}}}}}"
    return shlex.quote(text)


def _definition(configuration: Any) -> Any:
    """The environment of a run configuration, in the form of a job file."""
    environment = getattr(configuration, "environment", None)
    if environment is None:
        return "azureml:default@latest"
    registered = getattr(environment, "registered", None)
    if registered:
        return registered
    python, docker = environment.python, environment.docker
    found: dict[str, Any] = {}
    if docker.base_image:
        found["image"] = docker.base_image
    if not python.user_managed_dependencies and python.conda_dependencies is not None:
        found["conda_file"] = _conda(python.conda_dependencies.as_dict())
    return found or f"azureml:{environment.name}@latest"


def _conda(content: dict[str, Any]) -> dict[str, Any]:
    """A conda file's content without the SDK's own index options, which would override the user's package index."""
    kept: list[Any] = []
    for one in content.get("dependencies", ()):
        if isinstance(one, dict):
            one = {"pip": [line for line in one.get("pip", ()) if "pypi.python.org/simple" not in line]}
        kept.append(one)
    return {**content, "dependencies": kept}


def _settings(configuration: Any) -> dict[str, Any]:
    """Environment variables, instances and processes of a run configuration."""
    found: dict[str, Any] = {}
    variables = {
        **(configuration.environment.environment_variables or {}),
        **(configuration.environment_variables or {}),
    }
    variables.pop("EXAMPLE_ENV_VAR", None)
    if variables:
        found["environment_variables"] = {key: str(value) for key, value in variables.items()}
    nodes, communicator = int(configuration.node_count or 1), str(configuration.communicator or "").lower()
    if nodes > 1:
        found["resources"] = {"instance_count": nodes}
    if "mpi" in communicator:
        processes = int(configuration.mpi.process_count_per_node or 1)
        found["distribution"] = {"type": "mpi", "process_count_per_instance": processes}
    elif communicator in ("nccl", "gloo") or str(configuration.framework or "").lower() == "pytorch":
        total = int(getattr(configuration.pytorch, "process_count", None) or nodes)
        found["distribution"] = {"type": "pytorch", "process_count_per_instance": max(1, total // nodes)}
    return found
