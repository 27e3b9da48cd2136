"""The program that debugger.py debugs, as an experiment or, with an argument FILE, with bare debugpy.

With FILE it calls debugpy.listen when the first line of standard input arrives, as a script does at its start in the
published instructions, and writes the port to FILE.
"""

from __future__ import annotations

import os
import sys
import threading
import time


def step(number: int) -> int:
    """The function with the breakpoint."""
    following = number + 1  # LINE step
    after = following + 1
    return after


def listen(file: str) -> None:
    """Start bare debugpy when a line arrives on standard input."""
    os.environ["PYDEVD_DISABLE_FILE_VALIDATION"] = "1"
    sys.stdin.readline()
    import debugpy

    _host, port = debugpy.listen(("127.0.0.1", 0))
    with open(file + ".part", "w") as written:
        written.write(str(port))
    os.replace(file + ".part", file)


def main() -> None:
    """Call `step` repeatedly, in a program with some idle threads."""
    if len(sys.argv) > 1:
        listen(sys.argv[1])
    for _ in range(3):
        threading.Thread(target=time.sleep, args=(1e5,), daemon=True).start()
    last = 0
    while True:
        last = step(last)
        time.sleep(0.002)


if __name__ == "__main__":
    main()
