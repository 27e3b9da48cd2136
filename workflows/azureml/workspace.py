"""Finds the workspace that is set, signs in by SDK v1, and connects to it.

:func:`connect` returns the SDK's own Workspace, which must not leave this package.
"""

from __future__ import annotations

import json
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import UserError
from ..paths import shown
from ..reading import line_at, read_text
from ..redaction import keep_secret
from ..settings import ServicePrincipal, Settings, service_principal
from . import sdk
from .custom_sign_in import call_factory
from .errors import SIGNING_IN, NotFound, Report, Unreachable, attempt

if TYPE_CHECKING:
    from azureml.core import Workspace

#: Where the SDK looks for config.json, in this order, each in the project's folder and then in its parent folders
#: (azureml.core.Workspace.from_config).
_PLACES = (".azureml/config.json", "aml_config/config.json", "config.json")
_CONFIGURATION = {
    "subscription_id": ("AML_SUBSCRIPTION_ID", "subscription_id"),
    "resource_group": ("AML_RESOURCE_GROUP", "resource_group"),
    "workspace": ("AML_WORKSPACE", "workspace_name"),
}


@dataclass(frozen=True)
class WorkspaceName:
    """Which workspace is meant.

    Attributes:
        subscription_id: The subscription's id.
        resource_group: The resource group's name.
        workspace: The workspace's name.
        source: The config.json that it was read from; None where the settings name all of it.
    """

    subscription_id: str
    resource_group: str
    workspace: str
    source: Path | None = None

    def __str__(self) -> str:
        return f"{self.workspace} (resource group {self.resource_group}, subscription {self.subscription_id})"


def find_workspace(settings: Settings) -> WorkspaceName:
    """The workspace of the settings; what is not set is read from Azure's config.json.

    Raises:
        UserError: None is named, or config.json is broken.
    """
    values: dict[str, str | None] = {field: getattr(settings, field) for field in _CONFIGURATION}
    source = None if all(values.values()) else _find_configuration(settings.project)
    if source is not None:
        stored = _read_configuration(source)
        values = {field: value or stored[field] for field, value in values.items()}
    missing = [_CONFIGURATION[field][0] for field, value in values.items() if not value]
    if len(missing) == len(values):
        raise UserError(
            "No Azure ML workspace is named.",
            "Set AML_SUBSCRIPTION_ID, AML_RESOURCE_GROUP and AML_WORKSPACE, or download config.json from"
            " https://ml.azure.com into the project's folder.",
        )
    if missing:
        where = f" and {shown(source)} does not have it" if source else " and there is no config.json"
        raise UserError(
            f"The Azure ML workspace is not named in full: {', '.join(missing)} is not set{where}.",
            f"Set {', '.join(missing)}.",
        )
    return WorkspaceName(**{field: str(value) for field, value in values.items()}, source=source)


def is_named(settings: Settings) -> bool:
    """Whether the settings or a config.json name a workspace."""
    named = any(getattr(settings, field) for field in _CONFIGURATION)
    return named or _find_configuration(settings.project) is not None


def connect(settings: Settings, report: Report = lambda line: None) -> Workspace:
    """Sign in and look up the workspace.

    Args:
        settings: Which workspace, and who signs in.
        report: Called with what is being waited for.

    Returns:
        The SDK's Workspace.

    Raises:
        UserError: The SDK is missing, no workspace is set or it does not exist, nobody is signed in, the permission is
            missing, or the service cannot be reached.
    """
    name = find_workspace(settings)
    sdk.load()
    return open_workspace(name, sign_in(settings, report), report)


def open_workspace(name: WorkspaceName, authentication: Any, report: Report) -> Workspace:
    """Look up a workspace; see :func:`connect`."""
    from azureml.core import Workspace

    def get() -> Workspace:
        with sdk.prints_to_standard_error():
            found: Any = Workspace.get(
                name=name.workspace,
                auth=authentication,
                subscription_id=name.subscription_id,
                resource_group=name.resource_group,
            )
        if found._workspace_autorest_object is None:
            # The SDK does not raise an error for a failed connection; every later request would fail.
            raise Unreachable("the connection was closed or refused")
        return found

    try:
        return attempt(get, "reading the workspace", report)
    except NotFound as error:
        raise _workspace_not_found(name, error) from error
    except UserError as error:
        if "subscription" in error.problem and "have access to" in error.problem:
            raise UserError(
                f"You have no access to the subscription {name.subscription_id}, or it does not exist.",
                f"Correct {_source_of(name, 'AML_SUBSCRIPTION_ID')}, or sign in as somebody who has (az login).",
            ) from error
        raise


