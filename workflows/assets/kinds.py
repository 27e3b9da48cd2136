"""Recognizes the kind of an Azure ML YAML file: pipeline job, command component, online deployment, environment, ….

Three things say which kind a file is, and none of them is always there or always right: ``$schema``, ``type``, and keys
that only one kind has. Azure's own command line goes by the command that was typed; here the file decides.
The kinds are those of https://learn.microsoft.com/azure/machine-learning/reference-yaml-overview
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path

from ..errors import UserError
from ..paths import exists, shown
from ..pipelines.yaml_file import Value, read_yaml, refuse

#: Suffixes of YAML files.
SUFFIXES = (".yml", ".yaml")


@dataclass(frozen=True)
class Kind:
    """One kind of file.

    Attributes:
        name: Its name in a message, such as ``online deployment``.
        taken_by: The command or field that takes it, with ``FILE`` for its name; empty where nothing does.
        elsewhere: Whether it is a job that runs in Azure only.
    """

    name: str
    taken_by: str = ""
    elsewhere: bool = False

    @property
    def with_article(self) -> str:
        """Its name with an article."""
        return f"{'an' if self.name.startswith(('a', 'e', 'i', 'o', 'u', 'A', 'MLT')) else 'a'} {self.name}"


_PIPELINE = "inv pipeline.debug --file FILE"
_DEPLOYMENT = "inv deploy.debug --deployment FILE"
_INPUT = "--input NAME=PATH of a pipeline, with the path that it names"

PIPELINE_JOB = Kind("pipeline job", _PIPELINE)
PIPELINE_COMPONENT = Kind("pipeline component", _PIPELINE)
COMMAND_JOB = Kind("command job", _PIPELINE)
COMMAND_COMPONENT = Kind("command component", _PIPELINE)
SWEEP_JOB = Kind("sweep job", _PIPELINE)
PARALLEL_JOB = Kind("parallel job", _PIPELINE)
PARALLEL_COMPONENT = Kind("parallel component", _PIPELINE)
SCHEDULE = Kind("schedule", _PIPELINE)
MONITOR = Kind("monitoring schedule")
IMPORT_SCHEDULE = Kind("schedule of data imports")
SPARK_JOB = Kind("Spark job", elsewhere=True)
SPARK_COMPONENT = Kind("Spark component", elsewhere=True)
AUTOML_JOB = Kind("AutoML job", elsewhere=True)
AUTOML_COMPONENT = Kind("AutoML component", elsewhere=True)
IMPORT_JOB = Kind("import job", elsewhere=True)
TRANSFER_JOB = Kind("data transfer job", elsewhere=True)
TRANSFER_COMPONENT = Kind("data transfer component", elsewhere=True)
FINETUNING_JOB = Kind("finetuning job", elsewhere=True)
ONLINE_DEPLOYMENT = Kind("online deployment", _DEPLOYMENT)
BATCH_DEPLOYMENT = Kind("batch deployment", f"{_DEPLOYMENT} --data FOLDER")
ONLINE_ENDPOINT = Kind("online endpoint", _DEPLOYMENT)
BATCH_ENDPOINT = Kind("batch endpoint", f"{_DEPLOYMENT} --data FOLDER")
ENVIRONMENT = Kind("environment", "`environment: file:FILE` of a job")
CONDA_FILE = Kind("conda file", "`conda_file: FILE` of an environment")
DATA = Kind("data asset", _INPUT)
MODEL = Kind("model", "--model-dir, with the path that it names")
MODEL_PACKAGE = Kind("model package")
COMPUTE = Kind("compute target")
DATASTORE = Kind("datastore")
WORKSPACE = Kind("workspace")
REGISTRY = Kind("registry")
CONNECTION = Kind("connection")
FEATURE_SET = Kind("feature set")
FEATURE_STORE = Kind("feature store")
MLTABLE = Kind("MLTable", "--input NAME=FOLDER of a pipeline, with the folder that it lies in")
MLFLOW_MODEL = Kind("description of an MLflow model", "--model-dir, with the folder that it lies in")

#: The kinds of a pipeline file: those that have jobs in them, or are one.
JOBS = (
    *(PIPELINE_JOB, PIPELINE_COMPONENT, COMMAND_JOB, COMMAND_COMPONENT, SWEEP_JOB, PARALLEL_JOB, PARALLEL_COMPONENT),
    SCHEDULE,
)
COMPONENTS = (PIPELINE_COMPONENT, COMMAND_COMPONENT, PARALLEL_COMPONENT, SPARK_COMPONENT, AUTOML_COMPONENT)
DEPLOYMENTS = (ONLINE_DEPLOYMENT, BATCH_DEPLOYMENT)

#: By the last part of ``$schema``, in small letters, without ``.schema.json``.
_SCHEMAS: Mapping[str, Kind] = {
    "pipelinejob": PIPELINE_JOB,
    "pipelinecomponent": PIPELINE_COMPONENT,
    "commandjob": COMMAND_JOB,
    "commandcomponent": COMMAND_COMPONENT,
    "sweepjob": SWEEP_JOB,
    "paralleljob": PARALLEL_JOB,
    "parallelcomponent": PARALLEL_COMPONENT,
    "schedule": SCHEDULE,
    "jobschedule": SCHEDULE,
    "monitorschedule": MONITOR,
    "monitoringschedule": MONITOR,
    "importdataschedule": IMPORT_SCHEDULE,
    "dataimportschedule": IMPORT_SCHEDULE,
    "sparkjob": SPARK_JOB,
    "sparkcomponent": SPARK_COMPONENT,
    "importjob": IMPORT_JOB,
    "datatransferjob": TRANSFER_JOB,
    "datatransfercomponent": TRANSFER_COMPONENT,
    "finetuningjob": FINETUNING_JOB,
    "environment": ENVIRONMENT,
    "data": DATA,
    "dataset": DATA,
    "model": MODEL,
    "modelpackage": MODEL_PACKAGE,
    "modelversionpackage": MODEL_PACKAGE,
    "workspace": WORKSPACE,
    "workspacehub": WORKSPACE,
    "hub": WORKSPACE,
    "project": WORKSPACE,
    "registry": REGISTRY,
    "connection": CONNECTION,
    "workspaceconnection": CONNECTION,
    "featureset": FEATURE_SET,
    "featuresetentity": FEATURE_SET,
    "featurestoreentity": FEATURE_SET,
    "featurestore": FEATURE_STORE,
    "mltable": MLTABLE,
    "onlineendpoint": ONLINE_ENDPOINT,
    "batchendpoint": BATCH_ENDPOINT,
}
#: The same by its ending, for kinds with several schemas: managedOnlineDeployment, kubernetesOnlineEndpoint, …
_ENDINGS: tuple[tuple[str, Kind], ...] = (
    ("onlinedeployment", ONLINE_DEPLOYMENT),
    ("batchdeployment", BATCH_DEPLOYMENT),
    ("onlineendpoint", ONLINE_ENDPOINT),
    ("batchendpoint", BATCH_ENDPOINT),
    ("connection", CONNECTION),
    ("datastore", DATASTORE),
    ("compute", COMPUTE),
    ("computeinstance", COMPUTE),
)
_STORES = ("azureblob", "azurefile", "azuredatalakegen1", "azuredatalakegen2", "onelake", "hdfs")
_COMPUTES = ("amlcompute", "computeinstance", "kubernetes", "virtualmachine", "synapsespark")
_DATA = ("urifile", "urifolder", "mltable")
_MODELS = ("mlflowmodel", "custommodel", "tritonmodel")
_TYPES: Mapping[str, Kind] = {
    "pipeline": PIPELINE_JOB,
    "pipelinejob": PIPELINE_JOB,
    "pipelinecomponent": PIPELINE_COMPONENT,
    "sweep": SWEEP_JOB,
    "sweepjob": SWEEP_JOB,
    "spark": SPARK_JOB,
    "sparkcomponent": SPARK_COMPONENT,
    "automl": AUTOML_JOB,
    "automlcomponent": AUTOML_COMPONENT,
    "import": IMPORT_JOB,
    "datatransfer": TRANSFER_JOB,
    "finetuning": FINETUNING_JOB,
    "parallel": PARALLEL_COMPONENT,
    "paralleljob": PARALLEL_JOB,
    "parallelcomponent": PARALLEL_COMPONENT,
    "command": COMMAND_JOB,
    "commandjob": COMMAND_JOB,
    "commandcomponent": COMMAND_COMPONENT,
    **dict.fromkeys(_STORES, DATASTORE),
    **dict.fromkeys(_COMPUTES, COMPUTE),
}
#: For these values of `type`, the schema decides between a job and a component.
_AS_COMPONENT: Mapping[Kind, Kind] = {
    PIPELINE_JOB: PIPELINE_COMPONENT,
    COMMAND_JOB: COMMAND_COMPONENT,
    PARALLEL_JOB: PARALLEL_COMPONENT,
    SPARK_JOB: SPARK_COMPONENT,
    TRANSFER_JOB: TRANSFER_COMPONENT,
    AUTOML_JOB: AUTOML_COMPONENT,
}


def kind_of(root: Value) -> Kind | None:
    """The kind of a file, from its content.

    Args:
        root: The file's mapping.

    Returns:
        The kind; None where it is not one of Azure ML's files, or cannot be recognized.
    """
    if not root.is_mapping:
        return None
    schema = _kind_from_schema(_text(root, "$schema"))
    found = _kind_from_keys(root, schema) or schema
    if found is not None and found in _AS_COMPONENT and (schema in _AS_COMPONENT.values() or _is_component(root)):
        return _AS_COMPONENT[found]
    if found is PARALLEL_COMPONENT and schema is PARALLEL_JOB:
        return PARALLEL_JOB
    return found


def kind_of_file(file: Path) -> Kind | None:
    """The kind of a file; None also where it cannot be read as YAML."""
    try:
        return kind_of(read_yaml(file, "file"))
    except UserError:
        return None


def wrong_kind(root: Value, wanted: str, known: Collection[Kind] = ()) -> UserError:
    """The error for a file of the wrong kind.

    Args:
        root: The file's mapping.
        wanted: The expected kind, with an article.
        known: Kinds that are expected as well: such a file is refused for another reason.
    """
    kind = kind_of(root)
    assert root.file is not None
    if kind is None or kind in known:
        return refuse(root, f"{root.file.name} is not {wanted}.", "Name another file.")
    but = "which runs in Azure only" if kind.elsewhere else f"not {wanted}"
    return refuse(_kind_entry(root), f"{root.file.name} is {kind.with_article}, {but}.", remedy_for(kind, root.file))


def remedy_for(kind: Kind, file: Path) -> str:
    """The remedy that says what takes a file of a kind."""
    if kind.elsewhere:
        return "Name a pipeline that has it as a step: `--input STEP.OUTPUT=PATH` stands in for it there."
    if not kind.taken_by:
        return "Nothing here takes such a file: name another one."
    taker = kind.taken_by.replace("FILE", str(shown(file)))
    # Only a command by itself is quoted as something to type.
    return (
        f"It is taken by: `{taker}`." if taker.startswith("inv ") and "," not in taker else f"It is taken by: {taker}."
    )


def check_is_script(file: Path, flag: str) -> None:
    """Check that a script is not a YAML file, such as one of Azure ML's.

    Args:
        file: The file that was named as a script.
        flag: The flag that names it, such as ``--script``.

    Raises:
        UserError: It is a YAML file.
    """
    if file.suffix.lower() not in SUFFIXES or not exists(file) or file.is_dir():
        return
    kind = kind_of_file(file)
    if kind is None:
        raise UserError(f"{shown(file)} is a YAML file; {flag} takes a Python script.", "Name the script.")
    remedy = remedy_for(kind, file)
    if flag == "--script" and kind in JOBS:
        remedy = f"A job is taken by: `--job {shown(file)}`."
    raise UserError(f"{shown(file)} is {kind.with_article}; {flag} takes a Python script.", remedy)


def _kind_entry(root: Value) -> Value:
    """The entry that says which kind the file is, for the place of an error."""
    return root.get("type") or root.get("$schema") or root


def _text(root: Value, key: str) -> str:
    found = root.get(key)
    return found.data if found is not None and isinstance(found.data, str) else ""


def _kind_from_schema(text: str) -> Kind | None:
    """The kind that a ``$schema`` names, such as ``https://azuremlschemas.azureedge.net/latest/commandJob.schema.json``."""
    name = text.rstrip("/").rpartition("/")[2].lower()
    name = re.sub(r"(\.schema)?\.json$", "", name)
    if name in _SCHEMAS:
        return _SCHEMAS[name]
    if name.startswith("automl"):
        return AUTOML_COMPONENT if name.endswith("component") else AUTOML_JOB
    return next((kind for ending, kind in _ENDINGS if name.endswith(ending)), None)


