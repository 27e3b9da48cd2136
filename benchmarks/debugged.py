"""What debugger.py debugs: ``python debugged.py`` as an experiment, or ``python debugged.py FILE`` with bare debugpy.

With a file it calls debugpy.listen at the first line of standard input, as the published instructions have a script
begin, and writes into the file where that is.
"""

from __future__ import annotations

import os
import sys
import threading
import time


def step(number: int) -> int:
    """Where the breakpoint is."""
    following = number + 1  # LINE step
    after = following + 1
    return after


def listen(file: str) -> None:
    """Begin with bare debugpy, once told to."""
    os.environ["PYDEVD_DISABLE_FILE_VALIDATION"] = "1"
    sys.stdin.readline()
    import debugpy

    _host, port = debugpy.listen(("127.0.0.1", 0))
    with open(file + ".part", "w") as written:
        written.write(str(port))
    os.replace(file + ".part", file)


def main() -> None:
    """Call `step` again and again, as a program does that has some threads which do nothing."""
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
