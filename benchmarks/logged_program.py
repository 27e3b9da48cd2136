"""The program that inspections.py inspects: `python logged_program.py FILE` starts debugpy and writes its port to FILE.

For each number on standard input, it runs the marked line that many times.
"""

from __future__ import annotations

import os
import sys


def work(number: int) -> int:
    """The function with the marked line."""
    double = number * 2
    return double + 1  # LINE work


def main(file: str) -> None:
    """Start debugpy, and run the line as often as standard input says."""
    import debugpy

    _host, port = debugpy.listen(("127.0.0.1", 0))
    with open(file + ".part", "w") as written:
        written.write(str(port))
    os.replace(file + ".part", file)
    for line in sys.stdin:
        for number in range(int(line)):
            work(number)


if __name__ == "__main__":
    main(sys.argv[1])
