"""launch.json and tasks.json that somebody has made wrong: edited without a loss, or left alone and named by line."""

from __future__ import annotations

import json
import random
import re
import tempfile
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from conftest import Hostile
from launch_json_files import ATTACH, NEW, before_and_after
from mutations import JSON, mutated
from test_launch_json_added import ADDED
from test_launch_json_updated import UPDATED

from workflows.debugger import jsonc, launch_json
from workflows.debugger.launch_json import write_configurations
from workflows.errors import UserError
from workflows.vscode import tasks_json
from workflows.vscode.leftovers import Leftovers
from workflows.vscode.tasks_json import EditorTask, write_tasks

FAMILY = "Azure Machine Learning Compute: "
STEP: dict[str, Any] = {**ATTACH, "name": f"{FAMILY}remote debug (train)", "preLaunchTask": "inv pipeline.debug"}
ALL = {"name": f"{FAMILY}all", "configurations": [STEP["name"], NEW["name"]], "stopAll": False}
TASK = EditorTask("inv pipeline.debug", ["pipeline.debug"], str(STEP["name"]))
OURS = {str(NEW["name"]), str(ATTACH["name"]), str(STEP["name"]), str(ALL["name"]), TASK.label, "inv pipeline.cancel"}
#: A comment or a string, as VS Code's own scanner takes them.
_PIECE = re.compile(r'"(?:[^"\\\r\n]|\\.)*"|(//[^\r\n]*|/\*.*?\*/)', re.DOTALL)


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A project's folder; lock files stay out of the system's temporary folder."""
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    (tmp_path / ".vscode").mkdir()
    return tmp_path


def comments(data: bytes) -> Counter[str]:
    """Every comment with the blanks that end its line."""
    return Counter(match[1] for match in _PIECE.finditer(data.decode()) if match[1])


def generated(source: random.Random, levels: int = 4) -> str:
    """A text of JSON with comments, of any shape."""

    def space() -> str:
        return source.choice(("", " ", "\n", "  \n\t", " // c  \n", "/* d */ ", "\r\n"))

    if levels == 0 or source.random() < 0.25:
        leaves = ('"a"', "1", "-1.5E+3", "true", "null", '"\\u00e9\\n"', '"// none"', json.dumps(NEW["name"]))
        return space() + source.choice(leaves) + space()
    inner = [generated(source, levels - 1) for _ in range(source.randint(0, 3))]
    comma = source.choice((",", "")) if inner else ""
    if source.random() < 0.4:
        return space() + "[" + ",".join(inner) + comma + space() + "]" + space()
    keys = (
        "configurations",
        "compounds",
        "tasks",
        "name",
        "label",
        "connect",
        "pathMappings",
        "options",
        "env",
        "port",
    )
    members = [f"{json.dumps(source.choice(keys))}:{one}" for one in inner]
    return space() + "{" + ",".join(members) + comma + space() + "}" + space()


def parts(data: bytes, ours: set[str]) -> tuple[Counter[bytes], bytes]:
    """The person's entries as they are written, and all of the text that is in no entry at all."""
    document = jsonc.parse(data)
    entries, rest, done = Counter[bytes](), b"", 0
    for member in document._root.items if document._root is not None and document._root.kind == "object" else ():
        if member.key not in ("configurations", "compounds", "tasks"):
            continue
        listed = document.value[member.key] if document._at((str(member.key),)) is member.node else []
        listed = listed if isinstance(listed, list) else []
        for item, value in zip(member.node.items, listed, strict=False):
            name = value.get("label" if member.key == "tasks" else "name") if isinstance(value, dict) else None
            written_here = b"AZUREML_DEBUG_F5" in data[item.start : item.end]
            if not isinstance(name, str) or (name not in ours and not written_here):
                entries[data[item.start : item.end]] += 1
            rest += data[done : item.start]
            done = item.end
    return entries, rest + data[done:]


