"""References to environments, as the readers of pipeline files make them, for the tests."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from projects import ROOT

from workflows.pipelines.definition import EnvironmentReference
from workflows.settings import Settings, resolve

CONDA = "name: mine\nchannels: [conda-forge]\ndependencies:\n  - python>=3.10\n  - pip:\n      - -r requirements.txt\n"


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    project = tmp_path / "a project"
    project.mkdir()
    return resolve(project, flags={}, environ={"AML_TRAINING_ENV": str(ROOT / "env" / "training")}, cwd=project)


def reference(folder: Path, **fields: Any) -> EnvironmentReference:
    return EnvironmentReference(folder / "pipeline.yml", 7, **fields)


@pytest.fixture
def conda_file(tmp_path: Path) -> Path:
    folder = tmp_path / "a project" / "with the code"
    folder.mkdir(parents=True)
    (folder / "conda.yml").write_text(CONDA)
    (folder / "requirements.txt").write_text("six\n")
    (folder / "train.py").write_text("print()\n")
    return folder / "conda.yml"
