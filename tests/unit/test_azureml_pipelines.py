"""What is said of a step on a node, and what is sent there: without the SDK."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import requests

from workflows.azureml.announcements import Announcements, LogReader, StepState, TagReader
from workflows.azureml.child_run import FollowedStep
from workflows.azureml.cloud_pipeline import ChildRun
from workflows.azureml.environments import cloud_environment
from workflows.azureml.staging import OWN, SCRIPT, stage
from workflows.debuggee import FOLDER
from workflows.debuggee.azureml_debuggee.tags import Tags
from workflows.errors import UserError
from workflows.pipelines.definition import EnvironmentReference
from workflows.runs import attachable
from workflows.runs import record as records
from workflows.settings import resolve

LINES = ["Timeout for debug connection: 300", "ip_address: 10.3.0.5", "debug_port: 5679", "rank: 3"]


# Announcements -------------------------------------------------------------------------------------


def test_the_published_lines_tell_address_port_and_rank() -> None:
    state = StepState()
    reader = LogReader(state)
    assert list(reader.read(["azureml_debug: source root /mnt/a b", "working", *LINES])) == []
    first = list(reader.flush())
    assert first == [
        {"event": "listening", "pid": -1, "rank": 3, "host": "10.3.0.5", "port": 5679},
        {"event": "waiting", "pid": -1, "rank": 3},
    ]
    assert (state.root, state.addresses) == ("/mnt/a b", {3: ("10.3.0.5", 5679)})
    assert list(reader.read(["Debugger attached = True", "more"])) == [{"event": "attached", "pid": -1, "rank": 3}]


def test_a_second_script_in_one_log_is_another_process() -> None:
    reader = LogReader(StepState(), rank=2)
    events = list(reader.read([*LINES[:2], "Debugger attached = False", *LINES[:2], "Debugger attached = True"]))
    assert [(event["event"], event["pid"], event["rank"]) for event in events] == [
        ("listening", -1, 2),
        ("waiting", -1, 2),
        ("not-attached", -1, 2),
        ("listening", -2, 2),
        ("waiting", -2, 2),
        ("attached", -2, 2),
    ]


@pytest.mark.parametrize(
    "line",
    [
        "ip_address: ",
        "debug_port: 99999999",
        "  ip_address: 10.0.0.1",
        "Debugger attached = maybe",
        "rank: x",
        "",
        "\0",
    ],
)
def test_lines_that_only_look_like_the_published_ones_tell_nothing(line: str) -> None:
    reader = LogReader(StepState())
    assert [*reader.read([line, line]), *reader.flush()] == []


def test_tags_become_events_each_once_also_where_older_ones_have_left_the_tag() -> None:
    state = StepState()
    reader = TagReader(state)
    tags: dict[str, str | None] = {"azureml_debug.root": "/mnt/x", "azureml_debug.1": "10.0.0.4:5678 7:listening"}
    assert reader.read(tags) == [{"event": "listening", "pid": 7, "rank": 1, "host": "10.0.0.4", "port": 5678}]
    assert reader.read(tags) == []
    tags["azureml_debug.1"] = "10.0.0.4:5678 7:listening,7:waiting,7:attached"
    assert [event["event"] for event in reader.read(tags)] == ["waiting", "attached"]
    tags["azureml_debug.1"] = "10.0.0.4:5678 7:attached,7:client-left"
    assert [event["event"] for event in reader.read(tags)] == ["client-left"]
    assert (state.root, state.addresses) == ("/mnt/x", {1: ("10.0.0.4", 5678)})


@pytest.mark.parametrize("value", ["", None, "nonsense", "10.0.0.4:x 7:listening", ":: ,,,", "a b c"])
def test_tags_that_are_not_ours_do_no_harm(value: str | None) -> None:
    found = TagReader(StepState()).read({"azureml_debug.0": value, "azureml_debug.x": "1", "azureml_debugger": "2"})
    assert all(event["event"] == "listening" for event in found)


def announced(*words: str) -> list[dict[str, Any]]:
    """Events, each written as `RANK PID EVENT`."""
    return [
        {"rank": int(rank), "pid": int(pid), "event": event} for rank, pid, event in (word.split() for word in words)
    ]


#: What comes at which second, from the log or the tags (`hold` and a rank: its node is not reached yet); what is told
#: then. Tags may come 5 s after the log.
TIMELINES: dict[str, list[tuple[int, str, list[str], list[str]]]] = {
    "tags alone are told at once": [
        (0, "tags", ["0 7 listening", "0 7 waiting"], ["0 7 listening", "0 7 waiting"]),
        (1, "tags", ["0 7 attached"], ["0 7 attached"]),
    ],
    "the log alone is told when tags would have come": [
        (0, "log", ["0 -1 listening"], []),
        (4, "log", ["0 -1 waiting"], []),
        (5, "log", [], ["0 -1 listening", "0 -1 waiting"]),
        (6, "log", ["0 -1 attached"], ["0 -1 attached"]),
    ],
    "of a rank with tags the log tells nothing": [
        (0, "tags", ["0 7 listening"], ["0 7 listening"]),
        (0, "log", ["0 -1 listening"], []),
        (9, "log", ["0 -1 waiting"], []),
    ],
    "tags in time take the log's place": [
        (0, "log", ["0 -1 listening", "0 -1 waiting"], []),
        (3, "tags", ["0 7 listening", "0 7 raised", "0 7 waiting"], ["0 7 listening", "0 7 raised", "0 7 waiting"]),
        (9, "log", [], []),
    ],
    "tags that come too late take back what the log has told, once": [
        (0, "log", ["0 -1 listening", "0 -1 waiting", "0 -1 not-attached", "0 -2 listening"], []),
        (5, "log", [], ["0 -1 listening", "0 -1 waiting", "0 -1 not-attached", "0 -2 listening"]),
        (8, "tags", ["0 7 listening"], ["0 -2 not-attached", "0 -1 not-attached", "0 7 listening"]),
        (9, "tags", ["0 7 waiting"], ["0 7 waiting"]),
    ],
    "each rank has its own: tags of one leave the other's log alone": [
        (0, "log", ["0 -1 listening", "1 -1 listening"], []),
        (1, "tags", ["0 7 listening"], ["0 7 listening"]),
        (4, "log", ["1 -1 waiting"], []),
        (5, "tags", ["0 7 waiting"], ["0 7 waiting", "1 -1 listening", "1 -1 waiting"]),
    ],
    "what the log has told of one rank is not taken back by another's tags": [
        (0, "log", ["0 -1 listening", "1 -1 listening"], []),
        (5, "log", [], ["0 -1 listening", "1 -1 listening"]),
        (6, "tags", ["1 8 listening"], ["1 -1 not-attached", "1 8 listening"]),
        (7, "log", ["0 -1 waiting", "1 -1 waiting"], ["0 -1 waiting"]),
    ],
    "a rank that begins later waits for tags of its own": [
        (0, "log", ["0 -1 listening"], []),
        (60, "log", ["1 -1 listening"], ["0 -1 listening"]),
        (65, "log", [], ["1 -1 listening"]),
    ],
    "what is not told yet is told later, in its order": [
        (0, "hold 0", ["0 7 listening", "1 8 listening"], ["1 8 listening"]),
        (1, "hold 0", ["0 7 waiting"], []),
        (2, "tags", ["0 7 attached"], ["0 7 listening", "0 7 waiting", "0 7 attached"]),
    ],
    "what takes back is told also where it had to wait": [
        (0, "log", ["0 -1 waiting"], []),
        (5, "log", [], ["0 -1 waiting"]),
        (6, "hold 0", ["0 7 listening"], []),
        (7, "hold 0", ["0 7 waiting"], []),
        (8, "tags", [], ["0 -1 not-attached", "0 7 listening", "0 7 waiting"]),
    ],
}


@pytest.mark.parametrize("timeline", TIMELINES.values(), ids=TIMELINES)
def test_of_each_rank_the_tags_count_and_without_them_the_log(
    timeline: list[tuple[int, str, list[str], list[str]]],
) -> None:
    announcements = Announcements(5)
    for second, source, words, expected in timeline:
        if source == "log":
            announcements.add_log_events(announced(*words), second)
        else:
            announcements.add_tag_events(announced(*words))
        due = announcements.due(second)
        told = [event for rank, events in sorted(due.items()) if source != f"hold {rank}" for event in events]
        announcements.mark_reported(told)
        assert told == announced(*expected), f"at {second} s"


def test_processes_of_two_nodes_may_have_one_number(tmp_path: Path) -> None:
    step = records.StepRecord(name="train", run_id="", ranks=2, ports={0: 5678, 1: 5679})
    run = records.RunRecord("run", 1, "pipeline", "mine", tmp_path, tmp_path, records.IN_WORKSPACE, steps=[step])
    run.events(step).parent.mkdir(parents=True)
    events = [
        {"event": "waiting", "pid": 7, "rank": 0},
        {"event": "out-of-reach", "pid": 7, "rank": 1, "message": "in another network"},
    ]
    run.events(step).write_text("".join(json.dumps(event) + "\n" for event in events))
    first, second = attachable.attachables_of_step(run, step)
    assert (first.state, first.error) == (attachable.WAITING, None)
    assert (second.state, second.error) == (attachable.OUT_OF_REACH, events[1])


class Kept:
    """In the place of the workspace: the logs of one child run."""

    def __init__(self, logs: dict[str, str]) -> None:
        self.logs = logs
        self.down = False

    def details(self, run_id: str) -> tuple[Mapping[str, str], str]:
        return {name: name for name in self.logs}, ""

    def read(self, url: str, offset: int) -> bytes:
        if self.down:
            raise requests.ConnectionError("down")
        return self.logs[url].encode()[offset:]


def test_a_rank_of_which_only_the_log_tells_is_announced_when_another_one_has_tags(tmp_path: Path) -> None:
    step = records.StepRecord(name="train", run_id="", ranks=2)
    run = records.RunRecord("run", 1, "pipeline", "mine", tmp_path, tmp_path, records.IN_WORKSPACE, steps=[step])
    logs = {
        f"azureml-logs/70_driver_log_{rank}.txt": f"ip_address: 10.0.0.4\ndebug_port: {5678 + rank}\nrank: {rank}\n"
        for rank in range(2)
    }
    service: Any = Kept(logs)
    child = ChildRun("train", "child", "Running", {"azureml_debug.0": "10.0.0.4:5678 7:listening,7:waiting"}, "")
    with ThreadPoolExecutor(2) as threads:
        followed = FollowedStep(run, step, None, service, "", threads)
        for _ in range(2):
            followed.update(child, lambda: None)
    told = [json.loads(line) for line in run.events(step).read_text().splitlines()]
    assert [(one["pid"], one["event"]) for one in told if one["rank"] == 0] == [(7, "listening"), (7, "waiting")]
    assert [(one["pid"], one["event"]) for one in told if one["rank"] == 1] == [(-1, "listening"), (-1, "waiting")]


def test_a_step_is_not_over_before_the_end_of_its_log_is_here_but_not_for_ever(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    name = "azureml-logs/70_driver_log.txt"
    kept = Kept({name: "begun\n"})
    service: Any = kept
    with ThreadPoolExecutor(2) as threads:
        for patience, expected in ((60, "begun\nthe reason\n"), (0, "begun\n")):
            kept.logs[name], kept.down = "begun\n", False
            step = records.StepRecord(name=f"train {patience}", run_id="")
            run = records.RunRecord("run", 1, "pipeline", "mine", tmp_path, tmp_path, "azureml", steps=[step])
            followed = FollowedStep(run, step, None, service, "", threads)
            followed.update(ChildRun("train", "child", "Running"), lambda: None)
            kept.logs[name] += "the reason\n"
            kept.down = True
            monkeypatch.setattr("workflows.azureml.child_run._LOGS_LATER", patience)
            followed.update(ChildRun("train", "child", "Failed"), lambda: None)
            assert step.final == (not patience) and followed.is_busy == (not step.final)
            kept.down = False
            followed.update(ChildRun("train", "child", "Failed"), lambda: None)
            assert step.status == records.FAILED and run.log(step).read_text() == expected


# Tags that the debuggee sets -----------------------------------------------------------------------


class Recorded:
    """In the place of azureml-core's run."""

    def __init__(self, failures: int = 0) -> None:
        self.tags: dict[str, str] = {}
        self.asked = 0
        self._failures = failures
        self.set = threading.Event()

    def set_tags(self, tags: dict[str, str]) -> None:
        self.asked += 1
        if self.asked <= self._failures:
            raise OSError("down")
        self.tags.update(tags)
        self.set.set()

    def seconds_to_renewal(self) -> None:
        """Its token never ends."""


