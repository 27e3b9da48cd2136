"""Has a process of `ready` start a command behind this one's own streams, and ends as that ends.

`python ready_relay.py SOCKET ARGUMENTS...`, for those who start a process themselves; standard library only.
"""

from __future__ import annotations

import array
import json
import os
import signal
import socket
import struct
import sys

#: The signals that the command gets.
ENDING = (signal.SIGINT, signal.SIGTERM)


def main() -> int:
    """Ask for it, and wait."""
    told, tells = os.pipe()
    # One that comes before anybody is there to be told waits.
    signal.pthread_sigmask(signal.SIG_BLOCK, ENDING)
    place, *arguments = sys.argv[1:]
    wanted = json.dumps({"arguments": arguments, "folder": os.getcwd(), "environ": dict(os.environ)}).encode()
    with socket.socket(socket.AF_UNIX) as ready:
        ready.connect(place)
        handed = array.array("i", [0, 1, 2, tells])
        ready.sendmsg([struct.pack("!I", len(wanted))], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, handed)])
        ready.sendall(wanted)
    os.close(tells)
    pid = struct.unpack("!q", os.read(told, 8))[0]
    # The pipes' other ends see the command's end, not this one's.
    for stream in (0, 1):
        os.close(stream)
    for number in ENDING:
        signal.signal(number, lambda number, _: os.kill(pid, number))
    signal.pthread_sigmask(signal.SIG_UNBLOCK, ENDING)
    code = os.waitstatus_to_exitcode(struct.unpack("!q", os.read(told, 8))[0])
    return code if code >= 0 else 128 - code


if __name__ == "__main__":
    sys.exit(main())
