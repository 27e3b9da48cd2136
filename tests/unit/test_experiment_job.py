"""What an experiment's run configuration becomes in a workspace, as far as it takes no SDK to know."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from workflows.azureml import sdk_choice
from workflows.azureml.staging import stage
from workflows.azureml.v2 import experiment_job
from workflows.azureml.v2.assets import Asset
from workflows.azureml.v2.experiment_job import JobInput, job_command
from workflows.console import Console
from workflows.errors import UserError
from workflows.experiments.configure import RunOptions
from workflows.experiments.runconfig import RunConfig
from workflows.flows.experiment_workspace import WorkspaceRuns
from workflows.pipelines.commands import names_own_script
from workflows.settings import resolve


class Found:
    """A workspace that has the asset of every name, of the type that the name says."""

    def find(self, wanted: Any) -> Asset:
        return Asset(wanted, {"dataType": wanted.name})


def of(text: str, folder: Path, key: str = "numbers") -> JobInput:
    return experiment_job._input(key, text, folder, Found)  # type: ignore[arg-type]


def test_a_script_sees_its_data_at_the_same_variable_as_on_this_machine(tmp_path: Path) -> None:
    (tmp_path / "train.py").touch()
    arguments = ("--in", "$AZUREML_DATAREFERENCE_numbers", "a $b")
    made = job_command(RunConfig("train.py", arguments, data={"numbers": "data"}))
    assert made == (
        'export AZUREML_DATAREFERENCE_numbers="${{inputs.numbers}}" && '
        "python train.py --in \"${AZUREML_DATAREFERENCE_numbers}\" 'a $b'"
    )
    assert names_own_script(made, tmp_path)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("azureml:uri_file:3", JobInput("uri_file", "azureml:uri_file:3")),
        ("azureml:UriFolder:1", JobInput("uri_folder", "azureml:UriFolder:1")),
        (
            "azureml://registries/ours/data/mltable/versions/2",
            JobInput("mltable", "azureml://registries/ours/data/mltable/versions/2"),
        ),
        ("azureml://datastores/a/paths/b/c.csv", JobInput("uri_file", "azureml://datastores/a/paths/b/c.csv")),
        ("azureml://datastores/a/paths/b/c.d/", JobInput("uri_folder", "azureml://datastores/a/paths/b/c.d/")),
        ("azureml://datastores/a/paths/b", JobInput("uri_folder", "azureml://datastores/a/paths/b")),
    ],
)
def test_data_is_mounted_by_what_it_is(text: str, expected: JobInput, tmp_path: Path) -> None:
    assert of(text, tmp_path) == expected


def test_local_data_is_sent_as_what_it_is(tmp_path: Path) -> None:
    (tmp_path / "a file").touch()
    assert of("a file", tmp_path) == JobInput("uri_file", str(tmp_path / "a file"))
    assert of(".", tmp_path) == JobInput("uri_folder", str(tmp_path))


@pytest.mark.parametrize(
    ("key", "text", "says"),
    [("1n", ".", "1n cannot be the name of data"), ("n", "azureml:table:1", "the type table, which no input accepts")],
)
def test_data_that_no_job_takes_is_refused(key: str, text: str, says: str, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=says) as caught:
        of(text, tmp_path, key)
    assert caught.value.remedy


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ("AzureML-sklearn", "azureml:AzureML-sklearn@latest"),
        ("azureml:ours:3", "azureml:ours:3"),
        ("ours@stable", "azureml:ours@stable"),
        ("azureml://registries/azureml/environments/x/labels/latest",) * 2,
    ],
)
def test_a_registered_environment_is_named_with_its_version_or_label(text: str, named: str) -> None:
    assert experiment_job._registered(text) == named


def test_by_sdk_v1_no_experiment_is_submitted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sdk_choice, "chosen_sdk", lambda settings: "v1")
    settings = resolve(tmp_path, environ={"AML_BACKEND": "azureml"})
    with pytest.raises(UserError, match="by SDK v2") as caught:
        WorkspaceRuns(settings, Console(as_json=False)).submit("sums", RunOptions(), None)
    assert "[azureml]" in caught.value.remedy and "--backend local" in caught.value.remedy
    assert not (tmp_path / ".azureml").exists()


def test_what_is_of_this_machine_alone_stays_here(tmp_path: Path) -> None:
    code = tmp_path / "code"
    for name in (
        "train.py",
        ".env",
        ".vscode/launch.json",
        ".azureml-debug/runs/a/token",
        "own/pyvenv.cfg",
        "own/x.py",
    ):
        path = code / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    stage(tmp_path / "staged" / "a", code, (), None, None, "a")
    staged = tmp_path / "staged" / "a"
    found = {path.relative_to(staged).as_posix() for path in staged.rglob("*") if path.is_file()}
    assert found == {"train.py", ".amlignore"}