LISTENING = {"event": "listening", "pid": 7, "host": "10.0.0.4", "port": 5678}


def test_what_the_debuggee_sets_is_what_the_developers_side_reads() -> None:
    run = Recorded()
    tags = Tags("/mnt/x", lambda: run)
    raised = {"event": "raised", "pid": 7, "type": "KeyError", "message": "'a\nb'"}
    for event in (LISTENING, raised, {"event": "waiting", "pid": 7}):
        tags.add_event(event)
    tags.finish(5)
    state = StepState()
    found = TagReader(state).read(run.tags)
    assert [event["event"] for event in found] == ["listening", "raised", "waiting"]
    assert (found[1]["type"], found[1]["message"]) == ("KeyError", "'a b'")
    assert (state.root, state.addresses) == ("/mnt/x", {0: ("10.0.0.4", 5678)})
    assert all(len(value) < 1000 for value in run.tags.values())


def test_a_tag_that_could_not_be_set_is_set_later(capsys: pytest.CaptureFixture[str]) -> None:
    run = Recorded(failures=1)
    tags = Tags("/mnt/x", lambda: run)
    tags.add_event(LISTENING)
    assert run.set.wait(10)
    tags.finish(5)
    assert run.tags["azureml_debug.0"] == "10.0.0.4:5678 7:listening"
    assert capsys.readouterr().err.count("cannot be set as a tag") == 1


