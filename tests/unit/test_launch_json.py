"""launch.json is the user's: what we change in it, and that all else stays byte for byte."""

from __future__ import annotations

import errno
import json
import os
import random
import re
import signal
import stat
import subprocess
import sys
import tempfile
import textwrap
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from workflows import locks
from workflows.debugger import jsonc, jsonc_file
from workflows.debugger.launch_json import attach_configuration, check, members, write_configurations
from workflows.errors import UserError
from workflows.models import DebugEndpoint, PathMapping

ROOT = Path(__file__).parents[2]
BOM = b"\xef\xbb\xbf"
NEW = {"name": "New", "connect": {"port": 5678}}
ATTACH: dict[str, Any] = {
    "name": "Azure Machine Learning Deployment: Docker Debug",
    "type": "debugpy",
    "request": "attach",
    "connect": {"host": "127.0.0.1", "port": 5678},
    "pathMappings": [{"localRoot": "${workspaceFolder}/src", "remoteRoot": "/app"}],
    "justMyCode": True,
}


@pytest.fixture(scope="module")
def lock_folder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    tmp_path_factory.getbasetemp()  # It is not to be made in this folder, which goes with this file's tests.
    with tempfile.TemporaryDirectory() as name:
        Path(name).chmod(0o777)
        yield name


