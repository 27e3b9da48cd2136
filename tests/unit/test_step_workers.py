"""The debuggee in a step whose child processes fail: the child's own frames are shown, not what the parent is told."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
from pathlib import Path

import pytest
from debuggee_harness import LIMIT, evaluate, free_port, line_of, over, resume, stopped
from step_harness import ON_ERROR, Step

from workflows.debugger.dap import DapClient, DapClosed, DapError

TASK = """
import sys
def task(number):
    local = number + 1
    raise ValueError("it went wrong with %d" % local)  # LINE raise
"""
POOL = """
if __name__ == "__main__":
    import multiprocessing
    with multiprocessing.get_context({method!r}).Pool(2) as pool:
        pool.map(task, [1])
"""
EXECUTOR = """
if __name__ == "__main__":
    import multiprocessing
    from concurrent.futures import ProcessPoolExecutor
    with ProcessPoolExecutor(2, mp_context=multiprocessing.get_context({method!r})) as pool:
        list(pool.map(task, [1]))
"""
#: What starts a child that fails, by what multiprocessing calls the child, and the step's exit code.
PROGRAMS = {
    **{
        f"{kind} by {method}": (source.format(method=method), f"{called}{name}-", 1)
        for kind, source, name in (("a pool", POOL, "PoolWorker"), ("an executor", EXECUTOR, "Process"))
        for method, called in (("fork", "Fork"), ("spawn", "Spawn"), ("forkserver", "ForkServer"))
    },
    "a script": (
        """
if sys.argv[1:]:
    task(1)
import subprocess
sys.exit(subprocess.run([sys.executable, __file__, "child"]).returncode + 2)
""",
        "",
        3,
    ),
    "code": (
        """
if __name__ == "__main__":
    import os, subprocess
    environment = {"PATH": os.environ["PATH"]}
    sys.exit(subprocess.run([sys.executable, "-c", "import train; train.task(1)"], env=environment).returncode + 2)
""",
        "",
        3,
    ),
}
JOBLIB = """
if __name__ == "__main__":
    import joblib
    joblib.Parallel(n_jobs=2)(joblib.delayed(task)(number) for number in [1])
"""
LOADER = """
import torch.utils.data
class Data(torch.utils.data.Dataset):
    def __len__(self):
        return 4
    def __getitem__(self, number):
        return task(1)
if __name__ == "__main__":
    for batch in torch.utils.data.DataLoader(Data(), num_workers=1, multiprocessing_context="fork"):
        pass
"""
TORCH = os.environ.get("AZUREML_DEBUG_TEST_TORCH", "")


def see_the_child(step: Step, process: str, status: int) -> None:
    """The step holds once, in the child, whose own frames and variables are there; then it ends as it would have."""
    waiting, (raised,) = step.event("waiting"), step.events("raised")
    assert raised["message"] == "it went wrong with 2" and raised["line"] == line_of("raise", step.script)
    assert raised["pid"] == waiting["pid"] != step.process.pid and raised["process"].startswith(process)
    with DapClient.connect("127.0.0.1", step.port, LIMIT) as client:
        client.attach(timeout=LIMIT)
        name, line, thread = stopped(client)
        request = {"threadId": thread, "levels": 1}
        frame = client.request("stackTrace", request, LIMIT)["stackFrames"][0]
        assert frame["source"]["path"] == str(step.script)
        assert (name, line, evaluate(client, thread, "local")) == ("task", line_of("raise", step.script), "2")
        # An error in what is typed there is no further one.
        with pytest.raises(DapError, match="division by zero"):
            evaluate(client, thread, "[1 / 0 for _ in range(1)]")
        client.disconnect(timeout=LIMIT)
    assert step.ended() == status
    assert len(step.events("waiting")) == len(step.events("raised")) == 1
    assert "azureml_debuggee" not in step.errors()
    assert "ValueError: it went wrong with 2" in step.errors()


@over("how", PROGRAMS)
def test_an_error_in_a_child_is_shown_in_the_child(python: str, how: str, tmp_path: Path) -> None:
    source, process, status = PROGRAMS[how]
    with Step(tmp_path, "exec {python} train.py", python, TASK + source, CHILDREN="1", **ON_ERROR) as step:
        see_the_child(step, process, status)


def test_an_error_in_a_worker_of_joblib_is_shown_there(tmp_path: Path) -> None:
    packages = tmp_path / "packages"
    install = [sys.executable, "-m", "pip", "install", "-q", "--target", str(packages), "joblib"]
    subprocess.run(install, check=True, timeout=LIMIT * 3)
    more = {"PATHS": str(packages), "CHILDREN": "1", **ON_ERROR}
    with Step(tmp_path / "step", "exec {python} train.py", source=TASK + JOBLIB, **more) as step:
        # The function comes by value; Python knows no file of its code.
        see_the_child(step, "LokyProcess-", 1)


@pytest.mark.skipif(not TORCH, reason="AZUREML_DEBUG_TEST_TORCH names no Python with torch and debugpy")
def test_an_error_in_a_worker_of_torchs_loader_is_shown_there(tmp_path: Path) -> None:
    source = TASK + LOADER
    with Step(
        tmp_path, "exec {python} train.py", TORCH, source, CHILDREN="1", PORT=str(free_port()), **ON_ERROR
    ) as step:
        see_the_child(step, "ForkProcess-", 1)


def test_workers_whose_errors_the_program_takes_do_not_keep_it_waiting(tmp_path: Path) -> None:
    source = """
