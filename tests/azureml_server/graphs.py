"""A pipeline's graph: which steps each step waits for, and what it executes."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from .jobs import Job, read_configuration
from .state import DATASTORE, Run, State


def dependencies(graph: dict[str, Any]) -> dict[str, set[str]]:
    """The steps that each step waits for."""
    nodes = {node["Id"] for node in graph["ModuleNodes"]}
    needs: dict[str, set[str]] = {name: set() for name in nodes}
    for edge in graph.get("Edges") or []:
        source = str((edge.get("SourceOutputPort") or {}).get("NodeId"))
        target = str((edge.get("DestinationInputPort") or {}).get("NodeId"))
        if source in nodes and target in nodes:
            needs[target].add(source)
    return needs


class StepReader:
    """Makes jobs of a graph's nodes.

    Args:
        state: The workspace.
        graph: The graph.
        modules: The modules that its nodes name.
        sources: The data sources that its nodes name.
        parameters: The pipeline's parameters.
    """

    def __init__(
        self,
        state: State,
        graph: dict[str, Any],
        modules: dict[str, dict[str, Any]],
        sources: dict[str, dict[str, Any]],
        parameters: dict[str, str],
    ) -> None:
        self._state, self._graph, self._modules, self._sources = state, graph, modules, sources
        self._parameters = parameters
        self._datasets = {node["Id"]: node for node in graph.get("DatasetNodes") or []}

    def read(self, run: Run, node: dict[str, Any], begun: dict[str, Run]) -> Job:
        """What a node's run does; `begun` are the runs of the steps before it."""
        module = self._modules[node["ModuleId"]]
        values = self._values(node)
        run.target = values.get("Target") or None
        job = Job(run, snapshot=module.get("StorageId"), script=values.get("Script") or "")
        configuration = json.loads(node.get("Runconfig") or module.get("Runconfig") or "{}")
        run.definition = configuration
        read_configuration(job, configuration)
        if values.get("NodeCount"):
            job.nodes = int(values["NodeCount"])
        if values.get("MpiProcessCountPerNode"):
            job.processes = int(values["MpiProcessCountPerNode"])
        interface = module["StructuredInterface"]
        inputs = self._inputs(node, begun)
        outputs = self._outputs(job, node, interface)
        for name, path in inputs.items():
            job.variables[f"AZURE_ML_INPUT_{name}"] = str(path)
        for name, path in outputs.items():
            job.variables[f"AZURE_ML_OUTPUT_{name}"] = str(path)
        for name, path in {**inputs, **outputs}.items():
            job.variables[f"AZUREML_DATAREFERENCE_{name}"] = str(path)
        for one in interface.get("Parameters") or []:
            if one.get("SetEnvironmentVariable") and values.get(one["Name"]) is not None:
                variable = one.get("EnvironmentVariableOverride") or f"AML_PARAMETER_{one['Name']}"
                job.variables[variable] = values[one["Name"]]
        places = {"Input": inputs, "Output": outputs}
        # How datasets stand among the arguments.
        datasets = {f"DatasetConsumptionConfig:{name}": path for name, path in inputs.items()}
        datasets |= {f"DatasetOutputConfig:{name}": path for name, path in outputs.items()}
        for one in interface.get("Arguments") or []:
            kind, value = str(one["ValueType"]), one["Value"]
            if kind in places:
                job.arguments.append(str(places[kind][value]))
            elif kind == "Parameter":
                job.arguments.append(str(values.get(value)))
            else:
                job.arguments.append(str(datasets.get(value, value)))
        if values.get("Command"):
            job.command = " ".join([values["Command"], *job.arguments])
        return job

    def _values(self, node: dict[str, Any]) -> dict[str, str]:
        """A node's parameters, those of the pipeline put in."""
        found = {}
        for one in [*(node.get("ModuleParameters") or []), *(node.get("ModuleMetadataParameters") or [])]:
            value = one.get("Value")
            if str(one.get("ValueType")) in ("1", "GraphParameterName"):
                value = self._parameters.get(str(value))
            if value is not None:
                found[one["Name"]] = str(value)
        return found

    def _inputs(self, node: dict[str, Any], begun: dict[str, Run]) -> dict[str, Path]:
        found: dict[str, Path] = {}
        for edge in self._graph.get("Edges") or []:
            source, target = edge.get("SourceOutputPort") or {}, edge.get("DestinationInputPort") or {}
            if target.get("NodeId") != node["Id"]:
                continue
            name = target["PortName"]
            if source["NodeId"] in begun:
                place = begun[source["NodeId"]].outputs.get(source["PortName"])
                if place is not None:
                    found[name] = self._state.file(DATASTORE, place)
            elif source["NodeId"] in self._datasets:
                data = self._sources[self._datasets[source["NodeId"]]["DatasetId"]]
                found[name] = self._state.file(DATASTORE, data.get("PathOnDataStore") or "")
                if not found[name].exists():
                    raise FileNotFoundError(f"{data.get('PathOnDataStore')} is not on the datastore")
        return found

    def _outputs(self, job: Job, node: dict[str, Any], interface: dict[str, Any]) -> dict[str, Path]:
        """Where its outputs go.

        As on a mounted datastore, only what they lie in is there before the script runs; of datasets, the folder.
        """
        found = {}
        settings = {one["Name"]: one for one in node.get("ModuleOutputSettings") or []}
        for one in interface.get("Outputs") or []:
            if one.get("SkipProcessing"):
                continue
            name = one["Name"]
            place = f"azureml/{job.run.id}/{name}"
            options = settings.get(name, {}).get("DatasetOutputOptions")
            if options and options.get("PathOnDatastore"):
                place = options["PathOnDatastore"].replace("{run-id}", job.run.id).replace("{output-name}", name)
            job.run.outputs[name] = place.strip("/")
            found[name] = self._state.file(DATASTORE, place.strip("/"))
            job.folders.append(found[name] if options else found[name].parent)
        return found
