"""The folder that a service runs: above its entry script, and what is imported from it."""

from __future__ import annotations

import json

import pytest
from projects import ANY_ENGINE, Project, post
from services import Posting, attach, stop_of, value_of

MAIN = """from common.helper import scaled


def init():
    pass


def run(raw_data):
    return {"answer": scaled(len(raw_data))}
"""
HELPER = """def scaled(value):
    tenfold = value * 10
    return tenfold
"""
#: The line of HELPER at which `tenfold` is known.
HELPER_LINE = 3


@pytest.fixture
def layered(project: Project) -> Project:
    """code/main.py, which imports from common/ beside code/."""
    for name, text in {"app/code/main.py": MAIN, "app/common/helper.py": HELPER}.items():
        path = project.folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    del project.environ["AML_SCORE_SCRIPT"]
    return project


def test_a_script_below_its_source_folder_imports_from_it_and_stops_in_both(layered: Project) -> None:
    (layered.folder / ".env").write_text("AML_SOURCE_DIR=app\nAML_SCORE_SCRIPT=code/main.py\n")
    result = layered.debug()
    (mapping,) = result["path_mappings"]
    assert mapping["localRoot"] == str(layered.folder / "app")
    client = attach(layered, result)
    helper = str(layered.folder / "app" / "common" / "helper.py")
    client.set_breakpoints(helper, [HELPER_LINE])
    posting = Posting(result["scoring_url"], "four")
    frame = stop_of(client)
    assert frame["source"]["path"] == helper and value_of(client, frame, "tenfold") == "60"
    client.disconnect()
    client.close()
    assert posting.finish() == {"answer": 60}
    inspected = layered.ok("deploy.inspect", "code/main.py:9", "--json").json
    assert inspected["stopped"]["file"] == str(layered.folder / "app" / "code" / "main.py")
    # An edit in a folder beside the script's counts.
    (layered.folder / "app" / "common" / "helper.py").write_text(HELPER.replace("* 10", "* 100"))
    layered.ok("deploy.reload")
    assert post(result["scoring_url"], "four") == {"answer": 600}


@ANY_ENGINE
def test_an_import_that_works_from_a_folder_above_says_which_and_the_command_works(layered: Project) -> None:
    failed = layered.inv("deploy.debug", "--score-script", "app/code/main.py")
    flags = ("--source-directory=app", "--score-script=code/main.py")
    failed.says("main.py:1: error: ModuleNotFoundError: No module named 'common'")
    failed.says(f"common is in app, above the folder that runs: inv deploy.debug {' '.join(flags)}")
    result = layered.debug(*flags)
    assert post(result["scoring_url"], "four") == {"answer": 60}
    written = json.loads((layered.folder / ".vscode" / "launch.json").read_text())
    assert written["configurations"][0]["pathMappings"][0]["localRoot"] == "${workspaceFolder}/app"


@ANY_ENGINE
def test_an_import_of_a_module_beside_a_script_below_the_source_folder_is_explained(layered: Project) -> None:
    (layered.folder / "app" / "code" / "beside.py").write_text("")
    (layered.folder / "app" / "code" / "main.py").write_text("import beside\n" + MAIN)
    failed = layered.inv("deploy.debug", "--source-directory", "app", "--score-script", "code/main.py")
    failed.says("No module named 'beside'", "beside is beside main.py, and a service imports from its source folder")


@ANY_ENGINE
def test_a_source_folder_that_is_none_or_lacks_the_script_is_refused_before_anything_starts(layered: Project) -> None:
    layered.inv("deploy.debug", "--source-directory", "nowhere", "--score-script", "main.py").says(
        "The source folder", "nowhere does not exist.", "AML_SOURCE_DIR or --source-directory"
    )
    layered.inv("deploy.debug", "--source-directory", "app", "--score-script", "../service/score.py").says(
        "service/score.py is not in the source folder", "AML_SOURCE_DIR"
    )
    layered.inv("deploy.debug", "--source-directory", "app").says("app/score.py does not exist.", "--score-script")
    (layered.folder / "app" / "score.py").symlink_to("code/gone.py")
    layered.inv("deploy.debug", "--source-directory", "app").says("is a link to code/gone.py, which leads nowhere")
    assert not (layered.state / "session.json").exists()


def test_f5_maps_the_source_folder(layered: Project, engine: str) -> None:
    layered.ok("vscode.setup", "--source-directory", "app", "--score-script", "code/main.py")
    found = layered.launch()["Azure Machine Learning Deployment: Docker Debug"]["pathMappings"]
    inside = "/var/azureml-app" if engine == "docker" else str(layered.folder / "app")
    assert found == [{"localRoot": "${workspaceFolder}/app", "remoteRoot": inside}]
