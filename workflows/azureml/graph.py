"""Builds a pipeline of SDK v1: Python script steps, connected by data references and pipeline data.

It uses only azureml-core and azureml-pipeline-core. The latter contains the class for Python script steps under a
private name; azureml-pipeline-steps, which has the public name, installs 324 MB of further packages.
"""

from __future__ import annotations

import contextlib
import hashlib
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from ..errors import UserError
from .cloud_pipeline import CloudEnvironment, CloudInput, CloudPipeline, CloudStep
from .submission_records import compute_not_found

_DATASTORE = re.compile(
    r"azureml://(?:subscriptions/[^/]+/resourcegroups/[^/]+/(?:providers/[^/]+/)?workspaces/[^/]+/)?"
    r"datastores/(?P<store>[^/]+)/paths/(?P<path>.*)",
    re.IGNORECASE,
)
_UPLOADS = 8


def prepare(workspace: Any, pipeline: CloudPipeline, report: Callable[[str], None]) -> Any:
    """Upload the steps' inputs and make the SDK's pipeline. It can be called again after an error.

    Args:
        workspace: The SDK's workspace.
        pipeline: What to run.
        report: Called with each line of progress.

    Raises:
        UserError: A compute target, an environment, a datastore or data does not exist.
    """
    from azureml.pipeline.core import Pipeline

    _check_computes(workspace, pipeline)
    graph = _Graph(workspace, pipeline, report)
    steps = [graph.step(step) for step in pipeline.steps]
    report("snapshots")
    return Pipeline(workspace, steps)


def start(workspace: Any, pipeline: CloudPipeline, made: Any) -> tuple[str, str]:
    """Start a run of the pipeline that :func:`prepare` has made.

    Returns:
        The run's id, and its page in the studio.
    """
    from azureml.core import Experiment

    run = Experiment(workspace, pipeline.experiment).submit(made, continue_on_step_failure=pipeline.continue_on_failure)
    # The tag only helps to find the run in the studio.
    with contextlib.suppress(Exception):
        run.set_tags(dict(pipeline.tags))
    return str(run.id), str(run.get_portal_url())


def _check_computes(workspace: Any, pipeline: CloudPipeline) -> None:
    """Check that every compute target exists, before anything is uploaded."""
    known = {name.lower(): compute for name, compute in workspace.compute_targets.items()}
    for step in pipeline.steps:
        if step.compute.lower() not in known:
            names = [f"{compute.name} ({compute.type})" for compute in known.values()]
            raise compute_not_found(step.compute, names, step.name, step.file, step.line)


class _Graph:
    """Builds the steps of one pipeline."""

    def __init__(self, workspace: Any, pipeline: CloudPipeline, report: Callable[[str], None]) -> None:
        self._workspace, self._pipeline, self._report = workspace, pipeline, report
        self._store = workspace.get_default_datastore()
        self._environments: dict[str, Any] = {}
        self._uploaded: dict[Path, str] = {}
        self._outputs: dict[tuple[str, str], Any] = {}
        self._steps: dict[str, Any] = {}
        # Environments are resolved before anything is uploaded: the workspace may not have one of them.
        for step in pipeline.steps:
            self._environment(step)

    def step(self, step: CloudStep) -> Any:
        """Build one step and its data. The steps that it depends on have to be built before."""
        from azureml.pipeline.core import PipelineData
        from azureml.pipeline.core._python_script_step_base import _PythonScriptStepBase

        arguments: list[Any] = []
        inputs, outputs = [], []
        for name, entry in step.inputs.items():
            value = self._input(step, name, entry)
            inputs.append(value)
            arguments += [f"inputs.{name}", value]
        for name in step.outputs:
            data = PipelineData(port_name(f"{step.name}_{name}"), datastore=self._store)
            self._outputs[step.name, name] = data
            outputs.append(data)
            arguments += [f"outputs.{name}", data]
        made = _PythonScriptStepBase(
            name=step.name,
            script_name=step.script,
            source_directory=str(step.source),
            arguments=arguments,
            inputs=inputs,
            outputs=outputs,
            compute_target=step.compute,
            runconfig=self._configuration(step),
            allow_reuse=step.reuse,
        )
        for before in step.after:
            made.run_after(self._steps[before])
        self._steps[step.name] = made
        return made

    def _configuration(self, step: CloudStep) -> Any:
        from azureml.core.runconfig import DockerConfiguration, RunConfiguration

        made = RunConfiguration()
        made.target, made.node_count = step.compute, step.nodes
        made.environment = self._environment(step)
        made.docker = DockerConfiguration(use_docker=True, **({"shm_size": step.shm_size} if step.shm_size else {}))
        if step.distribution == "mpi":
            made.communicator = "OpenMpi"
            made.mpi.process_count_per_node = step.processes
        elif step.distribution == "pytorch":
            from azureml.core.runconfig import PyTorchConfiguration

            # The script chooses the communication backend; the service only sets the variables.
            made.framework, made.communicator = "PyTorch", "Gloo"
            made.pytorch = PyTorchConfiguration("Gloo", step.processes * step.nodes, step.nodes)
        elif step.distribution == "tensorflow":
            from azureml.core.runconfig import TensorflowConfiguration

            made.framework, made.communicator = "TensorFlow", "ParameterServer"
            made.tensorflow = TensorflowConfiguration(worker_count=step.processes * step.nodes)
        return made

    def _environment(self, step: CloudStep) -> Any:
        wanted = step.environment
        if wanted.name not in self._environments:
            self._environments[wanted.name] = make_environment(self._workspace, wanted, step)
        return self._environments[wanted.name]

    # Data

    def _input(self, step: CloudStep, name: str, entry: CloudInput) -> Any:
        from azureml.data.data_reference import DataReference

        port = port_name(f"{step.name}_{name}")
        if entry.step:
            return self._outputs[entry.step, entry.output]
        if entry.path is not None:
            return DataReference(self._store, port, self._upload(entry.path), mode="mount")
        match = _DATASTORE.fullmatch(entry.asset)
        if match is None:
            raise UserError(
                f"Input {name} of step {step.name} is the registered asset {entry.asset}, which SDK v1 mounts only "
                "with azureml-dataprep.",
                f"Name its place, `azureml://datastores/…/paths/…`, or a local one: `--input {entry.option}=PATH`.",
                file=None if entry.file is None else str(entry.file),
                line=entry.line or None,
            )
        return DataReference(self._datastore(match["store"], entry), port, match["path"].strip("/"), mode="mount")

    def _datastore(self, name: str, entry: CloudInput) -> Any:
        from azureml.core import Datastore

        known = self._workspace.datastores
        if name not in known:
            raise UserError(
                f"There is no datastore {name} in the workspace.",
                f"Name one of these: {', '.join(sorted(known))}.",
                file=None if entry.file is None else str(entry.file),
                line=entry.line or None,
            )
        return Datastore.get(self._workspace, name)

    def _upload(self, path: Path) -> str:
        """Upload local data to the default datastore, unless it is already there; returns its path there."""
        if path not in self._uploaded:
            files = [path] if path.is_file() else sorted(found for found in path.rglob("*") if found.is_file())
            root = path.parent if path.is_file() else path
            total = hashlib.sha256()
            size = 0
            for file in files:
                status = file.stat()
                size += status.st_size
                total.update(f"{file.relative_to(root).as_posix()}\0{status.st_size}\0{status.st_mtime_ns}\0".encode())
            target = f"{self._pipeline.uploads}/{total.hexdigest()[:16]}"
            if not files:
                raise UserError(f"{path} is an empty folder, which a datastore cannot hold.", "Put a file into it.")
            self._report(f"upload {path.name}, {_size_text(size)}")
            self._store.upload_files(
                [str(file) for file in files],
                relative_root=str(root),
                target_path=target,
                overwrite=False,
                show_progress=False,
            )
            self._uploaded[path] = f"{target}/{path.name}" if path.is_file() else target
        return self._uploaded[path]


