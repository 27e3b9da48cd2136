"""The cost of making a step's child processes debuggable, compared with the same script started directly."""

from __future__ import annotations

import tempfile
from pathlib import Path

from .harness import INV, Bench, new_project
from .listeners import training_python
from .measure import run

ROUNDS, CHILDREN = 10, 200
#: Starts children one after the other, and prints the time.
MANY = """\
import subprocess, sys, time
started = time.perf_counter()
for number in range(int(sys.argv[1])):
    subprocess.run([sys.executable, "child.py"], check=True)
print("took", time.perf_counter() - started)
"""


def main(bench: Bench) -> None:
    """Measure a step that starts many short child processes while no debugger is attached."""
    count = 10 if bench.quick else CHILDREN
    with tempfile.TemporaryDirectory(prefix="azureml-debug-bench-") as folder:
        project = new_project(Path(folder), {"work/many.py": MANY, "work/child.py": "made = 42\n"})
        (project / "pipeline.yml").write_text(
            "type: pipeline\njobs:\n  work:\n    code: ./work\n    environment: azureml:any@latest\n"
            f"    command: python many.py {count}\n"
        )
        environ = {"AML_ENGINE": "process", "AML_PIPELINE_FILE": "pipeline.yml", "AML_DEBUG_PORT": "0"}

        def took(text: str) -> float:
            return float(next(line for line in text.splitlines() if "took" in line).split()[-1])

        def ours(*flags: str) -> float:
            return took(run([*INV, "pipeline.submit", "--no-wait", "--follow", *flags], project, environ))

        found = bench.measure(
            ROUNDS,
            ours=ours,
            without=lambda: ours("--no-children"),
            bare=lambda: took(run([str(training_python()), "many.py", str(count)], project / "work")),
        )
    note = f"{count} children in each round, one after the other; nobody is attached"
    bench.ratio("a step that starts many children", "the bare script", found, 1.1, theirs="bare", note=note)
    bench.ratio("a step that starts many children", "the same with --no-children", found, None, theirs="without")
    each = [
        (with_us - bare) / count * 1000
        for with_us, bare in zip(found.values["ours"], found.values["bare"], strict=True)
    ]
    bench.figure("what the start of a child costs that nobody attends to", each, "ms", 20)
