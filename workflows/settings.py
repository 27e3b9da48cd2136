"""Settings: flag, then environment variable, then `.env`, then default; resolved once.

The table :data:`SETTINGS` is the single list of them: `.env.example`, the flags of the
tasks and the validation all come from it.
"""

from __future__ import annotations

import contextlib
import os
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from .errors import BadValue, UserError
from .paths import shown
from .server_variables import SERVER_VARIABLES


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
        default: Its default as it would be typed; empty for none.
        help: What it means, for `.env.example` and the flag's help.
        read: Turns text into the value; ValueError says what it must be.
        path: Whether it is a path, relative to the project's folder in a setting and to
            the current folder on the command line.
        name: Its field, where that is not the variable's name.
    """

    variable: str
    default: str
    help: str
    read: Callable[[str], Any] = _text
    path: bool = False
    name: str = ""

    @property
    def field(self) -> str:
        """Its name as an attribute of :class:`Settings` and as a task's parameter."""
        return self.name or self.variable.removeprefix("AML_").lower()

    @property
    def flag(self) -> str:
        """Its flag on the command line."""
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

#: Where the files of a setting that is not set are looked for: in the project, then among those of the program.
DEFAULT_PLACES: Mapping[str, str] = {
    "inference_env": "env/inference",
    "training_env": "env/training",
    "score_script": "examples/deployment/score.py",
    "pipeline_file": "examples/pipeline/pipeline.yml",
}
#: The Azure SDK's usual variables of a service principal.
SERVICE_PRINCIPAL = ("AZURE_TENANT_ID", "AZURE_CLIENT_ID", "AZURE_CLIENT_SECRET")

BY_FIELD: Mapping[str, Setting] = {setting.field: setting for setting in SETTINGS}


def packaged_defaults() -> Path:
    """The folder that holds the `env/` and `examples/` that come with the program."""
    inside = Path(__file__).parent / "_defaults"
    return inside if inside.is_dir() else Path(__file__).parent.parent


@dataclass(frozen=True)
class Settings:
    """Every setting, resolved. Paths are absolute; what is not set is None.

    Attributes:
        project: The folder of tasks.py.
        set_by: For each field that is not at its default, what set it.
    """

    project: Path
    engine: str
    backend: str
    score_script: Path
    source_directory: Path | None
    model_dir: Path | None
    deployment: Path | None
    service_env: Path | None
    inference_env: Path
    training_env: Path
    base_image: str | None
    image_tag: str
    container_name: str
    scoring_port: int
    debug_port: int
    debug_timeout: int
    snapshots: str
    snapshot_redact: str | None
    summaries: str
    log: str
    pipeline_file: Path
    subscription_id: str | None
    resource_group: str | None
    workspace: str | None
    compute_target: str | None
    auth: str
    sdk: str
    download_mb: int
    reach: str
    remote_host: str | None
    remote_port: int | None
    remote_user: str | None
    remote_key: Path | None
    remote_dir: str | None
    remote_gateway: str | None
    remote_python: str | None
    set_by: Mapping[str, str]

    @property
    def leaves_snapshots(self) -> bool:
        """Whether what fails leaves a snapshot."""
        return self.snapshots == "on"

    @property
    def describes_values(self) -> bool:
        """Whether debuggers are shown descriptions of tensors and tables in place of their `repr`."""
        return self.summaries == "on"

    @property
    def source_root(self) -> Path:
        """The folder that the service runs: that of its code, and its working folder."""
        return self.source_directory or self.score_script.parent


