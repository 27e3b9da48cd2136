"""Where services and steps run: the Docker engine, or processes on this machine."""

from __future__ import annotations

from pathlib import Path

from ..errors import UserError
from .base import Engine
from .steps import StepEngine


def load(name: str, cache: Path | None = None) -> Engine:
    """The engine of that name.

    Raises:
        UserError: The Docker engine does not answer.
    """
    if name == "docker":
        from .docker import DockerEngine

        return DockerEngine()
    from .process import ProcessEngine

    return ProcessEngine()


def load_steps(name: str) -> StepEngine:
    """What runs steps on the engine of that name.

    Raises:
        UserError: The Docker engine does not answer.
    """
    if name == "docker":
        from .docker_steps import DockerSteps

        return DockerSteps()
    from .process_steps import ProcessSteps

    return ProcessSteps()


def choose(wanted: str) -> tuple[Engine, str]:
    """The engine for ``AML_ENGINE``, and the reason for the choice where ``auto`` did not take Docker.

    Raises:
        UserError: ``docker`` is set, and no Docker engine answers.
    """
    if wanted != "auto":
        return load(wanted), ""
    from .docker_client import engine_answers, has_permission, is_remote

    # A remote engine is connected to only once: that takes long, and the reason for a failure is worth showing.
    if not is_remote() and not engine_answers():
        why = "no Docker engine answers" if has_permission() else "you may not use the Docker engine"
        return load("process"), f"{why}, so processes on this machine are used"
    try:
        return load("docker"), ""
    except UserError as error:
        return load("process"), f"Docker: {error.problem} So processes on this machine are used"
