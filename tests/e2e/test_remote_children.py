"""`--remote`: child processes, and ranks that a launcher makes, on the instance, debugged from the laptop."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from experiments import TITLE
from hosts import Hosts
from pipelines import FAMILY, LAUNCHER, WITH_CHILD, session, stop_of, value_in_child, value_of
from projects import until
from remotes import RemoteProject, remote_project

RANKED = "import os\nrank = int(os.environ['RANK'])\nsquare = rank * rank\nprint(square)\n"


@pytest.fixture
def project(tmp_path: Path, hosts: Hosts) -> Iterator[RemoteProject]:
    """A project on the laptop, for the instance in its own network."""
    with remote_project(tmp_path / "a project", hosts, hosts.instance) as made:
        yield made


def test_a_breakpoint_set_here_is_hit_in_a_child_there_through_the_tunnel(project: RemoteProject) -> None:
    script = project.folder / "train.py"
    script.write_text(WITH_CHILD)
    project.remote("experiment.debug", "sums", "--script", "train.py")
    assert value_in_child(project.endpoint(f"{TITLE}: sums"), script, 5, "square") == "49"
    until(lambda: project.remote("experiment.show")["status"] == "Completed", "the end of the run")


def test_inspect_there_follows_into_the_child_and_names_it(project: RemoteProject) -> None:
    script = project.folder / "train.py"
    script.write_text(WITH_CHILD)
    project.remote("experiment.debug", "sums", "--script", "train.py")
    found = project.remote("experiment.inspect", "train.py:5")
    assert (found["locals"]["square"], found["stopped"]["file"]) == ("49", str(script))
    assert found["child"]


def test_an_error_in_a_worker_there_is_seen_here(project: RemoteProject) -> None:
    script = project.folder / "train.py"
    script.write_text(
        "import multiprocessing\ndef divide(number):\n    zero = number - number\n    return number / zero\n"
        "with multiprocessing.Pool(1) as pool:\n    pool.map(divide, [7])\n"
    )
    project.remote("experiment.debug", "sums", "--script", "train.py", "--on-error")
    with session(project.endpoint(f"{TITLE}: sums"), {}) as client:
        frame = stop_of(client)
        assert (frame["name"], frame["source"]["path"], value_of(client, frame, "zero")) == ("divide", str(script), "0")


def test_ranks_that_a_launcher_makes_there_have_configurations_here(project: RemoteProject) -> None:
    (project.folder / "tools").mkdir()
    (project.folder / "tools" / "launch.py").write_text(LAUNCHER)
    (project.folder / "work").mkdir()
    script = project.folder / "work" / "work.py"
    script.write_text(RANKED)
    (project.folder / "pipeline.yml").write_text(
        "type: pipeline\njobs:\n  work:\n    code: ./work\n    environment: azureml:any@latest\n"
        "    inputs: {tools: {type: uri_folder, path: ./tools}}\n"
        "    command: python ${{inputs.tools}}/launch.py 2 work.py\n"
    )
    result = project.remote("pipeline.debug", "--rank", "all")
    names = [f"{FAMILY} (work, rank {rank})" for rank in range(2)]
    until(lambda: list(project.launch()) == names, "the configurations")
    assert {one["launch_configuration"] for one in result["endpoints"]} <= set(names)
    text = json.loads((project.folder / ".vscode" / "launch.json").read_text())
    assert text["compounds"][0]["configurations"] == names
    for rank in range(2):
        with session(project.endpoint(names[rank]), {script: [4]}) as client:
            assert value_of(client, stop_of(client), "square") == str(rank)
    until(lambda: project.remote("pipeline.status")["status"] == "Completed", "the end of the run")