def _workspace_not_found(name: WorkspaceName, error: UserError) -> UserError:
    return NotFound(
        f"There is no Azure ML workspace {name}.",
        f"Correct {_source_of(name, 'AML_WORKSPACE, AML_RESOURCE_GROUP')}; `az ml workspace list` has those there are.",
    )


def _source_of(name: WorkspaceName, variables: str) -> str:
    return f"{variables} or {shown(name.source)}" if name.source else variables


def sign_in(settings: Settings, report: Report) -> Any:
    """The SDK's authentication object that AML_AUTH asks for.

    Raises:
        UserError: What it needs is missing, or signing in failed.
    """

    def make() -> Any:
        if ":" in settings.auth:
            return _own_authentication(settings)
        if settings.auth == "service-principal":
            return _service_principal(service_principal(settings.project))
        return _managed_identity() if settings.auth == "managed-identity" else _interactive()

    def made() -> Any:
        with sdk.prints_to_standard_error():
            authentication = make()
            # Azure is not contacted before the first token is requested.
            authentication.get_authentication_header()
        return authentication

    return attempt(made, SIGNING_IN, report)


def _interactive() -> Any:
    from azureml.core import authentication

    if not sys.stdin.isatty():
        # It would open a browser, or wait for a code that nobody enters.
        authentication.perform_interactive_login = _refuse_login
    kind: Any = authentication.InteractiveLoginAuthentication
    return kind()


def _refuse_login(*_: object, **__: object) -> None:
    raise UserError(
        "You are not signed in to Azure, and there is no terminal to sign in from.",
        "Sign in first (az login), or set AML_AUTH=service-principal or managed-identity.",
    )


def _service_principal(principal: ServicePrincipal) -> Any:
    from azureml.core.authentication import ServicePrincipalAuthentication

    keep_secret(principal.client_secret)
    return ServicePrincipalAuthentication(
        tenant_id=principal.tenant_id,
        service_principal_id=principal.client_id,
        service_principal_password=principal.client_secret,
    )


def _managed_identity() -> Any:
    from azureml.core.authentication import MsiAuthentication

    return MsiAuthentication()


def _own_authentication(settings: Settings) -> Any:
    """What `MODULE:FACTORY` in AML_AUTH makes: any AbstractAuthentication of azureml-core."""
    from azureml.core.authentication import AbstractAuthentication

    return call_factory(
        settings,
        lambda made: isinstance(made, AbstractAuthentication),
        "an azureml.core.authentication object",
        "not an authentication",
    )


def _find_configuration(project: Path) -> Path | None:
    for place in _PLACES:
        for folder in (project, *project.parents):
            if (folder / place).is_file():
                return folder / place
    return None


def _read_configuration(path: Path) -> dict[str, str | None]:
    remedy = "Download it again from https://ml.azure.com, or correct it."
    try:
        found = json.loads(read_text(path, "utf-8-sig"))
    except json.JSONDecodeError as error:
        raise UserError(f"This is not JSON: {error.msg}.", remedy, file=shown(path), line=error.lineno) from error
    except RecursionError as error:
        raise UserError("This file is nested too deeply.", remedy, file=shown(path), line=1) from error
    except UnicodeDecodeError as error:
        line = line_at(error.object, error.start)
        raise UserError("This file is not UTF-8.", remedy, file=shown(path), line=line) from error
    except (OSError, ValueError) as error:
        raise UserError(f"This file cannot be read: {error}.", remedy, file=shown(path)) from error
    if not isinstance(found, dict):
        raise UserError("This file names no workspace.", remedy, file=shown(path))
    values: dict[str, str | None] = {}
    for field, (_, key) in _CONFIGURATION.items():
        value = found.get(key)
        if value is not None and not isinstance(value, str):
            raise UserError(f"{key} is not a string.", remedy, file=shown(path))
        values[field] = value or None
    return values
