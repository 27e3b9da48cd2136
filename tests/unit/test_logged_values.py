"""Values that are logged without a stop, in a step and in what it starts, with every Python."""

from __future__ import annotations

import textwrap
from pathlib import Path

from debuggee_harness import BOTH, LIMIT, line_of
from step_harness import Step, debugpy_of

from workflows.debugger.locations import Condition
from workflows.debugger.sessions import Breakpoint, DebugSession
from workflows.models import DebugEndpoint

SOURCE = """
    import multiprocessing, os, sys, time

    def work(number):
        double = number * 2
        return double  # LINE passed

    if __name__ == "__main__":
        for number in range(1000):
            work(number)
        with multiprocessing.get_context("spawn").Pool(1) as pool:
            pool.map(work, range(5000, 5003), chunksize=3)
            # What is killed at once may not have told all.
            time.sleep(1)
        pid = os.fork()
        if not pid:
            work(7000)
            time.sleep(1)
            os._exit(0)
        os.waitpid(pid, 0)
        sys.exit(0)
    """


@BOTH
def test_every_value_comes_once_with_the_process_that_it_is_of(python: str, tmp_path: Path) -> None:
    more = {"WAIT": "1", "CHILDREN": "1", "TIMEOUT": "60", "DEBUGPY": debugpy_of(python)}
    with Step(tmp_path, "{python} train.py", python, textwrap.dedent(SOURCE), **more) as step:
        place = Breakpoint(str(step.script), line_of("passed", step.script), Condition("number % 2 == 0"), "double")
        with DebugSession(DebugEndpoint("127.0.0.1", step.port, ()), breakpoints=[place], timeout=LIMIT) as session:
            own: list[int] = []
            others: dict[int, list[int]] = {}
            while (happening := session.wait(LIMIT)) is not None and happening.kind != "ended":
                if happening.kind == "logged" and happening.child is None:
                    own.append(int(happening.text))
                elif happening.kind == "logged" and happening.child is not None:
                    others.setdefault(happening.child, []).append(int(happening.text))
        assert own == [2 * number for number in range(0, 1000, 2)]
        assert sorted(others.values()) == [[10000, 10004], [14000]]
        assert step.ended() == 0
