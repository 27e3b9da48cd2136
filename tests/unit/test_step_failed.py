"""The debuggee in a pipeline step that fails: its frames are shown, and it ends as it would have."""

from __future__ import annotations

import contextlib
import shlex
import signal
from pathlib import Path

import pytest
from debuggee_harness import (
    BOTH,
    EVERY,
    LIMIT,
    Mortal,
    evaluate,
    free_port,
    leave,
    line_of,
    over,
    reset,
    resume,
    stopped,
    until,
)
from step_harness import NO_LATE_THREADS, ON_ERROR, Step, version

from workflows.debuggee import FOLDER
from workflows.debugger.dap import DapClient, DapClosed

# After the fact -------------------------------------------------------------------------------------

RAISES = """
    import sys, threading
    def outer():
        inner("given")
    def inner(argument):
        local = argument + " and local"
        raise ValueError("it went wrong")  # LINE raise
    if __name__ == "__main__":
        way = sys.argv[1] if len(sys.argv) > 1 else ""
        if way == "hook":
            sys.excepthook = lambda *_: print("theirs", flush=True)
        if way == "thread":
            thread = threading.Thread(target=outer)
            thread.start()
            thread.join()
            print("main goes on", flush=True)
            sys.exit(3)
        if way in ("exit", "quit"):
            import logging
            try:
                outer()
            except Exception:
                logging.exception("it is told here")
                sys.exit(5) if way == "exit" else quit(5)
        if way == "task":
            import asyncio
            async def fail():
                outer()
            async def main():
                task = asyncio.create_task(fail())
                await asyncio.sleep(0.1)
                del task
            asyncio.run(main())
            print("main goes on", flush=True)
            sys.exit(3)
        if way in ("fork", "spawn", "forkserver"):
            import multiprocessing
            process = multiprocessing.get_context(way).Process(target=outer)
            process.start()
            process.join()
            print("child:", process.exitcode, flush=True)
            sys.exit(4)
        outer()
"""


def has_groups(python: str) -> bool:
    """Whether a Python has groups of exceptions."""
    return tuple(map(int, version(python).split(".")[:2])) >= (3, 11)


def post_mortem(step: Step) -> tuple[DapClient, int]:
    """Attach to a step that has raised; the client, stopped, and its thread."""
    raised = step.event("raised")
    place = (raised["type"], raised["message"], raised["file"], raised["line"])
    assert place == ("ValueError", "it went wrong", str(step.script), line_of("raise", step.script))
    step.said(f"debug_port: {step.port}")
    assert step.lines[-3:] == ["Timeout for debug connection: 300", "ip_address: 127.0.0.1", f"debug_port: {step.port}"]
    client = DapClient.connect("127.0.0.1", step.port, LIMIT)
    client.attach(timeout=LIMIT)
    event = client.wait_event("stopped", LIMIT)
    assert event.body["reason"] == "exception"
    thread = int(event.body["threadId"])
    frames = client.request("stackTrace", {"threadId": thread}, LIMIT)["stackFrames"]
    assert [frame["name"] for frame in frames[:2]] == ["inner", "outer"]
    assert frames[0]["line"] == line_of("raise", step.script)
    assert evaluate(client, thread, "local") == "'given and local'"
    return client, thread


@over(
    "start, status",
    [
        ("{python} $PWD/train.py", 1),
        ("{python} -m train", 1),
        ("{python} -I {launcher} $PWD/train.py", 1),
        ("{python} $PWD/train.py hook", 1),
        ("{python} $PWD/train.py thread", 3),
        ("{python} $PWD/train.py exit", 5),
        ("{python} $PWD/train.py quit", 5),
        ("{python} $PWD/train.py task", 3),
        ("{python} $PWD/train.py fork", 4),
        ("{python} $PWD/train.py spawn", 4),
        ("{python} $PWD/train.py forkserver", 4),
    ],
)
def test_a_step_that_fails_shows_its_frames_and_ends_as_it_would_have(
    python: str, start: str, status: int, tmp_path: Path
) -> None:
    with Step(tmp_path, start, python, RAISES, **ON_ERROR) as step:
        if "hook" in start and version(python) in NO_LATE_THREADS:
            # No thread can be started there any more, so no gate.
            assert step.event("raised") and step.event("gate-failed") and step.ended() == status
            return
        client, thread = post_mortem(step)
        if "hook" in start:
            assert step.lines[0] == "theirs"
        else:
            assert step.errors().endswith("ValueError: it went wrong")
            assert "azureml_debuggee" not in step.errors() and "inject" not in step.errors()
        # It may end before the answer is here.
        with contextlib.suppress(DapClosed):
            resume(client, thread)
        assert step.ended() == status
        client.close()
        assert "Debugger attached = True" in step.lines
        if "thread" in start or "task" in start:
            assert step.lines[-1] == "main goes on"
        if status == 4:
            assert step.lines[-1] == "child: 1"