@pytest.mark.parametrize("context", [lambda: None, lambda: (_ for _ in ()).throw(RuntimeError("no")), Recorded])
def test_without_a_run_to_tag_the_program_goes_on(context: Any) -> None:
    tags = Tags("/mnt/x", context)
    for _ in range(100):
        tags.add_event(LISTENING)
    tags.finish(5)


# What a node is sent -------------------------------------------------------------------------------


def test_the_staged_folder_holds_the_code_and_the_person_s_folder_stays_as_it_is(tmp_path: Path) -> None:
    code = tmp_path / "my code"
    (code / "deep" / "er").mkdir(parents=True)
    for name in ("train.py", "deep/er/a b.py", "model.bin", "secret.txt"):
        (code / name).write_text(name)
    (code / ".amlignore").write_text("*.bin\nsecret.txt\n")
    (code / "loop").symlink_to(code)
    (tmp_path / "shared").mkdir()
    (tmp_path / "shared" / "lib.py").write_text("shared")
    before = sorted(path.relative_to(tmp_path) for path in tmp_path.rglob("*"))
    staged = tmp_path / "staged"
    stage(staged, code, [tmp_path / "shared"], {"command": "x"}, None, "train")
    found = {str(path.relative_to(staged)) for path in staged.rglob("*") if path.is_file()}
    assert found == {"train.py", "deep/er/a b.py", "shared/lib.py", ".amlignore", SCRIPT, f"{OWN}/step.json"}
    assert all((tmp_path / path).exists() for path in before)
    assert sorted(os.listdir(code)) == [".amlignore", "deep", "loop", "model.bin", "secret.txt", "train.py"]


