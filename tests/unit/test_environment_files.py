"""An environment's definition may be a file, and a folder's conda file may have any name."""

from __future__ import annotations

from pathlib import Path

import pytest

from workflows.environments.definition import EnvironmentDefinition, load_definition
from workflows.errors import UserError
from workflows.settings import packaged_defaults

CONDA = "name: mine\ndependencies:\n  - python=3.11\n  - pip\n  - pip:\n      - colorama\n"
DOCKERFILE = packaged_defaults() / "env" / "inference" / "Dockerfile"


def load(path: Path) -> EnvironmentDefinition:
    return load_definition(path, default_dockerfile=DOCKERFILE)


def test_a_conda_file_of_any_name_is_all_of_the_definition(tmp_path: Path) -> None:
    file = tmp_path / "env.yml"
    file.write_text(CONDA)
    (tmp_path / "Dockerfile").write_text("FROM somewhere-else\n")
    (tmp_path / "a-whole-project.py").touch()
    found = load(file)
    assert (found.source, found.name, [item.name for item in found.pip]) == (file, "mine", ["colorama"])
    assert found.dockerfile == DOCKERFILE
    names = {name.as_posix() for name, _ in found.files}
    assert {"Dockerfile", "runit/gunicorn/run"} <= names and "a-whole-project.py" not in names


def test_a_requirements_file_of_any_name(tmp_path: Path) -> None:
    (tmp_path / "base.in").write_text("six\n")
    file = tmp_path / "serving-requirements.txt"
    file.write_text("-r base.in\ncolorama\n")
    (tmp_path / "requirements.txt").write_text("never-installed\n")
    found = load(file)
    assert sorted(item.name for item in found.pip) == ["colorama", "six"] and found.source == file
    before = found.content
    (tmp_path / "base.in").write_text("six>1\n")
    assert load(file).content != before


def test_a_folder_whose_only_yml_is_a_conda_file(tmp_path: Path) -> None:
    (tmp_path / "scoring-env.yaml").write_text(CONDA)
    (tmp_path / "job.yml").write_text("type: command\ncommand: echo\nenvironment: x\n")
    assert load(tmp_path).source == tmp_path / "scoring-env.yaml"
    (tmp_path / "other.yml").write_text(CONDA)
    with pytest.raises(UserError) as refused:
        load(tmp_path)
    assert "several conda files" in refused.value.problem and "other.yml, scoring-env.yaml" in refused.value.problem
    # One of the usual names, or requirements, leave no doubt.
    (tmp_path / "requirements.txt").write_text("six\n")
    assert load(tmp_path).source == tmp_path / "requirements.txt"
    (tmp_path / "conda.yml").write_text(CONDA)
    assert load(tmp_path).source == tmp_path / "conda.yml"


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(UserError) as refused:
        load(tmp_path / "env.yml")
    assert "does not exist" in refused.value.problem
