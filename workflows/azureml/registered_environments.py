"""Looks up the definitions of registered and curated environments with SDK v1."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from ..settings import Settings
from . import sdk
from .cloud_pipeline import CloudEnvironment
from .errors import Report, attempt
from .workspace import connect, is_named


@dataclass(frozen=True)
class Definition:
    """The definition of an environment.

    Attributes:
        image: The image that it builds on; empty where there is none.
        dockerfile: The text of a Dockerfile, in the place of an image.
        conda: A conda file's content; None where nothing is installed beside what the image has.
    """

    image: str
    dockerfile: str
    conda: Mapping[str, Any] | None


def can_look_up(settings: Settings) -> bool:
    """Whether a workspace is set and SDK v1 is installed; the SDK is not imported."""
    installed = sys.version_info < sdk.TOO_NEW and all(sdk.version_of(name) for name in sdk.PACKAGES)
    return installed and is_named(settings)


def find_definition(settings: Settings, name: str, report: Report) -> Definition:
    """The definition of an environment by its name, as in ``NAME:VERSION`` or ``NAME@latest``.

    Raises:
        UserError: It has none of that name, or cannot be reached.
    """
    workspace = connect(settings, report)
    from .graph import make_environment

    wanted = CloudEnvironment(name, registered=True)
    found = attempt(lambda: make_environment(workspace, wanted), f"reading the environment {name}", report)
    own = found.python.user_managed_dependencies
    conda = None if own or found.python.conda_dependencies is None else found.python.conda_dependencies.as_dict()
    return Definition(found.docker.base_image or "", found.docker.base_dockerfile or "", conda)
