"""Finds a compute instance in its workspace, reads its state, and connects to it through its own websocket.

It works like ``az ml compute connect-ssh`` (Azure/azure-cli-extensions, azext_mlv2/manual/custom: compute.py,
_ssh_command.py and _ssh_connector.py): the address is that of the instance's Jupyter with port 22, the token is one for
the resource manager, the user is azureuser, and the public half of the key was given to Azure when the instance was
created.
"""

from __future__ import annotations

import importlib.util
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from ...errors import UserError
from ...received import Refused, display_text, message, one_line, web_address
from ..errors import NotAllowed, NotFound, Report, SignInRefused, attempt, status_of
from ..history import child_object
from ..limited_requests import fetch_response
from ..sdk import install_command, version_of
from . import tokens
from .container import PATH, as_websocket
from .websocket_stream import RelayRefused, connect

if TYPE_CHECKING:
    from ...remote.instances import Instance

#: The version of the resource manager's API.
_VERSION = "2023-10-01"
#: The path of the websocket to an instance's SSH server, below the address of its Jupyter.
_PATH = f"{PATH}/port/22"
#: Seconds for the websocket to answer: the relay may take half a minute the first time.
ANSWER_SECONDS = 40.0
#: Seconds after which a slow connection is reported.
_SAY_AFTER = 3.0
#: Pauses, in seconds, before the websocket is tried again after an error that may be transient.
_PAUSES = (1.0, 2.0, 4.0)
_PACKAGES = {"websocket-client": "websocket", "azure-identity": "azure.identity", "tenacity": "tenacity"}
_STOPPED = ("Stopped", "Stopping")
_COMING = ("Creating", "Starting", "Restarting", "SettingUp", "UserSettingUp")
_GONE = ("CreateFailed", "Deleting", "Unusable")


@dataclass(frozen=True)
class InstanceState:
    """The state of a compute instance, as Azure describes it.

    Attributes:
        state: `Running`, `Stopped`, …
        endpoint: The address of its Jupyter; empty where it has none.
        public_key: The public key that it accepts; empty where Azure knows of none.
        owner: Its owner's name; empty where that is the signed-in user.
    """

    state: str
    endpoint: str
    public_key: str
    owner: str


def require_packages(auth: str) -> str:
    """Check that the required packages are installed; returns their versions as text.

    Args:
        auth: The value of AML_AUTH: the user's own credential needs no azure-identity.

    Raises:
        UserError: A package is missing.
    """
    wanted = [name for name in _PACKAGES if ":" not in auth or name != "azure-identity"]
    missing = [name for name in wanted if not _is_there(_PACKAGES[name])]
    if missing:
        verb = "is" if len(missing) == 1 else "are"
        raise UserError(f"{' and '.join(missing)} {verb} not installed.", f"Install the extra: {install_command('v2')}")
    return ", ".join(f"{name} {version_of(name) or ''}".strip() for name in wanted if name != "tenacity")


def _is_there(module: str) -> bool:
    try:
        return importlib.util.find_spec(module) is not None
    except ModuleNotFoundError:
        return False


@contextmanager
def _of_azure() -> Iterator[None]:
    """Name Azure as the sender of an invalid response, which something else may have sent."""
    try:
        yield
    except Refused as error:
        raise UserError(
            Refused(error.what, "Azure").problem,
            "Something else may have answered in its place: see to the network and a proxy (HTTPS_PROXY).",
        ) from error


@_of_azure()
def look_up_workspace(instance: Instance, report: Report | None = None) -> None:
    """Check that the instance's workspace exists.

    Raises:
        UserError: It does not, or the request failed.
    """
    try:
        _get(instance, "", "reading the workspace", report)
    except NotFound as error:
        raise _no_workspace(instance) from error


@_of_azure()
def look_up(instance: Instance, report: Report | None = None) -> InstanceState:
    """Look up the state of an instance.

    Args:
        instance: The instance.
        report: Called with what is being waited for; None where the caller retries by itself.

    Raises:
        UserError: There is no such instance, or the request failed.
    """
    try:
        response = _get(instance, f"/computes/{instance.name}", f"reading the compute instance {instance.name}", report)
    except NotFound as error:
        raise _not_found(instance, "does not exist", report) from error
    compute = child_object(response, "properties")
    if compute.get("computeType") != "ComputeInstance":
        kind = display_text(compute.get("computeType") or "", "a kind of compute", 60) or "something else"
        raise _not_found(instance, f"is not a compute instance but {kind}", report)
    own = child_object(compute, "properties")
    endpoint = ""
    for one in own.get("applications") or []:
        if isinstance(one, dict) and one.get("displayName") == "Jupyter":
            endpoint = web_address(one.get("endpointUri"), "the address of its Jupyter")
    return InstanceState(
        state=display_text(own.get("state") or "", "a state", 60),
        endpoint=endpoint,
        public_key=one_line(
            str(child_object(own, "sshSettings").get("adminPublicKey") or "").strip(), "a public key", 16384
        ),
        owner=_owner(own, tokens.claims(instance)),
    )


