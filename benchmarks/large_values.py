"""The first page of large values, compared with a small one: requests of an editor over DAP, and those of `inspect`."""

from __future__ import annotations

import tempfile
from pathlib import Path

from workflows.debugger.dap import DapClient
from workflows.debugger.frames import read_stack, read_variables

from .debugger import ENVIRON as SETTINGS
from .debugger import LIMIT, attach, experiment
from .harness import Bench, new_project
from .measure import seconds

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
ENVIRON = {**SETTINGS, "AML_TRAINING_ENV": "env"}
#: The number of a container's items that `inspect` reads.
ITEMS = 10


def main(bench: Bench) -> None:
    """Measure the first page of each large value at a stop."""
    files = {"look.py": SCRIPT, "env/conda.yml": "dependencies: [{pip: [pandas, debugpy]}]\n"}
    with tempfile.TemporaryDirectory(prefix="azureml-debug-bench-") as folder, bench.part("large values"):
        project = new_project(Path(folder), files)
        line = next(n for n, text in enumerate(SCRIPT.splitlines(), 1) if text.endswith("# LINE step"))
        with experiment(project, "look.py", ENVIRON) as place:
            client, thread = attach(place, line)
            with client:
                compare(bench, client, thread)


def compare(bench: Bench, client: DapClient, thread: int) -> None:
    """Measure each value in turn with the small one, as an editor opens it and as `inspect` reads it."""
    frame = read_stack(client, thread)[0]
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
