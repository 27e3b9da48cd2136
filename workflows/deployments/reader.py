"""Reads and checks a deployment's file; all errors in it are reported at once."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from ..assets import kinds
from ..assets.names import LocalAssets
from ..errors import UserError
from ..formatting import shorten
from ..pipelines.definition import EnvironmentReference
from ..pipelines.environment_field import read_environment
from ..pipelines.yaml_file import Value, did_you_mean, kind, read_yaml
from .assets import read_code, read_model, resolve_environment_name
from .definition import Model, OnlineDeployment, Probe, Route, Routes
from .endpoint import find_deployment
from .problems import Problems
from .variables import notes_on_secrets, read_variables

_KEYS = (
    *("$schema", "name", "endpoint_name", "type", "description", "id", "tags", "properties", "model"),
    *("code_configuration", "environment", "environment_variables", "app_insights_enabled", "scale_settings"),
    *("request_settings", "liveness_probe", "readiness_probe", "startup_probe", "provisioning_state", "instance_count"),
    *("model_mount_path", "instance_type", "data_collector", "resources", "egress_public_network_access"),
    *("private_network_connection", "creation_context"),
)
_PROBE = ("initial_delay", "period", "timeout", "success_threshold", "failure_threshold")
#: Keys of probes that count where the image serves by itself; without them `inference_config` has the route.
_PROBE_ALSO = ("path", "port", "scheme", "method")
_SCHEMES, _METHODS = ("http", "https"), ("GET", "HEAD", "OPTIONS", "POST")
_REQUESTS = ("request_timeout_ms", "max_concurrent_requests_per_instance", "max_queue_wait_ms")
_ROUTES = ("liveness_route", "readiness_route", "scoring_route")
#: Keys for where and how often a deployment runs, which have no meaning on one machine.
_ELSEWHERE = (
    *("instance_count", "instance_type", "scale_settings", "resources", "egress_public_network_access"),
    *("private_network_connection", "data_collector", "app_insights_enabled"),
)
#: Keys without which Azure ML refuses a file.
_WANTED = ("name", "endpoint_name")


def load_deployment(
    file: Path, project: Path, model_dir: Path | None = None, download: Callable[[str], Model] | None = None
) -> OnlineDeployment:
    """Read an online deployment.

    Args:
        file: Its file, absolute.
        project: The project's folder, in which registered names are looked for.
        model_dir: The folder that replaces the model, where one was typed or set.
        download: Downloads a registered model that no file of the project describes; None where that is not possible.

    Raises:
        UserError: It is not a deployment, or something in it is wrong or not on this machine; one error with all.
    """
    problems = Problems()
    root, endpoint_note = find_deployment(read_yaml(file, "deployment file", on_error=problems.add_error))
    file = root.file or file
    problems.files[file] = None
    if kinds.kind_of(root) is not kinds.ONLINE_DEPLOYMENT and not _looks_like_one(root):
        raise kinds.wrong_kind(root, "an online deployment")
    problems.notes += [endpoint_note] if endpoint_note else []
    _check_keys(problems, root.data, _KEYS, "A deployment")
    names = LocalAssets((project, file.parent))
    code, script = _read_code(problems, root)
    model = read_model(problems, root.get("model"), names, model_dir, needed=code is None, download=download)
    environment, routes = _read_environment(problems, root, names)
    serves_itself = routes is not None
    if code is None and not serves_itself and not problems:
        _check_something_serves(problems, root, model)
    variables = read_variables(problems, root.get("environment_variables"))
    readiness = _read_probe(problems, root.get("readiness_probe"), "readiness_probe", serves_itself)
    liveness = _read_probe(problems, root.get("liveness_probe"), "liveness_probe", serves_itself)
    _check_request_settings(problems, root.get("request_settings"))
    mount = _read_model_mount(problems, root, serves_itself)
    for key in _ELSEWHERE:
        _note_ignored(problems, root, key)
    problems.notes += [
        f"Azure ML needs `{key}`, which the file does not have" for key in _WANTED if root.get(key) is None
    ]
    type_ = _read_type(problems, root)
    name, endpoint = (_read_text(problems, root, key) for key in _WANTED)
    problems.check()
    return OnlineDeployment(
        file=file,
        name=name,
        endpoint=endpoint or _find_endpoint(file, name),
        kind=type_,
        code=code,
        script=script,
        model=model,
        model_dir=model_dir,
        environment=environment,
        routes=routes,
        model_mount_path=mount,
        variables=variables,
        readiness=readiness,
        liveness=liveness,
        notes=(*names.notes, *problems.notes, *notes_on_secrets(variables)),
    )


def _check_something_serves(problems: Problems, root: Value, model: Model | None) -> None:
    """Note as wrong that a deployment without code, whose image does not serve by itself, has no MLflow model."""
    if model is None:
        if root.get("model") is None:
            problems.add(
                root,
                "The deployment has neither code nor a model.",
                "Add `code_configuration` with `code` and `scoring_script`, or a `model`.",
            )
    elif not model.is_mlflow and not model.elsewhere:
        problems.add(
            root.get("model") or root,
            f"Nothing serves {model.path.name}: there is no `code_configuration`, it is not an MLflow model (a folder "
            "with MLmodel), and no `inference_config` says how an image serves by itself.",
            "Add `code_configuration` with `code` and `scoring_script`, or `inference_config` to the environment.",
        )


def _read_model_mount(problems: Problems, root: Value, serves_itself: bool) -> str:
    """``model_mount_path``; only an image that serves by itself uses it."""
    mount = _read_text(problems, root, "model_mount_path")
    if mount and serves_itself and (not mount.startswith("/") or "\0" in mount or mount.strip("/") == ""):
        problems.add(
            root.data["model_mount_path"],
            f"`model_mount_path` is a folder of the container, from /, not {shorten(mount)!r}.",
            "Correct that line.",
        )
    return mount


def _read_type(problems: Problems, root: Value) -> str:
    """``managed`` or ``kubernetes``."""
    found = _read_text(problems, root, "type").lower() or "managed"
    if found not in ("managed", "kubernetes"):
        problems.add(root.data["type"], f"`type` is managed or kubernetes, not {found}.", "Correct that line.")
    return found


def _looks_like_one(root: Value) -> bool:
    """Whether a file is a deployment, even without keys that Azure ML needs, such as `endpoint_name`."""
    return kinds.kind_of(root) in (None, kinds.MODEL) and root.get("code_configuration") is not None


def _check_keys(problems: Problems, given: Mapping[str, Value], known: tuple[str, ...], what: str) -> None:
    """Note unknown keys as wrong: Azure ML refuses a file with them."""
    for key, value in given.items():
        if key not in known and not key.startswith((".", "x-")):
            problems.add(value, f"{what} has no key `{key}`.", did_you_mean(key, known))


def _read_mapping(problems: Problems, value: Value | None, known: tuple[str, ...], what: str) -> Mapping[str, Value]:
    """The entries of a mapping; none where the value is something else, which is noted as wrong."""
    if value is None:
        return {}
    if not value.is_mapping:
        problems.add(value, f"{what} has to be a mapping, not {kind(value)}.", "Write `name: value` lines under it.")
        return {}
    entries: Mapping[str, Value] = value.data
    _check_keys(problems, entries, known, what)
    return entries


def _read_text(problems: Problems, root: Value, key: str) -> str:
    return problems.text(root.get(key), f"`{key}`")


def _read_code(problems: Problems, root: Value) -> tuple[Path | None, Path | None]:
    value = root.get("code_configuration")
    entries = _read_mapping(problems, value, ("code", "scoring_script"), "`code_configuration`")
    return (None, None) if not entries or value is None else read_code(problems, value)


def _read_environment(
    problems: Problems, root: Value, names: LocalAssets
) -> tuple[EnvironmentReference | None, Routes | None]:
    value = root.get("environment")
    if value is None:
        return None, None
    with problems.collect_errors(value):
        where = resolve_environment_name(value, names)
        routes = _read_routes(problems, where.get("inference_config"))
        return read_environment(where, "the deployment", problems), routes
    return None, None


def _read_routes(problems: Problems, value: Value | None) -> Routes | None:
    entries = _read_mapping(problems, value, _ROUTES, "`inference_config`")
    if value is None or not value.is_mapping:
        return None
    found: dict[str, Route] = {}
    for key in _ROUTES:
        route = _read_mapping(problems, entries.get(key), ("path", "port"), f"`{key}`")
        if not route.keys() >= {"path", "port"}:
            problems.add(entries.get(key) or value, f"`{key}` needs a `path` and a `port`.", "Add what is missing.")
            continue
        path, port = str(route["path"].data), _read_port(problems, route["port"], f"`{key}`")
        if port is not None:
            found[key] = Route(f"/{path.removeprefix('/')}", port)
    if len(found) < len(_ROUTES):
        return None
    return Routes(found["scoring_route"], found["readiness_route"], found["liveness_route"])


def _read_probe(problems: Problems, value: Value | None, what: str, serves_itself: bool) -> Probe:
    """Read a probe.

    Args:
        problems: Gets the errors and notes.
        value: The probe's mapping.
        what: Its key.
        serves_itself: Whether the image serves by itself, so that the probe may have a path and a port.
    """
    entries = _read_mapping(problems, value, (*_PROBE, *_PROBE_ALSO), f"`{what}`")
    found = {
        key: _read_number(problems, entries, key, what, least=0 if key == "initial_delay" else 1) for key in _PROBE
    }
    bounds: dict[str, Any] = {key: number for key, number in found.items() if number is not None}
    given = [key for key in _PROBE_ALSO if entries.get(key) is not None and entries[key].data is not None]
    if not serves_itself:
        if given:
            keys = ", ".join(f"`{key}`" for key in given)
            problems.notes.append(f"{keys} of `{what}`: the inference server is checked by GET /")
        return Probe(**bounds)
    path = _read_text(problems, value, "path") if value is not None and "path" in given else ""
    port = _read_port(problems, entries["port"], f"`{what}`") if "port" in given else None
    scheme, method = (
        _read_choice(problems, entries[key], key, what, known) if key in given else known[0]
        for key, known in (("scheme", _SCHEMES), ("method", _METHODS))
    )
    path = f"/{path.removeprefix('/')}" if path else ""
    if any(character <= " " or character == "\x7f" for character in path) or not path.isascii():
        problems.add(
            entries["path"], f"`path` of `{what}` is not an HTTP path: {shorten(path)!r}.", "Correct that line."
        )
    return Probe(**bounds, path=path, port=port or 0, scheme=scheme, method=method)


def _read_choice(problems: Problems, value: Value, key: str, what: str, known: tuple[str, ...]) -> str:
    """The known word that a value is, ignoring case; for any other value the first one, with a note."""
    word = str(value.data).strip().lower()
    found = [one for one in known if one.lower() == word]
    if not found:
        problems.notes.append(f"`{key}: {shorten(word)}` of `{what}` is not supported here: {known[0]} is used")
    return (found or [known[0]])[0]


def _read_port(problems: Problems, value: Value, where: str) -> int | None:
    """Read a port; None where the value is not one, which is noted as wrong."""
    port = value.data
    if isinstance(port, str) and port.strip().isdecimal() and len(port) < 10:
        port = int(port)
    if type(port) is not int or not 0 < port < 65536:
        problems.add(value, f"The port of {where} is 1 to 65535, not {port}.", "Correct it.")
        return None
    return port


def _read_number(problems: Problems, entries: Mapping[str, Value], key: str, what: str, least: int) -> int | None:
    value = entries.get(key)
    if value is None or value.data is None:
        return None
    number = value.data
    if isinstance(number, (str, float)):
        try:
            number = int(number)
        except (ValueError, OverflowError):
            number = None
    if type(number) is not int:
        problems.add(
            value, f"`{key}` of `{what}` is a whole number, not {str(value.data)[:60]!r}.", "Correct that line."
        )
        return None
    if not least <= number < 10**9:
        problems.notes.append(f"`{key}: {value.data}` of `{what}` is out of range: the default of Azure ML is used")
        return None
    return number


def _check_request_settings(problems: Problems, value: Value | None) -> None:
    entries = _read_mapping(problems, value, _REQUESTS, "`request_settings`")
    found = {key: _read_number(problems, entries, key, "request_settings", least=1) for key in _REQUESTS}
    if found["request_timeout_ms"] is not None:
        problems.notes.append(
            f"`request_timeout_ms: {found['request_timeout_ms']}` does not end requests while a service is debugged"
        )
    at_once = found["max_concurrent_requests_per_instance"]
    if at_once is not None and at_once > 1:
        problems.notes.append(
            f"`max_concurrent_requests_per_instance: {at_once}`: one worker serves while a service is debugged"
        )


def _note_ignored(problems: Problems, root: Value, key: str) -> None:
    value = root.get(key)
    if value is None or (key == "instance_count" and str(value.data).strip() == "1"):
        return
    if key in ("instance_count", "scale_settings"):
        problems.notes.append(f"`{key}`: one instance runs here")
    elif key == "egress_public_network_access" and str(value.data).lower() == "disabled":
        problems.notes.append("`egress_public_network_access: disabled`: the service reaches the network here")
    elif key in ("data_collector", "app_insights_enabled") and value.data is not False:
        problems.notes.append(f"`{key}`: nothing is collected here")


def _find_endpoint(file: Path, name: str) -> str:
    """The name of the only endpoint with a file beside a deployment's, or of the only one that names the deployment."""
    found: list[tuple[str, bool]] = []
    for one in sorted([*file.parent.glob("*.yml"), *file.parent.glob("*.yaml")]):
        if one == file:
            continue
        try:
            root = read_yaml(one, "file")
        except UserError:
            continue
        if kinds.kind_of(root) is kinds.ONLINE_ENDPOINT and root.get("name") is not None:
            traffic = root.get("traffic")
            names = set(traffic.data) if traffic is not None and traffic.is_mapping else set()
            found.append((str(root.data["name"].data), name in names))
    named = [endpoint for endpoint, names_it in found if names_it]
    fitting = named or [endpoint for endpoint, _ in found]
    return fitting[0] if len(fitting) == 1 else ""
