"""The story of an experiment, on both engines, with real processes, containers and debug sessions."""

from __future__ import annotations

import json
import os
import shlex
import shutil
from pathlib import Path

from experiments import BUSY, TITLE, TRAIN_LINE, ExperimentProject
from pipelines import LAUNCHER, go_on, running_marked, session, stop_of, value_of
from projects import ANY_ENGINE, ROOT, listeners, quiet_port, until


def test_one_command_holds_the_script_and_a_breakpoint_stops_in_it(experiment: ExperimentProject) -> None:
    result = experiment.debug(
        "sums", "--script", "train.py", "--data", "numbers=some data", "--", "--numbers",
        "$AZUREML_DATAREFERENCE_numbers", "--note", "it's \"a b\" $HOME",
    )  # fmt: skip
    assert result["backend"] == "local" and result["status"] == "Running"
    assert set(result["seconds"]) == {"create", "build", "run", "tail-log", "attach"}
    (endpoint,) = result["endpoints"]
    name = f"{TITLE}: sums"
    assert endpoint["step"] == "sums" and endpoint["rank"] is None and endpoint["state"] == "waiting"
    assert endpoint["run_id"] == result["run_id"] and endpoint["launch_configuration"] == name
    assert set(listeners(endpoint["port"])) == {"127.0.0.1"}
    assert experiment.launch()[name]["connect"] == {"host": "127.0.0.1", "port": endpoint["port"]}
    with session(endpoint, {experiment.script: [TRAIN_LINE]}) as client:
        frame = stop_of(client)
        assert (frame["source"]["path"], frame["line"]) == (str(experiment.script), TRAIN_LINE)
        assert value_of(client, frame, "numbers") == "[10, 20, 30]"
        go_on(client, frame)
        client.wait_event("terminated", 30)
    record = experiment.until_final()
    assert record["status"] == "Completed", record
    log = Path(endpoint["log"])
    assert log == Path(record["folder"]) / "azureml-logs" / "70_driver_log.txt"
    lines = log.read_text().splitlines()
    assert lines[0] == "Timeout for debug connection: 300" and "Debugger attached = True" in lines
    note = 'it\'s "a b" $HOME'
    assert lines[-1] == f"total 60 note {note!r} colour None"
    folder = Path(record["folder"])
    assert folder.parent == experiment.runs
    assert (folder / "outputs" / "total.txt").read_text() == (folder / "logs" / "total.txt").read_text() == "60"
    assert (folder / "azureml-logs" / "60_control_log.txt").read_text().strip()
    assert {path.name for path in experiment.folder.iterdir()} == {
        "tasks.py", "train.py", "some data", ".azureml", ".azureml-debug", ".vscode",
    }  # fmt: skip
    assert [path.name for path in (experiment.folder / ".vscode").iterdir()] == ["launch.json"]


def test_a_debugged_run_has_the_environment_of_one_that_is_not(experiment: ExperimentProject) -> None:
    experiment.script.write_text(
        "import importlib.metadata\n"
        "print('packages', sorted({one.metadata['name'] for one in importlib.metadata.distributions()}))\n"
    )
    record = experiment.run("sums", "--script", "train.py")
    assert not record["debugged"] and "debugpy" not in experiment.log()
    assert not (experiment.folder / ".vscode").exists()
    seen = experiment.log()
    # Nothing is built for the debugger, which comes with a debugpy of its own.
    assert "(reused)" in experiment.ok("experiment.debug", "sums", "--no-wait").out
    experiment.until_final()
    assert experiment.log().splitlines()[-1] == seen.splitlines()[-1]


def test_the_chain_can_be_done_one_step_at_a_time(experiment: ExperimentProject) -> None:
    assert json.loads(experiment.ok("experiment.create", "sums", "--json").out)["name"] == "sums"
    # What a person would type where the command was closed after the script had been started.
    debugged = experiment.debug("sums", "--script", "train.py")
    (experiment.folder / ".vscode" / "launch.json").unlink()
    attached = experiment.ok("experiment.attach", "--json", "--run", "sums").json
    assert attached["run_id"] == debugged["run_id"] and list(experiment.launch()) == [f"{TITLE}: sums"]
    assert "holds for a debugger" in experiment.ok("experiment.show").out
    assert "Timeout for debug connection: 300" in experiment.ok("experiment.logs").out
    location = f"train.py:{TRAIN_LINE}"
    seen = experiment.ok("experiment.inspect", location, "--eval", "sum(numbers)", "--json").json
    assert seen["stopped"] == {"file": str(experiment.script), "line": TRAIN_LINE, "function": "<module>"}
    assert seen["locals"]["numbers"] == "[1, 2, 3]" and seen["values"] == {"sum(numbers)": "6"}
    assert experiment.until_final()["status"] == "Completed"


