"""Loads a job file with azure-ai-ml: its steps as this program's steps, and the SDK's own job behind them.

The workspace also runs jobs that this program could not run itself: nothing that the SDK accepts is refused here.
"""

from __future__ import annotations

import io
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from ...assets.kinds import COMPONENTS, SCHEDULE, kind_of
from ...errors import UserError
from ...paths import shown
from ...pipelines import python_file
from ...pipelines.definition import Pipeline, Step
from ...pipelines.root import run_name
from ...pipelines.yaml_file import Value, read_yaml
from . import validation
from .input_values import set_inputs
from .ports import with_ports
from .sdk_module import quiet
from .selection import Selection

if TYPE_CHECKING:
    from ...flows.pipeline import Wanted

#: The kind of a step that only the workspace can run.
OTHER = "other"
_DISTRIBUTIONS = ("pytorch", "mpi", "tensorflow")
#: Prefixes of code that is not on this machine.
_ELSEWHERE = ("azureml:", "git+", "git://", "http://", "https://")


@dataclass(frozen=True)
class LoadedJob(Pipeline):
    """A job file that the SDK has loaded.

    Attributes:
        job: The SDK's job.
        nodes: The SDK's nodes of the steps that can be debugged, by name. A single job is its own node.
        undebugged: Why the other steps cannot be debugged, by name.
        experiment: The experiment that it is a run of; empty for a pipeline.
        shown: The experiment's command as it is displayed.
        needs_compute: Whether it needs a compute target.
        whole: The same job before steps were left out.
    """

    job: Any = field(default=None, compare=False, repr=False)
    nodes: Mapping[str, Any] = field(default_factory=dict, compare=False, repr=False)
    undebugged: Mapping[str, str] = field(default_factory=dict)
    experiment: str = ""
    shown: str = ""
    needs_compute: bool = False
    whole: Pipeline | None = field(default=None, compare=False, repr=False)

    def with_steps(self, steps: Sequence[Step]) -> Pipeline:
        """See :class:`Pipeline`. The code of the steps is set in the SDK's nodes, too."""
        for step in steps:
            node = self.nodes.get(step.name)
            if node is not None and step.code is not None:
                component_of(node).code = str(step.code)
        return replace(self, steps=tuple(steps))

    @property
    def single(self) -> bool:
        """Whether it is a single job rather than a pipeline."""
        return is_single(self.job)


def load(file: Path, project: Path, sdk: Any, wanted: Wanted, compute: str | None = None) -> LoadedJob:
    """Load the wanted part of a file, and raise the SDK's errors; see :func:`load_and_check`."""
    found, error = load_and_check(file, project, sdk, wanted, compute)
    if error is not None:
        raise error
    return found


def load_and_check(
    file: Path, project: Path, sdk: Any, wanted: Wanted, compute: str | None = None
) -> tuple[LoadedJob, UserError | None]:
    """Load the wanted part of a file; returns it with the SDK's error for it.

    Args:
        file: The pipeline, job, component or schedule; or ``FILE.py:FUNCTION``, which makes a pipeline.
        project: The project's folder.
        sdk: The module ``azure.ai.ml``.
        wanted: The steps and inputs that are wanted.
        compute: The compute target for steps of which the file names none.

    Raises:
        UserError: It cannot be read at all; with the line.
    """
    file = Path(os.path.abspath(file))
    inputs, source = dict(wanted.inputs), None
    if (in_python := python_file.parse_place(file)) is not None:
        root, inputs = python_file.build(in_python, inputs)
        source = io.StringIO(yaml.safe_dump(root.plain(), sort_keys=False))
    else:
        root = read_yaml(file, "pipeline file")
    with validation.explain_errors(root, file, project), quiet():
        job = _load(file, root, sdk, source)
    name = run_name(root, file)
    whole = describe_job(job, name, file)
    selection = Selection(job, whole)
    asked = selection.choose(wanted.only, wanted.skip)
    # Outputs that are taken over from another run need not all be used by the remaining steps.
    set_inputs(job, inputs, selection.removed, wanted.taken.outputs if wanted.taken is not None else ())
    _name_compute(job, compute)
    loaded = replace(describe_job(job, name, file), asked=asked, whole=whole)
    try:
        with quiet():
            validation.check(job, root)
    except UserError as error:
        return loaded, error
    return loaded, None


def _load(file: Path, root: Value, sdk: Any, source: io.StringIO | None) -> Any:
    if source is not None:
        return sdk.load_job(source, relative_origin=str(file))
    kind = kind_of(root)
    if kind is SCHEDULE:
        return _scheduled(file)
    if kind not in COMPONENTS:
        return sdk.load_job(str(file))
    from azure.ai.ml.entities import PipelineJob

    # A component alone is a pipeline of one step.
    component = sdk.load_component(str(file))
    name = file.stem if file.stem.isidentifier() else "step"
    return PipelineJob(jobs={name: component()})


def _scheduled(file: Path) -> Any:
    """The job that a schedule starts."""
    # The package itself exports all of these functions except this one.
    from azure.ai.ml.entities._load_functions import load_schedule

    job = load_schedule(str(file)).create_job
    if isinstance(job, str):
        raise UserError(
            f"{shown(file)} schedules {job}, whose definition is not here.",
            "Name the file of that job.",
            file=shown(file),
        )
    return job