def resolve(
    project: Path,
    flags: Mapping[str, str | None] | None = None,
    *,
    environ: Mapping[str, str] | None = None,
    cwd: Path | None = None,
) -> Settings:
    """Resolve every setting.

    Args:
        project: The folder of tasks.py.
        flags: Values typed on the command line, by field name; None for not typed.
        environ: The environment variables.
        cwd: The current folder.

    Raises:
        BadValue: A flag's value cannot be read.
        UserError: A value in the environment or in `.env` cannot be read, or `.env` is broken.
    """
    from .redaction import keep_addresses

    environ = os.environ if environ is None else environ
    cwd = Path.cwd() if cwd is None else cwd
    env_file = project / ".env"
    stored = _read_env_file(env_file)
    values: dict[str, Any] = {}
    set_by: dict[str, str] = {}
    script = "score.py"
    for setting in SETTINGS:
        typed = (flags or {}).get(setting.field)
        if typed is not None:
            text, source, base = typed, setting.flag, cwd
        elif environ.get(setting.variable):
            text, source, base = environ[setting.variable], setting.variable, project
        elif stored.get(setting.variable, ("", 0))[0]:
            text, source, base = stored[setting.variable][0], str(env_file), project
        else:
            text, source, base = setting.default, "", project
        if not text and source != setting.flag:
            values[setting.field] = None
            continue
        keep_addresses(text)
        if source:
            set_by[setting.field] = source
        try:
            if not text:
                raise ValueError("must not be empty")
            if "\0" in text:
                raise ValueError("must not have a NUL in it")
            value = _expanded(text, base) if setting.path else setting.read(text)
            if setting.field == "score_script":
                script = text
        except ValueError as error:
            problem = f"{setting.variable} {error}, not {text!r}."
            if source == setting.flag:
                raise BadValue(
                    f"{setting.flag} {error}, not {text!r}.", f"Correct the value after {setting.flag}."
                ) from error
            if source == setting.variable:
                raise UserError(problem, f"Correct or unset the environment variable {setting.variable}.") from error
            line = stored[setting.variable][1]
            raise UserError(problem, "Correct this line of .env.", file=shown(env_file), line=line) from error
        values[setting.field] = value
    if values["source_directory"] is not None:
        values["score_script"] = _script_in(values["source_directory"], script, values["score_script"])
    defaults = packaged_defaults()
    for name, place in DEFAULT_PLACES.items():
        if values[name] is None:
            values[name] = project / place if (project / place).exists() else defaults / place
    return Settings(project=project, set_by=set_by, **values)


def _expanded(text: str, base: Path) -> Path:
    try:
        return Path(os.path.abspath(base / Path(text).expanduser()))
    except RuntimeError as error:
        raise ValueError("names a user whose home folder the system does not know") from error


def _script_in(folder: Path, text: str, value: Path | None) -> Path:
    """The entry script as it is named from the source folder, or as any other path is where only that is in it."""
    inside = _expanded(text, folder)
    return value if value is not None and not inside.exists() and value.is_relative_to(folder) else inside


def log_level(project: Path, environ: Mapping[str, str] | None = None) -> str:
    """AML_LOG alone, before the settings are looked at: what is wrong with it, or with others, is said then.

    Args:
        project: The folder of tasks.py.
        environ: The environment variables.
    """
    setting = BY_FIELD["log"]
    text = (os.environ if environ is None else environ).get(setting.variable)
    with contextlib.suppress(UserError, OSError):
        return text or _read_env_file(project / ".env").get(setting.variable, ("", 0))[0] or setting.default
    return setting.default


@dataclass(frozen=True)
class ServicePrincipal:
    """Who signs in with AML_AUTH=service-principal.

    Attributes:
        tenant_id: The directory's id.
        client_id: The application's id.
        client_secret: Its secret, which is left out of what is shown of this.
    """

    tenant_id: str
    client_id: str
    client_secret: str = field(repr=False)


def service_principal(project: Path, environ: Mapping[str, str] | None = None) -> ServicePrincipal:
    """The service principal of the Azure SDK's usual variables, from the environment or from `.env`.

    It is no part of :class:`Settings`, so that nothing that shows or hands on settings can give it away.

    Args:
        project: The folder of tasks.py.
        environ: The environment variables.

    Raises:
        UserError: One of the variables is not set.
    """
    environ = os.environ if environ is None else environ
    stored = _read_env_file(project / ".env", "AZURE_")
    values = {name: environ.get(name) or stored.get(name, ("", 0))[0] for name in SERVICE_PRINCIPAL}
    missing = [name for name in SERVICE_PRINCIPAL if not values[name]]
    if missing:
        raise UserError(
            f"AML_AUTH=service-principal needs {', '.join(missing)}.",
            "Set it in the environment or in .env, or choose another AML_AUTH.",
        )
    return ServicePrincipal(*values.values())


def _read_env_file(path: Path, prefix: str = "AML_") -> dict[str, tuple[str, int]]:
    """The file's variables that begin so, with their lines; {} where there is no such file."""
    if not path.exists():
        return {}
    from . import env_file

    known = {setting.variable for setting in SETTINGS}
    found: dict[str, tuple[str, int]] = {}
    for entry in env_file.read(path, "settings"):
        if not entry.name.startswith(prefix) or entry.name in SERVER_VARIABLES:
            continue
        if prefix == "AML_" and entry.name not in known:
            import difflib

            close = difflib.get_close_matches(entry.name, known, n=1)
            remedy = f"Did you mean {close[0]}?" if close else "Remove it, or see .env.example for all settings."
            raise UserError(f"{entry.name} is not a setting.", remedy, file=shown(path), line=entry.line)
        found[entry.name] = (entry.value or "", entry.line)
    return found
