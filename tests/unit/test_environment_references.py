"""What a step's environment becomes on each engine, what people are told of it, and what is refused."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest
from projects import ROOT
from referenced_environments import CONDA, reference

from workflows.engines import load
from workflows.environments.definition import load_definition
from workflows.environments.references import ResolvedEnvironment, resolve_environment
from workflows.environments.separate_debugpy import debugpy_folder
from workflows.errors import UserError
from workflows.paths import cache_folder
from workflows.settings import Settings


def names(resolved: ResolvedEnvironment) -> list[str]:
    assert resolved.definition is not None
    return [item.name for item in resolved.definition.pip]


@pytest.mark.parametrize("engine", ["docker", "process"])
def test_without_a_word_the_training_environment_is_used_without_a_note(settings: Settings, engine: str) -> None:
    found = resolve_environment(None, settings, engine)
    assert found.definition is not None and found.definition.name == "training"
    assert found.notes == () and "debugpy" not in names(found)


@pytest.mark.parametrize("engine", ["docker", "process"])
def test_a_registered_name_becomes_the_training_environment_and_a_note(settings: Settings, engine: str) -> None:
    named = reference(settings.project, name="azureml:AzureML-sklearn-1.0@latest")
    found = resolve_environment(named, settings, engine)
    (note,) = found.notes
    assert note.startswith("environment azureml:AzureML-sklearn-1.0@latest is not on this machine: ")
    assert note.endswith("own env/training is used. For packages of yours, make env/training in your project")
    assert found.key == resolve_environment(None, settings, engine).key


def test_a_conda_file_is_all_of_the_definition_and_what_lies_beside_it_is_not(
    settings: Settings, conda_file: Path
) -> None:
    asked = reference(settings.project, image="some/image:1", conda_file=conda_file)
    found = resolve_environment(asked, settings, "docker")
    assert found.definition is not None and found.definition.name == "mine"
    assert (found.base_image, found.notes) == ("some/image:1", ())
    assert names(found) == ["six"]
    assert [str(name) for name, _ in found.definition.files] == ["Dockerfile"]
    before = found.definition.content
    (conda_file.parent / "train.py").write_text("print(2)\n")
    (conda_file.parent / "Dockerfile").write_text("FROM scratch\n")
    again = resolve_environment(asked, settings, "docker")
    assert again.definition is not None and again.definition.content == before
    for changed, text in {"requirements.txt": "six>=1\n", "conda.yml": CONDA + "  - numpy\n"}.items():
        (conda_file.parent / changed).write_text(text)
        edited = resolve_environment(asked, settings, "docker")
        assert edited.definition is not None and edited.definition.content != before
        assert edited.key == found.key
        before = edited.definition.content


def test_one_folder_may_hold_several_conda_files(settings: Settings, conda_file: Path) -> None:
    other = conda_file.with_name("score.yml")
    other.write_text("dependencies: [pip, {pip: [flask]}]\n")
    definition = load_definition(other.parent, conda_file=other, default_dockerfile=ROOT / "env/training/Dockerfile")
    assert (definition.name, [item.name for item in definition.pip]) == ("score", ["flask"])


def test_without_docker_a_conda_file_is_installed_and_the_image_is_told_not_to_be_used(
    settings: Settings, conda_file: Path
) -> None:
    asked = reference(settings.project, image="some/image:1", conda_file=conda_file)
    found = resolve_environment(asked, settings, "process")
    assert found.base_image is None and "six" in names(found)
    (note,) = found.notes
    assert "some/image:1 is not used without Docker" in note and "conda.yml" in note


def test_a_conda_file_written_into_the_pipeline_file_counts_as_one_in_its_folder(
    settings: Settings, tmp_path: Path
) -> None:
    (settings.project / "more.txt").write_text("six\n")
    content = {"name": "inline", "dependencies": ["python>=3.10", "pip", {"pip": ["-r more.txt", "flask>=3"]}]}
    asked = reference(settings.project, image="some/image:1", conda=content)
    found = resolve_environment(asked, settings, "docker")
    assert names(found)[:2] == ["six", "flask"]
    assert found.definition is not None and found.definition.name == "inline"
    assert resolve_environment(asked, settings, "docker").key == found.key
    wrong = reference(settings.project, conda={"dependencies": ["pip", {"pip": ["-r missing.txt"]}]})
    with pytest.raises(UserError, match=r"missing\.txt") as caught:
        resolve_environment(wrong, settings, "docker")
    assert (caught.value.file, caught.value.line) == (settings.project / "pipeline.yml", 7)


def test_what_is_wrong_in_a_conda_file_is_told_with_its_own_line(settings: Settings, conda_file: Path) -> None:
    conda_file.write_text("name: mine\ndependencies:\n  - pip: six\n")
    with pytest.raises(UserError) as caught:
        resolve_environment(reference(settings.project, conda_file=conda_file), settings, "docker")
    assert (caught.value.file, caught.value.line) == (conda_file, 3)


@pytest.mark.parametrize(
    "fields", [{"image": "some/image:1"}, {"build": Path("/a/context"), "dockerfile": "Dockerfile"}]
)
def test_without_docker_an_image_becomes_the_training_environment_and_a_note(
    settings: Settings, fields: dict[str, Any]
) -> None:
    found = resolve_environment(reference(settings.project, **fields), settings, "process")
    (note,) = found.notes
    assert "is not used without Docker: " in note and note.endswith("make env/training in your project")
    assert found.definition is not None and found.definition.name == "training"


@pytest.mark.parametrize("listed", ["", "debugpy>=1.8.5\n"])
def test_an_environment_is_the_same_debugged_or_not_and_debugpy_lies_beside_where_it_lists_none(
    settings: Settings, conda_file: Path, listed: str
) -> None:
    (conda_file.parent / "requirements.txt").write_text(listed)
    found = resolve_environment(reference(settings.project, conda_file=conda_file), settings, "process")
    engine = load("process")
    plain, debugged = (found.build(engine, print, debugged=one) for one in (False, True))
    assert (plain.digest, plain.name, plain.debugpy) == (debugged.digest, debugged.name, "")
    assert debugged.reused
    assert bool(debugged.debugpy) == (not listed)
    site = next(Path(plain.name).glob("lib/python*/site-packages"))
    assert (site / "debugpy").is_dir() == bool(listed)
    if not listed:
        # With the compiled parts for that Python, without which a step is several times as slow.
        compiled = Path(debugged.debugpy).rglob("pydevd_cython.*.so")
        assert [path.name.split(".")[1].split("-")[1] for path in compiled] == [
            "{}{}".format(*sys.version_info[:2])
        ] or sys.platform != "linux"


def test_a_debugpy_that_cannot_be_used_is_told_only_where_one_is_needed(settings: Settings, conda_file: Path) -> None:
    (conda_file.parent / "requirements.txt").write_text("debugpy==1.7.0 ; python_version < '3'\n")
    found = resolve_environment(reference(settings.project, conda_file=conda_file), settings, "process")
    with pytest.raises(UserError, match=r"debugging needs debugpy 1\.8 or newer"):
        found.build(load("process"), print, debugged=True)
    assert found.build(load("process"), print).debugpy == ""


def test_debugpy_for_other_images_is_fetched_once_and_has_nothing_compiled_for_one_python() -> None:
    folder = debugpy_folder(cache_folder())
    assert (folder / "debugpy" / "__init__.py").is_file()
    assert not [path for path in folder.rglob("*.so") if "attach_to_process" not in path.parts[-2]]
    stamp = folder.stat().st_mtime_ns
    assert debugpy_folder(cache_folder()) == folder and folder.stat().st_mtime_ns == stamp
