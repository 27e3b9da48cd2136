"""What a run configuration says, checked, and what it says that is not acted on."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from ..errors import UserError
from ..formatting import shorten
from ..paths import shown
from ..pipelines.distribution import memory_size
from ..pipelines.local_paths import scheme
from ..pipelines.yaml_file import Value, kind, refuse
from ..redaction import keep_conda_variables, keep_variables
from .runconfig_fields import DISTRIBUTIONS, RunConfig
from .runconfig_text import Document

#: Where each field is kept. What has a second place has the older one last.
PLACES: dict[str, tuple[str, ...]] = {
    "script": ("script",),
    "arguments": ("arguments",),
    "target": ("target",),
    "framework": ("framework",),
    "communicator": ("communicator",),
    "node_count": ("nodeCount",),
    "mpi_processes": ("mpi", "processCountPerNode"),
    "pytorch_processes": ("pytorch", "processCount"),
    "environment": ("environment", "name"),
    "environment_version": ("environment", "version"),
    "user_managed": ("environment", "python", "userManagedDependencies"),
    "conda_file": ("environment", "python", "condaDependenciesFile"),
    "conda": ("environment", "python", "condaDependencies"),
    "base_image": ("environment", "docker", "baseImage"),
    "base_dockerfile": ("environment", "docker", "baseDockerfile"),
    "use_docker": ("docker", "useDocker"),
    "shm_size": ("docker", "shmSize"),
    "output_collection": ("history", "outputCollection"),
    "snapshot_project": ("history", "snapshotProject"),
    "directories_to_watch": ("history", "directoriesToWatch"),
}
OLDER_PLACES: dict[str, tuple[str, ...]] = {
    "use_docker": ("environment", "docker", "enabled"),
    "shm_size": ("environment", "docker", "shmSize"),
}
VARIABLES = (("environmentVariables",), ("environment", "environmentVariables"))
#: What the SDK writes into the environment of every new run configuration.
PLACEHOLDER = ("EXAMPLE_ENV_VAR", "EXAMPLE_VALUE")
DEFAULT_SHM_SIZE = "2g"

_ANY = object()  # acted on, or without an effect in the SDK itself
# Every other key: what it is unless somebody has set it, in any version of the SDK. An empty one counts as unset.
_UNSET: dict[str, Any] = {
    **dict.fromkeys(("script", "arguments", "nodeCount", "environmentVariables", "data", "dataReferences"), _ANY),
    "autoPrepareEnvironment": _ANY,
    "target": ["local"],
    "framework": ["python", "pytorch", "tensorflow"],
    "communicator": ["none", *DISTRIBUTIONS],
    "environment": {
        **dict.fromkeys(("name", "version", "environmentVariables", "assetId"), _ANY),
        "python": {
            **dict.fromkeys(("userManagedDependencies", "condaDependenciesFile", "condaDependencies"), _ANY),
            "interpreterPath": ["python"],
        },
        "docker": {
            **dict.fromkeys(("enabled", "baseImage", "baseDockerfile", "shmSize", "gpuSupport"), _ANY),
            "sharedVolumes": ["true"],
            "platform": {"os": ["linux"], "architecture": ["amd64"]},
        },
        "spark": {
            "repositories": [["https://mmlspark.azureedge.net/maven"]],
            "packages": [[{"group": "com.microsoft.ml.spark", "artifact": "mmlspark_2.11", "version": "0.12"}]],
            "precachePackages": _ANY,
        },
        "databricks": {},
    },
    "history": {"outputCollection": ["true"], "snapshotProject": ["true"], "directoriesToWatch": [["logs"]]},
    "spark": {"configuration": {"spark.app.name": ["azure ml experiment"], "spark.yarn.maxAppAttempts": ["1"]}},
    "docker": {**dict.fromkeys(("useDocker", "shmSize"), _ANY), "sharedVolumes": ["true"]},
    "hdi": {"yarnDeployMode": ["cluster"]},
    "tensorflow": {"workerCount": ["1"], "parameterServerCount": ["1"]},
    "mpi": {"processCountPerNode": _ANY, "nodeCount": _ANY},
    "pytorch": {"processCount": _ANY, "communicationBackend": ["nccl"], "nodeCount": _ANY},
    "paralleltask": {"maxRetriesPerWorker": ["0"], "workerCountPerNode": ["1"]},
    "amlcompute": {"retainCluster": ["false"], "clusterMaxNodeCount": ["1"]},
    "containerInstance": {"cpuCores": ["1", "2"], "memoryGb": ["3.5"]},
    "credentialPassthrough": ["false"],
}


def parse(documents: tuple[Document, ...]) -> RunConfig:
    """A run configuration of its text.

    Args:
        documents: The file, and that of its environment where it names one.

    Raises:
        UserError: It names no script, or a value is of the wrong type; with the line.
    """
    root = whole(documents)
    if is_legacy(root):
        return _parse_legacy(root, documents[0].file)
    places = {name: found for name, path in PLACES.items() if (found := at(root, path)) is not None}
    config = RunConfig(
        script=_script(root),
        arguments=_texts(places.get("arguments"), "`arguments`"),
        target=_text(root, PLACES["target"]) or "local",
        framework=_text(root, PLACES["framework"]) or "Python",
        communicator=_text(root, PLACES["communicator"]) or "None",
        node_count=_number(root, PLACES["node_count"]) or 1,
        mpi_processes=_number(root, PLACES["mpi_processes"]) or 1,
        pytorch_processes=_number(root, PLACES["pytorch_processes"]),
        environment=_text(root, PLACES["environment"]),
        environment_version=_text(root, PLACES["environment_version"]),
        user_managed=_truth(root, PLACES["user_managed"], False),
        conda_file=_text(root, PLACES["conda_file"]),
        conda=_conda(root),
        base_image=_text(root, PLACES["base_image"]),
        base_dockerfile=_text(root, PLACES["base_dockerfile"]),
        variables=_variables(root, places),
        # The SDK writes both, also where only one was set: what is not the default was.
        use_docker=any(_truth(root, path["use_docker"], False) for path in (PLACES, OLDER_PLACES)),
        shm_size=_shm_size(root),
        data=_data(root, places),
        output_collection=_truth(root, PLACES["output_collection"], True),
        snapshot_project=_truth(root, PLACES["snapshot_project"], True),
        directories_to_watch=_texts(places.get("directories_to_watch"), "`history.directoriesToWatch`", ("logs",)),
        places={name: (value.file or documents[0].file, value.line) for name, value in places.items()},
    )
    if config.distribution == "pytorch" and (config.pytorch_processes or 0) % config.node_count:
        nodes = f"{config.pytorch_processes} processes cannot be shared out evenly to {config.node_count} nodes."
        remedy = "Make `pytorch.processCount` a multiple of `nodeCount`."
        raise refuse(places["pytorch_processes"], nodes, remedy)
    ignored = tuple(dict.fromkeys(_not_acted_on(root, config)))
    return _with(config, ignored=ignored)


def whole(documents: tuple[Document, ...]) -> Value:
    """The content, with that of the environment's file where it is one."""
    root = documents[0].value
    if len(documents) == 1:
        return root
    return Value({**root.data, "environment": documents[1].value}, root.file, root.line)


