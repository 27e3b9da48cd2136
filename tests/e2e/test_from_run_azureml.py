"""A run in a workspace is gone on from: there on addresses, here on what is fetched of it once."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from azureml_server import AzureMLServer
from pipelines import ADD, ADD_LINE, PipelineProject
from workspaces import make_v2_project, make_workspace_project, workspace, workspace_of_v2

#: What is typed for a run that nobody debugs.
RUN = ("pipeline.submit", "--no-debug", "--follow")


@pytest.fixture
def server() -> Iterator[AzureMLServer]:
    with workspace_of_v2() as made:
        yield made


@pytest.fixture
def project(server: AzureMLServer, tmp_path: Path) -> Iterator[PipelineProject]:
    made = make_v2_project(tmp_path / "a project", server, tmp_path / "home")
    made.environ["XDG_CACHE_HOME"] = str(tmp_path / "cache")
    # Into that cache, debugpy is fetched from the index.
    made.environ["REQUESTS_CA_BUNDLE"] = str(server.authorities)
    text = made.pipeline.read_text()
    # Here they run in this program's own, there in whatever the server has.
    made.pipeline.write_text(re.sub("environment: azureml:.*", "environment: {image: python}", text))
    yield made
    made.clean_up()


def fail(project: PipelineProject, step: str) -> None:
    """Have a step fail in the workspace, and a first run end with that."""
    script = project.script(step)
    text = script.read_text()
    script.write_text("raise SystemExit(3)\n" + text)
    assert project.inv(*RUN).code == 1
    script.write_text(text)


def test_a_run_in_a_workspace_goes_on_there_and_one_step_of_it_here(
    server: AzureMLServer, project: PipelineProject, tmp_path: Path
) -> None:
    fail(project, "tell")
    first = project.status()["run_id"]
    # Whoever ran again would fail.
    project.script("prepare").write_text("raise SystemExit('not again')\n")
    project.pipeline.write_text(project.pipeline.read_text().replace("factor: 3", "factor: 4"))
    done = project.ok(*RUN, "--from-run", "1")
    assert ": prepare, add." in done.out and "the result is 36" in done.out
    assert "the input factor of add has changed since; it is taken over as it was" in done.out
    again = project.status()
    assert [step["name"] for step in again["steps"]] == ["tell"] and again["status"] == "Completed"
    taken = server.jobs.specification(again["run_id"])["jobs"]["tell"]["inputs"]["result"]["uri"]
    (add,) = (run for run in server.state.children(first) if run.name == "add")
    assert f"/paths/azureml/{add.id}/result" in taken

    # Here: fetched once, and the script's own, which may do with it what it likes.
    project.script("add").write_text(ADD + "pathlib.Path(folder, 'doubled.txt').unlink()\n")
    here = {"AML_BACKEND": "local"}
    refused = project.inv("pipeline.debug", "--step", "add", "--from-run", first, AML_DOWNLOAD_MB="0", **here)
    refused.says("are not downloaded without asking", "--download-mb")
    found = project.ok("pipeline.debug", "--json", "--step", "add", "--from-run", first, **here)
    assert [endpoint["step"] for endpoint in found.json["endpoints"]] == ["add"] and "fetched)" in found.err
    assert project.ok("pipeline.inspect", f"add.py:{ADD_LINE}", "--json").json["locals"]["total"] == "12"
    project.until_final()
    said = project.ok("pipeline.submit", "--no-debug", "--follow", "--step", "add", "--from-run", first, **here).out
    assert "reused)" in said and "total 12" in said
    kept = list((tmp_path / "cache").rglob("doubled.txt"))
    assert [path.stat().st_mode & 0o777 for path in kept] == [0o400]


def test_a_step_runs_again_from_elsewhere_and_with_the_code_that_it_had(
    server: AzureMLServer, project: PipelineProject
) -> None:
    fail(project, "tell")
    # From another folder, which knows nothing of it but its id.
    other = make_v2_project(project.folder.parent / "another", server, project.folder.parent / "home")
    other.pipeline.write_text(project.pipeline.read_text())
    there = ("--from-run", project.status()["run_id"])
    other.inv(*RUN, *there).says("its pipeline file is not known here", "--pipeline-file")
    assert "the result is 36" in other.ok(*RUN, *there, "--pipeline-file", "pipeline.yml").out
    other.clean_up()
    project.script("add").write_text("print('edited since')\n" + ADD)
    again = (*RUN, "--step", "add", "--from-run", "1")
    assert "edited since" in project.ok(*again).out
    for backend in ("azureml", "local"):
        said = project.ok(*again, "--code-of-run", AML_BACKEND=backend).out
        assert "total 12" in said and "edited since" not in said


#: A pipeline of two steps, and one in which it is nested, and whose last step fails.
BOTH = """
type: pipeline
name: both
version: "1"
outputs: {made: {type: uri_folder}}
jobs:
  one:
    command: echo 5 > ${{outputs.o}}/x
    environment: {image: python}
    outputs: {o: {type: uri_folder}}
  two:
    command: cat ${{inputs.i}}/x ${{inputs.i}}/x > ${{outputs.o}}/x
    environment: {image: python}
    inputs: {i: "${{parent.jobs.one.outputs.o}}"}
    outputs: {o: "${{parent.outputs.made}}"}
"""
NESTED = """
type: pipeline
settings: {default_compute: azureml:cpu}
jobs:
  both: {type: pipeline, component: ./both.yml}
  last:
    command: cat ${{inputs.i}}/x; exit 3
    environment: {image: python}
    inputs: {i: "${{parent.jobs.both.outputs.made}}"}
"""


def test_of_a_nested_pipeline_all_is_taken_over_there(project: PipelineProject) -> None:
    (project.folder / "both.yml").write_text(BOTH)
    project.pipeline.write_text(NESTED)
    failed = project.inv(*RUN)
    assert failed.code == 1 and "last" in failed.out, failed
    project.pipeline.write_text(NESTED.replace("exit 3", "echo done"))
    said = project.ok(*RUN, "--from-run", "1").out
    assert ": both." in said and "the command of last has changed since" in said and "done" in said


def test_by_sdk_v1_too_what_is_done_is_taken_over(tmp_path: Path) -> None:
    with workspace() as server:
        project = make_workspace_project(tmp_path / "a project", server, tmp_path / "home")
        fail(project, "tell")
        project.script("prepare").write_text("raise SystemExit('not again')\n")
        said = project.ok(*RUN, "--from-run", "1").out
        assert ": prepare, add." in said and "the result is 36" in said
        assert [step["name"] for step in project.status()["steps"]] == ["tell"]
        project.clean_up()