@pytest.fixture(autouse=True)
def locks_elsewhere(lock_folder: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Keep the lock files of hundreds of projects out of the person's own folders."""
    monkeypatch.setenv("TMPDIR", lock_folder)
    monkeypatch.setattr(tempfile, "tempdir", lock_folder)
    monkeypatch.setenv("XDG_CACHE_HOME", lock_folder)


def launch_json(folder: Path, data: bytes) -> Path:
    file = folder / ".vscode" / "launch.json"
    file.parent.mkdir(exist_ok=True)
    file.write_bytes(data)
    return file


def before_and_after(marked: str) -> tuple[bytes, bytes]:
    """A row's two texts: what stands in «» is to be added, what stands in ⟦⟧ to be taken away."""
    before = re.sub("«[^»]*»", "", marked)
    after = re.sub("⟦[^⟧]*⟧", "", marked)
    return re.sub("[⟦⟧]", "", before).encode(), re.sub("[«»]", "", after).encode()


# Entries that are added -----------------------------------------------------------------------------

ADDED = {
    "empty array": """\
{
    "version": "0.2.0",
    "configurations": [«
        {
            "name": "New",
            "connect": {
                "port": 5678
            }
        }
    »]
}
""",
    "array with only a comment": """\
{
    "configurations": [
        // "none" yet }]«
        {
            "name": "New",
            "connect": {
                "port": 5678
            }
        }»
    ]
}
""",
    "blank line in an empty array": """\
{
    "configurations": [«
        {
            "name": "New",
            "connect": {
                "port": 5678
            }
        }»

    ]
}
""",
    "comments everywhere": """\
// top { [ "
/* a */ { // b
    /* c */ "version" /* d */ : /* e */ "0.2.0" /* f */ , // g
    // h
    "configurations" : [ // i
        // j
        { /* k */ "name": "Other" /* l */ }«,» // m
        // { "name": "commented out" },
        /* n },
           ] */«
        {
            "name": "New",
            "connect": {
                "port": 5678
            }
        }»
    ] // o
    // p
} // q
// r""",
    "trailing commas": """\
{
    "configurations": [
        {
            "name": "Other",
            "args": ["a", "b",],
        },«
        {
            "name": "New",
            "connect": {
                "port": 5678
            }
        },»
    ],
}
""",
    "tabs": """\
{
\t"configurations": [
\t\t{
\t\t\t"name": "Other"
\t\t}«,
\t\t{
\t\t\t"name": "New",
\t\t\t"connect": {
\t\t\t\t"port": 5678
\t\t\t}
\t\t}»
\t]
}
""",
    "two spaces": """\
{
  "configurations": [
    {"name": "Other"}«,
    {
      "name": "New",
      "connect": {
        "port": 5678
      }
    }»
  ]
}
""",
    "brackets on shared lines": """\
{
  "configurations": [{
    "name": "Other"
  }«, {
    "name": "New",
    "connect": {
      "port": 5678
    }
  }»]
}
""",
    "comment behind an element on a shared line": """\
{
  "configurations": [{
    "name": "Other"
  }«,» // about Other«
    {
      "name": "New",
      "connect": {
        "port": 5678
      }
    }»
  ]
}
""",
    "one line": '{"configurations":[{"name":"Other"}«, {"name": "New", "connect": {"port": 5678}}»]}',
    "one line, empty array": '{"configurations": [«{"name": "New", "connect": {"port": 5678}}»], "a": 1}',
    "one line, array with only a comment": (
        '{"configurations": [/* ] */« {"name": "New", "connect": {"port": 5678}}»]}'
    ),
    "one line, trailing comma": (
        '{"configurations": [{"name": "Other"},« {"name": "New", "connect": {"port": 5678}},» ], }'
    ),
    "backslashes": """\
{
    "configurations": [
        {"name": "Other", "cwd": "C:\\\\x\\\\", "a": "\\"}],// no comment", "b": "/* none"}«,
        {
            "name": "New",
            "connect": {
                "port": 5678
            }
        }»
    ]
}
""",
    "unicode": """\
{
    "configurations": [
        {"name": "Größe 試験 🐍", "x": "\\u00e9\\ud83d\\ude00"}«,» // çà et là 🚀«
        {
            "name": "New",
            "connect": {
                "port": 5678
            }
        }»
    ]
}
""",
    "key configurations missing": """\
{
    // mine
    "version": "0.2.0"«,» // about the version«
    "configurations": [
        {
            "name": "New",
            "connect": {
                "port": 5678
            }
        }
    ]»
}
""",
    "empty object": """\
{«
    "configurations": [
        {
            "name": "New",
            "connect": {
                "port": 5678
            }
        }
    ]
»}
""",
    "only comments": """\
// mine { "configurations": [] }
/* two
lines */
«{
    "version": "0.2.0",
    "configurations": [
        {
            "name": "New",
            "connect": {
                "port": 5678
            }
        }
    ]
}
»""",
    "only a comment without a newline": """\
// mine«
{
    "version": "0.2.0",
    "configurations": [
        {
            "name": "New",
            "connect": {
                "port": 5678
            }
        }
    ]
}
»""",
    "whole file indented": """\
   {
     "configurations": [«
       {
         "name": "New",
         "connect": {
           "port": 5678
         }
       }
     »]
   }
""",
    "elements that are no objects": """\
{
    "configurations": [
        null,
        "New",
        ["name", "New"]«,
        {
            "name": "New",
            "connect": {
                "port": 5678
            }
        }»
    ]
}
""",
    "key configurations twice, the last counts": """\
{
    "configurations": [],
    "configurations": [«
        {
            "name": "New",
            "connect": {
                "port": 5678
            }
        }
    »]
}
""",
    "five years old": """\
{
    // Use IntelliSense to learn about possible attributes.
    // Hover to view descriptions of existing attributes.
    // For more information, visit: https://go.microsoft.com/fwlink/?linkid=830387
    "version": "0.2.0",
    "configurations": [


        /* ---- local ---- */
        {
            "name": "Python: Current File (Integrated Terminal)",
            "type": "python", "request": "launch",
            "program": "${file}",          // do not touch!
            "console": "integratedTerminal",
            "env": {"PYTHONPATH": "${workspaceFolder};C:\\\\libs", /* "DEBUG": "1", */ },
        },
      // Jenny's, see ticket #4711 {wontfix}
      { "name":"Attach (old)"
      , "type":"python"
      , "request":"attach" },
        // {
        //     "name": "New",
        //     "type": "python",
        // },

\t{   "name": "Tabs here",\t"type": "node"   }«,»   /* last */«
\t{
\t    "name": "New",
\t    "connect": {
\t        "port": 5678
\t    }
\t}»

    ],
    "compounds": [ ], // one day
    "inputs": [ { "id": "x" } ]
}

""",
}


@pytest.mark.parametrize(
    ("marked", "newline"),
    [
        pytest.param(marked, newline, id=f"{name}-{'lf' if newline == chr(10) else 'crlf'}")
        for name, marked in ADDED.items()
        for newline in ("\n", "\r\n")
        # A file of one line has no newline style.
        if newline == "\n" or "\n" in before_and_after(marked)[0].decode()
    ],
)
@pytest.mark.parametrize("bom", [b"", BOM], ids=["plain", "bom"])
def test_a_new_entry_is_added_in_the_files_own_style_and_every_other_byte_stays(
    tmp_path: Path, marked: str, bom: bytes, newline: str
) -> None:
    before, after = before_and_after(marked.replace("\n", newline))
    file = launch_json(tmp_path, bom + before)
    assert write_configurations(tmp_path, [NEW]) == "added"
    assert file.read_bytes() == bom + after
    assert NEW in jsonc.parse(file.read_bytes()).value["configurations"]


CREATED = textwrap.dedent("""\
    {
        "version": "0.2.0",
        "configurations": [
            {
                "name": "New",
                "connect": {
                    "port": 5678
                }
            }
        ]
    }
    """).encode()


@pytest.mark.parametrize("content", [None, b"", b" \n\t\n"], ids=["missing", "empty", "blank"])
def test_a_missing_or_blank_file_is_made_with_four_spaces_lf_and_a_final_newline(
    tmp_path: Path, content: bytes | None
) -> None:
    if content is not None:
        launch_json(tmp_path, content)
    assert write_configurations(tmp_path, [NEW]) == "added"
    assert (tmp_path / ".vscode" / "launch.json").read_bytes() == CREATED


def test_two_entries_and_a_compound_are_added_at_once(tmp_path: Path) -> None:
    file = launch_json(tmp_path, b'{\n  "configurations": [] // mine\n}\n')
    compound = {"name": "All", "configurations": ["New", "Newer"], "stopAll": True}
    assert write_configurations(tmp_path, [NEW, {"name": "Newer"}], [compound]) == "added"
    value = jsonc.parse(file.read_bytes()).value
    assert value == {"configurations": [NEW, {"name": "Newer"}], "compounds": [compound]}
    assert b"// mine" in file.read_bytes()


def test_nothing_to_write_makes_no_file(tmp_path: Path) -> None:
    assert write_configurations(tmp_path, []) == "unchanged"
    assert not list(tmp_path.iterdir())


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


# Files that are broken ------------------------------------------------------------------------------

MALFORMED: dict[str, tuple[bytes, int]] = {
    "comma missing": (b'{\n  "a": 1\n  "configurations": []\n}', 3),
    "two commas": (b'{\n  "a": 1,,\n  "configurations": []\n}', 2),
    "only a comma": (b'{\n  "configurations": [\n,\n]}', 3),
    "comma behind a colon": (b'{"a":\n,\n}', 2),
    "value missing": (b'{\n// x\n"a": }', 3),
    "bracket missing": (b'{"configurations": [\n{}\n}', 3),
    "end missing": (b'{\n"configurations": [\n', 3),
    "comment without end": (b'{\n"a": 1 /* {\n}', 2),
    "string without end": (b'{\n"a": "x\n}', 2),
    "string over two lines": (b'{\n"b": 1,\n"a": "x\ny"\n}', 3),
    "bad escape": (b'{\n\n"a": "\\q"}', 3),
    "bad unicode escape": (b'{\n\n"a": "\\u00g0"}', 3),
    "single quotes": (b"{\r\n\r\n'a': 1}", 3),
    "key without quotes": (b"{\na: 1}", 2),
    "hexadecimal": (b'{\n"a": 0x1}', 2),
    "not a number": (b'{"NaN":\n"NaN", "a":\nNaN}', 3),
    "infinity": (b'{\n"a": -Infinity}', 2),
    "two roots": (b"{}\n{}", 2),
    "merge conflict": (b'{\n"a": 1,\n<<<<<<< HEAD\n"b": 1\n=======\n"b": 2\n>>>>>>> x\n}', 3),
    "not UTF-8": (b'{\n\n"a": "caf\xe9"}', 3),
    "UTF-16": ('{"a": 1}'.encode("utf-16"), 1),
    "nested too deeply": (b"[" * 100_000 + b"]" * 100_000, 1),
    "root is an array": (b"// x\n[\n]", 2),
    "root is a number": (BOM + b"\n\n1", 3),
    "configurations is an object": (b'{\n  "configurations":\n  {}\n}', 3),
    "configurations is null": (b'{\n  "configurations": null}', 2),
}


@pytest.mark.parametrize(("data", "line"), MALFORMED.values(), ids=MALFORMED.keys())
def test_a_broken_file_is_left_alone_and_the_error_names_its_line(tmp_path: Path, data: bytes, line: int) -> None:
    file = launch_json(tmp_path, data)
    os.utime(file, ns=(1, 1))
    with pytest.raises(UserError) as caught:
        write_configurations(tmp_path, [NEW])
    assert (caught.value.file, caught.value.line) == (file, line)
    assert str(caught.value).count("\n") == 1
    assert (file.read_bytes(), file.stat().st_mtime_ns) == (data, 1)
    assert os.listdir(file.parent) == ["launch.json"]


def test_compounds_that_are_no_array_are_named_with_their_line(tmp_path: Path) -> None:
    file = launch_json(tmp_path, b'{\n"configurations": [],\n"compounds": {}}')
    with pytest.raises(UserError, match="compounds") as caught:
        write_configurations(tmp_path, [NEW], [{"name": "All", "configurations": []}])
    assert caught.value.line == 3
    assert b"New" not in file.read_bytes()


COMPOUND = {"name": "All", "configurations": ["New"]}


def test_null_means_no_entries_and_is_replaced_only_where_one_is_added(tmp_path: Path) -> None:
    data = b'{\n  // mine\n  "version": "0.2.0",\n  "compounds": null, // none\n  "configurations": []\n}\n'
    file = launch_json(tmp_path, data)
    check(tmp_path)
    assert file.read_bytes() == data
    assert write_configurations(tmp_path, [NEW]) == "added"
    now = file.read_bytes()
    assert b'"compounds": null, // none' in now and b"// mine" in now and b'"New"' in now
    assert write_configurations(tmp_path, [NEW], [COMPOUND]) == "added"
    assert b"null" not in file.read_bytes() and b"// none" in file.read_bytes()
    assert members(tmp_path, "All") == ["New"]


# Files that cannot be read or written ---------------------------------------------------------------


@pytest.fixture
def unprivileged() -> Iterator[Path]:
    """A folder, and no right to go past permissions, not even for root."""
    if sys.platform == "win32":
        pytest.skip("Windows has no permission bits")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        folder.chmod(0o777)
        was = os.geteuid()
        if was == 0:
            os.seteuid(65534)
        try:
            yield folder
        finally:
            os.seteuid(was)


def refused(folder: Path) -> UserError:
    with pytest.raises(UserError) as caught:
        write_configurations(folder, [NEW])
    assert str(caught.value).count("\n") == 1
    return caught.value


def test_a_read_only_file_is_not_replaced(unprivileged: Path) -> None:
    file = launch_json(unprivileged, b"{}")
    file.chmod(0o444)
    assert "cannot be written: permission denied" in refused(unprivileged).problem
    assert file.read_bytes() == b"{}"


def test_a_read_only_folder_is_an_error_and_stays_as_it_was(unprivileged: Path) -> None:
    file = launch_json(unprivileged, b"{}")
    file.parent.chmod(0o555)
    assert "cannot be written: permission denied" in refused(unprivileged).problem
    assert os.listdir(file.parent) == ["launch.json"]
    assert file.read_bytes() == b"{}"


def test_a_project_folder_without_write_permission_is_an_error(unprivileged: Path) -> None:
    (unprivileged / "p").mkdir()
    (unprivileged / "p").chmod(0o555)
    assert "cannot be written: permission denied" in refused(unprivileged / "p").problem


def test_an_unreadable_file_is_an_error(unprivileged: Path) -> None:
    launch_json(unprivileged, b"{}").chmod(0o000)
    assert "cannot be read: permission denied" in refused(unprivileged).problem


def test_a_folder_in_place_of_the_file_is_an_error(tmp_path: Path) -> None:
    (tmp_path / ".vscode" / "launch.json").mkdir(parents=True)
    error = refused(tmp_path)
    assert (error.problem, error.file) == ("is a folder, not a file", tmp_path / ".vscode" / "launch.json")


def test_a_file_in_place_of_the_folder_is_an_error(tmp_path: Path) -> None:
    (tmp_path / ".vscode").write_bytes(b"mine")
    error = refused(tmp_path)
    assert (error.problem, error.file) == ("is a file, not a folder", tmp_path / ".vscode")
    assert (tmp_path / ".vscode").read_bytes() == b"mine"


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no named pipes on this system")
def test_a_named_pipe_in_place_of_the_file_is_an_error_and_does_not_hang(tmp_path: Path) -> None:
    (tmp_path / ".vscode").mkdir()
    os.mkfifo(tmp_path / ".vscode" / "launch.json")
    # In a process of its own, since a read of the pipe would never end.
    done = run_python(
        """
        import sys
        from pathlib import Path
        from workflows.debugger.launch_json import write_configurations
        write_configurations(Path(sys.argv[1]), [{"name": "New"}])
        """,
        tmp_path,
        timeout=20,
    )
    assert "is not a regular file" in done.stderr


def test_a_link_to_itself_is_an_error(tmp_path: Path) -> None:
    (tmp_path / ".vscode").mkdir()
    (tmp_path / ".vscode" / "launch.json").symlink_to("launch.json")
    refused(tmp_path)


def test_a_missing_project_folder_is_an_error(tmp_path: Path) -> None:
    assert "project folder" in refused(tmp_path / "nowhere").remedy


def run_python(code: str, *arguments: object, **options: Any) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", textwrap.dedent(code), *map(str, arguments)]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False, **{"timeout": 60, **options})


@pytest.mark.skipif(sys.platform == "win32", reason="no limit on file sizes there")
def test_a_disk_that_takes_only_a_part_leaves_the_old_file_and_no_temporary_one(tmp_path: Path) -> None:
    file = launch_json(tmp_path, b"{}")
    done = run_python(
        """
        import resource, sys
        from pathlib import Path
        from workflows.debugger.launch_json import write_configurations
        from workflows.errors import UserError
        resource.setrlimit(resource.RLIMIT_FSIZE, (20, 20))
        try:
            write_configurations(Path(sys.argv[1]), [{"name": "New", "args": ["x" * 100]}])
        except UserError as error:
            print(error)
        """,
        tmp_path,
    )
    assert "cannot be written: file too large" in done.stdout, done.stderr
    assert file.read_bytes() == b"{}"
    assert os.listdir(file.parent) == ["launch.json"]


@pytest.mark.parametrize("existing", [True, False], ids=["existing", "new"])
def test_a_full_disk_is_said_and_leaves_nothing_behind(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, existing: bool
) -> None:
    if existing:
        launch_json(tmp_path, b"{}")

    def full(descriptor: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", full)
    error = refused(tmp_path)
    assert error.problem == "cannot be written: no space left on device"
    assert error.remedy.startswith("Free some space")
    assert [p.name for p in tmp_path.rglob("*")] == ([".vscode", "launch.json"] if existing else [])


def test_ctrl_c_in_mid_write_leaves_the_old_file_and_no_temporary_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = launch_json(tmp_path, b"{}")

    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(os, "replace", interrupt)
    with pytest.raises(KeyboardInterrupt):
        write_configurations(tmp_path, [NEW])
    assert file.read_bytes() == b"{}"
    assert os.listdir(file.parent) == ["launch.json"]


# The file itself ------------------------------------------------------------------------------------


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no permission bits")
@pytest.mark.parametrize("mode", [0o600, 0o640, 0o666, 0o755])
def test_the_files_mode_stays(tmp_path: Path, mode: int) -> None:
    file = launch_json(tmp_path, b"{}")
    file.chmod(mode)
    write_configurations(tmp_path, [NEW])
    assert stat.S_IMODE(file.stat().st_mode) == mode


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no umask")
def test_a_new_file_has_the_mode_that_the_umask_gives(tmp_path: Path) -> None:
    was = os.umask(0o027)
    try:
        write_configurations(tmp_path, [NEW])
    finally:
        os.umask(was)
    assert stat.S_IMODE((tmp_path / ".vscode" / "launch.json").stat().st_mode) == 0o640


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() != 0, reason="only root can give files away")
def test_root_leaves_the_file_to_its_owner(tmp_path: Path) -> None:
    file = launch_json(tmp_path, b"{}")
    os.chown(file, 65534, 65534)
    write_configurations(tmp_path, [NEW])
    assert (file.stat().st_uid, file.stat().st_gid) == (65534, 65534)


@pytest.mark.parametrize("dangling", [False, True], ids=["existing", "dangling"])
def test_a_symbolic_link_stays_one_and_its_target_is_written(tmp_path: Path, dangling: bool) -> None:
    target = tmp_path / "dotfiles" / "shared.json"
    target.parent.mkdir()
    (tmp_path / ".vscode").mkdir()
    if not dangling:
        target.write_bytes(b"{}")
    link = tmp_path / ".vscode" / "launch.json"
    link.symlink_to(Path("..") / "dotfiles" / "shared.json")
    write_configurations(tmp_path, [NEW])
    assert link.is_symlink()
    assert jsonc.parse(target.read_bytes()).value["configurations"] == [NEW]
    assert os.listdir(target.parent) == ["shared.json"]


def test_nothing_but_the_file_is_left_in_the_folder(tmp_path: Path) -> None:
    write_configurations(tmp_path, [NEW])
    assert sorted(p.name for p in tmp_path.rglob("*")) == [".vscode", "launch.json"]


def test_the_leftover_of_a_killed_command_is_taken_away_and_a_fresh_one_is_not(tmp_path: Path) -> None:
    folder = launch_json(tmp_path, b"{}").parent
    stale, fresh = folder / ".launch.json.0123abcd.tmp", folder / ".launch.json.4567abcd.tmp"
    for left in (stale, fresh):
        left.write_bytes(b"{")
    os.utime(stale, (time.time() - 3600,) * 2)
    write_configurations(tmp_path, [NEW])
    assert sorted(os.listdir(folder)) == [fresh.name, "launch.json"]


# Several at once ------------------------------------------------------------------------------------

WRITER = """
    import sys
    from pathlib import Path
    from workflows.debugger.launch_json import write_configurations
    folder, label = Path(sys.argv[1]), sys.argv[2]
    while not (folder / "go").exists():
        pass
    for number in range(20):
        result = write_configurations(folder, [{"name": f"{label} {number}", "port": number}])
        assert result == "added", result
"""


def test_two_processes_that_write_at_once_lose_nothing(tmp_path: Path) -> None:
    file = launch_json(tmp_path, b'{\n  // mine\n  "configurations": [{"name": "Mine"}]\n}')
    command = [sys.executable, "-c", textwrap.dedent(WRITER), str(tmp_path)]
    writers = [subprocess.Popen([*command, label], cwd=ROOT, stderr=subprocess.PIPE, text=True) for label in "AB"]
    (tmp_path / "go").touch()
    for writer in writers:
        _, errors = writer.communicate(timeout=60)
        assert writer.returncode == 0, errors
    document = jsonc.parse(file.read_bytes())
    names = [entry["name"] for entry in document.value["configurations"]]
    assert sorted(names) == sorted(["Mine", *(f"{label} {n}" for label in "AB" for n in range(20))])
    assert b"// mine" in document.data
    assert os.listdir(file.parent) == ["launch.json"]


def test_two_threads_that_write_at_once_lose_nothing(tmp_path: Path) -> None:
    def write(label: str) -> None:
        for number in range(10):
            write_configurations(tmp_path, [{"name": f"{label} {number}"}])

    threads = [threading.Thread(target=write, args=[label]) for label in "ABC"]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(jsonc.parse((tmp_path / ".vscode/launch.json").read_bytes()).value["configurations"]) == 30


def test_waiting_for_another_command_ends_with_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = launch_json(tmp_path, b"{}")
    monkeypatch.setattr(jsonc_file, "LOCK_TIMEOUT", 0.2)
    errors: list[UserError] = []

    def change(document: jsonc.Document) -> jsonc.Document:
        thread = threading.Thread(target=lambda: errors.append(refused(tmp_path)))
        thread.start()
        thread.join(10)
        return document

    jsonc_file.edit_file(file, change)
    assert [error.problem for error in errors] == ["another command has been changing it for 0.2 s"]
    assert write_configurations(tmp_path, [NEW]) == "added"


def test_a_folder_for_locks_that_cannot_be_made_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "file"))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path / "file"))
    monkeypatch.setattr(locks, "_is_private", lambda place: False)
    assert "XDG_CACHE_HOME" in refused(tmp_path).remedy