def at(root: Value, path: tuple[str, ...]) -> Value | None:
    """A value by its keys; None where it is not there or empty.

    Raises:
        UserError: A mapping on the way is something else.
    """
    value: Value | None = root
    for depth, name in enumerate(path):
        assert value is not None
        value.mapping(f"`{'.'.join(path[:depth])}`")
        value = value.get(name)
        if value is None:
            return None
    return value


def data_name(key: str, entry: Value) -> str:
    """What an entry of ``data`` is called: the SDK changes the keys of files with snake_case in them."""
    named = entry.get("environmentVariableName")
    return named.text("`environmentVariableName`") if named is not None else key


def is_legacy(root: Value) -> bool:
    """Whether it is in the format of the SDK before its version 1."""
    return root.get("argumentVector") is not None


def _parse_legacy(root: Value, file: Path) -> RunConfig:
    vector = _texts(root.get("argumentVector"), "`ArgumentVector`")
    if not vector or not vector[0]:
        raise refuse(root.data["argumentVector"], "`ArgumentVector` names no script.", "Write the script into it.")
    known = ("argumentVector", "target", "framework", "condaDependenciesFile", "environmentVariables", "trackedRun")
    config = RunConfig(
        script=vector[0],
        arguments=vector[1:],
        target=_text(root, ("target",)) or "local",
        framework=_text(root, ("framework",)) or "Python",
        conda_file=_text(root, ("condaDependenciesFile",)),
        variables=_texts_of_variables(root.get("environmentVariables"), "`EnvironmentVariables`"),
        places={"script": (file, root.data["argumentVector"].line)},
    )
    rest = {name: value for name, value in root.data.items() if name not in known}
    ignored = tuple(_set(Value(rest, file, 1), {}, "")) + _elsewhere(config)
    return _with(config, ignored=ignored)


