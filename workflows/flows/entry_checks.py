"""Checks the entry script and the model folder before anything is built or a running service is ended."""

from __future__ import annotations

import json
import os
from typing import Any

from .. import report
from ..debuggee import entry_script
from ..debugger.readiness import read_events
from ..engines.base import Engine
from ..errors import UserError
from ..models import Service
from ..settings import Settings
from . import serving


def check_entry_script(settings: Settings, again: str | None = None) -> None:
    """Check that the user's files exist, and that the script has the functions that the server calls.

    Args:
        settings: The settings with the files' paths.
        again: The command to type once the script is corrected; by default the one that was typed.

    Raises:
        UserError: Something is certainly missing.
    """
    script, source = settings.score_script, settings.source_directory
    remedy = "Correct AML_SCORE_SCRIPT or --score-script."
    if source is not None and not source.is_dir():
        raise UserError(f"The source folder {source} does not exist.", "Correct AML_SOURCE_DIR or --source-directory.")
    if source is not None and not script.is_relative_to(source):
        raise UserError(
            f"The entry script {script} is not in the source folder {source}.",
            "Name one that is, from there: AML_SCORE_SCRIPT or --score-script; or correct AML_SOURCE_DIR.",
        )
    if script.is_dir():
        raise UserError(f"The entry script {script} is a folder.", remedy)
    if not script.is_file():
        if script.is_symlink():
            raise UserError(
                f"The entry script {script} is a link to {os.readlink(script)}, which leads nowhere.",
                "Correct the link, or name another script: AML_SCORE_SCRIPT or --score-script.",
            )
        raise UserError(f"The entry script {script} does not exist.", remedy)
    if not os.access(script, os.R_OK):
        raise UserError(f"The entry script {script} cannot be read.", "Give yourself permission to read it.")
    if script.suffix != ".py":
        from ..assets.kinds import check_is_script

        check_is_script(script, "--score-script")
    _check_model(settings)
    wrong = entry_script.find_fault(str(script))
    # Only the service's own Python, which may be newer, can judge the syntax.
    if wrong is not None and wrong["type"] == "UserScriptError":
        raise serving.script_error(script, script, wrong, again or f"inv {report.typed_command()}")


def _check_model(settings: Settings) -> None:
    model = settings.model_dir
    if model is None or model.is_dir():
        return
    if model.exists():
        raise UserError(
            f"The model {model} is a file; the service is given its folder (AZUREML_MODEL_DIR).",
            f"Name the folder: --model-dir {model.parent}, and have the script open {model.name} in it.",
        )
    raise UserError(f"The model folder {model} does not exist.", "Correct AML_MODEL_DIR or --model-dir.")


def check_loadable(service: Service, engine: Engine, again: str) -> None:
    """Check with a running service's own Python that the script can be loaded as it is now.

    Only certain errors count: those of its syntax, of the syntax of modules that it always imports, and missing
    functions that the server calls.

    Args:
        service: The service, which may have no worker.
        engine: Its engine.
        again: The command to type once the script is corrected.

    Raises:
        UserError: It cannot be loaded. The service is unchanged.
    """
    root = service.remote_root.rstrip("/")
    script = service.score_script.relative_to(service.source).as_posix()
    arguments = [f"{root}/{script}", root, *service.links]
    wrong = _parse_fault(engine.run_program(service, "entry_script.py", arguments))
    if wrong is None:
        return
    error = serving.script_error(service.score_script, service.local_path(str(wrong["file"])), wrong, again)
    seen = read_events(service.events)
    if not seen or seen[-1]["event"] not in ("exited", "failed"):
        error.remedy = f"The earlier code goes on serving. {error.remedy}"
    raise error


def _parse_fault(printed: str) -> dict[str, Any] | None:
    """Parse the output of the checking program; None if it has found nothing or could not run."""
    try:
        value = json.loads(printed.strip().rpartition("\n")[2] or "null")
    except ValueError:
        return None
    return value if isinstance(value, dict) and {"type", "message", "file"} <= set(value) else None
