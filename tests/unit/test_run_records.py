"""A run's record: written whole, and with little work however many steps the run has."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from workflows import redaction
from workflows.runs import record as records
from workflows.runs import store
from workflows.runs.record import RunRecord, StepRecord

STEPS = 500


@pytest.fixture
def run(tmp_path: Path) -> RunRecord:
    run = store.new_run(tmp_path, "pipeline", "a", "process")
    run.steps = [
        StepRecord(f"step-{n}", f"a-{n}", ports={0: 5000 + n}, mappings=[("/here", "/there")], after=[f"step-{n - 1}"])
        for n in range(STEPS)
    ]
    records.save(run)
    return run


def test_what_was_written_is_read_again(run: RunRecord) -> None:
    run.status, run.reason = records.RUNNING, 'a "quoted"\nreason'
    run.steps[3].begin()
    run.steps[3].phases.append(("Running", 1.5))
    run.steps[4].configurations[0] = "a name"
    records.save(run)
    run.steps[3].end()
    run.steps[3].hosts[0] = "10.0.0.5"
    records.save(run)
    assert records.load(run.folder) == run
    del run.steps[2:]
    records.save(run)
    assert records.load(run.folder) == run
    run.steps.clear()
    records.save(run)
    assert records.load(run.folder) == run


def test_only_a_step_that_has_changed_is_written_out_anew(run: RunRecord, monkeypatch: pytest.MonkeyPatch) -> None:
    texts = [0]
    scrub = redaction.scrub

    def counted(text: str) -> str:
        texts[0] += 1
        return scrub(text)

    monkeypatch.setattr(records, "scrub", counted)
    for step in run.steps[:10]:
        step.status = records.COMPLETED
        records.save(run)
    assert texts[0] <= 10 * 10
    assert records.load(run.folder) == run


def test_a_secret_that_becomes_known_later_is_taken_out_of_a_step_that_has_not_changed(run: RunRecord) -> None:
    run.steps[7].reason = "it said Xq7-vb2-Zk9"
    records.save(run)
    redaction.keep_secret("Xq7-vb2-Zk9")
    records.save(run)
    assert "Xq7-vb2-Zk9" not in (run.folder / "run.json").read_text()


def test_a_copy_of_a_record_is_written_as_it_is(run: RunRecord, tmp_path: Path) -> None:
    folder = run.folder.with_name("a-2-abcdef")
    folder.mkdir()
    other = replace(run, number=2, folder=folder, run_id=folder.name, steps=[StepRecord("other", "a-2")])
    records.save(other)
    assert records.load(folder) == other