def edited(file: Path, data: bytes, edit: Any, ours: set[str]) -> bool:
    """Have a file edited: whether it could be. Else it is as it was, and the error names it."""
    file.write_bytes(data)
    try:
        edit()
    except UserError as error:
        assert file.read_bytes() == data
        assert str(error).count("\n") == 1
        assert error.file == file
        assert error.line is None or 1 <= error.line <= len(re.split(b"\r\n|\r|\n", data))
        return False
    after = file.read_bytes()
    jsonc.parse(after)
    entries, rest = parts(data, ours)
    assert not comments(rest) - comments(after)
    assert not entries - parts(after, ours)[0]
    assert sorted(path.name for path in file.parent.iterdir()) == [file.name]
    file.unlink()
    return True


def of_the_person(value: Any, key: str, name: str, ours: set[str]) -> Any:
    """What nobody but the person writes."""
    if not isinstance(value, dict):
        return []
    listed = value.get(key, [])
    rest = {
        other: one for other, one in value.items() if other not in ("configurations", "compounds", "tasks", "version")
    }
    return rest, [one for one in listed if not (isinstance(one, dict) and one.get(name) in ours)]


def test_a_mutated_launch_json_is_edited_without_a_loss_or_left_alone(folder: Path, hostile: Hostile) -> None:
    file = folder / ".vscode" / "launch.json"
    originals = [before_and_after(marked)[0] for marked in (*ADDED.values(), *UPDATED.values())]
    done = 0
    for index in range(hostile.count):
        source = hostile.random(index)
        data = source.choice(originals)
        if source.random() < 0.25:
            body = generated(source)
            data = (
                f'{{"configurations": [{body}], "compounds": [{generated(source)}], "x": {generated(source)}}}'.encode()
            )
        if source.random() < 0.8:
            data = mutated(data, source, JSON)
        wanted = source.choice(([NEW], [ATTACH], [STEP, NEW, ATTACH]))
        compounds = source.choice(([], [ALL]))

        def edit(wanted: Any = wanted, compounds: Any = compounds, data: bytes = data) -> None:
            launch_json.check_launch_json(folder)
            assert file.read_bytes() == data
            write_configurations(folder, wanted, compounds, retired=lambda name: name.startswith(FAMILY))
            after = jsonc.parse(file.read_bytes()).value
            names = {str(entry["name"]) for entry in wanted}
            found = {entry["name"]: entry for entry in reversed(after["configurations"]) if has_name(entry)}
            for entry in wanted:
                assert found[entry["name"]].get("connect", {}).items() >= entry.get("connect", {}).items()
            if (before := jsonc.parse(data).value) is not None:
                assert of_the_person(after, "configurations", "name", names) == of_the_person(
                    before, "configurations", "name", names
                )
            once = file.read_bytes()
            assert write_configurations(folder, wanted, compounds) == "unchanged"
            assert file.read_bytes() == once
            launch_json.read_configurations(folder)
            launch_json.read_compound_members(folder, str(ALL["name"]))
            launch_json.find_line(folder, str(NEW["name"]))
            launch_json.changed_since(data, once, list(names))

        done += edited(file, data, edit, OURS)
    assert done or hostile.count < 50


def has_name(entry: Any) -> bool:
    return isinstance(entry, dict) and isinstance(entry.get("name"), str)


def test_a_mutated_tasks_json_is_edited_without_a_loss_or_left_alone(folder: Path, hostile: Hostile) -> None:
    file = folder / ".vscode" / "tasks.json"
    write_tasks(folder, [TASK, EditorTask("inv pipeline.cancel", ["pipeline.cancel"], "gone")])
    ours = file.read_bytes()
    person = b"""{
    // mine
    "version": "2.0.0", /* two */
    "tasks": [
        {"label": "build", "type": "shell", "command": "make"}, // build
        {"label": "inv pipeline.debug", "options": {"cwd": "/x"}, "args": [1, 2,],},
    ],
}
"""
    done = 0
    for index in range(hostile.count):
        source = hostile.random(index)
        data = source.choice((ours, person, f'{{"tasks": [{generated(source)}, {generated(source)}]}}'.encode()))
        if source.random() < 0.8:
            data = mutated(data, source, JSON)

        def edit(data: bytes = data) -> None:
            tasks_json.check_tasks_json(folder)
            before = tasks_json.read_own_tasks(folder)
            tasks_json.read_user_labels(folder)
            write_tasks(folder, [TASK])
            after = jsonc.parse(file.read_bytes()).value
            assert any(isinstance(one, dict) and one.get("label") == TASK.label for one in after["tasks"])
            if (was := jsonc.parse(data).value) is not None:
                labels = {TASK.label}
                assert of_the_person(after, "tasks", "label", labels) == of_the_person(was, "tasks", "label", labels)
            once = file.read_bytes()
            write_tasks(folder, [TASK])
            assert file.read_bytes() == once
            Leftovers(before, [TASK.configuration], [TASK.label]).remove(folder)
            (folder / ".vscode" / "launch.json").unlink(missing_ok=True)

        done += edited(file, data, edit, OURS)
    assert done or hostile.count < 50


