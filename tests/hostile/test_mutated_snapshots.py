"""Snapshots that somebody has made wrong, and expressions that nobody should type: an answer or a clear refusal."""

from __future__ import annotations

import copy
import json
import random
from pathlib import Path
from typing import Any

import pytest
from conftest import Hostile
from mutations import JSON, mutated
from snapshot_files import failed_training

from workflows.errors import UserError
from workflows.models import PathMapping
from workflows.snapshots import inspection, snapshot_file
from workflows.snapshots.arrays import Missing
from workflows.snapshots.expression import Evaluator, Refused
from workflows.snapshots.model import Snapshot, Value
from workflows.snapshots.session import Session
from workflows.snapshots.sources import Sources

#: What a place in the document may be instead.
ODD: tuple[Any, ...] = (
    *(None, True, -1, 0, 1, 10**9, 10**400, 1.5, float("nan"), float("inf"), "", "\0", "\x1b]0;x\x07", "\ud800", "/"),
    *([], {}, [[]], [0], [0, 0], [[0, 0]], [[None, 0]], ["x", None], {"a": []}, "../../etc/passwd", "C:\\x", "array"),
    *(
        "dict",
        "table",
        "str",
        "bytes",
        "b'\\x00",
        "b'" + "\\x00" * 50 + "'",
        "2026-99-99T00:00:00Z",
        [1 << 52, 1 << 52],
    ),
)
#: What expressions are made of.
PIECES = (
    *("rows", "options", "model", "weights", "table", "text", "raw", "rate", "gone", "nowhere", ".", "..", "[", "]"),
    *("[0]", "[-1]", "[1:2]", "[::-1]", "[::0]", "[:]", "[1, 2]", "['lr']", "['age']", "[1e3]", "[None]", "[True]"),
    *(".shape", ".me", ".layers", ".__class__", "(", ")", " ", "*", "lambda", "'", '"', "\n", "9" * 30, "-", "\u202e"),
    *("[9**9**9]", "[" + "9" * 5000 + "]", "[rate]", "[rows]", "[b'x']", "[...]", "[{}]", "[(1, ('a', 1))]"),
)


def places(value: Any, found: list[tuple[Any, Any]]) -> list[tuple[Any, Any]]:
    """Every place in a document: what holds it, and its name there."""
    for name in range(len(value)) if isinstance(value, list) else list(value):
        found.append((value, name))
        if isinstance(value[name], list | dict):
            places(value[name], found)
    return found


def spoilt(source: random.Random) -> bytes:
    """A snapshot with some of its places made odd, or its bytes."""
    content = failed_training().content()
    for _ in range(source.randint(1, 8)):
        holder, name = source.choice(places(content, []))
        now = holder[name]
        alike = [one for one in ODD if type(one) is type(now)] if source.random() < 0.95 else ODD
        if type(now) is int and source.random() < 0.95:
            # Most often a place that is there: what names itself, or something of another kind.
            holder[name] = source.randrange(4) if source.random() < 0.5 else source.randrange(300)
        elif isinstance(now, list) and source.random() < 0.8:
            source.shuffle(now)
        elif isinstance(holder, dict) and source.random() < 0.2:
            holder.pop(name)
        else:
            holder[name] = copy.deepcopy(source.choice(alike or ODD))
    data = json.dumps(content).encode()
    return mutated(data, source, JSON) if source.random() < 0.1 else data


def expression(source: random.Random) -> str:
    return "".join(source.choice(PIECES) for _ in range(source.randint(1, 6)))


def ask(snapshot: Snapshot, source: random.Random) -> None:
    """What an editor asks for, all of it."""
    session = Session(snapshot, Sources([PathMapping(Path("/here"), "/mnt/work")]))

    def answer(command: str, **arguments: Any) -> dict[str, Any]:
        message = {"seq": 1, "type": "request", "command": command, "arguments": arguments}
        found = list(session.take(message))
        json.dumps(found)
        body = found[0].get("body", {})
        return body if isinstance(body, dict) else {}

    answer("initialize")
    answer("attach", pathMappings=source.choice(ODD))
    answer("configurationDone")
    json.dumps(session.stopped())
    left = []
    for thread in answer("threads")["threads"]:
        answer("exceptionInfo", threadId=thread["id"])
        for frame in answer("stackTrace", threadId=thread["id"])["stackFrames"]:
            answer("source", sourceReference=frame["source"].get("sourceReference", 0))
            answer("evaluate", expression=expression(source), frameId=frame["id"])
            left += [one["variablesReference"] for one in answer("scopes", frameId=frame["id"])["scopes"]]
    seen: set[int] = set()
    while left:
        number = left.pop()
        if number and number not in seen:
            seen.add(number)
            for which in ("", "named", "indexed"):
                for one in answer("variables", variablesReference=number, filter=which).get("variables", ()):
                    left.append(one["variablesReference"])
    answer(source.choice(("variables", "scopes", "stackTrace", "source")), variablesReference=source.choice(ODD))


def test_a_spoilt_snapshot_is_shown_or_refused(tmp_path: Path, hostile: Hostile) -> None:
    path, read = tmp_path / "snapshot-x.json", 0
    for number in range(hostile.count):
        source = hostile.random(number)
        path.write_bytes(spoilt(source))
        try:
            try:
                snapshot = snapshot_file.read_snapshot(path)
            except UserError as error:
                assert error.problem and error.remedy
                continue
            read += 1
            json.dumps(inspection.inspect_snapshot(snapshot, Sources([]), None, []))
            json.dumps(inspection.summary(snapshot, Sources([])))
            assert snapshot.when is not None
            ask(snapshot, source)
        except Exception as error:
            raise AssertionError(f"snapshot {number} of --hostile-seed {hostile.seed}") from error
    assert read > hostile.count / 5, "most are refused at once: nothing was tried"


def test_an_odd_expression_is_answered_or_refused(tmp_path: Path, hostile: Hostile) -> None:
    snapshot = snapshot_file.read_snapshot(failed_training().write(tmp_path / "snapshot-x.json"))
    evaluator = Evaluator(snapshot, snapshot.frames[1], snapshot.stack())
    answered = 0
    for number in range(10 * hostile.count):
        typed = expression(hostile.random(number))
        try:
            assert isinstance(evaluator.value(typed), Value)
            answered += 1
        except (Refused, Missing):
            continue
        except Exception as error:
            raise AssertionError(f"{typed!r}, {number} of --hostile-seed {hostile.seed}") from error
    # Some of them mean something, however few are made.
    assert answered


@pytest.mark.parametrize("seed", [1])
def test_the_same_seed_makes_the_same_snapshot(seed: int) -> None:
    assert spoilt(random.Random(seed)) == spoilt(random.Random(seed))
