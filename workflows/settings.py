"""The settings, resolved once: flag, then environment variable, then `.env`, then default.

:data:`workflows.settings_table.SETTINGS` is the single list of them.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from .errors import BadValue, UserError
from .paths import shown
from .server_variables import SERVER_VARIABLES
from .settings_table import BY_FIELD, SETTINGS

#: Default files of settings, looked for in the project and then among the program's own.
DEFAULT_PLACES: Mapping[str, str] = {
    "inference_env": "env/inference",
    "training_env": "env/training",
    "score_script": "examples/deployment/score.py",
    "pipeline_file": "examples/pipeline/pipeline.yml",
}
#: The Azure SDK's usual variables of a service principal.
SERVICE_PRINCIPAL = ("AZURE_TENANT_ID", "AZURE_CLIENT_ID", "AZURE_CLIENT_SECRET")


def packaged_defaults() -> Path:
    """The folder that holds the `env/` and `examples/` that come with the program."""
    inside = Path(__file__).parent / "_defaults"
    return inside if inside.is_dir() else Path(__file__).parent.parent


@dataclass(frozen=True)
class Settings:
    """Every setting, resolved. Paths are absolute; what is not set is None.

    Attributes:
        project: The folder of tasks.py.
        set_by: What set each field that is not at its default.
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
        """Whether failing programs write a snapshot."""
        return self.snapshots == "on"

    @property
    def describes_values(self) -> bool:
        """Whether debuggers show descriptions of tensors and tables instead of their `repr`."""
        return self.summaries == "on"

    @property
    def source_root(self) -> Path:
        """The folder of code that the service runs, which is also its working folder."""
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
    """The entry script, relative to the source folder; the resolved path if only that is in the folder."""
    inside = _expanded(text, folder)
    return value if value is not None and not inside.exists() and value.is_relative_to(folder) else inside


def log_level(project: Path, environ: Mapping[str, str] | None = None) -> str:
    """AML_LOG alone, before the settings are resolved; errors in it, or in others, are reported then.

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
    """The credentials for AML_AUTH=service-principal.

    Attributes:
        tenant_id: The directory's id.
        client_id: The application's id.
        client_secret: Its secret, which is not in the ``repr``.
    """

    tenant_id: str
    client_id: str
    client_secret: str = field(repr=False)


def service_principal(project: Path, environ: Mapping[str, str] | None = None) -> ServicePrincipal:
    """Read the service principal from the Azure SDK's usual variables, in the environment or in `.env`.

    It is not in :class:`Settings`, so that code that shows or passes on settings cannot leak it.

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
    """The file's variables with this prefix, with their lines; empty if there is no such file."""
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
