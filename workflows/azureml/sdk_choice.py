"""Chooses the SDK for a workspace. Neither SDK is imported here: the versions are read from package metadata."""

from __future__ import annotations

from ..errors import UserError
from ..settings import Settings
from . import sdk

PACKAGE = "azure-ai-ml"
#: The oldest version that this program was tried with, and the first that may work in another way.
OLDEST, TOO_NEW = (1, 35), (2, 0)


def chosen_sdk(settings: Settings) -> str:
    """The SDK that AML_SDK names; with ``auto``, v2 where azure-ai-ml is installed, else v1.

    Returns:
        ``v2`` or ``v1``. It is installed, in a version that works here.

    Raises:
        UserError: It is not, or no SDK is installed.
    """
    if settings.sdk == "v1":
        sdk.require_v1()
        return "v1"
    if settings.sdk == "v2" or sdk.version_of(PACKAGE) is not None:
        require_v2()
        return "v2"
    if not any(sdk.version_of(name) for name in sdk.PACKAGES):
        raise UserError("No SDK of Azure ML is installed.", f"Install the extra: {sdk.install_command('v2')}")
    sdk.require_v1()
    return "v1"


def require_v2() -> str:
    """Check that azure-ai-ml is installed in a version that this program works with.

    Returns:
        Its version.

    Raises:
        UserError: It is not.
    """
    version = sdk.version_of(PACKAGE)
    if version is None:
        raise UserError(f"{PACKAGE} is not installed.", f"Install the extra: {sdk.install_command('v2')}")
    if OLDEST <= sdk.numbers(version) < TOO_NEW:
        return version
    if sdk.numbers(version) < OLDEST:
        wrong = f"is too old; {'.'.join(map(str, OLDEST))} is the oldest that works"
    else:
        wrong = f"is newer than what this program works with; {TOO_NEW[0]} is too new"
    raise UserError(f"{PACKAGE} {version} {wrong}.", f"Install it again: {sdk.install_command('v2')}")
