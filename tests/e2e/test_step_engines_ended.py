"""Steps on each engine: how they are ended, in whatever state they are."""

from __future__ import annotations

import subprocess
import time
from dataclasses import replace

import pytest
from engine_steps import SLEEPS, Steps, ended
from projects import until

from workflows import engines

#: Seconds on a busy machine; about one on an idle one. `docker stop` takes ten.
WITHIN = 9
IGNORES = "import signal; signal.signal(signal.SIGTERM, signal.SIG_IGN); " + SLEEPS
STOPPED = "import os, signal; print('runs', flush=True); os.kill(os.getpid(), signal.SIGSTOP)"
ASKED = """
import os, signal, time
def asked(*_):
    time.sleep(0.2)
    print("asked", flush=True)
    os._exit(9)
signal.signal(signal.SIGTERM, asked)
print("runs", flush=True)
time.sleep(600)
"""


@pytest.mark.parametrize(
    ("script", "codes"),
    [(SLEEPS, {-15}), (IGNORES, {-9}), (STOPPED, {-15}), (ASKED, {9})],
    ids=["sleeping", "deaf", "stopped", "asked"],
)
def test_end_ends_whatever_state_a_step_is_in_within_seconds(steps: Steps, script: str, codes: set[int]) -> None:
    steps.write("train.py", script)
    process = steps.start("python train.py")
    steps.until_logged("runs")
    begin = time.monotonic()
    process.end()
    assert time.monotonic() - begin < WITHIN
    assert process.poll() in codes
    assert steps.left() == []
    process.end()  # once more does no harm


def test_end_asks_every_process_of_a_command_and_lets_no_later_part_of_it_begin(steps: Steps) -> None:
    steps.write("train.py", ASKED)
    process = steps.start("python train.py; echo later\necho latest")
    steps.until_logged("runs")
    process.end()
    assert "asked" in steps.log() and "late" not in steps.log()
    assert process.poll() not in (None, 0)


def test_end_reaches_children_in_sessions_of_their_own(steps: Steps) -> None:
    steps.write(
        "train.py",
        "import subprocess, sys, time\n"
        f"subprocess.Popen([sys.executable, '-c', {SLEEPS!r}], start_new_session=True)\n"
        "time.sleep(600)\n",
    )
    process = steps.start("python train.py")
    steps.until_logged("runs")
    process.end()
    assert steps.left() == []


def test_asking_a_step_costs_next_to_nothing(steps: Steps) -> None:
    steps.write("train.py", SLEEPS)
    begin = time.process_time()
    process = steps.start("python train.py")
    started = time.process_time()
    steps.until_logged("runs")
    asked = time.process_time()
    for _ in range(300):
        assert process.poll() is None
    # A tenth of what it has cost to start it once.
    assert time.process_time() - asked < started - begin
    process.end()


def test_end_run_ends_every_step_of_a_run_and_none_of_another(steps: Steps) -> None:
    steps.write("train.py", SLEEPS)
    steps.write("deaf.py", IGNORES)
    one = steps.spec
    other = replace(one, run_id=one.run_id + "-2", folder=one.folder.with_name("of another run"))
    steps.spec = replace(one, step="deaf", folder=one.folder.with_name("deaf"))
    deaf = steps.start("python deaf.py")
    steps.until_logged("runs")
    steps.spec = other
    kept = steps.start("python train.py")
    steps.until_logged("runs")
    steps.spec = one
    first = steps.start("python train.py")
    steps.until_logged("runs")
    begin = time.monotonic()
    # As a later command does: with an engine of its own that has started nothing.
    again = engines.load_steps(steps.engine.name)
    assert again.end_run(one.run_id)
    assert time.monotonic() - begin < WITHIN
    assert steps.left() == [] and kept.poll() is None
    assert ended(first) == -15 and ended(deaf) == -9
    assert not again.end_run(one.run_id)
    assert again.end_run(other.run_id) and ended(kept) == -15


@pytest.mark.parametrize("engine", ["docker"], indirect=True)
def test_a_container_that_somebody_else_pauses_or_removes_does_not_hang_a_run(steps: Steps) -> None:
    def container() -> str:
        found = ["docker", "ps", "-q", "--filter", f"label=azureml-debug.run={steps.spec.run_id}"]
        return subprocess.run(found, check=True, capture_output=True, text=True).stdout.strip()

    steps.write("train.py", SLEEPS)
    process = steps.start("python train.py")
    steps.until_logged("runs")
    subprocess.run(["docker", "pause", container()], check=True, capture_output=True)
    begin = time.monotonic()
    assert steps.engine.end_run(steps.spec.run_id)
    assert time.monotonic() - begin < WITHIN and ended(process) in (-15, -9)
    process = steps.start("python train.py")
    until(lambda: steps.log().count("runs") == 2, "the second start")
    subprocess.run(["docker", "rm", "-f", container()], check=True, capture_output=True)
    assert ended(process) == -9
