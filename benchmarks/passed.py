"""What inspections.py looks at: `python passed.py FILE` begins debugpy, writes its port there, and passes a line.

It passes the line as often as each line of standard input says.
"""

from __future__ import annotations

import os
import sys


def work(number: int) -> int:
    """Where the values are logged, and the stop is."""
    double = number * 2
    return double + 1  # LINE work


def main(file: str) -> None:
    """Listen, and do as one is told."""
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
