"""Links in the folders of a service that lead out of them: they work in a container as they do without one."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest
from projects import Project, post
from services import Posting, attach, stop_of, value_of

SCORE = """import os

from common.helper import scaled

MODEL = os.environ["AZUREML_MODEL_DIR"]
HERE = os.environ["AML_APP_ROOT"]


def init():
    pass


def read(*parts):
    with open(os.path.join(*parts)) as file:
        return file.read()


def run(raw_data):
    found = [read(MODEL, "weights.txt"), read(MODEL, "onnx", "weights.txt"), read(HERE, "data.txt")]
    return {"answer": scaled(len(raw_data)), "found": [*found, read(HERE, "chain", "in.txt"), read(HERE, "up.txt")]}
"""
HELPER = """def scaled(value):
    tenfold = value * 10
    return tenfold
"""
#: The line of HELPER at which `tenfold` is known.
HELPER_LINE = 3


@pytest.fixture
def linked(project: Project, tmp_path: Path) -> Project:
    """A service of links: its script, a package, data by an absolute path, a model as Hugging Face's cache has it."""
    folder = project.folder
    files = {
        "shared/score.py": SCORE,
        "shared/common/helper.py": HELPER,
        "two/in.txt": "chained",
        "beside.txt": "above",
        "hub/models--a/blobs/1f0a": "weights",
        "hub/models--a/blobs/77be": "more weights",
    }
    for name, text in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere" / "data.txt").write_text("data")
    snapshot = folder / "hub/models--a/snapshots/main"
    (snapshot / "onnx").mkdir(parents=True)
    project.score.unlink()
    links = {
        "service/score.py": "../shared/score.py",
        "service/common": "../shared/common",
        "service/data.txt": str(tmp_path / "elsewhere" / "data.txt"),
        "service/chain": "../one",
        "one": "two",
        "service/up.txt": "../beside.txt",
        "service/gone": "../nowhere",
        "service/a": "b",
        "service/b": "a",
        "service/inside": "common",
        "hub/models--a/snapshots/main/weights.txt": "../../blobs/1f0a",
        "hub/models--a/snapshots/main/onnx/weights.txt": "../../../blobs/77be",
    }
    for name, target in links.items():
        (folder / name).symlink_to(target)
    project.environ["AML_MODEL_DIR"] = "hub/models--a/snapshots/main"
    return project


FOUND = ["weights", "more weights", "data", "chained", "above"]


def test_what_links_lead_to_is_there_stops_and_takes_edits(linked: Project, engine: str) -> None:
    result = linked.debug()
    assert post(result["scoring_url"], "four") == {"answer": 60, "found": FOUND}
    for name in ("shared/common/helper.py", "service/common/helper.py", "service/score.py"):
        a_breakpoint_stops_in_a_linked_file_whichever_way_it_was_opened(linked, result, name)
    # As an editor saves.
    edits = {"score.py": SCORE.replace("answer", "reply"), "common/helper.py": HELPER.replace("10", "100")}
    for name, text in edits.items():
        new = linked.folder / "shared" / f"{name}.new"
        new.write_text(text)
        os.replace(new, linked.folder / "shared" / name)
    linked.ok("deploy.reload")
    assert post(result["scoring_url"], "four") == {"reply": 600, "found": FOUND}
    # A link that is made after the start is noticed.
    (linked.folder / "late").mkdir()
    (linked.folder / "late" / "new.py").write_text("VALUE = 7\n")
    (linked.folder / "service" / "late").symlink_to("../late")
    (linked.folder / "shared" / "score.py").write_text("from late.new import VALUE\n" + SCORE)
    reloaded = linked.inv("deploy.reload")
    if engine == "docker":
        reloaded.says("A link in service leads to", "/late by now", "Create it again: inv deploy.debug")
        result = linked.debug()
    else:
        assert reloaded.code == 0
    assert post(result["scoring_url"], "four")["answer"] == 600


def a_breakpoint_stops_in_a_linked_file_whichever_way_it_was_opened(
    linked: Project, result: dict[str, Any], name: str
) -> None:
    line = HELPER_LINE if name.endswith("helper.py") else SCORE.splitlines().index("def run(raw_data):") + 2
    with attach(linked, result) as client:
        client.set_breakpoints(str(linked.folder / name), [line])
        posting = Posting(result["scoring_url"], "four")
        frame = stop_of(client)
        assert os.path.realpath(frame["source"]["path"]) == os.path.realpath(linked.folder / name)
        if line == HELPER_LINE:
            assert value_of(client, frame, "tenfold") == "60"
        client.disconnect()
    assert posting.finish()["found"] == FOUND


def test_an_error_in_a_linked_script_is_told_here_after_the_links_to_what_a_container_has_of_its_own(
    project: Project, engine: str
) -> None:
    (project.score.parent / "system").symlink_to("/usr/lib")
    (project.score.parent / "up").symlink_to("..")
    (project.folder / "shared").mkdir()
    (project.folder / "shared" / "score.py").write_text("import nothing_of_this_name\n" + SCORE)
    project.score.unlink()
    project.score.symlink_to("../shared/score.py")
    refused = project.inv("deploy.debug")
    refused.says("shared/score.py:1: error: ModuleNotFoundError")
    out = refused.out
    notes = [line for line in out.splitlines() if line.startswith("  note: the link service/")]
    if engine == "process":
        assert not notes
    else:
        assert len(notes) == 2 and "has a /usr of its own" in out and "has a /var of its own" in out
        # Before it starts.
        lines = out.splitlines()
        assert lines.index(notes[0]) < next(n for n, line in enumerate(lines) if line.startswith("run "))


def test_f5_maps_what_links_lead_to(linked: Project, engine: str) -> None:
    linked.ok("vscode.setup")
    found = linked.launch()["Azure Machine Learning Deployment: Docker Debug"]["pathMappings"]
    shared = {"localRoot": "${workspaceFolder}/shared", "remoteRoot": "/var/shared"}
    assert (shared in found) == (engine == "docker") and found[0]["localRoot"] == "${workspaceFolder}/service"