if __name__ == "__main__":
    import multiprocessing
    for _ in range(3):
        with multiprocessing.Pool(1) as pool:
            for number in range(3):
                try:
                    pool.apply(task, [number])
                except ValueError as error:
                    print("taken:", error, flush=True)
"""
    more = {"TIMEOUT": "0.5", "CHILDREN": "1", **ON_ERROR}
    with Step(tmp_path, "{python} train.py", source=TASK + source, **more) as step:
        assert step.ended() == 0
        # Once, in vain.
        assert len(step.events("waiting")) == len(step.events("not-attached")) == 1
        assert [line for line in step.lines if "taken" in line] == [
            f"taken: it went wrong with {n}" for n in (1, 2, 3)
        ] * 3


def test_a_debugger_that_stays_sees_every_error_of_its_worker(tmp_path: Path) -> None:
    source = """
if __name__ == "__main__":
    import multiprocessing
    with multiprocessing.Pool(1) as pool:
        for number in range(3):
            try:
                pool.apply(task, [number])
            except ValueError:
                pass
"""
    with Step(tmp_path, "{python} train.py", source=TASK + source, CHILDREN="1", **ON_ERROR) as step:
        step.event("waiting")
        with DapClient.connect("127.0.0.1", step.port, LIMIT) as client:
            client.attach(timeout=LIMIT)
            for number in (1, 2, 3):
                _name, line, thread = stopped(client)
                assert (line, evaluate(client, thread, "local")) == (line_of("raise", step.script), str(number))
                # The pool is ended with its workers.
                with contextlib.suppress(DapClosed):
                    resume(client, thread)
            assert step.ended() == 0
            with contextlib.suppress(DapError):
                client.disconnect(timeout=LIMIT)


@pytest.mark.parametrize(
    "source",
    [
        # The person's own function takes it, in the worker or below the child's first frame.
        "import traceback\ndef take(number):\n    try:\n        task(number)\n    except ValueError:\n"
        "        return traceback.format_exc()\n"
        "if __name__ == '__main__':\n    import multiprocessing\n    print(multiprocessing.Pool(1).apply(take, [1]))\n",
        "import logging, os\nif os.fork() == 0:\n    try:\n        task(1)\n    except ValueError:\n"
        "        logging.exception('taken')\n    os._exit(0)\nos.wait()\n",
        # Others' programs, in which none of the person's code runs.
        "import subprocess\nsubprocess.run([sys.executable, '-c', 'import nothing'])\n",
        "import subprocess\nsubprocess.run([sys.executable, '-m', 'json.tool', 'nothing.json'])\n",
    ],
)
def test_what_a_child_goes_on_from_or_a_tool_raises_is_not_held(source: str, tmp_path: Path) -> None:
    with Step(tmp_path, "{python} train.py", source=TASK + source, CHILDREN="1", **ON_ERROR) as step:
        assert step.ended() == 0
        assert step.events("raised") == step.events("gate-failed") == []


def test_without_children_a_child_that_fails_is_a_plain_process(tmp_path: Path) -> None:
    source, _process, status = PROGRAMS["a script"]
    with Step(tmp_path, "{python} train.py", source=TASK + source, CHILDREN="0", **ON_ERROR) as step:
        assert step.ended() == status
        assert step.events("raised") == []
