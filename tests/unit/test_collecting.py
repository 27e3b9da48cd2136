"""Looking at all threads' frames, as pydevd does at each stop, hangs no program."""

from __future__ import annotations

from pathlib import Path

from debuggee_harness import CHILD, EVERY, Child, stopped
from step_harness import version

#: Collects garbage at almost every allocation, with something that lets other threads run, while threads end; and asks
#: for the frames as often as that takes on Python 3.11 before 3.11.9.
BUSY = """
import gc, sys, threading, time, warnings
from _pydevd_bundle.pydevd_constants import _current_frames

class Cycle:
    pass

def rest():
    time.sleep(0)

def idle():
    while going:
        rest()

def make():
    while going:
        for _ in range(20):
            cycle = Cycle()
            cycle.itself, cycle.file = cycle, open("/dev/null")
        threading.Thread(target=int).start()

def work(seconds):
    global going
    warnings.simplefilter("ignore")
    going, count, end = True, 0, time.monotonic() + seconds
    sys.setswitchinterval(1e-6)
    gc.set_threshold(5, 1000, 1000)
    threads = [threading.Thread(target=target, daemon=True) for target in [idle] * 8 + [make] * 3]
    for thread in threads:
        thread.start()
    while time.monotonic() < end:
        _current_frames(), sys._current_frames()
        count += 1
    going = False
    gc.set_threshold(700, 10, 10)
    sys.setswitchinterval(0.005)
    for thread in threads:
        thread.join()
    return count > 0 and gc.isenabled()
"""


@EVERY
def test_a_program_whose_threads_end_while_their_frames_are_looked_at_goes_on(python: str, tmp_path: Path) -> None:
    (tmp_path / "busy.py").write_text(BUSY)
    with Child(tmp_path, python, variables={"PYTHONPATH": f"{CHILD.parent}:{tmp_path}"}) as child:
        with child.attached("tick") as client:
            stopped(client)
        # As often as that takes where it was ever seen.
        seconds = 5 if version(python).startswith("3.11.") else 1
        assert child.ask(f"__import__('busy').work({seconds})") is True


@EVERY
def test_a_program_that_collects_no_garbage_collects_none_afterwards(python: str, tmp_path: Path) -> None:
    with Child(tmp_path, python) as child:
        child.ask("__import__('gc').disable()")
        with child.attached("tick") as client:
            stopped(client)
        assert child.ask("__import__('gc').isenabled()") is False