# On the step engine that pipelines have, where it is tried with and without Docker.
@ANY_ENGINE
def test_after_an_error_the_debugger_shows_the_frames_and_locals_that_failed(experiment: ExperimentProject) -> None:
    experiment.script.write_text("def divide(number):\n    zero = 0\n    return number / zero\n\ndivide(7)\n")
    (endpoint,) = experiment.debug("sums", "--script", "train.py", "--on-error")["endpoints"]
    with session(endpoint, {}) as client:
        frame = stop_of(client)
        assert (frame["reason"], frame["line"]) == ("exception", 3)
        assert value_of(client, frame, "zero") == "0"
        go_on(client, frame)
    assert experiment.until_final()["status"] == "Failed"
    experiment.script.write_text("print('well')\n")
    result = experiment.ok("experiment.debug", "sums", "--on-error", "--json")
    assert result.json["endpoints"] == [] and "did not raise" in result.err


# On the step engine that pipelines have, where it is tried with and without Docker.
@ANY_ENGINE
def test_without_waiting_the_script_runs_and_can_be_attached_to(experiment: ExperimentProject) -> None:
    experiment.script.write_text("import time\ncount = 0\nwhile count < 3000:\n    count += 1\n    time.sleep(0.02)\n")
    (endpoint,) = experiment.debug("sums", "--script", "train.py", "--no-wait")["endpoints"]
    assert endpoint["state"] == "listening"
    with session(endpoint, {experiment.script: [4]}) as client:
        assert int(value_of(client, stop_of(client), "count")) >= 0


def test_cancel_ends_a_script_that_waits_one_that_is_paused_and_one_that_computes(
    experiment: ExperimentProject,
) -> None:
    experiment.script.write_text(BUSY)
    for state in ("waiting", "paused", "computing"):
        wait = ["--no-wait"] if state == "computing" else []
        (endpoint,) = experiment.debug("sums", "--script", "train.py", *wait)["endpoints"]
        if state == "paused":
            with session(endpoint, {experiment.script: [3]}) as client:
                stop_of(client)
                result = experiment.ok("experiment.cancel", "--json").json
        else:
            if state == "computing":
                until(lambda: "computing" in experiment.log(), "its first line")
            result = experiment.ok("experiment.cancel", "--json").json
        # Whatever it is at: nothing is waited for to end by itself.
        assert result["status"] == "Canceled" and result["seconds"]["cancel"] < 30, state
        assert experiment.record()["status"] == "Canceled" and not listeners(endpoint["port"])
        assert not running_marked(result["run_id"])
        assert experiment.log()
    assert "is over already" in experiment.ok("experiment.cancel").out
    assert experiment.ok("experiment.list").out.count("Canceled") == 3


def test_cancel_ends_the_build_of_an_environment(experiment: ExperimentProject) -> None:
    begun = experiment.slow_environment()
    building = experiment.start("experiment.debug", "sums", "--script", "train.py", "--environment", "slow")
    until(begun.exists, "the beginning of the build")
    assert experiment.record()["status"] == "Preparing"
    assert "Preparing" in experiment.ok("experiment.list").out
    assert "package" in experiment.ok("experiment.logs", "--build").out
    experiment.inv("experiment.logs").says("has not been started: Preparing", "--build")
    assert experiment.ok("experiment.cancel", "--json").json["status"] == "Canceled"
    # The build would have gone on for much longer.
    assert building.wait(60) is not None
    experiment.finish(building).says("was canceled", "inv experiment.debug sums")
    assert "Canceled: before its script was started" in experiment.ok("experiment.show").out
    assert experiment.record()["status"] == "Canceled"
    assert "package" in experiment.log(name="60_control_log.txt")
    assert not [entry for entry in processes_of(begun.parent) if entry != os.getpid()]


def processes_of(folder: Path) -> list[int]:
    """Processes whose command line or folder is in a folder."""
    import contextlib

    import psutil

    found = []
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error, OSError):
            if str(folder) in process.cwd():
                found.append(process.pid)
    return found


