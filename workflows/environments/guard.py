"""Runs a command that ends when its parent program does, even if that is killed.

It is run by path, with the standard library only: ``python guard.py GRACE COMMAND [ARGUMENT]…``. Its standard input is
a pipe that the parent holds open and never writes to. When the pipe closes (because the parent closed it or was killed)
the command's process group gets SIGTERM, and SIGKILL after GRACE seconds. Otherwise a pip that is left behind would go
on writing into an environment that the next program is already building again.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time


def _end(child: subprocess.Popen[bytes], grace: float) -> None:
    while os.read(0, 4096):
        pass
    if sys.platform == "win32":
        child.kill()
        os._exit(1)
    if grace > 0:
        os.killpg(0, signal.SIGTERM)
        until = time.monotonic() + grace
        while child.poll() is None and time.monotonic() < until:
            time.sleep(0.02)
    os.killpg(0, signal.SIGKILL)


def main() -> int:
    """Run the command given on the command line and return its exit code."""
    grace, command = float(sys.argv[1]), sys.argv[2:]
    # A handler rather than SIG_IGN, which the command would inherit: the group's SIGTERM is meant for the command.
    signal.signal(signal.SIGTERM, lambda *_: None)
    child = subprocess.Popen(command, stdin=subprocess.DEVNULL)
    threading.Thread(target=_end, args=(child, grace), daemon=True).start()
    code = child.wait()
    return code if code >= 0 else 128 - code


if __name__ == "__main__":
    sys.exit(main())
