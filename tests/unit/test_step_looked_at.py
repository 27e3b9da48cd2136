"""A step that holds at an exception, looked at as often as one likes."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
from debuggee_harness import line_of, over, until
from step_harness import Step

from workflows.debugger.inspect_exceptions import HoldInspection, inspect_hold
from workflows.models import DebugEndpoint, PathMapping

FAILS = """
    def divide(number):
        zero = number - number
        return number / zero  # LINE raised

    def call(number):
        kept = number + 1
        return divide(number)  # LINE called

    call(7)
"""
THREAD = "\n    import threading\n" + FAILS.replace(
    "    call(7)", "    thread = threading.Thread(target=call, args=(7,))\n    thread.start()\n    thread.join()"
)
GROUP = """
    import asyncio

    async def first():
        raise ValueError

    async def second():
        local = 7
        raise KeyError  # LINE second

    async def main():
        async with asyncio.TaskGroup() as group:
            group.create_task(first())
            group.create_task(second())

    asyncio.run(main())
"""


def holds(step: Step, times: int) -> None:
    until(lambda: len(step.events("waiting")) == times, f"hold number {times}")


def look(step: Step, mark: str = "", *expressions: str, release: bool = False) -> HoldInspection:
    endpoint = DebugEndpoint("127.0.0.1", step.port, (PathMapping(step.code, str(step.code)),))
    place = (step.script, line_of(mark, step.script)) if mark else None
    return inspect_hold(endpoint, place, expressions, 30, release=release)


@over("raises", ["main thread", "thread"])
def test_a_hold_is_looked_at_again_and_again_until_it_is_released(python: str, raises: str, tmp_path: Path) -> None:
    source = {"main thread": FAILS, "thread": THREAD}[raises]
    with Step(tmp_path, "{python} train.py", python, source, ON_ERROR="1") as step:
        for number in range(1, 4):
            holds(step, number)
            found = look(step, "", "number * 6")
            assert (found.holds, found.is_part, found.seen.stopped.function) == (True, True, "divide")
            assert found.seen.exception == {"type": "ZeroDivisionError", "message": "division by zero"}
            assert found.seen.locals["zero"] == "0" and found.seen.values == {"number * 6": "42"}
        holds(step, 4)
        # A line that is no part of it changes nothing; one that is has its own frame shown.
        found = inspect_hold(DebugEndpoint("127.0.0.1", step.port, ()), (step.script, 1), (), 30, release=True)
        assert (found.holds, found.is_part) == (True, False)
        holds(step, 5)
        found = look(step, "called", release=True)
        assert (found.holds, found.seen.stopped.function, found.seen.locals["kept"]) == (False, "call", "8")
        assert step.ended() == (0 if source is THREAD else 1), step.errors()
        assert "ZeroDivisionError" in step.errors()


@pytest.mark.skipif(sys.version_info < (3, 11), reason="groups of exceptions came with Python 3.11")
def test_a_group_is_looked_through_for_a_line_and_holds_on_where_none_has_it(tmp_path: Path) -> None:
    with Step(tmp_path, "{python} train.py", sys.executable, GROUP, ON_ERROR="1") as step:
        holds(step, 1)
        found = inspect_hold(DebugEndpoint("127.0.0.1", step.port, ()), (step.script, 1), (), 30, release=True)
        assert (found.holds, found.is_part) == (True, False)
        holds(step, 2)
        assert look(step).seen.exception is not None
        holds(step, 3)
        found = look(step, "second", release=True)
        assert (found.holds, found.seen.locals["local"]) == (False, "7")
        assert step.ended() == 1, step.errors()