@EVERY
def test_each_exception_of_a_group_is_shown_with_its_own_frames(python: str, tmp_path: Path) -> None:
    if not has_groups(python):
        pytest.skip("there are no groups of exceptions before Python 3.11")
    source = """
        import asyncio
        async def fail(number):
            local = number + 1
            await asyncio.sleep(0.1)
            raise ValueError(local)  # LINE raise
        async def main():
            async with asyncio.TaskGroup() as group:
                for number in range(2):
                    group.create_task(fail(number))
        asyncio.run(main())
    """
    with Step(tmp_path, "{python} train.py", python, source, **ON_ERROR) as step:
        assert step.event("raised")["type"] == "ExceptionGroup"
        step.event("waiting")
        with DapClient.connect("127.0.0.1", step.port, LIMIT) as client:
            client.attach(timeout=LIMIT)
            seen: list[tuple[object, ...]] = []
            for _ in range(3):
                name, line, thread = stopped(client)
                # pydevd adds "(Current frame)" to some.
                name = name.split(" ")[0]
                seen.append((name, line == line_of("raise", step.script)))
                if name == "fail":
                    seen[-1] += (evaluate(client, thread, "local"),)
                # It may end before the answer is here.
                with contextlib.suppress(DapClosed):
                    resume(client, thread)
            assert seen == [("main", False), ("fail", True, "1"), ("fail", True, "2")]
        assert step.ended() == 1


@pytest.mark.parametrize(
    "source",
    [
        "import sys\ntry:\n    1 / 0\nexcept ZeroDivisionError:\n    sys.exit(0)\n",
        "import sys\ntry:\n    1 / 0\nexcept ZeroDivisionError:\n    pass\nsys.exit(3)\n",
        "import sys\ntry:\n    raise KeyboardInterrupt\nexcept KeyboardInterrupt:\n    sys.exit(130)\n",
        "import argparse as a\np = a.ArgumentParser()\np.add_argument('x', type=int)\np.parse_args(['y'])\n",
        "import argparse\nargparse.ArgumentParser().parse_args(['--none'])\n",
    ],
)
def test_what_a_program_goes_on_from_or_says_of_its_usage_is_not_held(source: str, tmp_path: Path) -> None:
    with Step(tmp_path, "{python} $PWD/train.py", source=source, **ON_ERROR) as step:
        assert step.ended() in (0, 2, 3, 130)
        assert step.events("raised") == []


def test_a_failed_child_is_shown_while_its_main_thread_is_alive(tmp_path: Path) -> None:
    # pydevd takes a thread that has ended for dead, and can block on it.
    with Step(tmp_path, "{python} $PWD/train.py fork", source=RAISES, **ON_ERROR) as step:
        client, thread = post_mortem(step)
        alive = "__import__('threading').main_thread().is_alive()"
        assert evaluate(client, thread, alive) == "True"
        current = "__import__('threading').current_thread().name"
        assert evaluate(client, thread, current) == "'MainThread'"
        client.disconnect(timeout=LIMIT)
        assert step.ended() == 4
        assert step.errors().count("ValueError: it went wrong") == 1


@BOTH
def test_a_child_of_a_child_that_multiprocessing_starts_anew_is_watched_too(python: str, tmp_path: Path) -> None:
    source = """
        import multiprocessing
        def fail(number):
            local = number + 1
            raise ValueError(local)  # LINE raise
        def begin(method):
            process = multiprocessing.get_context(method).Process(target=fail, args=(1,))
            process.start()
            process.join()
            print("grandchild:", process.exitcode, flush=True)
        if __name__ == "__main__":
            process = multiprocessing.get_context("forkserver").Process(target=begin, args=("spawn",))
            process.start()
            process.join()
            print("child:", process.exitcode, flush=True)
    """
    with Step(tmp_path, "{python} $PWD/train.py", python, source, **ON_ERROR) as step:
        step.event("waiting")
        with step.attached(file=step.script) as client:
            _name, line, thread = stopped(client)
            assert line == line_of("raise", step.script) and evaluate(client, thread, "local") == "2"
        assert step.ended() == 0
        assert step.lines[-2:] == ["grandchild: 1", "child: 0"]
        assert "azureml_debuggee" not in step.errors()


@over("method", ["spawn", "forkserver"])
def test_of_failed_children_one_is_shown_and_the_others_go_on(python: str, method: str, tmp_path: Path) -> None:
    source = f"""
        import multiprocessing
        def fail():
            raise ValueError
        if __name__ == "__main__":
            context = multiprocessing.get_context("{method}")
            processes = [context.Process(target=fail) for _ in range(3)]
            for process in processes: process.start()
            for process in processes: process.join()
            print([process.exitcode for process in processes], flush=True)
    """
    with Step(tmp_path, "{python} $PWD/train.py", python, source, PORT=str(free_port()), **ON_ERROR) as step:
        until(lambda: len(step.events("gate-failed")) == 2, "the others give way")
        (waiting,) = step.events("waiting")
        assert waiting["pid"] not in [event["pid"] for event in step.events("gate-failed")]
        with step.attached(file=step.script) as client:
            stopped(client)
        assert step.ended() == 0
        assert step.lines[-1] == "[1, 1, 1]"


