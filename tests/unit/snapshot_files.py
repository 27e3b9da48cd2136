"""Snapshots made by hand: a failed training with what it had, and the parts to make others of."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

SOURCE = """import helper


def train(rows, rate):
    total = 0
    for row in rows:
        total += helper.use(row)
    return total / rate


if __name__ == "__main__":
    train([1, 2], 0)
"""


class Builder:
    """Puts a snapshot together, value by value."""

    def __init__(self) -> None:
        self.values: list[dict[str, Any]] = []
        self.frames: list[dict[str, Any]] = []
        self.exceptions: list[dict[str, Any]] = []
        self.more: dict[str, Any] = {}

    def value(self, kind: str, text: str, **more: Any) -> int:
        """Add a value; its place."""
        self.values.append({"type": more.pop("type", f"builtins.{kind}"), "kind": kind, "text": text, **more})
        return len(self.values) - 1

    def of(self, value: Any) -> int:
        """Add a plain value of Python with all that is in it; its place."""
        name = type(value).__name__
        if isinstance(value, str):
            return self.value("str", repr(value), value=value, length=len(value))
        if isinstance(value, bytes):
            return self.value("bytes", repr(value), length=len(value))
        if isinstance(value, dict):
            items = [[self.of(key), self.of(one)] for key, one in value.items()]
            return self.value("dict", repr(value), items=items, length=len(value))
        if isinstance(value, list | tuple | set):
            listed: list[list[Any]] = [[None, self.of(one)] for one in value]
            return self.value(name, repr(value), items=listed, length=len(value))
        return self.value("scalar", repr(value), value=value, type=f"builtins.{name}")

    def frame(self, file: str, line: int, function: str, variables: dict[str, int | None], **more: Any) -> int:
        """Add a frame; its place."""
        listed: list[list[Any]] = [[name, place] for name, place in variables.items()]
        self.frames.append({"file": file, "line": line, "function": function, "own": True, "locals": listed, **more})
        return len(self.frames) - 1

    def raised(self, kind: str, text: str, frames: list[int], **more: Any) -> int:
        """Add an exception; its place."""
        self.exceptions.append({"type": kind, "module": "builtins", "text": text, "frames": frames, **more})
        return len(self.exceptions) - 1

    def content(self) -> dict[str, Any]:
        """The whole of it."""
        return {
            "format": "azureml-debug-snapshot",
            "version": 1,
            "written": "2026-11-30T08:00:00.123Z",
            "where": {"story": "pipeline", "run": "sums-1", "step": "train", "rank": 0, "request": None},
            "program": {"argv": ["train.py"], "folder": "/mnt/work", "python": "3.11.7", "pid": 77},
            "packages": {"numpy": "1.26.4"},
            "thread": "MainThread",
            "exceptions": self.exceptions,
            "frames": self.frames,
            "values": self.values,
            **self.more,
        }

    def write(self, path: Path) -> Path:
        """Write it as the debuggee does."""
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(self.content()))
        return path


def failed_training(root: str = "/mnt/work", source: str = SOURCE) -> Builder:
    """A division by zero in train.py, called from its last line, with a library's frame below."""
    made = Builder()
    sha256 = hashlib.sha256(source.encode()).hexdigest()
    lines = source.splitlines()
    recorded = {"first": 1, "lines": lines, "sha256": sha256}
    rows = made.value(
        "list",
        "[0, 1, 2, ... 999,997 more]",
        items=[[None, made.of(number)] for number in range(300)],
        length=1_000_000,
        more=999_700,
    )
    options = made.of({"lr": 0.1, "name": "first", ("a", 1): [1, 2], 3: None})
    model = made.value(
        "object",
        "<train.Model object>",
        type="train.Model",
        attributes=[["layers", made.of([64, 10])], ["owner", None]],
    )
    # It holds itself.
    made.values[model]["attributes"].append(["me", model])
    weights = made.value(
        "array",
        "<numpy.ndarray (3, 4) float64>",
        type="numpy.ndarray",
        shape=[3, 4],
        dtype="float64",
        device="cpu",
        nan=2,
        inf=0,
        length=12,
        items=[[None, made.of(number / 2)] for number in range(10)],
        more=2,
    )
    table = made.value(
        "table",
        "<pandas.DataFrame (9, 2)>",
        type="pandas.DataFrame",
        shape=[9, 2],
        columns=[["age", "int64"], ["who", "object"]],
        length=9,
        items=[[made.of(f"row{number}"), made.of((number, f"n{number}"))] for number in range(5)],
        more=4,
    )
    variables: dict[str, int | None] = {
        "rows": rows,
        "rate": made.of(0),
        "options": options,
        "model": model,
        "weights": weights,
        "table": table,
        "text": made.value("str", "'abc\\x1b[31m' ...", value="abc\x1b[31mdef", length=5000),
        "raw": made.of(b"\x00\x01\x02"),
        "seen": made.of({7}),
        "token": made.value("secret", "<left out: its name looks secret>"),
        "gone": None,
    }
    outer = made.frame(f"{root}/train.py", 12, "<module>", {"LIMIT": made.of(5)}, source=recorded)
    inner = made.frame(f"{root}/train.py", 8, "train", variables, source=recorded)
    library = made.frame(
        "/usr/lib/python3/site-packages/helper.py",
        3,
        "use",
        {"row": made.of(1)},
        own=False,
        source={"first": 1, "lines": []},
    )
    earlier = made.frame(f"{root}/train.py", 7, "load", {"path": made.of("data.csv")}, source=recorded)
    made.raised("ZeroDivisionError", "division by zero", [outer, inner, library], notes=["in epoch 3"], cause=1)
    made.raised("KeyError", "'age'", [earlier], context=0)
    made.more["threads"] = [{"name": "loader", "ident": 2, "daemon": True, "frames": [outer]}]
    made.more["left_out"] = ["1,204 values behind the size limit (2 MB)"]
    return made