@ANY_ENGINE
def test_one_debugger_for_an_experiment_and_two_experiments_side_by_side(experiment: ExperimentProject) -> None:
    first = experiment.debug("sums", "--script", "train.py")
    experiment.inv("experiment.debug", "sums").says(first["run_id"], "experiment.cancel --run 1")
    assert len(list(experiment.runs.glob("*/run.json"))) == 1
    # It is refused before anything is asked of the person.
    refused = experiment.inv("experiment.debug", "sums", "--edit", "--", "--note", "x", EDITOR="false", VISUAL="")
    refused.says("is being debugged already")
    assert "note:" not in refused.out
    # A plain run of the same experiment is nobody's debug session.
    assert experiment.run("sums")["status"] == "Completed"
    port = str(first["endpoints"][0]["port"])
    second = experiment.debug("others", "--script", "train.py", "--debug-port", port)
    names = [f"{TITLE}: sums", f"{TITLE}: others"]
    assert list(experiment.launch()) == names
    places = [
        (result["endpoints"][0], experiment.launch()[name]) for result, name in zip((first, second), names, strict=True)
    ]
    assert len({endpoint["port"] for endpoint, _entry in places}) == 2
    for endpoint, entry in places:
        assert entry["connect"]["port"] == endpoint["port"]
        with session(endpoint, {experiment.script: [TRAIN_LINE]}) as client:
            assert stop_of(client)["line"] == TRAIN_LINE
        experiment.until_final(endpoint["run_id"])
    experiment.debug("sums")


@ANY_ENGINE
def test_the_next_session_is_not_refused_while_an_inspected_run_comes_to_its_end(experiment: ExperimentProject) -> None:
    go_on = experiment.folder / "go on"
    experiment.script.write_text(
        "import pathlib, time\nx = 1\n"
        "while not pathlib.Path(__file__).resolve().with_name('go on').exists():\n    time.sleep(0.1)\n"
    )
    first = experiment.debug("sums", "--script", "train.py")
    experiment.ok("experiment.inspect", "train.py:2")
    second = experiment.debug("sums")
    assert experiment.record(first["run_id"])["status"] == "Running"
    # That one holds, so a third is refused.
    experiment.inv("experiment.debug", "sums").says(second["run_id"], "is being debugged already")
    experiment.ok("experiment.inspect", "train.py:2")
    go_on.touch()
    for run in (first, second):
        assert experiment.until_final(run["run_id"])["status"] == "Completed"


def test_a_run_whose_runner_was_killed_is_recognised_and_can_be_debugged_again(experiment: ExperimentProject) -> None:
    first = experiment.debug("sums", "--script", "train.py")
    runner = json.loads((experiment.runs / first["run_id"] / "runner.json").read_text())["pid"]
    os.kill(runner, 9)
    until(lambda: not Path(f"/proc/{runner}").exists() or "Z" in Path(f"/proc/{runner}/stat").read_text(), "its end")
    assert experiment.record()["status"] == "Running"
    assert "Interrupted" in experiment.ok("experiment.list").out
    assert experiment.record()["status"] == "Interrupted"
    assert not running_marked(first["run_id"]) and not listeners(first["endpoints"][0]["port"])
    assert experiment.debug("sums")["run_id"] != first["run_id"]


def test_ranks_that_a_launcher_of_ones_own_makes_are_debugged_as_asked(experiment: ExperimentProject) -> None:
    experiment.script.write_text("import os\nrank = int(os.environ['RANK'])\nsquare = rank * rank\nprint(square)\n")
    (experiment.folder / "launch.py").write_text(LAUNCHER)
    typed = ("--script", "launch.py")
    endpoints = experiment.debug("sums", *typed, "--rank", "all", "--", "3", "train.py")["endpoints"]
    assert [(one["rank"], one["port"] - endpoints[0]["port"]) for one in endpoints] == [(0, 0), (1, 1), (2, 2)]
    names = [f"{TITLE}: sums (rank {rank})" for rank in range(3)]
    assert list(experiment.launch()) == names
    for rank, endpoint in enumerate(endpoints):
        with session(endpoint, {experiment.script: [4]}) as client:
            assert value_of(client, stop_of(client), "square") == str(rank**2)
    assert experiment.until_final()["status"] == "Completed"
    (endpoint,) = experiment.debug("sums", "--rank", "2")["endpoints"]
    assert endpoint["rank"] == 2 and endpoint["launch_configuration"] == names[2]
    seen = experiment.ok("experiment.inspect", "train.py:4", "--rank", "2", "--json").json
    assert seen["locals"]["square"] == "4"
    assert experiment.until_final()["status"] == "Completed"
    # Without being asked for, the script itself is what is debugged; what it starts is behind its port.
    (endpoint,) = experiment.debug("sums")["endpoints"]
    assert endpoint["rank"] is None and endpoint["launch_configuration"] == f"{TITLE}: sums"
    assert experiment.ok("experiment.inspect", "train.py:4", "--json").json["child"]
    assert experiment.until_final()["status"] == "Completed"