@over("way", ["disconnect", "leave", "reset", "terminate"])
def test_a_debugger_that_leaves_a_failed_step_lets_it_end(python: str, way: str, tmp_path: Path) -> None:
    with Step(tmp_path, "{python} $PWD/train.py", python, RAISES, **ON_ERROR) as step:
        if way in ("disconnect", "terminate"):
            client, _thread = post_mortem(step)
            client.disconnect(terminate=way == "terminate", timeout=LIMIT)
        else:
            step.event("waiting")
            mortal = Mortal(step.port)
            mortal.client.attach(timeout=LIMIT)
            mortal.client.wait_event("stopped", LIMIT)
            mortal.die(leave if way == "leave" else reset)
        # One that ends the program races with the program, which has nothing left to do.
        assert step.ended() in ((0, 1) if way == "terminate" else (1,))


@BOTH
def test_a_debugger_that_leaves_before_the_stop_does_not_keep_the_step(python: str, tmp_path: Path) -> None:
    source = """
        import sys, time
        sys.path.insert(0, sys.argv[1])
        from azureml_debuggee import debugger
        stop = debugger.Debugger.stop_at_error
        def late(self, error):
            while self.is_attached():
                time.sleep(0.01)
            print("nobody is there", flush=True)
            stop(self, error)
        debugger.Debugger.stop_at_error = late
        raise ValueError
    """
    with Step(tmp_path, "{python} $PWD/train.py " + shlex.quote(FOLDER), python, source, **ON_ERROR) as step:
        step.event("waiting")
        with step.attached():
            pass
        step.said("nobody is there")
        assert step.ended() == 1


@EVERY
def test_a_failed_step_that_nobody_comes_for_ends_as_it_would_have(python: str, tmp_path: Path) -> None:
    with Step(tmp_path, "{python} $PWD/train.py", python, RAISES, TIMEOUT="0.2", **ON_ERROR) as step:
        assert step.ended() == 1
        step.said("Debugger attached = False")
        assert step.event("not-attached")


@over("how", ["sys.exit(5)", "raise KeyboardInterrupt", "os._exit(6)", "print('fine')"])
def test_a_step_that_ends_without_an_error_never_listens(python: str, how: str, tmp_path: Path) -> None:
    source = f"import os, sys\nassert 'debug' + 'py' not in sys.modules and 'socket' not in sys.modules\n{how}"
    with Step(tmp_path, "{python} train.py", python, source, **ON_ERROR) as step:
        step.ended()
        assert not step.events_file.exists()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_a_failed_step_even_if_it_took_it_for_a_note(number: signal.Signals, tmp_path: Path) -> None:
    source = "import signal\nsignal.signal(signal.SIGTERM, lambda *_: None)\nraise ValueError"
    with Step(tmp_path, "exec {python} train.py", source=source, **ON_ERROR) as step:
        step.event("waiting")
        step.process.send_signal(number)
        assert step.ended() == -number


def test_errors_in_two_threads_are_shown_one_after_the_other(tmp_path: Path) -> None:
    source = """
        import threading
        def fail(number):
            raise ValueError(number)  # LINE raise
        threads = [threading.Thread(target=fail, args=(number,)) for number in range(2)]
        for thread in threads: thread.start()
        for thread in threads: thread.join()
        print("over", flush=True)
    """
    with Step(tmp_path, "{python} train.py", source=source, **ON_ERROR) as step:
        step.event("waiting")
        with step.attached(file=step.script) as client:
            seen = set()
            for _ in range(2):
                _name, line, thread = stopped(client)
                assert line == line_of("raise", step.script)
                seen.add(evaluate(client, thread, "number"))
                resume(client, thread)
            assert seen == {"0", "1"}
        step.said("over")
        assert step.ended() == 0


def test_a_debugger_that_is_there_and_wants_uncaught_errors_is_stopped_once_for_each(tmp_path: Path) -> None:
    source = RAISES.replace('print("main goes on", flush=True)', "outer()")
    with Step(tmp_path, "{python} train.py thread", source=source, **ON_ERROR) as step:
        step.event("waiting")
        with DapClient.connect("127.0.0.1", step.port, LIMIT) as client:
            client.attach(exception_filters=["uncaught"], timeout=LIMIT)
            for _ in range(2):
                with contextlib.suppress(DapClosed):
                    resume(client, stopped(client)[2])
            assert step.ended() == 1
            assert not [event for event in client_events(client) if event == "stopped"]


def client_events(client: DapClient) -> list[str]:
    """The names of events that have come and not been waited for."""
    return [event.name for event in client._events]