def _with(config: RunConfig, **fields: Any) -> RunConfig:
    from dataclasses import replace

    return replace(config, **fields)


def _elsewhere(config: RunConfig) -> tuple[str, ...]:
    given = {"target": config.target, "framework": config.framework}
    return tuple(name for name, value in given.items() if value.lower() not in _UNSET[name])


def _script(root: Value) -> str:
    found = root.get("script")
    if found is not None and (text := found.text("`script`").strip()):
        return text
    file = shown(root.file) if root.file else None
    line = found.line if found is not None else 1
    remedy = "Write `script: train.py`, with the script's path relative to the project's folder."
    command = root.get("command")
    if command is not None and command.data:
        problem = "It names a command, not a script."
        remedy = "Write `script:` and `arguments:` in the place of `command:`."
        raise UserError(problem, remedy, file=file, line=command.line)
    raise UserError("It names no script.", remedy, file=file, line=line)


def _text(root: Value, path: tuple[str, ...]) -> str:
    found = at(root, path)
    return "" if found is None else found.text(f"`{'.'.join(path)}`")


def _texts(value: Value | None, what: str, default: tuple[str, ...] = ()) -> tuple[str, ...]:
    if value is None:
        return default
    if not isinstance(value.data, list):
        raise refuse(value, f"{what} has to be a list, not {kind(value)}.", "Write a line `- …` under it for each.")
    # As on a command line, nothing is an empty text.
    return tuple("" if item.data is None else _given(item, f"An entry of {what}") for item in value.data)


def _texts_of_variables(value: Value | None, what: str) -> dict[str, str]:
    texts = dict[str, str]()
    for name, item in value.mapping(what).items() if value is not None else ():
        if not name or "=" in name or "\0" in name:
            problem = f"`{_printable(name)}` cannot be the name of an environment variable, as in {what}."
            raise refuse(item, problem, "Correct it: letters, digits and _.")
        # Nothing, such as `NAME:` in a .env file.
        texts[name] = "" if item.data is None else _given(item, f"`{name}` in {what}")
    keep_variables(texts)
    return texts


def _given(value: Value, what: str) -> str:
    """A text that a process is given."""
    text = value.text(what)
    if "\0" in text:
        raise refuse(value, f"{what} has a NUL in it, which no process can be given.", "Take the NUL out.")
    return text


def _printable(text: str) -> str:
    return text.replace("\0", "\\0")


def _truth(root: Value, path: tuple[str, ...], default: bool) -> bool:
    found = at(root, path)
    if found is None:
        return default
    text = found.text(f"`{'.'.join(path)}`")
    if text.lower() not in ("true", "false"):  # the SDK takes `no` for true
        raise refuse(found, f"`{'.'.join(path)}` has to be true or false, not `{text}`.", "Correct that line.")
    return text.lower() == "true"


