"""launch.json is the user's: entries of ours are updated only where they differ from what is wanted."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from launch_json_files import ATTACH, NEW, before_and_after, launch_json
from test_launch_json_added import ADDED

from workflows.debugger import jsonc
from workflows.debugger.launch_json import attach_configuration, write_configurations
from workflows.models import DebugEndpoint, PathMapping

pytestmark = pytest.mark.usefixtures("locks_elsewhere")

# Entries that are updated ---------------------------------------------------------------------------

UPDATED = {
    "published configuration with outdated keys": """\
{
    "version": "0.2.0",
    "configurations": [
        {
            "name": "Azure Machine Learning Deployment: Docker Debug",
            "type": ⟦"python"⟧«"debugpy"»,
            "request": "attach",
⟦            "port": 5678,
            "host": "localhost",
⟧            "pathMappings": [«
                {
                    "localRoot": "${workspaceFolder}/src",
                    "remoteRoot": "/app"
                },»
                {
                    "localRoot": "${workspaceFolder}",
                    "remoteRoot": "."
                }
            ]«,
            "connect": {
                "host": "127.0.0.1",
                "port": 5678
            },
            "justMyCode": true»
        }
    ]
}
""",
    "keys and comments of the user's": """\
{
  "configurations": [
    {
      // why: it's "mine" {
      "preLaunchTask": "build", // first
      "justMyCode": false, /* deep */
      "name": "Azure Machine Learning Deployment: Docker Debug",
      "type": "debug\\u0070y", "request": ⟦"launch"⟧«"attach"», // was launch
      "connect": { /* here */ "host": ⟦"0.0.0.0"⟧«"127.0.0.1"», "port": ⟦5679⟧«5678» /* there */, "x": 1, },
      "pathMappings": [
        // sources
        {"localRoot": "${workspaceFolder}/src", /* l */ "remoteRoot": ⟦"/old"⟧«"/app"», "mine": [1]}, // r
        // library
        {"localRoot": "/usr/lib", "remoteRoot": "/lib"},
      ],
    }, // end
  ],
}
""",
    "contradictory keys with comments around them": """\
{
    "configurations": [
        {
            "name": "Azure Machine Learning Deployment: Docker Debug",
            "type": "debugpy", "request": "attach",
            "connect": {"host": "127.0.0.1", "port": 5678},
            ⟦"listen": {
                "port": 1 // inner
            }, ⟧// about listen
⟦            "processId": "${command:pickProcess}",
⟧            "justMyCode": true,
            "pathMappings": [{"localRoot": "${workspaceFolder}/src", "remoteRoot": "/app"}]⟦,⟧
            // about host⟦
            "host": "localhost"⟧
        }
    ]
}
""",
    "one line": (
        '{"configurations":[{"name":"Azure Machine Learning Deployment: Docker Debug","request":"attach",'
        '"type":⟦"python"⟧«"debugpy"»,⟦"port":1,⟧"justMyCode":false,⟦"host":"x"⟧«'
        '"connect": {"host": "127.0.0.1", "port": 5678}, '
        '"pathMappings": [{"localRoot": "${workspaceFolder}/src", "remoteRoot": "/app"}]»}]}'
    ),
    "several of the same name, the first is updated": """\
{
    "configurations": [
        {"name": "Azure Machine Learning Deployment: Docker Debug", "type": "debugpy", "request": "attach",
            "connect": {"host": "127.0.0.1", "port": ⟦1⟧«5678»}, "pathMappings": [
                {"localRoot": "${workspaceFolder}/src", "remoteRoot": "/app"}], "justMyCode": true},
        {"name": "Azure Machine Learning Deployment: Docker Debug", "port": 2}
    ]
}
""",
    "a key twice, the last counts": """\
{"configurations": [{"name": "Azure Machine Learning Deployment: Docker Debug", "type": "python",
    ⟦"host": "a", "host": "b", ⟧"type": ⟦"python"⟧«"debugpy"», "request": "attach", "justMyCode": true,
    "connect": {"host": "127.0.0.1", "port": 5678},
    "pathMappings": [{"localRoot": "${workspaceFolder}/src", "remoteRoot": "/app"}]}]}
