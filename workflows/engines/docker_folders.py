"""Checks that the engine can mount this machine's folders.

An engine on another machine cannot, nor can the host's engine when it is used from a dev container: it mounts the
folder with the same path there, or finds none.
"""

from __future__ import annotations

import contextlib
import os
import re
import secrets
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import UserError
from .docker_client import is_remote

if TYPE_CHECKING:
    import docker

# Engines' messages for a folder that they cannot mount; the last two are Docker Desktop's.
_NO_SOURCE = re.compile(
    r"bind source path does not exist: (?P<path>[^\n]+)|"
    r"[Mm]ounts denied:\s*(?:The path )?(?P<denied>\S+)|"
    r"path (?P<shared>\S+) is not shared"
)


def check_visible(
    client: docker.DockerClient, container: str, mounted: tuple[Path, str], files: Sequence[tuple[Path, str]] = ()
) -> None:
    """Check that files of this machine are in a container that was created and is not started yet.

    Args:
        client: The engine.
        container: The container's id.
        mounted: A folder that may be written to, and where it is mounted.
        files: Further files, and their paths in the container.

    Raises:
        UserError: One of them is not there.
        docker.errors.APIError: The engine cannot tell.
    """
    folder, inside = mounted
    mark = folder / f".seen-{secrets.token_hex(8)}"
    mark.touch()
    try:
        for path, place in ((mark, f"{inside}/{mark.name}"), *files):
            # The engine resolves mounts for a container that is not running, too.
            if not client.api.has_path(container, place):  # type: ignore[attr-defined]
                raise not_visible_error(path.parent)
    finally:
        with contextlib.suppress(OSError):
            mark.unlink()


def mount_error(error: Any) -> UserError | None:
    """The error for a folder that exists here and that the engine cannot mount; None for any other failure.

    Args:
        error: The engine's error.
    """
    found = _NO_SOURCE.search(str(error.explanation or error))
    path = (found["path"] or found["denied"] or found["shared"]).strip().strip("'\".") if found else ""
    return not_visible_error(Path(path)) if path and os.path.exists(path) else None


def not_visible_error(folder: Path) -> UserError:
    """The error for a folder that the engine does not see."""
    if is_remote():
        problem = f"The Docker engine is on another machine, which does not have {folder} of this one."
        remedy = "Work on that machine with --remote (AML_REMOTE_HOST), or set AML_ENGINE=process."
    elif _in_container():
        problem = f"The Docker engine is not in this container, and does not see {folder}."
        remedy = (
            "Have the project, with this program in a .venv in it, at the same path as on the host (devcontainer.json: "
            '"workspaceMount": "source=${localWorkspaceFolder},target=${localWorkspaceFolder},type=bind", '
            '"workspaceFolder": "${localWorkspaceFolder}"), or set AML_ENGINE=process.'
        )
    else:
        problem = f"The Docker engine does not see {folder} of this machine: it has no such folder, or another one."
        remedy = (
            "Share it with the engine (Docker Desktop: Settings, Resources, File sharing), use an engine of this "
            "machine (DOCKER_HOST, `docker context use default`), or set AML_ENGINE=process."
        )
    return UserError(problem, remedy)


def _in_container() -> bool:
    # Docker and Podman create one of these files; dev containers and Codespaces set a variable.
    return (
        any(map(os.path.exists, ("/.dockerenv", "/run/.containerenv")))
        or bool(os.environ.get("REMOTE_CONTAINERS"))
        or bool(os.environ.get("CODESPACES"))
    )