# On the step engine that pipelines have, where it is tried with and without Docker.
@ANY_ENGINE
def test_ranks_are_debugged_together_or_one_of_them(experiment: ExperimentProject) -> None:
    experiment.script.write_text("import os\nrank = int(os.environ['RANK'])\nsquare = rank * rank\nprint(square)\n")
    experiment.write(
        ".azureml/sums.runconfig",
        "script: train.py\nframework: PyTorch\ncommunicator: Gloo\npytorch: {processCount: 3}\n",
    )
    result = experiment.ok("experiment.debug", "sums", "--rank", "all", "--json")
    names = ", ".join(f'"{TITLE}: sums (rank {rank})"' for rank in range(3))
    assert f"Press F5 in VS Code: {names} (all of them: the compound)" in result.err
    endpoints = result.json["endpoints"]
    assert [endpoint["rank"] for endpoint in endpoints] == [0, 1, 2]
    assert list(experiment.launch()) == [f"{TITLE}: sums (rank {rank})" for rank in range(3)]
    with session(endpoints[2], {experiment.script: [4]}) as client:
        assert value_of(client, stop_of(client), "square") == "4"
    experiment.ok("experiment.cancel")
    (endpoint,) = experiment.debug("sums", "--rank", "1")["endpoints"]
    assert endpoint["rank"] == 1
    # The one that is debugged is meant where none is named.
    seen = experiment.ok("experiment.inspect", "train.py:4", "--json").json
    assert seen["locals"]["square"] == "1"
    experiment.inv("experiment.debug", "other", "--script", "train.py", "--rank", "1").says("no rank 1", "one process")
    assert "other" not in experiment.known()


@ANY_ENGINE
def test_a_script_in_a_folder_is_found_by_its_bare_name(experiment: ExperimentProject) -> None:
    experiment.write("code of mine/deep/sum.py", "total = 1\nprint(total)\n")
    experiment.debug("sums", "--script", "code of mine/deep/sum.py")
    seen = experiment.ok("experiment.inspect", "sum.py:2", "--json").json
    assert seen["locals"]["total"] == "1"
    experiment.inv("experiment.inspect", "no.py:2").says("there is no file no.py", "code of mine/deep")


def test_the_example_is_taken_where_no_script_is_named(experiment: ExperimentProject) -> None:
    shutil.copytree(ROOT / "examples" / "experiment", experiment.folder / "examples" / "experiment")
    result = experiment.ok("experiment.debug", "rings", "--json")
    assert "examples/experiment/train.py is run" in result.err
    line = next(
        number
        for number, text in enumerate((ROOT / "examples/experiment/train.py").read_text().splitlines(), 1)
        if text.strip().startswith("right = accuracy")
    )
    seen = experiment.ok(
        "experiment.inspect", f"examples/experiment/train.py:{line}", "--eval", "loss > 0", "--json"
    ).json
    assert seen["values"] == {"loss > 0": "True"}
    assert experiment.until_final()["status"] == "Completed"
    assert "outputs/model.json" in experiment.ok("experiment.outputs").out


@ANY_ENGINE
def test_the_person_is_told_what_has_changed_in_launch_json_since_the_command_was_typed(
    experiment: ExperimentProject,
) -> None:
    file = experiment.write("it's a script.py", "number = 1\nprint(number)\n")
    out = experiment.ok("experiment.debug", "sums", "--script", file.name).out
    assert "launch.json added" in out
    # The name is one that a shell takes as it is meant.
    line = next(line for line in out.splitlines() if line.startswith("Without editor"))
    words = shlex.split(line.partition("inv ")[2])
    assert words == ["experiment.inspect", f"{file.name}:2", "--run", "1"]
    assert experiment.ok(*words, "--json").json["locals"]["number"] == "1"
    experiment.until_final()
    port = str(experiment.record()["steps"][0]["ports"]["0"])
    # Without Docker each run's own working folder is in it.
    word = "unchanged" if experiment.environ["AML_ENGINE"] == "docker" else "updated"
    assert f"launch.json {word}" in experiment.ok("experiment.debug", "sums", "--debug-port", port).out
    experiment.ok("experiment.cancel")
    assert "launch.json updated" in experiment.ok("experiment.debug", "sums", "--debug-port", str(quiet_port())).out