""",
    "values of another kind than ours": """\
{
    "configurations": [
        {
            "name": "Azure Machine Learning Deployment: Docker Debug",
            "type": "debugpy",
            "request": "attach",
            "connect": ⟦5678⟧«{
                "host": "127.0.0.1",
                "port": 5678
            }»,
            "pathMappings": ⟦null⟧«[
                {
                    "localRoot": "${workspaceFolder}/src",
                    "remoteRoot": "/app"
                }
            ]»,
            "justMyCode": 1
        }
    ]
}
""",
    "ours behind a mapping of the user's comes first, as it is written": """\
{
    "configurations": [
        {
            "name": "Azure Machine Learning Deployment: Docker Debug",
            "type": "debugpy",
            "request": "attach",
            "connect": {"host": "127.0.0.1", "port": 5678},
            "justMyCode": true,
            "pathMappings": [ // first wins«
                { "remoteRoot": "/app",   "localRoot": "${workspaceFolder}/src" },»
                // mine
                {"localRoot": "/mine", "remoteRoot": "/"}⟦,
                { "remoteRoot": "/app",   "localRoot": "${workspaceFolder}/src" }⟧
            ]
        }
    ]
}
""",
    "of two mappings with a root of ours the one that is right stays as it is written": """\
{
    "configurations": [
        {
            "name": "Azure Machine Learning Deployment: Docker Debug",
            "type": "debugpy",
            "request": "attach",
            "connect": {"host": "127.0.0.1", "port": 5678},
            "justMyCode": true,
            "pathMappings": [
⟦                {"localRoot": "/old", "remoteRoot": "/app"},
⟧                { "remoteRoot": "/app",  /* ours */  "localRoot": "${workspaceFolder}/src" }
            ]
        }
    ]
}
""",
    "mappings on one line": """\
{
    "configurations": [
        {
            "name": "Azure Machine Learning Deployment: Docker Debug",
            "type": "debugpy",
            "request": "attach",
            "connect": {"host": "127.0.0.1", "port": 5678},
            "justMyCode": true,
            "pathMappings":
                [«{"localRoot": "${workspaceFolder}/src", "remoteRoot": "/app"}, »{"localRoot": "/m"}]
        }
    ]
}
""",
    "mappings with a root of ours are replaced": """\
{
    "configurations": [
        {
            "name": "Azure Machine Learning Deployment: Docker Debug",
            "type": "debugpy",
            "request": "attach",
            "connect": {"host": "127.0.0.1", "port": 5678},
            "justMyCode": true,
            "pathMappings": [
                {"localRoot": ⟦"${workspaceFolder}"⟧«"${workspaceFolder}/src"», "remoteRoot": "/app"},
⟦                {"localRoot": "${workspaceFolder}/src/", "remoteRoot": "/elsewhere"},
⟧                {"localRoot": "/mine", "remoteRoot": "/mine"}
            ]
        }
    ]
}
""",
}


@pytest.mark.parametrize("newline", ["\n", "\r\n"], ids=["lf", "crlf"])
@pytest.mark.parametrize("marked", UPDATED.values(), ids=UPDATED.keys())
def test_an_entry_of_the_same_name_is_updated_only_where_it_differs(tmp_path: Path, marked: str, newline: str) -> None:
    before, after = before_and_after(marked.replace("\n", newline))
    file = launch_json(tmp_path, before)
    assert write_configurations(tmp_path, [ATTACH]) == "updated"
    assert file.read_bytes().decode() == after.decode()
    entry = jsonc.parse(file.read_bytes()).value["configurations"][0]
    assert {k: entry[k] for k in ("name", "type", "request")} == {k: ATTACH[k] for k in ("name", "type", "request")}
    assert ATTACH["connect"].items() <= entry["connect"].items()
    assert ATTACH["pathMappings"][0].items() <= entry["pathMappings"][0].items()
    assert not {"host", "port", "listen", "processId"} & entry.keys()


@pytest.mark.parametrize("marked", [*ADDED.values(), *UPDATED.values()], ids=[*ADDED, *UPDATED])
def test_the_same_call_twice_does_not_touch_the_file(tmp_path: Path, marked: str) -> None:
    compound = {"name": "All", "configurations": ["New"]}
    file = launch_json(tmp_path, before_and_after(marked)[0])
    write_configurations(tmp_path, [NEW, ATTACH], [compound] if "compounds" not in marked else [])
    os.utime(file, ns=(1, 1))
    inode, data = file.stat().st_ino, file.read_bytes()
    again = write_configurations(tmp_path, [NEW, ATTACH], [compound] if "compounds" not in marked else [])
    assert again == "unchanged"
    assert (file.stat().st_mtime_ns, file.stat().st_ino, file.read_bytes()) == (1, inode, data)


def test_a_key_that_the_entry_lacks_is_added_and_one_that_the_user_changed_stays(tmp_path: Path) -> None:
    file = launch_json(tmp_path, b'{"configurations": [{"name": "New", "justMyCode": false}]}')
    write_configurations(tmp_path, [{"name": "New", "justMyCode": True, "preLaunchTask": "t"}])
    assert file.read_bytes() == (b'{"configurations": [{"name": "New", "justMyCode": false, "preLaunchTask": "t"}]}')


def test_true_is_not_taken_for_1(tmp_path: Path) -> None:
    file = launch_json(tmp_path, b'{"configurations": [{"name": "New", "connect": {"port": true}}]}')
    assert write_configurations(tmp_path, [{"name": "New", "connect": {"port": 1}}]) == "updated"
    assert file.read_bytes() == b'{"configurations": [{"name": "New", "connect": {"port": 1}}]}'


def test_a_compound_drops_steps_of_older_runs_and_keeps_what_the_user_put_in(tmp_path: Path) -> None:
    name = "Azure Machine Learning Compute: all"
    train, old = "Azure Machine Learning Compute: remote debug (train)", "Azure Machine Learning Compute: x"
    marked = f"""{{
    "compounds": [
        {{
            "name": "{name}",
            "configurations": [«
                "{train}",»
                "My web server", // mine
⟦                "{old}",
⟧            ],
            "stopAll": true
        }}
    ],
    "configurations": []
}}"""
    before, after = before_and_after(marked)
    file = launch_json(tmp_path, before)
    compound = {"name": name, "configurations": [train], "stopAll": False}
    assert write_configurations(tmp_path, [], [compound]) == "updated"
    assert file.read_bytes().decode() == after.decode()
    assert write_configurations(tmp_path, [], [compound]) == "unchanged"


# What ours looks like -------------------------------------------------------------------------------


def test_the_configuration_attaches_where_the_endpoint_is(tmp_path: Path) -> None:
    endpoint = DebugEndpoint("127.0.0.1", 5678, (PathMapping(tmp_path / "src", "/app"),))
    assert attach_configuration(ATTACH["name"], endpoint, tmp_path) == ATTACH


def test_a_local_root_is_written_relative_to_the_project_wherever_it_lies_inside(tmp_path: Path) -> None:
    project, outside = tmp_path / "project", tmp_path / "project-2"
    (project / "a b" / "ü").mkdir(parents=True)
    outside.mkdir()
    (tmp_path / "link").symlink_to(project)
    (project / "inner").symlink_to(outside)
    expected = {
        project: "${workspaceFolder}",
        project / "a b" / "ü": "${workspaceFolder}/a b/ü",
        project / "a b" / "..": "${workspaceFolder}",
        tmp_path / "link" / "a b": "${workspaceFolder}/a b",
        project / "inner": "${workspaceFolder}/inner",
        outside: str(outside),
        tmp_path: str(tmp_path),
    }
    endpoint = DebugEndpoint("127.0.0.1", 1, tuple(PathMapping(local, "/app") for local in expected))
    written = attach_configuration("x", endpoint, project)["pathMappings"]
    assert [mapping["localRoot"] for mapping in written] == list(expected.values())


def test_a_relative_remote_root_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="not absolute"):
        attach_configuration("x", DebugEndpoint("h", 1, (PathMapping(tmp_path, "."),)), tmp_path)


def test_a_folder_whose_name_is_no_text_is_written_all_the_same(tmp_path: Path) -> None:
    name = os.fsdecode(b"caf\xe9")
    write_configurations(tmp_path, [{"name": "New", "cwd": name}])
    assert jsonc.parse((tmp_path / ".vscode/launch.json").read_bytes()).value["configurations"][0]["cwd"] == name


def test_a_configuration_whose_step_is_gone_is_taken_out_unless_it_holds_something_of_the_users(tmp_path: Path) -> None:
    endpoint = DebugEndpoint("127.0.0.1", 5679, (PathMapping(tmp_path, "/work"),))
    names = [f"Azure Machine Learning Compute: remote debug ({step})" for step in ("a", "b", "c", "d")]
    write_configurations(tmp_path, [attach_configuration(name, endpoint, tmp_path) for name in names])
    file = tmp_path / ".vscode" / "launch.json"
    lines = file.read_text().split('"justMyCode": true')
    # b: another value; c: a comment; a and d: as they were written.
    file.write_text(
        lines[0]
        + '"justMyCode": true'
        + lines[1]
        + '"justMyCode": false'
        + lines[2]
        + '"justMyCode": true // mine'
        + lines[3]
        + '"justMyCode": true'
        + lines[4]
    )
    new = attach_configuration(names[3], endpoint, tmp_path)
    write_configurations(tmp_path, [new], retired=lambda name: name in names)
    left = [name for name in names if f'"{name}"' in file.read_text()]
    assert left == names[1:]
