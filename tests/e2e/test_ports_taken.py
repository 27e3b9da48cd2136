"""A port that another program takes between its choice and its use is chosen again."""

from __future__ import annotations

from pathlib import Path

import pytest
from experiments import ExperimentProject
from pipelines import session
from projects import Project, post

pytestmark = pytest.mark.parametrize("engine", ["docker"], indirect=True)

#: Has the first port that the program is about to listen on for a container taken, as late as can be.
QUICKER = """
import socket, sys
taken = []
def hook(event, arguments):
    if event == "socket.bind" and not taken and sys._getframe(2).f_code.co_filename.endswith("forwarders.py"):
        taken.append(socket.socket())
        taken[0].bind(arguments[1])
        taken[0].listen()
        with open({seen!r}, "a") as file:
            file.write(str(arguments[1][1]))
sys.addaudithook(hook)
"""


@pytest.fixture
def seen(tmp_path: Path) -> Path:
    """Where the port is written that was taken."""
    return tmp_path / "seen"


@pytest.fixture
def quicker(tmp_path: Path, seen: Path) -> str:
    """A folder for PYTHONPATH."""
    place = tmp_path / "quicker"
    place.mkdir()
    (place / "sitecustomize.py").write_text(QUICKER.format(seen=str(seen)))
    return str(place)


def test_of_an_experiment(experiment: ExperimentProject, quicker: str, seen: Path) -> None:
    experiment.environ["PYTHONPATH"] = quicker
    (endpoint,) = experiment.debug("sums", "--script", "train.py")["endpoints"]
    assert int(seen.read_text()) != endpoint["port"]
    with session(endpoint, {}):
        pass
    assert experiment.until_final()["status"] == "Completed"


def test_of_a_service(project: Project, quicker: str, seen: Path) -> None:
    debug = project.debug(PYTHONPATH=quicker)
    assert int(seen.read_text()) != debug["debug"]["port"]
    assert post(debug["scoring_url"]) == {"answer": 60}
