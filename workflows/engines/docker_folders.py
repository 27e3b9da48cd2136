"""Whether the engine sees this machine's folders, which it mounts into containers by their names.

An engine of another machine does not, nor does one that a dev container was lent by its host: it mounts a folder of
the same name there, or finds none.
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

# What engines say of a folder that they cannot mount; the last two are Docker Desktop's.
_NO_SOURCE = re.compile(
    r"bind source path does not exist: (?P<path>[^\n]+)|"
    r"[Mm]ounts denied:\s*(?:The path )?(?P<denied>\S+)|"
    r"path (?P<shared>\S+) is not shared"
)


def check_visible(
    client: docker.DockerClient, container: str, mounted: tuple[Path, str], files: Sequence[tuple[Path, str]] = ()
) -> None:
    """Look for a file of this machine in a container that has been made and not been started.

    Args:
        client: The engine.
        container: Its id.
        mounted: A folder that may be written to, and where it is mounted.
        files: Further files, and where they should be seen.

    Raises:
        UserError: One of them is not there.
        docker.errors.APIError: The engine cannot say.
    """
    folder, inside = mounted
    mark = folder / f".seen-{secrets.token_hex(8)}"
    mark.touch()
    try:
        for path, place in ((mark, f"{inside}/{mark.name}"), *files):
            # The engine mounts what belongs to a container also for one that does not run.
            if not client.api.has_path(container, place):  # type: ignore[attr-defined]
                raise not_visible_error(path.parent)
    finally:
        with contextlib.suppress(OSError):
            mark.unlink()


def mount_error(error: Any) -> UserError | None:
    """The error for a folder that is here, and that the engine cannot mount; None for any other failure.

    Args:
        error: The engine's.
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
    # Docker and Podman leave the one or the other; dev containers and Codespaces set a variable.
    return (
        any(map(os.path.exists, ("/.dockerenv", "/run/.containerenv")))
        or bool(os.environ.get("REMOTE_CONTAINERS"))
        or bool(os.environ.get("CODESPACES"))
    )
