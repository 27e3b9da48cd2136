"""Registered names, and the files of this machine that have them."""

from __future__ import annotations

from pathlib import Path

import pytest

from workflows.assets import names
from workflows.assets.kinds import COMPONENTS, DATA, ENVIRONMENT, MODEL
from workflows.assets.names import LocalAssets, parse_name
from workflows.errors import UserError
from workflows.pipelines.yaml_file import Value


def component(folder: Path, name: str, version: str | None = None, file: str = "a.yml") -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    said = f"version: {version}\n" if version is not None else ""
    (folder / file).write_text(
        f"name: {name}  # so\n{said}type: command\ninputs: {{d: {{type: uri_folder}}}}\ncommand: ls\n"
    )
    return folder / file


def find(folder: Path, text: str, *more: Path) -> tuple[Path | None, list[str]]:
    assets = LocalAssets((folder, *more))
    return assets.find(text, COMPONENTS, Value(None, folder / "p.yml", 3)), assets.notes


@pytest.mark.parametrize(
    ("text", "name", "version", "label", "registry"),
    [
        ("azureml:train@latest", "train", "", "latest", False),
        ("azureml:train:3", "train", "3", "", False),
        ("azureml:train", "train", "", "", False),
        ("train:1.0.2", "train", "1.0.2", "", False),
        ("azureml://registries/azureml/components/train/versions/2", "train", "2", "", True),
        ("azureml://registries/r/environments/e/labels/latest", "e", "", "latest", True),
        ("azureml:/subscriptions/s/resourceGroups/g/providers/p/workspaces/w/models/m/versions/1", "m", "1", "", False),
    ],
)
def test_a_registered_name_is_read(text: str, name: str, version: str, label: str, registry: bool) -> None:
    found = parse_name(text)
    assert found is not None
    assert (found.name, found.version, found.label, found.registry) == (name, version, label, registry)


@pytest.mark.parametrize(
    "text",
    [
        "./train.yml",
        "train.yml",
        "a/b:1",
        "https://host/a.yml",
        "azureml://datastores/d/paths/p",
        "C:\\a.yml",
        "",
        "a b:1",
    ],
)
def test_a_path_or_an_address_is_no_registered_name(text: str) -> None:
    assert parse_name(text) is None


def test_latest_is_the_highest_version_as_people_count(tmp_path: Path) -> None:
    for version in ("9", "10", "2"):
        component(tmp_path / "deep" / f"v{version}", "train", version)
    component(tmp_path / "other", "train2", "99")
    assert find(tmp_path, "azureml:train@latest")[0] == tmp_path / "deep" / "v10" / "a.yml"
    assert find(tmp_path, "azureml:train:2")[0] == tmp_path / "deep" / "v2" / "a.yml"
    assert find(tmp_path, "azureml:train:3") == (None, [])


def test_which_file_was_taken_is_noted_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    file = component(tmp_path / "parts", "train", "1")
    assets = LocalAssets((tmp_path,))
    for _ in range(2):
        assert assets.find("azureml:train:1", COMPONENTS, Value(None, None)) == file
    assert assets.notes == ["`azureml:train:1` is parts/a.yml here"]


def test_a_file_without_a_version_stands_for_any(tmp_path: Path) -> None:
    file = component(tmp_path, "train")
    assert find(tmp_path, "azureml:train:7")[0] == file
    exact = component(tmp_path / "sub", "train", "7")
    assert find(tmp_path, "azureml:train:7")[0] == exact


@pytest.mark.parametrize("text", ["azureml:train@latest", "azureml:train:1"])
def test_two_files_of_one_name_and_version_are_refused_naming_both(
    text: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for folder in ("a", "b"):
        component(tmp_path / folder, "train", "1")
    with pytest.raises(UserError) as caught:
        find(tmp_path, text)
    assert "a/a.yml and b/a.yml have that name, version 1." in caught.value.problem
    assert (caught.value.file, caught.value.line) == (Path("p.yml"), 3)


def test_a_file_of_another_kind_is_not_taken(tmp_path: Path) -> None:
    (tmp_path / "e.yml").write_text("name: x\nimage: debian\n")
    (tmp_path / "d.yml").write_text("name: x\ntype: uri_folder\npath: ./d\n")
    (tmp_path / "m.yml").write_text("name: x\ntype: custom_model\npath: ./m\n")
    assets = LocalAssets((tmp_path,))
    place = Value(None, None)
    found = [assets.find("azureml:x:1", [kind], place) for kind in (ENVIRONMENT, DATA, MODEL)]
    assert [file.name for file in found if file] == ["e.yml", "d.yml", "m.yml"]
    assert assets.find("azureml:x:1", COMPONENTS, place) is None


def test_only_the_files_own_name_counts(tmp_path: Path) -> None:
    (tmp_path / "a.yml").write_text("type: command\ncommand: ls\ninputs:\n  a:\n    name: train\n")
    (tmp_path / "b.yml").write_text("{{ template }}\nname: train\n")
    assert find(tmp_path, "azureml:train:1")[0] is None


@pytest.mark.parametrize("folder", [".git", ".venv", "node_modules", "__pycache__", "env", "conda", "left/out"])
def test_environments_and_what_amlignore_names_are_not_looked_into(folder: str, tmp_path: Path) -> None:
    component(tmp_path / folder / "below", "train")
    (tmp_path / ".amlignore").write_text("left/\n")
    if folder == "env":
        (tmp_path / "env" / "pyvenv.cfg").write_text("")
    if folder == "conda":
        (tmp_path / "conda" / "conda-meta").mkdir()
    assert find(tmp_path, "azureml:train:1")[0] is None
    assert find(tmp_path / folder / "below", "azureml:train:1")[0] is not None


def test_a_file_beside_the_one_that_asks_counts_as_well(tmp_path: Path) -> None:
    project, beside = tmp_path / "project", tmp_path / "beside"
    project.mkdir()
    file = component(beside, "train")
    assert find(project, "azureml:train:1", beside)[0] == file
    # Below both, it is one file all the same.
    assert find(tmp_path, "azureml:train:1", beside)[0] == file


def test_a_tree_beyond_the_limits_is_not_searched_to_its_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(names, "MOST_ENTRIES", 50)
    for number in range(60):
        (tmp_path / "data" / "deep" / str(number)).mkdir(parents=True)
    component(tmp_path / "data" / "deep" / "7", "train")
    component(tmp_path / "zoo", "fit")
    assert find(tmp_path, "azureml:train:1")[0] is None
    # What is further up comes first, whatever lies beside it.
    assert find(tmp_path, "azureml:fit:1")[0] is not None


def test_a_folder_with_a_data_set_in_it_is_not_looked_through(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(names, "MOST_IN_FOLDER", 20)
    component(tmp_path / "few", "fit")
    component(tmp_path / "images", "train")
    for number in range(30):
        (tmp_path / "images" / f"{number}.png").touch()
    assert find(tmp_path, "azureml:fit:1")[0] is not None
    assert find(tmp_path, "azureml:train:1")[0] is None
