"""Snapshots of generated values: whatever they are, they do no harm, and none of their code runs."""

from __future__ import annotations

import json
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import snapshot_graphs as graphs
from conftest import QUICK, Hostile

from workflows.debuggee.azureml_debuggee import failures

Json = dict[str, Any]
#: Values for each snapshot: as many variables as a frame has.
EACH = 50
#: Values of the whole suite; `--hostile N` makes N where that is more.
VALUES = 1000 if QUICK else 5000


@pytest.fixture
def write(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[BaseException], Json]:
    monkeypatch.setenv("AZUREML_DEBUGGEE_SNAPSHOTS", str(tmp_path))
    monkeypatch.setenv("AZUREML_DEBUGGEE_STORY", "pipeline")

    def written(error: BaseException) -> Json:
        before = set(tmp_path.iterdir())
        failures.write(error, BaseException.__dict__["__traceback__"].__get__(error), every=True)
        (file,) = set(tmp_path.iterdir()) - before
        assert file.stat().st_mode & 0o777 == 0o600
        data = file.read_bytes()
        file.unlink()
        assert len(data) <= 2_000_000
        found: Json = json.loads(data)
        return found

    return written


def failing(values: list[Any]) -> BaseException:
    """An exception in a frame that has these as its variables."""
    scope = {"given": values}
    names = "\n".join(f"    value{number} = given[{number}]" for number in range(len(values)))
    exec(compile(f"def fail(given):\n{names}\n    raise ValueError('failed')", __file__, "exec"), scope)
    try:
        scope["fail"](values)  # type: ignore[operator]
    except ValueError as error:
        return error
    raise AssertionError


def check(snapshot: Json) -> None:
    """Every index leads somewhere, and every value says what it is."""
    count = len(snapshot["values"])
    for frame in snapshot["frames"]:
        assert all(index is None or 0 <= index < count for _, index in frame["locals"])
    for value in snapshot["values"]:
        assert isinstance(value["text"], str) and isinstance(value["kind"], str)
        pairs = [*value.get("items", ()), *value.get("attributes", ())]
        assert all(pair[1] is None or 0 <= pair[1] < count for pair in pairs)


def test_no_code_of_generated_values_runs_and_none_of_them_does_harm(
    write: Callable[[BaseException], Json], hostile: Hostile
) -> None:
    chance = random.Random(hostile.seed)
    slowest = 0.0
    for _ in range(max(VALUES, hostile.count) // EACH):
        values = [graphs.make(chance) for _ in range(EACH)]
        graphs.CALLED.clear()
        error = failing(values)
        graphs.CALLED.clear()
        snapshot = write(error)
        assert not graphs.CALLED
        check(snapshot)
        text = json.dumps(snapshot)
        assert "-of-the-tests-123" not in text
        (own,) = (frame for frame in snapshot["frames"] if frame["function"] == "fail")
        names = [name for name, _ in own["locals"]]
        assert names == ["given", *(f"value{number}" for number in range(EACH))]
        slowest = max(slowest, snapshot["seconds"])
        error.__traceback__ = None
    # Its own limit, on a machine that does other things as well.
    assert slowest < 10