def require_usable(instance: Instance, found: InstanceState) -> None:
    """Check that an instance can be reached as it is now.

    Raises:
        UserError: It cannot.
    """
    if found.state in _STOPPED:
        raise UserError(
            f"The compute instance {instance.name} is {found.state.lower()}.",
            f"Start it under Compute on https://ml.azure.com, or: az ml compute start {instance.named_for_az}",
        )
    if found.state in _COMING:
        raise UserError(
            f"The compute instance {instance.name} has not started yet: {found.state}.",
            "Run this again in some minutes.",
        )
    if found.state in _GONE:
        raise UserError(
            f"The compute instance {instance.name} cannot be used: {found.state}.",
            "See it under Compute on https://ml.azure.com; you may have to create it again.",
        )
    if not found.endpoint:
        state = found.state or "its state is not told"
        raise UserError(
            f"Azure gives no address for the compute instance {instance.name} ({state}).",
            f"Restart it: az ml compute restart {instance.named_for_az}",
        )
    if not found.endpoint.startswith("https://"):
        raise UserError(
            f"The address of the compute instance {instance.name} is not encrypted: {found.endpoint}.",
            "No token was sent there; ask the administrator of the workspace.",
        )


def open_stream(instance: Instance, found: InstanceState, report: Report | None = None) -> socket.socket:
    """A socket that leads to an instance's SSH server.

    Args:
        instance: The instance.
        found: Its state.
        report: As for :func:`look_up`.

    Raises:
        UserError: The connection was refused, or nothing answers.
    """
    address = websocket_address(found.endpoint)
    held, pauses = tokens.token(instance), list(_PAUSES if report is not None else ())
    renewed = False
    while True:
        try:
            with _report_when_slow(
                report, f"{instance} has not answered yet; waiting for up to {ANSWER_SECONDS:.0f} s"
            ):
                return connect(address, held, ANSWER_SECONDS)
        except RelayRefused as error:
            if error.status == 401 and not renewed:
                # The token has expired or was revoked, so one more attempt is made with a new token.
                held, renewed = tokens.token(instance, refused=held), True
                continue
            if not pauses or not (error.status >= 500 or error.status == 429):
                raise _explain(instance, found, error) from error
            pause = pauses.pop(0)
            if report is not None:
                report(f"{error.reason}; again in {pause:.0f} s (Ctrl-C gives up)")
            time.sleep(pause)


def websocket_address(endpoint: str) -> str:
    """The websocket that leads to the SSH server of an instance.

    Args:
        endpoint: The address of its Jupyter.
    """
    return as_websocket(endpoint.rstrip("/").removesuffix("/tree")) + _PATH


def connect_to_instance(instance: Instance, report: Report | None = None) -> tuple[socket.socket, InstanceState]:
    """Connect to an instance; returns a socket to its SSH server, and its state.

    Raises:
        UserError: See the functions above.
    """
    require_packages(instance.auth)
    found = look_up(instance, report)
    require_usable(instance, found)
    return open_stream(instance, found, report), found


def key_advice(instance: Instance, found: InstanceState) -> str:
    """What the user has to do where an instance accepts none of their keys."""
    if not found.public_key:
        return (
            f"Azure has no key for {instance.name}; it takes one only when an instance is made"
            " (--ssh-public-access-enabled true --ssh-key-value). Or add your public key to ~/.ssh/authorized_keys in"
            " its terminal on https://ml.azure.com."
        )
    return (
        f"Set AML_REMOTE_KEY to the private half of the key that Azure has for {instance.name},"
        f" {describe_key(found.public_key)}."
    )


def describe_key(public_key: str) -> str:
    """A public key as text to compare: its kind, its fingerprint and its comment."""
    import base64
    import binascii
    import hashlib

    parts = public_key.split(None, 2)
    try:
        digest = hashlib.sha256(base64.b64decode(parts[1], validate=True)).digest()
    except (IndexError, binascii.Error):
        return "which is damaged"
    shown = f"{parts[0]} SHA256:{base64.b64encode(digest).decode().rstrip('=')}"
    return f"{shown} ({parts[2]})" if len(parts) > 2 else shown


