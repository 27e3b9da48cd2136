"""The first page of large values, compared with a small one: requests of an editor over DAP, and those of `inspect`."""

from __future__ import annotations

import json
import tempfile
from pathlib import Path
from typing import Any

from workflows.debugger.dap import DapClient
from workflows.debugger.frames import Frame, read_variables

from .debugger import LIMIT, Place, attach
from .harness import INV, Bench, new_project
from .measure import run, seconds

ROUNDS = 50
#: The most seconds more that the first page of a large value may take.
MORE = 0.05
SMALL = "small"
#: The large values, by the name of their variable.
LARGE = {
    "numbers": "a list of 1,000,000 numbers",
    "table": "a dict of 100,000 entries",
    "wide": "a data frame of 10,000 columns",
}
SCRIPT = """\
import pandas

def look(small, numbers, table, wide):
    return len(small)  # LINE step

look([1, 2, 3], list(range(10**6)), dict.fromkeys(range(10**5)), pandas.DataFrame([range(10**4)] * 10))
"""
ENVIRON = {"AML_ENGINE": "process", "AML_DEBUG_PORT": "0", "AML_TRAINING_ENV": "env"}
#: The number of a container's items that `inspect` reads.
ITEMS = 10


def main(bench: Bench) -> None:
    """Measure the first page of each large value at a stop."""
    files = {"look.py": SCRIPT, "env/conda.yml": "dependencies: [{pip: [pandas, debugpy]}]\n"}
    with tempfile.TemporaryDirectory(prefix="azureml-debug-bench-") as folder, bench.part("large values"):
        project = new_project(Path(folder), files)
        typed = [*INV, "experiment.debug", "bench", "--script", "look.py", "--no-wait", "--json"]
        result: dict[str, Any] = json.loads(run(typed, project, ENVIRON).splitlines()[-1])
        (endpoint,) = result["endpoints"]
        try:
            line = next(n for n, text in enumerate(SCRIPT.splitlines(), 1) if text.endswith("# LINE step"))
            place = Place(endpoint["port"], project / "look.py", tuple(endpoint["path_mappings"]))
            client, thread = attach(place, line)
            with client:
                compare(bench, client, thread)
        finally:
            run([*INV, "experiment.cancel"], project, ENVIRON)


def compare(bench: Bench, client: DapClient, thread: int) -> None:
    """Measure each value in turn with the small one, as an editor opens it and as `inspect` reads it."""
    found = client.request("stackTrace", {"threadId": thread}, LIMIT)["stackFrames"][0]
    frame = Frame("look.py", int(found["line"]), str(found["name"]), int(found["id"]))
    scopes = client.request("scopes", {"frameId": frame.number}, LIMIT)["scopes"]
    shown = client.request("variables", {"variablesReference": scopes[0]["variablesReference"]}, LIMIT)["variables"]
    references = {str(one["name"]): int(one["variablesReference"]) for one in shown}

    def open_in_editor(name: str) -> None:
        assert client.request("variables", {"variablesReference": references[name]}, LIMIT)["variables"]

    def inspect(name: str) -> None:
        assert read_variables(client, frame, 0, ITEMS, 0, 300, path=[name])

    for how, look in (("an editor opens it", open_in_editor), ("inspect reads it", inspect)):
        for name, what in LARGE.items():
            samples = bench.measure(
                ROUNDS,
                ours=lambda look=look, name=name: seconds(lambda: look(name)),  # type: ignore[misc]
                small=lambda look=look: seconds(lambda: look(SMALL)),  # type: ignore[misc]
            )
            more = samples.differences("ours", "small")
            bench.figure(f"first page of {what}, more than of a small list ({how})", more, "s", MORE)
