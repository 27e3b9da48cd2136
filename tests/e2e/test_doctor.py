"""What works here, one line each."""

from __future__ import annotations

import socket
from pathlib import Path

from projects import ANY_ENGINE, Project


@ANY_ENGINE
def test_a_machine_where_all_works_gets_a_screen_of_lines_and_exit_0(project: Project) -> None:
    told = project.ok("doctor", "--json")
    names = [one["name"] for one in told.json["findings"]]
    assert told.json["ok"] is True
    assert {"Python", "engine", "scoring port", "debug port", "disk", "caches", "conda", "SDKs", "editor", "SSH"} <= {
        *names
    }
    lines = told.err.splitlines()
    assert len(lines) < 40 and all(line.startswith(("ok  ", "warning  ", "     ")) for line in lines), lines


@ANY_ENGINE
def test_what_is_in_the_way_is_named_with_what_to_do(project: Project, tmp_path: Path) -> None:
    # Whose size is soon known.
    project.environ["XDG_CACHE_HOME"] = str(tmp_path / "cache")
    project.environ |= {"AML_MODEL_DIR": "nowhere", "AML_PIPELINE_FILE": "make.py:built"}
    with socket.create_server(("127.0.0.1", 0)) as server:
        project.environ["AML_DEBUG_PORT"] = str(server.getsockname()[1])
        said = project.ok("doctor").out
        assert "warning  debug port" in said and "is held by" in said and "--debug-port 0" in said
    assert "warning  model        nowhere does not exist" in said and "Correct AML_MODEL_DIR." in said
    assert "warning  pipeline     make.py does not exist" in said
    launch = project.folder / ".vscode" / "launch.json"
    launch.parent.mkdir()
    launch.write_text("{ broken")
    told = project.inv("doctor")
    assert told.code == 1 and "FAILED   launch.json" in told.out and "ok       engine" in told.out
    launch.unlink()
    project.environ |= {"AML_ENGINE": "docker", "DOCKER_HOST": f"unix://{project.folder}/nobody.sock"}
    told = project.inv("doctor")
    assert told.code == 1 and "FAILED   engine" in told.out and "AML_ENGINE=auto" in told.out