def make_environment(workspace: Any, wanted: CloudEnvironment, step: CloudStep | None = None) -> Any:
    """The SDK's environment for an environment of this program.

    Raises:
        UserError: The workspace has none of that name.
    """
    from azureml.core import Environment

    if wanted.registered:
        return _registered(workspace, wanted, step)
    made = Environment(wanted.name)
    if wanted.context is not None:
        from azureml.core.environment import DockerBuildContext

        context = DockerBuildContext.from_local_directory(
            workspace, str(wanted.context), dockerfile_path=wanted.context_dockerfile
        )
        return Environment.from_docker_build_context(wanted.name, context)
    if wanted.conda is not None:
        from azureml.core.conda_dependencies import CondaDependencies

        made.python.conda_dependencies = CondaDependencies(_underlying_structure=_plain_copy(wanted.conda))
    else:
        made.python.user_managed_dependencies = True
    if wanted.dockerfile:
        made.docker.base_image, made.docker.base_dockerfile = None, wanted.dockerfile
    elif wanted.image:
        made.docker.base_image = wanted.image
    return made


def _registered(workspace: Any, wanted: CloudEnvironment, step: CloudStep | None) -> Any:
    from azureml.core import Environment

    name, _at, label = wanted.name.partition("@")
    name, _colon, version = name.partition(":")
    try:
        if label and label != "latest":
            return Environment.get(workspace, name, label=label)
        return Environment.get(workspace, name, version=version or None)
    except Exception as error:
        if not _is_not_found(error):
            raise
        raise UserError(
            f"The workspace has no environment {wanted.name}.",
            "Correct the name, or define it: `image` and `conda_file` under `environment`.",
            file=None if step is None or step.file is None else str(step.file),
            line=(step.line or None) if step is not None else None,
        ) from error


def _is_not_found(error: Exception) -> bool:
    response = getattr(error, "response", None)
    if getattr(response, "status_code", None) == 404:
        return True
    try:
        text = str(error)
    except Exception:  # some of the SDK's errors cannot be shown
        text = ""
    return "404" in text or "not found" in text.lower() or "does not exist" in text.lower()


def _plain_copy(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: _plain_copy(entry) for key, entry in value.items()}
    return [_plain_copy(entry) for entry in value] if isinstance(value, (list, tuple)) else value


def port_name(name: str) -> str:
    """A name for a port of a graph, in which only letters, digits and `_` are allowed."""
    return re.sub(r"\W", "_", name)


def _size_text(size: float) -> str:
    for unit in ("B", "kB", "MB"):
        if size < 1000:
            return f"{size:.0f} {unit}"
        size /= 1000
    return f"{size:.1f} GB"
