"""What is kept of an experiment: what was typed, its run configuration, its outputs, what it was built from."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
from experiments import TRAIN, ExperimentProject
from projects import ANY_ENGINE, until


@ANY_ENGINE
def test_what_was_typed_is_kept_and_repeated_and_no_more_than_what_differs_is_changed(
    experiment: ExperimentProject,
) -> None:
    experiment.run("sums", "--script", "train.py", "--data", "numbers=some data", "--", "--note", "first")
    file = experiment.configuration()
    text = file.read_text().replace("environmentVariables: {}", "environmentVariables:\n  COLOUR: blue  # mine")
    file.write_text(text)
    assert experiment.run("sums")["command"] == "train.py --note first"
    assert "note 'first' colour blue" in experiment.log()
    assert file.read_text() == text
    out = experiment.ok("experiment.run", "sums", "--follow", "--", "--note", "second one").out
    assert "note 'second one'" in out and "sums.runconfig changed" in out
    assert file.read_text() == text.replace("- first", "- 'second one'")
    # A `--` with nothing behind it: no arguments.
    experiment.run("sums", "--")
    assert "note '' colour" in experiment.log()


@ANY_ENGINE
def test_what_is_typed_for_one_run_alone_is_not_kept(experiment: ExperimentProject) -> None:
    experiment.run("sums", "--script", "train.py", "--", "--note", "kept")
    before = experiment.configuration().read_bytes()
    once = experiment.run("sums", "--once", "--", "--note", "once")
    assert "note 'once'" in experiment.log(once["run_id"]) and experiment.configuration().read_bytes() == before
    assert "note 'kept'" in experiment.log(experiment.run("sums")["run_id"])
    refused = experiment.inv("experiment.run", "sums", "--once", "--edit")
    assert refused.code == 2 and "--once leaves it" in refused.err
    # Without a run configuration nothing is kept either.
    alone = experiment.run("alone", "--once", "--script", "train.py", "--", "--note", "alone")
    assert "note 'alone'" in experiment.log(alone["run_id"]) and not experiment.configuration("alone").exists()
    experiment.inv("experiment.run", "alone").says("has no run configuration yet", "--script train.py")


@ANY_ENGINE
def test_edit_opens_the_run_configuration_before_the_run(experiment: ExperimentProject) -> None:
    editor = experiment.write("editor.sh", '#!/bin/sh\nsed -i "s/^script: .*/script: other.py/" "$1"\n')
    editor.chmod(0o755)
    experiment.write("other.py", "print('the other one')\n")
    opened = {"EDITOR": f"'{editor}'", "VISUAL": ""}
    assert experiment.run("sums", "--script", "train.py", "--edit", **opened)["command"] == "other.py"
    experiment.inv("experiment.run", "sums", "--edit", EDITOR="", VISUAL="").says("No editor", "EDITOR")
    experiment.inv("experiment.run", "sums", "--edit", EDITOR="false", VISUAL="").says("ended with 1")
    editor.write_text('#!/bin/sh\necho "script: [" > "$1"\n')
    experiment.inv("experiment.run", "sums", "--edit", **opened).says("sums.runconfig:")
    assert len(list(experiment.runs.glob("*/run.json"))) == 1


@ANY_ENGINE
@pytest.mark.parametrize(
    ("text", "note"),
    [
        ("script: [", "sums.runconfig:"),
        ("arguments: []\n", "sums.runconfig:1: It names no script."),
        ("arguments: []\nscript: gone.py\n", "sums.runconfig:2: The script gone.py does not exist."),
    ],
)
def test_edit_opens_a_run_configuration_that_is_wrong(experiment: ExperimentProject, text: str, note: str) -> None:
    file = experiment.write(".azureml/sums.runconfig", text)
    editor = experiment.write("editor.sh", '#!/bin/sh\necho "script: train.py" > "$1"\n')
    editor.chmod(0o755)
    opened = {"EDITOR": f"'{editor}'", "VISUAL": ""}
    experiment.inv("experiment.run", "sums", "--edit", EDITOR="true", VISUAL="").says("sums.runconfig:")
    assert file.read_text() == text and not list(experiment.runs.glob("*/run.json"))
    out = experiment.ok("experiment.run", "sums", "--edit", "--follow", "--", "--note", "typed", **opened).out
    assert f"note: .azureml/{note}" in out and "note 'typed'" in out
    # What was typed wrong is no matter of the file.
    wrong = ("experiment.run", "sums", "--edit", "--script", "tarin.py")
    experiment.inv(*wrong, EDITOR="false", VISUAL="").says("tarin.py does not exist", "--script")


@ANY_ENGINE
def test_outputs_are_listed_opened_and_copied(experiment: ExperimentProject) -> None:
    experiment.run("sums", "--script", "train.py")
    assert [line.split()[0] for line in experiment.ok("experiment.outputs").out.splitlines()] == [
        "outputs/total.txt", "logs/total.txt",
    ]  # fmt: skip
    opener = experiment.write("bin/xdg-open", f'#!/bin/sh\ncat "$1" > "{experiment.folder}/opened"\n')
    opener.chmod(0o755)
    path = {"PATH": f"{opener.parent}:{os.environ['PATH']}"}
    experiment.ok("experiment.outputs", "--open", "total.txt", **path)
    assert (experiment.folder / "opened").read_text() == "6"
    experiment.inv("experiment.outputs", "--open", "no.txt").says("no file no.txt", "outputs/total.txt")
    assert "2 files copied to a copy" in experiment.ok("experiment.outputs", "--copy", "a copy").out
    assert (experiment.folder / "a copy" / "logs" / "total.txt").read_text() == "6"
    experiment.inv("experiment.outputs", "--copy", "a copy").says("is there already")
    experiment.inv("experiment.outputs", "--copy", "train.py").says("train.py", "folder")


@ANY_ENGINE
def test_linked_folders_among_the_outputs_are_listed_and_copied_but_no_loop(experiment: ExperimentProject) -> None:
    experiment.write("some data/deep/rows.txt", "rows")
    experiment.script.write_text(
        "import os\n"
        "os.makedirs('outputs/step-2')\n"
        "open('outputs/step-2/model.txt', 'w').write('model')\n"
        "os.symlink('step-2', 'outputs/latest')\n"
        "os.symlink('..', 'outputs/step-2/loop')\n"
        "os.symlink(os.path.abspath('some data'), 'outputs/data')\n"
        "os.symlink('gone', 'outputs/gone')\n"
    )
    experiment.run("sums", "--script", "train.py")
    files = [entry["name"] for entry in experiment.ok("experiment.outputs", "--json").json["files"]]
    assert files == [
        "outputs/gone", "outputs/data/numbers.txt", "outputs/data/deep/rows.txt",
        "outputs/latest/loop", "outputs/latest/model.txt", "outputs/step-2/loop", "outputs/step-2/model.txt",
    ]  # fmt: skip
    assert "7 files copied" in experiment.ok("experiment.outputs", "--copy", "a copy").out
    copied = experiment.folder / "a copy" / "outputs"
    assert (copied / "latest" / "model.txt").read_text() == "model"
    assert (copied / "data" / "deep" / "rows.txt").read_text() == "rows"
    assert (copied / "gone").is_symlink() and (copied / "step-2" / "loop").is_symlink()


def test_two_runs_side_by_side_keep_what_they_write_apart(experiment: ExperimentProject) -> None:
    experiment.script.write_text(
        "import pathlib, sys, time\n"
        "pathlib.Path('outputs', 'mine.txt').write_text(sys.argv[1])\n"
        "pathlib.Path('beside.txt').write_text(sys.argv[1])\n"
        "time.sleep(1.5)\n"
        "print(pathlib.Path('outputs', 'mine.txt').read_text(), pathlib.Path('beside.txt').read_text())\n"
    )
    experiment.ok("experiment.create", "sums")
    started = [
        experiment.ok("experiment.run", "sums", "--script", "train.py", "--json", "--", word).json["run_id"]
        for word in ("one", "two")
    ]
    for run_id, word in zip(started, ("one", "two"), strict=True):
        assert experiment.until_final(run_id)["status"] == "Completed"
        assert experiment.log(run_id).splitlines()[-1] == f"{word} {word}"
        assert (experiment.runs / run_id / "outputs" / "mine.txt").read_text() == word
    assert not (experiment.folder / "beside.txt").exists() and not (experiment.folder / "outputs").exists()


def test_a_script_may_make_its_outputs_anew_however_it_ends(experiment: ExperimentProject) -> None:
    experiment.script.write_text(
        "import os, pathlib, shutil, sys, time\n"
        "shutil.rmtree('outputs')\n"
        "os.mkdir('outputs')\n"
        "pathlib.Path('outputs', 'mine.txt').write_text(sys.argv[1])\n"
        "print('written', flush=True)\n"
        "time.sleep(600 if sys.argv[1] == 'Canceled' else 0)\n"
        "sys.exit(sys.argv[1] == 'Failed')\n"
    )
    experiment.ok("experiment.create", "sums")
    for status in ("Completed", "Failed", "Canceled"):
        experiment.ok("experiment.run", "sums", "--script", "train.py", "--", status)
        if status == "Canceled":
            log = Path(experiment.record()["folder"]) / "azureml-logs" / "70_driver_log.txt"
            until(lambda log=log: log.exists() and "written" in log.read_text(), "its output")  # type: ignore[misc]
            # It is there while the script still runs.
            assert "outputs/mine.txt" in experiment.ok("experiment.outputs").out
            experiment.ok("experiment.cancel")
        assert experiment.until_final()["status"] == status
        folder = Path(experiment.record()["folder"])
        assert not (folder / "outputs").is_symlink() and not (folder / "logs").is_symlink()
        assert (folder / "outputs" / "mine.txt").read_text() == status
        assert "outputs/mine.txt" in experiment.ok("experiment.outputs").out


def test_the_variables_of_a_conda_file_count_less_than_the_runs_own(experiment: ExperimentProject) -> None:
    lines = "variables:\n  COLOUR: ${BASE}-green\n  PATH: /opt/mine:${PATH}\n"
    experiment.write("env/coloured/conda.yml", f"name: coloured\ndependencies: [pip]\n{lines}")
    experiment.write("train.py", TRAIN + "print('path', os.environ['PATH'])\n")
    experiment.ok("experiment.create", "sums")
    failed = experiment.inv("experiment.run", "sums", "--script", "train.py", "--environment", "coloured", "--follow")
    assert failed.code == 1 and "COLOUR refers to ${BASE}, which is not set" in failed.out + failed.err
    experiment.environ["BASE"] = "dark"
    run = experiment.run("sums")
    assert "colour dark-green" in experiment.log(run["run_id"])
    assert "path /opt/mine:/" in experiment.log(run["run_id"])
    path = experiment.configuration()
    path.write_text(path.read_text().replace("environmentVariables: {}", "environmentVariables: {COLOUR: red}"))
    assert "colour red" in experiment.log(experiment.run("sums")["run_id"])


def test_the_same_packages_are_built_once_and_others_anew(experiment: ExperimentProject) -> None:
    text = f"# {experiment.folder}\nsix\n"
    for name in ("one", "two"):
        experiment.write(f"env/{name}/conda.yml", "name: same\ndependencies: [{pip: [-r requirements.txt]}]\n")
        experiment.write(f"env/{name}/requirements.txt", text)
    experiment.ok("experiment.create", "sums")
    first = experiment.ok("experiment.run", "sums", "--script", "train.py", "--environment", "one", "--follow").out
    build = next(line for line in first.splitlines() if line.startswith("build  "))
    # A container's packages may have been fetched for another test; then only the engine has something to say.
    told = experiment.log(name="60_control_log.txt")
    assert "(built)" in build and ("six" in told or "Successfully built" in told)
    assert "condaDependenciesFile: env/one/conda.yml" in experiment.configuration().read_text()
    # The same packages in another folder, for another experiment.
    experiment.ok("experiment.create", "others")
    second = experiment.ok("experiment.run", "others", "--script", "train.py", "--environment", "env/two", "--follow")
    again = next(line for line in second.out.splitlines() if line.startswith("build  "))
    assert again.split()[3:] == [*build.split()[3:-1], "(reused)"]
    if experiment.environ["AML_ENGINE"] == "process":
        experiment.write("env/one/requirements.txt", f"{text}# changed\n")
        assert "(built)" in experiment.ok("experiment.run", "sums", "--follow").out
    # Only what nobody uses any more is offered: not the one of `others`.
    rows = experiment.ok("experiment.prune", "--dry-run", "--json").json["removed"]
    assert not [row for row in rows if again.split()[-2].rpartition(":")[2] in row["name"]]


SDK_SCRIPT = """import os
from azureml.core import Run, RunConfiguration

