"""Packages of the person's own, named by their folders: editable ones are live, of others it says what takes edits."""

from __future__ import annotations

from pathlib import Path

import pytest
from experiments import ExperimentProject
from projects import PLAIN, Project, post

PYPROJECT = """
[project]
name = "{name}"
version = "1"
[build-system]
requires = ["setuptools"]
build-backend = "setuptools.build_meta"
"""
MODULE = "def value():\n    found = {}\n    return found\n"
CALLING = PLAIN.replace("import json", "import json\nimport own.deeply").replace("* model", "* own.deeply.value()")


def write_package(folder: Path, name: str, layout: str) -> Path:
    """A package; its module."""
    module = folder / ("src" if layout == "src" else "") / name / "deeply.py"
    module.parent.mkdir(parents=True)
    (folder / "pyproject.toml").write_text(PYPROJECT.format(name=name))
    (module.parent / "__init__.py").write_text("")
    module.write_text(MODULE.format(10))
    return module


def edit(module: Path, value: int) -> None:
    module.write_text(MODULE.format(value))


PACKAGES = {
    # Outside the project, beside the service, and all of the service's folder.
    "outside": ("../a shared package", "src", "requirements.txt"),
    "beside": ("service/lib", "flat", "conda.yml"),
    "the service": ("service", "flat", "requirements.txt"),
    "the service, with src": ("service", "src", "requirements.txt"),
}
#: A container has to be given the folder, which it has of the service already; the rest is the same on each engine.
CASES = [*(("process", case) for case in PACKAGES), ("docker", "outside"), ("docker", "the service")]


@pytest.mark.parametrize(("engine", "case"), CASES, indirect=["engine"])
def test_an_editable_package_stops_at_breakpoints_and_takes_edits_by_a_reload(project: Project, case: str) -> None:
    place, layout, file = PACKAGES[case]
    module = write_package(project.folder / place, "own", layout)
    environment = project.folder / "env" / "inference"
    environment.mkdir(parents=True)
    lines = {
        "requirements.txt": f"-e ../../{place}\n",
        "conda.yml": f"dependencies:\n  - pip:\n    - -e ../../{place}\n",
    }
    (environment / file).write_text(lines[file])
    project.environ["AML_INFERENCE_ENV"] = "env/inference"
    project.write_score(CALLING)
    result = project.ok("deploy.debug", "--json")
    debug = result.json
    assert "copy" not in result.err
    assert post(debug["scoring_url"]) == {"answer": 60}
    request = project.folder / "request.json"
    request.write_text('{"data": [1, 2, 3]}')
    seen = project.ok("deploy.inspect", f"{module}:3", "--request", "request.json", "--json").json
    assert seen["stopped"] == {"file": str(module.resolve()), "line": 3, "function": "value"}
    assert seen["locals"] == {"found": "10"}
    # Of the service's own script as well.
    seen = project.ok("deploy.inspect", "score.py:16", "--request", "request.json", "--json").json
    assert seen["stopped"]["file"] == str(project.score)
    edit(module, 20)
    result = project.ok("deploy.reload")
    assert "copy" not in result.out
    assert post(debug["scoring_url"]) == {"answer": 120}
    # What cannot be loaded is told of a package as well.
    module.write_text("value = (\n")
    project.inv("deploy.reload").says("deeply.py:1: error: SyntaxError", "The earlier code goes on serving.")
    edit(module, 30)
    debug = project.ok("deploy.debug", "--json").json
    assert post(debug["scoring_url"]) == {"answer": 180}


def test_of_a_package_that_is_copied_it_is_said_what_takes_an_edit(project: Project) -> None:
    module = write_package(project.folder / "lib", "own", "src")
    environment = project.folder / "env" / "inference"
    environment.mkdir(parents=True)
    (environment / "requirements.txt").write_text("../../lib\n")
    project.environ["AML_INFERENCE_ENV"] = "env/inference"
    project.write_score(CALLING)
    result = project.ok("deploy.debug", "--json")
    assert "note: lib is installed as a copy: inv deploy.debug takes an edit of it (with `-e`" in result.err
    assert "note" not in project.ok("deploy.reload").out
    edit(module, 20)
    said = project.ok("deploy.reload").out
    assert "note: lib has changed, and the service has a copy: inv deploy.debug takes the edit" in said
    assert post(result.json["scoring_url"]) == {"answer": 60}
    assert post(project.debug()["scoring_url"]) == {"answer": 120}
    assert "note" not in project.ok("deploy.reload").out


@pytest.mark.parametrize("place", ["../a shared package", "lib"])
def test_an_experiment_stops_in_an_editable_package_as_it_is_now(experiment: ExperimentProject, place: str) -> None:
    module = write_package(experiment.folder / place, "own", "src")
    experiment.write("env/training/requirements.txt", f"-e ../../{place}\n")
    experiment.environ["AML_TRAINING_ENV"] = "env/training"
    experiment.script.write_text("import own.deeply\nprint('value', own.deeply.value())\n")
    for value in (10, 20):
        edit(module, value)
        experiment.debug("sums", "--script", "train.py")
        seen = experiment.ok("experiment.inspect", f"{module}:3", "--json").json
        assert seen["stopped"]["file"] == str(module.resolve())
        assert seen["locals"] == {"found": str(value)}
        assert experiment.until_final()["status"] == "Completed"
        assert f"value {value}" in experiment.log()