def _name_compute(job: Any, compute: str | None) -> None:
    """Set the compute target of a job whose file names none."""
    holder, name = (job, "compute") if is_single(job) else (job.settings, "default_compute")
    if compute and holder is not None and not getattr(holder, name, None):
        setattr(holder, name, compute)


def describe_job(job: Any, name: str, file: Path) -> LoadedJob:
    """A job of the SDK with its steps as this program's steps.

    Args:
        job: The job.
        name: Its name, from which runs are named.
        file: Its file.
    """
    steps, nodes, undebugged = [], {}, {}
    for step, node in [(name, job)] if is_single(job) else _leaves(job.jobs):
        reason = _why_not(node)
        if reason:
            undebugged[step] = reason
            found = Step(step, "", None, None, file, 1, kind=OTHER)
        else:
            nodes[step] = node
            found = _command_step(step, node, file)
        steps.append(found if is_single(job) else with_ports(found, node, job.inputs, file.parent))
    return LoadedJob(name, file, tuple(steps), job=job, nodes=nodes, undebugged=undebugged)


def is_single(job: Any) -> bool:
    """Whether a job of the SDK is a single job rather than a pipeline."""
    return bool(job.type != "pipeline")


def component_of(node: Any) -> Any:
    """The object with a node's code and command: its component, or the job itself where it is a single job."""
    component = getattr(node, "component", None)
    return component if component is not None and not isinstance(component, str) else node


def code_holders(loaded: LoadedJob) -> Iterator[tuple[str, Any, Any]]:
    """Name, node and code holder of each step that is defined on this machine, debugged or not."""
    job = loaded.job
    for name, node in [(loaded.steps[0].name, job)] if is_single(job) else _leaves(job.jobs):
        # An AutoML job has no code.
        if node.type not in ("command", "parallel", "spark", "sweep"):
            continue
        holder = node.trial if node.type == "sweep" else getattr(node, "component", None) or node
        if not isinstance(holder, str):
            yield name, node, holder


def _leaves(jobs: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Every step. The name of a step of a nested pipeline begins with the nested pipeline's name."""
    for name, node in jobs.items():
        inner = getattr(getattr(node, "component", None), "jobs", None)
        if node.type == "pipeline" and inner:
            yield from _leaves(inner, f"{prefix}{name}.")
        else:
            yield prefix + name, node


def _why_not(node: Any) -> str:
    """Why a step cannot be debugged; empty where it can."""
    if node.type != "command":
        return f"it is of type {node.type}"
    if isinstance(getattr(node, "component", None), str):
        return f"its component {node.component} is not on this machine"
    holder = component_of(node)
    if not isinstance(holder.command, str) or not holder.command.strip():
        return "it has no command"
    code = _code_text(holder)
    if code.startswith(_ELSEWHERE):
        return f"its code {code} is not on this machine"
    if any(not isinstance(one, str) for one in _includes_of(holder)):
        return "its code includes a package of a feed"
    return ""


def _code_text(holder: Any) -> str:
    return str(holder.code) if getattr(holder, "code", None) else ""


def _includes_of(holder: Any) -> list[Any]:
    return list(getattr(holder, "additional_includes", None) or [])


def _command_step(name: str, node: Any, file: Path) -> Step:
    holder = component_of(node)
    base = Path(getattr(holder, "base_path", None) or file.parent)
    code = _code_text(holder)
    source = getattr(holder, "_source_path", None)
    distribution = getattr(node, "distribution", None) or getattr(holder, "distribution", None)
    kind = str(_value(distribution, "type") or "").lower()
    resources = getattr(node, "resources", None) or getattr(holder, "resources", None)
    instances = _count(_value(resources, "instance_count"))
    processes = _count(_value(distribution, "process_count_per_instance")) if kind != "tensorflow" else 1
    world = 0
    if kind == "tensorflow":
        world = _count(_value(distribution, "worker_count"), instances)
        world += _count(_value(distribution, "parameter_server_count"), 0)
        processes = max(1, -(-world // instances))
    compute = getattr(node, "compute", None)
    return Step(
        name=name,
        command=holder.command,
        code=Path(os.path.abspath(base / code)) if code else None,
        environment=None,
        file=Path(source) if source else file,
        line=1,
        distribution=kind if kind in _DISTRIBUTIONS else "",
        processes=processes if kind in _DISTRIBUTIONS else 1,
        instances=instances if kind in _DISTRIBUTIONS else 1,
        world=world,
        includes=tuple(Path(os.path.abspath(base / one)) for one in _includes_of(holder)),
        compute=str(compute).removeprefix("azureml:") if isinstance(compute, str) else "",
    )


def _value(holder: Any, name: str) -> Any:
    return holder.get(name) if isinstance(holder, Mapping) else getattr(holder, name, None)


def _count(value: Any, default: int = 1) -> int:
    """A number of processes or nodes; an expression, which only the service can evaluate, counts as the default."""
    try:
        return max(0 if default == 0 else 1, int(value))
    except (TypeError, ValueError):
        return default
