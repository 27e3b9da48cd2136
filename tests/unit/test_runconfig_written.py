"""Run configurations: what is written, and that a change touches only its own lines."""

from __future__ import annotations

import os
import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from runconfigs import EDITED, SAVED, SAVED_2018, edit, of
from test_runconfig_read import BASE

from workflows.debugger import jsonc_file
from workflows.errors import UserError
from workflows.experiments import runconfig_text
from workflows.experiments.runconfig import RunConfig, read, write

# Writing

#: Texts that one version of YAML or another takes for something else.
NASTY = (
    *("1e-3", "0o14", "012", "0b1", "1_000", "12:30", "2020-01-01", ".5", ".inf", "-.inf"),
    *("yes", "No", "True", "null", "~", "", " x ", "=", "<<", "-", "--", "- a", "a:", "a: b", "a #b", "#"),
    *("{x}", "[", "'", '"', "\\", "C:\\x", "*a", "&a", "!a", "%", "@", "`", "--a=b,c"),
    *("a\nb", "\t", "\x7f", "\x85", "\u2028", "\ufeff", "é😀"),
)


def full(**fields: Any) -> RunConfig:
    """A run configuration with a value in every field."""
    config = RunConfig(
        "src/train model.py",
        NASTY,
        target="my cluster",
        framework="PyTorch",
        communicator="Nccl",
        node_count=2,
        mpi_processes=3,
        pytorch_processes=4,
        environment="mine",
        environment_version="7",
        user_managed=True,
        conda_file="env/conda.yml",
        base_image="mcr.microsoft.com/azureml/base:1",
        variables={"A": "b", "my_var": "1", "Other": "yes", "é": ""},
        use_docker=True,
        shm_size="8g",
        data={
            "train": "data/train",
            "train_data": "../x y",
            "trainData": "z",
            "_x": "/abs",
            "_": ".",
            "TRAIN": "C:\\a",
            "1": "1",
        },
        output_collection=False,
        snapshot_project=False,
        directories_to_watch=("logs", "1"),
    )
    return replace(config, **fields)


CONDA = {"name": "e", "channels": ["conda-forge"], "dependencies": ["python=3.9", "pip", {"pip": ["-r x.txt", "a>=1"]}]}


@pytest.mark.parametrize(
    "config",
    [
        RunConfig("train.py"),
        RunConfig("train.py", environment="azureml:AzureML-sklearn-1.0@latest"),
        full(),
        full(conda_file="", conda=CONDA, base_image="", base_dockerfile="FROM x\n\n  RUN y\n"),
        full(conda_file="", conda={"dependencies": [], "x": {}}, base_dockerfile=" FROM x\n", base_image=""),
    ],
    ids=["least", "registered", "full", "inline", "odd inline"],
)
def test_what_is_written_is_read_again_and_written_once(path: Path, config: RunConfig) -> None:
    path.parent.rmdir()
    assert write(path, config)
    assert read(path) == config
    text = path.read_text()
    assert text.endswith("\n") and not text.endswith("\n\n") and text.isascii()
    assert not write(path, config)
    assert [item.name for item in path.parent.iterdir()] == [path.name]


def test_a_new_file_leaves_out_what_is_seldom_set(path: Path) -> None:
    write(path, RunConfig("train.py", ("--a", "1"), environment="mine", conda_file="conda.yml"))
    assert [line for line in path.read_text().splitlines() if not line.startswith("#")] == [
        *("script: train.py", "arguments:", "- --a", "- '1'", "target: local", "framework: Python"),
        *("communicator: None", "nodeCount: 1", "environment:", "  name: mine", "  python:"),
        *("    userManagedDependencies: false", "    condaDependenciesFile: conda.yml", "  docker:", "    baseImage:"),
        *("docker:", "  useDocker: false", "  shmSize: '2g'", "data: {}", "environmentVariables: {}"),
    ]


def test_an_environment_that_is_only_named_stays_a_reference_for_the_sdk(path: Path) -> None:
    write(path, RunConfig("train.py", environment="mine", environment_version="7"))
    assert "\nenvironment:\n  name: mine\n  version: '7'\ndocker:\n" in path.read_text()


def test_data_is_kept_under_keys_that_the_sdk_does_not_change(path: Path) -> None:
    write(path, full())
    data = path.read_text().partition("\ndata:\n")[2].partition("\nenvironmentVariables:")[0]
    assert re.findall(r"^  (\S+):$", data, re.M) == ["train", "trainData", "trainData2", "x", "data", "tRAIN", "'1'"]


