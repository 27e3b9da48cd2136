"""``AML_REMOTE_HOST=azureml:NAME``: a compute instance that is reached through its workspace."""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from pathlib import Path

from ..errors import UserError
from ..paths import home_folder, state_folder
from ..reading import read_text
from ..settings import Settings, resolve

PREFIX = "azureml:"
#: Valid names. Azure requires 3 to 24 letters, digits and hyphens.
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,63}")
#: The most files of ~/.ssh that are searched for the key that Azure has, and the most bytes of such a file.
_FILES, _BYTES = 200, 16384


@dataclass(frozen=True)
class Instance:
    """A compute instance and the sign-in that reaches it. It contains no secret and can be passed to another process.

    Attributes:
        name: The instance's name.
        subscription_id: Its workspace's subscription.
        resource_group: Its workspace's resource group.
        workspace: Its workspace.
        auth: The kind of sign-in, as in AML_AUTH.
        project: The project's folder, which has the other settings of the sign-in.
    """

    name: str
    subscription_id: str
    resource_group: str
    workspace: str
    auth: str
    project: str

    def __str__(self) -> str:
        """The value of AML_REMOTE_HOST that names it."""
        return PREFIX + self.name

    @property
    def known_as(self) -> str:
        """The unique name of its host key, since another workspace may have an instance of the same name."""
        return f"{self.name}.{self.workspace}.{self.resource_group}.{self.subscription_id}".lower()

    @property
    def named_for_az(self) -> str:
        """The options with which ``az ml compute`` names the instance."""
        return f"--name {self.name} --resource-group {self.resource_group} --workspace-name {self.workspace}"

    def settings(self) -> Settings:
        """The settings with which it is reached, read again in the current process."""
        return replace(
            resolve(Path(self.project)),
            auth=self.auth,
            subscription_id=self.subscription_id,
            resource_group=self.resource_group,
            workspace=self.workspace,
        )


def is_instance(host: str) -> bool:
    """Whether AML_REMOTE_HOST names a compute instance of the workspace."""
    return host.startswith(PREFIX)


def instance_of(settings: Settings) -> Instance:
    """The compute instance that AML_REMOTE_HOST names.

    Raises:
        UserError: The name is not valid, no workspace is named, or a setting is set that only applies to addresses.
    """
    from ..azureml.workspace import find_workspace

    name = str(settings.remote_host).removeprefix(PREFIX)
    if not _NAME.fullmatch(name):
        raise UserError(
            f"AML_REMOTE_HOST names no compute instance: {name!r} cannot be the name of one.",
            "Write azureml: and the name that https://ml.azure.com shows under Compute, such as azureml:my-instance.",
        )
    for setting, value in (
        ("AML_REMOTE_PORT", settings.remote_port),
        ("AML_REMOTE_GATEWAY", settings.remote_gateway),
    ):
        if value:
            raise UserError(
                f"{setting} is set, and the way to {settings.remote_host} leads through its workspace.",
                f"Leave {setting} out; it is for machines that have an address.",
            )
    named = find_workspace(settings)
    return Instance(
        name, named.subscription_id, named.resource_group, named.workspace, settings.auth, str(settings.project)
    )


def known_hosts_file() -> Path:
    """The file with the host keys of instances. ``ssh`` does not use it, since it knows no hosts of these names."""
    return state_folder() / "known_hosts"


def find_local_key(public_key: str) -> str:
    """The private key file in ``~/.ssh`` that belongs to a public key; empty if there is none.

    Args:
        public_key: The key that Azure has, as a line of authorized_keys.
    """
    wanted = public_key.split()[:2]
    if len(wanted) < 2:
        return ""
    try:
        found = sorted((home_folder() / ".ssh").glob("*.pub"))[:_FILES]
    except OSError:
        return ""
    for path in found:
        try:
            text = read_text(path, errors="replace") if path.stat().st_size <= _BYTES else ""
        except (OSError, UserError):
            continue
        if text.split()[:2] == wanted:
            return str(path.with_suffix(""))
    return ""