def _kind_from_keys(root: Value, schema: Kind | None) -> Kind | None:
    has = {key for key, value in root.data.items() if value.data is not None}
    type_ = re.sub(r"[^a-z0-9]", "", _text(root, "type").lower())
    if has & {"create_job", "create_monitor", "import_data"} or ({"trigger", "name"} <= has and "jobs" not in has):
        return MONITOR if "create_monitor" in has else IMPORT_SCHEDULE if "import_data" in has else SCHEDULE
    if "endpoint_name" in has:
        batch = schema is BATCH_DEPLOYMENT or has & {"mini_batch_size", "job_definition", "component", "output_action"}
        return BATCH_DEPLOYMENT if batch or type_ in ("model", "pipeline", "component") else ONLINE_DEPLOYMENT
    if "auth_mode" in has and "command" not in has:
        return BATCH_ENDPOINT if schema is BATCH_ENDPOINT or "defaults" in has else ONLINE_ENDPOINT
    if schema in (*DEPLOYMENTS, ONLINE_ENDPOINT, BATCH_ENDPOINT, MODEL_PACKAGE, CONNECTION, WORKSPACE):
        return schema
    if "jobs" in has:
        return PIPELINE_JOB
    if type_ in _TYPES:
        return _TYPES[type_]
    if "trial" in has and has & {"search_space", "objective", "sampling_algorithm"}:
        return SWEEP_JOB
    if "task" in has and has & {"mini_batch_size", "input_data", "error_threshold", "mini_batch_error_threshold"}:
        return PARALLEL_COMPONENT
    if "command" in has:
        return COMMAND_JOB
    if type_ in _MODELS and "path" in has:
        return MODEL
    if type_ in _DATA and "path" in has:
        return MODEL if schema is MODEL else DATA
    if has & {"inferencing_server", "target_environment"}:
        return MODEL_PACKAGE
    if has & {"dependencies", "channels"} and "image" not in has:
        return CONDA_FILE
    if has & {"image", "conda_file", "build", "docker"}:
        return ENVIRONMENT
    if {"flavors", "artifact_path"} <= has or {"flavors", "mlflow_version"} <= has:
        return MLFLOW_MODEL
    if "paths" in has and has & {"transformations", "type"}:
        return MLTABLE
    return None


def _is_component(root: Value) -> bool:
    """Whether a file that may be a job or a component declares its inputs, or has a key, as only a component does."""
    if root.get("is_deterministic") is not None:
        return True
    inputs = root.get("inputs")
    entries = list(inputs.data.values()) if inputs is not None and inputs.is_mapping else []
    declared = [one for one in entries if one.is_mapping and one.get("type") is not None]
    valued = [
        one for one in entries if not one.is_mapping or one.get("path") is not None or one.get("value") is not None
    ]
    named = root.get("name") is not None and root.get("compute") is None and root.get("experiment_name") is None
    return named and bool(declared) and not valued