KILLED = """
    import itertools, os, signal, sys
    from pathlib import Path
    from workflows.debugger.launch_json import write_configurations
    if sys.argv[2] != "nothing":
        setattr(os, sys.argv[2], lambda *_: os.kill(os.getpid(), signal.SIGKILL))
    for port in itertools.count():
        write_configurations(Path(sys.argv[1]), [{"name": "New", "connect": {"port": port}}])
"""


@pytest.mark.skipif(sys.platform == "win32", reason="no SIGKILL there")
@pytest.mark.parametrize("at", ["fsync", "replace"])
def test_kill_9_before_the_last_step_leaves_the_old_file_and_the_next_command_works(tmp_path: Path, at: str) -> None:
    file = launch_json(tmp_path, b'{"configurations": []}')
    assert run_python(KILLED, tmp_path, at).returncode == -signal.SIGKILL
    assert file.read_bytes() == b'{"configurations": []}'
    assert write_configurations(tmp_path, [NEW]) == "added"


@pytest.mark.skipif(sys.platform == "win32", reason="no SIGKILL there")
def test_kill_9_in_mid_write_leaves_a_whole_file(tmp_path: Path) -> None:
    ballast = b'{"name": "Other", "args": "' + b"x" * 3_000_000 + b'"}'
    file = launch_json(tmp_path, b'{"configurations": [' + ballast + b"]}\n")
    write_configurations(tmp_path, [{"name": "New", "connect": {"port": 10}}])
    command = [sys.executable, "-c", textwrap.dedent(KILLED), str(tmp_path), "nothing"]
    for _ in range(3):
        files = len(os.listdir(file.parent))
        with subprocess.Popen(command, cwd=ROOT) as writer:
            # A write has begun when there is another file, or less in this one.
            deadline = time.monotonic() + 30
            while len(os.listdir(file.parent)) == files and file.stat().st_size > len(ballast):
                assert time.monotonic() < deadline
            writer.kill()
        data = file.read_bytes()
        assert ballast in data
        assert isinstance(jsonc.parse(data).value["configurations"][1]["connect"]["port"], int)


