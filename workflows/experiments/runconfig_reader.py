"""Parses and checks a run configuration, and lists the keys in it that are not supported."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
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

#: The keys of each field in the file.
KEY_PATHS: dict[str, tuple[str, ...]] = {
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
OLDER_KEY_PATHS: dict[str, tuple[str, ...]] = {
    "use_docker": ("environment", "docker", "enabled"),
    "shm_size": ("environment", "docker", "shmSize"),
}
VARIABLES = (("environmentVariables",), ("environment", "environmentVariables"))
#: What the SDK writes into the environment of every new run configuration.
PLACEHOLDER = ("EXAMPLE_ENV_VAR", "EXAMPLE_VALUE")
DEFAULT_SHM_SIZE = "2g"

_ANY = object()  # supported here, or without an effect in the SDK itself
# The default values of every other key in any version of the SDK. An empty value counts as unset.
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
    """Parse a run configuration.

    Args:
        documents: The file, and the file of its environment where it names one.

    Raises:
        UserError: It names no script, or a value has the wrong type; with the line.
    """
    root = merged_root(documents)
    if is_legacy(root):
        return _parse_legacy(root, documents[0].file)
    places = {name: found for name, path in KEY_PATHS.items() if (found := value_at(root, path)) is not None}
    config = RunConfig(
        script=_script(root),
        arguments=_texts(places.get("arguments"), "`arguments`"),
        target=_text(root, KEY_PATHS["target"]) or "local",
        framework=_text(root, KEY_PATHS["framework"]) or "Python",
        communicator=_text(root, KEY_PATHS["communicator"]) or "None",
        node_count=_number(root, KEY_PATHS["node_count"]) or 1,
        mpi_processes=_number(root, KEY_PATHS["mpi_processes"]) or 1,
        pytorch_processes=_number(root, KEY_PATHS["pytorch_processes"]),
        environment=_text(root, KEY_PATHS["environment"]),
        environment_version=_text(root, KEY_PATHS["environment_version"]),
        user_managed=_boolean(root, KEY_PATHS["user_managed"], False),
        conda_file=_text(root, KEY_PATHS["conda_file"]),
        conda=_conda(root),
        base_image=_text(root, KEY_PATHS["base_image"]),
        base_dockerfile=_text(root, KEY_PATHS["base_dockerfile"]),
        variables=_variables(root, places),
        # The SDK writes both keys even where only one was set: the one that is not the default was set.
        use_docker=any(_boolean(root, path["use_docker"], False) for path in (KEY_PATHS, OLDER_KEY_PATHS)),
        shm_size=_shm_size(root),
        data=_data(root, places),
        output_collection=_boolean(root, KEY_PATHS["output_collection"], True),
        snapshot_project=_boolean(root, KEY_PATHS["snapshot_project"], True),
        directories_to_watch=_texts(places.get("directories_to_watch"), "`history.directoriesToWatch`", ("logs",)),
        places={name: (value.file or documents[0].file, value.line) for name, value in places.items()},
    )
    if config.distribution == "pytorch" and (config.pytorch_processes or 0) % config.node_count:
        nodes = f"{config.pytorch_processes} processes cannot be divided evenly among {config.node_count} nodes."
        remedy = "Make `pytorch.processCount` a multiple of `nodeCount`."
        raise refuse(places["pytorch_processes"], nodes, remedy)
    ignored = tuple(dict.fromkeys(_not_acted_on(root, config)))
    return replace(config, ignored=ignored)


def merged_root(documents: tuple[Document, ...]) -> Value:
    """The content of the run configuration, including that of the environment's file."""
    root = documents[0].value
    if len(documents) == 1:
        return root
    return Value({**root.data, "environment": documents[1].value}, root.file, root.line)


def value_at(root: Value, path: tuple[str, ...]) -> Value | None:
    """The value under a path of keys; None where it is missing or empty.

    Raises:
        UserError: A value on the path is not a mapping.
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
    """The name of an entry of ``data``. It may differ from the key, since the SDK changes keys in snake_case."""
    named = entry.get("environmentVariableName")
    return named.text("`environmentVariableName`") if named is not None else key


def is_legacy(root: Value) -> bool:
    """Whether a run configuration has the format from before the SDK's version 1."""
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
        variables=_parse_variables(root.get("environmentVariables"), "`EnvironmentVariables`"),
        places={"script": (file, root.data["argumentVector"].line)},
    )
    rest = {name: value for name, value in root.data.items() if name not in known}
    ignored = tuple(_set_keys(Value(rest, file, 1), {}, "")) + _unsupported_values(config)
    return replace(config, ignored=ignored)


def _unsupported_values(config: RunConfig) -> tuple[str, ...]:
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
    found = value_at(root, path)
    return "" if found is None else found.text(f"`{'.'.join(path)}`")