run = Run.get_context()
print("offline", run.id.startswith("OfflineRun"))
for step in range(20):
    run.log("loss", 1 / (step + 1))
run.log_list("squares", [1, 4, 9])
run.log_row("pair", left=1.5, right=2)
run.tag("model", "small one")
with open("here.txt", "w") as file:
    file.write("a result")
run.upload_file("results/here.txt", "here.txt")
config = RunConfiguration.load(os.environ["PROJECT"], "sums")
print("read", config.script, config.arguments, config.data["numbers"].data_location.uri.path)
"""


@ANY_ENGINE
def test_what_the_script_logs_by_the_sdk_is_kept_and_the_sdk_reads_the_run_configuration(
    experiment: ExperimentProject,
) -> None:
    # The SDK pins packages to versions other than those that this program is tested with.
    experiment.environ["PIP_CONSTRAINT"] = ""
    experiment.write("env/sdk/requirements.txt", "azureml-core>=1.57,<2\n")
    experiment.script.write_text(SDK_SCRIPT)
    experiment.write(
        ".azureml/sums.runconfig",
        f"script: none.py\nenvironmentVariables:\n  PROJECT: {json.dumps(str(experiment.folder))}\n",
    )
    experiment.ok(
        "experiment.debug", "sums", "--script", "train.py", "--environment", "sdk", "--data", "numbers=some data",
        "--no-wait", "--follow", "--", "--rate", "0.1",
    )  # fmt: skip
    log = experiment.log()
    assert "offline True" in log and "read train.py ['--rate', '0.1'] some data" in log
    shown = experiment.ok("experiment.show", "--plot", "loss", "--json").json
    assert shown["metrics"]["loss"] == [1 / (step + 1) for step in range(20)] == shown["points"]
    assert shown["metrics"]["squares"] == [1, 4, 9] and shown["metrics"]["pair.right"] == [2]
    assert shown["tags"] == {"model": "small one"}
    out = experiment.ok("experiment.show", "--plot", "loss").out
    assert "loss = 0.05  (last of 20)" in out and "model = small one" in out and "┤" in out
    assert "loss 0.05" in experiment.ok("experiment.list").out
    listed = experiment.ok("experiment.list", "--json").json["runs"][0]
    assert listed["metrics"]["loss"] == 0.05 and listed["tags"] == {"model": "small one"}
    files = {entry["name"]: entry["path"] for entry in experiment.ok("experiment.outputs", "--json").json["files"]}
    assert Path(files["outputs/results/here.txt"]).read_text() == "a result"
    experiment.inv("experiment.show", "--plot", "los").says("no numeric metric los", "loss")