@pytest.mark.parametrize("text", [SAVED, SAVED_2018, EDITED, BASE], ids=["saved", "saved 2018", "edited", "least"])
@pytest.mark.parametrize("newline", ["\n", "\r\n"])
def test_every_field_of_any_file_can_be_changed_and_changed_back(path: Path, text: str, newline: str) -> None:
    text = "\ufeff" + text.replace("\n", newline)
    before = of(path, text)
    wanted = full(data={**before.data, **full().data}, variables={**before.variables, **full().variables})
    assert write(path, wanted) and read(path) == wanted
    raw = path.read_bytes()
    assert raw.startswith(b"\xef\xbb\xbf") and raw.endswith(newline.encode())
    assert raw.count(b"\n") == raw.count(newline.encode())
    # The comments stay, also of a list that is longer now.
    for comment in re.findall(r"#.*", text.replace("\r", "")):
        assert comment in raw.decode() or comment == "# not 1e-2"
    assert write(path, before) and read(path) == before


@pytest.mark.parametrize(
    ("fields", "lines"),
    [
        ({"script": "b.py"}, {2: "script: b.py   # the quick one"}),
        ({"arguments": ("--rate", "1e-2", "12")}, {7: "- '1e-2'   # not 1e-2"}),
        ({"environment": "x y"}, {12: "    name: 'x y'"}),
        ({"base_image": "an/image:2"}, {15: "        baseImage: an/image:2  # pinned"}),
        ({"base_image": ""}, {15: "        baseImage:  # pinned"}),
        ({"variables": {"MODE": "slow", "OTHER": "x"}}, {20: "    MODE: slow   # or slow"}),
        ({"variables": {"OTHER": "x"}}, {20: None}),
        ({"node_count": 2}, {29: "      uri: {path: data/train}\nnodeCount: 2"}),
        ({"variables": {"MODE": "quick", "OTHER": "x", "new_one": "1"}}, {22: "    OTHER: x\n    new_one: '1'"}),
        ({"base_dockerfile": "FROM x\nRUN y\n"}, {
            15: '        baseImage: "an/image:1"  # pinned\n'
            + "        baseDockerfile: |\n          FROM x\n          RUN y"
        }),
        ({"variables": {"MODE": "quick", "OTHER": "x\ny"}}, {22: "    OTHER: |-\n      x\n      y"}),
        ({"arguments": ()}, {4: "arguments: []  # as in the paper", 6: None, 7: None, 8: None}),
        ({"arguments": ("a",)}, {6: "- a", 7: None, 8: None}),
        ({"conda_file": "x.yml"}, {13: "    python: {userManagedDependencies: false, condaDependenciesFile: x.yml}"}),
        ({"conda_file": ""}, {13: "    python:\n      userManagedDependencies: false\n      condaDependenciesFile:"}),
        ({"data": {"train": "a,b"}}, {29: "      uri: {path: 'a,b'}"}),
        ({}, {}),
    ],
)  # fmt: skip
def test_a_change_touches_only_its_own_lines(path: Path, fields: dict[str, Any], lines: dict[int, str | None]) -> None:
    text = EDITED.replace("        id: 1234\n", "")  # no cloud data in this one
    text = text.replace("      dataset:\n", "")
    before: dict[int, str | None] = dict(enumerate(text.split("\n"), 1))
    before |= {number - 2 if number > 27 and "uri" in str(line) else number: line for number, line in lines.items()}
    assert edit(path, text, **fields) == "\n".join(line for line in before.values() if line is not None)


def test_local_data_goes_beside_what_it_is_in_the_cloud(path: Path) -> None:
    text = (
        BASE
        + "data:\n  train:\n    dataLocation:\n      dataset:\n        id: 12  # registered\n    mechanism: mount\n"
    )
    before = of(path, text)
    assert (before.data, before.ignored) == ({}, ("data.train",))
    assert write(path, replace(before, data={"train": "data/x"}))
    assert read(path).data == {"train": "data/x"} and read(path).ignored == ()
    after = path.read_text()
    assert after == text.replace("# registered\n", "# registered\n      uri:\n        path: data/x\n")


def test_a_text_of_several_lines_takes_in_nothing_of_what_follows(path: Path) -> None:
    assert edit(path, BASE + "environmentVariables:\n  A: b\n    # deeper\n", variables={"A": "x\ny"}) == (
        BASE + 'environmentVariables:\n  A: "x\\ny"\n    # deeper\n'
    )
    text = BASE + "  docker:\n    baseImage:"
    assert edit(path, text, base_dockerfile="FROM x\nRUN y\n") == (
        text + "\n    baseDockerfile: |\n      FROM x\n      RUN y\n"
    )