# The splicing underneath ----------------------------------------------------------------------------


def test_importing_it_does_not_import_filelock() -> None:
    done = run_python(
        """
        import sys
        import workflows.debugger.jsonc, workflows.debugger.launch_json
        print(sorted({"filelock"} & set(sys.modules)))
        """
    )
    assert done.stdout == "[]\n", done.stderr


@pytest.mark.parametrize(
    ("text", "value"),
    [
        (b"[1E+5, -0, 1.5e-3, 0.0]", [1e5, 0, 0.0015, 0.0]),
        (
            b'["\t\0\x01", "\\/\\b\\u00e9", "", "  // x", " /* y */ "]',
            ["\t\0\1", "/\b\u00e9", "", "  // x", " /* y */ "],
        ),
        (b'{"": 1, "a": 1, "a": true,}', {"": 1, "a": True}),
        (b"[[], {}, [ ], null,]", [[], {}, [], None]),
    ],
)
def test_every_value_that_json_knows_is_read_and_can_be_added_to(text: bytes, value: Any) -> None:
    document = jsonc.parse(b'{"a": ' + text + b"}")
    assert document.value == {"a": value}
    assert document.set(("b",), 1).value == {"a": value, "b": 1}


class Scribe:
    """Random values, written with random blanks, comments and trailing commas."""

    def __init__(self, seed: int) -> None:
        self.random = random.Random(seed)
        self.newline = self.random.choice(["\n", "\r\n"])
        self.comments: list[str] = []

    def gap(self) -> str:
        kinds = [self.note if self.random.random() < 0.2 else self.blank for _ in range(3)]
        return "".join(kind() for kind in kinds)

    def blank(self) -> str:
        return self.random.choice(["", "", " ", "\t", self.newline])

    def note(self) -> str:
        text = f'{len(self.comments)}: ,}}]"' + self.random.choice(["", "//", "{[", "'", "é"])
        inner = f"/*{text}*/" if self.random.random() < 0.5 else f"//{text}"
        self.comments.append(inner)
        return inner + (self.newline if inner.startswith("//") else "")

    def value(self, depth: int = 0) -> Any:
        kind = self.random.choice(["list", "dict", "leaf"] if depth else ["dict"])
        count = self.random.randrange(4)
        if kind == "list" and depth < 4:
            return [self.value(depth + 1) for _ in range(count)]
        if kind == "dict" and depth < 4:
            return {key: self.value(depth + 1) for key in self.random.sample(["a", "b//", "c,}", "é"], count)}
        return self.random.choice([1, -2.5, True, None, "", "C:\\x", '"}],', "// no", "/* no */", "日本"])

    def write(self, value: Any) -> str:
        if isinstance(value, dict):
            members = [f"{json.dumps(k)}{self.gap()}:{self.gap()}{self.write(v)}" for k, v in value.items()]
            return "{" + self.listed(members) + "}"
        if isinstance(value, list):
            return "[" + self.listed([self.write(element) for element in value]) + "]"
        return json.dumps(value, ensure_ascii=self.random.random() < 0.5)

    def listed(self, parts: list[str]) -> str:
        text = ",".join(self.gap() + part + self.gap() for part in parts) or self.gap()
        return text + ("," + self.gap() if parts and self.random.random() < 0.3 else "")

    def place(self, value: Any) -> list[Any]:
        """The way to a random container."""
        way: list[Any] = []
        while True:
            inner = value.items() if isinstance(value, dict) else enumerate(value)
            choices = [(key, v) for key, v in inner if isinstance(v, (dict, list))]
            if not choices or self.random.random() < 0.3:
                return way
            key, value = self.random.choice(choices)
            way.append(key)


