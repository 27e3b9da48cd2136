"""Programs that gevent patches are debugged as others are."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from debuggee_harness import LIMIT, evaluate, line_of, resume, stopped
from step_harness import Step

PATCHED = """
    from gevent import monkey
    monkey.patch_all()
    import os, threading, time
    import gevent
    print("GEVENT_SUPPORT" in os.environ, flush=True)
    def work(number):
        twice = number * 2
        return twice  # LINE work
    def turn(number):
        while True:
            work(number)
            time.sleep(0.01)
    threading.Thread(target=turn, args=(9,)).start()
    gevent.joinall([gevent.spawn(turn, number) for number in range(3)])
"""


@pytest.fixture(scope="session")
def gevent(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with gevent, for the import path."""
    folder = tmp_path_factory.mktemp("gevent")
    # The tests' own environment has none: with it there, all others would be tried with gevent alone.
    install = [sys.executable, "-m", "pip", "install", "-q", "--target", str(folder), "gevent"]
    subprocess.run(install, check=True, timeout=LIMIT * 3)
    return folder


@pytest.mark.parametrize("wait", ["1", "0"])
def test_a_program_that_gevent_patches_stops_steps_and_is_attached_to_again(
    wait: str, gevent: Path, tmp_path: Path
) -> None:
    with Step(tmp_path, "{python} train.py", source=PATCHED, WAIT=wait, PATHS=str(gevent)) as step:
        if wait == "1":
            step.event("waiting")
        else:
            step.said("False")
        for _ in range(2):
            with step.attached("work", file=step.script) as client:
                name, line, thread = stopped(client)
                assert (name, line) == ("work", line_of("work", step.script))
                assert int(evaluate(client, thread, "twice")) in (0, 2, 4, 18)
                for _ in range(3):
                    client.request("next", {"threadId": thread}, LIMIT)
                    _name, _line, thread = stopped(client)
                client.set_breakpoints(str(step.script), [], LIMIT)
                resume(client, thread)
        assert "False" in step.lines
        assert "GEVENT_SUPPORT" not in step.errors()
