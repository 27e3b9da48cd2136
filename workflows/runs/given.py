"""The secrets that the files give which a run was submitted from: what its program says may quote them at any time.

A run's plan has them for as long as the run goes on; afterwards only these files have them, where they are still there.
"""

from __future__ import annotations

import contextlib
from pathlib import Path

from ..errors import UserError
from .record import RunRecord

#: Files that this process has read for it.
_read: set[str] = set()


def keep_secrets(run: RunRecord) -> None:
    """Have the secrets that a run's pipeline file or run configuration gives never be shown.

    The readers make them known; what is wrong with a file is for the command that submits it.
    """
    if not run.file or run.file in _read:
        return
    _read.add(run.file)
    with contextlib.suppress(UserError, OSError, ValueError, RecursionError):
        if run.single and not run.file.endswith((".yml", ".yaml")):
            _of_experiment(run, Path(run.file))
        else:
            _of_pipeline(run, Path(run.file))


def _of_experiment(run: RunRecord, file: Path) -> None:
    from ..experiments import runconfig

    config = runconfig.read(file)
    if config.conda_file:
        _of_conda(run.project / config.conda_file)


def _of_pipeline(run: RunRecord, file: Path) -> None:
    from ..pipelines.reader import load_pipeline

    # An experiment's one step is called as the experiment.
    names = () if run.single else [step.name for step in run.steps]
    for step in load_pipeline(file, cloud=run.in_workspace, project=run.project, only=names, brought=True).steps:
        if step.environment is not None and step.environment.conda_file is not None:
            _of_conda(step.environment.conda_file)


def _of_conda(file: Path) -> None:
    from ..environments.conda_file import read_conda
    from ..environments.requirements import PipLines

    with contextlib.suppress(UserError, OSError, ValueError):
        read_conda(file, PipLines())
