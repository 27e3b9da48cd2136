"""The parts of experiments that need no run: configurations, commands, metrics, pictures of them."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from workflows.engines.steps import StepSpec
from workflows.errors import UserError
from workflows.experiments import catalog, configure, environments
from workflows.experiments.metrics import read_logged
from workflows.experiments.plot import draw
from workflows.experiments.runconfig import RunConfig
from workflows.runs import record as records
from workflows.runs import store
from workflows.settings import Settings, resolve

ROOT = Path(__file__).resolve().parents[2]
CONDA = "name: mine\ndependencies: [pip, {pip: [six]}]\n"


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    project = tmp_path / "a project"
    (project / "env" / "mine").mkdir(parents=True)
    (project / "env" / "mine" / "conda.yml").write_text(CONDA)
    (project / "train.py").write_text("")
    return resolve(project, environ={}, cwd=project)


def names(found: Any) -> list[str]:
    return [item.name for item in found.definition.pip]


def resolved(settings: Settings, config: RunConfig, engine: str = "docker") -> Any:
    return environments.resolved_environment(settings, config, "sums", engine)


@pytest.mark.parametrize(
    "arguments",
    [
        ["a b", "it's", '"', "", "$HOME", "`x`", "a\nb", "-", "--x=y z", "\\", "*", "ä"],
        ["--data", "$AZUREML_DATAREFERENCE_rows", "--in=${{inputs.rows}}/part one", "${{ inputs.rows }}x"],
        ["${AZUREML_DATAREFERENCE_rows}", "$AZUREML_DATAREFERENCE_rows/it's here"],
    ],
)
def test_bash_hands_the_script_its_arguments_as_they_were_typed(arguments: list[str], tmp_path: Path) -> None:
    script = tmp_path / "my script.py"
    script.write_text("import json, sys; print(json.dumps(sys.argv[1:]))")
    text = configure.command(RunConfig("my script.py", tuple(arguments), data={"rows": "x"}))
    text = f"python() {{ '{sys.executable}' \"$@\"; }}; {text}"
    environ = {**os.environ, "AZUREML_DATAREFERENCE_rows": "/data/of rows"}
    done = subprocess.run(["bash", "-c", text], cwd=tmp_path, env=environ, capture_output=True, text=True, check=True)
    forms = ("${{inputs.rows}}", "${{ inputs.rows }}", "${AZUREML_DATAREFERENCE_rows}", "$AZUREML_DATAREFERENCE_rows")
    expected = []
    for argument in arguments:
        for form in forms:
            argument = argument.replace(form, "/data/of rows")
        expected.append(argument)
    assert json.loads(done.stdout) == expected


def test_nothing_is_added_to_what_a_person_lists(settings: Settings) -> None:
    config = RunConfig("train.py", environment="env/mine", conda_file="env/mine/conda.yml")
    assert names(resolved(settings, config)) == ["six"]


def test_a_folder_is_taken_with_all_that_is_in_it(settings: Settings) -> None:
    (settings.project / "env" / "mine" / "Dockerfile").write_text("ARG BASE_IMAGE\nFROM ${BASE_IMAGE}\n")
    options = configure.RunOptions(environment="mine")
    config = configure.with_options(RunConfig("train.py"), options, settings.project)
    assert (config.environment, config.conda_file) == ("env/mine", "env/mine/conda.yml")
    found = resolved(settings, config)
    assert found.definition.dockerfile == settings.project / "env" / "mine" / "Dockerfile"
    # As it is after somebody named another conda file in the run configuration.
    (settings.project / "other.yml").write_text("dependencies: [{pip: [attrs]}]\n")
    found = resolved(settings, replace(config, conda_file="other.yml"))
    assert "attrs" in names(found)


@pytest.mark.parametrize(("use_docker", "base"), [(True, "an/image:1"), (False, None)])
def test_an_image_counts_where_the_file_says_that_docker_is_used(
    settings: Settings, use_docker: bool, base: str | None
) -> None:
    config = RunConfig("train.py", conda={"dependencies": ["pip"]}, base_image="an/image:1", use_docker=use_docker)
    assert resolved(settings, config).base_image == base
    without = resolved(settings, config, "process")
    assert without.base_image is None and bool(without.notes) == use_docker


def test_paths_in_a_conda_file_that_is_written_into_the_run_configuration_begin_at_the_project(
    settings: Settings,
) -> None:
    (settings.project / "packages.txt").write_text("six\n")
    config = RunConfig("train.py", conda={"dependencies": [{"pip": ["-r packages.txt"]}]})
    assert "six" in names(resolved(settings, config))


def test_a_flag_goes_before_the_run_configuration_and_a_setting_does_not(settings: Settings) -> None:
    other = settings.project / "env" / "other"
    other.mkdir()
    (other / "requirements.txt").write_text("attrs\n")
    config = RunConfig("train.py", environment="env/mine", conda_file="env/mine/conda.yml")
    typed = resolve(settings.project, {"training_env": str(other)}, environ={}, cwd=settings.project)
    assert "attrs" in names(resolved(typed, config))
    named = resolve(settings.project, environ={"AML_TRAINING_ENV": "env/other"}, cwd=settings.project)
    found = resolved(named, config)
    assert "six" in names(found) and any("AML_TRAINING_ENV is not used" in note for note in found.notes)
    assert "attrs" in names(resolved(named, RunConfig("train.py")))


def test_only_the_runs_that_are_shown_are_read(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    project = settings.project
    for number in range(30):
        run = store.new_run(project, "experiment", "sums" if number % 2 else "others", "process")
        run.status = records.COMPLETED
        records.save(run)
    read: list[Path] = []
    load = records.load

    def note(folder: Path) -> records.RunRecord | None:
        read.append(folder)
        return load(folder)

    monkeypatch.setattr(records, "load", note)
    found = store.latest_runs(project, "experiment", {"sums"}, 4)
    assert [run.number for run in found] == [30, 28, 26, 24] and len(read) == 4
    assert store.count_runs(project) == {"sums": 15, "others": 15} and len(read) == 4


def test_an_experiment_is_known_by_its_marker_or_its_run_configuration(tmp_path: Path) -> None:
    assert catalog.list_experiments(tmp_path) == []
    catalog.create(tmp_path, "one")
    (tmp_path / ".azureml").mkdir()
    (tmp_path / ".azureml" / "two.runconfig").write_text("script: x\n")
    assert catalog.list_experiments(tmp_path) == ["one", "two"]
    catalog.record_run(tmp_path, "two", None)
    (tmp_path / ".azureml" / "two.runconfig").unlink()
    assert catalog.list_experiments(tmp_path) == ["one", "two"]
    catalog.record_run(tmp_path, "one", "one-1-abcdef")
    catalog.record_run(tmp_path, "one", None)
    assert catalog.debugged_run_id(tmp_path, "one") == "one-1-abcdef" and catalog.creation_time(tmp_path, "one")
    catalog.remove(tmp_path, "one")
    with pytest.raises(UserError, match="no experiment one"):
        catalog.require(tmp_path, "one")


@pytest.mark.parametrize("left", ["folder", "file", "nothing", "link"])
def test_what_a_script_has_made_of_its_outputs_ends_in_the_runs_folder(tmp_path: Path, left: str) -> None:
    from workflows.engines.work_folder import make_folders, move_run_folders
    from workflows.models import ImageRef

    make_folders(StepSpec("run", "step", tmp_path, tmp_path / "run", ImageRef("process", "", ""), None))
    place, kept = tmp_path / "run" / "work" / "outputs", tmp_path / "run" / "outputs"
    (kept / "early").write_text("early")
    assert (place / "early").read_text() == "early"
    if left != "folder":
        shutil.rmtree(place)
    if left == "file":
        place.write_text("a file")
    elif left == "link":
        (tmp_path / "elsewhere").mkdir()
        (tmp_path / "elsewhere" / "early").write_text("early")
        place.symlink_to(tmp_path / "elsewhere")
    for _again in range(2):
        move_run_folders(tmp_path / "run")
        found = {path.name: path.read_text() for path in kept.iterdir()}
        expected = {"folder": {"early": "early"}, "file": {"outputs": "a file"}, "nothing": {}}
        assert found == expected.get(left, {"early": "early"})
        assert kept.is_symlink() == (left == "link")
        assert {path.name for path in place.iterdir()} == set(found)


# Metrics ---------------------------------------------------------------------------------------------

#: As azureml-core 1.61 has it, as far as it matters.
SDK = '''
class _OfflineRun:
    """An offline run."""

    def log(self, name, value, description=""):
        self._emit("scalar", name, value)

    def log_table(self, name, value, description=""):
        self._emit("table", name, value)

    def log_image(self, name, path=None, plot=None, description=""):
        self._emit("image", name, plot or path)

    def _emit(self, type, name, value):
        print("Attempted to log", type, name)

    def tag(self, name, value=None):
        print("tag")

    def set_tags(self, tags):
        print("tags")

    def add_properties(self, properties):
        print("properties")

    def upload_file(self, name, path_or_stream, datastore_name=None):
        print("upload")

    def upload_files(self, names, paths, return_artifacts=False):
        print("uploads")

    def upload_folder(self, name, path, datastore_name=None):
        print("folder")
'''
SCRIPT = """
import io, os, sys
assert "azureml" not in sys.modules and "metrics" not in " ".join(sys.argv)
from azureml.core.run import _OfflineRun
class Number:
    def item(self):
        return 0.5
