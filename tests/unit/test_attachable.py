"""Which steps of a run welcome a debugger, as commands read it while the run's background process writes it."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from workflows.errors import UserError
from workflows.flows.run_failures import rerun_command, rerun_command_from_run
from workflows.flows.step_inspection import _check_ended
from workflows.runs import attachable
from workflows.runs import record as records
from workflows.runs.record import RUNNING, RunRecord, StepRecord


def test_what_has_announced_itself_since_the_record_was_read_is_reached_where_it_is_by_now(tmp_path: Path) -> None:
    folder = tmp_path / ".azureml-debug" / "runs" / "a-1-abc"
    folder.mkdir(parents=True)
    step = StepRecord(name="train", run_id="", ports={0: 5678}, configurations={0: "train"})
    run = RunRecord("a-1-abc", 1, "pipeline", "a", folder, tmp_path, "azureml", steps=[step])
    records.save(run)
    read = records.load(folder)
    assert read is not None
    # Its node is known now, and its port is another one.
    step.status, step.ports[0], step.mappings = RUNNING, 5690, [(str(tmp_path), "/node/train")]
    records.save(run)
    events = run.events(step)
    events.parent.mkdir(parents=True)
    events.write_text(json.dumps({"event": "waiting", "pid": 1, "rank": 0}) + "\n")
    (found,) = attachable.attachables_of_step(read, read.step("train"))
    # One process has no rank, although the tag that tells of it is called by one.
    assert found.is_open and found.port == 5690 and found.rank is None
    assert [mapping.remote_root for mapping in found.endpoint.path_mappings] == ["/node/train"]
    # Whoever writes the record has it as it is, also before it is written.
    step.ports[0] = 5700
    (own,) = attachable.attachables_of_step(run, step)
    assert own.port == 5700


@pytest.mark.parametrize("status", ["Completed", "Canceled"])
def test_a_step_that_has_come_to_its_end_while_it_was_looked_at_is_told_so(tmp_path: Path, status: str) -> None:
    step = StepRecord(name="train", run_id="", status=status, ports={0: 5678})
    folder = tmp_path / ".azureml-debug" / "runs" / "a-1-abc"
    folder.mkdir(parents=True)
    run = RunRecord("a-1-abc", 1, "pipeline", "a", folder, tmp_path, "process", steps=[step])
    records.save(run)
    with pytest.raises(UserError, match=f"train has ended: {status}") as caught:
        _check_ended(run, "train")
    assert "inv pipeline.debug --step train" in caught.value.remedy


def test_a_visit_that_was_over_before_its_hold_has_said_so_is_over(tmp_path: Path) -> None:
    folder = tmp_path / ".azureml-debug" / "runs" / "a-1-abc"
    folder.mkdir(parents=True)
    step = StepRecord(name="train", run_id="", status=RUNNING, ports={0: 5678})
    run = RunRecord("a-1-abc", 1, "pipeline", "a", folder, tmp_path, "process", steps=[step])
    run.events(step).parent.mkdir(parents=True)
    for said, state in (
        ("waiting client client-left attached", attachable.DETACHED),
        ("waiting client client-left client attached", attachable.ATTACHED),
        ("waiting client client-left", attachable.WAITING),
        ("waiting attached", attachable.ATTACHED),
    ):
        lines = [json.dumps({"event": event, "pid": 1, "rank": 0}) + "\n" for event in said.split()]
        run.events(step).write_text("".join(lines))
        assert attachable.attachables_of_step(run, step)[0].state == state, said


def test_a_batch_deployment_is_debugged_again_by_its_own_command(tmp_path: Path) -> None:
    run = RunRecord("a-1-abc", 1, "pipeline", "a", tmp_path, tmp_path, "process")
    assert rerun_command(run, "s") == "inv pipeline.debug --step s"
    assert rerun_command(replace(run, options="--deployment b.yml --data d"), "s") == (
        "inv deploy.debug --deployment b.yml --data d"
    )


def test_a_failed_step_is_run_again_on_what_the_steps_before_it_left(tmp_path: Path) -> None:
    failed = StepRecord(name="train", run_id="", status="Failed")
    run = RunRecord("a-2-abc", 2, "pipeline", "a", tmp_path, tmp_path, "process", steps=[failed])
    assert rerun_command_from_run(run, "train") == "inv pipeline.debug --step train"
    run.steps.insert(0, StepRecord(name="prepare", run_id="", status="Completed"))
    assert rerun_command_from_run(run, "train") == "inv pipeline.debug --step train --from-run 2"
    going_on = replace(run, options="--from-run a-1-abc")
    assert rerun_command_from_run(going_on, "train") == "inv pipeline.debug --from-run a-1-abc --step train"
