"""Snapshots of failures as they are read: what is in them, and what is none."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from snapshot_files import SOURCE, Builder, failed_training

from workflows.console import Console
from workflows.errors import BadValue, UserError
from workflows.models import PathMapping
from workflows.snapshots import inspection, selection, snapshot_file
from workflows.snapshots.expression import Evaluator, parse
from workflows.snapshots.model import Snapshot
from workflows.snapshots.sources import Sources, recorded_text
from workflows.tasks._snapshots import _show_stack


def made(tmp_path: Path, builder: Builder | None = None) -> Snapshot:
    return snapshot_file.read_snapshot(
        (builder or failed_training()).write(tmp_path / "logs" / "snapshot-train-rank0-77.json")
    )


def refusal(tmp_path: Path, data: bytes) -> str:
    path = tmp_path / "snapshot-x.json"
    path.write_bytes(data)
    with pytest.raises(UserError) as raised:
        snapshot_file.read_snapshot(path)
    assert raised.value.exit_code == 1 and raised.value.remedy
    return raised.value.problem


def evaluator(tmp_path: Path) -> Evaluator:
    snapshot = made(tmp_path)
    return Evaluator(snapshot, snapshot.frames[1], snapshot.stack())


def test_a_snapshot_says_where_it_failed_and_with_what(tmp_path: Path) -> None:
    snapshot = made(tmp_path)
    found = inspection.inspect_snapshot(snapshot, Sources([]), None, ["rate", "options['lr']"])
    assert found["stopped"] == {
        "file": "/mnt/work/train.py", "line": 8, "function": "train", "own": True, "same_source": False,
    }  # fmt: skip
    assert [one["function"] for one in found["stack"]] == ["use", "train", "<module>"]
    assert found["frame"] == 1, "the innermost of the person's own, not the library's"
    assert found["locals"]["rate"] == "0" and found["locals"]["gone"] == "<not recorded>"
    assert found["locals"]["token"] == "<left out: its name looks secret>"
    assert found["values"] == {"rate": "0", "options['lr']": "0.1"}
    exception = found["exception"]
    assert (exception["type"], exception["text"], exception["notes"]) == (
        "ZeroDivisionError", "division by zero", ["in epoch 3"],
    )  # fmt: skip
    assert exception["cause"]["type"] == "KeyError" and exception["cause"]["context"] is None, "each once"
    assert found["left_out"] == ["1,204 values behind the size limit (2 MB)"]
    json.dumps(found)


def test_frames_of_the_exceptions_before_have_numbers_too(tmp_path: Path) -> None:
    snapshot = made(tmp_path)
    assert inspection.inspect_snapshot(snapshot, Sources([]), 3, ["path"])["values"] == {"path": "'data.csv'"}
    with pytest.raises(UserError, match="has frames 0 to 3"):
        inspection.inspect_snapshot(snapshot, Sources([]), 4, [])


@pytest.mark.parametrize(
    ("expression", "text"),
    [
        ("rows[299]", "299"),
        ("rows[-1]", "not recorded: item 999,999 of 1,000,000; the first 300 were kept"),
        ("rows[2000000]", "IndexError: list index out of range"),
        ("rows[1:4]", "[1, 2, 3]"),
        ("rows[4:1:-1]", "[4, 3, 2]"),
        ("rows[298:]", "[298, 299, ... 999,700 more]"),
        ("rows[:4][1]", "1"),
        ("rows[rate]", "0"),
        ("rows['a']", "TypeError: list indices must be integers, not str"),
        ("options['name'][1:3]", "'ir'"),
        ("options['a', 1][0]", "1"),
        ("options[('a', 1)][-1]", "2"),
        ("options[3]", "None"),
        ("options['none']", "KeyError: 'none'"),
        ("options['1']", "KeyError: '1'"),
        ("model.layers[0]", "64"),
        ("model.me.me.layers[1]", "10"),
        ("model.owner", "not recorded: owner was left out of the snapshot"),
        ("model.nothing", "not recorded: the attribute nothing of train.Model"),
        ("weights.shape", "(3, 4)"),
        ("weights.dtype", "float64"),
        ("weights.nan", "2"),
        ("weights[1, 2]", "3.0"),
        ("weights[1][2]", "3.0"),
        ("weights[-1, -1]", "not recorded: of 12 elements the first 10 were kept"),
        ("weights[1:]", "<array (2, 4)> [2.0, 2.5, 3.0, 3.5, 4.0, 4.5, ... 2 more]"),
        ("weights[3]", "IndexError: index 3 is out of bounds for a dimension of 3"),
        ("weights[0, 0, 0]", "IndexError: too many indices for array: it has 2 dimensions"),
        ("table['who'][1]", "'n1'"),
        ("table['age']", "[0, 1, 2, 3, 4, ... 4 more]"),
        ("table['row2'][1]", "'n2'"),
        ("table['row7']", "not recorded: 'row7' is not among the 5 keys that were kept"),
        ("text[:3]", "'abc'"),
        ("text[4000]", "not recorded: item 4,000 of 5,000; the first 11 were kept"),
        ("raw[1]", "1"),
        ("raw[1:]", "b'\\x01\\x02'"),
        ("seen[0]", "not recorded: the items of set"),
        ("token", "<left out: its name looks secret>"),
        ("gone", "not recorded: gone was left out of the snapshot"),
        ("LIMIT", "5"),
        ("nowhere", "not recorded: there is no nowhere in this frame"),
        ("rows[0:10**0]", None),
        ("rate.real.x", "not recorded: the attribute real of int"),
    ],
)
def test_names_attributes_items_and_slices_are_answered(tmp_path: Path, expression: str, text: str | None) -> None:
    if text is None:
        with pytest.raises(BadValue):
            parse(expression)
    else:
        assert evaluator(tmp_path).text(expression) == text


@pytest.mark.parametrize(
    "expression",
    [
        *("len(rows)", "rate + 1", "__import__('os').system('x')", "", "a b", "[x for x in rows]", "lambda: 0"),
        *("rate := 1", "f'{rate}'", "rows[f()]", "x" * 600, "(" * 300 + ")" * 300, "a" + ".b" * 400),
        *("rows[1 if rate else 2]", "\0"),
    ],
)
def test_an_expression_that_would_run_something_is_refused(tmp_path: Path, expression: str) -> None:
    with pytest.raises(BadValue) as raised:
        evaluator(tmp_path).text(expression)
    assert raised.value.exit_code == 2


def test_a_long_chain_of_attributes_is_no_recursion(tmp_path: Path) -> None:
    assert evaluator(tmp_path).text("model" + ".me" * 150 + ".layers[0]") == "64"


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        ({"version": 2}, "is of a newer version than this program reads: 2, not 1"),
        ({"version": "1"}, "its version is not a number"),
        ({"version": True}, "its version is not a number"),
        ({"format": "something"}, 'has no `"format": "azureml-debug-snapshot"`'),
        ({"exceptions": []}, "it has no exception"),
        ({"exceptions": {}}, "its `exceptions` is not a list"),
        ({"frames": [3]}, "frame 0: it is not an object"),
        ({"frames": [{"locals": [["x", 99999]]}]}, "frame 0: locals: it names number 99999 of"),
        ({"frames": [{"locals": [["x", -1]]}]}, "frame 0: locals: it names number -1 of"),
        ({"frames": [{"locals": [["x", True]]}]}, "frame 0: locals: it names number ? of"),
        ({"frames": [{"locals": [[3, None]]}]}, "frame 0: locals: a name is not text"),
        ({"frames": [{"line": 10**30}]}, "frame 0: a number is out of range"),
        ({"values": [{"items": [[None]]}]}, "value 0: items: entry 0 is not a pair"),
        ({"values": [{"length": 1e400}]}, "value 0: a number is out of range"),
        ({"exceptions": [{"frames": [9]}]}, "exception 0: frames: it names number 9 of 4"),
        ({"exceptions": [{"cause": 5}]}, "exception 0: the exceptions that it names: it names number 5 of 1"),
        ({"threads": [{"frames": [77]}]}, "thread 0: it names number 77 of 4"),
    ],
)
def test_what_is_no_snapshot_is_told_in_a_line(tmp_path: Path, change: dict[str, Any], problem: str) -> None:
    content = {**failed_training().content(), **change}
    assert problem in refusal(tmp_path, json.dumps(content).encode())


def test_a_snapshot_that_was_cut_off_is_told_as_one(tmp_path: Path) -> None:
    whole = json.dumps(failed_training().content()).encode()
    for size in (0, 60, 1000, len(whole) - 1):
        assert "is cut off: the program was killed" in refusal(tmp_path, whole[:size])
    for other in (b"not json", b"[" * 100_000, b'{"a": 1}', b"[]", b"\xff\xfe", b"1" * 5000, b'{"a":' * 50_000):
        assert "is not a snapshot that can be read" in refusal(tmp_path, other)


def test_a_file_that_is_far_too_large_is_not_read(tmp_path: Path) -> None:
    with open(tmp_path / "snapshot-x.json", "wb") as file:
        file.truncate(snapshot_file.MOST_BYTES + 1)
    with pytest.raises(UserError, match="larger than 32 MB"):
        snapshot_file.read_snapshot(tmp_path / "snapshot-x.json")


def test_exceptions_that_name_each_other_are_shown_once(tmp_path: Path) -> None:
    builder = failed_training()
    builder.exceptions[1]["cause"], builder.exceptions[1]["group"] = 0, [0, 1, 1]
    snapshot = made(tmp_path, builder)
    assert [link.place for link in snapshot.chain()] == [1]
    assert inspection.inspect_snapshot(snapshot, Sources([]), None, [])["exception"]["cause"]["group"] == []


def test_a_chain_of_thousands_is_cut(tmp_path: Path) -> None:
    builder = failed_training()
    for number in range(5000):
        builder.raised("ValueError", str(number), [], cause=number + 1)
    builder.exceptions[-1]["cause"] = None
    snapshot = made(tmp_path, builder)
    assert len(list(snapshot.chain())) < 200
    json.dumps(inspection.inspect_snapshot(snapshot, Sources([]), None, []))


def test_the_first_rank_that_failed_is_the_one_that_is_meant(tmp_path: Path) -> None:
    for rank, second in ((0, "09"), (3, "02"), (1, "30")):
        builder = failed_training()
        builder.more |= {"written": f"2026-11-30T08:00:{second}.5Z", "where": {"step": "train", "rank": rank}}
        builder.write(tmp_path / "logs" / f"snapshot-train-rank{rank}-{rank}.json")
    (tmp_path / "logs" / "snapshot-train-rank9-9.json").write_text("{")
    kept = selection.load_snapshots(selection.files_of_step(tmp_path))
    assert [one.rank for one in kept.snapshots] == [3, 0, 1] and len(kept.unreadable) == 1
    assert selection.choose_snapshot(kept, None, None, "train").rank == 3
    assert selection.choose_snapshot(kept, 1, None, "train").rank == 1
    assert selection.choose_snapshot(kept, None, 2, "train").rank == 0
    assert selection.choose_snapshot(kept, None, None, "the service", latest=True).rank == 1
    with pytest.raises(UserError, match="There is no snapshot 4: train has 3"):
        selection.choose_snapshot(kept, None, 4, "train")
    with pytest.raises(UserError, match="Rank 7 of train has left no snapshot"):
        selection.choose_snapshot(kept, 7, None, "train")


def test_source_is_the_local_file_only_while_it_is_the_one_that_ran(tmp_path: Path) -> None:
    snapshot = made(tmp_path)
    code = tmp_path / "my code"
    code.mkdir()
    sources = Sources([PathMapping(code, "/mnt/work/")])
    frame = snapshot.frames[1]
    assert sources.local(frame.file) == str(code / "train.py") and not sources.is_same(frame)
    (code / "train.py").write_text(SOURCE)
    assert Sources([PathMapping(code, "/mnt/work")]).is_same(frame)
    (code / "train.py").write_text(f"# edited\n{SOURCE}")
    assert not Sources([PathMapping(code, "/mnt/work")]).is_same(frame)
    assert recorded_text(snapshot.frames, frame) == SOURCE
    assert Sources([PathMapping(code, "/mnt/work")]).local("/mnt/work/../../etc/passwd") == "/mnt/work/../../etc/passwd"
    nested = [PathMapping(Path("/p"), "/p"), PathMapping(code, "/p/runs/1/work"), PathMapping(Path("/q"), "/p")]
    assert Sources(nested).local("/p/runs/1/work/a.py") == str(code / "a.py")
    assert Sources(nested).local("/p/a.py") == "/p/a.py"
    assert Sources([PathMapping(code, "C:\\work")]).local("C:\\work\\a\\b.py") == str(code / "a" / "b.py")


def test_of_a_recursion_the_first_frames_are_shown(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    builder = Builder()
    deep = [builder.frame("/x.py", 3, "deep", {}) for _ in range(150)]
    start = builder.frame("/x.py", 9, "main", {})
    builder.raised("ValueError", "one\x1b[31m", [start, *deep])
    snapshot = made(tmp_path, builder)
    _show_stack(Console(), snapshot, Sources([]), None, 100)
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[:2] for line in lines] == [
        ["0", "deep"], ["1", "deep"], ["2", "deep"], [">", "100"], ["(and", "146"], ["150", "main"],
    ]  # fmt: skip


def test_recorded_lines_keep_their_numbers(tmp_path: Path) -> None:
    builder = Builder()
    for line in (40, 12):
        builder.frame("/x.py", line, "f", {}, source={"first": line - 1, "lines": [f"line {line - 1}", f"line {line}"]})
    builder.raised("ValueError", "", [0, 1])
    snapshot = made(tmp_path, builder)
    lines = recorded_text(snapshot.frames, snapshot.frames[0]).split("\n")
    assert (lines[11], lines[38], lines[39], lines[20]) == ("line 12", "line 39", "line 40", "")
    assert "not here as it was" in lines[0]
