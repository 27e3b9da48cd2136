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
    """The engine for ``AML_ENGINE``, and a word on why where there was a choice.

    Raises:
        UserError: ``docker`` was asked for and does not answer.
    """
    if wanted != "auto":
        return load(wanted), ""
    from .docker_client import engine_answers, has_permission, is_remote

    # The way to one elsewhere takes long enough not to go it twice, and why it leads nowhere is worth knowing.
    if not is_remote() and not engine_answers():
        why = "no Docker engine answers" if has_permission() else "you may not use the Docker engine"
        return load("process"), f"{why}, so processes on this machine are used"
    try:
        return load("docker"), ""
    except UserError as error:
        return load("process"), f"Docker: {error.problem} So processes on this machine are used"