def test_elements_that_go_at_once_are_those_that_go_one_by_one(hostile: Hostile) -> None:
    for index in range(hostile.count):
        source = hostile.random(index)
        inner = [generated(source, 1) for _ in range(source.randint(1, 6))]
        text = '{\n  "x": [' + ",".join(inner) + source.choice(("", ",", ",\n", " // e \n")) + "]\n}\n"
        document = jsonc.parse(text.encode())
        gone = [at for at in range(len(inner)) if source.random() < 0.5]
        found = document.delete_items(("x",), gone)
        for at in reversed(gone):
            document = document.delete(("x", at))
        assert found.value == document.value
        assert comments(found.data) == comments(document.data)


@pytest.mark.parametrize("end", [b"\n", b"\r\n", b"\r"], ids=["lf", "crlf", "cr"])
def test_blanks_that_end_a_line_stay_where_they_are(folder: Path, end: bytes) -> None:
    file = folder / ".vscode" / "launch.json"
    lines = (
        b"{ ",
        b'  "version": "0.2.0", // of the file  ',
        b'  "configurations": [ ',
        b'    {"name": "A"}, /* a */  ',
        b"    // what follows\t ",
        b'    {"name": "B"}  ',
        b"    // the end \t",
        b"  ] ",
        b"} ",
    )
    file.write_bytes(end.join(lines))
    write_configurations(folder, [NEW], [ALL])
    after = file.read_bytes().split(end)
    for line in lines:
        changed = {b'    {"name": "B"}  ': b'    {"name": "B"},  ', b"  ] ": b"  ], "}
        assert line in after or changed[line] in after, line
    assert b"\n" not in file.read_bytes().replace(end, b"")


@pytest.mark.parametrize(
    ("data", "line"),
    [
        (b'{"configurations": [\n{"name": ["x"]}]}', 2),
        (b'{"configurations": [\r{"name":\r{}}]}', 3),
        (b'{"configurations": [],\n"compounds": [{}, {\n"name": 5}]}', 3),
        (b'{"compounds": {}}', 1),
        (b'{"configurations": ' + b"[" * 990 + b"]" * 990 + b"}", 1),
        (b'{\n\n"configurations": [' + b'{"a":\n' * 990 + b"1" + b"}" * 990 + b"]}", 201),
        (b'{\n"configurations": [' + b"1" * 5000 + b"]}", 2),
        (b'{\n"x": "' + b'\\"' * 30_000, 2),
        (b'{\n"x": 1, ' + b"/*" * 30_000, 2),
        (b"[\n" + b"1," * 400_000 + b"1]", 2),
        (b" " * (4 * 1024 * 1024 + 1), None),
    ],
)
def test_what_cannot_be_edited_is_seen_before_anything_is_started(folder: Path, data: bytes, line: int | None) -> None:
    file = folder / ".vscode" / "launch.json"
    file.write_bytes(data)
    with pytest.raises(UserError) as caught:
        launch_json.check_launch_json(folder)
    assert (caught.value.file, caught.value.line) == (file, line)
    assert file.read_bytes() == data


def test_a_label_that_is_no_text_is_seen_before_anything_is_started(folder: Path) -> None:
    (folder / ".vscode" / "tasks.json").write_bytes(b'{"tasks": [\n{"label":\n{"a": 1}}]}')
    with pytest.raises(UserError, match='"label" of an entry of "tasks" must be a string') as caught:
        tasks_json.check_tasks_json(folder)
    assert caught.value.line == 3
