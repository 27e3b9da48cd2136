"""The table of settings: `.env.example`, the tasks' flags and the validation all come from it.

:mod:`workflows.settings` resolves them. It is a module of its own because `inv --list` needs only the flags.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any


def _text(value: str) -> str:
    return value


def _one_of(*choices: str) -> Callable[[str], str]:
    def read(value: str) -> str:
        if value not in choices:
            raise ValueError(f"must be {', '.join(choices[:-1])} or {choices[-1]}")
        return value

    return read


def _port(value: str) -> int:
    if not value.isascii() or not value.isdigit() or int(value[:9]) > 65535:
        raise ValueError("must be a port number, 0 to 65535 (0: a free one)")
    return int(value)


def _remote_port(value: str) -> int:
    if not value.isascii() or not value.isdigit() or not 1 <= int(value[:9]) <= 65535:
        raise ValueError("must be a port number, 1 to 65535")
    return int(value)


def _seconds(value: str) -> int:
    if not value.isascii() or not value.isdigit() or len(value) > 7:
        raise ValueError("must be a whole number of seconds")
    return int(value)


def _megabytes(value: str) -> int:
    if not value.isascii() or not value.isdigit() or len(value) > 9:
        raise ValueError("must be a whole number of megabytes")
    return int(value)


def _auth(value: str) -> str:
    own = r"[^\W\d]\w*(\.[^\W\d]\w*)*:[^\W\d]\w*"
    if value not in ("interactive", "service-principal", "managed-identity") and not re.fullmatch(own, value):
        raise ValueError("must be interactive, service-principal, managed-identity or MODULE:FACTORY")
    return value


def _pattern(value: str) -> str:
    try:
        re.compile(value)
    except (re.error, RecursionError, OverflowError) as error:
        raise ValueError(f"must be a regular expression ({error})") from error
    return value


def _matching(pattern: str, meaning: str) -> Callable[[str], str]:
    def read(value: str) -> str:
        if not re.fullmatch(pattern, value):
            raise ValueError(f"must be {meaning}")
        return value

    return read


@dataclass(frozen=True)
class Setting:
    """One row of the table.

    Attributes:
        variable: Name of the environment variable.
        default: The default as you would type it; empty for none.
        help: Its description, for `.env.example` and the flag's help.
        read: Parses the text; its ValueError says what the value must be.
        path: Whether it is a path, relative to the project's folder in a setting and to
            the current folder on the command line.
        name: Its field, if that differs from the variable's name.
    """

    variable: str
    default: str
    help: str
    read: Callable[[str], Any] = _text
    path: bool = False
    name: str = ""

    @property
    def field(self) -> str:
        """The attribute of :class:`Settings` and the tasks' parameter."""
        return self.name or self.variable.removeprefix("AML_").lower()

    @property
    def flag(self) -> str:
        """The flag on the command line."""
        return "--" + self.field.replace("_", "-")


_TAG = r"[a-z0-9]+(?:(?:[._/-]|__)[a-z0-9]+)*(?::[\w][\w.-]{0,127})?"
_NAME = r"[a-zA-Z0-9][a-zA-Z0-9_.-]+"