def test_code_with_a_folder_of_our_name_is_refused(tmp_path: Path) -> None:
    (tmp_path / "code" / OWN).mkdir(parents=True)
    (tmp_path / "code" / OWN / "x.py").write_text("")
    with pytest.raises(UserError, match=OWN):
        stage(tmp_path / "staged", tmp_path / "code", [], {}, None, "train")


def node(folder: Path, step: dict[str, Any], *arguments: str) -> subprocess.CompletedProcess[str]:
    """What the service does with a snapshot."""
    (folder / "code").mkdir(exist_ok=True)
    stage(folder / "staged", folder / "code", [], {"variables": {}, "files": {}, **step}, None, "train")
    environ = {**os.environ, "TMPDIR": str(folder)}
    return subprocess.run(
        [sys.executable, SCRIPT, *arguments],
        cwd=folder / "staged", env=environ, capture_output=True, text=True, timeout=60,
    )  # fmt: skip


def test_a_command_gets_its_paths_and_the_process_its_exit_code(tmp_path: Path) -> None:
    (tmp_path / "data 1").mkdir()
    (tmp_path / "data 1" / "a.txt").write_text("numbers")
    step = {
        "command": "cat @azureml_debug:inputs.data@/a.txt; echo $WHERE > @azureml_debug:outputs.model@; exit 7",
        "variables": {"WHERE": "@azureml_debug:outputs.model@"},
        "files": {"outputs.model": "model"},
    }
    out = tmp_path / "made" / "later"
    done = node(tmp_path, step, "inputs.data", str(tmp_path / "data 1"), "outputs.model", str(out))
    assert (done.returncode, done.stdout, done.stderr) == (7, "numbers", "")
    assert (out / "model").read_text() == f"{out / 'model'}\n"


