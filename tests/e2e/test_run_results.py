"""What a run in a workspace has logged and written, brought here over real HTTP."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from azureml_server import AzureMLServer
from azureml_server.state import ARTIFACTS
from azureml_server.tokens import make_token

from workflows.azureml import run_metrics, run_outputs
from workflows.azureml.access import Access, RenewingAccess
from workflows.azureml.errors import NotAllowed
from workflows.azureml.history import RunHistory
from workflows.azureml.run_metrics import RunMetrics
from workflows.console import Console
from workflows.errors import UserError
from workflows.experiments.metrics import read_logged
from workflows.runs.record import RunRecord
from workflows.settings import resolve

RUN = "azureml-debug-sums-1"


@pytest.fixture
def server() -> Iterator[AzureMLServer]:
    with AzureMLServer() as made:
        made.state.add_run(RUN, "sums")
        yield made
        assert made.unknown == []


@pytest.fixture
def history(server: AzureMLServer) -> RunHistory:
    access = Access(server.url, server.url, server.state.scope, f"Bearer {make_token()}", time.time() + 3600)
    return RunHistory(RenewingAccess(access, lambda: access))


@pytest.fixture
def run(tmp_path: Path) -> RunRecord:
    """A run that has completed."""
    folder = tmp_path / "run"
    (folder / "announce").mkdir(parents=True)
    return RunRecord(RUN, 1, "experiment", "sums", folder, tmp_path, "azureml", status="Completed")


def write(server: AzureMLServer, name: str, text: str) -> None:
    path = server.state.artifact(server.state.runs[RUN], name)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


def bring(run: RunRecord, history: RunHistory, **environ: str) -> dict[str, str]:
    """Bring a run's files; what is in its folder then."""
    console = Console(as_json=False)
    with console.step("outputs") as step:
        run_outputs.fetch(resolve(run.project, environ=environ), console, step, run, history)
    return kept(run)


def kept(run: RunRecord) -> dict[str, str]:
    folders = [run.folder / name for name in (".outputs.part", *run_outputs.FOLDERS)]
    files = [path for folder in folders for path in folder.rglob("*") if path.is_file()]
    return {path.relative_to(run.folder).as_posix(): path.read_text() for path in files}


def test_what_a_run_has_written_is_here_and_what_its_connection_cut_short_is_read_again(
    server: AzureMLServer, history: RunHistory, run: RunRecord
) -> None:
    write(server, "outputs/a b/model.txt", "x" * 300_000)
    write(server, "logs/told.txt", "told")
    write(server, "user_logs/std_log.txt", "not written by the script")
    cut = server.faults.cut(f"GET /{ARTIFACTS}/.*model", times=1)
    server.faults.fail(f"GET /{ARTIFACTS}/.*told", status=503, times=1)
    run.status = "Running"
    assert bring(run, history) == {"outputs/a b/model.txt": "x" * 300_000, "logs/told.txt": "told"}
    assert cut.hit == 1 and not run_outputs.is_complete(run)
    # Of a run that goes on they are read anew; what is not there any more goes.
    snapshot = run.folder / "logs" / "snapshot-sums-rank0-1.json"
    snapshot.write_text("{}")
    write(server, "logs/told.txt", "told more")
    server.state.artifact(server.state.runs[RUN], "outputs/a b/model.txt").unlink()
    run.status = "Completed"
    assert bring(run, history) == {"logs/told.txt": "told more", f"logs/{snapshot.name}": "{}"}
    assert run_outputs.is_complete(run)


def test_what_cannot_be_had_whole_leaves_what_was_here_before(
    server: AzureMLServer, history: RunHistory, run: RunRecord
) -> None:
    write(server, "outputs/one.txt", "1")
    before = bring(run, history)
    write(server, "outputs/one.txt", "1" * 1_500_000)
    write(server, "outputs/two.txt", "2")
    asked = len(server.requests)
    with pytest.raises(UserError, match=r"has 1\.5 MB, and more than 1\.0 MB are not downloaded without asking"):
        bring(run, history, AML_DOWNLOAD_MB="1")
    assert not [one for one in server.requests[asked:] if one.method == "GET" and one.path.startswith(f"/{ARTIFACTS}")]
    server.faults.fail(f"GET /{ARTIFACTS}/.*two", status=403)
    with pytest.raises(NotAllowed):
        bring(run, history)
    assert kept(run) == before == {"outputs/one.txt": "1"}


def test_metrics_and_tags_are_kept_as_those_of_a_run_of_this_machine(
    server: AzureMLServer, history: RunHistory, run: RunRecord
) -> None:
    found = server.state.runs[RUN]
    for name, data in (("loss", {"loss": 0.5}), ("loss", {"loss": 0.25}), ("table", {"x": 1, "y": 2.5})):
        found.metrics.append({"name": name, "columns": {}, "value": [{"step": 0, "data": data}]})
    found.tags |= {"of": "mine", "azureml_debug.0": "127.0.0.1:5678", "mlflow.user": "me"}
    assert RunMetrics(history, RUN, run.metrics).update(ended=True)
    logged = read_logged(run.metrics)
    assert logged.metrics == {"loss": [0.5, 0.25], "table.x": [1], "table.y": [2.5]} and logged.tags == {"of": "mine"}


def test_metrics_that_cannot_be_read_keep_no_run_from_ending(
    server: AzureMLServer, history: RunHistory, run: RunRecord, monkeypatch: pytest.MonkeyPatch
) -> None:
    server.faults.fail("POST /metric/", status=503)
    metrics = RunMetrics(history, RUN, run.metrics)
    assert not metrics.update(ended=True)
    monkeypatch.setattr(run_metrics, "_LATER", 0.0)
    assert metrics.update(ended=True)
    assert run_metrics.note_path(run.metrics).read_text()
    server.faults.clear()
    server.faults.fail("POST /metric/", status=403)
    assert RunMetrics(history, RUN, run.metrics).update(ended=True)