SETTINGS: tuple[Setting, ...] = (
    Setting(
        "AML_ENGINE",
        "auto",
        "where services and steps run: docker, process, or auto (Docker if an engine answers, else processes)",
        _one_of("auto", "docker", "process"),
    ),
    Setting(
        "AML_BACKEND", "local", "where pipelines and experiments run: local or azureml", _one_of("local", "azureml")
    ),
    Setting("AML_SCORE_SCRIPT", "", "entry script; the service runs its folder", path=True),
    Setting(
        "AML_SOURCE_DIR",
        "",
        "folder that the service runs, if it is not the entry script's; name the script from there",
        path=True,
        name="source_directory",
    ),
    Setting("AML_MODEL_DIR", "", "model folder; the service finds it at AZUREML_MODEL_DIR", path=True),
    Setting(
        "AML_DEPLOYMENT_FILE",
        "",
        "YAML file of an online deployment, which gives the service's code, model, environment and variables",
        path=True,
        name="deployment",
    ),
    Setting("AML_SERVICE_ENV", "", "file with environment variables for the service, one NAME=value a line", path=True),
    Setting(
        "AML_INFERENCE_ENV",
        "",
        "definition of the inference environment: a folder, or a conda or requirements file",
        path=True,
    ),
    Setting(
        "AML_TRAINING_ENV",
        "",
        "definition of the training environment: a folder, or a conda or requirements file",
        path=True,
    ),
    Setting("AML_BASE_IMAGE", "", "base of the images that are built here"),
    Setting(
        "AML_IMAGE_TAG", "debug:1", "tag of the image that is run", _matching(_TAG, "an image name such as debug:1")
    ),
    Setting("AML_CONTAINER_NAME", "debug", "name of the container", _matching(_NAME, "a container name such as debug")),
    Setting("AML_SCORING_PORT", "8000", "port of the service on 127.0.0.1; 0 takes a free one", _port),
    Setting("AML_DEBUG_PORT", "5678", "port for debuggers on 127.0.0.1; 0 takes a free one", _port),
    Setting("AML_DEBUG_TIMEOUT", "300", "seconds that a program waits for a debugger before it goes on", _seconds),
    Setting(
        "AML_SNAPSHOT",
        "on",
        "whether a failure leaves a snapshot of its frames and variables beside its logs: on or off",
        _one_of("on", "off"),
        name="snapshots",
    ),
    Setting(
        "AML_SNAPSHOT_REDACT",
        "",
        "regular expression of names whose values are left out of snapshots, besides those that look secret",
        _pattern,
    ),
    Setting(
        "AML_SUMMARIES",
        "on",
        "whether debuggers show tensors, arrays and data frames by shape, range, NaN and first values: on or off",
        _one_of("on", "off"),
    ),
    Setting(
        "AML_LOG",
        "debug",
        "what is written to .azureml-debug/log.txt: off, info, or debug (requests to the engine and tracebacks, too)",
        _one_of("off", "info", "debug"),
    ),
    Setting("AML_PIPELINE_FILE", "", "pipeline, component, job or schedule of Azure ML", path=True),
    Setting("AML_SUBSCRIPTION_ID", "", "subscription of the workspace; an Azure config.json can name it, too"),
    Setting("AML_RESOURCE_GROUP", "", "resource group of the workspace"),
    Setting("AML_WORKSPACE", "", "name of the workspace"),
    Setting("AML_COMPUTE_TARGET", "", "name of the compute target"),
    Setting(
        "AML_AUTH",
        "interactive",
        "how you sign in: interactive, service-principal, managed-identity, or MODULE:FACTORY, a credential of yours",
        _auth,
    ),
    Setting(
        "AML_SDK",
        "auto",
        "SDK for the workspace: v2, v1, or auto (v2 if azure-ai-ml is installed)",
        _one_of("auto", "v2", "v1"),
    ),
    Setting(
        "AML_DOWNLOAD_MB",
        "500",
        "megabytes of data or of a model that are downloaded from a workspace without asking",
        _megabytes,
    ),
    Setting(
        "AML_REACH",
        "auto",
        "way to a step in a workspace: relay (the job's own ssh service), network, or auto (relay, then network)",
        _one_of("auto", "relay", "network"),
    ),
    Setting(
        "AML_REMOTE_HOST",
        "",
        "machine of --remote: an address, azureml:NAME for a compute instance of the workspace, or a Host of"
        " ~/.ssh/config",
    ),
    Setting("AML_REMOTE_PORT", "", "SSH port of the machine of --remote; 50000 on compute instances", _remote_port),
    Setting("AML_REMOTE_USER", "", "user on the machine of --remote; azureuser on compute instances"),
    Setting("AML_REMOTE_KEY", "", "private key file, or the public half of a key that the agent has", path=True),
    Setting("AML_REMOTE_DIR", "", "folder of the project there, ~ and $HOME included; default: below ~/azureml-debug"),
    Setting("AML_REMOTE_GATEWAY", "", "machine that SSH goes through, user@host:port"),
    Setting("AML_REMOTE_PYTHON", "", "Python on the machine of --remote: a file, or an environment's folder"),
)

BY_FIELD: Mapping[str, Setting] = {setting.field: setting for setting in SETTINGS}