def item_text(document: jsonc.Document, keys: jsonc.Keys, key: str | int) -> bytes:
    """A member from its key, or an element, to the end of its value."""
    container = document._at(keys)
    index = container.index(key)
    assert index is not None
    return document.data[container.items[index].start : container.items[index].end]


@pytest.mark.parametrize("seed", range(400))
def test_edits_give_what_they_give_in_plain_python_and_lose_no_comment(seed: int) -> None:
    scribe = Scribe(seed)
    model = scribe.value()
    document = jsonc.parse((scribe.gap() + scribe.write(model) + scribe.gap()).encode())
    for _ in range(6):
        assert document.value == model
        way = scribe.place(model)
        container = model
        for key in way:
            container = container[key]
        new, keys = scribe.value(2), tuple(way)
        gone = b""
        if isinstance(container, dict):
            key = scribe.random.choice(["a", "b//", "c,}", "é", "new"])
            if key in container and scribe.random.random() < 0.5:
                gone = item_text(document, keys, key)
                document = document.delete((*keys, key))
                del container[key]
            else:
                gone = item_text(document, keys, key) if key in container else b""
                document = document.set((*keys, key), new)
                container[key] = new
        else:
            index, target = (scribe.random.randrange(len(container) + 1) for _ in range(2))
            choice = scribe.random.choice(["insert", "delete", "move"])
            if choice == "delete" and index < len(container):
                gone = item_text(document, keys, index)
                document = document.delete((*keys, index))
                del container[index]
            elif choice == "move" and max(index, target) < len(container):
                document = document.move(keys, index, target)
                container.insert(target, container.pop(index))
            else:
                document = document.insert(keys, index, new)
                container.insert(index, new)
        # A comment may go only with the text that it stands in.
        scribe.comments = [c for c in scribe.comments if c.encode() not in gone]
        assert [c for c in scribe.comments if c.encode() not in document.data] == []
    assert document.value == model


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
