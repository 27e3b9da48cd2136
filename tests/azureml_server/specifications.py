"""What a job of SDK v2 says, as something to run: its inputs and outputs resolved, its command filled in."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from .assets import Assets
from .jobs import Job
from .state import ARTIFACTS, DATASTORE, Run, State

_PLACE = re.compile(r"\$\{\{\s*(inputs|outputs)\.([\w.-]+)\s*\}\}")
_OPTIONAL = re.compile(r"\$\[\[(.*?)\]\]", re.DOTALL)
_PARENT = re.compile(r"\$\{\{\s*parent\.(inputs|outputs|jobs)\.([\w-]+)(?:\.outputs\.([\w-]+))?\s*\}\}")
_ASSET = re.compile(r"/data/([^/]+)/versions/([^/]+)$")
_DATASTORE = re.compile(r"azureml:/*(?:.*/)?datastores/([^/]+)/(?:paths/)?(.*)")


@dataclass
class Place:
    """Where the parts of a pipeline lie.

    Attributes:
        inputs: The pipeline's inputs by name: a path or a value.
        outputs: Outputs of its steps so far, by step and name: addresses.
    """

    inputs: dict[str, str] = field(default_factory=dict)
    outputs: dict[tuple[str, str], str] = field(default_factory=dict)


def text_of(value: Any) -> str:
    """An input as it is sent: a value, or where its data lies."""
    if isinstance(value, Mapping):
        value = value.get("value", value.get("uri", value.get("path")))
    return "" if value is None else str(value)


def path_of(state: State, address: str) -> Path | None:
    """Where the data of an address lies here; None for what is not an address of the workspace."""
    found = _DATASTORE.match(address)
    if found is None:
        return None
    return state.file(ARTIFACTS if "artifact" in found[1] else DATASTORE, found[2])


def filled(command: str, places: Mapping[tuple[str, str], str]) -> str:
    """A command with its inputs and outputs; an optional part goes where an input of it has no value."""

    def optional(match: re.Match[str]) -> str:
        return match[1] if all(places.get((kind, name)) for kind, name in _PLACE.findall(match[1])) else ""

    return _PLACE.sub(lambda match: places.get((match[1], match[2]), ""), _OPTIONAL.sub(optional, command))


class Reader:
    """Makes jobs of specifications."""

    def __init__(self, state: State, assets: Assets) -> None:
        self._state, self._assets = state, assets

    def whole(self, spec: Mapping[str, Any]) -> dict[str, Any]:
        """A step's specification with that of its component below it."""
        if not spec.get("componentId"):
            return dict(spec)
        component = self._assets.properties("components", spec["componentId"])["componentSpec"]
        return {
            **{
                name: component[name]
                for name in ("command", "environment", "code", "distribution", "jobs")
                if name in component
            },
            **spec,
            "componentInputs": component.get("inputs") or {},
            "componentOutputs": component.get("outputs") or {},
        }

    def read(self, run: Run, spec: Mapping[str, Any], place: Place) -> Job:
        """A job for a run."""
        places = self._inputs(run, spec, place)
        job = Job(run)
        for name in {**(spec.get("componentOutputs") or {}), **(spec.get("outputs") or {})}:
            places["outputs", name] = self._output(run, spec, name, job)
        code = spec.get("codeId") or spec.get("code")
        if code:
            job.snapshot = self._assets.snapshot(str(code))
        job.command = filled(str(spec["command"]), places)
        for variables in (spec.get("environmentVariables"), spec.get("environment_variables")):
            job.variables.update({name: str(value) for name, value in (variables or {}).items()})
        for (kind, name), path in places.items():
            job.variables[f"AZURE_ML_{kind[:-1].upper()}_{name}"] = path
        _distribution(job, spec)
        return job

    def values(self, spec: Mapping[str, Any], place: Place) -> dict[str, str]:
        """A step's inputs, each a value or where its data lies."""
        declared, given = spec.get("componentInputs") or {}, spec.get("inputs") or {}
        texts = {
            name: text_of(given[name] if name in given else declared[name].get("default"))
            for name in {**declared, **given}
        }
        return {name: self._resolved(text, place) for name, text in texts.items()}

    def _inputs(self, run: Run, spec: Mapping[str, Any], place: Place) -> dict[tuple[str, str], str]:
        return {("inputs", name): self._mounted(run, name, text) for name, text in self.values(spec, place).items()}

    def _mounted(self, run: Run, name: str, text: str) -> str:
        """Where data that is mounted lies: below a folder of the input's own, as in Azure, without spaces."""
        path = Path(text)
        if not text.startswith(str(self._state.root)) or " " not in text:
            return text
        folder = self._state.root / "mounts" / run.id / f"INPUT_{name}"
        folder.parent.mkdir(parents=True, exist_ok=True)
        folder.symlink_to(path)
        return str(folder)

    def _resolved(self, text: str, place: Place) -> str:
        match = _PARENT.fullmatch(text.strip())
        if match is not None:
            text = place.inputs.get(match[2], "") if match[1] == "inputs" else place.outputs[match[2], match[3]]
        asset = _ASSET.search(text)
        if asset is not None:
            text = str(self._assets.properties("data", text)["dataUri"])
        path = path_of(self._state, text)
        return str(path) if path is not None else text

    def _output(self, run: Run, spec: Mapping[str, Any], name: str, job: Job) -> str:
        given = (spec.get("outputs") or {}).get(name)
        # What is bound to an output of the pipeline is of the type `literal` there.
        told = [(spec.get("componentOutputs") or {}).get(name, {}), given if isinstance(given, dict) else {}]
        file = any("uri_file" in (one.get("type"), one.get("jobOutputType")) for one in told)
        address = f"azureml://datastores/workspaceblobstore/paths/azureml/{run.id}/{name}{'' if file else '/'}"
        path = path_of(self._state, address)
        assert path is not None
        job.folders.append(path.parent if file else path)
        run.outputs[name] = address
        return str(path)


def _distribution(job: Job, spec: Mapping[str, Any]) -> None:
    told = spec.get("distribution") or {}
    resources = spec.get("resources") or {}
    job.nodes = int(resources.get("instanceCount") or resources.get("instance_count") or 1)
    kind = told.get("distributionType") or told.get("distribution_type") or told.get("type") or ""
    job.communicator = {"pytorch": "pytorch", "mpi": "mpi", "tensorflow": "tensorflow"}.get(str(kind).lower(), "")
    processes = told.get("processCountPerInstance") or told.get("process_count_per_instance") or 1
    job.processes = int(processes) if job.communicator else 1
    if job.communicator == "tensorflow":
        workers = told.get("workerCount") or told.get("worker_count") or job.nodes
        job.processes = max(1, int(workers) // job.nodes)
        job.servers = int(told.get("parameterServerCount") or told.get("parameter_server_count") or 0)