def test_a_twin_of_an_older_version_is_changed_with_it(path: Path) -> None:
    text = BASE + "  docker: {enabled: true, shmSize: 8g}\n"
    assert "enabled: true" not in edit(path, text, use_docker=False)
    assert edit(path, text, shm_size="2g").count("2g") == 2


@pytest.mark.parametrize(
    ("text", "after"),
    [
        ("environmentVariables: {A: b, C: d}  # mine\n", "environmentVariables:  # mine\n  A: b\n"),
        ("environmentVariables: {A: b}\n", "environmentVariables: {A: b}\n"),
        ("environmentVariables:\n  # first\n  C: d\n", "environmentVariables:\n  # first\n  A: b\n"),
        ("", "environmentVariables:\n  A: b\n"),
    ],
)
def test_a_variable_is_taken_out_wherever_it_stands(path: Path, text: str, after: str) -> None:
    environment = "  environmentVariables:\n    C: e  # older\n    EXAMPLE_ENV_VAR: EXAMPLE_VALUE\n"
    left = "  environmentVariables:\n    EXAMPLE_ENV_VAR: EXAMPLE_VALUE\n"
    assert edit(path, BASE + environment + text, variables={"A": "b"}) == BASE + left + after


def test_a_file_in_braces_becomes_one_of_lines(path: Path) -> None:
    text = '{"script": "train.py", "arguments": ["1", "2"], "nodeCount": 1, "mine": {"a": [1, null, {}]}}'
    assert edit(path, text, arguments=("1", "3")) == text.replace('"2"', "'3'") + "\n"
    assert edit(path, text, environment="e", arguments=()) == (
        "script: train.py\narguments: []\nnodeCount: 1\nmine:\n  a:\n  - 1\n  - null\n  - {}\nenvironment:\n  name: e\n"
    )


@pytest.mark.parametrize(
    ("text", "fields"),
    [
        ("x: &n 2\nscript: train.py\nnodeCount: *n\n", {"node_count": 3}),
        ("x: &n 2\nscript: train.py\nnodeCount: *n\n", {"node_count": 2, "target": "there"}),
        ("script: train.py\narguments: &a [x]\nmore: *a\n", {"arguments": ("y", "z")}),
        ("script: train.py\nmore: &d {useDocker: true}\ndocker: *d\n", {"shm_size": "9g"}),
    ],
)
def test_what_cannot_be_changed_without_changing_something_else_is_refused(
    path: Path, text: str, fields: dict[str, Any]
) -> None:
    config = replace(of(path, text), **fields)
    try:
        write(path, config)
    except UserError as error:
        assert error.line is not None and "--edit" in error.remedy
        assert path.read_text() == text
    else:
        assert read(path) == config and path.read_text().startswith(text)


def test_what_is_not_utf8_is_refused_before_anything_is_written(path: Path) -> None:
    for config in (RunConfig("train.py", ("\udc80",)), RunConfig("train.py", data={"\udc80": "x"})):
        with pytest.raises(UserError, match="not UTF-8"):
            write(path, config)
    assert not list(path.parent.iterdir())


def test_a_write_that_fails_leaves_the_file_and_nothing_else(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path.write_text(BASE)

    def full_disk(*_: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "replace", full_disk)
    with pytest.raises(UserError, match=r"cannot be written: No space left"):
        write(path, replace(read(path), target="x"))
    assert path.read_text() == BASE
    path.unlink()
    path.parent.rmdir()
    with pytest.raises(UserError, match="cannot be written"):
        write(path, RunConfig("train.py"))
    assert not path.parent.exists()


@pytest.mark.skipif(os.name == "nt", reason="modes and links are POSIX's")
def test_a_link_stays_a_link_and_the_mode_stays(path: Path, tmp_path: Path) -> None:
    target = tmp_path / "kept elsewhere"
    target.write_text(BASE)
    target.chmod(0o640)
    path.symlink_to(target)
    write(path, replace(read(path), target="x"))
    assert path.is_symlink() and target.stat().st_mode & 0o777 == 0o640
    assert read(path).target == "x"


@pytest.mark.parametrize("write", [runconfig_text.save, jsonc_file._replace], ids=["runconfig", "launch.json"])
def test_a_folder_that_another_command_makes_meanwhile_is_no_error(
    write: Callable[[Path, bytes], None], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: set[Path] = set()
    is_dir = Path.is_dir

    def is_dir_a_moment_later(path: Path) -> bool:
        first = path not in seen
        seen.add(path)
        return not first and is_dir(path)

    (tmp_path / "made").mkdir()
    monkeypatch.setattr(Path, "is_dir", is_dir_a_moment_later)
    write(tmp_path / "made" / "file", b"content")
    assert (tmp_path / "made" / "file").read_bytes() == b"content"
