"""The environment variables of a step's processes."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence

from ..pipelines.commands import PARALLEL_DRIVER
from .snapshots import snapshot_variables, summary_variables
from .steps import StepSpec

#: The mark by which every process of a run is found: RUN_ID/STEP.
MARK = "AZUREML_DEBUGGEE_RUN"


def step_variables(spec: StepSpec, own: Mapping[str, str], paths: Mapping[str, str]) -> dict[str, str]:
    """The step's own variables and those that every step has.

    Args:
        spec: The step.
        own: The step's own ``environment_variables``.
        paths: The paths of its inputs and outputs, by ``inputs.NAME`` and ``outputs.NAME``.
    """
    return {
        # Lines appear in the log at once, and no byte code is left beside the user's scripts.
        "PYTHONUNBUFFERED": "1",
        "PYTHONDONTWRITEBYTECODE": "1",
        # As Azure ML names them: AZURE_ML_INPUT_data, AZURE_ML_OUTPUT_model.
        **{f"AZURE_ML_{kind[:-1].upper()}_{name}": path for (kind, name), path in _split(paths)},
        # As azureml-core names them for references such as `$AZUREML_DATAREFERENCE_data` in arguments.
        **{f"AZUREML_DATAREFERENCE_{name}": path for (kind, name), path in _split(paths) if kind == "inputs"},
        **own,
        MARK: f"{spec.run_id}/{spec.step}",
    }


def parallel_driver(spec: StepSpec, debuggee: str) -> dict[str, str]:
    """The variable that names the driver of parallel steps; none for any other step.

    Args:
        spec: The step.
        debuggee: The debuggee's folder as the step sees it.
    """
    return {PARALLEL_DRIVER: f"{debuggee}/azureml_parallel_run/driver.py"} if spec.parallel else {}


def _split(paths: Mapping[str, str]) -> list[tuple[tuple[str, str], str]]:
    return [((key.partition(".")[0], key.partition(".")[2]), path) for key, path in paths.items()]


def import_path(spec: StepSpec, own: Mapping[str, str], work: str, separator: str = ":") -> dict[str, str]:
    """The PYTHONPATH by which a step's scripts import the additional includes.

    Python itself looks beside the file that a script's link leads to, and the includes are not there.

    Args:
        spec: The step.
        own: The step's own variables, whose PYTHONPATH comes after it.
        work: The working folder as the step sees it.
        separator: The separator of folders in PYTHONPATH there.
    """
    if not spec.includes:
        return {}
    return {"PYTHONPATH": separator.join([work, *filter(None, [own.get("PYTHONPATH")])])}


def injected_variables(
    spec: StepSpec,
    own: Mapping[str, str],
    *,
    debuggee: str,
    code: Sequence[str],
    events: str,
    logs: str,
    uploads: str,
    listen_host: str,
    separator: str = ":",
) -> dict[str, str]:
    """The variables that inject the debuggee: for debugging, metrics and snapshots, as far as the step wants them.

    Args:
        spec: The step.
        own: The step's own variables, whose PYTHONPATH comes after the debuggee's folder.
        debuggee: The debuggee's folder as the step sees it.
        code: Folders of the step's code as the step sees them.
        events: File to announce events in, as the step sees it.
        logs: The folder of its logs, as the step sees it.
        uploads: The folder of ``outputs`` and ``logs``, as the step sees it.
        listen_host: Address to listen on.
        separator: The separator of folders in PYTHONPATH there.
    """
    if not spec.injected:
        return {}
    path = [f"{debuggee}/inject", *filter(None, [own.get("PYTHONPATH")])]
    injected = {"PYTHONPATH": separator.join(path)}
    if spec.snapshots is not None:
        injected |= snapshot_variables(spec.snapshots, logs)
        # The debuggee's byte code is cached beside this file.
        injected["AZUREML_DEBUGGEE_EVENTS"] = events
    if spec.metrics:
        injected["AZUREML_DEBUGGEE_METRICS"] = events.replace("events.jsonl", "metrics.jsonl")
        injected["AZUREML_DEBUGGEE_UPLOADS"] = uploads
    debug = spec.debug
    if debug is not None or spec.published_options:
        injected["AZUREML_DEBUGGEE_CODE"] = separator.join(code)
    if debug is None or not debug.ports:
        # The published options are removed from the script's arguments, and no debugger can attach.
        return {**injected, "AZUREML_DEBUGGEE_RANKS": "none"} if spec.published_options else injected
    base = min(debug.ports.items())
    return {
        **injected,
        # Scripts are reached through symbolic links; breakpoints are set in the files that these lead to.
        "PYDEVD_RESOLVE_SYMLINKS": "1",
        "AZUREML_DEBUGGEE_HOST": listen_host,
        # The address at which a debugger reaches the step.
        "AZUREML_DEBUGGEE_ADDRESS": "127.0.0.1",
        "AZUREML_DEBUGGEE_PORT": str(base[1] - base[0]),
        **rank_settings(spec.ranks, debug.ports, debug.launched),
        "AZUREML_DEBUGGEE_WAIT": "1" if debug.wait else "0",
        "AZUREML_DEBUGGEE_TIMEOUT": str(debug.timeout),
        "AZUREML_DEBUGGEE_EVENTS": events,
        "AZUREML_DEBUGGEE_ON_ERROR": "1" if debug.on_error else "0",
        "AZUREML_DEBUGGEE_ANY": "1" if debug.any_program else "0",
        "AZUREML_DEBUGGEE_CHILDREN": "1" if debug.children else "0",
        **summary_variables(debug.summaries),
    }


def rank_settings(ranks: int, ports: Collection[int], launched: str) -> dict[str, str]:
    """The variables that say which ranks are debugged, and which of them have ports of their own.

    Args:
        ranks: The number of processes that the engine starts.
        ports: The ranks that have ports.
        launched: See :class:`~workflows.engines.steps.StepDebug`.
    """
    listed = ",".join(map(str, sorted(ports)))
    if ranks > 1:
        return {"AZUREML_DEBUGGEE_RANKS": listed, "AZUREML_DEBUGGEE_MADE": "0"}
    return {
        "AZUREML_DEBUGGEE_RANKS": "all" if launched == "all" else listed,
        "AZUREML_DEBUGGEE_MADE": str(max(ports) + 1),
    }
