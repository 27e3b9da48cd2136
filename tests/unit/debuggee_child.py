"""What runs in the debugged child: loads the debuggee by its place, then does as it is told.

Started as ``python debuggee_child.py`` by the tests, in interpreters that have nothing of this
project. Each line of standard input is a Python statement or expression; the answer is a line that
begins with ``= ``. Between two of them the main thread goes on calling ``tick``.
"""

from __future__ import annotations

import importlib.util
import os
import queue
import sys
import threading
import time
import traceback
from typing import Any


def load(name: str = "azureml_debuggee") -> Any:
    """The debuggee's package, imported as gunicorn_conf.py does."""
    package = os.path.join(os.environ["DEBUGGEE_FOLDER"], name)
    spec = importlib.util.spec_from_file_location(
        name, os.path.join(package, "__init__.py"), submodule_search_locations=[package]
    )
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    spec.loader.exec_module(module)
    return importlib.import_module(name + ".session")


def tick(number: int) -> int:
    doubled = number * 2
    return doubled  # LINE tick


def pause() -> str:
    import debugpy

    before = "before"
    debugpy.breakpoint()
    after = before + ", after"  # LINE after debugpy.breakpoint
    return after


def pause_by_builtin() -> str:
    before = "before"
    breakpoint()
    after = before + ", after"  # LINE after breakpoint
    return after


class Spinner(threading.Thread):
    """A thread of the program's: counts, and looks at its own trace function."""

    def __init__(self) -> None:
        super().__init__(daemon=True)
        self.rounds = 0
        self.traced = False

    def run(self) -> None:
        while True:
            self.step()
            time.sleep(0.005)

    def step(self) -> None:
        self.traced = sys.gettrace() is not None
        self.rounds += 1  # LINE spinner


def traced() -> list[str]:
    """The threads that carry a trace function, new ones included. Empty is full speed up to 3.11."""
    late = Spinner()
    late.start()
    threads = [*spinners, late]
    seen = [spinner.rounds for spinner in threads]
    while any(spinner.rounds < rounds + 2 for spinner, rounds in zip(threads, seen, strict=True)):
        time.sleep(0.005)
    found = ["spinner" for spinner in threads if spinner.traced]
    if sys.gettrace() is not None:
        found.append("main")
    return found


def threads() -> int:
    """How many there are; pydevd hides some from the threading module."""
    return len(os.listdir("/proc/self/task"))


def descriptors() -> int:
    return len(os.listdir("/proc/self/fd"))


def megabytes() -> float:
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * 4096 / 1e6


spinners: list[Spinner] = []
session: Any = None


def obey() -> None:
    """Do what comes on standard input, and tick meanwhile."""
    lines: queue.Queue[str] = queue.Queue()

    def read() -> None:
        # Not sys.stdin: multiprocessing's forks close that, and would wait for this thread's lock.
        with open(0, encoding="utf-8", closefd=False) as told:
            for line in told:
                lines.put(line)
        lines.put("os._exit(0)")

    threading.Thread(target=read, daemon=True).start()
    number = 0
    while True:
        number += 1
        tick(number)
        try:
            line = lines.get(timeout=0.005)
        except queue.Empty:
            continue
        answer: Any = None
        try:
            try:
                code = compile(line.strip(), "<told>", "eval")
            except SyntaxError:
                exec(compile(line, "<told>", "exec"), globals())
            else:
                answer = eval(code, globals())
        except Exception:
            answer = traceback.format_exc()
        sys.stdout.write("= " + repr(answer) + "\n")
        sys.stdout.flush()


if __name__ == "__main__":
    session = load().start()
    if session.holds_at_start:
        session.hold()
    for _ in range(2):
        spinners.append(Spinner())
        spinners[-1].start()
    obey()
