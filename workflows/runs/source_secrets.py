"""The secrets in the files that a run was submitted from, which the output of its program may quote at any time.

A run's plan has them while the run goes on. Afterwards only these files have them, if they still exist.
"""

from __future__ import annotations

import contextlib
from pathlib import Path

from ..errors import UserError
from .record import RunRecord

#: Files that this process has read for this purpose.
_read: set[str] = set()


def keep_secrets(run: RunRecord) -> None:
    """Have the secrets of a run's pipeline file or run configuration masked in all output.

    The readers of these files register them. Errors in a file are ignored: the command that submits it reports them.
    """
    if not run.file or run.file in _read:
        return
    _read.add(run.file)
    with contextlib.suppress(UserError, OSError, ValueError, RecursionError):
        if run.single and not run.file.endswith((".yml", ".yaml")):
            _read_experiment_files(run, Path(run.file))
        else:
            _read_pipeline_files(run, Path(run.file))


def _read_experiment_files(run: RunRecord, file: Path) -> None:
    from ..experiments import runconfig

    config = runconfig.read(file)
    if config.conda_file:
        _read_conda_file(run.project / config.conda_file)


def _read_pipeline_files(run: RunRecord, file: Path) -> None:
    from ..pipelines.reader import load_pipeline

    # The single step of an experiment has the experiment's name.
    names = () if run.single else [step.name for step in run.steps]
    for step in load_pipeline(file, cloud=run.in_workspace, project=run.project, only=names, fetch_data=True).steps:
        if step.environment is not None and step.environment.conda_file is not None:
            _read_conda_file(step.environment.conda_file)


def _read_conda_file(file: Path) -> None:
    from ..environments.conda_file import read_conda
    from ..environments.requirements import PipLines

    with contextlib.suppress(UserError, OSError, ValueError):
        read_conda(file, PipLines())
