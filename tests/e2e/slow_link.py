"""A program that is a slow, lossy link between two network namespaces: a TUN device in each, and every packet late.

Arguments: the device here, a process in the other namespace, the device there, milliseconds each way, the fraction
lost each way, the random numbers' seed. Ends when its input does, and the devices with it.
"""

from __future__ import annotations

import ctypes
import fcntl
import heapq
import os
import random
import select
import struct
import sys
import time

_TUNSETIFF = 0x400454CA
_IFF_TUN_NO_PI = 0x1001


def open_device(name: str) -> int:
    """A TUN device in this process's network namespace."""
    device = os.open("/dev/net/tun", os.O_RDWR | os.O_NONBLOCK)
    fcntl.ioctl(device, _TUNSETIFF, struct.pack("16sH22x", name.encode(), _IFF_TUN_NO_PI))
    return device


def enter_network(pid: int) -> None:
    """Go into a process's network namespace."""
    library = ctypes.CDLL(None, use_errno=True)
    namespace = os.open(f"/proc/{pid}/ns/net", os.O_RDONLY)
    if library.setns(namespace, 0) != 0:
        raise OSError(ctypes.get_errno(), "setns")
    os.close(namespace)


def carry(one: int, other: int, delay: float, loss: float, chance: random.Random) -> tuple[int, int]:
    """Carry packets both ways until the input ends; how many were carried, and lost."""
    late: list[tuple[float, int, int, bytes]] = []
    across = {one: other, other: one}
    count = lost = 0
    while True:
        wait = max(0.0, late[0][0] - time.monotonic()) if late else None
        ready, _, _ = select.select([one, other, 0], [], [], wait)
        if 0 in ready and not os.read(0, 1):
            return count - lost, lost
        now = time.monotonic()
        for device in ready:
            while device:
                try:
                    packet = os.read(device, 65536)
                except OSError:  # no more for now, or the device is down
                    break
                count += 1
                if chance.random() < loss:
                    lost += 1
                else:
                    heapq.heappush(late, (now + delay, count, across[device], packet))
        while late and late[0][0] <= time.monotonic():
            _, _, device, packet = heapq.heappop(late)
            try:
                os.write(device, packet)
            except OSError:  # the link is cut
                continue


def main() -> None:
    """Be the link."""
    here, pid, there, milliseconds, loss, seed = sys.argv[1:]
    one = open_device(here)
    enter_network(int(pid))
    other = open_device(there)
    print("ready", flush=True)
    print(*carry(one, other, float(milliseconds) / 1000, float(loss), random.Random(int(seed))))


if __name__ == "__main__":
    main()
