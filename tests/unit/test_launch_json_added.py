"""launch.json is the user's: entries are added in its own style, and all else stays byte for byte."""

from __future__ import annotations

import textwrap
from pathlib import Path

import pytest
from launch_json_files import BOM, NEW, before_and_after, launch_json

from workflows.debugger import jsonc
from workflows.debugger.launch_json import write_configurations

pytestmark = pytest.mark.usefixtures("locks_elsewhere")

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


@pytest.mark.parametrize("before", [0, 1, 300])
def test_the_file_is_not_read_anew_for_each_configuration_of_many(
    tmp_path: Path, before: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    def named(count: int) -> list[dict[str, object]]:
        return [{**NEW, "name": f"New (rank {number})"} for number in range(count)]

    def members(count: int) -> list[dict[str, object]]:
        return [{"name": "All", "configurations": [entry["name"] for entry in named(count)]}]

    write_configurations(tmp_path, named(before), members(before) if before else [])
    read = [0]
    parse = jsonc.parse

    def counted(data: bytes) -> jsonc.Document:
        read[0] += 1
        return parse(data)

    monkeypatch.setattr(jsonc, "parse", counted)
    assert write_configurations(tmp_path, named(300), members(300)) == ("added" if before < 300 else "unchanged")
    assert read[0] <= 10
    monkeypatch.undo()
    found = jsonc.parse((tmp_path / ".vscode/launch.json").read_bytes()).value
    assert found["configurations"] == named(300)
    assert found["compounds"] == members(300)