def _number(root: Value, path: tuple[str, ...]) -> int | None:
    found = at(root, path)
    if found is None:
        return None
    text = found.text(f"`{'.'.join(path)}`")
    if not text.isascii() or not text.isdigit() or len(text) > 9 or int(text) < 1:
        problem = f"`{'.'.join(path)}` has to be a number from 1, not `{shorten(text)}`."
        raise refuse(found, problem, "Correct that line.")
    return int(text)


def _conda(root: Value) -> dict[str, Any] | None:
    found = at(root, PLACES["conda"])
    if found is None or at(root, PLACES["conda_file"]) is not None:
        return None
    found.mapping("`environment.python.condaDependencies`")
    plain: dict[str, Any] = found.plain()
    keep_conda_variables(plain)
    return plain


def _variables(root: Value, places: dict[str, Value]) -> dict[str, str]:
    variables = dict[str, str]()
    for path in reversed(VARIABLES):
        found = at(root, path)
        for name, text in _texts_of_variables(found, f"`{'.'.join(path)}`").items():
            assert found is not None
            if len(path) == 1 or (name, text) != PLACEHOLDER:
                variables[name] = text
                places[f"variables.{name}"] = found.data[name]
    return variables


def _shm_size(root: Value) -> str:
    chosen = ""
    for path in (OLDER_PLACES["shm_size"], PLACES["shm_size"]):
        found = at(root, path)
        if found is not None and (text := _text(root, path)):
            memory_size(found, f"`{'.'.join(path)}`")
            chosen = text if text != DEFAULT_SHM_SIZE else chosen
    return chosen or DEFAULT_SHM_SIZE


def _data(root: Value, places: dict[str, Value]) -> dict[str, str]:
    data = dict[str, str]()
    found = root.get("data")
    for key, entry in found.mapping("`data`").items() if found is not None else ():
        entry.mapping(f"`data.{key}`")
        path = at(entry, ("dataLocation", "uri", "path"))
        if path is not None and scheme(path.text(f"`data.{key}.dataLocation.uri.path`")) in ("", "azureml"):
            name = data_name(key, entry)
            data[name] = path.text("")
            places[f"data.{name}"] = path
    return data


def _not_acted_on(root: Value, config: RunConfig) -> Iterator[str]:
    yield from _set(root, _UNSET, "")
    if config.conda_file and at(root, PLACES["conda"]) is not None:
        yield ".".join(PLACES["conda"])
    for section in ("mpi", "pytorch"):
        # The SDK's own helpers write it twice.
        nodes = _number(root, (section, "nodeCount"))
        if nodes not in (None, 1, config.node_count):
            yield f"{section}.nodeCount"
    found = root.get("data")
    for key, entry in found.data.items() if found is not None else ():
        name = data_name(key, entry)
        if name not in config.data:
            yield f"data.{name}"
        elif entry.get("pathOnCompute") is not None:
            yield f"data.{name}.pathOnCompute"
    found = root.get("dataReferences")
    for key in found.mapping("`dataReferences`") if found is not None else ():
        if key not in config.data:
            yield f"dataReferences.{key}"


def _set(value: Value, unset: Any, name: str) -> Iterator[str]:
    """The names of what is set, compared with what it is unless somebody has set it."""
    if unset is _ANY or value.data in (None, "", [], {}):
        return
    if isinstance(value.data, dict) and not isinstance(unset, list):
        for key, item in value.data.items():
            inner = unset.get(key, {}) if isinstance(unset, dict) else {}
            yield from _set(item, inner, f"{name}.{key}".lstrip("."))
        return
    data = value.plain()
    if not isinstance(unset, list) or (data.lower() if isinstance(data, str) else data) not in unset:
        yield name