def _texts(value: Value | None, what: str, default: tuple[str, ...] = ()) -> tuple[str, ...]:
    if value is None:
        return default
    if not isinstance(value.data, list):
        raise refuse(value, f"{what} has to be a list, not {kind(value)}.", "Write a line `- …` under it for each.")
    # As on a command line, an empty value is an empty text.
    return tuple("" if item.data is None else _process_text(item, f"An entry of {what}") for item in value.data)


def _parse_variables(value: Value | None, what: str) -> dict[str, str]:
    texts = dict[str, str]()
    for name, item in value.mapping(what).items() if value is not None else ():
        if not name or "=" in name or "\0" in name:
            problem = f"`{_printable(name)}` cannot be the name of an environment variable, as in {what}."
            raise refuse(item, problem, "Correct it: letters, digits and _.")
        # An empty value, as `NAME=` in a .env file.
        texts[name] = "" if item.data is None else _process_text(item, f"`{name}` in {what}")
    keep_variables(texts)
    return texts


def _process_text(value: Value, what: str) -> str:
    """A text that is passed to a process, which cannot contain a NUL."""
    text = value.text(what)
    if "\0" in text:
        raise refuse(value, f"{what} has a NUL in it, which no process can be given.", "Take the NUL out.")
    return text


def _printable(text: str) -> str:
    return text.replace("\0", "\\0")


def _boolean(root: Value, path: tuple[str, ...], default: bool) -> bool:
    found = value_at(root, path)
    if found is None:
        return default
    text = found.text(f"`{'.'.join(path)}`")
    if text.lower() not in ("true", "false"):  # the SDK takes `no` for true
        raise refuse(found, f"`{'.'.join(path)}` has to be true or false, not `{text}`.", "Correct that line.")
    return text.lower() == "true"


def _number(root: Value, path: tuple[str, ...]) -> int | None:
    found = value_at(root, path)
    if found is None:
        return None
    text = found.text(f"`{'.'.join(path)}`")
    if not text.isascii() or not text.isdigit() or len(text) > 9 or int(text) < 1:
        problem = f"`{'.'.join(path)}` has to be a number from 1, not `{shorten(text)}`."
        raise refuse(found, problem, "Correct that line.")
    return int(text)


def _conda(root: Value) -> dict[str, Any] | None:
    found = value_at(root, KEY_PATHS["conda"])
    if found is None or value_at(root, KEY_PATHS["conda_file"]) is not None:
        return None
    found.mapping("`environment.python.condaDependencies`")
    plain: dict[str, Any] = found.plain()
    keep_conda_variables(plain)
    return plain


def _variables(root: Value, places: dict[str, Value]) -> dict[str, str]:
    variables = dict[str, str]()
    for path in reversed(VARIABLES):
        found = value_at(root, path)
        for name, text in _parse_variables(found, f"`{'.'.join(path)}`").items():
            assert found is not None
            if len(path) == 1 or (name, text) != PLACEHOLDER:
                variables[name] = text
                places[f"variables.{name}"] = found.data[name]
    return variables


def _shm_size(root: Value) -> str:
    chosen = ""
    for path in (OLDER_KEY_PATHS["shm_size"], KEY_PATHS["shm_size"]):
        found = value_at(root, path)
        if found is not None and (text := _text(root, path)):
            memory_size(found, f"`{'.'.join(path)}`")
            chosen = text if text != DEFAULT_SHM_SIZE else chosen
    return chosen or DEFAULT_SHM_SIZE


def _data(root: Value, places: dict[str, Value]) -> dict[str, str]:
    data = dict[str, str]()
    found = root.get("data")
    for key, entry in found.mapping("`data`").items() if found is not None else ():
        entry.mapping(f"`data.{key}`")
        path = value_at(entry, ("dataLocation", "uri", "path"))
        if path is not None and scheme(path.text(f"`data.{key}.dataLocation.uri.path`")) in ("", "azureml"):
            name = data_name(key, entry)
            data[name] = path.text("")
            places[f"data.{name}"] = path
    return data


def _not_acted_on(root: Value, config: RunConfig) -> Iterator[str]:
    yield from _set_keys(root, _UNSET, "")
    if config.conda_file and value_at(root, KEY_PATHS["conda"]) is not None:
        yield ".".join(KEY_PATHS["conda"])
    for section in ("mpi", "pytorch"):
        # The SDK's own helpers write the number of nodes twice.
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


def _set_keys(value: Value, unset: Any, name: str) -> Iterator[str]:
    """The names of the keys whose values differ from the defaults."""
    if unset is _ANY or value.data in (None, "", [], {}):
        return
    if isinstance(value.data, dict) and not isinstance(unset, list):
        for key, item in value.data.items():
            inner = unset.get(key, {}) if isinstance(unset, dict) else {}
            yield from _set_keys(item, inner, f"{name}.{key}".lstrip("."))
        return
    data = value.plain()
    if not isinstance(unset, list) or (data.lower() if isinstance(data, str) else data) not in unset:
        yield name