def _get(instance: Instance, path: str, doing: str, report: Report | None) -> dict[str, Any]:
    """Send a request about the workspace to the resource manager. A refused token is renewed once."""
    import requests

    def ask(refused: str = "") -> dict[str, Any]:
        held = tokens.token(instance, refused, report)
        address = f"{tokens.cloud(instance).manager.rstrip('/')}{_scope(instance)}{path}"
        try:
            with requests.Session() as http:
                return message(
                    fetch_response(http, address, f"Bearer {held}", {"api-version": _VERSION}), "what Azure tells"
                )
        except requests.RequestException as error:
            if status_of(error) != 401 or refused:
                raise
        return ask(held)

    if report is None:
        return attempt(ask, doing, lambda line: None, 0.0)
    return attempt(ask, doing, report)


def _scope(instance: Instance) -> str:
    return (
        f"/subscriptions/{instance.subscription_id}/resourceGroups/{instance.resource_group}"
        f"/providers/Microsoft.MachineLearningServices/workspaces/{instance.workspace}"
    )


def _no_workspace(instance: Instance) -> NotFound:
    return NotFound(
        f"There is no Azure ML workspace {instance.workspace} (resource group {instance.resource_group}, subscription"
        f" {instance.subscription_id}).",
        "Correct AML_WORKSPACE, AML_RESOURCE_GROUP or config.json; `az ml workspace list` has those there are.",
    )


def _not_found(instance: Instance, what: str, report: Report | None) -> NotFound:
    """The error for a missing instance, with the existing ones, or for a missing workspace."""
    try:
        response = _get(instance, "/computes", "reading which computes there are", report)
    except NotFound:
        return _no_workspace(instance)
    names = [
        display_text(one.get("name") or "", "a name", 80)
        for one in response.get("value") or []
        if isinstance(one, dict) and child_object(one, "properties").get("computeType") == "ComputeInstance"
    ]
    there = f"There {'is' if len(names) == 1 else 'are'}: {', '.join(sorted(names))}" if names else "It has none"
    return NotFound(
        f"{instance.name} {what} in the workspace {instance.workspace}. {there}.",
        "Correct AML_REMOTE_HOST." if names else "Make one under Compute on https://ml.azure.com.",
    )


def _owner(own: dict[str, Any], claims: dict[str, Any]) -> str:
    """The owner of an instance, unless it is the signed-in user."""
    assigned = child_object(child_object(own, "personalComputeInstanceSettings"), "assignedUser").get("objectId")
    maker = child_object(own, "createdBy")
    known, signed_in = assigned or maker.get("userId"), claims.get("oid")
    if not known or not signed_in or known == signed_in:
        return ""
    name = display_text(maker.get("userName") or "", "a name", 80) if known == maker.get("userId") else ""
    return name or f"the user {display_text(known, 'an id', 80)}"


def _explain(instance: Instance, found: InstanceState, error: RelayRefused) -> UserError:
    name, status = instance.name, error.status
    if status == 401:
        return SignInRefused(
            f"The websocket of {name} does not accept the sign-in (401).",
            "Sign in again as the one whom the instance belongs to (az login, AML_AUTH); see that this clock is right.",
        )
    if status == 403:
        whose = f"it belongs to {found.owner}, and lets in nobody else" if found.owner else "it lets in its owner alone"
        return NotAllowed(
            f"The websocket of {name} does not let you in (403): {whose}.",
            "Name an instance of your own; where that is one, its workspace may let in its own network alone.",
        )
    if status == 404:
        return UserError(
            f"There is no websocket at {name} (404).",
            f"It may be coming up: run this again; else restart it: az ml compute restart {instance.named_for_az}",
        )
    if status:
        return UserError(
            f"The websocket of {name} answers {status}.",
            "Run this again in a minute; if it stays so, check a proxy in between (HTTPS_PROXY), or restart it:"
            f" az ml compute restart {instance.named_for_az}",
        )
    return UserError(
        f"Connecting to {name} failed: {error.reason}.",
        "Check the network and a proxy (HTTPS_PROXY, NO_PROXY) that lets websockets through; a workspace with a"
        " private endpoint is reached from its own network alone.",
    )


@contextmanager
def _report_when_slow(report: Report | None, line: str) -> Iterator[None]:
    """Report what is being waited for once it takes longer than a few seconds."""
    timer = threading.Timer(_SAY_AFTER, lambda: report(f"{line} (Ctrl-C gives up)") if report is not None else None)
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        timer.cancel()