def test_the_node_s_script_runs_on_old_pythons(tmp_path: Path) -> None:
    import ast

    for path in (Path(FOLDER) / "node.py", Path(FOLDER) / "azureml_debuggee" / "tags.py"):
        ast.parse(path.read_text(), feature_version=(3, 7))


# Environments --------------------------------------------------------------------------------------


def environment(tmp_path: Path, debugged: bool = True, **fields: Any) -> Any:
    reference = EnvironmentReference(tmp_path / "pipeline.yml", 7, **fields) if fields else None
    return cloud_environment(reference, resolve(tmp_path, environ={}), debugged)


def pip_of(found: Any) -> list[str]:
    lines: list[str] = next(entry["pip"] for entry in found.conda["dependencies"] if isinstance(entry, dict))
    return lines


def test_a_conda_file_gets_debugpy_and_azureml_defaults_where_they_are_missing(tmp_path: Path) -> None:
    file = tmp_path / "conda.yml"
    file.write_text("dependencies:\n  - python=3.9\n  - numpy\n  - pip:\n      - debugpy==1.8.22\n      - six\n")
    found = environment(tmp_path, conda_file=file, image="mine:1")
    assert found.image == "mine:1" and not found.registered
    assert found.conda["dependencies"][:3] == ["python=3.9", "pip", "numpy"]
    assert pip_of(found) == ["debugpy==1.8.22", "six", "azureml-defaults"]
    bare = environment(tmp_path, debugged=False, conda_file=file, image="mine:1")
    assert pip_of(bare) == ["debugpy==1.8.22", "six"]


def test_a_conda_file_inside_the_pipeline_file_does_as_well(tmp_path: Path) -> None:
    found = environment(tmp_path, conda={"dependencies": ["python=3.8", {"pip": ["azureml-core==1.61", "six"]}]})
    assert [line for line in pip_of(found) if "debugpy" in line] and "azureml-defaults" not in pip_of(found)


def test_names_images_and_contexts_stay_what_they_are(tmp_path: Path) -> None:
    assert environment(tmp_path, name="azureml:AzureML-x@latest").name == "AzureML-x@latest"
    assert environment(tmp_path, name="azureml:mine:3").name == "mine:3"
    image = environment(tmp_path, image="some/image:2")
    assert (image.image, image.conda, image.registered) == ("some/image:2", None, False)
    context = environment(tmp_path, build=tmp_path, dockerfile="docker/Dockerfile")
    assert (context.context, context.context_dockerfile) == (tmp_path, "docker/Dockerfile")


def test_packages_that_only_this_machine_has_are_refused_with_their_place(tmp_path: Path) -> None:
    (tmp_path / "package").mkdir()
    (tmp_path / "package" / "pyproject.toml").touch()
    (tmp_path / "conda.yml").write_text("dependencies:\n  - pip:\n      - ./package\n")
    with pytest.raises(UserError, match="on this machine only"):
        environment(tmp_path, conda_file=tmp_path / "conda.yml")


def test_an_environment_of_a_registry_is_replaced_by_the_training_environment_with_a_note(tmp_path: Path) -> None:
    found = environment(tmp_path, name="azureml://registries/azureml/environments/x/versions/1")
    assert "is in a registry" in found.note and "azureml-defaults" in pip_of(found)


def test_the_default_environment_is_the_training_environment(tmp_path: Path) -> None:
    found = environment(tmp_path)
    assert "azureml-defaults" in pip_of(found) and found.image == "" and not found.dockerfile
    assert json.dumps(found.conda)