run = _OfflineRun()
run.log("loss", 1)
run.log("loss", Number())
run.log("bad", float("nan"))
run.log("odd", object)
run.log_table("table", {"x": [1, 2], "y": [3, 4]})
run.set_tags({"a": 1, "b": "two"})
run.tag("a", 2)
run.add_properties({"p": "q"})
open("file.txt", "w").write("text")
run.upload_file("outputs/deep/file.txt", "file.txt")
run.upload_file("plain.txt", io.StringIO("stream"))
run.upload_files(["logs/file.log"], ["file.txt"])
run.upload_file("../escaped.txt", "file.txt")
run.upload_file("missing.txt", "no such file")
print(_OfflineRun.log.__doc__, _OfflineRun._emit.__name__)
"""


def run_script(tmp_path: Path, script: str, sdk: str = SDK) -> str:
    """Run a script in a place where the SDK's module is, with the debuggee on its path."""
    package = tmp_path / "site" / "azureml" / "core"
    package.mkdir(parents=True)
    for folder in (package.parent, package):
        (folder / "__init__.py").write_text("")
    (package / "run.py").write_text(sdk)
    (tmp_path / "work").mkdir()
    (tmp_path / "work" / "script.py").write_text(script)
    path = os.pathsep.join([str(ROOT / "workflows/debuggee/inject"), str(tmp_path / "site")])
    environ = {name: value for name, value in os.environ.items() if not name.startswith("AZUREML_")}
    environ |= {
        "PYTHONPATH": path,
        "AZUREML_DEBUGGEE_METRICS": str(tmp_path / "metrics.jsonl"),
        "AZUREML_DEBUGGEE_UPLOADS": str(tmp_path / "run"),
    }
    done = subprocess.run(
        [sys.executable, "script.py"], cwd=tmp_path / "work", env=environ, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0 and not done.stderr, done.stderr
    return done.stdout


def test_what_an_offline_run_is_told_is_kept_and_what_it_prints_stays(tmp_path: Path) -> None:
    out = run_script(tmp_path, SCRIPT)
    assert out.count("Attempted to log scalar") == 4 and out.splitlines()[-1] == "None _emit"
    logged = read_logged(tmp_path / "metrics.jsonl")
    assert logged.metrics["loss"] == [1, 0.5] and logged.series("loss") == [(0.0, 1.0), (1.0, 0.5)]
    assert logged.metrics["table.x"] == [1, 2] and logged.series("odd") == []
    assert logged.tags == {"a": 2, "b": "two"} and logged.properties == {"p": "q"}
    assert json.dumps(logged.as_json(), allow_nan=False) and logged.as_json()["metrics"]["bad"] == ["nan"]
    assert logged.last()["loss"] == 0.5
    written = {
        path.relative_to(tmp_path / "run").as_posix(): path.read_text() for path in (tmp_path / "run").rglob("*.*")
    }
    assert written == {"outputs/deep/file.txt": "text", "outputs/plain.txt": "stream", "logs/file.log": "text"}
    assert not (tmp_path / "escaped.txt").exists()


def test_an_sdk_of_another_shape_does_no_harm(tmp_path: Path) -> None:
    out = run_script(tmp_path, "import azureml.core.run as run\nprint(run.value)\n", "value = 3\n")
    assert out == "3\n" and read_logged(tmp_path / "metrics.jsonl").metrics == {}


def test_a_script_that_is_not_debugged_is_left_alone_but_for_its_metrics(tmp_path: Path) -> None:
    script = (
        "import sys, os\n"
        "print(sorted(name for name in sys.modules if 'debuggee' in name and 'metrics' not in name))\n"
        "print([name for name in os.environ if name == 'AZUREML_DEBUGGEE_OWNER'], 'debugpy' in sys.modules, sys.argv)\n"
    )
    out = run_script(tmp_path, script).splitlines()
    assert out == [
        "['azureml_debuggee', 'azureml_debuggee.import_hooks', 'azureml_debuggee.program', 'azureml_debuggee.ranks',"
        " 'azureml_debuggee.step']",
        "[] False ['script.py']",
    ]


def test_only_the_end_of_a_long_file_is_read_for_the_last_values(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    lines = [json.dumps({"event": "metric", "kind": "scalar", "name": "loss", "value": step}) for step in range(5000)]
    path.write_text("\n".join(lines) + "\n")
    assert len(read_logged(path).metrics["loss"]) == 5000
    short = read_logged(path, 1000)
    assert short.last() == {"loss": 4999} and len(short.metrics["loss"]) < 30


def test_a_metric_is_drawn_from_its_first_step_to_its_last() -> None:
    lines = draw([(float(step), float(step)) for step in range(100)], width=40, height=8)
    assert len(lines) == 10 and max(map(len, lines)) <= 40
    assert lines[0].lstrip().startswith("99 ┤") and lines[7].lstrip().startswith("0 ┤")
    assert lines[-1].split() == ["0", "99"]
    # Rising: the further up, the further right.
    starts = [len(line) for line in lines[:8]]
    assert starts == sorted(starts, reverse=True)
    assert draw([(0.0, float("nan"))]) == ["(no finite values)"]
    assert len(draw([(0.0, 1.0)])) == 14 and len(draw([(0.0, 2.0), (1.0, 2.0)])) == 14
