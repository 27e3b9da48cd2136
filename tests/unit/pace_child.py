"""What tests/unit/test_pace.py debugs: started as ``python pace_child.py KIND SEED``.

With the kind ``bare`` it listens through debugpy alone; otherwise through the gate.
"""

from __future__ import annotations

import _thread
import json
import os
import random
import sys
import threading
import time
from typing import Any


def listen(kind: str) -> None:
    if kind != "bare":
        import debuggee_child

        debuggee_child.load().start()
        return
    import debugpy

    os.environ["PYDEVD_DISABLE_FILE_VALIDATION"] = "1"
    host, port = debugpy.listen(("127.0.0.1", 0))
    with open(os.environ["AZUREML_DEBUGGEE_EVENTS"], "a", encoding="utf-8") as events:
        events.write(json.dumps({"event": "listening", "host": host, "port": port}) + "\n")


def step(number: int) -> int:
    following = number + 1  # LINE step
    after = following + 1
    return after


def work(moments: random.Random, naps: float) -> None:
    """Comes to the breakpoint out of the middle of a call of C code, at any moment."""
    while True:
        time.sleep(moments.random() ** 3 * naps)
        seen = naps  # LINE work
        del seen


def fork() -> None:
    child = os.fork()  # LINE forks
    if not child:
        os._exit(0)
    os.waitpid(child, 0)
    ended = child  # LINE forked
    del ended


#: How often :func:`fork_on` has forked.
forks = [0]


def fork_on() -> None:
    """Fork again and again, with no breakpoint on the way."""
    while True:
        child = os.fork()
        if not child:
            os._exit(0)
        os.waitpid(child, 0)
        forks[0] += 1


def arrive(name: str) -> str:
    passed = name  # LINE arrive
    return passed


def main(kind: str, seed: str) -> None:
    if kind == "late":
        # Before anybody can attach, which imports it, too.
        import debugpy.server.api  # noqa: F401
    listen(kind)
    if kind in ("race", "fork"):
        for number in range(8 if kind == "race" else 4):
            moments = random.Random(f"{seed}/{number}")
            naps = 0.01 if number % 2 else 0.2
            threading.Thread(target=work, args=(moments, naps), daemon=True).start()
    for _ in range(3):
        threading.Thread(target=time.sleep, args=(1e5,), daemon=True).start()
    if kind == "late":
        be_late()
    if kind == "forks-beside":
        threading.Thread(target=fork_on, daemon=True).start()
    if kind == "forks-beside-bare":
        # A thread that Python's threading module knows nothing of.
        _thread.start_new_thread(fork_on, ())
    last = 0
    while kind != "race":
        last = step(last)
        time.sleep(0.002)
        if kind == "fork":
            fork()
    time.sleep(1e5)


def be_late() -> None:
    """Two threads reach a breakpoint at the same moment, and one of them pauses only after the program was resumed."""
    import pydevd

    stop, pause = pydevd.PyDB.set_suspend, pydevd.PyDB.do_wait_suspend
    reached, is_there, resumed = threading.Event(), threading.Event(), threading.Event()

    def set_suspend(self: Any, thread: Any, *arguments: Any, **keywords: Any) -> Any:
        if thread is threading.main_thread() and not reached.is_set():
            reached.set()
            is_there.wait(30)
        return stop(self, thread, *arguments, **keywords)

    def do_wait_suspend(self: Any, thread: Any, *arguments: Any, **keywords: Any) -> Any:
        if thread.name == "late" and not resumed.is_set():
            is_there.set()
            resumed.wait(30)
        return pause(self, thread, *arguments, **keywords)

    def arrive_later() -> None:
        reached.wait()
        arrive("late")

    pydevd.PyDB.set_suspend, pydevd.PyDB.do_wait_suspend = set_suspend, do_wait_suspend
    late = threading.Thread(target=arrive_later, name="late", daemon=True)
    late.start()
    while not pydevd._is_attached():
        time.sleep(0.01)
    arrive("early")
    resumed.set()
    late.join()
    print("both have gone on", flush=True)
    time.sleep(1e5)


if __name__ == "__main__":
    main(*sys.argv[1:])
